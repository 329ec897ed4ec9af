// The photograph in the dialog: small beside the text, or large for a box around a bad place.

import * as api from "./api.js";
import { byId } from "./dom.js";
import { uprightSize } from "./measures.js";

const SMALL = 320;
const LARGE = 800;
/** A drag over less than this share of the photograph is a tap, which removes the box. */
const LEAST = 0.02;

let shown = 0; // counts the pictures, so that a late one is dropped
let box = null; // [left, top, right, bottom] as fractions of the photograph
let start = null; // where the drag began

export function install() {
  const area = byId("ask-photo");
  area.addEventListener("pointerdown", (event) => {
    if (!area.classList.contains("drawable") || !event.isPrimary) return;
    area.setPointerCapture(event.pointerId);
    start = at(event);
    event.preventDefault();
  });
  area.addEventListener("pointermove", (event) => start && drag(at(event)));
  area.addEventListener("pointerup", () => (start = null));
  area.addEventListener("pointercancel", () => ((start = null), set(null)));
  byId("ask-unbox").onclick = () => set(null);
}

/** Show the picture of a result in the dialog, for a box to be drawn or not. */
export async function show(record, drawable) {
  clear();
  const mine = (shown += 1);
  byId("ask-photo").classList.toggle("drawable", drawable);
  // A box is drawn on the photograph itself.
  const [kinds, side] = drawable ? [["image"], LARGE] : [["overlay", "image"], SMALL];
  const found = await api.picture(record.id, kinds, side).catch(() => null);
  if (!found) return;
  if (mine !== shown) return URL.revokeObjectURL(found.url);
  byId("ask-picture").src = found.url;
  byId("ask-body").classList.add(drawable ? "wide" : "beside");
  byId("ask-photo").hidden = false;
  byId("ask-box-hint").hidden = !drawable;
}

export function clear() {
  shown += 1;
  set(null);
  start = null;
  const image = byId("ask-picture");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  byId("ask-photo").hidden = true;
  byId("ask-box-hint").hidden = true;
  byId("ask-body").classList.remove("wide", "beside");
}

/** The box in pixels of the photograph: "left,top,right,bottom"; null where none was drawn. */
export function drawn(record) {
  if (!box) return null;
  const [width, height] = uprightSize(record, byId("ask-picture"));
  const [left, top, right, bottom] = box;
  return [
    Math.floor(left * width),
    Math.floor(top * height),
    Math.ceil(right * width),
    Math.ceil(bottom * height),
  ].join();
}

/** The place of an event as fractions of the photograph. */
function at(event) {
  const { left, top, width, height } = byId("ask-picture").getBoundingClientRect();
  const within = (value) => Math.min(1, Math.max(0, value));
  return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
}

function drag([x, y]) {
  const [left, right] = [Math.min(start[0], x), Math.max(start[0], x)];
  const [top, bottom] = [Math.min(start[1], y), Math.max(start[1], y)];
  set(right - left < LEAST || bottom - top < LEAST ? null : [left, top, right, bottom]);
}

function set(place) {
  box = place;
  const mark = byId("ask-box");
  mark.hidden = !place;
  byId("ask-unbox").hidden = !place;
  if (!place) return;
  const [left, top, right, bottom] = place.map((share) => 100 * share);
  Object.assign(mark.style, {
    left: `${left}%`,
    top: `${top}%`,
    width: `${right - left}%`,
    height: `${bottom - top}%`,
  });
}
