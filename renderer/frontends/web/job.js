// One job as a row: its state, how far it is, how long it took, and what went wrong in words.

import * as api from "./api.js";
import { details } from "./details.js";
import { announce, byId, make, plural, setText, took } from "./dom.js";
import { faultSentences } from "./said.js";
import { showResult } from "./video.js";

const WORDS = {
  queued: "Waiting",
  running: "Rendering",
  done: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};
const ID_SHOWN = 12;

/** A job's state in one word, also from a daemon that tells only the hosted service's. */
export function stateOf({ state, status, error }) {
  const known = state ?? { IN_QUEUE: "queued", IN_PROGRESS: "running" }[status];
  return known ?? (error ? "failed" : "done");
}

/** Make the row; returns its element and the parts that change. `isOwn`: this browser asked for the job. */
export function row(id, isOwn) {
  const of = (tag, name, attributes) => make(tag, { class: name, ...attributes });
  const button = (words, label, onclick) =>
    make("button", { type: "button", class: "quiet", "aria-label": `${label} ${id}`, onclick }, words);
  const [state, what, encoder, when] = ["state", "what", "encoder", "when"].map((name) => of("span", name));
  const bar = make("progress", { max: 1, "aria-label": `Progress of ${id}` });
  const words = of("p", "fault", { hidden: true });
  const stop = button("Cancel", "Cancel", () => cancel(id, stop));
  const show = button("Show", "Show the video of", () => open(id, words));
  const box = details(id);
  const more = make(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-label": `Details of ${id}`,
      "aria-expanded": "false",
      "aria-controls": box.element.id,
      onclick: () => more.setAttribute("aria-expanded", String(box.toggle())),
    },
    "Details",
  );
  const shownId = id.length > ID_SHOWN ? `${id.slice(0, 8)}…` : id;
  const own = isOwn ? make("span", { class: "own" }, "from this browser") : null;
  const element = make(
    "li",
    { class: "job" },
    make("span", { class: "state-box" }, of("span", "dot"), state),
    make("span", { class: "job-id", title: id }, shownId, own),
    make("span", { class: "job-progress" }, what, bar),
    encoder,
    when,
    make("span", { class: "job-acts" }, stop, show, more),
    words,
    box.element,
  );
  return { element, state, what, bar, encoder, when, words, stop, show, box };
}

/** Bring a row up to date. */
export function refresh({ element, state, what, bar, encoder, when, words, stop, show, box }, job) {
  const name = stateOf(job);
  if (element.dataset.state && element.dataset.state !== name) box.refresh();
  const isUnderWay = name === "queued" || name === "running";
  element.dataset.state = name;
  setText(state, WORDS[name] ?? name);
  setText(what, amount(job, name));
  bar.hidden = name !== "running";
  bar.value = share(job);
  setText(encoder, job.encoder ?? "");
  setText(when, times(job, name));
  when.title = job.accepted_at ? `accepted ${new Date(job.accepted_at).toLocaleString()}` : "";
  stop.hidden = !isUnderWay;
  show.hidden = name !== "done" || !job.progress?.frames; // a job of another app has no frames, and not always a video
  // Keep the message of a "Show" that failed, although the job itself is done.
  if (name !== "done") setText(words, name === "failed" ? reason(job) : again(job));
  words.hidden = !words.textContent;
}

const reason = ({ error }) => (error ? faultSentences(error).join(" ") : "No reason was given.");
const again = ({ attempts }) => (attempts > 1 ? `Started ${attempts} times.` : "");
const share = ({ progress }) => (progress?.frames ? progress.frames_done / progress.frames : 0);

function amount({ progress, queue_position: ahead }, name) {
  const { images = 0, frames = 0, frames_done: coded = 0 } = progress ?? {};
  if (!frames) return name === "queued" && ahead ? `${ahead} ahead` : "";
  const size = `${plural(images, "still")}, ${plural(frames, "frame")}`;
  if (name === "running") return `${plural(images, "still")}, ${coded} of ${plural(frames, "frame")}`;
  return name === "queued" && ahead ? `${size}, ${ahead} ahead` : size;
}

function times({ accepted_at: accepted, started_at: started, finished_at: finished }, name) {
  const options = { hour: "2-digit", minute: "2-digit" };
  const clock = accepted ? new Date(accepted).toLocaleTimeString([], options) : "";
  const end = name === "running" ? Date.now() : Date.parse(finished);
  const length_s = Math.max(0, (end - Date.parse(started)) / 1000);
  return Number.isNaN(length_s) ? clock : `${took(length_s)} · ${clock}`;
}

async function cancel(id, button) {
  button.disabled = true;
  try {
    await api.cancel(id);
    announce("The job has been asked to stop.");
  } catch (error) {
    announce(error.message);
  }
  button.disabled = false;
}

async function open(id, words) {
  try {
    showResult(id, await api.result(id));
    byId("video-title").focus({ preventScroll: true });
  } catch (error) {
    setText(words, error.message);
    words.hidden = false;
  }
}
