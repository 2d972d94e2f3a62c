// What the page is about: the stills in their order, each with its hold, and how they are to be shown.
//
// The one place that changes them. Everything else listens: "stills" when one comes, goes, moves or is held otherwise,
// "settings" when the output changes, "faults" when words beside a still change.

import { canvasFor } from "./geometry.js";
import { frameRate, layOut } from "./timeline.js";

const KEPT_SETTINGS = "stillreel.settings";
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
  stills = []; // {key, name, file, url, width, height, thumb, amount, unit, fault}
  settings = { ...DEFAULTS, ...kept() };
  #timeline = null;

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

  /** Move a still to another place; returns whether it moved. */
  move(key, to) {
    const from = this.index(key);
    const target = Math.max(0, Math.min(this.stills.length - 1, to));
    if (from < 0 || from === target) return false;
    this.stills.splice(target, 0, ...this.stills.splice(from, 1));
    this.#tell("stills");
    return true;
  }

  remove(key) {
    this.stills = this.stills.filter((still) => still.key !== key);
    this.#tell("stills");
  }

  clear() {
    this.stills = [];
    this.#tell("stills");
  }

  holdAll(amount, unit) {
    for (const still of this.stills) Object.assign(still, { amount, unit });
    this.#tell("stills");
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
      const hold = Number(still.amount);
      return { url: urlOf(still), ...(still.unit === "frames" ? { frames: hold } : { duration: hold }) };
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
    if (what !== "faults") this.#timeline = null;
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
