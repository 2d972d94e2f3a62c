// How images come in: dropped anywhere on the page, pasted, or chosen; and, in the same tab, back after a reload.
//
// What was uploaded is remembered for as long as the tab lives, so a page that is loaded again in mid-render still
// shows the stills that are being rendered.

import { announce, byId, plural } from "./dom.js";
import { look } from "./pictures.js";
import { reel } from "./reel.js";
import { here } from "./video.js";

const KEPT_REEL = "stillreel.reel";

export function setUpAdding() {
  const files = byId("files");
  for (const id of ["choose", "add"]) byId(id).addEventListener("click", () => files.click());
  files.addEventListener("change", () => {
    add([...files.files]);
    files.value = "";
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

/** Take files in their order; what is surely no picture stays out. */
function add(files) {
  const pictures = files.filter(({ type }) => !type || type.startsWith("image/"));
  const wasEmpty = !reel.stills.length;
  for (const file of pictures) measure(reel.add(file.name, file));
  const left = files.length - pictures.length;
  announce(
    `${plural(pictures.length, "image")} added.${left ? ` ${plural(left, "file")} left out: no pictures.` : ""}`,
  );
  if (wasEmpty && pictures.length && document.activeElement === document.body)
    byId("bench").focus({ preventScroll: true });
}

async function measure(still) {
  const seen = await look(still.file);
  reel.update(still.key, seen ?? { isUnreadable: true });
}

function keep() {
  const kept = reel.stills.filter(({ url }) => url).map(({ name, url, amount, unit }) => ({ name, url, amount, unit }));
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
