// The daemon's messages about stills, sounds and fields, for people: stills have numbers, and equal messages are joined.

import { sentence, SOURCES } from "./dom.js";

/** Sentences such as "Each of stills 2 to 4: no such file."; `said` are {loc, words}, loc as in ["images", 3, "url"]. */
export function sentences(said) {
  const groups = new Map();
  for (const { loc = [], words } of said) {
    const one = Number.isInteger(loc[1]) ? SOURCES[loc[0]] : undefined;
    const field = loc.slice(one ? 2 : 0).filter((name) => !["images", "audio", "url"].includes(name)).join(".");
    const key = JSON.stringify([one, field, words]);
    if (!groups.has(key)) groups.set(key, { one, numbers: [], field, words });
    if (one) groups.get(key).numbers.push(loc[1] + 1);
  }
  return [...groups.values()].map(({ one, numbers, field, words }) => {
    const about = [one ? numbered(one, numbers) : null, field ? `"${field}"` : null].filter(Boolean).join(", ");
    return sentence(about ? `${about}: ${words}` : words);
  });
}

/** The sentences for an error with all its faults, {message, errors}. */
export function faultSentences({ message, errors = [] }) {
  if (!errors.length) return [sentence(message)];
  const last = errors.at(-1).msg;
  const rest = message.slice(message.lastIndexOf(last) + last.length).replace(/^; /, "");
  return sentences([...errors.map(({ loc: at, msg }) => ({ loc: at, words: msg })), ...(rest ? [{ words: rest }] : [])]);
}

/** "still 3", or "each of stills 2, 5 and 7 to 9". */
function numbered(one, numbers) {
  if (numbers.length === 1) return `${one} ${numbers[0]}`;
  const runs = [];
  for (const number of numbers) {
    if (runs.at(-1)?.[1] === number - 1) runs.at(-1)[1] = number;
    else runs.push([number, number]);
  }
  const parts = runs.flatMap(([first, last]) => (last - first < 2 ? range(first, last) : [`${first} to ${last}`]));
  const end = parts.pop();
  return `each of ${one}s ${parts.length ? `${parts.join(", ")} and ${end}` : end}`;
}

const range = (first, last) => Array.from({ length: last - first + 1 }, (_, at) => String(first + at));
