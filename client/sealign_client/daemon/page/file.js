// Panel 3: a file, classified in batches by the public endpoint.

import { patient } from "/page/api.js";
import { fillBars, find, make, notify, number, show } from "/page/dom.js";
import { columnsOf, formatOf, rowsOf, toCsv, toJsonl } from "/page/table.js";

const BATCH = 64;
const AT_ONCE = 3;
const ADDED = ["label", "probability", "in_distribution", "error"];
let file = null;
let results = [];
let aborter = null;

export function startFile() {
  const drop = find("drop");
  find("file-input").addEventListener("change", (event) => choose(event.target.files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      if (name === "dragover") drop.dataset.over = "";
      else delete drop.dataset.over;
      if (name === "drop") choose(event.dataTransfer.files[0]);
    });
  }
  find("file-form").addEventListener("submit", (event) => {
    event.preventDefault();
    classifyFile();
  });
  find("file-cancel").addEventListener("click", () => aborter?.abort());
  find("download-csv").addEventListener("click", () => download(toCsv(results), "csv"));
  find("download-jsonl").addEventListener("click", () => download(toJsonl(results), "jsonl"));
}

async function choose(chosen) {
  if (!chosen) return;
  file = chosen;
  show("file-done", false);
  try {
    const columns = await columnsOf(file, formatOf(file.name));
    const likely = columns.find((name) => /text|body|content|message|review/i.test(name)) ?? columns[0];
    find("column").replaceChildren(...columns.map((name) => make("option", { value: name }, name)));
    find("column").value = likely;
    notify("");
    show("file-options");
    find("file-start").textContent = `Classify ${file.name}`;
  } catch (error) {
    show("file-options", false);
    notify(error.message);
  }
}

async function classifyFile() {
  const column = find("column").value;
  aborter = new AbortController();
  results = [];
  working(true);
  const progress = new Progress(file.size);
  try {
    await eachBatch(column, aborter.signal, progress);
    done(progress);
  } catch (error) {
    if (error.status === 401) window.dispatchEvent(new Event("sealign-locked"));
    else if (error.name !== "AbortError") notify(error.message);
    if (results.length > 0) done(progress, error.name === "AbortError" ? "Cancelled. " : "Stopped by an error. ");
  } finally {
    working(false);
  }
}

// Several batches are under way at once; results keep the order of the file.
async function eachBatch(column, signal, progress) {
  const under = [];
  const collect = async () => {
    const finished = await under.shift();
    results.push(...finished);
    progress.advance(finished.length);
  };
  let batch = [];
  for await (const row of rowsOf(file, formatOf(file.name), (count) => progress.read(count))) {
    if (signal.aborted) break;
    batch.push(row);
    if (batch.length < BATCH) continue;
    under.push(answered(batch, column, signal));
    under.at(-1).catch(() => {}); // an error is seen when its turn comes
    batch = [];
    if (under.length >= AT_ONCE) await collect();
  }
  if (batch.length > 0) under.push(answered(batch, column, signal));
  while (under.length > 0) await collect();
  signal.throwIfAborted();
}

async function answered(rows, column, signal) {
  const usable = rows.filter((row) => typeof row[column] === "string" && /\S/.test(row[column]));
  const found = new Map(usable.length ? await classified(usable, column, signal) : []);
  return rows.map((row) => ({ ...row, ...added(found.get(row) ?? { error: "no text" }, row) }));
}

// A column of the file that has one of the added names keeps its own.
function added(result, row) {
  return Object.fromEntries(ADDED.map((name) => [name in row ? `sealign_${name}` : name, result[name] ?? null]));
}

// Pairs of rows and results. A batch that is refused is halved until the row to blame stands alone.
async function classified(rows, column, signal) {
  try {
    const task = find("task").value;
    const input = rows.map((row) => row[column]);
    const { data } = await patient("POST", "/classify", task ? { model: task, input } : { input }, signal);
    return data.map((entry, index) => [rows[index], resultOf(entry)]);
  } catch (problem) {
    if (![413, 422].includes(problem.status)) throw problem;
    if (rows.length === 1) return [[rows[0], { error: problem.message }]];
    const half = rows.length >> 1;
    return [...(await classified(rows.slice(0, half), column, signal)), ...(await classified(rows.slice(half), column, signal))];
  }
}

const resultOf = (entry) => ({
  label: entry.label,
  probability: Number(Math.max(...entry.probs).toFixed(4)),
  in_distribution: entry.in_distribution,
});

class Progress {
  constructor(size) {
    this.size = size;
    this.bytes = 0;
    this.rows = 0;
    this.started = performance.now();
  }

  read(count) {
    this.bytes += count;
  }

  get rate() {
    return this.rows / Math.max(0.001, (performance.now() - this.started) / 1000);
  }

  advance(count) {
    this.rows += count;
    find("file-progress").value = Math.min(0.99, this.bytes / this.size);
    find("file-state").textContent = `${number(this.rows)} rows, ${number(Math.round(this.rate))} rows/s`;
  }
}

function working(active) {
  show("file-work", active);
  show("file-cancel", active);
  find("file-start").disabled = active;
  if (active) {
    show("file-done", false);
    notify("");
    find("file-progress").value = 0;
    find("file-state").textContent = "Reading";
  }
}

function done(progress, prefix = "") {
  const counts = new Map();
  let failed = 0;
  let unlike = 0;
  for (const row of results) {
    const label = row.sealign_label ?? row.label;
    if ((row.sealign_error ?? row.error) !== null) failed++;
    else counts.set(label, (counts.get(label) ?? 0) + 1);
    if ((row.sealign_in_distribution ?? row.in_distribution) === false) unlike++;
  }
  const seconds = ((performance.now() - progress.started) / 1000).toFixed(1);
  find("file-summary").textContent =
    `${prefix}${number(results.length)} rows in ${seconds} s. ${number(unlike)} out of distribution, ${number(failed)} with an error.`;
  const entries = [...counts].sort((one, other) => other[1] - one[1]);
  fillBars(find("file-bars"), entries.map(([name, count]) => ({ name, share: count / results.length, value: number(count) })));
  show("file-done");
}

function download(content, extension) {
  const link = make("a", { href: URL.createObjectURL(content), download: `${file.name.replace(/\.[^.]+(\.gz)?$/, "")}.classified.${extension}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
