// Results beside one another have ratios to one threshold, that of now. Each was decided with the
// threshold of its time, and where that matters the words say so.

import { judged, ratio, rejected, word } from "./dom.js";
import { store } from "./store.js";

const modelOf = (record) => store.models.find((model) => model.name === record.model) ?? null;

/** Whether a score can be compared with the threshold of now: it is of the same model file. */
export const comparable = (record) => record.version === modelOf(record)?.version;

/** Score over the threshold of now; of an earlier model file, over that of its time. */
export const nowRatio = (record) =>
  comparable(record) ? record.score / modelOf(record).threshold : record.ratio;

/** Whether a multiple of the threshold of now rejects it. */
export const wouldReject = (record, multiple) => judged(record) && nowRatio(record) > multiple;

/** Whether the threshold was another one when it was decided. */
export const wasOther = (record) =>
  judged(record) && comparable(record) && record.threshold !== modelOf(record).threshold;

/** Whether the threshold of now decides it otherwise. */
export const turned = (record) =>
  wasOther(record) && wouldReject(record, 1) !== rejected(record);

const GOOD = { decision: "good" };
const REJECT = { decision: "anomaly" };

/** What the threshold of now makes of a judged result: a word. */
export const nowWord = (record) => word(wouldReject(record, 1) ? REJECT : GOOD);

/** A few words beside a ratio that say what it does not; empty where it says all. */
export function nowNote(record) {
  if (judged(record) && !comparable(record)) return "by an earlier model file";
  return turned(record) ? `now ${nowWord(record).toLowerCase()}` : "";
}

/** The ratio in words, and to which threshold it is. */
export function ratioWords(record) {
  const then = `${ratio(record.ratio)} times the threshold`;
  if (!comparable(record)) return `${then} of an earlier model file`;
  if (!wasOther(record)) return then;
  return `${then} of that time, which is ${ratio(nowRatio(record))} times that of now`;
}

/** What to know of the threshold at which a result was decided, in whole sentences. */
export function thenWords(record) {
  if (!judged(record)) return "";
  const decided = word(record).toUpperCase();
  const then = `${ratio(record.ratio)} times the threshold of that time`;
  if (!comparable(record)) {
    return `It was decided ${decided} by an earlier model file, at ${then}.`;
  }
  if (!wasOther(record)) return "";
  const start = `It was decided ${decided} at ${then}.`;
  if (!turned(record)) return `${start} With the threshold of now it is decided the same.`;
  return `${start} With the threshold of now it would be decided ${nowWord(record).toUpperCase()}.`;
}

/** What to know of zones that were set or undone after a result: its score does not. */
export function zoneWords(record) {
  const zones = store.zones?.model === record.model ? store.zones.zones : [];
  const at = new Date(record.time);
  const changed = zones.some(({ time, undone }) => new Date(time) > at || (undone && new Date(undone) > at));
  if (!changed || !judged(record)) return "";
  return "The zones have changed since: score the photograph again to see what they make of it.";
}
