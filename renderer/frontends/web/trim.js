// Moving and trimming a sound by its lane: the middle moves it, an edge trims it. The fields below do the same exactly.

import { reel } from "./reel.js";
import { placed } from "./sound.js";
import { told } from "./undo.js";

const THRESHOLD = 3; // pixels before a press becomes a drag
const EDGE = 10; // pixels on either side of an edge that belong to it
const SHORTEST_S = 0.05;
const CURSORS = { move: "grab", left: "ew-resize", right: "ew-resize" };

/** Let a lane be dragged. @param of returns what is there now: {sound, video_s}. */
export function setUpTrim(wave, of) {
  let drag = null; // {grip, x, place, each_s, isMoved}
  wave.addEventListener("pointerdown", (event) => {
    const { grip, ...rest } = under(event, wave, of());
    if (!grip || event.button) return;
    event.preventDefault(); // no text is selected
    wave.setPointerCapture(event.pointerId);
    drag = { grip, x: event.clientX, ...rest, isMoved: false };
  });
  wave.addEventListener("pointermove", (event) => {
    if (!drag) return wave.style.setProperty("cursor", CURSORS[under(event, wave, of()).grip] ?? "default");
    const by = event.clientX - drag.x;
    if (!drag.isMoved && Math.abs(by) < THRESHOLD) return;
    const { sound } = of();
    if (!drag.isMoved) reel.beginToChange(sound);
    drag.isMoved = true;
    reel.updateSound(sound.key, changed(drag, by * drag.each_s, sound.long_s ?? Infinity));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    wave.addEventListener(end, () => {
      if (drag?.isMoved) told(`${of().sound.name} ${drag.grip === "move" ? "moved" : "trimmed"}.`);
      drag = null;
    });
  }
}

/** What of a sound is under the pointer: {grip: "move", "left" or "right", place, each_s: seconds of a pixel}. */
function under(event, wave, { sound, video_s }) {
  const box = wave.getBoundingClientRect();
  const each_s = video_s / box.width;
  const place = placed(sound, video_s);
  const [left, right] = [place.at, place.at + place.length_s].map((at_s) => at_s / each_s);
  const x = event.clientX - box.x;
  if (!place.length_s || x < left - EDGE || x > right + EDGE) return { grip: null };
  // What is repeated has no left edge: its part in the file is repeated as well. The middle half always moves.
  const edge = Math.min(EDGE, (right - left) / 4);
  const isLeft = x < left + edge && !sound.loop;
  return { grip: isLeft ? "left" : x > right - edge ? "right" : "move", place, each_s };
}

/** The fields of a sound that was dragged by `by_s` seconds. */
function changed({ grip, place }, by_s, long_s) {
  const { at, start, duration, loop, length_s } = place;
  if (grip === "move") return { at: text(Math.max(0, at + by_s)) };
  if (grip === "right") {
    const most_s = loop ? Infinity : long_s - start;
    return { duration: text(Math.min(most_s, Math.max(SHORTEST_S, length_s + by_s))) };
  }
  const by = Math.min(length_s - SHORTEST_S, Math.max(by_s, -start, -at));
  return { at: text(at + by), start: text(start + by), ...(duration && { duration: text(duration - by) }) };
}

const text = (seconds) => (Number(seconds.toFixed(2)) ? String(Number(seconds.toFixed(2))) : "");
