// Score images with a file that `fsad-edge export` wrote, with ONNX Runtime.
//
//     node score.mjs part.onnx photo.png... [--resize]
//
// The images must have the model's size. With --resize, sharp resizes them, which changes scores a
// little (../README.md). Exit code 0: all good; 1: an anomaly found; 2: an error.
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

async function main() {
  const { values, positionals: [file, ...images] } = parseArgs({
    allowPositionals: true, options: { resize: { type: 'boolean' } },
  });
  if (!images.length) throw new Error('usage: node score.mjs part.onnx photo.png... [--resize]');
  const { session, about } = await load(file).catch((error) => {
    throw new Error(`${file} cannot be loaded: ${error.message}`);
  });
  const threshold = about.threshold.value;
  let code = 0;
  for (const path of images) {
    const pixels = await readImage(path, about, values.resize).catch((error) => {
      throw new Error(`${path} cannot be scored: ${error.message}`);
    });
    const image = new ort.Tensor('uint8', pixels, [1, about.height, about.width, 3]);
    const { score: { data: [score] } } = await session.run({ image }, ['score']);
    if (score > threshold) code = 1;
    console.log(`${path}  score ${score.toPrecision(9)}  ` +
      `threshold ${threshold.toPrecision(9)}  ${score > threshold ? 'anomaly' : 'good'}`);
  }
  return code;
}

process.exitCode = await main().catch((error) => {
  console.error(`error: ${error.message}`);
  return 2;
});
