// A request on its way to the daemon: its images and sounds first, then the request itself, once.

import * as api from "./api.js";
import { plural } from "./dom.js";
import { feed } from "./feed.js";
import { reel } from "./reel.js";

const UPLOADS_AT_ONCE = 3;
const SENDS = 3;
const PAUSE_MS = 1000;

/** A name for a job that nobody has yet. randomUUID would need a page from HTTPS or from this machine. */
export function newId() {
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Upload what is not there yet; a file that is refused is marked, and ends the run.
 *
 * @param sources stills and sounds.
 * @param run {isCancelled}: looked at before each file.
 * @param show called with words and a share from 0 to 1.
 */
export async function uploadAll(sources, run, show) {
  const files = new Set(); // copies of a still share its file, which is sent once
  const waiting = sources.filter(({ url, file }) => !url && !files.has(file) && files.add(file));
  const count = waiting.length;
  const faults = new Map();
  const tell = () =>
    show(`Uploading, ${count - waiting.length} of ${plural(count, "file")}`, 1 - waiting.length / count);
  const uploadSome = async () => {
    while (waiting.length && !run.isCancelled) {
      const source = waiting.shift();
      tell();
      const words = await upload(source);
      if (words) faults.set(source.key, words);
      for (const copy of sources) if (copy.file === source.file) copy.url ??= source.url;
    }
  };
  await Promise.all(Array.from({ length: UPLOADS_AT_ONCE }, uploadSome));
  reel.setFaults(faults);
  if (faults.size) throw new api.Refused(0, `${plural(faults.size, "file")} could not be uploaded.`);
}

/** Upload one file; returns what is wrong with it, or an empty text. */
async function upload(source) {
  try {
    source.url = await api.upload(source.file, source.name);
    return "";
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    return error.message;
  }
}

/** Submit, and again if no answer came: the same id is the same job, so what was accepted is not rendered twice. */
export async function send(request) {
  for (let left = SENDS; ;) {
    try {
      await api.submit(request);
      return;
    } catch (error) {
      left -= 1;
      const isUnclear = error instanceof api.Refused && (error.status === 0 || error.status >= 500);
      if (!isUnclear || !left) throw error;
      await new Promise((go) => setTimeout(go, PAUSE_MS));
      if (feed.get(request.request_id)) return;
    }
  }
}
