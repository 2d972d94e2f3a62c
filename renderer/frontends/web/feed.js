// What the page knows of the daemon's jobs: the newest fifty, live, and the ids that this browser asked for.
//
// The ids are kept in the browser, so that a page that is loaded again finds the job that was running.

import { details, keys, watchJobs } from "./api.js";

const KEPT_IDS = "stillreel.jobs";
const IDS_KEPT = 20;

class Feed extends EventTarget {
  jobs = []; // newest first
  link = "connecting"; // or "up", "lost", "locked" while the daemon waits for a key
  #first = new Promise((known) => (this.known = known));

  start() {
    watchJobs(
      (jobs) => this.#take(jobs),
      (isUp) => this.#note(isUp ? "up" : "lost"),
    );
    keys.addEventListener("wanted", () => this.#note("locked"));
    keys.addEventListener("given", () => this.#note("connecting"));
  }

  get isUp() {
    return this.link === "up";
  }

  #note(link) {
    this.link = link;
    this.dispatchEvent(new Event("link"));
  }

  get(id) {
    return this.jobs.find((job) => job.request_id === id);
  }

  /** A job, even if it is not among the newest; undefined if the daemon no longer knows it. */
  async find(id) {
    await this.#first;
    try {
      return this.get(id) ?? (await details(id)).job;
    } catch (error) {
      if (error.status === 404) return undefined;
      throw error;
    }
  }

  #take(jobs) {
    const arrived = (job) => Date.parse(job.accepted_at) || 0;
    this.jobs = jobs.toSorted((a, b) => arrived(b) - arrived(a));
    this.known();
    this.dispatchEvent(new Event("jobs"));
  }
}

export const feed = new Feed();

/** The jobs that this browser asked for, the latest last: [{id, urls}], urls by list, and of that the request, as text. */
export function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEPT_IDS)) ?? [];
  } catch {
    return [];
  }
}

export function remember(id, urls, asked) {
  const before = remembered().map(({ id, urls }) => ({ id, urls }));
  try {
    localStorage.setItem(KEPT_IDS, JSON.stringify([...before, { id, urls, asked }].slice(-IDS_KEPT)));
  } catch {
    // Without storage a reload does not find the job; the list of jobs below does.
  }
}
