// One still as a card: what is on it, and what it shows of the still.

import { icon, iconButton, make, setText } from "./dom.js";
import { reel } from "./reel.js";
import { group } from "./selection.js";
import { holdSeconds, perSecond } from "./timeline.js";

const TITLE_MOST = 85; // characters; a title has up to 255 bytes, and one of these up to three

const MOVES = {
  ArrowLeft: (at) => at - 1,
  ArrowUp: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  ArrowDown: (at) => at + 1,
  Home: () => 0,
  End: () => Infinity,
};

/**
 * Make a card; returns its element and the parts that change.
 *
 * @param acts {show(index), step(key, from), choose(key, isChosen, isRange), mark(key), duplicate(key), remove(keys)}: what its
 *     buttons and keys do. `from` tells the new place from the old one.
 */
export function card(still, acts) {
  const { key, name } = still;
  const picture = make("img", { alt: "", draggable: "false" });
  const thumb = thumbButton(key, picture, acts);
  const amount = amountField(key, name);
  const unit = unitField(still);
  const ordinal = make("span", { class: "ordinal", "aria-hidden": "true" });
  const facts = make("span", { class: "facts" });
  const fault = make("p", { class: "fault", id: `fault-${key}`, hidden: true });
  const earlier = iconButton("earlier", `Move ${name} earlier`, () => acts.step(key, MOVES.ArrowLeft));
  const later = iconButton("later", `Move ${name} later`, () => acts.step(key, MOVES.ArrowRight));
  const poster = iconButton("poster", `Poster: ${name}`, () => acts.mark(key), { class: "icon-button is-toggle" });
  const title = make("input", {
    class: "title",
    autocomplete: "off",
    maxlength: TITLE_MOST,
    placeholder: "Chapter title",
    "aria-label": `Chapter title of ${name}`,
    oninput: () => reel.update(key, { title: title.value, fault: "" }),
  });
  const copy = iconButton("copy", `Duplicate ${name}`, () => acts.duplicate([key]));
  const remove = iconButton("remove", `Remove ${name}`, () => acts.remove([key]));
  const box = make("input", {
    type: "checkbox",
    "aria-label": `Select ${name}`,
    onclick: (event) => acts.choose(key, box.checked, event.shiftKey),
  });
  const element = make(
    "li",
    { class: "still", "data-key": key },
    thumb,
    make("label", { class: "choose", title: "Select" }, box),
    ordinal,
    make("span", { class: "grip", "aria-hidden": "true", title: "Drag" }, icon("grip")),
    make("p", { class: "name", title: name }, make("span", {}, name), facts),
    make("div", { class: "hold" }, amount, unit, title),
    make("div", { class: "acts" }, earlier, later, poster, copy, remove),
    fault,
  );
  return { element, picture, thumb, box, amount, unit, ordinal, facts, fault, earlier, later, poster, title };
}

function thumbButton(key, picture, { show, step, choose, remove }) {
  const onkeydown = (event) => {
    if (event.key === "Delete") return remove(group(key));
    if (!(event.key in MOVES) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    step(key, MOVES[event.key]);
  };
  const onclick = (event) => {
    if (event.shiftKey) return choose(key, true, true);
    if (event.ctrlKey || event.metaKey) return choose(key, !reel.selected.has(key), false);
    show(reel.index(key));
  };
  const none = make("span", { class: "no-picture" }, icon("image"));
  return make(
    "button",
    { type: "button", class: "thumb", "aria-describedby": "move-hint", onclick, onkeydown },
    picture,
    none,
  );
}

function amountField(key, name) {
  const field = make("input", {
    class: "amount",
    id: `amount-${key}`,
    inputmode: "decimal",
    autocomplete: "off",
    "aria-label": `Hold of ${name}`,
    "aria-describedby": `fault-${key}`,
    oninput: () => reel.update(key, { amount: field.value, fault: "" }),
  });
  return field;
}

function unitField(still) {
  const onchange = () => reel.update(still.key, converted(still, field.value));
  const options = ["frames", "seconds"].map((unit) => make("option", { value: unit }, unit));
  const field = make("select", { "aria-label": `Unit of ${still.name}'s hold`, onchange }, ...options);
  return field;
}

/** A number of frames in a unit. */
function inUnit(frames, unit) {
  return String(unit === "frames" ? frames : Number((frames / perSecond(reel.rate)).toFixed(3)));
}

/** The same hold in the other unit, as near as that can say it. */
function converted({ amount, unit }, to) {
  const value = unit === "frames" ? Number(amount) : holdSeconds(amount);
  if (unit === to || !(value > 0)) return { unit: to, fault: "" };
  const same = to === "frames" ? Math.max(1, Math.round(value * perSecond(reel.rate))) : value;
  return { unit: to, amount: inUnit(same, to), fault: "" };
}

/** Bring a card up to date with its still, which is the one at index `at`. */
export function refresh(parts, still, at, timeline) {
  const { element, picture, thumb, box, amount, unit, ordinal, facts, fault, earlier, later, poster, title } = parts;
  const count = reel.stills.length;
  const size = sizeOf(still);
  setText(ordinal, String(at + 1));
  setText(facts, size);
  if (still.thumb && picture.getAttribute("src") !== still.thumb) picture.src = still.thumb;
  element.classList.toggle("has-picture", Boolean(still.thumb));
  box.checked = reel.selected.has(still.key);
  element.classList.toggle("is-selected", box.checked);
  const label = [`Still ${at + 1} of ${count}: ${still.name}`, size, "show in the preview"].filter(Boolean).join(", ");
  if (thumb.getAttribute("aria-label") !== label) thumb.setAttribute("aria-label", label);
  if (amount.value !== still.amount) amount.value = still.amount;
  if (unit.value !== still.unit) unit.value = still.unit;
  if (title.value !== still.title) title.value = still.title;
  poster.setAttribute("aria-pressed", String(reel.poster === still.key));
  const share = timeline.isOpen ? "shared" : inUnit(timeline.holds[at], still.unit);
  amount.placeholder = reel.length === "audio" ? share : "";
  earlier.disabled = at === 0;
  later.disabled = at === count - 1;
  const mistake = timeline.faults.get(at) ?? "";
  const words = still.fault || mistake;
  setText(fault, words);
  fault.hidden = !words;
  element.classList.toggle("is-at-fault", Boolean(words));
  amount.removeAttribute("aria-invalid");
  if (mistake) amount.setAttribute("aria-invalid", "true");
}

function sizeOf({ width, height, isUnreadable }) {
  if (width) return `${width} × ${height}`;
  return isUnreadable ? "no preview here" : "";
}
