// Lengths and areas of a photograph: in its own pixels, and in millimetres where a scale is known.

import { remember, remembered } from "./dom.js";

const key = (model) => `scale-${model}`;

/**
 * The width and height of a photograph as it is seen in a picture of it. Earlier versions told those
 * in the file, which a camera may have marked as turned.
 */
export function uprightSize({ width, height }, { naturalWidth, naturalHeight }) {
  const turned = naturalWidth !== naturalHeight && naturalWidth > naturalHeight !== width > height;
  return turned ? [height, width] : [width, height];
}

/** The scale that was set for a model in this browser: `{ mm, size }`, or null. */
export function keptScale(model) {
  try {
    const { mm, size } = JSON.parse(remembered(key(model)));
    return mm > 0 && Number.isFinite(mm) && size.length === 2 ? { mm, size } : null;
  } catch {
    return null;
  }
}

/** Keep the millimetres of a pixel in photographs of one size; null forgets them. */
export function keepScale(model, mm, size) {
  remember(key(model), mm === null ? "" : JSON.stringify({ mm, size }));
}

/**
 * Millimetres of a pixel, or null. What the service was told comes first; a scale of this browser is
 * true for photographs of the size that it was set on.
 */
export function mmPerPixel(record, size) {
  if (record.mm_per_px) return record.mm_per_px;
  const kept = keptScale(record.model);
  return kept && String(kept.size) === String(size) ? kept.mm : null;
}

export function areaWords(area, record, size) {
  const mm = mmPerPixel(record, size);
  const pixels = `${whole(area)} px²`;
  return mm ? `${pixels} = ${significant3(area * mm * mm)} mm²` : pixels;
}

/** Where a region is: from the left and upper edge of the photograph. */
export function placeWords({ centroid }, record, size) {
  const mm = mmPerPixel(record, size);
  if (!mm) return centroid.map(whole).join(", ");
  return `${centroid.map((one) => significant3(one * mm)).join(", ")} mm`;
}

/** The width and height of a box. */
export function sizeWords([left, top, right, bottom], record, size) {
  const mm = mmPerPixel(record, size);
  const sides = [right - left, bottom - top];
  const pixels = `${sides.map(whole).join(" × ")} px`;
  return mm ? `${pixels} = ${sides.map((side) => significant3(side * mm)).join(" × ")} mm` : pixels;
}

/** A whole number, a half rounded to an even one, as the sentences of the service have it. */
export function whole(value) {
  const up = Math.round(value);
  return (value % 1 === 0.5 && up % 2 ? up - 1 : up).toLocaleString("en");
}

/** Three digits: no scale from two clicks has more. */
export const significant3 = (value) =>
  Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
