// A finished video: it can be played and saved, and the facts about it are shown beside it.

import { announce, byId, fileSize, make, plural, took } from "./dom.js";
import { sentences } from "./said.js";
import { time } from "./sound.js";
import { duration } from "./timeline.js";

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** A URL of this daemon by the name that the page was loaded from: behind a proxy the two may differ. */
export function here(url) {
  const { pathname, search } = new URL(url, location.href);
  return pathname + search;
}

/** A URL that the player can load: a job with sync_mode has its video in a data: URL, which the page may not play. */
function source(url) {
  if (!url.startsWith("data:")) return here(url);
  const [head, base64] = url.split(",");
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: head.slice("data:".length).split(";")[0] }));
}

/** Whether a video is an object in a bucket, which the page may not play: its URL is signed, or not one of the web. */
function isObject(url) {
  const { protocol, search } = new URL(url, location.href);
  return !["data:", "http:", "https:"].includes(protocol) || (protocol !== "data:" && search !== "");
}

let shownId = null;

/** The job whose video is shown; null before the first. */
export const showing = () => shownId;

/** Show the result of a job; `isNew` says that it was just rendered, and brings it into view. */
export function showResult(id, result, { isNew = true } = {}) {
  shownId = id;
  byId("stale").hidden = true;
  const panel = byId("video-panel");
  const video = byId("video");
  const isAway = isObject(result.video.url);
  const url = isAway ? result.video.url : source(result.video.url);
  // With its size known before it is loaded, the page does not move under the reader.
  Object.assign(video, { width: result.width, height: result.height });
  video.parentElement.hidden = isAway;
  if (isAway) video.removeAttribute("src");
  else if (video.getAttribute("src") !== url) video.src = url;
  const isOfTheWeb = !isAway || url.startsWith("http");
  Object.assign(byId("download"), { href: url, download: result.video.file_name, hidden: !isOfTheWeb });
  const pictures = BESIDE.filter(([field]) => result[field]).map(([field, name]) => beside(result[field], name));
  byId("beside").replaceChildren(...pictures);
  byId("beside").hidden = !pictures.length;
  byId("facts").replaceChildren(
    ...facts(result).flatMap(([name, value, note]) => [
      make("dt", {}, name),
      make("dd", {}, value, note ? make("span", { class: note.length > 12 ? "note is-long" : "note" }, note) : null),
    ]),
  );
  byId("warnings").replaceChildren(...warnings(result));
  byId("warnings").hidden = !result.warnings?.length;
  panel.hidden = false;
  if (!isNew) return;
  panel.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "nearest" });
  announce(`The video is ready: ${plural(result.frames, "frame")}, ${result.duration} seconds.`);
}

const BESIDE = [
  ["poster", "Poster"],
  ["contact_sheet", "Contact sheet"],
];

/** A picture beside the video, as a link that saves it; one in a bucket is only named. */
function beside({ url, file_name: download, width, height }, name) {
  const words = make("span", {}, name, make("span", { class: "soft" }, `${width} × ${height}`));
  if (isObject(url)) return make("li", {}, words, make("span", { class: "soft" }, url.split("?")[0]));
  const href = source(url);
  return make("li", {}, make("a", { href, download }, make("img", { src: href, alt: "", width, height }), words));
}

/** What a result warns of, as items of a list. */
export const warnings = ({ warnings: found = [] }) =>
  sentences(found.map(({ loc, message }) => ({ loc, words: message }))).map((words) => make("li", {}, words));

function soundFact({ codec, channels, duration: sound_s, stills_duration: stills_s }) {
  const layout = { 1: "mono", 2: "stereo" }[channels] ?? plural(channels, "channel");
  return ["Sound", `${{ aac: "AAC", opus: "Opus" }[codec] ?? codec}, ${layout}`, `sound ${time(sound_s)}, stills ${time(stills_s)}`];
}

function facts(result) {
  const [n, d] = result.fps.split("/").map(Number);
  const rate = Number((n / (d || 1)).toFixed(3));
  const held = result.held_pictures === "synthesised" ? "coded once, repeated" : "coded frame by frame";
  const total_s = result.timings?.total;
  const plays_s = Number(result.duration.toFixed(6));
  const long = duration(String(plays_s));
  return [
    ["Frames", result.frames.toLocaleString("en"), "exactly"],
    ["Duration", long, long.endsWith(" s") ? "" : `${plays_s} s`],
    ["Frame rate", `${rate} fps`, d > 1 ? `${n}/${d}` : ""],
    ["Size", `${result.width} × ${result.height}`],
    ...(result.audio ? [soundFact(result.audio)] : []),
    ["File", fileSize(result.video.file_size)],
    ...(isObject(result.video.url) ? [["Object", result.video.url.split("?")[0]]] : []),
    ["Encoder", result.encoder, result.fallback_reason ?? ""],
    ["Held pictures", held, result.held_pictures_reason ?? ""],
    ...(total_s === undefined ? [] : [["Rendered in", took(total_s)]]),
  ];
}
