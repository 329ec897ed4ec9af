// Build elements, format values, show messages. Data reaches the page as text only.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a dash, `role`, `for`) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element of a drawing, with attributes and children. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A drawing from the sprite in index.html. The text next to it carries the meaning. */
export function icon(name) {
  const use = svg("use", { href: `#icon-${name}` });
  return svg("svg", { class: "icon", "aria-hidden": "true" }, use);
}

const STATES = {
  good: { kind: "good", word: "Good" },
  anomaly: { kind: "reject", word: "Reject" },
  not_judged: { kind: "unjudged", word: "Not judged" },
};

/** The word of a decision, and the kind that its colour and its shape are named after. */
export const state = (record) => STATES[record.decision];
export const rejected = (record) => record.decision === "anomaly";
export const judged = (record) => record.decision !== "not_judged";
export const word = (record) => state(record).word;
export const shape = (record) => icon(state(record).kind);

/** A decision as a small badge: word, shape and colour. */
export function badge(record) {
  return h("span", { className: `badge ${state(record).kind}` }, shape(record), word(record));
}

/** A ratio to the threshold, with enough digits to tell it from 1. */
export function ratio(value) {
  if (!Number.isFinite(value)) return "–";
  if (value >= 100) return value.toFixed(0);
  const enough = [2, 3, 4].find((digits) => Number(value.toFixed(digits)) !== 1);
  return value.toFixed(value === 1 ? 2 : (enough ?? 4));
}

export const milliseconds = (value) =>
  value === null || value === undefined
    ? "–"
    : `${value < 100 ? value.toFixed(1) : value.toFixed(0)} ms`;

export const significant = (value) =>
  Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : "–";

/** The time of day, with the date unless it is today. */
export function clock(iso) {
  const date = new Date(iso);
  const time = date.toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
  });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
}

export const count = (number, one, many = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

const FLAGS = {
  dark: "darker than the shots",
  bright: "brighter than the shots",
  flat: "less contrast than the shots",
  blurred: "blurred",
  shifted: "shifted: the part is in another place",
};

/** What is wrong with the photograph itself. */
export const flagWords = (flags) => flags.map((flag) => FLAGS[flag] ?? flag);

const DOUBTS = {
  unlike: "It shows something else than the shots do: no part is in view, or another one.",
  black: "The photograph is black.",
  white: "The photograph is white.",
  flat: "The photograph shows a plain surface.",
  dark: "The photograph is far darker than the shots.",
  bright: "The photograph is far brighter than the shots.",
  blurred: "The photograph is far less sharp than the shots.",
  noisy: "The photograph is noise.",
  shape: "Its width and height are in another proportion than those of the shots.",
  size: "It has far fewer pixels than the shots.",
  not_found: "The part is not found in the photograph, or not as one whole part.",
};

/** Why an image was not judged, in whole sentences. */
export function doubtWords({ doubts }) {
  // A photograph that is black is unlike the shots, too: that it is black says more.
  const telling = doubts.length > 1 ? doubts.filter((doubt) => doubt !== "unlike") : doubts;
  return telling.map((doubt) => DOUBTS[doubt] ?? `${doubt}.`).join(" ");
}

/** The name of an image. */
export function title(record) {
  if (record.name) return record.name;
  return record.source === "camera" ? "Camera frame" : "Unnamed image";
}

/** Set a text only if it changed, so that screen readers and selections are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Announce a text to screen readers. */
export function announce(text) {
  byId("announcer").textContent = text;
}

const MOST_ERRORS = 2;

/** A short message at the foot of the page. Errors and messages with an action stay longer. */
export function toast(text, { error = false, action = null } = {}) {
  const close = h(
    "button",
    { type: "button", className: "plain", "aria-label": "Close this message" },
    icon("close"),
  );
  const message = h(
    "div",
    { className: error ? "toast error" : "toast" },
    icon(error ? "warning" : "info"),
    h("p", {}, text),
  );
  // Long ones take longer to read.
  const shortest = error ? 30_000 : action ? 15_000 : 7_000;
  const timer = setTimeout(() => message.remove(), Math.max(shortest, 100 * text.length));
  const remove = () => {
    clearTimeout(timer);
    message.remove();
  };
  if (action) {
    message.append(
      h("button", { type: "button", onclick: () => (remove(), action.run()) }, action.label),
    );
  }
  close.onclick = remove;
  message.append(close);
  // A message replaces the one before; errors stay.
  const errors = [...document.querySelectorAll(".toast.error")];
  for (const old of errors.slice(0, Math.max(0, errors.length + 1 - MOST_ERRORS))) old.remove();
  document.querySelector(".toast:not(.error)")?.remove();
  byId("toasts").append(message);
}

/** A value that this browser stores for the page; empty where it stores nothing. */
export function remembered(key) {
  try {
    return localStorage.getItem(`fsad-edge-${key}`) ?? "";
  } catch {
    return "";
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(`fsad-edge-${key}`, value);
  } catch {
    // Then the page asks again next time.
  }
}
