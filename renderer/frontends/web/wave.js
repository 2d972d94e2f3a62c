// The picture of a sound in its lane, which is as wide as the video is long.

import { heardOf, peak } from "./hearing.js";
import { faded, inFile, placed } from "./sound.js";

/** Draw what is heard of a sound: where it is, how loud, and its fades; a plain bar if its samples are not known. */
export function drawWave(canvas, sound, video_s) {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * scale));
  if (!width) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.fillStyle = getComputedStyle(canvas).color;
  const place = placed(sound, video_s);
  const each_s = video_s / width;
  const [first, after] = [place.at, place.at + place.length_s].map((at_s) => Math.min(width, at_s / each_s));
  context.globalAlpha = 0.16;
  context.fillRect(first, 0, after - first, height);
  context.globalAlpha = 1;
  const found = heardOf(sound.file);
  if (!found?.peaks || place.start >= found.long_s) return;
  const level = 10 ** (place.gain_db / 20);
  for (let x = Math.floor(first); x < after; x += 1) {
    const at_s = Math.max(0, x * each_s - place.at);
    const from_s = inFile(place, found.long_s, at_s);
    const loud = Math.min(1, peak(found.peaks, from_s, from_s + each_s) * level * faded(place, at_s));
    const high = Math.max(scale, loud * (height - 4 * scale));
    context.fillRect(x, (height - high) / 2, 1, high);
  }
}
