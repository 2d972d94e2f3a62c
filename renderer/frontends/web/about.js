// What this daemon offers: its encoders, its limits, and where else it answers. Asked for whenever the line is up again.

import * as api from "./api.js";
import { feed } from "./feed.js";

/** Nothing is refused, and every encoder is offered, until the daemon has said more. */
export const about = { max_image_bytes: Infinity, max_images: Infinity, encoders: null, zmq: [], https: null };

export const offers = new EventTarget(); // "known" when `about` is what the daemon says

export function setUpAbout() {
  feed.addEventListener("link", ask);
}

async function ask() {
  if (!feed.isUp) return;
  try {
    Object.assign(about, await api.about());
    offers.dispatchEvent(new Event("known"));
  } catch (error) {
    if (!(error instanceof api.Refused)) throw error; // the next time that the line is up it is asked again
  }
}

/** An address of the daemon's as this browser reaches it: one that means every interface is the page's own host. */
export function reachable(address) {
  return address?.replace(/^(\w+:\/\/)(?:0\.0\.0\.0|\*|\[::\])(?=:)/, (_, scheme) => scheme + location.hostname);
}
