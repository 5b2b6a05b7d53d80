// Starts the page: opens the session, follows the silo's state, and hands over to the panels.

import { startAlign, showQuality } from "/page/align.js";
import { call, dropToken, hasToken, openSession, setToken } from "/page/api.js";
import { startClassify, setTasks } from "/page/classify.js";
import { find, notify, show } from "/page/dom.js";
import { startFile } from "/page/file.js";

const EVERY = 10_000;
let known = "";

async function refresh() {
  const status = find("status");
  try {
    const info = await call("GET", "/info");
    show("unlock", false);
    const ready = info.tasks.filter((task) => task.ready && task.kind === "classification");
    if (info.silo === null) {
      setStatus(status, "away", "The silo cannot be reached");
    } else if (ready.length === 0) {
      setStatus(status, "partly", `${info.silo}: not aligned yet`);
    } else {
      setStatus(status, "ready", `${info.silo}, as ${info.identity}`);
    }
    const state = JSON.stringify([info.silo, info.tasks]);
    if (state !== known) {
      known = state;
      setTasks(ready.map((task) => task.name));
      hint(info, ready);
      if (info.silo !== null) await showQuality(info);
    }
  } catch (problem) {
    if (problem.status === 401) lock();
    else setStatus(status, "away", problem.message);
  }
}

function hint(info, ready) {
  if (info.silo === null) notify("The silo cannot be reached. This page retries by itself.", "hint");
  else if (ready.length === 0) notify("This daemon's model has no map to the silo yet. Align first, in panel 4.", "hint");
  else notify("");
}

function setStatus(status, state, text) {
  if (status.textContent !== text) status.textContent = text;
  status.dataset.state = state;
}

function lock() {
  dropToken();
  known = "";
  setStatus(find("status"), "partly", "Locked");
  show("unlock");
}

async function start() {
  find("unlock-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setToken(find("token").value.trim());
    find("token").value = "";
    refresh();
  });
  window.addEventListener("sealign-locked", lock);
  window.addEventListener("sealign-aligned", refresh);
  startClassify();
  startFile();
  startAlign();
  try {
    await openSession();
  } catch (problem) {
    notify(problem.message);
  }
  await refresh();
  if (!hasToken()) find("token").focus();
  setInterval(() => document.visibilityState === "visible" && find("unlock").hidden && refresh(), EVERY);
}

start();
