"""What is timed: our files and peers, as a model alone and from JPEG bytes to a decision."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.peers.client import run_job
from benchmarks.rendered_parts import render
from fsad_edge.bench.benchmark import scoring_call
from fsad_edge.bench.latency import Call
from fsad_edge.errors import InputError
from fsad_edge.options import Provider
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.backends.providers import PROVIDERS
from fsad_edge.runtime.documents import read_document, write_document
from fsad_edge.runtime.files import read_bytes, write_bytes
from fsad_edge.runtime.model import Model

#: The models that ``benchmarks.peers.latency`` exports.
PEERS = ("patchcore-resnet18", "patchcore-wide_resnet50_2", "efficientad-small")

#: Describes the peers' files in OUT.
PEERS_FILE = "peers.json"

#: ImageNet's mean and standard deviation, which PatchCore's pre-processor uses.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Size of the rendered image in pixels, its sensor noise in grey levels (sigma), JPEG quality.
WIDTH, HEIGHT, NOISE, QUALITY = 1280, 960, 2.0, 90


@dataclass(frozen=True)
class System:
    """One file to time.

    Attributes:
        name: a short name that no other system has.
        about: what it is, in words.
        ours: whether it is this project's.
        pixels: the input of the model alone.
        alone: times the model alone, from pixels at its size to score and map.
        whole: times the steps from JPEG bytes to a decision.
    """

    name: str
    about: str
    ours: bool
    pixels: npt.NDArray[Any]
    alone: Call
    whole: Call


@dataclass(frozen=True)
class PeerModel:
    """One ONNX file of a peer.

    Attributes:
        name: name of the model; the file is ``NAME.onnx``.
        about: what it is, in words.
        size: side of the input in pixels.
        normalise: whether the pixels must be normalised before.
    """

    name: str
    about: str
    size: int
    normalise: bool


@dataclass(frozen=True)
class PeerFiles:
    """The ONNX files of the peers and the versions that made them."""

    anomalib: str
    torch: str
    models: list[PeerModel]


def camera_jpeg() -> bytes:
    """A rendered part as from a camera: 1280x960 pixels with sensor noise, as JPEG."""
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


def load_own(file: Path, name: str, jpeg: bytes, threads: int) -> System:
    """Load a file that ``fsad-edge export`` wrote; raises as :meth:`Model.load` does."""
    model = Model.load(file, "cpu", threads)
    pixels = model.prepare(model.decode(jpeg))[None]

    def alone(repetition: int) -> Mapping[str, float]:
        model.score_prepared(pixels)
        return {}

    metadata = model.metadata
    about = f"{metadata.backbone.name}, {metadata.precision}, {metadata.width}x{metadata.height}"
    about += f", bank {metadata.bank_rows} rows"
    return System(name, about, True, pixels, alone, scoring_call(model, [jpeg], 1))


def load_peer(
    file: Path,
    peer: PeerModel,
    jpeg: bytes,
    threads: int,
    provider: Provider = Provider.CPU,
    options_of_provider: Mapping[str, str] | None = None,
) -> System:
    """Load a file of :func:`export_peers` in a plain session.

    Its pixels are prepared in the fastest way that keeps to its pre-processing: Pillow decodes and
    resizes with antialiasing, and NumPy converts to normalised float32 in one pass.

    Raises:
        InputError: the provider is not available.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = [(PROVIDERS[provider], dict(options_of_provider or {}))]
    session = runtime.InferenceSession(str(file), options, providers=providers)
    if session.get_providers()[0] != PROVIDERS[provider]:  # it falls back to the CPU silently
        raise InputError(f"{peer.name} does not run on {provider} here.")
    size = (peer.size, peer.size)
    mean, std = (MEAN, STD) if peer.normalise else ((0.0,) * 3, (1.0,) * 3)
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

    about = f"{peer.about}, {peer.size}x{peer.size}"
    return System(peer.name, about, False, pixels, alone, whole)


def export_peers(python: Path, out: Path) -> PeerFiles:
    """Export the peers' ONNX files into ``out``, unless an earlier run did.

    Args:
        python: interpreter of the peers' environment.
        out: folder for the files.

    Raises:
        InputError: the export failed; it says why.
        ModelFileError: the description that an earlier run left is damaged.
    """
    record = out / PEERS_FILE
    if record.is_file():
        known = read_document(PeerFiles, read_bytes(record), str(record), "remove it")
        if all((out / f"{model.name}.onnx").is_file() for model in known.models):
            return known
    job = {"folder": str(out.absolute()), "seed": 0}
    arrays = run_job(python, "benchmarks.peers.latency", job)
    columns = (arrays[key].tolist() for key in ("names", "about", "sizes", "normalise"))
    models = [PeerModel(*row) for row in zip(*columns, strict=True)]
    files = PeerFiles(str(arrays["anomalib"]), str(arrays["torch"]), models)
    write_bytes(record, write_document(files, indent=1).encode())
    return files
