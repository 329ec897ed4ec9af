"""A pool of training crops with the features that each teacher has for them.

The pool is made in shards, one folder each, so that it continues after an interruption. A shard has
`images.bin`, crops as JPEG one after another; `ends.npy`, int64 [n], the end of each in that file;
and `teacher0.npy`, `teacher1.npy`, ..., fp16 [n, h, w, C], in the order of pool.json.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import export, session
from crops import make_crop
from numpy.typing import NDArray
from PIL import Image
from teachers import Teacher, Window
from torch import Tensor

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}

SIZE = 160
"""Side of the image that the student sees, pixels."""

MARGIN = 8
"""Pixels on each side of it that only the teachers see, half a cell at stride 16."""

QUALITY = 90
"""Of the JPEG files, without chroma subsampling. The teachers see the crop after compression."""

MEAN = STD = [0.5, 0.5, 0.5]
"""What the student's input is normalised by. Each teacher has its own."""


def list_images(folders: list[Path]) -> list[Path]:
    """All images under the folders, sorted."""
    found = [p for f in folders for p in f.rglob("*") if p.suffix.lower() in SUFFIXES]
    if not found:
        raise SystemExit(f"there are no images under {', '.join(map(str, folders))}")
    return sorted(found)


def normalise(images: NDArray[np.uint8], mean: list[float], std: list[float]) -> Tensor:
    """Images uint8 [N, H, W, 3] as float [N, 3, H, W], (pixel / 255 - mean) / std."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    m, s = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (mean, std))
    return (x - m) / s


def encode_jpeg(crop: NDArray[np.uint8]) -> bytes:
    """A crop as JPEG."""
    file = io.BytesIO()
    Image.fromarray(crop).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a crop, uint8 [SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def shard_crops(shard: int, count: int, plan: dict[str, Any], paths: list[Path]) -> list[bytes]:
    """The crops of a shard as JPEG: of photographs in their shuffled order, then textures."""
    rng = np.random.default_rng([plan["seed"], shard])
    textures = round(plan["textures"] * count)
    photos, crops = count - textures, []
    photo, loaded = None, None
    for i in range(photos):
        # The photographs take turns over the whole pool.
        done = (shard * plan["shard"] + i * count / photos) / plan["crops"]
        path = paths[int(done * len(paths))]
        if path != loaded:
            with Image.open(path) as file:
                photo = file.convert("RGB")
            loaded = path
        crops.append(encode_jpeg(make_crop(photo, SIZE + 2 * MARGIN, rng)))
    for _ in range(textures):
        crops.append(encode_jpeg(make_crop(None, SIZE + 2 * MARGIN, rng)))
    return crops


def teacher_features(job: dict[str, Any], crops: list[bytes]) -> NDArray[np.float16]:
    """The features of one teacher for crops, fp16 [n, h, w, C]."""
    net, look = session(job["onnx"], 1), Window(**job["window"])
    seen, learnt = slice(look.start, look.start + look.side), slice(look.first, None)
    found = []
    for low in range(0, len(crops), 16):
        images = np.stack([decode_jpeg(crop)[seen, seen] for crop in crops[low : low + 16]])
        x = normalise(images, job["about"]["mean"], job["about"]["std"]).numpy()
        cells = net.run(None, {"x": np.ascontiguousarray(x)})[0][:, :, learnt, learnt]
        cells = cells[:, :, : look.cells, : look.cells]
        found.append(cells.transpose(0, 2, 3, 1).astype(np.float16))
    return np.concatenate(found)


def make_shard(job: dict[str, Any]) -> None:
    """Write one shard, in a worker, under a temporary name until it is complete."""
    began, folder = time.time(), job["folder"]
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    torch.set_num_threads(1)
    crops = shard_crops(job["shard"], job["count"], job["plan"], job["paths"])
    (part / "images.bin").write_bytes(b"".join(crops))
    np.save(part / "ends.npy", np.cumsum([len(crop) for crop in crops]))
    for k, teacher in enumerate(job["teachers"]):
        np.save(part / f"teacher{k}.npy", teacher_features(teacher, crops))
    os.replace(part, folder)
    print(f"shard {folder.name}: {len(crops)} crops, {time.time() - began:.0f} s", flush=True)


def shard_counts(plan: dict[str, Any]) -> dict[str, int]:
    """The folders of a pool's shards, and how many crops each has."""
    starts = range(0, plan["crops"], plan["shard"])
    sizes = [min(plan["shard"], plan["crops"] - start) for start in starts]
    return {f"{k:05d}": size for k, size in enumerate(sizes)}


def make_pool(args: argparse.Namespace) -> None:
    """Write the pool, or those of its shards that are missing.

    Raises:
        SystemExit: the folder holds a pool that was made in another way.
    """
    paths = list_images(args.images)
    np.random.default_rng(args.seed).shuffle(paths)
    teachers = [Teacher(source, SIZE, MARGIN) for source in args.teacher]
    plan = {
        "teachers": [teacher.about() for teacher in teachers],
        "mean": MEAN,
        "std": STD,
        "images": len(paths),
        "crops": args.crops,
        "shard": args.shard,
        "textures": args.textures,
        "seed": args.seed,
    }
    args.pool.mkdir(parents=True, exist_ok=True)
    note = args.pool / "pool.json"
    if note.exists() and json.loads(note.read_text()) != plan:
        raise SystemExit(f"{note} was made with other options: take another folder for --pool")
    note.write_text(json.dumps(plan, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        known = []
        for k, teacher in enumerate(teachers):
            onnx = Path(folder) / f"teacher{k}.onnx"
            export(teacher.net, onnx, teacher.window.side, dynamic=True)
            known.append({"onnx": onnx, "window": asdict(teacher.window), "about": teacher.about()})
        jobs = [
            {"folder": args.pool / name, "shard": k, "count": count, "teachers": known}
            | {"plan": plan, "paths": paths}
            for k, (name, count) in enumerate(shard_counts(plan).items())
            if not (args.pool / name).exists()
        ]
        print(f"{len(jobs)} shards of {args.shard} crops to make", flush=True)
        with multiprocessing.get_context("spawn").Pool(args.workers) as workers:
            workers.map(make_shard, jobs, chunksize=1)


class Pool:
    """The training crops and the teachers' features for them, as :func:`make_pool` wrote them.

    Attributes:
        about: the content of pool.json.
        scales: for each teacher the root mean square of its features, by which they are divided.
        samples: for each teacher some of its features, divided by that, float [n, C].

    Raises:
        SystemExit: a shard is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "pool.json").read_text())
        shards = [folder / name for name in shard_counts(self.about)]
        missing = [shard.name for shard in shards if not shard.exists()]
        if missing:
            raise SystemExit(f"{folder} has no shard {missing[0]}: run  distil.py pool  again")
        self.bytes = [np.memmap(shard / "images.bin", np.uint8, "r") for shard in shards]
        self.ends = [np.load(shard / "ends.npy") for shard in shards]
        self.features = [
            [np.load(shard / f"teacher{k}.npy", mmap_mode="r") for shard in shards]
            for k in range(len(self.about["teachers"]))
        ]
        self.scales, self.samples = [], []
        for maps in self.features:
            few = [shard[:: max(1, len(shard) * len(shards) // 512)] for shard in maps]
            sample = torch.from_numpy(np.concatenate(few).astype(np.float32)).flatten(0, 2)
            self.scales.append(float(sample.square().mean().sqrt()))
            self.samples.append(sample / self.scales[-1])

    def __len__(self) -> int:
        return int(self.about["crops"])

    def crop(self, row: int) -> NDArray[np.uint8]:
        """The image that the student sees, uint8 [SIZE, SIZE, 3]."""
        shard, i = divmod(row, self.about["shard"])
        ends = self.ends[shard]
        data = self.bytes[shard][ends[i - 1] if i else 0 : ends[i]].tobytes()
        return decode_jpeg(data)[MARGIN:-MARGIN, MARGIN:-MARGIN]

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, list[Tensor]]:
        """Some rows: normalised crops [N, 3, H, W], and each teacher's features [N, C, h, w]."""
        x = normalise(np.stack([self.crop(int(row)) for row in rows]), MEAN, STD)
        targets = []
        for maps, scale in zip(self.features, self.scales, strict=True):
            places = [divmod(int(row), self.about["shard"]) for row in rows]
            cells = np.stack([maps[shard][i] for shard, i in places]).astype(np.float32)
            targets.append(torch.from_numpy(cells).permute(0, 3, 1, 2) / scale)
        return x, targets
