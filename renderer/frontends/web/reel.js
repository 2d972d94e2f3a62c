// What the page is about: the stills in their order, each with its hold, and how they are to be shown.
//
// The one place that changes them. Everything else listens: "stills" when one comes, goes, moves or is held otherwise,
// "settings" when the output changes, "faults" when words beside a still change, "selection" when stills are chosen.
//
// What changes many stills at once, or takes one away, is remembered first, and `undo` brings back what was there.

import { canvasFor } from "./geometry.js";
import { sorted } from "./order.js";
import { frameRate, holdSeconds, layOut } from "./timeline.js";

const KEPT_SETTINGS = "stillreel.settings";
const STEPS_KEPT = 50; // that can be undone
const FALLBACK_SIZE = { width: 1280, height: 720 }; // of the preview, while no still's size is known

export const DEFAULTS = {
  fps: "24",
  size: "first",
  width: "",
  height: "",
  fit: "pad",
  background: "#000000",
  crf: "20",
  preset: "veryfast",
  encoder: "auto",
};

let made = 0;

class Reel extends EventTarget {
  stills = []; // {key, name, date, file, url, width, height, thumb, amount, unit, fault}
  selected = new Set(); // keys
  settings = { ...DEFAULTS, ...kept() };
  #timeline = null;
  #past = []; // before each step: {stills, and holds: [{still, amount, unit}] where the step changed them}

  get rate() {
    return frameRate(this.settings.fps) ?? frameRate(DEFAULTS.fps);
  }

  get timeline() {
    return (this.#timeline ??= layOut(this.stills, this.rate));
  }

  /** The sides that were asked for: numbers, or null for "follows from the first still". */
  get sides() {
    const { size, width, height } = this.settings;
    if (size === "first") return { width: null, height: null };
    const [wide, high] = size === "custom" ? [width, height] : size.split("x");
    return { width: Number(wide) || null, height: Number(high) || null };
  }

  /** The video's size as far as it can be known here. */
  get canvas() {
    const first = this.stills.find((still) => still.width) ?? FALLBACK_SIZE;
    const { width, height } = this.sides;
    return canvasFor(first, width, height);
  }

  add(name, file, more = {}) {
    const last = this.stills.at(-1);
    const still = {
      key: ++made,
      name,
      file,
      date: file.lastModified ?? 0,
      url: null,
      width: 0,
      height: 0,
      thumb: null,
      fault: "",
      amount: last?.amount ?? "24",
      unit: last?.unit ?? "frames",
      ...more,
    };
    this.stills.push(still);
    this.#tell("stills");
    return still;
  }

  index(key) {
    return this.stills.findIndex((still) => still.key === key);
  }

  update(key, values) {
    const still = this.stills[this.index(key)];
    if (!still) return;
    Object.assign(still, values);
    this.#tell("stills");
  }

  /** The stills that are chosen, in their order. */
  get chosen() {
    return this.stills.filter(({ key }) => this.selected.has(key));
  }

  select(keys) {
    this.selected = new Set(keys);
    this.#tell("selection");
  }

  /** Move stills, in their order, so that the first is at another place; returns whether they moved. */
  move(keys, to) {
    const chosen = new Set(keys);
    const moving = this.stills.filter(({ key }) => chosen.has(key));
    const others = this.stills.filter(({ key }) => !chosen.has(key));
    const order = others.toSpliced(Math.max(0, Math.min(others.length, to)), 0, ...moving);
    return this.#arrange(order);
  }

  /** Sort the selected stills within their places, or all if fewer than two are selected; returns whether any moved. */
  sort(by) {
    const few = new Set(this.selected.size > 1 ? this.chosen : this.stills);
    const next = sorted([...few], by).values();
    return this.#arrange(this.stills.map((still) => (few.has(still) ? next.next().value : still)));
  }

  /** Put copies of stills after the last of them; returns the keys of the copies. */
  duplicate(keys) {
    const chosen = new Set(keys);
    const wanted = this.stills.filter(({ key }) => chosen.has(key));
    const copies = wanted.map((still) => ({ ...still, key: ++made, fault: "" }));
    this.#arrange(this.stills.toSpliced(this.stills.indexOf(wanted.at(-1)) + 1, 0, ...copies));
    return copies.map(({ key }) => key);
  }

  remove(keys) {
    const chosen = new Set(keys);
    this.#arrange(this.stills.filter(({ key }) => !chosen.has(key)));
  }

  clear() {
    this.#arrange([]);
  }

  /** Remove a still that should not have been added; undo does not bring it back. */
  discard(key) {
    const isOther = (still) => still.key !== key;
    this.#past = this.#past.map((was) => ({ ...was, stills: was.stills.filter(isOther) }));
    this.stills = this.stills.filter(isOther);
    this.#tell("stills");
  }

  /** Set the hold of the selected stills, or of all stills if none is selected. */
  hold(amount, unit) {
    const held = this.selected.size ? this.chosen : this.stills;
    this.#remember(held.map((still) => ({ still, amount: still.amount, unit: still.unit })));
    for (const still of held) Object.assign(still, { amount, unit });
    this.#tell("stills");
  }

  /** Bring back what was there before the last step; returns whether there was one. */
  undo() {
    const was = this.#past.pop();
    if (!was) return false;
    this.stills = was.stills;
    for (const { still, amount, unit } of was.holds) Object.assign(still, { amount, unit });
    this.#tell("stills");
    return true;
  }

  #remember(holds = []) {
    this.#past = [...this.#past, { stills: [...this.stills], holds }].slice(-STEPS_KEPT);
  }

  #arrange(order) {
    const isSame = order.length === this.stills.length && order.every((still, at) => still === this.stills[at]);
    if (isSame) return false;
    this.#remember();
    this.stills = order;
    this.#tell("stills");
    return true;
  }

  set(name, value) {
    this.settings[name] = value;
    try {
      localStorage.setItem(KEPT_SETTINGS, JSON.stringify(this.settings));
    } catch {
      // Storage may be forbidden; then the settings last as long as the page.
    }
    this.#tell("settings");
  }

  /** Put words beside stills: a Map from key to words; the others' are cleared. */
  setFaults(words) {
    for (const still of this.stills) still.fault = words.get(still.key) ?? "";
    this.#tell("faults");
  }

  /** The request as every door takes it; what has its default is left out. `urlOf(still)` names the picture. */
  request(urlOf) {
    const { fps, fit, background, crf, preset, encoder } = this.settings;
    const { width, height } = this.sides;
    const images = this.stills.map((still) => {
      const hold = still.unit === "frames" ? { frames: Number(still.amount) } : { duration: holdSeconds(still.amount) };
      return { url: urlOf(still), ...hold };
    });
    const request = { images };
    if (frameRate(fps)) request.fps = fps.includes("/") ? fps.trim() : Number(fps);
    if (width) request.width = width;
    if (height) request.height = height;
    if (fit !== DEFAULTS.fit) request.resize_mode = fit;
    if (background !== DEFAULTS.background) request.background = background;
    if (crf !== DEFAULTS.crf) request.crf = Number(crf);
    if (preset !== DEFAULTS.preset) request.preset = preset;
    if (encoder !== DEFAULTS.encoder) request.encoder = encoder;
    return request;
  }

  #tell(what) {
    if (what !== "faults" && what !== "selection") this.#timeline = null;
    if (what === "stills" && this.chosen.length < this.selected.size) {
      this.selected = new Set(this.chosen.map(({ key }) => key));
    }
    this.dispatchEvent(new Event(what));
  }
}

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT_SETTINGS)) ?? {};
    return Object.fromEntries(
      Object.entries(found).filter(([name, value]) => name in DEFAULTS && typeof value === "string"),
    );
  } catch {
    return {};
  }
}

export const reel = new Reel();
