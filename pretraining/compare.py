"""AUROC of a plain patch bank with the features of the teacher and of distilled encoders.

    python compare.py synthetic NET ... --data DATASETS --out results.json
    python compare.py test      NET ... --data DATASETS --out results.json

A network is a run's folder, a .safetensors file, or teachers as NETWORK:LEVEL+NETWORK:LEVEL.
`synthetic` serves to choose and draws defects on images of train/good that are not among the shots.
`test` serves to report and measures the data sets' own defects; no choice of network, step or
recipe is made by it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from candidates import Cut
from distil import unit
from encoder_net import EdgeEncoder
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pool import list_images, normalise
from safetensors import safe_open
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from student import JoinedStudent, load_student
from teachers import Source
from torch import Tensor, nn

from fsad_edge.training.edge_encoder import AccurateEdgeEncoder

SETS = ("magnetic_tile", "metal_nut", "elpv_poly")
Bytes = NDArray[np.uint8]


def read_image(path: Path, size: int) -> Bytes:
    """Read an image and resize it to a square, uint8 [size, size, 3]."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


class JoinedTeachers(nn.Module):
    """Teachers with one input normalisation and one stride, their maps side by side."""

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Cut(source.network, source.level) for source in sources)

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, 3, H, W], normalised -> float [N, sum of C, h, w]."""
        return torch.cat([net(x) for net in self.nets], 1)


@dataclass(frozen=True)
class Network:
    """A network to compare.

    Attributes:
        net: from normalised images to one map.
        mean: mean of its input, of pixels in 0 to 1.
        std: standard deviation of its input, of pixels in 0 to 1.
        groups: channels of each part that is a unit vector of its own; none for the whole.
    """

    net: nn.Module
    mean: list[float]
    std: list[float]
    groups: Sequence[int] = ()

    def patch_features(self, images: Bytes) -> Tensor:
        """Unit patch features, float [N, h * w, C], of images uint8 [N, H, W, 3]."""
        out = []
        net = self.net.eval().to(memory_format=torch.channels_last)
        with torch.inference_mode():
            for low in range(0, len(images), 16):
                x = normalise(images[low : low + 16], self.mean, self.std)
                features = unit(net(x), self.groups)
                out.append(features.flatten(2).transpose(1, 2).contiguous())
        return torch.cat(out)


def scores(shots: Tensor, queries: Tensor, seed: int) -> NDArray[np.float32]:
    """Mean cosine distance of the three patches farthest from the bank, float [n].

    shots, queries: unit patch features [n, patches, C].
    """
    bank = shots.flatten(0, 1)
    pick = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))[:1500]
    nearest = 1 - (queries.flatten(0, 1) @ bank[pick].T).amax(1)
    worst: NDArray[np.float32] = nearest.view(len(queries), -1).topk(3, 1).values.mean(1).numpy()
    return worst


def auroc(normal: NDArray[np.float32], defective: NDArray[np.float32]) -> float:
    """Area under the ROC curve, with defective images as the positives."""
    labels = np.r_[np.zeros(len(normal)), np.ones(len(defective))]
    return float(roc_auc_score(labels, np.r_[normal, defective]))


def smooth_noise(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Two octaves of smooth noise, float32 [size, size]."""
    total = np.zeros((size, size), np.float32)
    for cells in (8, 32):
        grid = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        total += np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
    return total


def draw_defect(image: Bytes, rng: np.random.Generator, strength: float) -> Bytes:
    """Draw one subtle defect: a displaced piece, a thin scratch, a spot or a textured stain."""
    size = len(image)
    pixels = image.astype(np.float32)
    kind = int(rng.integers(4))
    cx, cy = rng.uniform(0.2 * size, 0.8 * size, 2)
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    tone = rng.choice([-1, 1]) * rng.uniform(12, 45) * strength
    if kind == 0:
        w, h = rng.integers(8, 28, 2)
        x, y = rng.integers(0, size - w), rng.integers(0, size - h)
        left, top = int(np.clip(cx, 0, size - w)), int(np.clip(cy, 0, size - h))
        other = pixels.copy()
        other[top : top + h, left : left + w] = pixels[y : y + h, x : x + w] + tone / 3
        pen.rectangle((left, top, left + w - 1, top + h - 1), fill=int(255 * min(1, strength)))
        mask = mask.filter(ImageFilter.GaussianBlur(1))
    elif kind == 1:
        angle, line = rng.uniform(0, 2 * np.pi), [(cx, cy)]
        for _ in range(int(rng.integers(3, 8))):
            angle += rng.normal(0, 0.35)
            cx, cy = cx + 7 * np.cos(angle), cy + 7 * np.sin(angle)
            line.append((cx, cy))
        pen.line(line, fill=255, width=int(rng.integers(1, 3)))
        mask = mask.filter(ImageFilter.GaussianBlur(0.6))
        other = pixels + 2 * tone
    elif kind == 2:
        w, h = rng.uniform(2, 9, 2)
        pen.ellipse((cx - w, cy - h, cx + w, cy + h), fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(1))
        other = pixels + 1.5 * tone
    else:
        w, h = rng.uniform(8, 30, 2)
        pen.ellipse((cx - w, cy - h, cx + w, cy + h), fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(4))
        other = pixels + 0.6 * tone * smooth_noise(size, rng)[..., None]
    alpha = np.asarray(mask, np.float32)[..., None] / 255
    blended = pixels * (1 - alpha) + other * alpha
    return np.clip(blended, 0, 255).astype(np.uint8)


Encode = Callable[[Bytes], Tensor]


def synthetic(encode: Encode, data: Path, args: argparse.Namespace) -> dict[str, float]:
    """AUROC of drawn defects on held-out images of train/good, for each set, and their mean."""
    result = {}
    for name in SETS:
        good = read_folder(data / name / "train" / "good", args.size)
        rng = np.random.default_rng(7)
        drawn = np.stack([draw_defect(im, rng, args.strength) for im in np.repeat(good, 2, 0)])
        normal, defective = encode(good), encode(drawn)
        values = []
        for seed in args.seeds:
            order = np.random.default_rng(seed).permutation(len(good))
            shots, held = order[: args.shots[0]], order[args.shots[0] :]
            pairs = np.r_[2 * held, 2 * held + 1]
            bank = normal[shots]
            good_scores = scores(bank, normal[held], seed)
            values.append(auroc(good_scores, scores(bank, defective[pairs], seed)))
        result[name] = round(float(np.mean(values)), 4)
    result["mean"] = round(float(np.mean([result[n] for n in SETS])), 4)
    return result


def cifar(encode: Encode, data: Path, args: argparse.Namespace) -> dict[str, float]:
    """Mean AUROC of ten tasks on CIFAR-10, each with 20 images of one class as shots."""
    root = data / "cifar10"
    classes = sorted(p.name for p in (root / "train").iterdir())
    train = {c: encode(read_folder(root / "train" / c, args.size)) for c in classes}
    test = {c: encode(read_folder(root / "test" / c, args.size)[:30]) for c in classes}
    values = []
    for c in classes:
        others = torch.cat([test[k] for k in classes if k != c])
        values.append(auroc(scores(train[c], test[c], 0), scores(train[c], others, 0)))
    return {"mean": round(float(np.mean(values)), 4)}


def read_folder(folder: Path, size: int) -> Bytes:
    """All images of a folder, uint8 [N, size, size, 3]."""
    return np.stack([read_image(p, size) for p in list_images([folder])])


def test(encode: Encode, data: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """AUROC on the test splits for each set and number of shots: mean and std over seeds."""
    result: dict[str, dict[str, float]] = {}
    for name in SETS:
        train = encode(read_folder(data / name / "train" / "good", args.size))
        normal = encode(read_folder(data / name / "test" / "good", args.size))
        folders = sorted(p for p in (data / name / "test").iterdir() if p.name != "good")
        defective = torch.cat([encode(read_folder(p, args.size)) for p in folders])
        result[name] = {}
        for shots in args.shots:
            values = []
            for seed in args.seeds:
                pick = np.random.RandomState(seed).permutation(len(train))[:shots]
                bank = train[pick]
                values.append(auroc(scores(bank, normal, seed), scores(bank, defective, seed)))
            result[name][str(shots)] = round(float(np.mean(values)), 4)
            result[name][f"{shots} std"] = round(float(np.std(values)), 4)
    return result


def load_network(item: str, scaled: bool) -> Network:
    """Load a network.

    Args:
        item: a run's folder, a .safetensors file that `distil.py export` wrote, or teachers
            as NETWORK:LEVEL with + between them.
        scaled: compare a student's heads as they are, not each as a unit vector.
    """
    if (Path(item) / "recipe.json").exists():
        student, recipe = load_student(Path(item))
        channels = [teacher["channels"] for teacher in recipe["teachers"]]
        groups = () if scaled else channels
        return Network(JoinedStudent(student), recipe["mean"], recipe["std"], groups)
    if item.endswith(".safetensors"):
        with safe_open(item, "pt") as file:
            about = file.metadata()
        config = json.loads(about["config"])
        encoder = (
            AccurateEdgeEncoder(**config)
            if about["architecture"] == "AccurateEdgeEncoder"
            else EdgeEncoder(**config, deploy=True)
        )
        encoder.load_state_dict({k: v.float() for k, v in load_file(item).items()})
        return Network(encoder, json.loads(about["mean"]), json.loads(about["std"]))
    teachers = JoinedTeachers([Source.parse(part) for part in item.split("+")])
    cuts = [net for net in teachers.nets if isinstance(net, Cut)]
    if any(net.input_stats() != cuts[0].input_stats() for net in cuts):
        raise SystemExit(f"{item}: the teachers' inputs are normalised in different ways")
    return Network(teachers, *cuts[0].input_stats(), [net.shape()[0] for net in cuts])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="AUROC of a plain patch bank.")
    parser.add_argument("what", choices=("synthetic", "cifar", "test"))
    parser.add_argument("nets", nargs="+", help="run folders, .safetensors files or teachers")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--scaled",
        action="store_true",
        help="compare a student's heads as they are, not each as a unit vector",
    )
    parser.add_argument("--shots", type=int, nargs="+", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--strength", type=float, default=2.0, help="strength of the drawn defects")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.shots = args.shots or ([1, 5, 10] if args.what == "test" else [5])
    torch.set_num_threads(args.threads)
    table = {}
    for item in args.nets:
        encode = load_network(item, args.scaled).patch_features
        began = time.time()
        measure = {"synthetic": synthetic, "cifar": cifar, "test": test}[args.what]
        name = "+".join(Path(part).name for part in item.split("+"))
        table[name] = measure(encode, args.data, args)
        print(f"{name}: {table[name]} ({time.time() - began:.0f} s)", flush=True)
    if args.out:
        known = json.loads(args.out.read_text()) if args.out.exists() else {}
        known.setdefault(args.what, {}).update(table)
        args.out.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
