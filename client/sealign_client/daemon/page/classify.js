// Panels 1 and 2: one text, its answer, and both sides of the call.

import { call } from "/page/api.js";
import { bytes, fillBars, fillTasks, find, make, notify, number, percent, show } from "/page/dom.js";

const STAGES = { embed: "embed here", encrypt: "encrypt here", network: "network", silo: "the silo", decrypt: "decrypt here" };
const KINDS = [
  ["bare", "A bare embedding", "The search finds what your text is about.", "No public text is like yours: nothing is found this time."],
  ["rotated", "A rotated embedding", "A secret rotation keeps every angle, so the same texts are found.", "A secret rotation keeps every angle: the same search."],
  ["encrypted", "This ciphertext", "What is found is chance. Classify again, and other texts come."],
];
let last = null;

export function setTasks(names) {
  fillTasks("task", names);
  find("classify-button").disabled = names.length === 0;
}

export function startClassify() {
  find("classify-button").disabled = true;
  find("classify-form").addEventListener("submit", (event) => {
    event.preventDefault();
    inspect(find("text").value);
  });
  find("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("classify-form").requestSubmit();
  });
  find("public-form").addEventListener("submit", usePublicTexts);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => last && drawSides(last.answer));
}

async function inspect(text) {
  const button = find("classify-button");
  button.disabled = true;
  find("classify-busy").textContent = "Embedding, encrypting, asking…";
  try {
    const task = find("task").value;
    const answer = await call("POST", "/page/inspect", task ? { text, task } : { text });
    last = { text, answer };
    notify("");
    render(text, answer);
    find("classify-busy").textContent = `Done: ${answer.label}`;
  } catch (problem) {
    find("classify-busy").textContent = "";
    if (problem.status === 401) window.dispatchEvent(new Event("sealign-locked"));
    else notify(problem.message);
  } finally {
    button.disabled = false;
  }
}

function render(text, answer) {
  show("answer");
  show("silo-seen");
  show("silo-empty", false);
  const [best] = answer.bars;
  find("winner").textContent = answer.label;
  const doubt = answer.calibrated ? "" : ", not calibrated for this map";
  find("winner-share").textContent = `${percent(best.probability)}${doubt}`;
  fillBars(find("bars"), answer.bars.map((bar) => ({ name: bar.label, share: bar.probability, value: percent(bar.probability) })));
  renderScore(answer.score);
  renderStages(answer.stages);
  find("stayed-text").textContent = text;
  find("dimension").textContent = `${number(answer.stayed.embedding.length)} numbers, by ${answer.stayed.encoder}`;
  find("key").textContent = `${answer.stayed.key_id.slice(0, 32)}…`;
  find("query-size").textContent = bytes(answer.left.query_bytes);
  find("reply-size").textContent = bytes(answer.left.reply_bytes);
  find("parameters").textContent = `CKKS, ${answer.left.parameters}`;
  drawSides(answer);
  find("record").textContent = recordLines(answer.record);
  renderGiven(answer.given_away, answer.stayed.embedding.length);
}

function renderScore(score) {
  show("scale", score !== null);
  if (score === null) {
    find("verdict").textContent = "This task has no score for it.";
    return;
  }
  const span = Math.max(Math.abs(score.value - score.threshold) * 1.25, Math.abs(score.threshold), 1);
  const at = Math.max(0.02, Math.min(0.98, 0.5 + (score.value - score.threshold) / (2 * span)));
  find("scale").querySelector(".marker").style.left = `${at * 100}%`;
  const alike = score.in_distribution ?? score.value >= score.threshold;
  const verdict = alike ? "Yes: in distribution." : "No: out of distribution. Do not rely on the answer.";
  const figures = `${score.name} ${score.value.toFixed(2)}, threshold ${score.threshold.toFixed(2)}`;
  find("verdict").replaceChildren(make("b", {}, verdict), make("span", { className: "quiet" }, ` ${figures}`));
  find("scale").setAttribute("aria-label", `${verdict} ${figures}`);
}

function renderStages(stages) {
  const total = stages.reduce((sum, stage) => sum + stage.ms, 0);
  find("stages").replaceChildren(
    ...stages.map((stage, index) => {
      const part = make("i", { data: { stage: index } });
      part.style.flex = `${stage.ms / total} 0 0`;
      return part;
    }),
  );
  const entries = stages.map((stage, index) =>
    make("li", {}, make("i", { data: { stage: index }, ariaHidden: "true" }), `${STAGES[stage.name] ?? stage.name} ${stage.ms.toFixed(1)} ms`));
  find("stage-list").replaceChildren(...entries, make("li", {}, make("b", {}, `${total.toFixed(1)} ms in all`)));
}

function drawSides(answer) {
  drawStrip(find("embedding"), answer.stayed.embedding);
  const query = decoded(answer.left.query_sample);
  drawBytes(find("ciphertext"), query, "The end of the ciphertext, one square a byte: it looks like noise.");
  drawBytes(find("reply"), decoded(answer.left.reply_sample), "The end of the encrypted reply, one square a byte: it looks like noise.");
  find("hex").textContent = [...query.slice(0, 32)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ") + " …";
}

const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Negative values in one colour, positive ones in another, the larger the stronger.
function drawStrip(canvas, values) {
  const rows = Math.max(1, Math.round(values.length / 128));
  const columns = Math.ceil(values.length / rows);
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const [negative, positive, ground] = dark
    ? [[240, 179, 95], [92, 207, 177], [22, 48, 42]]
    : [[138, 75, 0], [11, 110, 90], [227, 242, 238]];
  paint(canvas, columns, rows, (index) => {
    const value = (values[index] ?? 0) / largest;
    const colour = value < 0 ? negative : positive;
    const weight = Math.sqrt(Math.abs(value));
    return ground.map((part, channel) => part + (colour[channel] - part) * weight);
  });
  canvas.setAttribute("aria-label", `The embedding as ${values.length} coloured cells.`);
}

function drawBytes(canvas, content, label) {
  const rows = 12;
  paint(canvas, Math.floor(content.length / rows) || 1, rows, (index) => {
    const value = content[index] ?? 0;
    return [value, value * 0.9, value * 0.75];
  });
  canvas.setAttribute("aria-label", label);
}

function paint(canvas, columns, rows, colourOf) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let index = 0; index < columns * rows; index++) image.data.set([...colourOf(index).map(Math.round), 255], index * 4);
  context.putImageData(image, 0, 0);
}

function recordLines(record) {
  const entries = Object.entries(record).filter(([, value]) => value !== null);
  return `{${entries.map(([name, value]) => `"${name}": ${JSON.stringify(value)}`).join(", ")}}`;
}

// Whether a text is found that is nearer than the nearest of as many random directions would be.
function isFound(given, dimension) {
  const chance = Math.sqrt((2 * Math.log(given.public_texts)) / dimension);
  return given.bare[0].cosine > 1.5 * chance;
}

function renderGiven(given, dimension) {
  show("no-public", given === null);
  show("given", given !== null);
  if (given === null) return;
  const found = isFound(given, dimension);
  find("given").replaceChildren(
    ...KINDS.map(([kind, title, meaning, missed]) =>
      make("section", { className: "found", data: { kind } }, make("h4", {}, title), make("p", {}, found ? meaning : (missed ?? meaning)),
        make("ol", {}, ...given[kind].map((near) => make("li", {}, make("b", {}, near.cosine.toFixed(2)), shortened(near.text)))))),
  );
}

const shortened = (text) => (text.length > 160 ? `${text.slice(0, 157)}…` : text);

async function usePublicTexts(event) {
  event.preventDefault();
  const button = find("public-form").querySelector("button");
  button.disabled = true;
  button.textContent = "Embedding…";
  try {
    const [file] = find("public-file").files;
    await call("PUT", `/page/public-texts${file ? "" : "?public=general"}`, file ?? new Blob());
    if (last) await inspect(last.text);
  } catch (problem) {
    notify(problem.message);
  } finally {
    button.disabled = false;
    button.textContent = "Search them";
  }
}
