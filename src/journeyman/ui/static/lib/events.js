// The stream of server-sent events, read with fetch, because EventSource cannot send the token in a header.

import { request } from "./api.js";

const WAITS_MS = [500, 1000, 2000, 4000];
const SILENT_MS = 40000; // the server says something every 15 seconds

/** Listens as long as the page is open, and again after the server was away.
 *
 * told: hello() after each connection, changed({run: [resource, …]}), away(error). */
export async function listen(told) {
  for (let failures = 0; ; failures += 1) {
    try {
      await read(told, () => { failures = 0; });
      throw new Error("the stream ended");
    } catch (error) {
      told.away(error);
      if (error.status === 401) return;
    }
    await new Promise((done) => setTimeout(done, WAITS_MS[Math.min(failures, WAITS_MS.length - 1)]));
  }
}

async function read(told, connected) {
  const abort = new AbortController();
  let silence = setTimeout(() => abort.abort(), SILENT_MS);
  const response = await request("/api/events", { signal: abort.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    clearTimeout(silence);
    silence = setTimeout(() => abort.abort(), SILENT_MS);
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const { event, data } = fields(part);
      if (event === "hello") {
        connected();
        told.hello();
      } else if (event === "changed") {
        told.changed(JSON.parse(data));
      }
    }
  }
  clearTimeout(silence);
}

function fields(part) {
  const found = {};
  for (const line of part.split("\n")) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) || [];
    if (name) found[name] = value;
  }
  return found;
}
