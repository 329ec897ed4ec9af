// "This is good" and "This is bad": teach the model, undo it, and show what it was taught.

import * as api from "./api.js";
import { ask } from "./ask.js";
import * as box from "./box.js";
import { ratioWords } from "./compare.js";
import {
  byId,
  clock,
  count,
  h,
  icon,
  judged,
  ratio,
  rejected,
  remembered,
  setText,
  significant,
  state,
  title,
  toast,
} from "./dom.js";
import { currentModel, forgetTaught, noteTaught, store } from "./store.js";

const MOST_SHOWN = 50;
/** Examples that a message names. */
const MOST_NAMED = 3;

let entries = []; // of the model that is shown, oldest first
let known = ""; // the state of the model that they belong to
let fetching = ""; // the same for those that are being fetched
let changed = async () => {}; // called after the model was taught

export function install(whenChanged) {
  changed = whenChanged;
  byId("undo-last").onclick = () => {
    const last = entries.findLast((entry) => !entry.undone);
    if (last) askToUndo(store.model, last);
  };
}

/** Ask whether a part is good, and for the person's name. */
export function askGood(record) {
  ask({
    heading: "Is this part good?",
    text: `“${title(record)}” ${scored(record)}. If it is good, parts like it count as good from now on, and the threshold is computed again. You can undo this.`,
    yes: "Yes, it is good",
    forced: "Learn it anyway",
    act: (who, force) => teach(record, who, force),
    closed: box.clear,
  });
  box.show(record, false);
}

/** Ask whether a part is bad, where in the photograph, and for the person's name. */
export function askBad(record) {
  ask({
    heading: "Is this part bad?",
    text: `“${title(record)}” ${scored(record)}. If it is bad, parts with the same fault are rejected at a lower score from now on. You can undo this.`,
    yes: "Yes, it is bad",
    forced: "Keep it anyway",
    act: (who, force) => reject(record, who, box.drawn(record), force),
    closed: box.clear,
  });
  box.show(record, true);
}

function scored(record) {
  if (!judged(record)) return "was not judged";
  const words = rejected(record) ? "was rejected" : "was taken for good";
  return `${words} at ${ratioWords(record)}`;
}

/** Undo what a result taught, under the name that taught it. */
export function undoTaught(record) {
  const entry = store.taught.get(record.id);
  return undo(entry, remembered("who"), false).catch((error) => {
    if (error.status === 409 && error.body.force) askToUndo(entry.model, entry);
    else toast(error.message, { error: true });
  });
}

function askToUndo(model, entry) {
  const good = isGood(entry);
  const without = good ? "rejected as before" : "decided as before";
  ask({
    heading: `Undo no. ${entry.id}?`,
    text: `${entry.who} called it ${good ? "good" : "bad"} on ${clock(entry.when)}. Without it, parts like it are ${without}.`,
    yes: "Undo",
    forced: "Undo it anyway",
    act: (who, force) => undo({ ...entry, model }, who, force),
  });
}

async function teach(record, who, force) {
  const entry = await api.learn(record.model, record.id, who, force);
  noteTaught(record.id, { ...entry, model: record.model });
  const rows = entry.rows ? `${count(entry.rows, "row")} of memory` : "nothing new in it";
  const words = [
    `Learned as no. ${entry.id}: ${rows}, threshold ${significant(entry.threshold)} → ${significant(entry.threshold_after)}.`,
  ];
  if (entry.decision_after !== "good") words.push(`It is still ${afterWords(entry)}.`);
  tell(record, words.concat(changeWords(entry.changes)));
  await changed();
}

async function reject(record, who, place, force) {
  const entry = await api.reject(record.model, record.id, who, place, force);
  noteTaught(record.id, { ...entry, model: record.model });
  const words = [`Kept as no. ${entry.id}.`, entry.marked.message];
  tell(record, words.concat(changeWords(entry.changes)));
  await changed();
}

const tell = (record, words) =>
  toast(words.join(" "), { action: { label: "Undo", run: () => undoTaught(record) } });

const afterRatio = (entry) => ratio(entry.score_after / entry.threshold_after);

function afterWords(entry) {
  const { word } = state({ decision: entry.decision_after });
  if (entry.decision_after === "not_judged") return word.toLowerCase();
  return `a ${word.toLowerCase()}, at ${afterRatio(entry)} times the threshold`;
}

/** What a change does to other examples, as a list of one sentence or none. */
export function changeWords(changes) {
  if (!changes.length) return [];
  const one = (change) =>
    `${isGood(change) ? "good" : "bad"} example “${change.name ?? `no. ${change.id}`}” ` +
    `${sideWord(change.before)} → ${sideWord(change.after)}`;
  const named = changes.slice(0, MOST_NAMED).map(one).join("; ");
  const more = changes.length - MOST_NAMED;
  return [`Changed sides: ${named}${more > 0 ? `; and ${more} more` : ""}.`];
}

export const sideWord = (decision) => state({ decision }).word.toLowerCase();

/** Whether an entry, or an example, is of a part that was called good. */
export const isGood = ({ role }) => role === "normal" || role === "good";

async function undo({ model, id, role }, who, force) {
  const entry = await api.undo(model, isGood({ role }) ? "normals" : "rejects", id, who, force);
  forgetTaught(model, id);
  const words = [`No. ${id} is undone; threshold ${significant(entry.threshold_after)}.`];
  toast(words.concat(changeWords(entry.changes)).join(" "));
  await changed();
}

/** Fetch what the model was taught, and its threshold, if it has changed; whether it was fetched. */
export async function refreshTaught() {
  const model = currentModel();
  if (!model) return false;
  const { name, version, learned, rejected: bad, threshold, zones_key: key } = model;
  const now = [name, version, learned, bad, threshold, key].join();
  if (now === known || now === fetching) return false;
  fetching = now;
  try {
    const [normals, rejects, found] = await Promise.all([
      api.normals(name),
      api.rejects(name),
      // An example whose image is missing leaves the rest to be shown.
      api.threshold(name).catch((error) => (error.status === 409 ? null : Promise.reject(error))),
    ]);
    if (name !== store.model) return false;
    entries = [...normals.entries, ...rejects.entries].sort((one, other) => one.id - other.id);
    store.threshold = found && { ...found, model: name };
    known = now;
  } finally {
    if (fetching === now) fetching = "";
  }
  render();
  return true;
}

function render() {
  const active = entries.filter((entry) => !entry.undone);
  byId("no-learned").hidden = entries.length > 0;
  byId("undo-last").hidden = !active.length;
  setText(byId("learned-count"), entries.length ? `${active.length} active` : "");
  byId("learned").replaceChildren(...entries.slice(-MOST_SHOWN).reverse().map(item));
}

/** What is kept of an image besides itself. */
function keptWords(entry) {
  if (isGood(entry)) return `${count(entry.rows, "row")} of memory`;
  if (!entry.rows) return "kept as an example only";
  const place = entry.box ? "of the box" : "where the heat map was highest";
  return `${count(entry.rows, "patch", "patches")} ${place}`;
}

function item(entry) {
  const good = isGood(entry);
  const words = [
    h("b", {}, `No. ${entry.id} `),
    h("span", { className: `badge ${good ? "good" : "reject"}` }, icon(good ? "good" : "reject")),
    ` called ${good ? "good" : "bad"} by ${entry.who}, ${clock(entry.when)}: `,
    `${ratio(entry.score / entry.threshold)} × threshold of that time, ${keptWords(entry)}`,
    entry.forced ? ", forced" : "",
    entry.undone ? `; undone by ${entry.undone_by ?? "someone"}` : "",
  ];
  const text = h("p", { className: entry.undone ? "undone" : "" }, ...words);
  if (entry.undone) return h("li", {}, text);
  const button = h(
    "button",
    {
      type: "button",
      "aria-label": `Undo no. ${entry.id}`,
      onclick: () => askToUndo(store.model, entry),
    },
    "Undo",
  );
  return h("li", {}, text, button);
}
