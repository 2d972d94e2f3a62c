// What this daemon offers: its encoders, its limits and its other addresses. Asked for after every new connection.

import * as api from "./api.js";
import { feed } from "./feed.js";

/** Until the daemon has answered, nothing is refused and every encoder is offered. */
export const about = {
  max_image_bytes: Infinity,
  max_audio_bytes: Infinity,
  max_images: Infinity,
  encoders: null,
  zmq: [],
  https: null,
};

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
    if (!(error instanceof api.Refused)) throw error; // it is asked again after the next connection
  }
}

/** An address of the daemon as this browser reaches it: a wildcard address is replaced by the page's own host. */
export function reachable(address) {
  return address?.replace(/^(\w+:\/\/)(?:0\.0\.0\.0|\*|\[::\])(?=:)/, (_, scheme) => scheme + location.hostname);
}
