// How images are added: dropped anywhere on the page, pasted or chosen, and restored after a reload of the same tab.
//
// What was uploaded is remembered for as long as the tab lives, so a page that is loaded again in mid-render still
// shows the stills that are being rendered.

import { about } from "./about.js";
import { Refused, refusalOf } from "./api.js";
import { announce, byId, fileSize, make, plural, sentence } from "./dom.js";
import { look } from "./pictures.js";
import { reel } from "./reel.js";
import { here } from "./video.js";

const KEPT_REEL = "stillreel.reel";
const FAMILIAR = /^image\/(png|jpeg|webp|gif|bmp|avif)$/; // what every browser shows, and the daemon reads
const LEFT_OUT_SHOWN = 6;

let leftOut = []; // of the files that came last: [name, words]

export function setUpAdding() {
  const files = byId("files");
  for (const id of ["choose", "add"]) byId(id).addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    add([...files.files]);
    files.value = "";
  });
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
  leftOut = [];
  const taken = files.filter((file) => {
    const words = faultOf(file);
    if (!words) measure(reel.add(file.name, file));
    else leftOut.push([file.name, words]);
    return !words;
  });
  tellLeftOut();
  const out = leftOut.length ? ` ${plural(leftOut.length, "file")} left out.` : "";
  announce(`${plural(taken.length, "image")} added.${out}`);
  if (wasEmpty && taken.length && document.activeElement === document.body)
    byId("bench").focus({ preventScroll: true });
}

/** Why a file is not taken, as far as is known without reading it, or an empty text. */
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
    const words = await refusalOf(still.file).catch((error) => {
      if (!(error instanceof Refused)) throw error;
      return ""; // the fault is shown when the still is rendered
    });
    if (words) return leave(still, words);
  }
  reel.update(still.key, seen ?? { isUnreadable: true });
}

function leave(still, words) {
  reel.discard(still.key);
  leftOut.push([still.name, words]);
  tellLeftOut();
  announce(`${still.name} is left out: ${words}`);
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
  const kept = reel.stills.filter(({ url }) => url).map(({ name, date, url, amount, unit }) => ({
    name,
    date,
    url,
    amount,
    unit,
  }));
  try {
    sessionStorage.setItem(KEPT_REEL, JSON.stringify(kept));
  } catch {
    // Without storage a reload begins with an empty page.
  }
}

async function restore() {
  let kept;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEPT_REEL)) ?? [];
  } catch {
    return;
  }
  const bodies = await Promise.all(
    kept.map(({ url }) =>
      fetch(here(url))
        .then((got) => (got.ok ? got.blob() : null))
        .catch(() => null),
    ),
  );
  kept.forEach((still, at) => {
    if (bodies[at]) measure(reel.add(still.name, bodies[at], still));
  });
}
