// The dialog in which zones are drawn: on a shot, or on the photograph of the result on display.

import * as api from "./api.js";
import { ask } from "./ask.js";
import { Drawing } from "./drawing.js";
import { byId, h, setText, significant } from "./dom.js";
import { currentModel, store } from "./store.js";
import { active, current, kindWords, tell, zoneClass } from "./zones.js";

const SIDE = 1600;
const PHOTOGRAPH = "photograph";

let drawing = null;
let record = null; // the result whose photograph can be drawn on
let shown = 0; // counts the pictures, so that a late one is dropped
let proposed = ""; // what was said of an outline that the service proposed

export function install() {
  const say = (text) => setText(byId("zone-said"), text);
  const moved = () => ((proposed = ""), render());
  drawing = new Drawing(byId("zone-stage"), { changed: moved, say });
  byId("zone-on").onchange = showPicture;
  byId("zone-overlay").onchange = renderWeights;
  byId("zone-factor").addEventListener("input", render);
  for (const radio of kinds()) radio.addEventListener("change", render);
  byId("zone-close-outline").onclick = () => drawing.close();
  byId("zone-back").onclick = () => drawing.removeLast();
  byId("zone-clear").onclick = () => drawing.clear();
  byId("zone-propose").onclick = propose;
  byId("zone-form").addEventListener("submit", askToSave);
  byId("zone-painted").addEventListener("change", askToSavePainted);
  byId("zones-close").onclick = () => byId("zones-dialog").close();
  byId("zones-dialog").addEventListener("close", () => clearPicture());
  byId("zones-dialog").addEventListener("cancel", (event) => {
    if (!drawing.points.length) return;
    event.preventDefault(); // Esc takes the outline first
    drawing.clear();
  });
}

const kinds = () => document.querySelectorAll("#zone-form [name=zone-kind]");

/** Open the editor, on the photograph on display where there is one, else on the first shot. */
export function open() {
  record = store.shown?.model === store.model ? store.shown : null;
  const shots = current()?.shots ?? 0;
  const choices = Array.from({ length: shots }, (_, shot) =>
    h("option", { value: String(shot) }, `Shot ${shot + 1} of ${shots}`),
  );
  if (record) choices.push(h("option", { value: PHOTOGRAPH }, "The photograph on display"));
  byId("zone-on").replaceChildren(...choices);
  byId("zone-done").hidden = true;
  byId("zone-note").value = "";
  drawing.clear();
  byId("zones-dialog").showModal();
  byId("zone-on").focus();
  showPicture();
}

async function showPicture() {
  const mine = (shown += 1);
  const place = byId("zone-on").value;
  drawing.clear();
  let found = null;
  let fault = "";
  try {
    found =
      place === PHOTOGRAPH
        ? await api.picture(record.id, ["image"], SIDE)
        : await api.shot(store.model, place);
    if (!found) fault = "The photograph of this result is no longer kept.";
  } catch (error) {
    fault = error.message;
  }
  if (mine !== shown) return found && URL.revokeObjectURL(found.url);
  clearPicture();
  setText(byId("zone-fault"), fault);
  byId("zone-fault").hidden = !fault;
  if (!found) return;
  byId("zone-picture").src = found.url;
  byId("zone-stage").hidden = false;
  await byId("zone-picture").decode().catch(() => {});
  renderZones();
}

function clearPicture() {
  shown += 1;
  const image = byId("zone-picture");
  if (image.src) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  byId("zone-stage").hidden = true;
}

/** Whether the picture is what the model looks at, so that zones and weights can be drawn on it. */
const isFrame = () => byId("zone-on").value !== PHOTOGRAPH || !currentModel()?.located;

/** Draw what is known already: the zones that count, and the weights. */
function renderZones() {
  const zones = isFrame() ? active() : [];
  drawing.show(
    zones.map((zone) => ({
      polygon: zone.polygon,
      kind: zoneClass(zone),
      label: String(zone.id),
    })),
  );
  renderWeights();
  render();
}

/** Draw what each cell counts: grey does not, orange counts more, blue less. */
function renderWeights() {
  const canvas = byId("zone-weights");
  const weights = current()?.weights;
  byId("zone-overlay").disabled = !isFrame();
  canvas.hidden = !weights || !isFrame() || !byId("zone-overlay").checked;
  byId("zone-legend").hidden = canvas.hidden;
  if (canvas.hidden) return;
  const [rows, columns] = [weights.length, weights[0].length];
  Object.assign(canvas, { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const cells = context.createImageData(columns, rows);
  weights.flat().forEach((weight, cell) => cells.data.set(colour(weight), 4 * cell));
  context.putImageData(cells, 0, 0);
}

/** Red, green, blue and opacity of a weight. */
function colour(weight) {
  const strength = Math.min(1, Math.abs(Math.log2(Math.max(weight, 1e-3))) / 2);
  if (weight <= 0) return [10, 14, 18, 190];
  if (weight < 1) return [40, 120, 255, 60 + 110 * strength];
  return weight > 1 ? [255, 120, 0, 60 + 110 * strength] : [0, 0, 0, 0];
}

/** The kind and weight that are chosen. */
function choice() {
  const { value } = document.querySelector("#zone-form [name=zone-kind]:checked");
  const factor = Number(byId("zone-factor").value);
  if (value === "ignore") return { kind: "ignore", weight: 0 };
  if (value === "look") return { kind: "look", weight: 1 };
  return { kind: "weight", weight: value === "stricter" ? factor : 1 / factor };
}

function render() {
  const { kind, weight } = choice();
  const valid = byId("zone-factor").checkValidity();
  byId("zone-factor-field").hidden = kind !== "weight";
  byId("zone-save").disabled = !drawing.done || (kind === "weight" && !valid);
  byId("zone-close-outline").disabled = drawing.closed || drawing.points.length < 3;
  for (const id of ["zone-back", "zone-clear"]) byId(id).disabled = !drawing.points.length;
  const { threshold } = current() ?? {};
  const here = `Here a score above ${significant(threshold / weight)} rejects; elsewhere above ${significant(threshold)}.`;
  setText(byId("zone-effect"), kind === "weight" && valid ? here : "");
  setText(byId("zone-state"), stateWords());
}

function stateWords() {
  if (!drawing.points.length) {
    return "Click the corners of the place, or draw around it. With the keyboard: the arrow keys move a cross, and Space puts a corner.";
  }
  if (!drawing.closed) {
    return "Double-click, click the first corner, or press Enter to close the outline. Backspace removes the last corner, Esc the outline.";
  }
  return proposed || "The outline is closed. Drag its corners where they are not right, then save it.";
}

/** Put the outline on the picture that the service proposes. */
async function propose() {
  const button = byId("zone-propose");
  button.disabled = true;
  byId("zone-fault").hidden = true;
  try {
    const found = await api.proposedZone(store.model);
    if (!isFrame()) {
      byId("zone-on").value = "0";
      await showPicture();
    }
    if (found.polygon) {
      check("ignore");
      drawing.set(found.polygon);
      proposed = found.sentence;
      render();
    } else {
      setText(byId("zone-state"), found.sentence);
    }
  } catch (error) {
    refuse(error);
  } finally {
    button.disabled = false;
  }
}

function check(value) {
  for (const radio of kinds()) radio.checked = radio.value === value;
}

function refuse(error) {
  setText(byId("zone-fault"), error.message);
  byId("zone-fault").hidden = false;
}

function askToSave(event) {
  event.preventDefault();
  if (!drawing.done) return;
  const zone = { ...asked(), polygon: drawing.points };
  askFor("is outlined", zone, (who, force) => api.addZone(store.model, zone, who, force));
}

function askToSavePainted() {
  const input = byId("zone-painted");
  const [file] = input.files;
  input.value = ""; // so that the same file can be chosen again
  if (!file) return;
  const zone = asked();
  askFor(`is painted in “${file.name}”`, zone, (who, force) =>
    api.addPaintedZone(store.model, zone, file, who, force),
  );
}

/** What is asked for, without the place. */
function asked() {
  const place = byId("zone-on").value;
  return {
    ...choice(),
    note: byId("zone-note").value.trim(),
    ...(place === PHOTOGRAPH ? { result: record.id } : { shot: Number(place) }),
  };
}

function askFor(which, zone, add) {
  ask({
    heading: "Save this zone?",
    text: `The place that ${which} ${sentence(zone)}, on all parts from now on, and the threshold is computed again. You can undo this.`,
    yes: "Save it",
    forced: "Save it anyway",
    act: async (who, force) => saved(await add(who, force)),
    closed: () => byId("zone-stage").focus(),
  });
}

function sentence(zone) {
  if (zone.kind === "ignore") return "does not count";
  if (zone.kind === "look") return "is the only one that counts";
  return `is judged ${zone.weight > 1 ? "more strictly" : "more leniently"} (${kindWords(zone)})`;
}

async function saved(entry) {
  drawing.clear();
  byId("zone-note").value = "";
  await tell(`Saved as no. ${entry.id}.`, entry);
  renderZones();
}

/** Draw the zones again, since they have changed. */
export function refresh() {
  if (byId("zones-dialog").open) renderZones();
}
