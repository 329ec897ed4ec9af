// The score history: scores on a logarithmic axis with the threshold of now at 1, and the preview of
// another threshold.

import { comparable, nowRatio, turned, wouldReject, zonesChanged } from "./compare.js";
import { byId, clock, count, judged, ratio, rejected, setText, state } from "./dom.js";
import { ownRecords } from "./store.js";
import { previewed, renderThreshold } from "./threshold.js";
import { pin } from "./viewer.js";

/** Results in the chart and in the counts of the preview. */
const WINDOW = 500;
const MARGIN = { left: 52, right: 16, top: 14, bottom: 28 };

let records = [];
let places = []; // [x, y] of each record, CSS pixels

export function install() {
  byId("chart").addEventListener("click", choose);
  new ResizeObserver(draw).observe(byId("chart"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

export function renderHistory() {
  records = ownRecords().slice(-WINDOW);
  renderText();
  renderThreshold(records);
  draw();
}

function renderText() {
  if (!records.length) return setText(byId("chart-text"), "No results yet.");
  const bad = records.filter(rejected).length;
  const unjudged = records.filter((record) => !judged(record)).length;
  const ratios = records
    .filter(judged)
    .map(nowRatio)
    .sort((a, b) => a - b);
  const parts = [
    `The last ${count(records.length, "result")}, ${clock(records[0].time)} to ${clock(records.at(-1).time)}: ` +
      `${count(bad, "reject")} (${((100 * bad) / records.length).toFixed(1)} %)` +
      `${unjudged ? `, ${unjudged} not judged` : ""}.`,
  ];
  if (ratios.length) {
    const middle = ratios[Math.floor(ratios.length / 2)];
    parts.push(`Score over threshold: median ${ratio(middle)}, highest ${ratio(ratios.at(-1))}.`);
  }
  const other = records.filter(turned).length;
  if (other) {
    parts.push(
      `Marks show what was decided at the time; heights and ratios are to the threshold of now, which would decide ${other} of them otherwise.`,
    );
  }
  const before = records.filter((record) => judged(record) && zonesChanged(record)).length;
  if (before) {
    parts.push(
      `The zones have changed since ${before} of them were scored, whose heights and ratios are to the threshold of that time.`,
    );
  }
  setText(byId("chart-text"), parts.join(" "));
}

function draw() {
  const canvas = byId("chart");
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width || !height) return;
  const scale = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const [low, high] = range();
  const top = MARGIN.top;
  const bottom = height - MARGIN.bottom;
  const right = width - MARGIN.right;
  const y = (value) =>
    bottom - ((Math.log2(clamp(value, low, high)) - low) / (high - low)) * (bottom - top);
  const frame = { context, colour, left: MARGIN.left, right, top, bottom, y };
  drawAxis(frame, low, high);
  drawPoints(frame);
  drawTimes(frame);
}

const clamp = (value, low, high) => Math.min(Math.max(value, 2 ** low), 2 ** high);

/** The ends of the axis as powers of two, with room for the preview. */
function range() {
  const ratios = records.map(nowRatio).filter((value) => value > 0 && Number.isFinite(value));
  const low = Math.log2(Math.min(0.5, previewed(), ...ratios));
  const high = Math.log2(Math.max(2, previewed(), ...ratios));
  return [Math.max(low - 0.15, -7), Math.min(high + 0.15, 10)];
}

function drawAxis({ context, colour, left, right, top, y }, low, high) {
  // The area of the rejects has its own background.
  context.fillStyle = colour("--reject-ground");
  context.fillRect(left, top, right - left, Math.max(0, y(1) - top));
  context.font = `16px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.lineWidth = 1;
  const every = Math.ceil((high - low) / 7);
  for (let power = Math.ceil(low); power <= high; power += 1) {
    if (power % every) continue;
    context.strokeStyle = colour("--line");
    line(context, left, right, y(2 ** power));
    context.fillStyle = colour("--quiet");
    context.fillText(String(Number((2 ** power).toPrecision(3))), left - 8, y(2 ** power));
  }
  context.strokeStyle = colour("--text");
  context.lineWidth = 2;
  line(context, left, right, y(1));
  if (previewed() === 1) return;
  context.setLineDash([8, 6]);
  context.strokeStyle = colour("--accent");
  line(context, left, right, y(previewed()));
  context.setLineDash([]);
}

/** The times of the first and the last result, below the axis. */
function drawTimes({ context, colour, left, right, bottom }) {
  if (!records.length) return;
  context.fillStyle = colour("--quiet");
  context.textBaseline = "alphabetic";
  context.textAlign = "left";
  context.fillText(clock(records[0].time), left, bottom + 22);
  context.textAlign = "right";
  context.fillText(clock(records.at(-1).time), right, bottom + 22);
}

function line(context, from, to, y) {
  context.beginPath();
  context.moveTo(from, y);
  context.lineTo(to, y);
  context.stroke();
}

function drawPoints({ context, colour, left, right, y }) {
  const multiple = previewed();
  // While there are few points, they are drawn at the right.
  const stride = Math.min(14, (right - left - 16) / Math.max(1, records.length - 1));
  const size = Math.min(5.5, Math.max(3.2, stride * 0.6));
  places = records.map((record, index) => [
    right - 8 - (records.length - 1 - index) * stride,
    y(nowRatio(record)),
  ]);
  records.forEach((record, index) => {
    const [x, height] = places[index];
    mark(context, record, x, height, size, colour);
    if (multiple !== 1 && comparable(record) && wouldReject(record, multiple) !== wouldReject(record, 1)) {
      context.strokeStyle = colour("--accent");
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(x, height, size * 1.5 + 4, 0, 7);
      context.stroke();
    }
  });
}

/** A point of a decision's own shape: a dot, a diamond, or an empty square where not judged. */
function mark(context, record, x, y, size, colour) {
  const { kind } = state(record);
  context.fillStyle = context.strokeStyle = colour(`--${kind}`);
  context.lineWidth = 2;
  context.beginPath();
  if (kind === "unjudged") {
    context.strokeRect(x - size, y - size, 2 * size, 2 * size);
  } else {
    if (kind === "reject") diamond(context, x, y, size * 1.5);
    else context.arc(x, y, size, 0, 7);
    context.fill();
  }
}

function diamond(context, x, y, size) {
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.closePath();
}

/** Show the result of the point next to a click, if one is near. */
function choose(event) {
  let best = null;
  let nearest = 24 ** 2;
  places.forEach(([x, y], index) => {
    const distance = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
    if (distance <= nearest) [best, nearest] = [records[index], distance];
  });
  if (best) pin(best);
}

export { draw as redraw };
