// The stills as cards: what each is, how long it is held, and its place in the order.
//
// Order changes three ways: dragging, the arrow buttons, and the arrow keys on a thumbnail. Every move is said aloud.
// Cards are kept and moved, never made anew, so that focus and half-typed numbers survive.

import { card, refresh } from "./card.js";
import { announce, byId, plural, setText } from "./dom.js";
import { startDrag } from "./drag.js";
import { forget } from "./pictures.js";
import { reel } from "./reel.js";
import { choose, duplicate, group, remove } from "./selection.js";
import { told } from "./undo.js";

const MANY = 16; // more than that scroll in a box of their own, and what is below stays near

const cards = new Map(); // key -> {element, and the parts that change}

export function setUpStills({ show }) {
  const list = byId("stills");
  list.addEventListener("pointerdown", (event) => {
    const element = event.target.closest(".still");
    const isHandle = event.target.closest(".grip") || (event.pointerType === "mouse" && event.target.closest(".thumb"));
    if (element && isHandle && event.button === 0) startDrag(event, element, list, () => drop(element, list));
  });
  byId("hold-all").addEventListener("submit", (event) => {
    event.preventDefault();
    const [amount, unit] = [byId("all-amount").value, byId("all-unit").value];
    reel.hold(amount, unit);
    const held = reel.selected.size ? plural(reel.selected.size, "still") : "Every still";
    told(`${held} ${reel.selected.size > 1 ? "are" : "is"} held for ${amount} ${unit}.`);
  });
  byId("clear").addEventListener("click", clear);
  for (const what of ["stills", "settings", "faults", "selection"]) {
    reel.addEventListener(what, () => update(list, show));
  }
  update(list, show);
}

const keyOf = (element) => Number(element.dataset.key);

function clear() {
  const count = reel.stills.length;
  reel.clear();
  told(`${plural(count, "still")} removed.`);
  byId("choose").focus();
}

function mark(key) {
  reel.togglePoster(key);
  const { name } = reel.stills[reel.index(key)];
  announce(reel.poster === key ? `${name} is the poster.` : "There is no poster.");
}

/** Put a card, and the other selected ones, after the cards that precede it in the list. */
function drop(element, list) {
  const moving = group(keyOf(element));
  const before = [...list.children].slice(0, [...list.children].indexOf(element));
  place(keyOf(element), before.filter((card) => !moving.includes(keyOf(card))).length);
  reel.dispatchEvent(new Event("selection")); // cards that were dragged and have not moved go back
}

function place(key, to) {
  const { name } = reel.stills[reel.index(key)];
  const moving = group(key);
  if (!reel.move(moving, to)) return;
  const what = moving.length > 1 ? plural(moving.length, "still") : name;
  announce(`${what}: now ${reel.index(moving[0]) + 1} of ${reel.stills.length}.`);
}

/** Move and keep the focus where it is: moving an element in the document takes it away. */
function step(key, from) {
  const held = document.activeElement;
  const moving = group(key);
  const first = reel.stills.findIndex((still) => moving.includes(still.key));
  place(key, from(first));
  const { earlier, later } = cards.get(key);
  const other = held === earlier ? later : earlier;
  (held.disabled ? other : held).focus();
  cards.get(key).element.scrollIntoView({ block: "nearest" });
}

function update(list, show) {
  const { stills, timeline } = reel;
  for (const [key, { element }] of cards) {
    if (reel.index(key) < 0) {
      element.remove();
      cards.delete(key);
      forget(key);
    }
  }
  stills.forEach((still, at) => {
    if (!cards.has(still.key)) cards.set(still.key, card(still, { show, step, choose, mark, duplicate, remove }));
    const parts = cards.get(still.key);
    // A card under the pointer stays where it is until it is dropped.
    if (list.children[at] !== parts.element && !list.querySelector(".is-dragged")) {
      list.insertBefore(parts.element, list.children[at] ?? null);
    }
    refresh(parts, still, at, timeline);
  });
  list.classList.toggle("is-long", stills.length > MANY);
  setText(byId("still-count"), stills.length ? String(stills.length) : "");
  document.body.classList.toggle("is-empty", !stills.length);
}

/** Bring the first still with a fault into view. */
export function showFirstFault() {
  const first = reel.stills.find((still, at) => still.fault || reel.timeline.faults.has(at));
  if (first) cards.get(first.key).thumb.focus();
}
