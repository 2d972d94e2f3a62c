// Choosing many stills, and what can be done to them at once: sort, duplicate, move to a place, hold, remove.
//
// A card's box chooses it; with Shift, all from the last that was chosen. Ctrl+A chooses all, Escape none.

import { announce, byId, markFault, plural, setText } from "./dom.js";
import { reel } from "./reel.js";
import { told } from "./undo.js";

const SORTS = { name: "Sorted by name.", date: "Sorted by date.", reverse: "Reversed." };

let last = null; // the key that was chosen last, where Shift begins

export function setUpSelection() {
  for (const by of Object.keys(SORTS)) byId(`sort-${by}`).addEventListener("click", () => sort(by));
  byId("select-all").addEventListener("change", ({ target }) => reel.select(target.checked ? keys(reel.stills) : []));
  byId("duplicate").addEventListener("click", () => duplicate(keys(reel.chosen)));
  byId("remove-selected").addEventListener("click", () => remove(keys(reel.chosen)));
  byId("move-to").addEventListener("submit", moveTo);
  byId("reel").addEventListener("keydown", onKey);
  for (const what of ["stills", "selection"]) reel.addEventListener(what, update);
  update();
}

const keys = (stills) => stills.map(({ key }) => key);

/** A card and, if it is one of the chosen, all of them. */
export const group = (key) => (reel.selected.has(key) ? keys(reel.chosen) : [key]);

/** Select a still or clear its selection; with `isRange`, all stills between it and the last one as well. */
export function choose(key, isChosen, isRange) {
  const from = reel.index(last);
  const to = reel.index(key);
  const range = isRange && from >= 0 ? reel.stills.slice(Math.min(from, to), Math.max(from, to) + 1) : [];
  const touched = new Set([...keys(range), key]);
  last = key;
  const others = [...reel.selected].filter((each) => !touched.has(each));
  reel.select(isChosen ? [...others, ...touched] : others);
}

export function duplicate(wanted) {
  const copies = reel.duplicate(wanted);
  if (reel.selected.size) reel.select(copies);
  told(`${plural(copies.length, "still")} duplicated.`);
}

/** Remove stills; the message names the still if it is a single one. */
export function remove(wanted) {
  const [first] = wanted;
  const words = wanted.length === 1 ? reel.stills[reel.index(first)].name : plural(wanted.length, "still");
  const at = reel.index(first);
  reel.remove(wanted);
  told(`${words} removed.`);
  const next = reel.stills[Math.min(at, reel.stills.length - 1)];
  (next ? byId("stills").children[reel.index(next.key)].querySelector(".thumb") : byId("choose")).focus();
}

function sort(by) {
  const words = reel.selected.size > 1 ? `${plural(reel.selected.size, "still")}: ` : "";
  if (reel.sort(by)) told(words + SORTS[by]);
  else announce("The stills are in this order already.");
}

function moveTo(event) {
  event.preventDefault();
  const field = byId("place");
  const place = Number(field.value);
  const isPlace = /^[0-9]{1,6}$/.test(field.value.trim()) && place >= 1 && place <= reel.stills.length;
  markFault(field, byId("place-fault"), isPlace ? "" : `Enter a place from 1 to ${reel.stills.length}.`);
  if (!isPlace) return field.focus();
  if (reel.move(keys(reel.chosen), place - 1)) told(`${plural(reel.selected.size, "still")} moved to place ${place}.`);
}

function onKey(event) {
  if (event.target.closest("input:not([type=checkbox]), select")) return;
  const isAll = event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey);
  if (!isAll && !(event.key === "Escape" && reel.selected.size)) return;
  event.preventDefault();
  reel.select(isAll ? keys(reel.stills) : []);
}

function update() {
  const { selected, stills } = reel;
  const count = selected.size;
  const all = byId("select-all");
  all.checked = count > 0 && count === stills.length;
  all.indeterminate = count > 0 && count < stills.length;
  setText(byId("selected-count"), count ? `${count.toLocaleString("en")} selected` : "Select all");
  byId("chosen-acts").hidden = !count;
  setText(byId("hold-label"), count ? `Hold ${count.toLocaleString("en")} for` : "Hold all for");
  byId("hold-apply").setAttribute("aria-label", count ? "Apply to the selected stills" : "Apply to all stills");
  document.body.classList.toggle("is-selecting", count > 0);
  if (!count) markFault(byId("place"), byId("place-fault"), "");
}
