// The list of the last results and the thumbnails of the last rejects. Elements are kept by id and
// moved, so that the focus and the scroll position stay.

import * as api from "./api.js";
import { nowNote, nowRatio, ratioWords, turned } from "./compare.js";
import {
  badge,
  byId,
  clock,
  count,
  doubtWords,
  flagWords,
  h,
  icon,
  judged,
  ratio,
  rejected,
  setText,
  title,
  word,
} from "./dom.js";
import { askGood, isGood, undoTaught } from "./learn.js";
import { ownRecords, ownRejects, store } from "./store.js";
import { pin } from "./viewer.js";

const ROWS = 50;
const THUMBS = 12;
const THUMB_SIDE = 280;

const rows = new Map(); // id -> element
const thumbs = new Map(); // id -> element
const pictures = new Map(); // id -> the parts of a thumbnail

export function renderLists() {
  renderRows();
  renderThumbs();
}

function renderRows() {
  const records = ownRecords();
  const bad = records.filter(rejected).length;
  const unjudged = records.filter((record) => !judged(record)).length;
  const words = [`${records.length - bad - unjudged} good`, `${bad} rejected`];
  if (unjudged) words.push(`${unjudged} not judged`);
  const other = records.filter(turned).length;
  if (other) words.push(`${other} decided otherwise now`);
  setText(byId("counts"), records.length ? words.join(" · ") : "");
  const shown = records.slice(-ROWS).reverse();
  arrange(byId("results"), rows, shown, (record) => row(record));
  shown.forEach(fillRow);
  for (const [id, element] of rows) {
    if (id === store.shown?.id) element.firstChild.setAttribute("aria-current", "true");
    else element.firstChild.removeAttribute("aria-current");
  }
}

function row(record) {
  const button = h(
    "button",
    { type: "button", className: "row", onclick: () => pin(record) },
    badge(record),
    h("span", { className: "row-ratio" }),
    h(
      "span",
      { className: "row-title" },
      h("span", { className: "row-name" }, title(record)),
      h("span", { className: "row-now" }),
    ),
    noted(record),
    h("time", { dateTime: record.time }, clock(record.time)),
  );
  return h("li", {}, button);
}

/** Set what the threshold of now says of a row's result. */
function fillRow(record) {
  const element = rows.get(record.id);
  setText(element.querySelector(".row-ratio"), judged(record) ? ratio(nowRatio(record)) : "–");
  setText(element.querySelector(".row-now"), nowNote(record));
}

/** What is wrong with the photograph, with a sign, or why it was not judged, as its own sign tells. */
function noted(record) {
  const words = judged(record) ? flagWords(record.flags).join(", ") : doubtWords(record);
  if (!words) return null;
  return h(
    "span",
    { className: "row-flag", title: words },
    judged(record) ? icon("warning") : null,
    h("span", { className: "hidden" }, words),
  );
}

/** Show the records as the children of a list, in their order. */
function arrange(list, known, records, make) {
  const wanted = new Set(records.map((record) => record.id));
  for (const [id, element] of known) {
    if (wanted.has(id)) continue;
    element.remove();
    known.delete(id);
  }
  let before = list.firstChild;
  for (const record of records) {
    let element = known.get(record.id);
    if (!element) {
      element = make(record);
      known.set(record.id, element);
    }
    if (element === before) before = before.nextSibling;
    else list.insertBefore(element, before);
  }
}

function renderThumbs() {
  const shown = ownRejects().slice(-THUMBS).reverse();
  byId("no-rejects").hidden = shown.length > 0;
  const wanted = new Set(shown.map((record) => record.id));
  for (const [id, picture] of pictures) if (!wanted.has(id)) drop(id, picture);
  arrange(byId("rejects"), thumbs, shown, (record) => thumbnail(record));
  shown.forEach(fillThumbnail);
  for (const [id, { element, button }] of pictures) {
    const entry = store.taught.get(id);
    element.classList.toggle("taught", entry !== undefined && isGood(entry));
    element.classList.toggle("bad", entry !== undefined && !isGood(entry));
    setText(button, entry ? "Undo" : "This is good");
  }
}

function thumbnail(record) {
  const image = h("img", { alt: "", hidden: true });
  const open = h(
    "button",
    {
      type: "button",
      className: "thumb-open",
      onclick: () => pin(record),
    },
    image,
    h("span", { className: "thumb-ratio" }, icon("reject"), h("span", {})),
  );
  const button = h("button", {
    type: "button",
    className: "teach",
    onclick: () => (store.taught.has(record.id) ? undoTaught(record) : askGood(record)),
    "aria-description": title(record),
  });
  const learned = h("span", { className: "thumb-learned" }, icon("good"), "learned");
  const bad = h("span", { className: "thumb-bad" }, icon("reject"), "called bad");
  const element = h("li", {}, open, learned, bad, button);
  const picture = { element, button, image, abort: new AbortController() };
  pictures.set(record.id, picture);
  fill(record, picture);
  return element;
}

/** Set what the threshold of now says of a reject. */
function fillThumbnail(record) {
  const { element } = pictures.get(record.id);
  const note = nowNote(record);
  const label = `Show ${title(record)}, ${ratioWords(record)}, ${clock(record.time)}`;
  element.querySelector(".thumb-open").setAttribute("aria-label", label);
  const words = `${ratio(nowRatio(record))} ×${note ? `, ${note}` : ""}`;
  setText(element.querySelector(".thumb-ratio span"), words);
}

async function fill(record, { image, abort }) {
  const kinds = ["overlay", "image"];
  const found = await api.picture(record.id, kinds, THUMB_SIDE, abort.signal).catch(() => null);
  if (!found || abort.signal.aborted) {
    if (found) URL.revokeObjectURL(found.url);
    image.parentElement?.classList.add("gone");
    return;
  }
  image.src = found.url;
  image.hidden = false;
}

function drop(id, { image, abort }) {
  abort.abort();
  if (image.src) URL.revokeObjectURL(image.src);
  pictures.delete(id);
}

/** One text for screen readers about all new results. */
export function summary(records) {
  if (records.length === 1) return summaryOfOne(records[0]);
  const bad = records.filter(rejected);
  const unjudged = records.filter((record) => !judged(record)).length;
  if (!bad.length && !unjudged) return `${count(records.length, "good part")}.`;
  const words = [`${count(bad.length, "reject")} of ${records.length}.`];
  if (unjudged) words.push(`${unjudged} not judged.`);
  const last = bad.at(-1);
  if (last)
    words.push(`The last reject: ${title(last)}, ${ratio(last.ratio)} times the threshold.`);
  return words.join(" ");
}

function summaryOfOne(record) {
  if (!judged(record)) return `${word(record)}: ${title(record)}. ${doubtWords(record)}`;
  return `${word(record)}: ${title(record)}, ${ratio(record.ratio)} times the threshold.`;
}
