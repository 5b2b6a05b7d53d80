// The API's page, made from the OpenAPI document of the same daemon.

import { find, make } from "/page/dom.js";

const CODES = {
  INVALID_INPUT: "The request does not fit its description, or a text cannot be used. Correct it.",
  UNAUTHENTICATED: "With 401, the daemon's token is missing or wrong. With 502, the silo refuses the daemon's certificate.",
  NOT_PERMITTED: "The host, the page's origin, or the identity at the silo may not do this.",
  RELEASE_REFUSED: "The silo does not release this, or no more of it, to this client.",
  NOT_FOUND: "There is no such task, path or public set.",
  NO_MAP: "The daemon's model was never aligned with the silo. Align first.",
  NO_PLAN: "No parameter set can hold the task's outputs. The silo's operator must change what is served.",
  BUDGET_EXHAUSTED: "The rows that the silo allows in 24 hours are used up. Retry after the time in Retry-After.",
  OVERLOADED: "Too much at a time. Retry after the time in Retry-After.",
  UNAVAILABLE: "The silo cannot be reached, or the call took too long. Retry.",
  UNKNOWN_KEY: "The silo has evicted the daemon's key. Retry.",
  STALE_PLAN: "The silo has changed the task. Retry.",
  UNKNOWN_MAP: "The silo has evicted the map's registration. Retry.",
  UNKNOWN_SESSION: "The silo has evicted an alignment. Start it again.",
  INSECURE_PARAMETERS: "The silo offers parameters below the demanded security level. Nothing was sent.",
  DECRYPTION_FAILED: "The reply does not decrypt to values in the promised range. Retry, or align over other texts.",
  PEER_FAILED: "The daemon (500) or the silo (502) failed. Its log has the reason under the id in the error.",
};

function typed(schema, schemas) {
  return JSON.stringify(resolved(schema, schemas, 0), null, 2);
}

// A schema with its references put in, as deep as people read.
function resolved(schema, schemas, depth) {
  if (schema === null || typeof schema !== "object") return schema;
  if (Array.isArray(schema)) return schema.map((part) => resolved(part, schemas, depth));
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return depth > 3 ? name : resolved(schemas[name], schemas, depth + 1);
  }
  return Object.fromEntries(Object.entries(schema).filter(([key]) => key !== "title").map(([key, part]) => [key, resolved(part, schemas, depth)]));
}

function folded(title, text) {
  return make("details", {}, make("summary", {}, title), make("pre", { className: "log", tabIndex: 0 }, text));
}

function described(method, path, operation, schemas) {
  const parts = [make("h3", {}, make("span", { className: "method" }, method.toUpperCase()), make("code", {}, path), operation.security.length ? "" : make("span", { className: "quiet" }, "without token")),
    make("p", {}, operation.summary)];
  const body = Object.entries(operation.requestBody?.content ?? {});
  for (const [media, { schema }] of body) parts.push(folded(`Body, ${media}`, typed(schema, schemas)));
  for (const [status, response] of Object.entries(operation.responses)) {
    if (!status.startsWith("2")) continue;
    for (const [media, { schema }] of Object.entries(response.content)) {
      parts.push(folded(`Answer ${status}, ${media}`, media === "text/event-stream" ? "data: {one chunk}\n\ndata: [DONE]" : typed(schema, schemas)));
    }
  }
  const faults = Object.keys(operation.responses).filter((status) => !status.startsWith("2"));
  parts.push(make("p", { className: "quiet" }, `Errors: ${faults.join(", ")}`));
  return make("article", { className: "operation" }, ...parts);
}

const document_ = await (await fetch("/openapi.json")).json();
find("description").textContent = document_.info.description;
for (const [path, operations] of Object.entries(document_.paths)) {
  for (const [method, operation] of Object.entries(operations)) find("operations").append(described(method, path, operation, document_.components.schemas));
}
find("code-rows").replaceChildren(
  ...Object.entries(CODES).map(([code, meaning]) => make("tr", { id: code }, make("th", { scope: "row" }, code), make("td", { className: "meaning" }, meaning))),
);
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
