// What a job was asked for and how it went, below its row: fetched when it is opened, and again when the job moves on.

import * as api from "./api.js";
import { make, plural, SOURCES } from "./dom.js";
import { remembered } from "./feed.js";
import { warnings } from "./video.js";

/** Make a closed box; `toggle()` opens or closes it and returns whether it is open, `refresh()` reads it anew. */
export function details(id) {
  const element = make("div", { class: "details", id: `details-${id}`, hidden: true });
  const refresh = async () => {
    if (element.hidden) return;
    try {
      element.replaceChildren(...parts(await api.details(id)).filter(Boolean));
    } catch (error) {
      if (!(error instanceof api.Refused)) throw error;
      element.replaceChildren(make("p", { class: "fault" }, error.status === 404 ? "The daemon no longer knows this job." : error.message));
    }
  };
  const toggle = () => {
    element.hidden = !element.hidden;
    refresh();
    return !element.hidden;
  };
  return { element, refresh, toggle };
}

function parts({ job, request, log, warnings: found }) {
  const lines = log.map(({ timestamp, level, message }) =>
    make("li", { "data-level": level }, make("time", { datetime: timestamp }, clock(timestamp)), message),
  );
  return [
    make("p", { class: "soft" }, `Job ${job.request_id}`),
    found.length ? make("ul", { class: "warnings", tabindex: "0", "aria-label": "Warnings" }, ...warnings({ warnings: found })) : null,
    make("h3", {}, "What happened"),
    make("ol", { class: "course" }, ...(lines.length ? lines : [make("li", {}, "The log of this job is empty.")])),
    make("h3", {}, "Request"),
    request
      ? make("pre", { tabindex: "0", role: "region", "aria-label": `Request of ${job.request_id}` }, text(named(request, job.request_id)))
      : make("p", { class: "soft" }, "The request was not kept."),
  ];
}

const clock = (timestamp) => new Date(timestamp).toLocaleTimeString();

/** The request with the names of the files that this browser has sent; the daemon kept only that they came with it. */
function named(request, id) {
  const urls = remembered().find((own) => own.id === id)?.urls ?? {};
  const name = (url) => decodeURIComponent(new URL(url, location.href).pathname.split("/").at(-1));
  const lists = Object.keys(SOURCES).filter((list) => request[list]);
  const shown = (list) => request[list].map((source, at) => (urls[list]?.[at] ? { ...source, url: name(urls[list][at]) } : source));
  return { ...request, ...Object.fromEntries(lists.map((list) => [list, shown(list)])) };
}

/** A request as people read it: a line for each still; a request to another app has none. */
function text({ images, images_left_out: left, ...settings }) {
  if (!images) return JSON.stringify(settings, null, 2);
  const lines = images.map((image) => `    ${JSON.stringify(image)}`);
  const others = Object.entries(settings).map(([name, value]) => `,\n  "${name}": ${JSON.stringify(value)}`);
  const more = left ? `\n(and ${plural(left, "still")} more)` : "";
  return `{\n  "images": [\n${lines.join(",\n")}\n  ]${others.join("")}\n}${more}`;
}
