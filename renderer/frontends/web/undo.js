// A message about the last change to the stills, and a way to undo it: the button here, or Ctrl+Z.
//
// It stays until the next change or until it is closed, because some people miss a message that disappears by itself.

import { announce, byId, setText } from "./dom.js";
import { reel } from "./reel.js";

export function setUpUndo() {
  byId("undo").addEventListener("click", undo);
  byId("undo-close").addEventListener("click", close);
  byId("render").addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    const isUndo = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    if (!isUndo || event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), select")) return;
    event.preventDefault();
    undo();
  });
}

/** Say what was done, and offer to undo it. */
export function told(words) {
  setText(byId("undo-words"), words);
  byId("undo-bar").hidden = false;
  document.body.classList.add("has-undo");
  announce(`${words} Press Control Z to undo it.`);
}

function undo() {
  const isDone = reel.undo();
  announce(isDone ? "Undone." : "There is nothing to undo.");
  close();
}

/** Hide the bar; if it had the focus, the stills get it. */
function close() {
  const hadFocus = byId("undo-bar").contains(document.activeElement);
  byId("undo-bar").hidden = true;
  document.body.classList.remove("has-undo");
  if (hadFocus) (byId("stills").querySelector(".thumb") ?? byId("choose")).focus();
}
