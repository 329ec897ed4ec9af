"""What is attacked: a small model, its directory, and photographs that tell whether it changed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import fsad_edge
from fsad_edge import FinetuneOptions, Model
from fsad_edge.options import BundledEncoder
from tests.fuzz.children import in_child

#: Side of the model's input in pixels.
SIDE = 96


@dataclass(frozen=True)
class Subject:
    """Files to attack, none of which an attack may change.

    Attributes:
        folder: all of them.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """The model file."""
        return self.folder / "part.onnx"

    @property
    def part(self) -> Path:
        """The model directory."""
        return self.folder / "part"

    @property
    def shots(self) -> Path:
        """The good photographs that it was made from."""
        return self.folder / "shots"

    @property
    def probes(self) -> list[Path]:
        """Photographs to score: good ones, one near the threshold, and bad ones."""
        return sorted((self.folder / "probes").iterdir())

    @property
    def work(self) -> Path:
        """The empty folder for what attacks write."""
        return self.folder / "work"


def photograph(seed: int, side: int = SIDE, defect: float = 0.0) -> Image.Image:
    """A brushed plate with a hole in it; a defect from 0 to 1 is a bar across, faint or bright."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 4, (side, 1, 1)) + rng.normal(0, 3, (side, side, 1))
    pixels = np.array([118.0, 122.0, 130.0]) + rng.normal(0, 3) + grain
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = side / 2 + rng.normal(0, 1, 2)
    draw.ellipse((x - side / 6, y - side / 6, x + side / 6, y + side / 6), (40, 42, 46))
    if defect:
        marked = image.copy()
        top = rng.uniform(0.1, 0.8) * side
        line = (side * 0.1, top, side * 0.9, top + side * 0.1)
        ImageDraw.Draw(marked).line(line, (235, 60, 40), side // 12)
        image = Image.blend(image, marked, defect)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_subject(folder: Path) -> Subject:
    """Make the files, or take those that are there."""
    subject = Subject(folder)
    if not subject.file.exists():
        (folder / "work").mkdir(parents=True, exist_ok=True)
        for name in ("shots", "probes"):
            (folder / name).mkdir(exist_ok=True)
        for number in range(5):
            photograph(number).save(subject.shots / f"{number}.png")
        for number, defect in enumerate((0.0, 0.1, 0.3, 1.0)):
            photograph(50 + number, defect=defect).save(folder / f"probes/{number}.png")
        ended = in_child(lambda: _make(subject), patience=300)
        if ended.fault is not None:
            raise RuntimeError(ended.fault.detail)
    return subject


def _make(subject: Subject) -> None:
    options = FinetuneOptions(
        encoder=BundledEncoder.FAST, epochs=0, image_size=SIDE, rotations=1, force=True
    )
    made = fsad_edge.finetune(subject.shots, subject.part, options)
    fsad_edge.export(made)


#: What a model says of the probes, and of itself: comparable and picklable.
Behaviour = dict[str, Any]


def behaviour(file: Path, probes: list[Path]) -> Behaviour:
    """Everything about a model file that could differ: scores, maps, decisions, metadata."""
    with Model.load(file, "cpu", threads=1) as model:
        return behaviour_of(model, probes)


def behaviour_of(model: Model, probes: list[Path]) -> Behaviour:
    """The same of a loaded model."""
    results = [model.score(probe) for probe in probes]
    return {
        "threshold": model.threshold,
        "metadata": sha256(repr(model.metadata).encode()).hexdigest(),
        "scores": [one.score for one in results],
        "image scores": [one.image_score for one in results],
        "decisions": [str(one.decision) for one in results],
        "maps": [sha256(one.anomaly_map.tobytes()).hexdigest() for one in results],
    }


def differences(before: Behaviour, after: Behaviour) -> str:
    """What differs, in words; empty where nothing does."""
    names = [name for name in before if before[name] != after[name]]
    shown = [
        f"{name} {before[name]} -> {after[name]}"
        for name in names
        if name not in {"metadata", "maps", "image scores"}
    ]
    return "; ".join([", ".join(names), *shown]) if names else ""


def is_sane(found: Behaviour) -> str:
    """Why what a model says makes no sense, in words; empty where it does."""
    numbers = [found["threshold"], *found["scores"], *found["image scores"]]
    if not all(np.isfinite(numbers)):
        return f"numbers that are not finite: {numbers}"
    if found["threshold"] <= 0:
        return f"the threshold is {found['threshold']}"
    return ""
