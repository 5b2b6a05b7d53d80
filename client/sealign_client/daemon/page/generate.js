// The panel that generates: tokens as they come, each with the ciphertext that it came from.

import { events } from "/page/api.js";
import { bytes, fillBars, fillTasks, find, make, notify, number, percent, show } from "/page/dom.js";

const ALTERNATIVES = 5;
const NO_REPEAT_RUN = 4; // small models repeat themselves, otherwise
let current = null;

export function setGenerationTasks(names) {
  fillTasks("generate-task", names);
  find("generate-button").disabled = names.length === 0 || current !== null;
}

export function startGenerate() {
  find("generate-button").disabled = true;
  find("generate-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (current === null) generate(find("prompt").value, Number(find("max-tokens").value));
  });
  find("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("generate-form").requestSubmit();
  });
  find("generate-stop").addEventListener("click", () => current?.abort());
}

async function generate(prompt, limit) {
  const made = begin(prompt);
  const body = { prompt, max_tokens: limit, temperature: 0, no_repeat_run: NO_REPEAT_RUN, logprobs: ALTERNATIVES, stream: true };
  if (find("generate-task").value) body.model = find("generate-task").value;
  let ending = "Done";
  try {
    for await (const chunk of events("/v1/completions", body, current.signal)) showToken(made, chunk);
    notify("");
  } catch (problem) {
    ending = "Stopped";
    if (problem.status === 401) window.dispatchEvent(new Event("sealign-locked"));
    else if (problem.name !== "AbortError") notify(problem.message);
  } finally {
    working(false);
    find("generate-busy").textContent = `${ending}: ${number(made.tokens)} tokens`;
  }
}

function begin(prompt) {
  working(true);
  show("generated");
  find("written").replaceChildren(prompt);
  find("written-source").textContent = "";
  find("token-bars").replaceChildren();
  find("generate-busy").textContent = "Reading, encrypting, asking…";
  return { tokens: 0, sent: 0, received: 0, silo: 0, begun: performance.now() };
}

// A screen reader is told the text at the end, and not token by token.
function working(active) {
  current = active ? new AbortController() : null;
  find("written").ariaBusy = String(active);
  find("generate-button").disabled = active;
  show("generate-stop", active);
}

function showToken(made, { choices: [choice], ciphertexts }) {
  made.tokens += 1;
  made.sent += ciphertexts.query_bytes;
  made.received += ciphertexts.reply_bytes;
  made.silo += ciphertexts.silo_ms;
  const sizes = `${bytes(ciphertexts.query_bytes)} encrypted out, ${bytes(ciphertexts.reply_bytes)} encrypted back`;
  find("written").append(make("span", { className: "token", title: sizes }, choice.text));
  const each = (performance.now() - made.begun) / made.tokens;
  find("written-source").textContent =
    `Each of the ${number(made.tokens)} marked tokens came from a ciphertext: ${bytes(made.sent)} left this computer, ` +
    `${bytes(made.received)} came back, all encrypted. A token took ${each.toFixed(0)} ms, ${(made.silo / made.tokens).toFixed(1)} of them at the silo.`;
  const [likeliest] = choice.logprobs.top_logprobs;
  fillBars(find("token-bars"), Object.entries(likeliest).map(([text, value]) => {
    const share = Math.exp(value);
    return { name: JSON.stringify(text), share, value: percent(share) };
  }));
}
