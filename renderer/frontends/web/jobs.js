// The daemon's jobs, live: whoever asked for them and through whichever door.

import { byId, setText } from "./dom.js";
import { feed, remembered } from "./feed.js";
import { refresh, row, stateOf } from "./job.js";

const SHOWN_AT_FIRST = 8;
const NOTES = {
  connecting: "Connecting.",
  lost: "The daemon does not answer; trying again.",
  locked: "The daemon needs a key first.",
};
const rows = new Map(); // request id -> {element, and the parts that change}
let isShowingAll = false;

export function setUpJobs() {
  byId("all-jobs").addEventListener("click", showAll);
  feed.addEventListener("jobs", update);
  feed.addEventListener("link", update);
  setInterval(update, 1000); // the time that a job has been running for changes without an event
}

function showAll() {
  isShowingAll = true;
  const first = byId("jobs").children[SHOWN_AT_FIRST];
  update();
  first?.querySelector("button:not([hidden])")?.focus();
}

function update() {
  const { jobs } = feed;
  setText(byId("jobs-note"), NOTES[feed.link] ?? counted(jobs));
  byId("no-jobs").hidden = jobs.length > 0;
  for (const [id, { element }] of rows) {
    if (!feed.get(id)) {
      element.remove();
      rows.delete(id);
    }
  }
  const own = new Set(remembered().map(({ id }) => id));
  jobs.forEach((job, at) => put(job, at, own));
  const hidden = byId("jobs").querySelectorAll(":scope > [hidden]").length;
  byId("all-jobs").hidden = !hidden;
  setText(byId("all-jobs"), `Show ${hidden} more`);
}

function put(job, at, own) {
  const id = job.request_id;
  if (!rows.has(id)) rows.set(id, row(id, own.has(id)));
  const parts = rows.get(id);
  const list = byId("jobs");
  if (list.children[at] !== parts.element) list.insertBefore(parts.element, list.children[at] ?? null);
  refresh(parts, job);
  parts.element.hidden = !isShowingAll && at >= SHOWN_AT_FIRST && stateOf(job) !== "running";
}

function counted(jobs) {
  const count = (name) => jobs.filter((job) => stateOf(job) === name).length;
  const words = [
    [count("running"), "rendering"],
    [count("queued"), "waiting"],
  ];
  return words
    .filter(([number]) => number)
    .map((pair) => pair.join(" "))
    .join(", ");
}
