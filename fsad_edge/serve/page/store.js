// The state of the page. All of it is limited, because the page stays open for weeks.

import { rejected, remember, remembered } from "./dom.js";

/** Results of all models for the chart and the list, and rejects in addition. */
const KEPT = 1000;
const KEPT_REJECTS = 200;

export const store = {
  records: [], // oldest first
  rejects: [], // oldest first
  models: [],
  notServed: [], // model files of a folder that have a fault
  status: null,
  threshold: null, // that of the model on display, with its examples
  zones: null, // those of the model on display
  model: remembered("model"), // name of the model on display
  last: 0, // newest id seen
  shown: null, // the record in the large view
  pinned: false, // whether the user chose it, rather than it being the newest
  taught: new Map(), // what was taught from this page: id of a result -> entry
  unseen: new Map(), // rejects of models that are not shown
};

/** Add records, oldest first. Returns those that are new. */
export function add(records) {
  const fresh = records.filter((record) => record.id > store.last);
  if (!fresh.length) return fresh;
  store.last = fresh[fresh.length - 1].id;
  store.records = store.records.concat(fresh).slice(-KEPT);
  addRejects(fresh.filter(rejected));
  return fresh;
}

/** Add rejects, oldest first; known ones are skipped. */
export function addRejects(records) {
  const known = new Set(store.rejects.map((record) => record.id));
  const fresh = records.filter((record) => !known.has(record.id));
  store.rejects = store.rejects.concat(fresh).slice(-KEPT_REJECTS);
}

const own = (records) => records.filter((record) => record.model === store.model);
export const ownRecords = () => own(store.records);
export const ownRejects = () => own(store.rejects);
export const newest = () =>
  store.records.findLast((record) => record.model === store.model) ?? ownRejects().at(-1) ?? null;
export const currentModel = () => store.models.find((model) => model.name === store.model) ?? null;

export function setModels({ models, not_served: notServed }) {
  store.models = models;
  store.notServed = notServed;
  if (!currentModel() && models.length) store.model = models[0].name;
}

export function chooseModel(name) {
  store.model = name;
  store.unseen.delete(name);
  remember("model", name);
}

/** Count rejects of the models that are not on display. */
export function noteUnseen(records) {
  for (const record of records) {
    if (rejected(record) && record.model !== store.model) {
      store.unseen.set(record.model, (store.unseen.get(record.model) ?? 0) + 1);
    }
  }
}

/** Remember what a reject taught, for its undo. */
export function noteTaught(result, entry) {
  store.taught.set(result, entry);
  for (const id of store.taught.keys()) {
    if (store.taught.size <= KEPT_REJECTS) break;
    store.taught.delete(id);
  }
}

export function forgetTaught(model, entryId) {
  for (const [result, entry] of store.taught) {
    if (entry.model === model && entry.id === entryId) store.taught.delete(result);
  }
}
