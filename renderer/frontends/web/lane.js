// The sounds under the stills: a lane for each with its waveform, its fields, and what the length of the video follows.

import { byId, icon, iconButton, make, markFault, plural, setText } from "./dom.js";
import { heardOf } from "./hearing.js";
import { reel } from "./reel.js";
import { described, endOf, faultsOf, FIELDS, inSeconds, isEndless, numbers, time } from "./sound.js";
import { perSecond } from "./timeline.js";
import { setUpTrim } from "./trim.js";
import { told } from "./undo.js";
import { drawWave } from "./wave.js";

const FOLLOWED = {
  stills: "As long as the stills.",
  audio: "Fitted to the sound.",
  longest: "Held until the sound ends.",
};
const lanes = new Map(); // key -> {element, and the parts that change}

export function setUpLane() {
  byId("length").addEventListener("change", ({ target }) => {
    reel.follow(target.value);
    told(FOLLOWED[target.value]);
  });
  for (const what of ["stills", "settings", "faults"]) reel.addEventListener(what, update);
  new ResizeObserver(draw).observe(byId("sounds"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  update();
}

/** The first field that cannot be sent as it is; null if all can. */
export const soundAtFault = () => byId("sound").querySelector("[aria-invalid=true]");

const found = (key) => reel.sounds.find((sound) => sound.key === key);

function lane(sound) {
  const { key, name } = sound;
  const wave = make("canvas", { class: "wave", role: "img" });
  setUpTrim(wave, () => ({ sound: found(key), video_s: video_s() }));
  const facts = make("span", { class: "soft" });
  const fields = Object.fromEntries(Object.keys(FIELDS).map((each) => [each, field(sound, each)]));
  const loop = make("input", { type: "checkbox", onchange: () => reel.updateSound(key, { loop: loop.checked }) });
  const repeat = make("label", { class: "repeat" }, loop, "Repeat", make("span", { class: "unseen" }, ` ${name}`));
  const box = make(
    "details",
    {},
    make("summary", {}, icon("play"), make("span", {}, make("span", { class: "sound-name" }, name), facts)),
    make("div", { class: "sound-fields" }, ...Object.values(fields).map(({ element }) => element), repeat),
  );
  const note = make("p", { class: "note", hidden: true });
  const fault = make("p", { class: "fault", hidden: true });
  const removing = iconButton("remove", `Remove ${name}`, () => remove(key));
  const element = make("li", { class: "sound-item" }, make("div", { class: "lane" }, wave), box, removing, note, fault);
  return { element, wave, facts, fields, loop, box, note, fault };
}

function field({ key, name }, which) {
  const { label } = FIELDS[which];
  const id = `${which}-${key}`;
  const input = make("input", {
    id,
    inputmode: which === "gain_db" ? "text" : "decimal", // a minus sign is not on every phone's decimal keys
    autocomplete: "off",
    placeholder: which === "duration" ? "to its end" : "0",
    "aria-describedby": `${id}-fault`,
    oninput: () => reel.updateSound(key, { [which]: input.value, fault: "" }),
  });
  const unit = make("span", { class: "soft" }, which === "gain_db" ? " dB" : " s");
  const words = make("label", { for: id }, label, unit, make("span", { class: "unseen" }, `, ${name}`));
  const fault = make("p", { class: "fault", id: `${id}-fault`, hidden: true });
  return { element: make("div", { class: "field" }, words, input, fault), input, fault };
}

function remove(key) {
  const { name } = found(key);
  reel.removeSound(key);
  told(`${name} removed.`);
  const next = byId("sounds").querySelector("summary") ?? byId(reel.stills.length ? "add-sound" : "choose");
  next.focus();
}

function update() {
  const { sounds } = reel;
  for (const [key, { element }] of lanes) {
    if (found(key)) continue;
    element.remove();
    lanes.delete(key);
  }
  sounds.forEach((sound, at) => {
    if (!lanes.has(sound.key)) lanes.set(sound.key, lane(sound));
    const parts = lanes.get(sound.key);
    const list = byId("sounds");
    if (list.children[at] !== parts.element) list.insertBefore(parts.element, list.children[at] ?? null);
    refresh(parts, sound);
  });
  byId("sound").hidden = !sounds.length;
  if (!sounds.length) return;
  showLength();
  draw();
}

function refresh({ facts, fields, loop, box, note, fault }, sound) {
  const long = sound.long_s === null ? "" : `${time(sound.long_s)}; `;
  setText(facts, long + described(sound));
  const wrong = faultsOf(sound);
  for (const [name, { input, fault: words }] of Object.entries(fields)) {
    if (input.value !== sound[name]) input.value = sound[name];
    markFault(input, words, wrong.get(name));
  }
  loop.checked = sound.loop;
  if (wrong.size) box.open = true;
  setText(note, noteOn(sound));
  note.hidden = !note.textContent;
  setText(fault, sound.fault);
  fault.hidden = !sound.fault;
}

function noteOn(sound) {
  if (sound.isUnheard) {
    return "This browser cannot decode this sound, so it is not drawn or played here. The daemon can read it.";
  }
  if (sound.long_s !== null && heardOf(sound.file) && !heardOf(sound.file).buffer) {
    return "Too long to be drawn and played here. The video will have it.";
  }
  const isLate = reel.stills.length > 0 && numbers(sound).at >= video_s();
  return isLate ? "It would begin after the end of the video, so it is not heard." : "";
}

/** How long the lanes are: as the video, and without stills as the sounds. */
function video_s() {
  const { frames } = reel.timeline;
  return frames ? frames / perSecond(reel.rate) : inSeconds(endOf(reel.sounds) ?? 0) || 10;
}

function draw() {
  for (const sound of reel.sounds) {
    const wave = lanes.get(sound.key)?.wave;
    if (!wave) continue;
    drawWave(wave, sound, video_s());
    wave.setAttribute("aria-label", `Waveform of ${sound.name}`);
  }
}

function showLength() {
  const field = byId("length");
  field.value = reel.length;
  const isStuck = reel.length !== "stills" && reel.sounds.every(isEndless);
  const words = "A sound that is repeated never ends. Say how long to play it, or choose another length.";
  markFault(field, byId("length-fault"), isStuck ? words : "");
  setText(byId("length-note"), isStuck || !reel.stills.length ? "" : outcome());
}

/** What becomes of the difference between the stills and the sound, in words. */
function outcome() {
  const { length, timeline } = reel;
  const stills_s = reel.ownFrames / perSecond(reel.rate);
  const end = endOf(reel.sounds.filter((sound) => length !== "stills" || numbers(sound).at < stills_s));
  const sound_s = inSeconds(end ?? 0);
  if (end === null) return UNKNOWN[length];
  if (length === "audio" && reel.sharing.length && timeline.frames > reel.ownFrames) return shares(sound_s);
  if (!end) return reel.sounds.some(isEndless) ? "The sound is repeated until the last still ends." : "";
  if (Math.abs(sound_s - stills_s) * perSecond(reel.rate) <= 0.5) return "The stills and the sound end together.";
  const [sound, stills] = [time(sound_s), time(stills_s)];
  if (sound_s < stills_s) return `The sound ends at ${sound}; silence follows until the last still ends, at ${stills}.`;
  if (length === "stills") return `The last still ends at ${stills}; the sound, which would go on until ${sound}, is cut there.`;
  return `The last still is held ${time(sound_s - stills_s)} longer, until the sound ends at ${sound}.`;
}

function shares(sound_s) {
  const { timeline, sharing, stills } = reel;
  const part = sharing.length < stills.length ? "what the other stills leave of " : "";
  const frames = timeline.frames - reel.ownFrames + sharing.length;
  const each = time(frames / sharing.length / perSecond(reel.rate));
  const who = `${plural(sharing.length, "still")} ${sharing.length === 1 ? "gets" : "share"}`;
  const own = "Enter a hold for a still to give it a time of its own.";
  return `${who} ${part}the sound's ${time(sound_s)}, about ${each} each. ${own}`;
}

const UNKNOWN = {
  stills: "A sound that is longer is cut where the last still ends; after a shorter one silence follows.",
  longest: "The daemon measures the sound, and holds the last still until it ends; after a shorter one silence follows.",
  audio: "The daemon measures the sound, and the stills without a hold of their own share its time.",
};
