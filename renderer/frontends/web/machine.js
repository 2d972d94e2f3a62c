// What works on the daemon's machine, and how the daemon is: doctor and health.

import { doctor, health } from "./api.js";
import { byId, icon, make, plural, setText } from "./dom.js";
import { feed } from "./feed.js";

export function setUpMachine() {
  byId("examine").addEventListener("click", examine);
  feed.addEventListener("link", showHealth);
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
    setText(byId("health"), ready ? `Ready, ${encoder}, ${plural(workers, "worker")}${onNodes(slots)}` : idle);
    setText(byId("version"), `stillreel ${version}`);
  } catch {
    setText(byId("health"), "No answer");
  }
}

// Where the workers are, if some are on nodes of a cluster.
function onNodes(slots) {
  const places = slots.map(({ node, encoder, slots: count }) => `${count} ${node ? `on ${node}, ${encoder}` : "here"}`);
  return slots.some(({ node }) => node) ? `: ${places.join("; ")}` : "";
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
