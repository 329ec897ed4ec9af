// "This is good": teach the model, undo it, and show what it has learned.

import * as api from "./api.js";
import {
  byId,
  clock,
  count,
  h,
  ratio,
  remember,
  remembered,
  setText,
  significant,
  title,
  toast,
} from "./dom.js";
import { currentModel, forgetTaught, noteTaught, store } from "./store.js";

const MOST_SHOWN = 50;

let entries = []; // of the model that is shown, oldest first
let known = ""; // the state of the model that they belong to
let changed = async () => {}; // called after the model has learned or unlearned
let asked = null; // { record } to teach or { model, id } to undo, while the dialog is open
let force = false;

export function install(whenChanged) {
  changed = whenChanged;
  byId("teach-form").addEventListener("submit", submit);
  byId("teach-cancel").onclick = () => byId("teach-dialog").close();
  byId("teach-dialog").addEventListener("close", tidy);
  byId("undo-last").onclick = () => {
    const last = entries.findLast((entry) => !entry.undone);
    if (last) askToUndo(store.model, last);
  };
}

/** Ask whether a reject is good, and for the person's name. */
export async function askToTeach(record) {
  open({ record }, "Is this part good?", "Yes, it is good");
  setText(
    byId("teach-text"),
    `“${title(record)}” scored ${ratio(record.ratio)} times the threshold. If it is good, parts like it count as good from now on, and the threshold is computed again. You can undo this.`,
  );
  const url = await api.picture(record.id, "overlay", 320).catch(() => null);
  if (!url) return;
  if (asked?.record !== record) return URL.revokeObjectURL(url);
  byId("teach-picture").src = url;
  byId("teach-picture").hidden = false;
}

/** Undo what a reject taught, under the name that taught it. */
export function undoTaught(record) {
  const { model, id } = store.taught.get(record.id);
  return undo(model, id, remembered("who")).catch((error) => toast(error.message, { error: true }));
}

function askToUndo(model, entry) {
  open({ model, id: entry.id }, `Undo no. ${entry.id}?`, "Undo");
  setText(
    byId("teach-text"),
    `${entry.who} taught it on ${clock(entry.when)}. Without it, parts like it are rejected as before.`,
  );
}

function open(subject, heading, yes) {
  asked = subject;
  force = false;
  setText(byId("teach-heading"), heading);
  setText(byId("teach-yes"), yes);
  byId("teach-fault").hidden = true;
  byId("teach-who").value = remembered("who");
  byId("teach-dialog").showModal();
  byId(remembered("who") ? "teach-yes" : "teach-who").focus();
}

function tidy() {
  const image = byId("teach-picture");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = true;
  asked = null;
}

async function submit(event) {
  event.preventDefault();
  const subject = asked;
  const who = byId("teach-who").value.trim();
  if (!subject || !who) return;
  remember("who", who);
  byId("teach-yes").disabled = true;
  try {
    if (subject.record) await teach(subject.record, who);
    else await undo(subject.model, subject.id, who);
    byId("teach-dialog").close();
  } catch (error) {
    refuse(error);
  } finally {
    byId("teach-yes").disabled = false;
  }
}

/** Show the error. Some, as a score like a defect's, can be forced by a second confirmation. */
function refuse(error) {
  const fault = byId("teach-fault");
  fault.hidden = false;
  if (error.status === 409 && error.body.force && !force) {
    force = true;
    setText(fault, `Not learned yet: ${error.message} Are you sure?`);
    setText(byId("teach-yes"), "Learn it anyway");
  } else {
    setText(fault, error.message);
  }
}

async function teach(record, who) {
  const entry = await api.learn(record.model, record.id, who, force);
  noteTaught(record.id, { model: record.model, id: entry.id });
  const rows = entry.rows ? `${count(entry.rows, "row")} of memory` : "nothing new in it";
  toast(
    `Learned as no. ${entry.id}: ${rows}, threshold ${significant(entry.threshold)} → ${significant(entry.threshold_after)}.`,
    { action: { label: "Undo", run: () => undoTaught(record) } },
  );
  await changed();
}

async function undo(model, id, who) {
  const entry = await api.undo(model, id, who);
  forgetTaught(model, id);
  toast(`No. ${id} is undone; threshold ${significant(entry.threshold_after)}.`);
  await changed();
}

/** Fetch the learned images if the model has changed. */
export async function refreshLearned() {
  const model = currentModel();
  if (!model) return;
  const state = [model.name, model.version, model.learned, model.threshold].join();
  if (state === known) return;
  const answer = await api.normals(model.name);
  if (model.name !== store.model) return;
  entries = answer.entries;
  known = state;
  render();
}

function render() {
  const active = entries.filter((entry) => !entry.undone);
  byId("no-learned").hidden = entries.length > 0;
  byId("undo-last").hidden = !active.length;
  setText(byId("learned-count"), entries.length ? `${active.length} active` : "");
  byId("learned").replaceChildren(...entries.slice(-MOST_SHOWN).reverse().map(item));
}

function item(entry) {
  const words = [
    h("b", {}, `No. ${entry.id}`),
    ` by ${entry.who}, ${clock(entry.when)}: `,
    `${ratio(entry.score / entry.threshold)} × threshold at the time, ${count(entry.rows, "row")}`,
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
