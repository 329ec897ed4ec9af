// Why a part was rejected: the region that is chosen, beside the most similar good place of the shots.

import * as api from "./api.js";
import { comparable, wasOther } from "./compare.js";
import { byId, h, setText, significant } from "./dom.js";
import { mmPerPixel, sizeWords } from "./measures.js";
import { noneWords } from "./regions.js";
import { scaleWords } from "./scale.js";

/** Milliseconds that a result must stay before its twin is asked for: a fast line shows many. */
const STAY = 500;

let asked = ""; // "ID/NUMBER/MM" whose twin is shown or awaited
let waiting = null; // { timer, abort }

/** Show a region of a record, or that there is none. */
export function show(record, region, size) {
  byId("why-body").hidden = !region;
  byId("scale-set").hidden = !record || Boolean(record.mm_per_px);
  const other = record && (wasOther(record) || !comparable(record));
  const then = other ? "The regions are those of the threshold of that time. " : "";
  setText(byId("scale-words"), record ? then + scaleWords(record, size) : "");
  setText(byId("why-none"), region ? "" : noneWords(record) || "Nothing has been scored yet.");
  byId("why-none").hidden = Boolean(region);
  if (region) renderFigures(record, region, size);
  askTwin(record, region, region ? mmPerPixel(record, size) : null);
}

function renderFigures(record, region, size) {
  const figures = [
    [`Region ${region.number}`, sizeWords(region.box, record, size)],
    ["Its score", `${significant(region.peak)} at most, ${significant(region.mean)} on average`],
  ];
  byId("why-figures").replaceChildren(
    ...figures.map(([term, text]) => h("div", {}, h("dt", {}, term), h("dd", {}, text))),
  );
}

function askTwin(record, region, mm) {
  const key = region ? `${record.id}/${region.number}/${mm ?? ""}` : "";
  if (key === asked) return;
  asked = key;
  clearTimeout(waiting?.timer);
  waiting?.abort.abort();
  clear("");
  if (!region) return;
  const abort = new AbortController();
  const timer = setTimeout(() => fetchTwin(record, region, mm, key, abort.signal), STAY);
  waiting = { timer, abort };
  setText(byId("twin-state"), "Looking for the most similar good place …");
}

async function fetchTwin(record, region, mm, key, signal) {
  try {
    const twin = await api.twin(record.id, region.number, mm, signal);
    if (key !== asked) return;
    if (twin) render(twin);
    else clear("No good place is told of for this region.");
  } catch (error) {
    if (key === asked && !signal.aborted) clear(`No twin: ${error.message}`);
  }
}

function clear(text) {
  setText(byId("twin-sentence"), "");
  setText(byId("twin-state"), text);
  byId("twin").replaceChildren();
}

function render(twin) {
  setText(byId("twin-state"), "");
  setText(byId("twin-sentence"), twin.sentence);
  const pictures = [
    ["This part", twin.crop],
    [`Its twin, in ${twin.name ?? `shot ${twin.shot + 1}`}`, twin.twin],
    ["The difference: lighter where this part is lighter", twin.difference],
  ];
  byId("twin").replaceChildren(
    ...pictures.map(([words, address]) =>
      h("figure", {}, h("img", { src: address, alt: "" }), h("figcaption", {}, words)),
    ),
  );
}
