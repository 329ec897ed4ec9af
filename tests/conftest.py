"""What several test files share: tiny encoders with random weights, a small set of parts, and the
model that the library makes of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import settings
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import fsad_edge
from fsad_edge import ExportResult, FinetuneOptions, FinetuneResult, Model
from fsad_edge.cli import main
from fsad_edge.graph.encoder_graph import trace
from fsad_edge.options import BundledEncoder
from fsad_edge.runtime.files import sha256, write_bytes
from fsad_edge.runtime.judgement import unlikeness
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.scoring.encoder_graph import EncoderGraph
from fsad_edge.synthesis import other_pictures
from fsad_edge.training.encoder import Encoder

# A slow machine is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
SIZE = 64
#: Rows of the job's memory bank: with room to learn many images.
BANK_SIZE = 2000
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
#: timm's own test networks: a convolutional one that takes a padding, and a ViT.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": ("test_efficientnet", {"pad_type": "same"}),
    "vit": ("test_vit", {}),
}


@pytest.fixture(scope="session", autouse=True)
def trace_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trace each encoder that is not bundled once: it takes seconds.

    Processes that run tests at the same time share what they have traced.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "traced"
    folder.mkdir(exist_ok=True)

    def traced(encoder: Encoder, height: int, width: int) -> EncoderGraph:
        weights = sha256(safetensors.torch.save(encoder.network.state_dict()))
        spec = dataclasses.replace(encoder.spec, source="", sha256="")
        file = folder / sha256(repr((spec, weights, height, width)).encode())
        if not file.exists():
            write_bytes(file, pickle.dumps(trace(encoder, height, width)))
        found: EncoderGraph = pickle.loads(file.read_bytes())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsad_edge.graph.encoder_graph.trace", traced)
        yield


#: Where the tests' processes keep their state, removed at the end.
STATE = tempfile.TemporaryDirectory()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each test a state of its own: it must not be told where another's model has learned."""
    os.environ["XDG_STATE_HOME"] = str(Path(STATE.name) / sha256(item.nodeid.encode()))


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder with no other test's folders beside it, in which the same model may have learned."""
    own = tmp_path / "own"
    own.mkdir()
    return own


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Outcome]


def run_cli(*arguments: str | Path | float) -> Outcome:
    """Run ``fsad-edge`` in this process, by its entry point; a traceback fails the test."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["fsad-edge", *map(str, arguments)]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    return Outcome(int(code), out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli() -> Cli:
    return run_cli


def photograph(rng: np.random.Generator, side: int = 96, defect: bool = False) -> Image.Image:
    """A brushed plate with a hole in it; a defect is a bright bar across."""
    grain = rng.normal(0, 4, (side, 1, 1)) + rng.normal(0, 3, (side, side, 1))
    pixels = np.array([118.0, 122.0, 130.0]) + rng.normal(0, 3) + grain
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = side / 2 + rng.normal(0, 1, 2)
    draw.ellipse((x - side / 6, y - side / 6, x + side / 6, y + side / 6), (40, 42, 46))
    if defect:
        top = rng.uniform(0.1, 0.8) * side
        draw.line((side * 0.1, top, side * 0.9, top + side * 0.1), (235, 60, 40), side // 12)
    return image


def save_backbone(folder: Path, kind: str) -> Path:
    """A folder in timm's layout with random weights, to be given as ``local-dir:``."""
    architecture, arguments = ARCHITECTURES[kind]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = timm.create_model(architecture, pretrained=False, **arguments)
    known = cast("dict[str, Any]", network.pretrained_cfg)
    config = {
        "architecture": architecture,
        "num_classes": known["num_classes"],
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "random",
            "input_size": [3, 160, 160],
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "mean": MEAN,
            "std": STD,
            "num_classes": known["num_classes"],
            "first_conv": known["first_conv"],
            "classifier": known["classifier"],
            "fixed_input_size": bool(known.get("fixed_input_size")),
        },
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """``--backbone`` values by kind."""
    folder = tmp_path_factory.mktemp("backbones")
    return {kind: f"local-dir:{save_backbone(folder / kind, kind)}" for kind in ARCHITECTURES}


@dataclass(frozen=True)
class Job:
    """The files of the main job, and what finetune and export returned."""

    shots: Path
    dataset: Path
    part: Path
    file: Path
    finetune: FinetuneResult
    export: ExportResult

    @property
    def scratched(self) -> Path:
        """Two images with a defect."""
        return self.dataset / "test/scratch"


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory, backbones: dict[str, str]) -> Job:
    """Five shots, fine-tuned for an epoch and exported; read it, do not change it."""
    # A name that is hard on whoever prints it: markup, emoji codes, spaces, no ASCII.
    folder = tmp_path_factory.mktemp("job") / "teil [/b] :warning: ä"
    rng = np.random.default_rng(0)
    counts = {"train/good": 5, "test/good": 3, "test/scratch": 2, "test/[red]dent": 2}
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            defect = not name.endswith("good")
            photograph(rng, defect=defect).save(folder / name / f"{index}.png")
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).rectangle((8, 8, 88, 60), 255)
    (folder / "ground_truth/scratch").mkdir(parents=True)
    for index in range(2):
        mask.save(folder / f"ground_truth/scratch/{index}_mask.png")
    shots, part = folder / "train/good", folder / "part"
    options = FinetuneOptions(
        backbone=backbones["conv"], image_size=SIZE, epochs=1, bank_size=BANK_SIZE
    )
    trained = fsad_edge.finetune(shots, part, options)
    exported = fsad_edge.export(trained)
    # To a network of random weights, a plate with a defect is something else.
    set_bound(exported.path, None)
    return Job(shots, folder, part, exported.path, trained, exported)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of nothing that the model knows."""
    path = tmp_path_factory.mktemp("foreign") / "texture.png"
    Image.fromarray(other_pictures(96, 96)[8]).save(path)
    return path


@pytest.fixture(scope="session")
def careful_file(tmp_path_factory: pytest.TempPathFactory, job: Job, foreign: Path) -> Path:
    """The job's file, which judges its parts, good and scratched, and not the foreign image."""
    with Model.load(job.file) as model:
        offset = model.metadata.judgement.offset

        def measure(image: Path) -> float:
            result = model.score(image)
            return unlikeness(result.image_score, result.patch_map, offset)

        images = [*job.shots.iterdir(), *job.scratched.iterdir()]
        known, strange = max(map(measure, images)), measure(foreign)
    assert known < strange
    path = Path(shutil.copy(job.file, tmp_path_factory.mktemp("careful") / "part.onnx"))
    set_bound(path, (known + strange) / 2)
    return path


def set_bound(file: Path, bound: float | None) -> None:
    """Change how unlike the shots an image may be that a model file judges."""
    data = file.read_bytes()
    metadata = Metadata.from_json(read_metadata(data)[KEY], str(file))
    judgement = dataclasses.replace(metadata.judgement, unlikeness=bound)
    changed = dataclasses.replace(metadata, judgement=judgement)
    file.write_bytes(replace(data, {}, {KEY: changed.to_json()}))


@pytest.fixture(scope="session")
def bundled_part(tmp_path_factory: pytest.TempPathFactory, job: Job) -> FinetuneResult:
    """The job's shots with the fast encoder, which has learned what photographs look like."""
    folder = tmp_path_factory.mktemp("bundled")
    options = FinetuneOptions(encoder=BundledEncoder.FAST, epochs=0, image_size=96, rotations=1)
    return fsad_edge.finetune(job.shots, folder / "part", options)


@pytest.fixture(scope="session")
def bundled_file(bundled_part: FinetuneResult) -> Path:
    """The same, exported."""
    return fsad_edge.export(bundled_part).path


@pytest.fixture(scope="session")
def vit_part(
    tmp_path_factory: pytest.TempPathFactory, job: Job, backbones: dict[str, str]
) -> FinetuneResult:
    """The job's shots with a small vision transformer."""
    folder = tmp_path_factory.mktemp("vit")
    options = FinetuneOptions(backbone=backbones["vit"], image_size=SIZE, rotations=1, epochs=0)
    return fsad_edge.finetune(job.shots, folder / "vit", options)


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint8]:
    """One decoded photograph, uint8 ``[96, 96, 3]``."""
    return np.asarray(photograph(np.random.default_rng(3)))
