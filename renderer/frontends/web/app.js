// The page: its parts, set up in the order in which they need each other.

import { setUpAdding } from "./adding.js";
import { keys, useKey } from "./api.js";
import { setUpCode } from "./code.js";
import { byId, markFault } from "./dom.js";
import { feed } from "./feed.js";
import { setUpJobs } from "./jobs.js";
import { setUpMachine } from "./machine.js";
import { setUpPreview, showStill } from "./preview.js";
import { setUpRender } from "./render.js";
import { setUpSettings } from "./settings.js";
import { setUpStills } from "./stills.js";

function setUpKey() {
  const [form, field, note] = [byId("key"), byId("key-field"), byId("key-note")];
  keys.addEventListener("wanted", ({ detail }) => {
    form.hidden = false;
    markFault(field, note, detail.isWrong ? "The daemon does not know this key." : "");
    field.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.hidden = true;
    useKey(field.value.trim());
    field.value = "";
  });
}

setUpKey();
setUpSettings();
setUpStills({ show: showStill });
setUpPreview();
setUpAdding();
setUpRender();
setUpCode();
setUpJobs();
setUpMachine();
feed.start();
