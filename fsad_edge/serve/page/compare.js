// Results beside one another have ratios to one threshold, that of now. Each was decided with the
// threshold of its time, and where that matters the words say so. A score that another model file or
// other zones gave is no score of now: it stays beside the threshold of its time.

import { judged, ratio, rejected, word } from "./dom.js";
import { store } from "./store.js";

const modelOf = (record) => store.models.find((model) => model.name === record.model) ?? null;

/** Whether it was scored by the model file of now. */
const ofThisFile = (record) => record.version === modelOf(record)?.version;

/** Whether the zones have changed since a result: its score was measured under other ones. */
export const zonesChanged = (record) =>
  ofThisFile(record) && (record.zones_key ?? "") !== (modelOf(record).zones_key ?? "");

/** Whether a score can be compared with the threshold of now: of the same file and zones. */
export const comparable = (record) => ofThisFile(record) && !zonesChanged(record);

/** Score over the threshold of now; where that cannot be compared, over that of its time. */
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
  if (judged(record) && !ofThisFile(record)) return "by an earlier model file";
  if (judged(record) && zonesChanged(record)) return "zones changed since";
  return turned(record) ? `now ${nowWord(record).toLowerCase()}` : "";
}

/** The ratio in words, and to which threshold it is. */
export function ratioWords(record) {
  const then = `${ratio(record.ratio)} times the threshold`;
  if (!ofThisFile(record)) return `${then} of an earlier model file`;
  if (zonesChanged(record)) return `${then} of that time; the zones have changed since`;
  if (!wasOther(record)) return then;
  return `${then} of that time, which is ${ratio(nowRatio(record))} times that of now`;
}

/** What to know of the threshold at which a result was decided, in whole sentences. */
export function thenWords(record) {
  if (!judged(record)) return "";
  const decided = word(record).toUpperCase();
  const then = `${ratio(record.ratio)} times the threshold of that time`;
  if (!ofThisFile(record)) {
    return `It was decided ${decided} by an earlier model file, at ${then}.`;
  }
  if (zonesChanged(record)) {
    return `It was decided ${decided} at ${then}. The zones have changed since: score the photograph again to see what they make of it.`;
  }
  if (!wasOther(record)) return "";
  const start = `It was decided ${decided} at ${then}.`;
  if (!turned(record)) return `${start} With the threshold of now it is decided the same.`;
  return `${start} With the threshold of now it would be decided ${nowWord(record).toUpperCase()}.`;
}

/** What a place says that is missing, extra or elsewhere; empty where it says nothing. */
export function outOfPlaceWords(record) {
  const { out_of_place: said, place_ratio: times } = record;
  if (!said) return "";
  const place = `the place that differs most is ${ratio(times)} times the threshold of that time from the shots`;
  return `${said[0].toUpperCase()}${said.slice(1)}: ${place}.`;
}
