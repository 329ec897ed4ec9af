"""Distil the intermediate features of any timm network into a small encoder, on unlabelled images.

    python distil.py pool  --teacher local-dir:TEACHER --images FOLDER --pool POOL
    python distil.py train --pool POOL --net edge5 --steps 20000 --run RUN
    python distil.py export --run RUN --out encoder.safetensors

`pool` makes augmented crops and runs the teacher on them once. `train` then runs the student alone
and continues from its last checkpoint when it is started again. `export` folds the network and
writes fp16 weights.
"""

from __future__ import annotations

import argparse
import functools
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
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
SIZE = 160
SHIFT = 8
"""The teacher sees SHIFT more pixels on each side than the student.

A network with TensorFlow's padding is centred on the far corner of each cell, 16k + 15. Moved by
half a cell, its features describe the middle of the student's cells, so that an anomaly map of the
student shows the anomaly in its place.
"""


def list_images(folders: list[Path]) -> list[Path]:
    """All images under the folders, sorted."""
    found = [p for f in folders for p in f.rglob("*") if p.suffix.lower() in SUFFIXES]
    if not found:
        raise SystemExit(f"there are no images under {', '.join(map(str, folders))}")
    return sorted(found)


def fill_pool(job: dict[str, Any]) -> None:
    """Make the crops [start, stop) of the pool and the teacher's features for them, in a worker."""
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
            workers.map(fill_pool, jobs, chunksize=1)
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
    """The vectors that a memory bank compares: 3x3 mean without padding, then length 1.

    features: float [N, C, h, w].
    """
    pooled = nn.functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
    return nn.functional.normalize(pooled, dim=1)


def relative_error(student: Tensor, teacher: Tensor, floor: float) -> Tensor:
    """Squared error over the teacher's variance, both within each image, as a mean over images.

    A photograph's patches differ far more than those of a plain surface. Divided by the variance,
    the small differences that make a defect count as much as those between sky and grass.
    """
    s = student - student.mean((2, 3), keepdim=True)
    t = teacher - teacher.mean((2, 3), keepdim=True)
    error = (s - t).square().sum(1).mean((1, 2))
    variance = t.square().sum(1).mean((1, 2))
    return (error / (variance + floor)).mean()


def match_last_norm(net: nn.Module, features: Tensor) -> None:
    """Set the last batch norm to the teacher's mean and std per channel. features: [n, C]."""
    last = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        last.weight.copy_(features.std(0))
        last.bias.copy_(features.mean(0))


def loss_parts(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """The parts of the loss for features [N, C, h, w]; the teacher's have a mean square of 1."""
    s, t = unit(student), unit(teacher)
    return {
        "raw": (student - teacher).square().mean(),
        "unit": (s - t).square().sum(1).mean(),
        "relative": relative_error(s, t, 0.02),
    }


def learning_rate(step: int, part: float, peak: float, warm: int = 200) -> float:
    """A linear warm-up, then half a cosine to zero; `part` is the fraction of the run done."""
    return float(0.5 * peak * (1 + np.cos(np.pi * part))) * min(1.0, (step + 1) / warm)


class MovingAverage:
    """Exponential moving average of parameters and buffers."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in net.state_dict().items()}

    def update(self, net: nn.Module, step: int) -> None:
        """Follow `net`, faster in the first steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value.detach(), 1 - decay)
            else:
                self.values[key].copy_(value)


class Pool:
    """The training crops and the teacher's features for them, as :func:`make_pool` wrote them."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "pool.json").read_text())
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.features = np.load(folder / "features.npy", mmap_mode="r")
        self.mean = torch.tensor(self.about["mean"]).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(self.about["std"]).view(1, 3, 1, 1) * 255
        step = max(1, len(self.features) // 512)
        sample = torch.from_numpy(self.features[::step].astype(np.float32))
        self.scale = sample.square().mean().sqrt()
        self.sample = sample.flatten(0, 2) / self.scale  # [n, C]

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Normalised crops [N, 3, H, W] and scaled features [N, C, h, w] of some rows."""
        x = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float()
        t = torch.from_numpy(self.features[rows]).permute(0, 3, 1, 2).float() / self.scale
        return (x - self.mean) / self.std, t


class Training:
    """The state of a training run: network, optimiser, averaged weights, steps and seconds."""

    def __init__(self, args: argparse.Namespace, pool: Pool) -> None:
        self.net = CANDIDATES[args.net]().to(memory_format=torch.channels_last)
        match_last_norm(self.net, pool.sample)
        groups: list[dict[str, Any]] = [
            {
                "params": [p for p in self.net.parameters() if p.ndim > 1],
                "weight_decay": args.decay,
            },
            {"params": [p for p in self.net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=args.rate)
        self.average = MovingAverage(self.net, args.ema)
        self.step, self.seconds = 0, 0.0

    def save(self, path: Path) -> None:
        """Write a checkpoint under a temporary name, then rename it."""
        state = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.values,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.values = state["average"]
        self.step, self.seconds = state["step"], state["seconds"]

    def update(self, loss: Tensor, rate: float) -> None:
        """One step of the optimiser and of the moving average."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self.average.update(self.net, self.step)
        self.step += 1


def train(args: argparse.Namespace) -> None:
    """Train one candidate on a pool, with checkpoints.

    There is one process for each core, each with its share of the batch: threads that wait for one
    another after every operation lose most of their time if something else runs on the machine.
    """
    args.run.mkdir(parents=True, exist_ok=True)
    rendezvous = args.run / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    spawn(train_process, (args, rendezvous.resolve()), args.workers)  # type: ignore[no-untyped-call]


def train_process(rank: int, args: argparse.Namespace, rendezvous: Path) -> None:
    """One of the training processes; only the first one writes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=args.workers
    )
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    pool = Pool(args.pool)
    training, checkpoint = Training(args, pool), args.run / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
        print(f"{rank}: continuing at step {training.step}", flush=True)
    weights = {"raw": args.raw, "unit": args.unit, "relative": args.relative}
    if rank == 0:
        recipe = {key: getattr(args, key) for key in ("net", "steps", "minutes", "batch", "rate")}
        recipe |= {"loss": weights, "weight_decay": args.decay, "ema": args.ema}
        text = json.dumps({**pool.about, **recipe, "net_seed": args.seed}, indent=1)
        (args.run / "recipe.json").write_text(text + "\n")
    train_steps(rank, args, pool, training, weights)
    if rank == 0:
        training.save(checkpoint)
    torch.distributed.destroy_process_group()


def train_steps(
    rank: int, args: argparse.Namespace, pool: Pool, training: Training, weights: dict[str, float]
) -> None:
    """Train until the steps or the minutes are used up."""
    student = nn.parallel.DistributedDataParallel(training.net)
    training.net.train()
    first, spent, began = training.step, training.seconds, time.time()
    sums = dict.fromkeys(weights, 0.0)
    for step in range(first, args.steps):
        elapsed = torch.tensor(spent + time.time() - began, dtype=torch.float64)
        torch.distributed.broadcast(elapsed, 0)
        by_clock = elapsed.item() / (60 * args.minutes) if args.minutes else 0.0
        part = max(step / args.steps, by_clock)
        if part >= 1:
            break
        x, t = pool.batch(batch_rows(step, rank, args, len(pool.images)))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            y = student(x)
        parts = loss_parts(y.float(), t)
        loss = sum((weights[k] * v for k, v in parts.items()), torch.zeros(()))
        training.update(loss, learning_rate(step, part, args.rate))
        training.seconds = spent + time.time() - began
        for key, value in parts.items():
            sums[key] += value.item()
        if rank == 0 and training.step % 200 == 0:
            text = ", ".join(f"{k} {v / 200:.4f}" for k, v in sums.items())
            sums = dict.fromkeys(weights, 0.0)
            pace = 1e3 * (time.time() - began) / (training.step - first)
            print(f"step {training.step}, {part:.1%}, {text}, {pace:.0f} ms a step", flush=True)
        if rank == 0 and training.step % args.every == 0:
            training.save(args.run / "checkpoint.pt")


def batch_rows(step: int, rank: int, args: argparse.Namespace, count: int) -> NDArray[np.int64]:
    """The rows of the pool that a process takes in a step."""
    per_epoch, share = count // args.batch, args.batch // args.workers
    order = epoch_order(args.seed, step // per_epoch, count)
    start = step % per_epoch * args.batch + rank * share
    return np.sort(order[start : start + share])


@functools.lru_cache(maxsize=1)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The random order of the pool in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def load_student(run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The folded network of a run, with its averaged weights, and its recipe."""
    recipe = json.loads((run / "recipe.json").read_text())
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    net = CANDIDATES[recipe["net"]]()
    net.load_state_dict(state["average"])
    net.eval()
    net.fold()
    return net, {**recipe, "trained_steps": state["step"]}


def export_weights(args: argparse.Namespace) -> None:
    """Fold and write fp16 weights as safetensors, with architecture and recipe in the metadata."""
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
    run = commands.add_parser("train", help="train a candidate, or continue training it")
    run.add_argument("--pool", type=Path, required=True)
    run.add_argument("--net", choices=sorted(CANDIDATES), required=True)
    run.add_argument("--run", type=Path, required=True)
    run.add_argument("--steps", type=int, default=20000)
    run.add_argument(
        "--minutes", type=float, help="end of the schedule in minutes, if sooner than --steps"
    )
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
    out.set_defaults(call=export_weights)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
