// A sound's place in the video, in seconds: the same rules as renderer/media/sound/mix.py, and the fields of docs/sound.md.
//
// A sound is {key, name, file, url, long_s, fault} and the fields as they were typed; `long_s` is how long its file is,
// null while that is not known.

import { minutes, typedSeconds } from "./timeline.js";

const RATE = 48000;
const SECONDS = "Enter seconds, such as 2.5, or minutes, such as 1:30.";

/** What can be set of a sound: its words on the page, what an empty field means, and what may be in it. */
export const FIELDS = {
  at: { label: "Begins at", none: 0, words: SECONDS, isRight: (value) => value >= 0 },
  start: { label: "Skip the first", none: 0, words: SECONDS, isRight: (value) => value >= 0 },
  duration: { label: "Play for", none: null, words: SECONDS, isRight: (value) => value > 0 },
  fade_in: { label: "Fade in", none: 0, words: "Enter seconds up to 300.", isRight: (value) => value <= 300 },
  fade_out: { label: "Fade out", none: 0, words: "Enter seconds up to 300.", isRight: (value) => value <= 300 },
  gain_db: { label: "Gain", none: 0, words: "Enter decibels from -100 to 60.", isRight: (db) => db >= -100 && db <= 60 },
};

export const UNTOUCHED = { ...Object.fromEntries(Object.keys(FIELDS).map((name) => [name, ""])), loop: false };

const read = (name, text) => (name === "gain_db" ? Number(text.replace("−", "-")) : typedSeconds(text));

/** The fields of a sound as numbers, `duration` null if it has none; what cannot be read is as if it were empty. */
export function numbers(sound) {
  const values = Object.entries(FIELDS).map(([name, { none, isRight }]) => {
    const value = sound[name].trim() ? read(name, sound[name].trim()) : none;
    return [name, value !== null && isRight(value) ? value : none];
  });
  return { ...Object.fromEntries(values), loop: sound.loop };
}

/** What is wrong with a sound's fields as they were typed: a Map from the field to words. */
export function faultsOf(sound) {
  const faults = new Map();
  for (const [name, { words, isRight }] of Object.entries(FIELDS)) {
    if (sound[name].trim() && !isRight(read(name, sound[name].trim()))) faults.set(name, words);
  }
  const isBeyond = sound.long_s !== null && numbers(sound).start >= sound.long_s;
  if (isBeyond && !faults.has("start")) faults.set("start", `Enter less than ${time(sound.long_s)}, where the file ends.`);
  return faults;
}

/** How long a sound is heard if the video does not end before: Infinity if it is repeated for ever, null if unknown. */
export function heard_s(sound) {
  const { start, duration, loop } = numbers(sound);
  if (loop) return duration ?? Infinity;
  return sound.long_s === null ? null : Math.min(duration ?? Infinity, Math.max(0, sound.long_s - start));
}

/** Whether a sound is repeated for ever, so that no length can follow it. */
export const isEndless = (sound) => heard_s(sound) === Infinity;

/** Where the last of the sounds ends that do end, in samples; null if that is not known. */
export function endOf(sounds) {
  const lengths = sounds.filter((sound) => !isEndless(sound)).map((sound) => [sound, heard_s(sound)]);
  if (lengths.some(([, length_s]) => length_s === null)) return null;
  const samples = (seconds) => Math.round(seconds * RATE);
  return Math.max(0, ...lengths.map(([sound, length_s]) => samples(numbers(sound).at) + samples(length_s)));
}

export const inSeconds = (samples) => samples / RATE;

/** Where and how a sound is heard in a video of `video_s` seconds: `length_s` is 0 if it begins after the end. */
export function placed(sound, video_s) {
  const found = numbers(sound);
  return { ...found, length_s: Math.max(0, Math.min(video_s - found.at, heard_s(sound) ?? Infinity)) };
}

/** How much of a sound's level is heard, from 0 to 1, `at_s` seconds after it began. */
export function faded({ fade_in, fade_out, length_s }, at_s) {
  const share = (part, whole) => (whole ? Math.min(1, part / whole) : 1);
  return share(at_s, fade_in) * share(length_s - at_s, fade_out);
}

/** Where in its file a sound is, `at_s` seconds after it began. */
export const inFile = ({ start, loop }, long_s, at_s) => start + (loop ? at_s % (long_s - start) : at_s);

/** The sound as a request has it; what has its default is left out. */
export function track(sound, url) {
  const found = Object.entries(numbers(sound)).filter(([, value]) => value);
  return { url, ...Object.fromEntries(found) };
}

/** Seconds for people: "2.5 s", and from a minute on "1:30.5". */
export function time(seconds) {
  const tenths = Math.round(seconds * 10);
  if (tenths < 600) return `${tenths / 10} s`;
  return minutes(Math.floor(tenths / 10)) + (tenths % 10 ? `.${tenths % 10}` : "");
}

/** What is done to a sound, in a few words. */
export function described(sound) {
  const { at, start, duration, loop, fade_in, fade_out, gain_db } = numbers(sound);
  const fades = [fade_in && `in ${time(fade_in)}`, fade_out && `out ${time(fade_out)}`].filter(Boolean).join(", ");
  const words = [
    at && `begins at ${time(at)}`,
    start && `without its first ${time(start)}`,
    duration && `for ${time(duration)}`,
    loop && "repeated",
    fades && `fades ${fades}`,
    gain_db && `${gain_db > 0 ? "+" : "−"}${Math.abs(gain_db)} dB`,
  ];
  return words.filter(Boolean).join(", ") || "whole, from the beginning";
}
