// The cards about the service, the model and drift.

import * as api from "./api.js";
import {
  announce,
  byId,
  clock,
  count,
  h,
  milliseconds,
  setText,
  significant,
  toast,
} from "./dom.js";
import { currentModel, store } from "./store.js";

/** Show a list of terms and texts; only what changed is set. */
function renderFacts(list, facts) {
  const shown = facts.filter(([, text]) => text !== null);
  while (list.children.length > shown.length) list.lastChild.remove();
  shown.forEach(([term, text], index) => {
    const pair = list.children[index] ?? list.appendChild(h("div", {}, h("dt"), h("dd")));
    setText(pair.firstChild, term);
    setText(pair.lastChild, text);
  });
}

export function renderService() {
  const status = store.status;
  if (!status) return;
  const { queue, counts, latency_ms: latency, camera, watch } = status;
  renderFacts(byId("service"), [
    ["State", status.draining ? "Shutting down" : status.ready ? "Ready" : "Not ready"],
    [
      "Latency",
      latency.count
        ? ["p50", "p95", "p99"].map((key) => `${key} ${milliseconds(latency[key])}`).join(" · ")
        : "Nothing scored yet",
    ],
    ["Queue", `${queue.length} of ${queue.limit}`],
    ["Scored", countWords(counts)],
    [
      "Refused",
      counts.refused ? `${count(counts.refused, "request")}: queue full or unreadable` : "None",
    ],
    ["Camera", camera && cameraWords(camera)],
    ...(watch ? watch.folders.map(watchFact) : []),
    [
      "Models not served",
      store.notServed.length ? store.notServed.map((one) => one.error).join(" ") : null,
    ],
    ["Running since", `${clock(status.started)}, version ${status.version}`],
  ]);
}

function countWords(counts) {
  const words = [count(counts.good, "good", "good"), count(counts.anomaly, "reject")];
  if (counts.not_judged) words.push(count(counts.not_judged, "not judged", "not judged"));
  return `${words.join(", ")} since ${clock(counts.since)}`;
}

function watchFact(folder) {
  const words = [`${count(folder.scored, "image")} scored since the start`];
  const since = folder.waiting_since ? ` since ${clock(folder.waiting_since)}` : "";
  words.push(`${folder.waiting} waiting${since}`, count(folder.errors, "error"));
  if (folder.heat_maps_lost)
    words.push(`${count(folder.heat_maps_lost, "heat map")} could not be written`);
  const skipped = Object.entries(folder.skipped).map(([reason, number]) => `${number} ${reason}`);
  if (skipped.length) words.push(`left out: ${skipped.join(", ")}`);
  const idle = {
    reading: "Reading what was scored earlier. ",
    standby: "Another process watches. ",
  };
  return [
    `Folder ${folder.folder}`,
    `${folder.fault ? `${folder.fault} ` : (idle[folder.state] ?? "")}${words.join("; ")}`,
  ];
}

function cameraWords(camera) {
  if (!camera.connected) return "Not connected; trying again";
  const age = camera.frame_age_s;
  const failed = camera.frames_failed ? `, ${camera.frames_failed} could not be scored` : "";
  const dropped = `${count(camera.frames_dropped, "frame")} dropped${failed}`;
  return age === null || age === undefined
    ? `Connected; ${dropped}`
    : `Connected, newest frame ${age.toFixed(1)} s old; ${dropped}`;
}

export function renderModel() {
  const model = currentModel();
  if (!model) return;
  const fault = byId("model-error");
  fault.hidden = !model.error;
  const refused = model.error && model.error !== model.learning_error;
  const notRefused = model.error
    ? `What was taught here does not count, or not all of it: ${model.error}`
    : "";
  setText(
    fault,
    refused
      ? `A newer file was refused, and the old one stays in service: ${model.error}`
      : notRefused,
  );
  const fileNote =
    model.threshold === model.file_threshold
      ? ""
      : ` (${significant(model.file_threshold)} in the file)`;
  renderFacts(byId("model-facts"), [
    [
      "Name",
      model.title && model.title !== model.name ? `${model.name} (${model.title})` : model.name,
    ],
    ["Version", model.version.slice(0, 12)],
    ["In service since", clock(model.loaded)],
    ["Made from", `${count(model.shots, "shot")}; ${count(model.bank_rows, "row")} in its memory`],
    ["Taught here", `${model.learned} called good, ${model.rejected} called bad`],
    ["Threshold", `${significant(model.threshold)}${fileNote}`],
    ["Orientation", turnedWords(model)],
    ["Reliability", model.reliability],
    [
      "Self-test",
      model.golden
        ? `${count(model.golden, "golden image")} passed`
        : "The file has no golden images",
    ],
    [
      "Input",
      `${model.width} × ${model.height} pixels, ${model.precision}, ${model.provider.replace("ExecutionProvider", "")}`,
    ],
  ]);
}

/** Which parts count as good that do not lie as the shots do. */
function turnedWords({ bank_rotations: turns, turned_upright: upright, bank_flip: mirrored }) {
  if (turns > 1 || upright)
    return mirrored ? "Turned and mirrored parts count as good." : "Turned parts count as good.";
  return mirrored ? "Mirrored parts count as good." : null;
}

export function renderDrift() {
  const model = currentModel();
  if (!model) return;
  const { drift } = model;
  const [text, alarm] = driftWords(model);
  setText(byId("drift-text"), text);
  byId("drift-text").classList.toggle("alarm", alarm !== "");
  const compared =
    drift.ratio_to_shots === null
      ? ""
      : ` Scores are ${drift.ratio_to_shots.toFixed(2)} times those of the shots.`;
  setText(byId("drift-more"), `${count(drift.images, "image")} checked.${compared}`);
  byId("drift-meter").value = Math.min(1, drift.evidence);
}

/** What there is to say of the scores, and the word for the bar where it is an alarm. */
function driftWords({ drift, rejections, false_alarm_rate: asked }) {
  if (drift.drifted === "higher") {
    return [
      "Scores have gone up. Check the light, the lens and the position, and whether the parts have changed.",
      "Drift",
    ];
  }
  if (drift.drifted === "lower") {
    return [
      "Scores have gone down. Check the light and the focus: a picture that shows less also hides defects.",
      "Drift",
    ];
  }
  if (drift.unlike_shots) {
    return [
      "Scores are higher than those of the shots from the first images on: the setup differs from that of the shots.",
      "Drift",
    ];
  }
  if (rejections.many) {
    const share = `${rejections.rejected} of ${rejections.images} images were rejected`;
    return [
      `${share}, where ${significant(100 * asked)} % of good parts may be. Look at them: where good parts are among them, call some of them good.`,
      "Many rejected",
    ];
  }
  if (!drift.images) return ["Nothing scored since the model was loaded, taught or reset.", ""];
  return ["No drift: the scores are distributed as before.", ""];
}

/** The state in the bar, in one or two words. */
export function renderState(connected) {
  const state = byId("state");
  const model = currentModel();
  let text = "Running";
  let kind = "fine";
  if (!connected) [text, kind] = ["No connection", "bad"];
  else if (store.status?.draining) [text, kind] = ["Shutting down", "bad"];
  else if (store.status?.camera && !store.status.camera.connected)
    [text, kind] = ["Camera lost", "bad"];
  else if (store.status?.watch?.folders.some((folder) => folder.fault))
    [text, kind] = ["Folder stuck", "bad"];
  else if (model?.learning_error && model.error === model.learning_error)
    [text, kind] = ["Taught images left out", "warn"];
  else if (model?.error || store.notServed.length) [text, kind] = ["Model file refused", "warn"];
  else if (model && driftWords(model)[1]) [text, kind] = [driftWords(model)[1], "warn"];
  setText(state, text);
  state.className = `state ${kind}`;
}

/** The reset must be pressed twice, because it clears an alarm. */
export function install(changed) {
  const button = byId("drift-reset");
  const label = button.textContent;
  let timer = null;
  const disarm = () => {
    clearTimeout(timer);
    timer = null;
    setText(button, label);
  };
  button.onclick = async () => {
    if (timer === null) {
      timer = setTimeout(disarm, 8000);
      setText(button, "Sure? Press again");
      announce("Sure? Press again.");
      return;
    }
    disarm();
    try {
      await api.resetDrift(store.model);
      toast("The next images are taken as normal.");
      await changed();
    } catch (error) {
      toast(error.message, { error: true });
    }
  };
}
