// Calls of the daemon. The token lives in this tab's session storage and nowhere else.

const KEY = "sealign-token";
const ATTEMPTS = 6;

export class Problem extends Error {
  constructor(status, body, wait) {
    super(body?.detail ?? `The daemon answered ${status}.`);
    this.status = status;
    this.code = body?.code ?? "";
    this.wait = wait;
  }
}

// Exchange the ticket of the printed address, once, and take it out of the address bar.
export async function openSession() {
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (ticket === null) return;
  history.replaceState(null, "", location.pathname);
  try {
    const { token } = await call("POST", "/page/session", { ticket });
    setToken(token);
  } catch (problem) {
    if (problem.status !== 401) throw problem;
  }
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;
export const setToken = (token) => sessionStorage.setItem(KEY, token);
export const dropToken = () => sessionStorage.removeItem(KEY);

// A body that is a Blob is sent as text, another one as JSON.
export async function call(method, path, body, signal) {
  const response = await answered(method, path, body, signal);
  return response.json().catch(() => null);
}

// Yields the events of a stream; one that says what went wrong is thrown.
export async function* events(path, body, signal) {
  const response = await answered("POST", path, body, signal);
  let held = "";
  try {
    for await (const piece of pieces(response.body.pipeThrough(new TextDecoderStream()).getReader())) {
      const parts = (held + piece).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const data = part.slice("data: ".length);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new Problem(response.status, { detail: event.error.message, code: event.error.code });
        yield event;
      }
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
  }
  throw new Problem(0, { detail: "The daemon ended the stream early. Check that it runs, and generate again." });
}

async function* pieces(reader) {
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function answered(method, path, body, signal) {
  const headers = {};
  const token = sessionStorage.getItem(KEY);
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const request = { method, headers, signal, cache: "no-store" };
  if (body instanceof Blob) {
    headers["Content-Type"] = "text/plain";
    request.body = await body.arrayBuffer();
  } else if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The daemon does not answer. Check that it runs." });
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Problem(response.status, answer, Number(response.headers.get("Retry-After")) || 1);
  }
  return response;
}

// The same, asked again while the daemon or the silo says that waiting helps.
export async function patient(method, path, body, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call(method, path, body, signal);
    } catch (problem) {
      if (attempt === ATTEMPTS || ![429, 503, 504].includes(problem.status)) throw problem;
      await new Promise((resolve) => setTimeout(resolve, Math.min(problem.wait, 30) * 1000));
    }
  }
}
