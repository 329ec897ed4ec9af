"""Distil the intermediate features of any timm network into a small encoder, on unlabelled images.

    python distil.py pool  --teacher local-dir:TEACHER --images FOLDER --pool POOL
    python distil.py train --pool POOL --net edge5 --steps 20000 --run RUN
    python distil.py export --run RUN --out encoder.safetensors

`pool` augments crops and runs the teacher on them once; `train` then runs the student alone, and
goes on from its last checkpoint when it is started again; `export` folds and writes fp16.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from candidates import Cut, export, session
from crops import make_crop
from networks import CANDIDATES
from numpy.lib.format import open_memmap
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
SIZE = 160
SHIFT = 8
"""The teacher sees SHIFT more pixels on the top and left, and as many on the bottom and right.

A network with TensorFlow's padding is centred on the far corner of each cell, 16k + 15; moved by
half a cell, its features describe the middle of the student's cells, and an anomaly map made from
the student sits where the anomaly is.
"""


def list_images(folders: list[Path]) -> list[Path]:
    """All images under the folders, sorted."""
    found = [p for f in folders for p in f.rglob("*") if p.suffix.lower() in SUFFIXES]
    if not found:
        raise SystemExit(f"no images under {', '.join(map(str, folders))}")
    return sorted(found)


def fill(job: dict[str, Any]) -> None:
    """Worker: make crops [start, stop) of the pool and the teacher's features for them."""
    start, stop, paths = job["start"], job["stop"], job["paths"]
    rng = np.random.default_rng([job["seed"], start])
    images = np.load(job["pool"] / "images.npy", mmap_mode="r+")
    features = np.load(job["pool"] / "features.npy", mmap_mode="r+")
    teacher = session(job["onnx"], 1)
    mean = np.array(job["mean"], np.float32) * 255
    std = np.array(job["std"], np.float32) * 255
    textures = round(job["textures"] * (stop - start))
    photos = stop - start - textures
    picks = [paths[i * len(paths) // photos] for i in range(photos)] + [None] * textures
    photo, loaded, began, batch = None, None, time.time(), []
    for i, pick in enumerate(picks):
        if pick is not None and pick != loaded:
            with Image.open(pick) as file:
                photo = file.convert("RGB")
            loaded = pick
        batch.append(make_crop(None if pick is None else photo, SIZE + 2 * SHIFT, rng))
        if len(batch) == 16 or i == len(picks) - 1:
            crops = np.stack(batch)
            x = ((crops - mean) / std).transpose(0, 3, 1, 2)
            cells = teacher.run(None, {"x": np.ascontiguousarray(x, np.float32)})[0]
            low = start + i + 1 - len(batch)
            inner = slice(SHIFT, SHIFT + SIZE)
            images[low : start + i + 1] = crops[:, inner, inner]
            count = features.shape[1]
            features[low : start + i + 1] = cells[:, :, :count, :count].transpose(0, 2, 3, 1)
            batch = []
        if i % 2000 == 1999:
            print(f"{start}: {i + 1}/{stop - start} crops, {time.time() - began:.0f} s", flush=True)


def make_pool(args: argparse.Namespace) -> None:
    """Write images.npy uint8 [N, 160, 160, 3], features.npy fp16 [N, h, w, C] and pool.json."""
    paths = list_images(args.images)
    np.random.default_rng(args.seed).shuffle(paths)
    net = Cut(args.teacher, args.level).eval()
    mean, std = net.input_stats()
    with torch.no_grad():
        seen = net(torch.zeros(1, 3, SIZE + 2 * SHIFT, SIZE + 2 * SHIFT))
    channels, cells = seen.shape[1], SIZE // args.stride
    args.pool.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "teacher.onnx"
        export(net, onnx, SIZE + 2 * SHIFT, dynamic=True)
        open_memmap(args.pool / "images.npy", "w+", np.uint8, (args.crops, SIZE, SIZE, 3))
        shape = (args.crops, cells, cells, channels)
        open_memmap(args.pool / "features.npy", "w+", np.float16, shape)
        edges = np.linspace(0, args.crops, args.workers + 1).astype(int)
        jobs = [
            {
                "start": int(a),
                "stop": int(b),
                "paths": paths[k :: args.workers],
                "seed": args.seed,
                "pool": args.pool,
                "onnx": onnx,
                "mean": mean,
                "std": std,
                "textures": args.textures,
            }
            for k, (a, b) in enumerate(itertools.pairwise(edges))
        ]
        with multiprocessing.get_context("spawn").Pool(args.workers) as workers:
            workers.map(fill, jobs, chunksize=1)
    about = {
        "teacher": Path(args.teacher).name,
        "level": args.level,
        "stride": args.stride,
        "mean": mean,
        "std": std,
        "images": len(paths),
        "crops": args.crops,
        "textures": args.textures,
        "seed": args.seed,
    }
    (args.pool / "pool.json").write_text(json.dumps(about, indent=1) + "\n")


def unit(features: Tensor) -> Tensor:
    """3x3 mean without the padding, then length 1: what the memory bank compares. [N, C, h, w]."""
    pooled = nn.functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
    return nn.functional.normalize(pooled, dim=1)


def relative(student: Tensor, teacher: Tensor, floor: float) -> Tensor:
    """Squared error within each image over the teacher's spread within it, then the mean.

    A photograph's patches differ far more than those of a plain surface; divided by the spread, the
    small differences that make a defect count as much as the large ones between sky and grass.
    """
    s = student - student.mean((2, 3), keepdim=True)
    t = teacher - teacher.mean((2, 3), keepdim=True)
    error = (s - t).square().sum(1).mean((1, 2))
    std = t.square().sum(1).mean((1, 2))
    return (error / (std + floor)).mean()


def start_at(net: nn.Module, features: Tensor) -> None:
    """Give the last batch norm the teacher's mean and spread per channel. features: [n, C]."""
    last = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.weight.copy_(features.std(0))
        last.bias.copy_(features.mean(0))


def loss_parts(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """student, teacher: float [N, C, h, w], the teacher's scaled to a mean square of 1."""
    s, t = unit(student), unit(teacher)
    return {
        "raw": (student - teacher).square().mean(),
        "unit": (s - t).square().sum(1).mean(),
        "relative": relative(s, t, 0.02),
    }


def rate(step: int, part: float, peak: float, warm: int = 200) -> float:
    """Half a cosine to zero over the run (`part` goes from 0 to 1), after a linear warm-up."""
    return float(0.5 * peak * (1 + np.cos(np.pi * part))) * min(1.0, (step + 1) / warm)


class Average:
    """Exponential moving average of parameters and buffers."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in net.state_dict().items()}

    def update(self, net: nn.Module, step: int) -> None:
        """Follow `net`; faster at the start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value.detach(), 1 - decay)
            else:
                self.values[key].copy_(value)


def train(args: argparse.Namespace) -> None:
    """Train one candidate on a pool, with checkpoints.

    One process a core, each with its share of the batch: threads that meet after every operation
    lose most of their time when something else runs on the machine.
    """
    args.run.mkdir(parents=True, exist_ok=True)
    meeting = args.run / "meeting"
    meeting.unlink(missing_ok=True)
    spawn(work, (args, meeting.resolve()), args.workers)  # type: ignore[no-untyped-call]


def work(rank: int, args: argparse.Namespace, meeting: Path) -> None:
    """One of the training processes; the first writes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.workers
    )
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    share = args.batch // args.workers
    about = json.loads((args.pool / "pool.json").read_text())
    images = np.load(args.pool / "images.npy", mmap_mode="r")
    features = np.load(args.pool / "features.npy", mmap_mode="r")
    mean = torch.tensor(about["mean"]).view(1, 3, 1, 1) * 255
    std = torch.tensor(about["std"]).view(1, 3, 1, 1) * 255
    sample = torch.from_numpy(features[:: max(1, len(features) // 512)].astype(np.float32))
    scale = sample.square().mean().sqrt()
    net = CANDIDATES[args.net]().to(memory_format=torch.channels_last)
    start_at(net, sample.flatten(0, 2) / scale)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": args.decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=args.rate)
    average = Average(net, args.ema)
    begin, spent = 0, 0.0
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average.values = state["average"]
        begin, spent = state["step"], state["seconds"]
        print(f"{rank}: going on at step {begin}", flush=True)
    student = nn.parallel.DistributedDataParallel(net)
    weights = {"raw": args.raw, "unit": args.unit, "relative": args.relative}
    recipe = {
        **about,
        "net": args.net,
        "steps": args.steps,
        "minutes": args.minutes,
        "batch": args.batch,
        "rate": args.rate,
    }
    recipe |= {"loss": weights, "weight_decay": args.decay, "ema": args.ema, "net_seed": args.seed}
    if rank == 0:
        (args.run / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
    net.train()
    began, seen = time.time(), dict.fromkeys(weights, 0.0)
    per_epoch = len(images) // args.batch
    order, done = np.empty(0, np.int64), begin
    for step in range(begin, args.steps):
        clock = torch.tensor(spent + time.time() - began, dtype=torch.float64)
        torch.distributed.broadcast(clock, 0)
        elapsed = clock.item()
        part = max(step / args.steps, elapsed / (60 * args.minutes) if args.minutes else 0.0)
        if part >= 1:
            break
        if step % per_epoch == 0 or not len(order):
            order = np.random.default_rng([args.seed, step // per_epoch]).permutation(len(images))
        place = step % per_epoch * args.batch + rank * share
        rows = np.sort(order[place : place + share])
        x = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float()
        t = torch.from_numpy(features[rows]).permute(0, 3, 1, 2).float() / scale
        for group in optimiser.param_groups:
            group["lr"] = rate(step, part, args.rate)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            y = student((x - mean) / std)
        parts = loss_parts(y.float(), t)
        loss = sum((weights[k] * v for k, v in parts.items()), torch.zeros(()))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        average.update(net, step)
        for key, value in parts.items():
            seen[key] += value.item()
        done = step + 1
        if rank:
            continue
        if done % 200 == 0:
            text = ", ".join(f"{k} {v / 200:.4f}" for k, v in seen.items())
            seen = dict.fromkeys(weights, 0.0)
            pace = (time.time() - began) / (done - begin)
            print(f"step {done}, {part:.1%}, {text}, {1e3 * pace:.0f} ms a step", flush=True)
        if done % args.every == 0:
            save(checkpoint, net, optimiser, average, done, spent + time.time() - began)
    if rank == 0:
        save(checkpoint, net, optimiser, average, done, spent + time.time() - began)
    torch.distributed.destroy_process_group()


def save(
    path: Path,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    step: int,
    seconds: float,
) -> None:
    """Write a checkpoint under a temporary name, then rename it."""
    state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    torch.save({**state, "average": average.values, "seconds": seconds}, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def load_student(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The folded network of a run, from its averaged weights, and its recipe."""
    recipe = json.loads((run / "recipe.json").read_text())
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    net = CANDIDATES[recipe["net"]]()
    net.load_state_dict(state["average"])
    net.eval()
    net.fold()
    return net, {**recipe, "trained_steps": state["step"]}


def write(args: argparse.Namespace) -> None:
    """Fold and write the weights as fp16 safetensors, architecture and recipe in the metadata."""
    net, recipe = load_student(args.run)
    tensors = {k: v.to(torch.float16).contiguous() for k, v in net.state_dict().items()}
    metadata = {
        "architecture": type(net).__name__,
        "config": json.dumps(getattr(net, "config", {})),
        "recipe": json.dumps(recipe),
        "mean": json.dumps(recipe["mean"]),
        "std": json.dumps(recipe["std"]),
        "license": "Apache-2.0",
    }
    save_file(tensors, args.out, metadata)
    print(f"{args.out}: {args.out.stat().st_size} bytes, {len(tensors)} tensors")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Distil a small encoder from any timm network.")
    commands = parser.add_subparsers(required=True)
    pool = commands.add_parser("pool", help="augmented crops and the teacher's features for them")
    pool.add_argument("--teacher", required=True, help="timm name, e.g. local-dir:FOLDER")
    pool.add_argument("--images", type=Path, nargs="+", required=True)
    pool.add_argument("--pool", type=Path, required=True)
    pool.add_argument("--level", type=int, default=3, help="feature level of the teacher")
    pool.add_argument("--stride", type=int, default=16, help="stride of that level")
    pool.add_argument("--crops", type=int, default=64000)
    pool.add_argument("--textures", type=float, default=0.15, help="share of procedural crops")
    pool.add_argument("--workers", type=int, default=2)
    pool.add_argument("--seed", type=int, default=0)
    pool.set_defaults(call=make_pool)
    run = commands.add_parser("train", help="train a candidate; goes on where it stopped")
    run.add_argument("--pool", type=Path, required=True)
    run.add_argument("--net", choices=sorted(CANDIDATES), required=True)
    run.add_argument("--run", type=Path, required=True)
    run.add_argument("--steps", type=int, default=20000)
    run.add_argument("--minutes", type=float, help="end the schedule after this long, if sooner")
    run.add_argument("--batch", type=int, default=64)
    run.add_argument("--rate", type=float, default=4e-3)
    run.add_argument("--decay", type=float, default=0.02)
    run.add_argument("--ema", type=float, default=0.998)
    run.add_argument("--raw", type=float, default=0.3)
    run.add_argument("--unit", type=float, default=1.0)
    run.add_argument("--relative", type=float, default=1.0)
    run.add_argument("--bf16", action="store_true")
    run.add_argument("--workers", type=int, default=2, help="processes, each with one thread")
    run.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    run.add_argument("--seed", type=int, default=0)
    run.set_defaults(call=train)
    out = commands.add_parser("export", help="folded fp16 weights")
    out.add_argument("--run", type=Path, required=True)
    out.add_argument("--out", type=Path, required=True)
    out.set_defaults(call=write)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
