// The regions of the result on display: drawn and numbered over its picture, and as a short list.

import { byId, count, h, judged, ratio, rejected, remember, remembered, setText, svg } from "./dom.js";
import { store } from "./store.js";
import { areaWords, placeWords, uprightSize } from "./measures.js";

let shown = null; // the record whose regions are drawn
let size = [0, 0]; // width and height of its photograph as it is seen, pixels
let chosen = 1; // the number of the region that is looked at more closely
let picked = () => {}; // called after a region was chosen

/** `whenPicked(record, region, size)` is called with the region that is chosen, or null. */
export function install(whenPicked) {
  picked = whenPicked;
  const button = byId("regions-on");
  const set = (on) => {
    setText(button, on ? "Hide regions" : "Show regions");
    byId("frame").classList.toggle("no-regions", !on);
  };
  set(remembered("regions") !== "off");
  button.onclick = () => {
    const on = byId("frame").classList.contains("no-regions");
    remember("regions", on ? "on" : "off");
    set(on);
  };
  new ResizeObserver(fit).observe(byId("frame"));
}

export const toggle = () => byId("regions-on").click();

export const regionsOf = (record) => (record && judged(record) ? (record.regions ?? []) : []);

/** Show the regions of a record over its picture of a kind, which is in the page. */
export function show(record, kind) {
  byId("frame").classList.toggle("numbered", kind !== "image" && isEarlier(record));
  const image = byId("picture");
  if (record?.id !== shown?.id) chosen = 1;
  shown = record;
  size = record ? uprightSize(record, image) : [0, 0];
  render();
}

/** Whether the heat map was drawn by an earlier run, which wrote the numbers into it. */
const isEarlier = (record) =>
  record?.source === "watch" && record.time < (store.status?.started ?? "");

/** Show them again: the scale may have changed. */
export const refresh = () => render();

function choose(number) {
  if (!regionsOf(shown).some((region) => region.number === number)) return;
  chosen = number;
  render();
}

/** The keys that choose a region: its number. */
export const keys = Object.fromEntries(
  Array.from({ length: 9 }, (_, index) => [String(index + 1), () => choose(index + 1)]),
);

function render() {
  const regions = regionsOf(shown);
  setText(byId("regions-count"), countWords(regions));
  const drawing = byId("region-drawing");
  drawing.setAttribute("viewBox", `0 0 ${size[0] || 1} ${size[1] || 1}`);
  drawing.replaceChildren(...(byId("picture").hidden ? [] : regions.flatMap(drawn)));
  const rows = regions.map(row);
  const list = byId("regions");
  const focused = [...list.children].findIndex((one) => one.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (focused >= 0) rows[focused]?.firstChild.focus();
  fit();
  picked(shown, regions.find(({ number }) => number === chosen) ?? null, size);
}

function countWords(regions) {
  if (!regions.length) return "";
  const more = shown.more_regions ? `, ${shown.more_regions} more not listed` : "";
  return `${count(regions.length, "region")}${more}`;
}

/** Keep numbers and lines as large as they are on any other photograph. */
function fit() {
  const { clientWidth, clientHeight } = byId("frame");
  const unit = Math.max(size[0] / clientWidth, size[1] / clientHeight);
  if (Number.isFinite(unit) && unit > 0) {
    byId("region-drawing").style.setProperty("--unit", unit);
    byId("region-drawing").querySelectorAll("g").forEach(place);
  }
}

function drawn({ number, polygon, box }) {
  const marked = number === chosen ? " chosen" : "";
  const points = polygon.map((point) => point.join()).join(" ");
  const under = svg("polygon", { class: "under", points });
  const shape = svg("polygon", { class: "over", points });
  const label = svg(
    "g",
    { "data-box": box.join(), class: "number" },
    svg("circle", {}),
    svg("text", {}, String(number)),
  );
  const group = svg("g", { class: `region${marked}` }, under, shape, label);
  group.addEventListener("click", () => choose(number));
  return [group];
}

/** Put a number beside its region, at the upper right, and within the photograph. */
function place(label) {
  if (!label.dataset.box) return;
  const unit = Number(byId("region-drawing").style.getPropertyValue("--unit"));
  const [, top, right] = label.dataset.box.split(",").map(Number);
  const least = 13 * unit;
  const x = Math.min(size[0] - least, Math.max(least, right + 6 * unit));
  const y = Math.min(size[1] - least, Math.max(least, top - 6 * unit));
  label.setAttribute("transform", `translate(${x} ${y})`);
}

function row(region) {
  const area = areaWords(region.area, shown, size);
  const times = ratio(region.ratio);
  const place = placeWords(region, shown, size);
  const button = h(
    "button",
    {
      type: "button",
      className: "row region-row",
      onclick: () => choose(region.number),
      "aria-label": `Region ${region.number}: ${times} times the threshold, ${area}, at ${place}`,
    },
    h("b", { className: "region-number" }, String(region.number)),
    h("span", { className: "row-ratio" }, `${times} ×`),
    h("span", {}, area),
    h("span", { className: "quiet" }, `at ${place}`),
  );
  if (region.number === chosen) button.setAttribute("aria-current", "true");
  return h("li", {}, button);
}

/** Why there is no region to look at. */
export function noneWords(record) {
  if (!record) return "";
  if (!judged(record)) return "The image was not judged, so that no place of it is named.";
  if (rejected(record)) return "No region is named for this result.";
  return "Nothing of this part is above the threshold.";
}
