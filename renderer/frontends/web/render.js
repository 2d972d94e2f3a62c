// One render from the button to the video: upload, submit, follow, show.
//
// The request id is made here and remembered before it is sent. So a page that is closed at any moment finds its job
// again, and a submission that is repeated renders once.

import * as api from "./api.js";
import { announce, byId, plural, sentence, setText, SOURCES, took } from "./dom.js";
import { feed, remember, remembered } from "./feed.js";
import { soundAtFault } from "./lane.js";
import { reel } from "./reel.js";
import { faultSentences } from "./said.js";
import { newId, send, uploadAll } from "./sending.js";
import { markSetting, settingAtFault } from "./settings.js";
import { showFirstFault } from "./stills.js";
import { showing, showResult } from "./video.js";

const GONE = "The daemon no longer knows this job. Render again.";
const AWAY = "The daemon does not answer; the page will look for the job again as soon as it does";

const UNFINISHED = new Set(["IN_QUEUE", "IN_PROGRESS"]);
const ENDINGS = { cancelled: "Cancelled.", expired: "Expired: it did not start in time." };
const LOOK_MS = 2000;

let current = null; // {id, urls, isSent, isCancelled} from the press of the button until the job has ended
let rendered = null; // {id, asked}: the job that was done last, and what it was asked for, as text

export function setUpRender() {
  byId("render").addEventListener("click", start);
  byId("cancel").addEventListener("click", cancel);
  feed.addEventListener("jobs", () => current && follow(feed.get(current.id)));
  feed.addEventListener("link", noteLink);
  for (const what of ["stills", "settings"]) reel.addEventListener(what, update);
  setInterval(lookElsewhere, LOOK_MS);
  update();
  resume();
}

function update() {
  const { stills, timeline, canvas } = reel;
  const button = byId("render");
  setText(button, stills.length && !timeline.isOpen ? `Render ${plural(timeline.frames, "frame")}` : "Render");
  button.disabled = !stills.length || Boolean(current);
  const words = `${canvas.width} × ${canvas.height}, from ${plural(stills.length, "still")}`;
  setText(byId("render-note"), stills.length ? words : "Add images first.");
  noteChange();
}

/** The request that would be sent now, as text; files that were not uploaded yet have no url in it. */
const asked = () => JSON.stringify(reel.request(({ url }) => url));

/** Hide "Done" when the stills or settings differ from what was rendered, and show it when they are the same again. */
function noteChange() {
  if (!rendered) return;
  const isStale = rendered.asked !== asked();
  byId("stale").hidden = !isStale || !reel.stills.length || showing() !== rendered.id;
  if (!current) byId("progress").hidden = isStale;
}

/** Say that the daemon is away while a job is under way; it is looked for when the line is up again. */
function noteLink() {
  update();
  if (current?.isSent && feed.link === "lost") setText(byId("stage-words"), AWAY);
}

async function start() {
  setFault("");
  reel.setFaults(new Map());
  const field = settingAtFault() ?? soundAtFault();
  if (field || reel.timeline.faults.size) {
    announce("Some fields need attention: see the messages beside them.");
    return field ? field.focus() : showFirstFault();
  }
  current = { id: newId(), urls: {}, isSent: false, isCancelled: false };
  update();
  try {
    await submit(
      current,
      { images: [...reel.stills], audio: [...reel.sounds] },
      reel.request(() => null),
    );
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    fail(error.message, error.faults, current.urls);
  }
}

/** Send the stills, sounds and settings of the moment when the button was pressed; the page may change meanwhile. */
async function submit(run, sources, request) {
  const all = Object.values(sources).flat();
  await uploadAll(all, run, showProgress);
  if (run.isCancelled) return end("Cancelled.");
  const ready = { ...request };
  for (const list of Object.keys(SOURCES).filter((name) => request[name])) {
    run.urls[list] = sources[list].map(({ url }) => url);
    ready[list] = request[list].map((source, at) => ({ ...source, url: run.urls[list][at] }));
  }
  run.asked = JSON.stringify(ready);
  remember(run.id, run.urls, run.asked);
  showProgress("Sending", 0);
  try {
    await send({ ...ready, request_id: run.id });
  } catch (error) {
    if (run.isRepeated || !isForgotten(error)) throw error;
    run.isRepeated = true;
    for (const source of all) source.url = null;
    return submit(run, sources, request);
  }
  run.isSent = true;
  if (run.isCancelled) await api.cancel(run.id);
  if (current === run) announce("The job was accepted.");
}

/** Whether a request was refused because an upload has expired: the daemon keeps uploads for a limited time. */
const isForgotten = ({ faults = [] }) =>
  faults.some(({ loc, type }) => loc[0] in SOURCES && type === "file_download_error");

/** After the page was loaded again: the job that was asked for last, if the daemon still knows it. */
async function resume() {
  const last = remembered().at(-1);
  if (!last) return;
  const job = await feed.find(last.id).catch(() => undefined);
  if (!job || current || job.state in ENDINGS) return;
  current = { ...last, isSent: true, isCancelled: false, isOld: !UNFINISHED.has(job.status) };
  update();
  follow(job);
}

/** Ask for a job that the feed no longer shows, because many came after it or the daemon lost it. */
async function lookElsewhere() {
  if (!current?.isSent || !feed.isUp || feed.get(current.id)) return;
  const run = current;
  try {
    const job = await feed.find(run.id);
    if (current !== run) return;
    if (job) follow(job);
    else fail(GONE, [], run.urls);
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error; // the page looks for it again later
  }
}

function follow(job) {
  if (!job || current.isEnding) return;
  if (UNFINISHED.has(job.status)) return showProgress(...phase(job), !current.isCancelled);
  current.isEnding = true;
  if (job.state in ENDINGS) return end(ENDINGS[job.state]);
  if (job.error) {
    const { message, loc = [], errors = [] } = job.error;
    return fail(message, errors.length ? errors : [{ loc, msg: message }], current.urls);
  }
  return finish(current);
}

async function finish(run) {
  try {
    const result = await api.result(run.id);
    end(`Done in ${took(result.timings?.total ?? 0)}.`, true);
    showResult(run.id, result, { isNew: !run.isOld });
    rendered = { id: run.id, asked: run.asked };
    noteChange();
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error;
    if (error.status) return fail(error.message, error.faults, run.urls);
    run.isEnding = false; // the daemon is away; when it is back, its job is found done again
  }
}

function phase({ status, queue_position: ahead, progress }) {
  if (status === "IN_QUEUE") return [ahead ? `Waiting, ${plural(ahead, "job")} ahead` : "Waiting to start", 0];
  const { frames_done: coded = 0, frames } = progress; // the number of stills that were handed over says little about the work that is left
  return [`Rendering, ${coded} of ${plural(frames, "frame")}`, coded / frames];
}

function showProgress(words, share, mayCancel = true) {
  for (const id of ["progress", "bar", "cancel"]) byId(id).hidden = false;
  byId("watch").hidden = true;
  byId("bar").value = share;
  byId("cancel").disabled = !mayCancel;
  setText(byId("stage-words"), current.isCancelled ? "Cancelling" : words);
}

function end(words, isDone = false) {
  const hadFocus = document.activeElement === byId("cancel");
  current = null;
  byId("progress").hidden = !words;
  byId("bar").hidden = byId("cancel").hidden = true;
  byId("watch").hidden = !isDone;
  setText(byId("stage-words"), words);
  update();
  if (hadFocus) byId("render").focus();
  if (words) announce(words);
}

/** Show each fault beside the field, still or sound that it is about, and a summary beside the button. */
function fail(message, faults, urls) {
  end("");
  const sources = [...reel.stills, ...reel.sounds];
  const beside = new Map(sources.filter(({ fault }) => fault).map(({ key, fault }) => [key, fault]));
  for (const { loc, msg } of faults) {
    const found = sources.filter(({ url }) => url && url === urls[loc[0]]?.[loc[1]]);
    for (const source of found) {
      beside.set(source.key, sentence(msg, false));
      source.url = null; // upload it again next time: the stored copy may be at fault
    }
    if (!(loc[0] in SOURCES)) markSetting(loc[0], sentence(msg));
  }
  reel.setFaults(beside);
  const all = faultSentences({ message, errors: faults.length > 1 ? faults : [] }).join(" ");
  const words = faults.length > 1 && beside.size > 1 ? `${plural(beside.size, "file")} could not be used.` : all;
  setFault(words);
  announce(`Not rendered. ${words}`);
  if (beside.size) showFirstFault();
}

function setFault(words) {
  setText(byId("render-fault"), words);
  byId("render-fault").hidden = !words;
}

async function cancel() {
  const run = current;
  run.isCancelled = true;
  byId("cancel").disabled = true;
  setText(byId("stage-words"), "Cancelling");
  try {
    if (run.isSent) await api.cancel(run.id);
  } catch (error) {
    setFault(error.message);
  }
}
