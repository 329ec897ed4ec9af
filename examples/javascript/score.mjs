// Score images with a file that `fsad-edge export` wrote, with ONNX Runtime.
//
//     node score.mjs part.onnx photo.png... [--resize]
//
// The images must have the model's size. With --resize, sharp resizes them, which changes scores a
// little (../README.md). Exit code 2: an error; else 1: an anomaly found; else 3: an image is not
// judged; else 0: all good.
import fs from 'node:fs';
import { parseArgs } from 'node:util';

import ort from 'onnxruntime-node';
import protobuf from 'protobufjs';
import sharp from 'sharp';

// Official builds of ONNX Runtime report usage from version 1.29 on.
process.env.ORT_DISABLE_TELEMETRY ??= '1';

// The part of onnx.proto that is needed. All other fields of the file are skipped.
const ONNX = protobuf.parse(`syntax = "proto3";
  message Entry { string key = 1; string value = 2; }
  message Model { repeated Entry metadata = 14; }`).root.lookupType('Model');

async function load(path) {
  const bytes = fs.readFileSync(path);
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 });
  // onnxruntime-node does not give access to a model's metadata, so it is read from the file.
  const entry = ONNX.decode(bytes).metadata.find(({ key }) => key === 'fsad_edge');
  if (!entry) throw new Error('it was not written by  fsad-edge export.');
  return { session, about: JSON.parse(entry.value) };
}

// The RGB pixels of an image, row by row.
async function readImage(path, { height, width }, resize) {
  // As in fsad-edge: EXIF rotation is applied, colour profiles are ignored, transparency is black.
  let image = sharp(path, { autoOrient: true, ignoreIcc: true }).flatten({ background: 'black' });
  if (resize) image = image.resize(width, height, { fit: 'fill', kernel: 'linear' });
  image = image.toColourspace('srgb').raw();
  const { data, info } = await image.toBuffer({ resolveWithObject: true });
  if (info.width !== width || info.height !== height) {
    throw new Error(`it is ${info.width}x${info.height} pixels, not ` +
      `${width}x${height}: resize it as the README describes, or add --resize.`);
  }
  return data;
}

// Whether an image shows something at all, and no more than the bound allows of something else
// (../../docs/format.md).
function isJudged({ unlikeness, offset, highlight, contrast }, pixels, imageScore, map) {
  const counts = new Array(256).fill(0);
  for (let index = 0; index < pixels.length; index += 3) {
    counts[Math.max(pixels[index], pixels[index + 1], pixels[index + 2])] += 1;
  }
  const number = pixels.length / 3;
  const average = (measure) =>
    counts.reduce((sum, count, value) => sum + count * measure(value), 0) / number;
  const mean = average((value) => value);
  const deviation = Math.sqrt(average((value) => (value - mean) ** 2));
  let bright = 0; // the value that one pixel in a hundred is above
  for (let below = counts[0]; below < 0.99 * number; below += counts[bright]) bright += 1;
  if (bright < highlight || deviation < contrast) return false; // black, dark or blank
  const nearest = Float32Array.from(map).sort()[Math.floor(map.length / 10)];
  const distance = Math.max(imageScore, 1e-6) * Math.max(nearest + offset, 1e-6);
  return unlikeness === null || Math.sqrt(distance) <= unlikeness;
}

async function main() {
  const { values, positionals: [file, ...images] } = parseArgs({
    allowPositionals: true, options: { resize: { type: 'boolean' } },
  });
  if (!images.length) throw new Error('usage: node score.mjs part.onnx photo.png... [--resize]');
  const { session, about } = await load(file).catch((error) => {
    throw new Error(`${file} cannot be loaded: ${error.message}`);
  });
  if (about.locator) {
    throw new Error(`${file} finds the part in each photograph, which this program does not: ` +
      'score with fsad-edge, or make the part again with  fsad-edge finetune --locate off .');
  }
  const threshold = about.threshold.value;
  const decisions = new Set();
  for (const path of images) {
    const pixels = await readImage(path, about, values.resize).catch((error) => {
      throw new Error(`${path} cannot be scored: ${error.message}`);
    });
    const image = new ort.Tensor('uint8', pixels, [1, about.height, about.width, 3]);
    const outputs = await session.run({ image }, ['score', 'image_score', 'anomaly_map']);
    const [[score], [imageScore]] = [outputs.score.data, outputs.image_score.data];
    let decision = score > threshold ? 'anomaly' : 'good';
    if (!isJudged(about.judgement, pixels, imageScore, outputs.anomaly_map.data)) {
      decision = 'not_judged';
    }
    decisions.add(decision);
    console.log(`${path}  score ${score.toPrecision(9)}  ` +
      `threshold ${threshold.toPrecision(9)}  ${decision}`);
  }
  if (decisions.has('anomaly')) return 1;
  return decisions.has('not_judged') ? 3 : 0;
}

process.exitCode = await main().catch((error) => {
  console.error(`error: ${error.message}`);
  return 2;
});
