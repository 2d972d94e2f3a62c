// What works on the daemon's machine, and how the daemon is: doctor and health.

import { doctor, health } from "./api.js";
import { byId, icon, make, plural, setText } from "./dom.js";
import { feed } from "./feed.js";
import { natural } from "./order.js";

const LOOK_MS = 5000; // nodes of a cluster come and go, and a disk may become full

export function setUpMachine() {
  byId("examine").addEventListener("click", examine);
  feed.addEventListener("link", showHealth);
  const look = () => document.hidden || showHealth();
  setInterval(look, LOOK_MS);
  document.addEventListener("visibilitychange", look);
  showHealth();
  // The examination renders a little video, so the page's own first requests go before it.
  setTimeout(examine, 300);
}

async function showHealth() {
  if (!feed.isUp) {
    byId("health-dot").dataset.state = "away";
    return setText(byId("health"), { lost: "No answer", locked: "A key is needed" }[feed.link] ?? "Connecting");
  }
  try {
    const { status, ready, reasons, version, workers, slots = [], encoder } = await health();
    byId("health-dot").dataset.state = ready ? "ready" : "away";
    const idle = status === "draining" ? "Stopping" : reasons?.join("; ") || "Not ready";
    const encoders = [...new Set(slots.map((each) => each.encoder))].join(" and ") || encoder;
    const machines = new Set(slots.map(({ node }) => node)).size;
    const spread = machines > 1 ? ` on ${machines} machines` : "";
    setText(byId("health"), ready ? `Ready, ${encoders}, ${plural(workers, "worker")}${spread}` : idle);
    setText(byId("version"), `stillreel ${version}`);
    showSlots(slots);
  } catch {
    setText(byId("health"), "No answer");
  }
}

/** Where jobs may run and how many do, if some of that is on nodes of a cluster. */
function showSlots(slots) {
  const isSpread = slots.some(({ node }) => node);
  byId("cluster").hidden = !isSpread;
  const sorted = (isSpread ? slots : []).toSorted((a, b) => natural(a.node ?? "", b.node ?? ""));
  byId("slots").replaceChildren(
    ...sorted.map(({ node, encoder, slots: count, busy }) =>
      make(
        "li",
        { class: "finding", "data-busy": String(busy > 0) },
        make("span", { class: "dot" }),
        make("span", { class: "finding-what" }, node ?? "This machine"),
        make("span", { class: "finding-found" }, `${busy} of ${plural(count, "slot")} busy, ${encoder}`),
      ),
    ),
  );
}

async function examine() {
  const button = byId("examine");
  button.disabled = true;
  setText(byId("machine-note"), "Checking what works on this machine.");
  try {
    const found = await doctor();
    const findings = Array.isArray(found) ? found : found.findings;
    byId("findings").replaceChildren(...findings.map(finding));
    const broken = findings.filter((each) => !each.works && each.is_needed).map((each) => each.what);
    setText(
      byId("machine-note"),
      broken.length ? `Nothing can be rendered without ${broken.join(" and ")}.` : "Everything that is needed works.",
    );
  } catch (error) {
    setText(byId("machine-note"), error.message);
  }
  button.disabled = false;
}

function finding({ what, works, found, is_needed: isNeeded }) {
  const verdict = works ? "works" : isNeeded ? "does not work, and is needed" : "missing, but not needed";
  return make(
    "li",
    { class: "finding", "data-verdict": works ? "works" : isNeeded ? "broken" : "absent" },
    icon(works ? "check" : isNeeded ? "remove" : "minus"),
    make("span", { class: "finding-what" }, what, make("span", { class: "unseen" }, `: ${verdict}`)),
    make("span", { class: "finding-found" }, found),
  );
}
