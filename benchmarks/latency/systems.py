"""What is timed: ours and peers, each as a model alone and from a JPEG's bytes to a decision."""

from __future__ import annotations

import io
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.rendered_parts import render
from fsad_edge.bench.benchmark import scoring_call
from fsad_edge.bench.latency import Call
from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.model import Model

REPOSITORY = Path(__file__).parents[2]

#: What ``benchmarks.peers.latency`` makes.
PEERS = ("patchcore-resnet18", "patchcore-wide_resnet50_2", "efficientad-small")

#: Says of the peers' files in OUT what they are.
PEERS_FILE = "peers.json"

#: Of ImageNet, as PatchCore's pre-processor has them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Of the camera-like picture, in pixels, and its sensor noise in grey levels (sigma).
WIDTH, HEIGHT, NOISE, QUALITY = 1280, 960, 2.0, 90


@dataclass(frozen=True)
class System:
    """One file to time.

    Attributes:
        name: short, unlike any other's.
        about: what it is, in words.
        ours: whether it is this project's.
        pixels: what the model alone is fed.
        alone: the model alone, from pixels at its size to score and map.
        whole: from a JPEG's bytes to a decision, its steps timed.
    """

    name: str
    about: str
    ours: bool
    pixels: npt.NDArray[Any]
    alone: Call
    whole: Call


def camera_jpeg() -> bytes:
    """A rendered part as a camera might give it: 1280x960, sensor noise, JPEG."""
    part = Image.fromarray(render("bracket", (0, 0, 0), size=WIDTH // 2).image)
    large = part.resize((WIDTH, WIDTH), Image.Resampling.BICUBIC)
    top = (WIDTH - HEIGHT) // 2
    pixels = np.asarray(large.crop((0, top, WIDTH, top + HEIGHT)), np.float32)
    noisy = pixels + np.random.default_rng(0).standard_normal(pixels.shape, np.float32) * NOISE
    stream = io.BytesIO()
    Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8)).save(
        stream, "JPEG", quality=QUALITY
    )
    return stream.getvalue()


def ours(file: Path, name: str, jpeg: bytes, threads: int) -> System:
    """A file that ``fsad-edge export`` wrote; raises as :meth:`Model.load` does."""
    model = Model.load(file, "cpu", threads)
    pixels = model.prepare(model.decode(jpeg))[None]

    def alone(repetition: int) -> Mapping[str, float]:
        model.score_prepared(pixels)
        return {}

    told = model.metadata
    about = f"{told.backbone.name}, {told.precision}, {told.width}x{told.height}"
    about += f", bank {told.bank_rows} rows"
    return System(name, about, True, pixels, alone, scoring_call(model, [jpeg], 1))


def peer(file: Path, facts: Mapping[str, Any], jpeg: bytes, threads: int) -> System:
    """A file of :func:`export_peers`, in a plain session.

    Its pixels come by the fastest way that keeps to its pre-processing: Pillow decodes and resizes
    with antialiasing, and one pass of NumPy makes normalised float32 of them.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    size = (facts["size"], facts["size"])
    mean, std = (MEAN, STD) if facts["normalise"] else ((0.0,) * 3, (1.0,) * 3)
    scale = (1 / (255 * np.array(std, np.float32)))[:, None, None].astype(np.float32)
    offset = (np.array(mean) / np.array(std))[:, None, None].astype(np.float32)
    names, threshold = ["score", "anomaly_map"], 0.5

    def prepare(image: Image.Image) -> Float32Array:
        small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        planes = np.ascontiguousarray(small.transpose(2, 0, 1)).astype(np.float32)
        planes *= scale
        planes -= offset
        return planes[None]

    def decode() -> Image.Image:
        with Image.open(io.BytesIO(jpeg)) as image:
            rgb: Image.Image = image.convert("RGB")
        return rgb

    pixels = prepare(decode())

    def alone(repetition: int) -> Mapping[str, float]:
        session.run(names, {"image": pixels})
        return {}

    def whole(repetition: int) -> Mapping[str, float]:
        clock = [time.perf_counter()]
        image = decode()
        clock.append(time.perf_counter())
        planes = prepare(image)
        clock.append(time.perf_counter())
        score, _ = session.run(names, {"image": planes})
        clock.append(time.perf_counter())
        bool(score.flat[0] > threshold)
        clock.append(time.perf_counter())
        steps = ("decode", "resize", "infer", "post")
        return dict(zip(steps, (np.diff(clock) * 1e3).tolist(), strict=True))

    about = f"{facts['about']}, {size[0]}x{size[1]}"
    return System(facts["name"], about, False, pixels, alone, whole)


def export_peers(python: Path, out: Path) -> dict[str, Any]:
    """The peers' ONNX files in ``out``, made once; says what they are.

    Args:
        python: of the peers' environment.
        out: folder; what an earlier run left there is taken as it is.

    Returns:
        ``anomalib`` and ``torch`` (versions) and ``models``, each ``name``, ``about``, ``size``,
        ``normalise``; the file is ``out/NAME.onnx``.

    Raises:
        InputError: the export failed; the message is its own.
    """
    record = out / PEERS_FILE
    if record.is_file():
        known: dict[str, Any] = json.loads(record.read_text())
        if all((out / f"{model['name']}.onnx").is_file() for model in known["models"]):
            return known
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "job.json", Path(folder) / "out.npz"
        asked.write_text(json.dumps({"folder": str(out.absolute()), "seed": 0}))
        # The interpreter's own name is kept: what it links to is not in the environment.
        line = [str(python.absolute()), "-m", "benchmarks.peers.latency", str(asked), str(answer)]
        try:
            ran = subprocess.run(
                line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise InputError(f"{python} cannot be started: {error.strerror or error}.") from error
        if ran.returncode:
            said = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}."]
            raise InputError(f"the peers' export failed: {said[-1]}")
        with np.load(answer) as arrays:
            got = {name: arrays[name].tolist() for name in arrays.files}
    fields = {"names": "name", "about": "about", "sizes": "size", "normalise": "normalise"}
    rows = zip(*(got[name] for name in fields), strict=True)
    models = [dict(zip(fields.values(), row, strict=True)) for row in rows]
    found = {"anomalib": got["anomalib"], "torch": got["torch"], "models": models}
    write_bytes(record, json.dumps(found, indent=1).encode())
    return found
