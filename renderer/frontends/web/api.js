// The daemon as the page sees it: the hosted service's routes, and a few of its own below /api.
//
// The key is asked for only when the daemon wants one, and lives as long as the tab. Server-sent events are read with
// fetch, because EventSource cannot send it. Every path is relative to the page, which a proxy may have below a prefix.

const APP = "fal-ai/ffmpeg-api";
const KEY = "stillreel.key";
const LONGEST_PAUSE_MS = 10000;
const SILENCE_MS = 40000; // the daemon sends something every 16 s at least, so a silent connection is dead
const BEGINNING_BYTES = 8192; // of a file, by which the daemon tells what it is

/** An answer that reports an error. `faults` are [{loc, msg, type}], loc as in ["images", 3, "url"]. */
export class Refused extends Error {
  constructor(status, words, faults = []) {
    super(words);
    this.status = status;
    this.faults = faults;
  }
}

export const keys = new EventTarget(); // "wanted" when the daemon asks for a key, "given" when there is one
let giveKey = null;
let keyComes = null;

export const currentKey = () => sessionStorage.getItem(KEY);

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
  giveKey?.();
  giveKey = keyComes = null;
  keys.dispatchEvent(new Event("given"));
}

function nextKey() {
  keyComes ??= new Promise((given) => (giveKey = given));
  keys.dispatchEvent(new CustomEvent("wanted", { detail: { isWrong: Boolean(currentKey()) } }));
  return keyComes;
}

/** fetch with the key; asks for one and tries again as long as the daemon says 401. */
async function ask(path, options = {}) {
  for (;;) {
    const headers = new Headers(options.headers);
    const key = currentKey();
    if (key) headers.set("Authorization", `Key ${key}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The daemon does not answer. Is it still running?");
    }
    if (response.status !== 401) return response;
    if (key === currentKey()) await nextKey(); // otherwise a key was entered while this request was under way
  }
}

async function json(path, options) {
  const response = await ask(path, options);
  const body = await response.json().catch(() => null);
  if (!response.ok) throw refusal(response.status, body);
  return body;
}

function refusal(status, body) {
  const detail = body?.detail;
  if (Array.isArray(detail)) {
    const faults = detail.map(({ loc = [], msg, type }) => ({
      loc: loc[0] === "body" ? loc.slice(1) : loc,
      msg,
      type,
    }));
    return new Refused(status, body.message ?? faults.map((fault) => fault.msg).join("; "), faults);
  }
  const words = typeof detail === "string" ? detail : body?.message;
  return new Refused(status, words ?? `The daemon answered ${status}.`);
}

/** Store a file and return the URL that a request names it by. */
export async function upload(file, name) {
  const headers = {
    "Content-Type": file.type || "application/octet-stream",
    "X-Fal-File-Name": name.replace(/[^\x20-\x7e]/g, "_"), // a header holds no more
  };
  return (await json("files/upload", { method: "POST", headers, body: file })).access_url;
}

const post = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

export const submit = (request) => json(`queue/${APP}/images-to-video`, post(request));
export const status = (id) => json(`queue/${APP}/requests/${encodeURIComponent(id)}/status`);
export const result = (id) => json(`queue/${APP}/requests/${encodeURIComponent(id)}`);

/** Ask a job to end; it is not an error if it has ended already. */
export async function cancel(id) {
  const response = await ask(`queue/${APP}/requests/${encodeURIComponent(id)}/cancel`, { method: "PUT" });
  if (!response.ok && response.status !== 400) throw refusal(response.status, await response.json().catch(() => null));
}

/** Why the daemon cannot read a file as an "image" or as "audio", judged by its first bytes, or an empty text. */
export async function refusalOf(file, kind) {
  let beginning;
  try {
    beginning = await file.slice(0, BEGINNING_BYTES).arrayBuffer();
  } catch {
    return "it cannot be read; is it a folder?";
  }
  const { message } = await json(`api/recognise?kind=${kind}`, { method: "POST", body: beginning });
  return message ?? "";
}

export const about = () => json("api/about");
export const details = (id) => json(`api/jobs/${encodeURIComponent(id)}`);
export const doctor = () => json("api/doctor");
export const health = () => json("api/health");
/**
 * Call `each(jobs)` for every `jobs` event, for as long as the page lives; `linked(isUp)` when the line is lost or
 * back.
 * After a loss it comes back by itself, sooner at first.
 */
export async function watchJobs(each, linked) {
  let pause_ms = 500;
  for (;;) {
    try {
      const response = await ask("api/events", { headers: { Accept: "text/event-stream" } });
      if (!response.ok) throw new Refused(response.status, "no events");
      linked(true);
      pause_ms = 500;
      for await (const event of events(response.body)) {
        if (event.type === "jobs") each(JSON.parse(event.data));
      }
    } catch (error) {
      if (!(error instanceof Refused || error instanceof TypeError)) throw error;
    }
    linked(false);
    await new Promise((go) => setTimeout(go, pause_ms));
    pause_ms = Math.min(LONGEST_PAUSE_MS, pause_ms * 2);
  }
}

/** The events of a stream (HTML, 9.2.6), as {type, data}. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const timer = setTimeout(() => reader.cancel(), SILENCE_MS); // ends the stream
    const { done, value } = await reader.read();
    clearTimeout(timer);
    if (done) return;
    const blocks = (text + value).split(/\r\n\r\n|\n\n|\r\r/);
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r\n|\n|\r/).map((line) => /^([a-z]+):? ?(.*)$/.exec(line));
      const of = (name) => lines.filter((line) => line?.[1] === name).map((line) => line[2]);
      if (of("data").length) yield { type: of("event").at(-1) ?? "message", data: of("data").join("\n") };
    }
  }
}
