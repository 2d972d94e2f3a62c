// How images and sounds are added: dropped anywhere on the page, pasted or chosen, and restored after a reload of the
// same tab.
//
// What was uploaded is remembered for as long as the tab lives, so a page that is loaded again in mid-render still
// shows the stills that are being rendered.

import { about } from "./about.js";
import { Refused, refusalOf } from "./api.js";
import { announce, byId, fileSize, make, plural, sentence } from "./dom.js";
import { hear } from "./hearing.js";
import { look } from "./pictures.js";
import { FIRST_HOLD, reel } from "./reel.js";
import { UNTOUCHED } from "./sound.js";
import { here } from "./video.js";

const KEPT_REEL = "stillreel.reel";
const FAMILIAR = /^image\/(png|jpeg|webp|gif|bmp|avif)$/; // what every browser shows, and the daemon reads
const SOUND = /^(audio|video)\//;
const SOUND_NAME = /\.(aac|flac|m4a|mka|mp3|oga|ogg|opus|wav)$/i; // of a file that the browser knows no type for
const MOST_SOUNDS = 16; // in a request
const LEFT_OUT_SHOWN = 6;

let leftOut = []; // of the files that came last: [name, words]

export function setUpAdding() {
  for (const [id, field] of Object.entries({ choose: "files", add: "files", "add-sound": "sound-files" })) {
    byId(id).addEventListener("click", () => byId(field).click());
  }
  for (const field of [byId("files"), byId("sound-files")]) {
    field.addEventListener("change", () => {
      add([...field.files]);
      field.value = "";
    });
  }
  byId("left-out-close").addEventListener("click", () => {
    leftOut = [];
    tellLeftOut();
    byId(reel.stills.length ? "add" : "choose").focus();
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) add([...event.clipboardData.files]);
  });
  setUpDrop();
  restore().then(() => ["stills", "faults"].forEach((what) => reel.addEventListener(what, keep)));
}

function setUpDrop() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // dragenter and dragleave come for every element on the way
  const lit = (by) => {
    depth = by ? depth + by : 0;
    document.body.classList.toggle("is-dropping", depth > 0);
  };
  document.addEventListener("dragenter", (event) => hasFiles(event) && lit(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && lit(-1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    lit(0);
    if (!hasFiles(event)) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
}

/** Add files in their order; those that cannot be read or are too many are left out and listed. */
function add(files) {
  const wasEmpty = !reel.stills.length;
  const before = { image: reel.stills.length, sound: reel.sounds.length };
  leftOut = [];
  for (const file of files) {
    const isOne = isSound(file);
    const words = isOne ? faultOfSound(file) : faultOf(file);
    if (words) leftOut.push([file.name, words]);
    else if (isOne) listen(reel.addSound(file.name, file));
    else measure(reel.add(file.name, file));
  }
  tellLeftOut();
  const out = leftOut.length ? ` ${plural(leftOut.length, "file")} left out.` : "";
  const counts = { image: reel.stills.length - before.image, sound: reel.sounds.length - before.sound };
  const names = Object.keys(counts).filter((name) => counts[name] || (name === "image" && !counts.sound));
  announce(`${names.map((name) => plural(counts[name], name)).join(" and ")} added.${out}`);
  if (wasEmpty && reel.stills.length && document.activeElement === document.body)
    byId("bench").focus({ preventScroll: true });
}

const isSound = ({ type, name }) => (type ? SOUND.test(type) : SOUND_NAME.test(name));

function faultOfSound({ size }) {
  if (!size) return "an empty file";
  if (size > about.max_audio_bytes) {
    return `${fileSize(size)}, and this daemon takes sounds up to ${fileSize(about.max_audio_bytes)}`;
  }
  return reel.sounds.length >= MOST_SOUNDS ? `too many sounds: a video has up to ${MOST_SOUNDS}` : "";
}

/** Why a file is not taken as an image, as far as is known without reading it, or an empty text. */
function faultOf({ type, size }) {
  if (type && !type.startsWith("image/") && type !== "application/octet-stream") return `not a picture (${type})`;
  if (!size) return "an empty file";
  if (size > about.max_image_bytes) {
    return `${fileSize(size)}, and this daemon takes up to ${fileSize(about.max_image_bytes)}`;
  }
  return reel.stills.length >= about.max_images
    ? `too many stills: this daemon takes up to ${plural(about.max_images, "still")}`
    : "";
}

/** Measure a still; what this browser cannot show is taken only if the daemon says that it reads it. */
async function measure(still) {
  const seen = await look(still.file);
  if (!seen || !FAMILIAR.test(still.file.type)) {
    const words = await refused(still, "image");
    if (words) return leave(still, words);
  }
  reel.update(still.key, seen ?? { isUnreadable: true });
}

/** Listen to a sound; it is taken if the daemon says that it reads it, whether or not this browser can decode it. */
async function listen(sound) {
  const [heard, words] = await Promise.all([hear(sound.file), refused(sound, "audio")]);
  if (words) return leave(sound, words);
  reel.updateSound(sound.key, heard ? { long_s: heard.long_s } : { isUnheard: true });
}

/** Why the daemon does not read a file, or an empty text; if it does not answer, rendering will show the fault. */
async function refused(source, kind) {
  try {
    return await refusalOf(source.file, kind);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return "";
  }
}

function leave(source, words) {
  reel.discard(source.key);
  leftOut.push([source.name, words]);
  tellLeftOut();
  announce(`${source.name} is left out: ${words}`);
}

function tellLeftOut() {
  const [one] = leftOut;
  byId("left-out").hidden = !one;
  byId("left-out-title").textContent = leftOut.length > 1 ? `${plural(leftOut.length, "file")} left out` : "Left out";
  const shown = leftOut.slice(0, LEFT_OUT_SHOWN);
  const more = leftOut.length - shown.length;
  byId("left-out-files").replaceChildren(
    ...shown.map(([name, words]) => make("li", {}, make("strong", {}, `${name}: `), sentence(words))),
    ...(more ? [make("li", {}, `And ${more} more.`)] : []),
  );
}

function keep() {
  const list = (sources, names) =>
    sources.filter(({ url }) => url).map((source) => Object.fromEntries(names.map((name) => [name, source[name]])));
  const sounds = list(reel.sounds, ["name", "url", ...Object.keys(UNTOUCHED)]);
  const kept = {
    stills: list(reel.stills, ["name", "date", "url", "amount", "unit"]),
    sounds,
    length: sounds.length ? reel.length : "stills",
  };
  try {
    sessionStorage.setItem(KEPT_REEL, JSON.stringify(kept));
  } catch {
    // Without storage a reload begins with an empty page.
  }
}

async function restore() {
  let kept;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT_REEL));
  } catch {
    return;
  }
  const { stills = [], sounds = [], length = "stills" } = kept ?? {};
  const fetched = ({ url }) =>
    fetch(here(url))
      .then((got) => (got.ok ? got.blob() : null))
      .catch(() => null);
  const [pictures, tracks] = await Promise.all([stills, sounds].map((list) => Promise.all(list.map(fetched))));
  sounds.forEach((sound, at) => {
    if (tracks[at]) listen(reel.addSound(sound.name, tracks[at], sound));
  });
  if (reel.sounds.length) reel.length = length;
  stills.forEach((still, at) => {
    const isShared = !still.amount && reel.sounds.length > 0; // with a sound that is still there
    const hold = still.amount || isShared ? {} : FIRST_HOLD;
    if (pictures[at]) measure(reel.add(still.name, pictures[at], { ...still, ...hold }));
  });
}
