// Starts the page: opens the session, follows the silo's state, and hands over to the panels.

import { offerPublicSets, showQuality, startAlign } from "/page/align.js";
import { call, dropToken, hasToken, openSession, setToken } from "/page/api.js";
import { startClassify, setTasks } from "/page/classify.js";
import { find, notify, show } from "/page/dom.js";
import { startFile } from "/page/file.js";
import { setGenerationTasks, startGenerate } from "/page/generate.js";

const EVERY = 10_000;
const PANELS = { classification: ["classify", "silo", "file", "align"], generation: ["generate"] };
let known = "";

async function refresh() {
  const status = find("status");
  try {
    const info = await call("GET", "/info");
    show("unlock", false);
    const ready = info.tasks.filter((task) => task.ready);
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
      showPanels(info);
      setTasks(namesOf(ready, "classification"));
      setGenerationTasks(namesOf(ready, "generation"));
      hint(info, ready);
      if (info.silo !== null && info.encoder !== null) await Promise.all([showQuality(info), offerPublicSets()]);
    }
  } catch (problem) {
    if (problem.status === 401) lock();
    else setStatus(status, "away", problem.message);
  }
}

const namesOf = (tasks, kind) => tasks.filter((task) => task.kind === kind).map((task) => task.name);

// A daemon has an encoder, a causal model, or both.
function showPanels(info) {
  const used = { classification: info.encoder !== null, generation: info.model !== null };
  for (const [kind, panels] of Object.entries(PANELS)) {
    for (const id of panels) {
      show(id, used[kind]);
      document.querySelector(`nav a[href="#${id}"]`).hidden = !used[kind];
    }
  }
  find("title").textContent = `${used.classification ? "Classify" : "Generate"} without showing your text`;
  document.querySelector(".skip").hash = used.classification ? "#classify" : "#generate";
}

function hint(info, ready) {
  const [unaligned] = namesOf(info.tasks, "generation").filter((name) => !namesOf(ready, "generation").includes(name));
  if (info.silo === null) notify("The silo cannot be reached. This page retries by itself.", "hint");
  else if (info.encoder !== null && namesOf(ready, "classification").length === 0) {
    notify("This daemon's encoder has no map to the silo yet. Align first, in the panel Align.", "hint");
  } else if (unaligned !== undefined) {
    notify(`This daemon's model has no map to task ${unaligned} yet. Run sealign align --generation ${unaligned} --public FILE.`, "hint");
  } else notify("");
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
  startGenerate();
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
