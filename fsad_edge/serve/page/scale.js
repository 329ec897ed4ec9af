// The dialog that sets the scale: two points of a photograph whose distance somebody knows.

import * as api from "./api.js";
import { Drawing } from "./drawing.js";
import { byId, setText, toast } from "./dom.js";
import { keepScale, keptScale, mmPerPixel, significant3, uprightSize } from "./measures.js";
import { store } from "./store.js";

const SIDE = 1600;

let drawing = null;
let record = null; // whose photograph is shown
let changed = () => {}; // called after the scale has changed

export function install(whenChanged) {
  changed = whenChanged;
  const say = (text) => setText(byId("scale-said"), text);
  drawing = new Drawing(byId("scale-stage"), { most: 2, changed: render, say });
  byId("scale-set").onclick = open;
  byId("scale-cancel").onclick = () => byId("scale-dialog").close();
  byId("scale-mm").addEventListener("input", render);
  byId("scale-form").addEventListener("submit", save);
  byId("scale-forget").onclick = () => {
    keepScale(record.model, null);
    byId("scale-dialog").close();
    changed();
  };
  byId("scale-dialog").addEventListener("close", () => {
    URL.revokeObjectURL(byId("scale-picture").src);
    byId("scale-picture").removeAttribute("src");
  });
}

async function open() {
  record = store.shown;
  if (!record) return;
  const found = await api.picture(record.id, ["image"], SIDE).catch(() => null);
  if (!found) return toast("The photograph of this result is no longer kept.", { error: true });
  byId("scale-picture").src = found.url;
  byId("scale-mm").value = "";
  byId("scale-forget").hidden = !keptScale(record.model);
  drawing.clear();
  setText(byId("scale-said"), "");
  byId("scale-dialog").showModal();
  byId("scale-stage").focus();
}

/** The distance of the two points in pixels of the photograph; 0 without them. */
function pixels() {
  if (!drawing.done) return 0;
  const [width, height] = uprightSize(record, byId("scale-picture"));
  const [[x, y], [u, v]] = drawing.points;
  return Math.hypot((u - x) * width, (v - y) * height);
}

const millimetres = () => Number(byId("scale-mm").value);

function render() {
  const long = pixels();
  const known = long > 0 && millimetres() > 0;
  byId("scale-save").disabled = !known;
  const next = [
    "Mark the first point: one end of a length that you know.",
    "Mark the second point: its other end.",
  ][drawing.points.length];
  const length = `The points are ${significant3(long)} pixels apart.`;
  const scale = known
    ? ` A pixel is ${significant3(millimetres() / long)} mm.`
    : " How many millimetres is that?";
  setText(byId("scale-state"), next ?? (long > 0 ? length + scale : "The points are one."));
}

function save(event) {
  event.preventDefault();
  const long = pixels();
  if (!(long > 0 && millimetres() > 0)) return;
  const size = uprightSize(record, byId("scale-picture"));
  keepScale(record.model, millimetres() / long, size);
  byId("scale-dialog").close();
  changed();
}

/** What is said of the scale beside the figures. */
export function scaleWords(shown, size) {
  const mm = mmPerPixel(shown, size);
  if (shown.mm_per_px) return `A pixel is ${significant3(mm)} mm, as the service was told.`;
  if (mm) return `A pixel is ${significant3(mm)} mm, from two points that were marked in this browser.`;
  const kept = keptScale(shown.model);
  if (kept)
    return `The scale was set on photographs of ${kept.size.join(" × ")} pixels, and this one has ${size.join(" × ")}.`;
  return "Sizes are in pixels: no scale is set.";
}
