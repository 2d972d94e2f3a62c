// The same request as code: four tabs that follow the page, and a button that copies.

import { about, offers, reachable } from "./about.js";
import { currentKey, keys } from "./api.js";
import { announce, byId, make, setText } from "./dom.js";
import { reel } from "./reel.js";
import { SNIPPETS } from "./snippets.js";

// What is shown while there are no stills: a request that one could write.
const EXAMPLE = {
  request: {
    images: [
      { url: "a.png", frames: 24 },
      { url: "b.jpg", frames: 48 },
    ],
    fps: 24,
  },
  files: [
    { name: "a.png", type: "image/png" },
    { name: "b.jpg", type: "image/jpeg" },
  ],
};
const TOLD_MS = 1600;

let shown = 0;

export function setUpCode() {
  const tabs = byId("tabs");
  SNIPPETS.forEach(({ name }, at) =>
    tabs.append(
      make(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${at}`,
          "aria-controls": "snippet",
          onclick: () => choose(at),
        },
        name,
      ),
    ),
  );
  tabs.addEventListener("keydown", (event) => {
    const count = SNIPPETS.length;
    const to = { ArrowRight: shown + 1, ArrowLeft: shown - 1, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose((to + count) % count);
    byId(`tab-${shown}`).focus();
  });
  byId("copy").addEventListener("click", copy);
  for (const what of ["stills", "settings"]) reel.addEventListener(what, write);
  keys.addEventListener("given", write);
  offers.addEventListener("known", write);
  choose(0);
}

function choose(at) {
  shown = at;
  SNIPPETS.forEach((_, index) => {
    const tab = byId(`tab-${index}`);
    tab.setAttribute("aria-selected", String(index === at));
    tab.tabIndex = index === at ? 0 : -1;
  });
  byId("snippet").setAttribute("aria-labelledby", `tab-${at}`);
  write();
}

function write() {
  const { stills, sounds } = reel;
  const asked = stills.length
    ? {
        request: reel.request(({ name }) => name),
        files: [...stills, ...sounds].map(({ name, file }) => ({ name, type: file?.type || "application/octet-stream" })),
      }
    : EXAMPLE;
  const base = new URL(".", location.href).href.slice(0, -1);
  const hasKey = Boolean(currentKey());
  const doors = { base, https: reachable(about.https), zmq: reachable(about.zmq[0]), zmqNeedsKey: about.zmq_needs_key };
  setText(byId("snippet-text"), SNIPPETS[shown].write({ ...asked, ...doors, hasKey }));
}

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("snippet-text").textContent);
    tell("Copied");
  } catch {
    // Only pages from HTTPS or from this machine may write to the clipboard: then the text is selected, for Ctrl+C.
    getSelection().selectAllChildren(byId("snippet-text"));
    tell("Selected");
  }
}

function tell(word) {
  const show = (words, shape) => {
    setText(byId("copy-words"), words);
    byId("copy").firstElementChild.className = `icon icon-${shape}`;
  };
  show(word, "check");
  announce(word);
  setTimeout(() => show("Copy", "copy"), TOLD_MS);
}
