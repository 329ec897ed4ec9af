"""Distil the features of one or several timm networks into a small encoder, on unlabelled images.

    python distil.py pool  --teacher local-dir:A:3 local-dir:B:3 --images FOLDER --pool POOL
    python distil.py train --pool POOL --net accurate --steps 20000 --run RUN
    python distil.py export --run RUN --out encoder.safetensors

`pool` makes augmented crops and runs all teachers on them once. `train` then runs the student alone
and continues from its last checkpoint when it is started again; `pool` does so from its last shard.
`export` folds the network and writes fp16 weights.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import CANDIDATES
from numpy.typing import NDArray
from pool import Pool, make_pool
from safetensors.torch import save_file
from student import Form, Student, encoder_of, load_student
from teachers import Source
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

#: Crops behind the first batch norms and heads of a student that begins with exported weights.
START_CROPS = 128


def unit(features: Tensor, groups: Sequence[int] = ()) -> Tensor:
    """The vectors that a memory bank compares: 3x3 mean without padding, then length 1.

    Args:
        features: float [N, C, h, w].
        groups: channels of each part of the features that becomes a unit vector of its own before
            the parts are laid side by side; none for the whole.
    """
    pooled = nn.functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
    parts = torch.split(pooled, list(groups), 1) if groups else (pooled,)
    units = [nn.functional.normalize(part, dim=1) for part in parts]
    return torch.cat(units, 1) / float(np.sqrt(len(units)))


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


def loss_parts(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """The parts of one teacher's loss for features [N, C, h, w]; its mean square is 1."""
    s, t = unit(student), unit(teacher)
    return {
        "raw": (student - teacher).square().mean(),
        "unit": (s - t).square().sum(1).mean(),
        "relative": relative_error(s, t, 0.02),
    }


class Sums:
    """The total loss of all teachers, and the means of its parts since they were last taken."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights
        self.parts: list[dict[str, Tensor]] = []

    def add(self, parts: list[dict[str, Tensor]]) -> Tensor:
        """Note the parts of each teacher; returns their weighted sum, each teacher alike."""
        flat = {f"{k} {name}": v for k, p in enumerate(parts) for name, v in p.items()}
        self.parts.append({name: value.detach() for name, value in flat.items()})
        return torch.stack([self.weights[n] * v for p in parts for n, v in p.items()]).sum()

    def take(self) -> str:
        """The means in words, e.g. "0 raw 0.3": teacher 0, part "raw"."""
        means = {n: float(np.mean([float(p[n]) for p in self.parts])) for n in self.parts[0]}
        self.parts = []
        return ", ".join(f"{name} {value:.4f}" for name, value in means.items())


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


class Training:
    """The state of a training run: network, optimiser, averaged weights, steps and seconds."""

    def __init__(self, args: argparse.Namespace, pool: Pool) -> None:
        channels = [teacher["channels"] for teacher in pool.about["teachers"]]
        self.net = Student(args.net, channels).to(memory_format=torch.channels_last)
        if args.start:
            x, targets = pool.batch(np.arange(min(START_CROPS, len(pool))))
            self.net.start_from(args.start, x, targets)
        else:
            self.net.start_heads(pool.samples)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {
                "params": [p for p in trained if p.ndim > 1],
                "weight_decay": args.decay,
            },
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
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
        recipe["start"] = Path(args.start).name if args.start else None
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
    sums = Sums(weights)
    for step in range(first, args.steps):
        elapsed = torch.tensor(spent + time.time() - began, dtype=torch.float64)
        torch.distributed.broadcast(elapsed, 0)
        by_clock = elapsed.item() / (60 * args.minutes) if args.minutes else 0.0
        part = max(step / args.steps, by_clock)
        if part >= 1:
            break
        x, targets = pool.batch(batch_rows(step, rank, args, len(pool)))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            maps = student(x)
        parts = [loss_parts(y.float(), t) for y, t in zip(maps, targets, strict=True)]
        training.update(sums.add(parts), learning_rate(step, part, args.rate))
        training.seconds = spent + time.time() - began
        if training.step % 200 == 0:
            pace, means = 1e3 * (time.time() - began) / (training.step - first), sums.take()
            if rank == 0:
                print(
                    f"step {training.step}, {part:.1%}, {means}, {pace:.0f} ms a step", flush=True
                )
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


def export_weights(args: argparse.Namespace) -> None:
    """Fold and write fp16 weights as safetensors, with architecture and recipe in the metadata."""
    student, recipe = load_student(args.run)
    net, config = encoder_of(student, args.form)
    tensors = {k: v.to(torch.float16).contiguous() for k, v in net.state_dict().items()}
    metadata = {
        "architecture": type(net).__name__,
        "config": json.dumps(config),
        "form": args.form.value,
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
    pool.add_argument(
        "--teacher",
        type=Source.parse,
        nargs="+",
        required=True,
        metavar="NETWORK:LEVEL",
        help="timm's name of each teacher and its feature level, e.g. local-dir:FOLDER:3",
    )
    pool.add_argument("--images", type=Path, nargs="+", required=True)
    pool.add_argument("--pool", type=Path, required=True)
    pool.add_argument("--crops", type=int, default=64000)
    pool.add_argument("--shard", type=int, default=1000, help="crops in each of the pool's folders")
    pool.add_argument("--textures", type=float, default=0.15, help="share of procedural crops")
    pool.add_argument("--workers", type=int, default=2)
    pool.add_argument("--seed", type=int, default=0)
    pool.set_defaults(call=make_pool)
    run = commands.add_parser("train", help="train a candidate, or continue training it")
    run.add_argument("--pool", type=Path, required=True)
    run.add_argument("--net", choices=sorted(CANDIDATES), required=True)
    run.add_argument("--run", type=Path, required=True)
    run.add_argument(
        "--start",
        help="what to begin with: exported weights of the same shape, or for accurate a teacher",
    )
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
    out.add_argument(
        "--form",
        type=Form,
        choices=list(Form),
        default=Form.COMPACT,
        metavar="{" + ",".join(form.value for form in Form) + "}",
        help="the trunk alone, or its heads side by side in the fewest channels",
    )
    out.set_defaults(call=export_weights)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
