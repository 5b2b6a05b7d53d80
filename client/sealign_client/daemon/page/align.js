// Panel 4: learn a map, follow the work, and plot how good the maps are.

import { call } from "/page/api.js";
import { draw, fillBars, find, make, notify, number, show } from "/page/dom.js";

const EVERY = 400;
const MEASURES = [
  ["explained_variance", "variance", "explained variance"],
  ["mean_cosine", "cosine", "mean cosine"],
  ["linear_cka", "cka", "linear CKA"],
];
let current = null;

export function startAlign() {
  find("align-form").addEventListener("submit", (event) => {
    event.preventDefault();
    align(find("align-public").value, new FormData(event.target).get("mode"));
  });
  find("align-public").addEventListener("change", choose);
  find("align-cancel").addEventListener("click", () => current && call("DELETE", `/page/alignments/${current}`));
}

// The parts of the general set that the silo holds too are offered; the largest is chosen until the user chooses.
export async function offerPublicSets() {
  let held;
  try {
    ({ public_sets: held } = await call("GET", "/page/public-sets"));
  } catch {
    return; // the state line says what is wrong
  }
  const select = find("align-public");
  const [own] = [...select.options].slice(-1);
  const chosen = select.options.length > 1 ? select.value : held[0]?.name;
  const names = held.map(({ name, texts }) => make("option", { value: name }, `${number(texts)} general texts that ship with Sealign`));
  select.replaceChildren(...names, own);
  select.value = held.some(({ name }) => name === chosen) ? chosen : "";
  choose();
}

function choose() {
  const own = find("align-public").value === "";
  show("align-own", own);
  find("align-file").required = own;
}

async function align(name, mode) {
  working(true);
  try {
    const query = new URLSearchParams(name ? { mode, public: name } : { mode });
    let state = await call("POST", `/page/alignments?${query}`, name ? new Blob() : find("align-file").files[0]);
    current = state.id;
    while (state.state === "running") {
      find("align-progress").value = state.fraction;
      const label = `${state.stage}, ${Math.round(state.fraction * 100)} %`;
      find("align-state").textContent = label[0].toUpperCase() + label.slice(1);
      await new Promise((resolve) => setTimeout(resolve, EVERY));
      state = await call("GET", `/page/alignments/${current}`);
    }
    if (state.state === "failed") notify(state.problem.detail);
    else notify("");
    window.dispatchEvent(new Event("sealign-aligned"));
    await showQuality(await call("GET", "/info"));
  } catch (problem) {
    if (problem.status === 401) window.dispatchEvent(new Event("sealign-locked"));
    else notify(problem.message);
  } finally {
    current = null;
    working(false);
  }
}

function working(active) {
  show("align-work", active);
  show("align-cancel", active);
  find("align-start").disabled = active;
  find("align-progress").value = 0;
  find("align-state").textContent = "Starting";
}

export async function showQuality(info) {
  let maps;
  try {
    ({ maps } = await call("GET", "/page/maps"));
  } catch {
    return; // the state line says what is wrong
  }
  show("quality", maps.length > 0);
  if (maps.length === 0) return;
  find("quality-plot").replaceChildren(plot(maps));
  find("quality-rows").replaceChildren(...maps.map(row));
  const bars = info.tasks.filter((task) => task.kind === "classification").flatMap(accuracies);
  const list = make("ol", { className: "bars" });
  fillBars(list, bars);
  find("accuracy").replaceChildren(...(bars.length ? [make("h3", {}, "Accuracy that the silo states for its tasks"), list] : []));
}

function accuracies(task) {
  const own = { name: `${task.name}, silo's own texts`, share: task.held_out_accuracy, value: share(task.held_out_accuracy) };
  if (task.mapped_accuracy === null) return [own];
  return [own, { name: `${task.name}, through this map`, share: task.mapped_accuracy, value: share(task.mapped_accuracy) }];
}

const share = (value) => `${(value * 100).toFixed(1)} %`;
const figure = (value) => (value === null ? "not measured" : value.toFixed(3));

function row(map, index) {
  const name = index === 0 ? `${map.id.slice(0, 12)}…, in use` : `${map.id.slice(0, 12)}…`;
  const cells = [number(map.rows), ...MEASURES.map(([key]) => figure(map[key])), map.created.slice(0, 16).replace("T", " ")];
  return make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)));
}

// One line per map, a dot per measure, on an axis from 0 to 1.
function plot(maps) {
  const shown = maps.slice(0, 6);
  const [left, width, step] = [116, 560, 34];
  const bottom = 44 + shown.length * step;
  const at = (value) => left + Math.max(0, Math.min(1, value)) * width;
  const picture = draw("svg", { viewBox: `0 0 700 ${bottom + 26}` });
  MEASURES.forEach(([, kind, name], index) => {
    picture.append(draw("circle", { cx: left + 6 + index * 170, cy: 14, r: 6, class: kind }), draw("text", { x: left + 18 + index * 170, y: 18 }, name));
  });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(draw("line", { x1: at(value), x2: at(value), y1: 32, y2: bottom, class: "axis" }));
    picture.append(draw("text", { x: at(value), y: bottom + 18, "text-anchor": "middle" }, String(value)));
  }
  shown.forEach((map, index) => {
    const y = 32 + step * (index + 0.6);
    picture.append(draw("line", { x1: left, x2: left + width, y1: y, y2: y, class: "axis" }));
    picture.append(draw("text", { x: 0, y: y + 4 }, map.id.slice(0, 10) + "…"));
    for (const [key, kind] of MEASURES) if (map[key] !== null) picture.append(draw("circle", { cx: at(map[key]), cy: y, r: 7, class: kind }));
  });
  return picture;
}
