// The preview: the sequence at its frame rate on a canvas, and under it the timeline, as wide as the holds are long.
//
// It shows a frame, not a time: the frame number is the position, and the clock is derived from it.

import { announce, byId, make, plural, setText } from "./dom.js";
import { place } from "./geometry.js";
import { play, stop } from "./hearing.js";
import { preview as pictureOf } from "./pictures.js";
import { reel } from "./reel.js";
import { clock, duration, perSecond, seconds, stillAt } from "./timeline.js";

const SCREEN_SIDE = 1280;
const AHEAD = 3; // stills decoded before they are shown

let frame = 0;
let playing = null; // {from, passed_s()}
let thumbs = new Map(); // key -> image element, for what has no larger picture yet

export function setUpPreview() {
  byId("play").addEventListener("click", toggle);
  byId("previous").addEventListener("click", () => stepStill(-1));
  byId("next").addEventListener("click", () => stepStill(1));
  const strip = byId("strip");
  strip.addEventListener("keydown", onKey);
  strip.addEventListener("pointerdown", (event) => {
    strip.setPointerCapture(event.pointerId);
    scrub(event);
  });
  strip.addEventListener("pointermove", (event) => strip.hasPointerCapture(event.pointerId) && scrub(event));
  document.addEventListener("keydown", (event) => {
    const isTaken = event.target.closest("input, select, button, summary, a, video, pre, [role=tab]");
    if (event.key !== " " || isTaken || !reel.stills.length) return;
    event.preventDefault();
    toggle();
  });
  for (const what of ["stills", "settings"]) reel.addEventListener(what, update);
  update();
}

/** Show the first frame of a still. */
export function showStill(at) {
  pause();
  const { ends, holds } = reel.timeline;
  seek(ends[at] - holds[at]);
}

function toggle() {
  if (playing) return pause();
  const { frames } = reel.timeline;
  if (!frames) return;
  if (frame >= frames - 1) frame = 0;
  begin();
  showPlaying();
  requestAnimationFrame(tick);
}

/** Play from the frame that is shown; while there is sound, its clock is the one that counts. */
function begin() {
  const rate = perSecond(reel.rate);
  playing = { from: frame, passed_s: play(reel.sounds, frame / rate, reel.timeline.frames / rate) };
}

function pause() {
  playing = null;
  stop();
  showPlaying();
}

function showPlaying() {
  const button = byId("play");
  const words = playing ? "Pause" : "Play";
  button.setAttribute("aria-label", words);
  button.title = `${words} (space)`;
  button.firstElementChild.className = `icon icon-${playing ? "pause" : "play"}`;
}

function tick() {
  if (!playing) return;
  const { frames } = reel.timeline;
  const due = playing.from + Math.floor(playing.passed_s() * perSecond(reel.rate));
  frame = Math.max(0, Math.min(due, frames - 1));
  if (due >= frames) pause();
  draw();
  if (playing) requestAnimationFrame(tick);
}

function seek(to) {
  const { frames } = reel.timeline;
  frame = Math.max(0, Math.min(frames - 1, to));
  if (playing) begin();
  draw();
}

function stepStill(by) {
  const { ends } = reel.timeline;
  const at = Math.max(0, Math.min(reel.stills.length - 1, stillAt(ends, frame) + by));
  showStill(at);
  announce(`Still ${at + 1}: ${reel.stills[at].name}`);
}

function onKey(event) {
  const { ends, holds, frames } = reel.timeline;
  const at = stillAt(ends, frame);
  const start = ends[at] - holds[at];
  const targets = {
    ArrowRight: frame + 1,
    ArrowUp: frame + 1,
    ArrowLeft: frame - 1,
    ArrowDown: frame - 1,
    PageUp: ends[at],
    PageDown: frame > start ? start : ends[at - 1] - holds[at - 1] || 0,
    Home: 0,
    End: frames - 1,
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  pause();
  seek(targets[event.key]);
}

function scrub(event) {
  const box = byId("segments").getBoundingClientRect();
  seek(Math.floor(((event.clientX - box.x) / box.width) * reel.timeline.frames));
}

function update() {
  const { stills, timeline, rate } = reel;
  const long = seconds(timeline.frames, rate);
  setText(byId("total-frames"), timeline.isOpen ? "As long as the sound" : plural(timeline.frames, "frame"));
  setText(byId("total-seconds"), timeline.isOpen ? "" : duration(long));
  byId("total-seconds").title = `${long} seconds`;
  const segments = byId("segments");
  while (segments.children.length > stills.length) segments.lastChild.remove();
  stills.forEach((still, at) => {
    const segment = segments.children[at] ?? segments.appendChild(make("div", { class: "segment" }, make("span")));
    segment.style.setProperty("flex-grow", String(timeline.holds[at]));
    segment.style.setProperty("background-image", still.thumb ? `url("${still.thumb}")` : "none");
    setText(segment.firstChild, timeline.isOpen ? "" : String(timeline.holds[at]));
    segment.title = timeline.isOpen ? still.name : `${still.name}: ${plural(timeline.holds[at], "frame")}`;
  });
  thumbs = new Map(
    stills.filter((still) => still.thumb).map((still) => [still.key, thumbs.get(still.key) ?? thumbOf(still)]),
  );
  if (!stills.length) pause();
  seek(frame);
}

function thumbOf(still) {
  const image = new Image();
  image.addEventListener("load", draw);
  image.src = still.thumb;
  return image;
}

function draw() {
  const { stills, timeline, rate, canvas, settings } = reel;
  if (!stills.length || !timeline.frames) return;
  const at = stillAt(timeline.ends, frame);
  const still = stills[at];
  setText(byId("clock"), clock(frame, rate));
  setText(byId("frame"), `frame ${(frame + 1).toLocaleString("en")}`);
  byId("stage").style.setProperty("--now", `${((frame + 0.5) / timeline.frames) * 100}%`);
  const segment = byId("segments").children[at];
  if (!segment.classList.contains("is-shown")) {
    segment.parentElement.querySelector(".is-shown")?.classList.remove("is-shown");
    segment.classList.add("is-shown");
  }
  const strip = byId("strip");
  strip.setAttribute("aria-valuemax", timeline.frames);
  strip.setAttribute("aria-valuenow", frame + 1);
  strip.setAttribute("aria-valuetext", `frame ${frame + 1} of ${timeline.frames}, still ${at + 1}, ${still.name}`);
  for (const next of stills.slice(at + 1, at + 1 + AHEAD)) pictureOf(next, draw);
  paint(still, canvas, settings);
  byId("screen").setAttribute("aria-label", `Still ${at + 1} of ${stills.length}: ${still.name}`);
}

function paint(still, size, { fit, background }) {
  const screen = byId("screen");
  const scale = Math.min(1, SCREEN_SIDE / Math.max(size.width, size.height));
  const [width, height] = [Math.max(1, Math.round(size.width * scale)), Math.max(1, Math.round(size.height * scale))];
  if (screen.width !== width || screen.height !== height) Object.assign(screen, { width, height });
  const context = screen.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = background;
  context.fillRect(0, 0, width, height);
  const thumb = thumbs.get(still.key);
  const picture = pictureOf(still, draw) ?? (thumb?.complete && thumb.naturalWidth ? thumb : null);
  if (!picture) return;
  const { crop, box } = place(still, size, fit);
  const shrunk = (picture.naturalWidth ?? picture.width) / still.width;
  context.imageSmoothingQuality = "high";
  context.setTransform(width / size.width, 0, 0, height / size.height, 0, 0);
  context.drawImage(picture, ...crop.map((side) => side * shrunk), ...box);
}
