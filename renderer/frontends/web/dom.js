// The few things that every part of the page does with elements. Text only ever goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** Make an element: make("button", {class: "quiet", type: "button", onclick}, "Copy"). Null children are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A picture that only repeats what the words beside it say. */
export const icon = (name) => make("span", { class: `icon icon-${name}`, "aria-hidden": "true" });

export function iconButton(name, label, onclick, attributes = {}) {
  return make(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes },
    icon(name),
  );
}

/** Set text only where it differs, so that a live region is not read out again for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Say something to a screen reader. */
export function announce(text) {
  const region = byId("said");
  region.textContent = "";
  // Emptied first and filled later, the same words twice are read twice.
  setTimeout(() => (region.textContent = text), 50);
}

/** Show or clear the words about what is wrong with a field; `words` empty clears. */
export function markFault(field, note, words) {
  setText(note, words || "");
  note.hidden = !words;
  if (words) field.setAttribute("aria-invalid", "true");
  else field.removeAttribute("aria-invalid");
}

export const SOURCES = { images: "still", audio: "sound" }; // the lists of a request, and what one of each is called

/** An error's words for people: "images[6].url: expected a PNG" is still 7's, and a sentence. */
export function sentence(text, hasName = true) {
  const name = (_, list, at) => (hasName ? `${SOURCES[list]} ${Number(at) + 1}: ` : "");
  const words = text.replace(/^(images|audio)\[(\d+)\][._a-z]*: /, name);
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}

export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function fileSize(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  const power = Math.min(3, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(value < 10 ? 1 : 0)} ${["", "kB", "MB", "GB"][power]}`;
}

/** How long something took: 0.42 s, 12 s, 3 min 5 s. */
export function took(secondsLong) {
  if (secondsLong < 10) return `${secondsLong.toFixed(secondsLong < 1 ? 2 : 1)} s`;
  const whole = Math.round(secondsLong);
  if (whole < 60) return `${whole} s`;
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
}
