// The output's settings: every field keeps the reel up to date, and says beside itself what is wrong with it.

import { about, offers } from "./about.js";
import { byId, make, markFault, setText } from "./dom.js";
import { reel } from "./reel.js";
import { frameRate } from "./timeline.js";

const PRESETS = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
const QUALITIES = [
  [0, "lossless"],
  [17, "nearly lossless"],
  [23, "high"],
  [28, "medium"],
  [34, "low"],
  [51, "poor"],
];
const NOTES = {
  // the field of a request -> what is marked, and where its words appear
  fps: ["fps", "fps-fault"],
  width: ["width", "size-fault"],
  height: ["height", "size-fault"],
  background: ["background-text", "background-fault"],
  crf: ["crf", "crf-fault"],
  preset: ["preset", "preset-fault"],
  encoder: ["encoder", "encoder-fault"],
  length: ["length", "length-fault"],
};
const MAX_SIDE = 16384;

export function setUpSettings() {
  for (const name of PRESETS) byId("preset").append(make("option", { value: name }, name));
  offerEncoders();
  offers.addEventListener("known", offerEncoders);
  const form = byId("settings");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => change(target));
  for (const [name, value] of Object.entries(reel.settings)) {
    const field = form.elements[name];
    if (field?.type === "checkbox") field.checked = Boolean(value);
    else if (field) field.value = value;
  }
  byId("background-text").value = reel.settings.background;
  for (const what of ["stills", "settings"]) reel.addEventListener(what, update);
  update();
}

/** Offer the encoders that this daemon has; a stored choice that it does not have is replaced. */
function offerEncoders() {
  const field = byId("encoder");
  const names = about.encoders ?? [...new Set(["auto", reel.settings.encoder])];
  field.replaceChildren(...names.map((value) => make("option", { value }, value)));
  if (!names.includes(reel.settings.encoder)) reel.set("encoder", "auto");
  field.value = reel.settings.encoder;
}

function change(field) {
  if (field.id === "background-text") return changeBackground(field);
  if (field.id === "background") {
    byId("background-text").value = field.value;
    markFault(byId("background-text"), byId("background-fault"), "");
  }
  if (field.id === "size" && field.value === "custom") beginWith(reel.canvas);
  reel.set(field.name, field.type !== "checkbox" ? field.value : field.checked ? "yes" : "");
}

function changeBackground(field) {
  const text = field.value.trim();
  const isColour = /^#?[0-9a-f]{6}$/i.test(text);
  markFault(field, byId("background-fault"), isColour ? "" : "Enter six hexadecimal digits, such as #1c1b1a.");
  if (!isColour) return;
  reel.set("background", `#${text.replace("#", "").toLowerCase()}`);
  byId("background").value = reel.settings.background;
}

/** Custom sides begin with what was shown before. */
function beginWith(canvas) {
  if (reel.settings.width || reel.settings.height) return;
  for (const side of ["width", "height"]) {
    byId(side).value = canvas[side];
    reel.set(side, String(canvas[side]));
  }
}

function update() {
  showRate();
  showSize();
  showQuality();
  showPoster();
  for (const note of ["crf-fault", "preset-fault", "encoder-fault"]) byId(note).hidden = true;
}

function showRate() {
  const { fps } = reel.settings;
  const rate = frameRate(fps);
  markFault(byId("fps"), byId("fps-fault"), rate ? "" : "1 to 120, such as 24, 29.97 or 30000/1001.");
  const isInexact = rate && rate.d !== 1n && !fps.includes("/");
  setText(byId("fps-note"), isInexact ? `exactly ${rate.n}/${rate.d}` : "");
  byId("fps-note").hidden = !isInexact;
}

function showSize() {
  const { settings, canvas } = reel;
  const isKnown = settings.size === "first" && reel.stills.some((still) => still.width);
  setText(byId("size-first"), `Same as the first still${isKnown ? `, ${canvas.width} × ${canvas.height}` : ""}`);
  byId("sides").hidden = settings.size !== "custom";
  byId("width").placeholder = settings.height ? String(canvas.width) : "width";
  byId("height").placeholder = settings.width ? String(canvas.height) : "height";
  for (const side of ["width", "height"]) markFault(byId(side), byId("size-fault"), "");
  for (const side of ["width", "height"]) {
    if (sideFault(side)) markFault(byId(side), byId("size-fault"), sideFault(side));
  }
}

function showPoster() {
  const { posterAt: at, stills } = reel;
  setText(byId("poster-note"), at < 0 ? "Poster: mark a still with its flag." : `Poster: still ${at + 1}, ${stills[at].name}`);
}

function showQuality() {
  const { crf } = reel.settings;
  const words = QUALITIES.find(([most]) => Number(crf) <= most)[1];
  setText(byId("crf-value"), `${crf}, ${words}`);
  byId("crf").setAttribute("aria-valuetext", `crf ${crf}, ${words}`);
}

function sideFault(side) {
  const { size, [side]: text } = reel.settings;
  if (size !== "custom" || !text.trim()) return "";
  const isSide = /^[0-9]{1,6}$/.test(text.trim()) && Number(text) >= 2 && Number(text) <= MAX_SIDE;
  return isSide ? "" : `Enter sides from 2 to ${MAX_SIDE}; you may leave one empty.`;
}

/** The first field that cannot be sent as it is; null if all can. */
export function settingAtFault() {
  return byId("settings").querySelector("[aria-invalid=true]");
}

/** Put the daemon's words beside a field; returns false if no field here has that name. */
export function markSetting(name, words) {
  const [field, note] = NOTES[name] ?? [];
  if (!field) return false;
  markFault(byId(field), byId(note), words);
  return true;
}
