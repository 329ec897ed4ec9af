// Draws an outline, or two points, on a picture: with a mouse, a finger or the keyboard alone.

import { svg } from "./dom.js";

/** Pixels of the screen: what is nearer to a point means that point; a longer drag is freehand. */
const NEAR = 12;
const FREEHAND = 8;
/** How far a point of a freehand line may be from the outline that it becomes, pixels of the screen. */
const ROUGH = 1.5;
/** An outline of more points is shown without them; they can be moved all the same. */
const MOST_HANDLES = 60;
/** Steps of the arrow keys, as fractions of the picture. */
const STEP = 0.01;
const BIG_STEP = 0.05;

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const CROSS = "M-12 0h8m8 0h8M0-12v8m0 8v8";
const within = (value) => Math.min(1, Math.max(0, value));

/**
 * Let people draw on the picture in an element.
 *
 * @param area the element: it holds the <img>, can be focused, and gets a drawing above the picture.
 * @param most the number of points; with 2 it is a line, otherwise an outline that is closed.
 * @param changed called after each change of the points.
 * @param say tells a text to people who do not see the drawing.
 */
export class Drawing {
  /** Points as fractions of the picture: [[across, down], …]. */
  points = [];
  closed = false;

  #area;
  #image;
  #drawing = svg("svg", { class: "drawing", "aria-hidden": "true" });
  #behind = svg("g", {});
  #line = svg("g", {});
  #lineOnly;
  #most;
  #changed;
  #say;
  #cursor = null; // of the keyboard
  #chosen = null; // the number of the point that the arrow keys move
  #unit = 1; // pixels of the picture in one of the screen
  #drag = null; // { from, point, path } while a button or a finger is down

  constructor(area, { most = 400, changed = () => {}, say = () => {} } = {}) {
    this.#area = area;
    this.#image = area.querySelector("img");
    this.#most = most;
    this.#lineOnly = most === 2;
    this.#changed = changed;
    this.#say = say;
    this.#drawing.append(this.#behind, this.#line);
    area.append(this.#drawing);
    this.#image.addEventListener("load", () => this.#fit());
    new ResizeObserver(() => this.#fit()).observe(this.#image);
    area.addEventListener("pointerdown", (event) => this.#down(event));
    area.addEventListener("pointermove", (event) => this.#drag && this.#move(event));
    area.addEventListener("pointerup", (event) => this.#drag && this.#up(event));
    area.addEventListener("pointercancel", () => (this.#drag = null));
    area.addEventListener("keydown", (event) => this.#key(event));
    area.addEventListener("blur", () => ((this.#cursor = null), this.#render()));
  }

  /** Whether what is drawn is whole: a closed outline, or both points. */
  get done() {
    return this.#lineOnly ? this.points.length === 2 : this.closed;
  }

  clear() {
    this.set([], false);
  }

  /** Show points, as an outline that is closed or open. */
  set(points, closed = true) {
    this.points = points.map(([x, y]) => [within(x), within(y)]);
    this.closed = closed && points.length > 2;
    this.#chosen = null;
    this.#render();
    this.#changed();
  }

  /** Show outlines behind the drawing: { polygon, kind, label }, with a class for each kind. */
  show(outlines) {
    this.#behind.replaceChildren(
      ...outlines.flatMap(({ polygon, kind, label }) => {
        const [x, y] = this.#pixel(middle(patches(polygon)[0]));
        return [
          svg("path", { class: `outline ${kind}`, d: this.#closed(polygon) }),
          svg("text", { class: "outline-label", x, y }, label),
        ];
      }),
    );
  }

  /** Close the outline. */
  close() {
    if (this.#lineOnly || this.closed || this.points.length < 3) return;
    this.closed = true;
    this.#chosen = null;
    this.#say(`Outline closed, ${this.points.length} points.`);
    this.#update();
  }

  removeLast() {
    if (!this.points.length) return;
    const place = this.#chosen ?? this.points.length - 1;
    this.points.splice(place, 1);
    this.#chosen = null;
    if (this.points.length < 3) this.closed = false;
    this.#say(`Point removed, ${this.points.length} left.`);
    this.#update();
  }

  #update() {
    this.#render();
    this.#changed();
  }

  /** Make the drawing cover the picture, and its lines as thick as on any other. */
  #fit() {
    const { naturalWidth: width, naturalHeight: height, clientWidth: shown } = this.#image;
    if (!width) return;
    this.#area.style.setProperty("--ratio", width / height);
    if (!shown) return;
    this.#drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#unit = width / shown;
    this.#drawing.style.setProperty("--unit", this.#unit);
    this.#render();
  }

  #pixel([x, y]) {
    return [x * this.#image.naturalWidth, y * this.#image.naturalHeight];
  }

  #open(points) {
    return points.map((point, number) => (number ? "L" : "M") + this.#pixel(point).join()).join("");
  }

  #closed(polygon) {
    return patches(polygon)
      .map((points) => `${this.#open(points)}Z`)
      .join("");
  }

  /** The place of an event as fractions of the picture. */
  #at(event) {
    const { left, top, width, height } = this.#image.getBoundingClientRect();
    return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
  }

  /** The distance of two places in pixels of the screen. */
  #far([x, y], [u, v]) {
    const { width, height } = this.#image.getBoundingClientRect();
    return Math.hypot((x - u) * width, (y - v) * height);
  }

  /** The number of the point at a place, or null. */
  #pointAt(place) {
    const found = this.points.findIndex((point) => this.#far(point, place) < NEAR);
    return found < 0 ? null : found;
  }

  #down(event) {
    if (!event.isPrimary || event.button !== 0) return;
    this.#area.setPointerCapture(event.pointerId);
    const from = this.#at(event);
    this.#cursor = null;
    this.#drag = { from, point: this.#pointAt(from), path: [from], moved: false };
    this.#area.focus({ preventScroll: true });
    event.preventDefault();
  }

  #move(event) {
    const drag = this.#drag;
    const place = this.#at(event);
    drag.moved ||= this.#far(place, drag.from) > FREEHAND;
    if (!drag.moved) return;
    if (drag.point !== null) {
      this.points[drag.point] = place;
      return this.#update();
    }
    if (this.#lineOnly || this.closed) return;
    drag.path.push(place);
    this.#render();
  }

  #up(event) {
    const drag = this.#drag;
    this.#drag = null;
    const place = this.#at(event);
    if (drag.moved) {
      if (drag.point === null && !this.closed && !this.#lineOnly) this.#addFreehand(drag.path);
      return;
    }
    const { point } = drag;
    const last = this.points.length - 1;
    // A click on the first point closes the outline, and so does one on the last: a double click.
    if (point !== null && !this.closed && !this.#lineOnly && (point === 0 || point === last)) {
      if (last > 1) this.close();
      return;
    }
    if (point === null) this.#add(place);
  }

  #add(place) {
    if (this.closed) {
      this.#say("The outline is closed already: move its points, or remove it.");
      return;
    }
    if (this.#lineOnly && this.points.length === 2) this.points = [];
    if (this.points.length >= this.#most) return;
    this.points.push(place);
    this.#say(`Point ${this.points.length}: ${words(place)}.`);
    this.#update();
  }

  #addFreehand(path) {
    this.points.push(...simplified(path, (one, from, to) => this.#away(one, from, to)));
    this.points = this.points.slice(0, this.#most);
    this.close();
    this.#update();
  }

  /** The distance of a place from a line between two others, pixels of the screen. */
  #away(one, from, to) {
    const { width, height } = this.#image.getBoundingClientRect();
    const [ax, ay] = [(to[0] - from[0]) * width, (to[1] - from[1]) * height];
    const [bx, by] = [(one[0] - from[0]) * width, (one[1] - from[1]) * height];
    const length = Math.hypot(ax, ay);
    return length ? Math.abs(ax * by - ay * bx) / length : Math.hypot(bx, by);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.#pressed(event)) return;
    event.preventDefault(); // also keeps Esc from closing the dialog
    event.stopPropagation();
  }

  /** Do what a key means; whether it means anything here. */
  #pressed({ key, shiftKey }) {
    if (key in ARROWS) this.#step(ARROWS[key], shiftKey ? BIG_STEP : STEP);
    else if (key === " ") this.#add(this.#cursor ?? [0.5, 0.5]);
    else if (key === "Enter" && this.points.length) this.close();
    else if (key === "Backspace" || key === "Delete") this.removeLast();
    else if (key === "PageDown") this.#choose(1);
    else if (key === "PageUp") this.#choose(-1);
    else if (key === "Escape" && this.points.length) this.clear();
    else return false;
    return true;
  }

  /** Move the chosen point, or the cross that the keyboard puts points with. */
  #step([across, down], size) {
    const [x, y] = this.#chosen === null ? (this.#cursor ?? [0.5, 0.5]) : this.points[this.#chosen];
    const place = [within(x + across * size), within(y + down * size)];
    this.#say(words(place));
    if (this.#chosen === null) this.#cursor = place;
    else this.points[this.#chosen] = place;
    if (this.#chosen === null) this.#render();
    else this.#update();
  }

  #choose(direction) {
    if (!this.points.length) return;
    const { length } = this.points;
    const before = this.#chosen ?? (direction > 0 ? -1 : 0);
    this.#chosen = (before + direction + length) % length;
    this.#cursor = null;
    this.#say(`Point ${this.#chosen + 1} of ${length}: ${words(this.points[this.#chosen])}.`);
    this.#render();
  }

  #render() {
    const parts = [];
    const path = this.#drag?.moved && this.#drag.point === null ? this.#drag.path : [];
    const line = this.closed ? this.#closed(this.points) : this.#open([...this.points, ...path]);
    parts.push(svg("path", { class: this.closed ? "draft whole" : "draft", d: line }));
    const many = this.points.length > MOST_HANDLES;
    this.points.forEach((point, number) => {
      const chosen = number === this.#chosen;
      if (many && !chosen) return;
      const [cx, cy] = this.#pixel(point);
      parts.push(svg("circle", { class: chosen ? "handle chosen" : "handle", cx, cy }));
    });
    if (this.#cursor) {
      const transform = `translate(${this.#pixel(this.#cursor).join()}) scale(${this.#unit})`;
      const lines = ["under", "over"].map((name) => svg("path", { class: name, d: CROSS }));
      parts.push(svg("g", { class: "cross", transform }, ...lines));
    }
    this.#line.replaceChildren(...parts);
  }
}

const percent = (value) => `${(100 * value).toFixed(0)} %`;
const words = ([x, y]) => `${percent(x)} across, ${percent(y)} down`;

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
/** The mean of the corners. */
const middle = (polygon) => [0, 1].map((axis) => mean(polygon.map((point) => point[axis])));

/** The patches of a polygon: several are joined by lines that lead back to its first point. */
function patches(polygon) {
  const start = String(polygon[0]);
  const found = [[]];
  for (const point of polygon) {
    if (String(point) === start && found.at(-1).length) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((points) => points.length > 2);
}

/** A line with fewer points (Douglas and Peucker). */
function simplified(path, away) {
  if (path.length < 3) return path;
  const [from, to] = [path[0], path.at(-1)];
  const distances = path.map((one) => away(one, from, to));
  const farthest = distances.indexOf(Math.max(...distances));
  if (distances[farthest] <= ROUGH) return [from, to];
  const start = simplified(path.slice(0, farthest + 1), away);
  return start.concat(simplified(path.slice(farthest), away).slice(1));
}
