// The large view of one result: the newest, unless the user chose another.

import * as api from "./api.js";
import {
  comparable,
  nowRatio,
  outOfPlaceWords,
  thenWords,
  wasOther,
  zonesChanged,
} from "./compare.js";
import {
  byId,
  clock,
  doubtWords,
  flagWords,
  icon,
  judged,
  milliseconds,
  ratio,
  rejected,
  setText,
  shape,
  state,
  title,
  word,
} from "./dom.js";
import { isGood } from "./learn.js";
import * as regions from "./regions.js";
import { newest, ownRecords, store } from "./store.js";

const SIDE = 900;
/** Milliseconds that a decision may wait for its picture, so that both change together. */
const PATIENCE = 400;

let heat = true;
let near = false; // whether the heat map also shows what lies well below the threshold
let displayed = null; // the record that the text describes
let drawn = null; // the picture in the element: "ID/kind"
let drawnKind = ""; // what is in it: "image", "overlay" or "near"
let loading = null; // { key, abort }
let shown = () => {}; // called when another result is shown

export function install(whenShown) {
  shown = whenShown;
}

/** Show the newest result, unless the user chose another. */
export function follow() {
  if (store.pinned && store.shown?.model === store.model) return;
  store.pinned = false;
  const record = newest();
  if (record?.id === store.shown?.id) return;
  store.shown = record;
  render();
}

/** Show one result until `goLive`. */
export function pin(record) {
  store.shown = record;
  store.pinned = true;
  render();
}

export function goLive() {
  store.pinned = false;
  store.shown = newest();
  render();
}

/** Go to the next older (-1) or newer (1) result; after the newest it is live again. */
export function step(direction) {
  const records = ownRecords();
  const place = records.findIndex((record) => record.id === store.shown?.id);
  const next = records[place < 0 ? records.length - 1 : place + direction];
  if (next && next !== records.at(-1)) pin(next);
  else if (direction > 0 || place < 0) goLive();
}

export function toggleHeat() {
  heat = !heat;
  byId("heat").setAttribute("aria-pressed", String(heat));
  render();
  if (displayed) renderButtons(displayed);
}

export function toggleNear() {
  if (byId("near").disabled) return;
  near = !near;
  byId("near").setAttribute("aria-pressed", String(near));
  render();
}

/** Mark the result as out of date while there is no connection. */
export function setStale(stale) {
  byId("result").classList.toggle("stale", stale);
}

export async function render() {
  const record = store.shown;
  shown();
  if (!record) return renderNone();
  const key = wanted();
  if (key === drawn) return renderWords(record);
  // Results come faster than pictures: let the current picture finish.
  if (loading && loading.key !== key && !store.pinned) return;
  loading?.abort.abort();
  const mine = (loading = { key, abort: new AbortController() });
  const picture = load(record, mine);
  const first = await Promise.race([picture.then(() => "picture"), pause(PATIENCE)]);
  if (first !== "picture" && loading === mine) {
    clearPicture("");
    renderWords(record);
  }
  await picture;
  if (loading !== mine) return;
  loading = null;
  if (wanted() !== key) render();
}

/** The pictures that may be shown, the wanted one first. */
function kinds(record) {
  // Of an image that is not judged the heat map says nothing.
  if (!heat || !judged(record)) return ["image", "overlay"];
  return near ? ["near", "overlay", "image"] : ["overlay", "image"];
}

/** The picture that should be shown. */
const wanted = () => store.shown && `${store.shown.id}/${kinds(store.shown)[0]}`;

const pause = (time) => new Promise((done) => setTimeout(done, time));

async function load(record, mine) {
  const wish = kinds(record);
  let found = null;
  let fault = "";
  try {
    const limit = setTimeout(() => mine.abort.abort(), 10_000);
    found = await api.picture(record.id, wish, SIDE, mine.abort.signal);
    clearTimeout(limit);
    if (!found) fault = "This picture is no longer kept.";
  } catch (error) {
    fault = "The picture could not be loaded.";
  }
  if (loading === mine && found && (await decoded(found.url)) && loading === mine) {
    clearPicture("");
    const image = byId("picture");
    image.src = found.url;
    image.hidden = false;
    byId("frame").classList.remove("empty");
    image.alt = `${title(record)}${found.kind === "image" ? "" : ", under its heat map"}`;
    drawnKind = found.kind;
  } else {
    if (found) URL.revokeObjectURL(found.url);
    if (loading === mine) clearPicture(fault || "The picture cannot be shown.");
  }
  if (loading === mine) {
    drawn = mine.key;
    renderWords(record);
  }
}

/** What is to be known of a picture besides what it shows. */
function noteWords(record, wish, kind) {
  const known = comparable(record) && !wasOther(record);
  const drawn = known ? "" : "The heat map is drawn against the threshold of that time.";
  if (kind === "near") return ["Blue is below the threshold.", drawn].filter(Boolean).join(" ");
  if (kind === "image") return wish === "image" ? "" : "The heat map is no longer kept.";
  return [wish === "near" ? "Faint traces are no longer kept." : "", drawn]
    .filter(Boolean)
    .join(" ");
}

function renderPictureNote(record) {
  const shows = !byId("picture").hidden && judged(record);
  const note = shows ? noteWords(record, kinds(record)[0], drawnKind) : "";
  byId("picture-note").hidden = !note;
  setText(byId("picture-note"), note);
}

/** Whether the browser can decode it; then it appears without a flash. */
async function decoded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(
    () => true,
    () => false,
  );
}

function clearPicture(text) {
  const image = byId("picture");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = true;
  byId("frame").classList.add("empty");
  byId("picture-note").hidden = true;
  drawn = null;
  setText(byId("no-picture"), text);
}

function renderNone() {
  displayed = null;
  clearPicture(
    "The first image will be shown here. Drop one anywhere on this page, or choose a file.",
  );
  byId("decision").className = "decision wait";
  byId("decision-icon").replaceChildren(icon("wait"));
  setText(byId("decision-word"), "Waiting");
  for (const id of ["decision-ratio", "result-name", "result-facts"]) setText(byId(id), "");
  for (const id of ["result-flags", "result-then", "pinned", "teach", "reject"]) byId(id).hidden = true;
  regions.show(null);
  document.title = `${store.model || "fsad-edge"}`;
}

function renderWords(record) {
  displayed = record;
  const decision = byId("decision");
  decision.className = `decision ${state(record).kind}`;
  byId("decision-icon").replaceChildren(shape(record));
  setText(byId("decision-word"), word(record));
  const of = comparable(record) ? "threshold" : "its threshold";
  setText(byId("decision-ratio"), judged(record) ? `${ratio(nowRatio(record))} × ${of}` : "");
  const words = [outOfPlaceWords(record), thenWords(record), taughtWords(record)];
  const then = words.filter(Boolean).join(" ");
  byId("result-then").hidden = !then;
  setText(byId("result-then"), then);
  renderPictureNote(record);
  setText(byId("result-name"), title(record));
  setText(byId("result-facts"), facts(record));
  renderNote(record);
  byId("pinned").hidden = !store.pinned;
  const behind = ownRecords().filter((other) => other.id > record.id).length;
  setText(byId("pinned-text"), `You chose this result${behind ? `; ${behind} newer` : ""}.`);
  renderButtons(record);
  regions.show(record, drawnKind);
  document.title = `${word(record)} · ${record.model}`;
}

/** What is said now of a part that was called good or bad from this page. */
function taughtWords(record) {
  const entry = store.taught.get(record.id);
  const known = store.threshold?.model === record.model ? store.threshold.examples : [];
  const example = entry && known.find(({ id }) => id === entry.id);
  if (!example) return "";
  const start = `It was called ${isGood(entry) ? "good" : "bad"} since, as no. ${entry.id}.`;
  const now = word(example).toUpperCase();
  if (!judged(example)) return `${start} Scored again, it is ${now}.`;
  return `${start} Scored again, it is ${now} at ${ratio(example.ratio)} times the threshold of now.`;
}

/** Why the image was not judged, or what is wrong with the photograph. */
function renderNote(record) {
  const note = byId("result-flags");
  note.hidden = judged(record) && !record.flags.length;
  note.classList.toggle("unjudged", !judged(record));
  const text = judged(record)
    ? `Check the photograph: ${flagWords(record.flags).join(", ")}.`
    : doubtWords(record);
  setText(byId("flags-text"), text);
}

/** The buttons: the one that called the part good or bad undoes it. */
function renderButtons(record) {
  byId("heat").disabled = !judged(record);
  byId("near").disabled = !judged(record) || !heat;
  const entry = store.taught.get(record.id);
  for (const [id, good, words] of [
    ["teach", true, "This is good"],
    ["reject", false, "This is bad"],
  ]) {
    byId(id).hidden = entry ? isGood(entry) !== good : false;
    setText(byId(id), entry ? `Undo “${words[0].toLowerCase()}${words.slice(1)}”` : words);
  }
}

function facts(record) {
  const found = [clock(record.time)];
  if (!judged(record)) found.push(...record.reasons);
  // How often good parts score this high is said of the zones of that time.
  if (judged(record) && record.p_value !== null && !zonesChanged(record)) {
    const share = record.p_value * 100;
    found.push(
      share < 0.1
        ? "under 0.1 % of good parts score this high"
        : `${share.toPrecision(2)} % of good parts score this high`,
    );
  }
  found.push(milliseconds(record.timings.total));
  return found.join(" · ");
}

/** Render the text again, since it may have changed without the picture. */
export function refreshWords() {
  if (store.shown && drawn?.startsWith(`${store.shown.id}/`)) renderWords(store.shown);
}

/** The result on display; another one may already be loading. */
export const shownRecord = () => displayed;
