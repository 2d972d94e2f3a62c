// Dragging a card to another place in its list, with pointer events: HTML's own drag and drop knows no touch.
//
// The card itself follows the pointer, and the others make room in the document's order, so what is seen while
// dragging is what will be.

const THRESHOLD = 6; // pixels before a press becomes a drag
const EDGE = 60; // pixels from the edge where the list, or the window, scrolls
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Follow a press on `element`, an item of `list`; `dropped()` is called if it was dragged and let go. */
export function startDrag(press, element, list, dropped) {
  const from = { x: press.pageX, y: press.pageY };
  const home = [...list.children].indexOf(element);
  let grabbed = null; // where in the card the pointer holds it

  const move = (event) => {
    if (event.pointerId !== press.pointerId) return;
    if (!grabbed) {
      if (Math.hypot(event.pageX - from.x, event.pageY - from.y) < THRESHOLD) return;
      const box = element.getBoundingClientRect();
      grabbed = { x: event.clientX - box.x, y: event.clientY - box.y };
      element.classList.add("is-dragged");
      document.body.classList.add("is-dragging");
    }
    event.preventDefault();
    makeRoom(event, element, list);
    follow(event, element, grabbed);
    scrollNearEdge(event, list);
  };
  const end = (event) => {
    if (event.pointerId !== press.pointerId && event.type !== "keydown") return;
    if (event.type === "keydown" && event.key !== "Escape") return;
    for (const [type, listener] of listeners) document.removeEventListener(type, listener);
    if (!grabbed) return;
    element.classList.remove("is-dragged");
    document.body.classList.remove("is-dragging");
    element.style.removeProperty("transform");
    if (event.type === "pointerup") dropped();
    else list.insertBefore(element, [...list.children].filter((other) => other !== element)[home] ?? null);
    swallowClick();
  };
  const listeners = [
    ["pointermove", move],
    ["pointerup", end],
    ["pointercancel", end],
    ["keydown", end],
  ];
  for (const [type, listener] of listeners) document.addEventListener(type, listener);
}

function follow(event, element, grabbed) {
  element.style.removeProperty("transform");
  const box = element.getBoundingClientRect();
  const [x, y] = [event.clientX - grabbed.x - box.x, event.clientY - grabbed.y - box.y];
  element.style.setProperty("transform", `translate(${x}px, ${y}px)`);
}

/** Put the card before or after the one under the pointer. */
function makeRoom(event, element, list) {
  const over = document.elementFromPoint(event.clientX, event.clientY)?.closest(".still");
  if (!over || over === element || over.parentElement !== list) return;
  if (over.getAnimations().length) return; // it is on its way out from under the pointer
  const isAfter = element.compareDocumentPosition(over) & Node.DOCUMENT_POSITION_FOLLOWING;
  const before = new Map([...list.children].map((item) => [item, item.getBoundingClientRect()]));
  list.insertBefore(element, isAfter ? over.nextSibling : over);
  if (!calm.matches) for (const [item, box] of before) if (item !== element) slide(item, box);
}

function slide(item, from) {
  const to = item.getBoundingClientRect();
  const [x, y] = [from.x - to.x, from.y - to.y];
  if (x || y)
    item.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], {
      duration: 140,
      easing: "ease-out",
    });
}

function scrollNearEdge(event, list) {
  const isLong = list.scrollHeight > list.clientHeight;
  const box = list.getBoundingClientRect();
  const top = isLong ? Math.max(0, box.top) : 0;
  const bottom = isLong ? Math.min(innerHeight, box.bottom) : innerHeight;
  const by = event.clientY < top + EDGE ? -12 : event.clientY > bottom - EDGE ? 12 : 0;
  if (by) (isLong ? list : window).scrollBy({ top: by, behavior: "instant" });
}

/** Ignore the click that a browser sends after a drag. */
function swallowClick() {
  const swallow = (event) => {
    event.stopPropagation();
    event.preventDefault();
  };
  document.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => document.removeEventListener("click", swallow, { capture: true }), 0);
}
