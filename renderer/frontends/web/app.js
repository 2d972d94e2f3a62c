// The page: its parts, set up in the order in which they need each other.

import { setUpAbout } from "./about.js";
import { setUpAdding } from "./adding.js";
import { keys, useKey } from "./api.js";
import { setUpCode } from "./code.js";
import { byId, markFault } from "./dom.js";
import { feed } from "./feed.js";
import { setUpJobs } from "./jobs.js";
import { setUpLane } from "./lane.js";
import { setUpMachine } from "./machine.js";
import { setUpPreview, showStill } from "./preview.js";
import { setUpRender } from "./render.js";
import { setUpSelection } from "./selection.js";
import { setUpSettings } from "./settings.js";
import { setUpStills } from "./stills.js";
import { setUpUndo } from "./undo.js";

const KEY_TEXT = /^[\x21-\x7e]+$/; // what a header can hold

function setUpKey() {
  const [form, field, note] = [byId("key"), byId("key-field"), byId("key-note")];
  keys.addEventListener("wanted", ({ detail }) => {
    form.hidden = false;
    markFault(field, note, detail.isWrong ? "The daemon does not know this key. Was it removed, or cut short?" : "");
    field.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const key = field.value.trim().replace(/^(key|bearer)\s+/i, "");
    if (!KEY_TEXT.test(key)) return markFault(field, note, "A key is one word of letters, digits, - and _.");
    form.hidden = true;
    useKey(key);
    field.value = "";
  });
}

function setUpLink() {
  let wasUp = false;
  feed.addEventListener("link", () => {
    wasUp ||= feed.isUp;
    byId("lost").hidden = feed.link !== "lost" || !wasUp;
  });
}

setUpKey();
setUpLink();
setUpAbout();
setUpSettings();
setUpStills({ show: showStill });
setUpSelection();
setUpUndo();
setUpLane();
setUpPreview();
setUpAdding();
setUpRender();
setUpCode();
setUpJobs();
setUpMachine();
feed.start();
