// The threshold: where it comes from, what another one would do, and setting it.

import * as api from "./api.js";
import { ask } from "./ask.js";
import { comparable, wouldReject, zonesChanged } from "./compare.js";
import {
  announce,
  byId,
  clock,
  count,
  judged,
  ratio,
  remembered,
  setText,
  significant,
  toast,
} from "./dom.js";
import { changeWords, isGood, sideWord } from "./learn.js";
import { currentModel, store } from "./store.js";

/** Examples that the preview names. */
const MOST_NAMED = 3;

let changed = async () => {}; // called after the threshold was set

/** The previewed threshold as a multiple of the current one. */
export const previewed = () => 2 ** (Number(byId("preview").value) / 100);

/** `moved` draws the history again, and `whenChanged` fetches what another threshold changes. */
export function install(moved, whenChanged) {
  changed = whenChanged;
  byId("preview").addEventListener("input", moved);
  byId("preview").addEventListener("change", () => announce(byId("preview-counts").textContent));
  byId("preview-reset").addEventListener("click", () => {
    byId("preview").value = "0";
    moved();
    byId("preview").focus();
  });
  byId("preview-apply").addEventListener("click", askToApply);
  byId("threshold-undo").addEventListener("click", askToUndo);
}

/** Show what the preview would do to the results in the history, oldest first. */
export function renderThreshold(records) {
  const multiple = previewed();
  const model = currentModel();
  const raw = model ? `, a score of ${significant(model.threshold * multiple)}` : "";
  setText(byId("threshold-origin"), originWords(model));
  setText(byId("preview-value"), `${ratio(multiple)} × current${raw}`);
  byId("preview").setAttribute("aria-valuetext", `${ratio(multiple)} times the current threshold`);
  for (const id of ["preview-reset", "preview-apply"]) byId(id).disabled = multiple === 1;
  for (const key of document.querySelectorAll(".previewing")) key.hidden = multiple === 1;
  byId("threshold-undo").hidden = !current()?.set_id;
  setText(byId("preview-counts"), resultWords(records, multiple));
  setText(byId("preview-examples"), exampleWords(multiple));
}

/** The threshold of the model on display with its examples, once it is fetched. */
const current = () => (store.threshold?.model === store.model ? store.threshold : null);

function originWords(model) {
  const found = current();
  if (!model || !found) return "";
  const { value, file_value: own, set_by: who, set_when: when } = found;
  const file = value === own ? "" : ` The model file has ${significant(own)}.`;
  if (who) {
    // What was set, without who and when.
    const how = found.method.split(": ").slice(1).join(": ");
    return `${significant(value)}, set by ${who} on ${clock(when)} (${how}).${file}`;
  }
  if (value !== own) return `${significant(value)}, from ${sourceWords(model)}.${file}`;
  return `${significant(value)}, as the model file has it.`;
}

/** What has moved the threshold here. */
function sourceWords({ learned, rejected, zones }) {
  if (!zones) return "what was taught here";
  const set = zones === 1 ? "the zone that was set here" : `the ${zones} zones that were set here`;
  return learned || rejected ? `what was taught here and ${set}` : set;
}

/** How many of the results the threshold of now rejects, and how many the previewed one. */
function resultWords(records, multiple) {
  const known = records.filter((record) => judged(record) && comparable(record));
  const now = known.filter((record) => wouldReject(record, 1)).length;
  const then = known.filter((record) => wouldReject(record, multiple)).length;
  const change = then - now;
  let text = `The threshold of now rejects ${now} of the ${count(known.length, "judged result")} shown here.`;
  if (multiple !== 1) {
    text += ` The previewed one would reject ${then}`;
    text +=
      change === 0 ? ", as many." : change > 0 ? `, ${change} more.` : `, ${-change} fewer.`;
  }
  const others = records.filter((record) => judged(record) && !comparable(record));
  const before = others.filter(zonesChanged).length;
  const files = others.length - before;
  if (files) text += ` ${count(files, "result")} of an earlier model file not counted.`;
  if (before) text += ` ${count(before, "result")} from before the zones changed not counted.`;
  return text;
}

const exampleTitle = (one) => `“${one.name ?? `no. ${one.id}`}” (${isGood(one) ? "good" : "bad"})`;

/** Which examples the previewed threshold would decide otherwise. */
function exampleWords(multiple) {
  const examples = current()?.examples ?? [];
  if (!examples.length) return "";
  if (multiple === 1) {
    const wrong = examples.filter((one) => !one.right);
    const right = `Examples: ${examples.length - wrong.length} of ${examples.length} decided rightly.`;
    if (!wrong.length) return right;
    const are = wrong
      .slice(0, MOST_NAMED)
      .map((one) => `${exampleTitle(one)} is ${sideWord(one.decision)}`);
    if (wrong.length > MOST_NAMED) are.push(`${wrong.length - MOST_NAMED} more`);
    return `${right} Decided wrongly: ${are.join("; ")}.`;
  }
  const turned = examples.filter(
    (one) => one.decision !== "not_judged" && one.ratio > multiple !== one.ratio > 1,
  );
  if (!turned.length) return `Examples: none of ${examples.length} changes sides.`;
  const named = turned.slice(0, MOST_NAMED).map((one) => {
    const bad = one.ratio > multiple ? "would be rejected" : "would count as good";
    return `${exampleTitle(one)} ${bad}`;
  });
  if (turned.length > MOST_NAMED) named.push(`${turned.length - MOST_NAMED} more`);
  return `Examples: ${turned.length} of ${examples.length} would change sides: ${named.join("; ")}.`;
}

function askToApply() {
  const model = currentModel();
  const multiple = previewed();
  if (!model || multiple === 1) return;
  const value = model.threshold * multiple;
  const words = [
    `The threshold of ${model.name} changes from ${significant(model.threshold)} to ${significant(value)}, for all images from now on.`,
    byId("preview-counts").textContent,
    byId("preview-examples").textContent,
    "You can undo this.",
  ];
  ask({
    heading: "Apply this threshold?",
    text: words.filter(Boolean).join(" "),
    yes: "Apply it",
    forced: "Apply it anyway",
    act: (who, force) => apply(model.name, value, who, force),
  });
}

async function apply(model, value, who, force) {
  const found = await api.setThreshold(model, value, who, force);
  byId("preview").value = "0";
  const words = [`The threshold is ${significant(found.value)} now.`];
  toast(words.concat(changeWords(found.changes)).join(" "), {
    action: { label: "Undo", run: () => undoAtOnce(model) },
  });
  await changed();
}

function askToUndo() {
  const found = current();
  if (!found) return;
  ask({
    heading: "Undo this threshold?",
    text: `${found.set_by} set it to ${significant(found.value)} on ${clock(found.set_when)}. Without it, what was in effect before counts again.`,
    yes: "Undo",
    forced: "Undo it anyway",
    act: (who, force) => undo(found.model, who, force),
  });
}

/** Undo what was just applied, under the name that applied it. */
async function undoAtOnce(model) {
  try {
    await undo(model, remembered("who"), false);
  } catch (error) {
    if (error.status === 409 && error.body.force) askToUndo();
    else toast(error.message, { error: true });
  }
}

async function undo(model, who, force) {
  const found = await api.undoThreshold(model, who, force);
  const words = [`The threshold is ${significant(found.value)} again.`];
  toast(words.concat(changeWords(found.changes)).join(" "));
  await changed();
}
