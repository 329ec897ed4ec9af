// Zones: the places of a part that do not count, that alone count, or that count more or less.

import * as api from "./api.js";
import { ask } from "./ask.js";
import { byId, clock, h, setText, significant, toast } from "./dom.js";
import { changeWords } from "./learn.js";
import { currentModel, store } from "./store.js";

const MOST_SHOWN = 50;

let known = ""; // the state of the model that the zones in the store belong to
let fetching = "";
let changed = async () => {}; // called after a zone was added or undone
let open = () => {}; // opens the editor

export function install(whenChanged, openEditor) {
  changed = whenChanged;
  open = openEditor;
  byId("zones-edit").onclick = () => open();
}

/** The zones of the model on display, once they are fetched, or null. */
export const current = () => (store.zones?.model === store.model ? store.zones : null);
/** The zones that count: those that the model file holds, and those that were set here. */
export const active = () => {
  const { file_zones: own = [], zones = [] } = current() ?? {};
  return [...own, ...zones.filter((zone) => !zone.undone)];
};

/** Fetch the zones if the model has changed. */
export async function refresh() {
  const model = currentModel();
  if (!model) return;
  const { name, version, learned, rejected, threshold, zones_key: key } = model;
  const now = [name, version, learned, rejected, threshold, key].join();
  if (now === known || now === fetching) return;
  fetching = now;
  try {
    await load(name);
    known = now;
  } finally {
    if (fetching === now) fetching = "";
  }
}

/** Fetch the zones of a model; what the service says where it has none to give. */
async function load(name) {
  let found;
  try {
    found = await api.zones(name);
  } catch (error) {
    if (![404, 409].includes(error.status)) throw error;
    found = { zones: [], file_zones: [], fault: `No zones: ${error.message}` };
  }
  if (name !== store.model) return;
  store.zones = { ...found, model: name };
  render();
}

function render() {
  const { fault, share } = current();
  const counted = active().length;
  setText(byId("zones-count"), counted ? `${counted} active, ${shareWords(share)}` : "");
  byId("zones-edit").disabled = Boolean(fault);
  byId("no-zones").hidden = counted > 0;
  setText(
    byId("no-zones"),
    fault ?? "None: all of the part counts alike. Draw where it does not, or where it counts more.",
  );
  for (const list of ["zones", "zones-in-editor"]) byId(list).replaceChildren(...items());
}

/** The newest zones, and then those of the model file. */
function items() {
  const { zones, file_zones: own } = current();
  return [
    ...zones.slice(-MOST_SHOWN).reverse().map((zone) => item(zone, true)),
    ...own.slice(-MOST_SHOWN).reverse().map((zone) => item(zone, false)),
  ];
}

const shareWords = (share) => `${significant(Math.round(1000 * share) / 10)} % of the part counts`;

/** What a zone does, in a few words. */
export function kindWords({ kind, weight }) {
  if (kind === "ignore") return "does not count";
  if (kind === "look") return "only this counts";
  return weight > 1
    ? `stricter, ${significant(weight)} times`
    : `more lenient, ${significant(1 / weight)} times`;
}

/** The class of a zone, which its colour is named after. */
export const zoneClass = ({ kind, weight }) =>
  kind === "weight" ? (weight > 1 ? "stricter" : "lenient") : kind;

function item(zone, here) {
  const words = [
    h("b", {}, `No. ${zone.id}${here ? "" : ", in the model file"} `),
    h("span", { className: `zone-kind ${zoneClass(zone)}` }, kindWords(zone)),
    `, by ${zone.who}, ${clock(zone.time)}${zone.note ? `: ${zone.note}` : ""}`,
    zone.undone ? `; undone by ${zone.undone_by ?? "someone"}` : "",
  ];
  const text = h("p", { className: zone.undone ? "undone" : "" }, ...words);
  if (zone.undone || !here) return h("li", {}, text);
  const button = h(
    "button",
    {
      type: "button",
      "aria-label": `Undo zone no. ${zone.id}`,
      onclick: () => askToUndo(store.model, zone),
    },
    "Undo",
  );
  return h("li", {}, text, button);
}

function askToUndo(model, zone) {
  ask({
    heading: `Undo zone no. ${zone.id}?`,
    text: `${zone.who} set it on ${clock(zone.time)}: ${kindWords(zone)}. Without it, the place counts as it did before.`,
    yes: "Undo",
    forced: "Undo it anyway",
    act: (who, force) => undo(model, zone.id, who, force),
    closed: () => byId(byId("zones-dialog").open ? "zone-stage" : "zones-edit").focus(),
  });
}

async function undo(model, id, who, force) {
  const answer = await api.undoZone(model, id, who, force);
  await tell(`Zone no. ${id} is undone.`, answer);
}

/** Say what a change of the zones did, and fetch what it changed. */
export async function tell(start, { threshold, threshold_after: after, share, notes, changes }) {
  const moved =
    threshold === after
      ? `The threshold stays ${significant(after)}.`
      : `Threshold ${significant(threshold)} → ${significant(after)}.`;
  const text = [start, `${shareWords(share)}.`, moved, ...notes, ...changeWords(changes)].join(" ");
  setText(byId("zone-done"), text);
  byId("zone-done").hidden = false;
  toast(text);
  await load(store.model).catch(() => (known = "")); // then it is fetched again soon
  await changed();
}
