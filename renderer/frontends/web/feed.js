// What the page knows of the daemon's jobs: the newest fifty, live, and the ids that this browser asked for.
//
// The ids are kept in the browser, so that a page that is loaded again finds the job that was running.

import { jobs as listJobs, watchJobs } from "./api.js";

const KEPT_IDS = "stillreel.jobs";
const IDS_KEPT = 20;
const LISTED_AT_MOST = 1000;

class Feed extends EventTarget {
  jobs = []; // newest first
  isUp = false;
  #first = new Promise((known) => (this.known = known));

  start() {
    watchJobs(
      (jobs) => this.#take(jobs),
      (isUp) => {
        this.isUp = isUp;
        this.dispatchEvent(new Event("link"));
      },
    );
  }

  get(id) {
    return this.jobs.find((job) => job.request_id === id);
  }

  /** A job wherever it is in the daemon's list; undefined if the daemon does not know it any more. */
  async find(id) {
    await this.#first;
    return this.get(id) ?? (await listJobs(LISTED_AT_MOST)).find((job) => job.request_id === id);
  }

  #take(jobs) {
    const arrived = (job) => Date.parse(job.accepted_at) || 0;
    this.jobs = jobs.toSorted((a, b) => arrived(b) - arrived(a));
    this.known();
    this.dispatchEvent(new Event("jobs"));
  }
}

export const feed = new Feed();

/** The jobs that this browser asked for, the latest last: [{id, urls}]. */
export function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEPT_IDS)) ?? [];
  } catch {
    return [];
  }
}

export function remember(id, urls) {
  try {
    localStorage.setItem(KEPT_IDS, JSON.stringify([...remembered(), { id, urls }].slice(-IDS_KEPT)));
  } catch {
    // Without storage a reload does not find the job; the list of jobs below does.
  }
}
