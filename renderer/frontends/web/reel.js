// What the page is about: the stills in their order, each with its hold, their sounds, and how they are to be shown.
//
// The one place that changes them. Everything else listens: "stills" when one comes, goes, moves or is held otherwise,
// or a sound changes, "settings" when the output changes, "faults" when words beside one change, "selection" when
// stills are chosen.
//
// What changes many stills at once, or takes one away, is remembered first, and `undo` brings back what was there; what
// has been added since then stays.

import { canvasFor } from "./geometry.js";
import { sorted } from "./order.js";
import { endOf, track, UNTOUCHED } from "./sound.js";
import { following, frameRate, holdSeconds, layOut } from "./timeline.js";

const KEPT_SETTINGS = "stillreel.settings";
const STEPS_KEPT = 50; // that can be undone
export const FIRST_HOLD = { amount: "24", unit: "frames" };
const SHARED = { amount: "", unit: "frames" };
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
  sheet: "", // "yes": a contact sheet is made beside the video
};

let made = 0;

class Reel extends EventTarget {
  stills = []; // {key, name, date, file, url, width, height, thumb, amount, unit, title, fault}
  poster = null; // the key of the still whose first frame becomes a picture beside the video
  sounds = []; // {key, name, file, url, long_s, fault} and the fields of sound.js
  length = "stills"; // what the video is as long as, as in a request; stills without a hold share the time of "audio"
  selected = new Set(); // keys
  settings = { ...DEFAULTS, ...kept() };
  #timeline = null;
  #past = []; // before each step: {stills, sounds, length, and values: [{of, fields}] of what the step changed}

  get rate() {
    return frameRate(this.settings.fps) ?? frameRate(DEFAULTS.fps);
  }

  /** The timeline; `isOpen` says that it will be longer, by a sound whose length is not known here. */
  get timeline() {
    if (this.#timeline) return this.#timeline;
    const { sharing, sounds, length } = this;
    const laid = this.#ownTimes();
    const end = length === "stills" ? 0 : endOf(sounds);
    const line = end ? following(laid, length === "audio" ? sharing : [], end, this.rate) : laid;
    return (this.#timeline = { ...line, isOpen: end === null });
  }

  /** The frames of the stills before they follow a sound; a still that is to share its time has one. */
  get ownFrames() {
    return this.#ownTimes().frames;
  }

  #ownTimes() {
    const holds = this.stills.map((still) => (this.#isSharing(still) ? { amount: "1", unit: "frames" } : still));
    return layOut(holds, this.rate);
  }

  /** The indexes of the stills that share the time of the sound. */
  get sharing() {
    return [...this.stills.keys()].filter((at) => this.#isSharing(this.stills[at]));
  }

  #isSharing = ({ amount }) => this.length === "audio" && !amount.trim();

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
      title: "", // of the chapter that begins with it
      fault: "",
      amount: last?.amount ?? FIRST_HOLD.amount,
      unit: last?.unit ?? FIRST_HOLD.unit,
      before: last?.before, // the hold that it has when it no longer shares the time of a sound
      ...more,
    };
    this.stills.push(still);
    for (const was of this.#past) was.stills.push(still);
    this.#tell("stills");
    return still;
  }

  addSound(name, file, more = {}) {
    const sound = { key: ++made, name, file, url: null, long_s: null, fault: "", ...UNTOUCHED, ...more };
    this.sounds.push(sound);
    for (const was of this.#past) was.sounds.push(sound);
    this.#tell("stills");
    return sound;
  }

  updateSound(key, values) {
    const sound = this.sounds.find((each) => each.key === key);
    if (!sound) return;
    Object.assign(sound, values);
    this.#tell("stills");
  }

  /** Remember how a sound is, which is about to be changed in many small steps. */
  beginToChange(sound) {
    this.#remember([sound]);
  }

  removeSound(key) {
    this.#remember(this.stills);
    this.sounds = this.sounds.filter((sound) => sound.key !== key);
    this.#tell("stills");
  }

  /** Let the length of the video follow something else; a still that shared the sound's time has its hold back then. */
  follow(length) {
    this.#remember(this.stills);
    this.#follow(length);
    this.#tell("stills");
  }

  #follow(length) {
    for (const still of this.stills) {
      const { amount, unit, before = FIRST_HOLD } = still;
      if (length === "audio" && this.length !== "audio") Object.assign(still, { ...SHARED, before: { amount, unit } });
      else if (length !== "audio" && this.#isSharing(still)) Object.assign(still, before);
    }
    this.length = length;
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

  /** Make a still the poster, or no still if it is the poster already. */
  togglePoster(key) {
    this.poster = this.poster === key ? null : key;
    this.#tell("stills");
  }

  /** The index of the still that is the poster, and -1 without one. */
  get posterAt() {
    return this.index(this.poster);
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

  /** Remove a still or a sound that should not have been added; undo does not bring it back. */
  discard(key) {
    const others = (list) => list.filter((each) => each.key !== key);
    this.#past = this.#past.map((was) => ({ ...was, stills: others(was.stills), sounds: others(was.sounds) }));
    this.stills = others(this.stills);
    this.sounds = others(this.sounds);
    this.#tell("stills");
  }

  /** Set the hold of the selected stills, or of all stills if none is selected. */
  hold(amount, unit) {
    const held = this.selected.size ? this.chosen : this.stills;
    this.#remember(held);
    for (const still of held) Object.assign(still, { amount, unit });
    this.#tell("stills");
  }

  /** Bring back what was there before the last step; returns whether there was one. */
  undo() {
    const was = this.#past.pop();
    if (!was) return false;
    const { stills, sounds, length, values } = was;
    Object.assign(this, { stills, sounds, length });
    for (const { of, fields } of values) Object.assign(of, fields);
    this.#tell("stills");
    return true;
  }

  /** Remember what there is, and how some of it is that is about to change. */
  #remember(changing = []) {
    const names = ["amount", "unit", ...Object.keys(UNTOUCHED)];
    const fields = (of) => Object.fromEntries(names.filter((name) => name in of).map((name) => [name, of[name]]));
    const values = changing.map((of) => ({ of, fields: fields(of) }));
    const { stills, sounds, length } = this;
    const now = { stills: [...stills], sounds: [...sounds], length, values };
    this.#past = [...this.#past, now].slice(-STEPS_KEPT);
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

  /** Put words beside stills and sounds: a Map from key to words; the others' are cleared. */
  setFaults(words) {
    for (const each of [...this.stills, ...this.sounds]) each.fault = words.get(each.key) ?? "";
    this.#tell("faults");
  }

  /** The request as every door takes it; what has its default is left out. `urlOf(source)` names a picture or a sound. */
  request(urlOf) {
    const { fps, fit, background, crf, preset, encoder, sheet } = this.settings;
    const { width, height } = this.sides;
    const images = this.stills.map((still) => {
      const hold = still.unit === "frames" ? { frames: Number(still.amount) } : { duration: holdSeconds(still.amount) };
      const title = still.title.trim();
      return { url: urlOf(still), ...(this.#isSharing(still) ? {} : hold), ...(title && { title }) };
    });
    const request = { images };
    if (this.sounds.length) request.audio = this.sounds.map((sound) => track(sound, urlOf(sound)));
    if (this.length !== "stills") request.length = this.length;
    if (frameRate(fps)) request.fps = fps.includes("/") ? fps.trim() : Number(fps);
    if (width) request.width = width;
    if (height) request.height = height;
    if (fit !== DEFAULTS.fit) request.resize_mode = fit;
    if (background !== DEFAULTS.background) request.background = background;
    if (crf !== DEFAULTS.crf) request.crf = Number(crf);
    if (preset !== DEFAULTS.preset) request.preset = preset;
    if (encoder !== DEFAULTS.encoder) request.encoder = encoder;
    if (this.posterAt === 0) request.poster = "first";
    else if (this.posterAt > 0) request.poster = { frame: this.timeline.ends[this.posterAt - 1] };
    if (sheet) request.contact_sheet = true;
    return request;
  }

  #tell(what) {
    if (!this.sounds.length && this.length !== "stills") this.#follow("stills");
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
