// What the service, the model and the drift test say of themselves, in words.

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

/** Set a list of terms and texts, touching only what changed. */
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
    [
      "Scored since start",
      `${count(counts.good, "good", "good")}, ${count(counts.anomaly, "reject")}`,
    ],
    [
      "Turned away",
      counts.refused ? `${count(counts.refused, "request")}: queue full or unreadable` : "None",
    ],
    ["Camera", camera && cameraWords(camera)],
    [
      "Watched folder",
      watch &&
        `${count(watch.scored, "image")} scored, ${watch.waiting} waiting, ${count(watch.errors, "error")}`,
    ],
    ["Running since", `${clock(status.started)}, version ${status.version}`],
  ]);
}

function cameraWords(camera) {
  if (!camera.connected) return "Not connected; it is tried again";
  const age = camera.frame_age_s;
  const dropped = `${count(camera.frames_dropped, "frame")} passed over`;
  return age === null || age === undefined
    ? `Connected; ${dropped}`
    : `Connected, newest frame ${age.toFixed(1)} s old; ${dropped}`;
}

export function renderModel() {
  const model = currentModel();
  if (!model) return;
  const fault = byId("model-error");
  fault.hidden = !model.error;
  setText(
    fault,
    model.error ? `A newer file was not taken, the one before serves on: ${model.error}` : "",
  );
  const learnedNote =
    model.learned && model.threshold !== model.file_threshold
      ? ` (${significant(model.file_threshold)} before it learned)`
      : "";
  renderFacts(byId("model-facts"), [
    [
      "Name",
      model.title && model.title !== model.name ? `${model.name} (${model.title})` : model.name,
    ],
    ["Version", model.version.slice(0, 12)],
    ["In service since", clock(model.loaded)],
    ["Made from", `${count(model.shots, "shot")}; ${count(model.bank_rows, "row")} in its memory`],
    ["Learned here", count(model.learned, "image")],
    ["Threshold", `${significant(model.threshold)}${learnedNote}`],
    ["Promise", model.promise],
    [
      "Self-test",
      model.golden
        ? `${count(model.golden, "golden image")} scored as they must`
        : "The file has no golden images",
    ],
    [
      "Input",
      `${model.width} × ${model.height} pixels, ${model.precision}, ${model.provider.replace("ExecutionProvider", "")}`,
    ],
  ]);
}

export function renderDrift() {
  const model = currentModel();
  if (!model) return;
  const { drift } = model;
  const [text, alarming] = driftWords(drift);
  setText(byId("drift-text"), text);
  byId("drift-text").classList.toggle("alarm", alarming);
  const compared =
    drift.ratio_to_shots === null
      ? ""
      : ` Scores are ${drift.ratio_to_shots.toFixed(2)} times those of the shots.`;
  setText(byId("drift-more"), `${count(drift.images, "image")} looked at.${compared}`);
  byId("drift-meter").value = Math.min(1, drift.evidence);
}

function driftWords(drift) {
  if (drift.drifted === "higher") {
    return [
      "Scores have gone up. Look at light, lens and position, and whether the parts have changed.",
      true,
    ];
  }
  if (drift.drifted === "lower") {
    return [
      "Scores have gone down. Look at light and focus: a picture that shows less also hides defects.",
      true,
    ];
  }
  if (drift.unlike_shots) {
    return [
      "From the first images on, scores are higher than the shots': the setup differs from the one the shots were taken with.",
      true,
    ];
  }
  if (!drift.images) return ["Nothing scored since it was loaded, taught or reset.", false];
  return ["No drift: scores are as they were.", false];
}

/** The state in one word or two, in the bar. */
export function renderState(connected) {
  const state = byId("state");
  const model = currentModel();
  let text = "Running";
  let kind = "fine";
  if (!connected) [text, kind] = ["No connection", "bad"];
  else if (store.status?.draining) [text, kind] = ["Shutting down", "bad"];
  else if (store.status?.camera && !store.status.camera.connected)
    [text, kind] = ["Camera lost", "bad"];
  else if (model?.error) [text, kind] = ["Model file refused", "warn"];
  else if (model && driftWords(model.drift)[1]) [text, kind] = ["Drift", "warn"];
  setText(state, text);
  state.className = `state ${kind}`;
}

/** The reset asks to be pressed twice: it takes back an alarm. */
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
      setText(button, "Sure? Press once more");
      announce("Sure? Press once more.");
      return;
    }
    disarm();
    try {
      await api.resetDrift(store.model);
      toast("From here on, what comes next is taken as normal.");
      await changed();
    } catch (error) {
      toast(error.message, { error: true });
    }
  };
}
