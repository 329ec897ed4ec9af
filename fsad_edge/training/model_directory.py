"""The model directory that ``finetune`` writes and ``export`` reads.

part/
  manifest.json         what it is, where it came from, threshold, SHA-256 of the files below
  encoder.safetensors   weights of the cut encoder
  reference.safetensors   projection, memory bank and Gaussian
  shots/                the normal images themselves, so that export can score them
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.files import new_directory, sha256
from fsad_edge.runtime.metadata import SCHEMA, Threshold, check_schema
from fsad_edge.synthesis import Shot, Views
from fsad_edge.training.encoder import Encoder, EncoderSpec, load_encoder, save_encoder

MANIFEST = "manifest.json"
ENCODER = "encoder.safetensors"
REFERENCE = "reference.safetensors"
SHOTS = "shots"


@dataclass(frozen=True)
class Manifest:
    """What a model directory says of itself.

    Attributes:
        name: of the model.
        created: UTC time, ISO 8601.
        encoder: how to build the encoder.
        training: what fine-tuning did: epochs, weights of the losses, seconds.
        calibration: settings of the calibration, to do it again in another precision.
        shots: ``file`` and ``sha256`` of each normal image.
        files: SHA-256 of the weights and of the bank, by file name.
        threshold: as the fp32 graph gave it.
        map_threshold: what to hold anomaly maps against.
        bank_rows: memory bank rows in use.
        versions: of the packages that made it.
    """

    name: str
    created: str
    encoder: EncoderSpec
    training: dict[str, Any]
    calibration: dict[str, Any]
    shots: list[dict[str, str]]
    files: dict[str, str]
    threshold: Threshold
    map_threshold: float
    bank_rows: int
    versions: dict[str, str]


def write_model_directory(
    path: Path,
    manifest: Manifest,
    encoder: Encoder,
    reference: ReferenceModel,
    shots: Sequence[Shot],
) -> None:
    """Write a model directory whole or not at all; ``shots`` and ``files`` are filled in here.

    Raises:
        InputError: it cannot be written.
    """
    with new_directory(path) as folder:
        (folder / SHOTS).mkdir()
        entries = []
        for index, shot in enumerate(shots):
            name = f"{index:03d}_{shot.path.name}"
            shutil.copyfile(shot.path, folder / SHOTS / name)
            entries.append({"file": name, "sha256": shot.sha256})
        save_encoder(encoder, folder / ENCODER)
        (folder / REFERENCE).write_bytes(safetensors.numpy.save(reference.as_inputs()))
        files = {name: sha256((folder / name).read_bytes()) for name in (ENCODER, REFERENCE)}
        whole = dataclasses.replace(manifest, shots=entries, files=files)
        document = {"schema": SCHEMA, **dataclasses.asdict(whole)}
        (folder / MANIFEST).write_text(json.dumps(document, indent=1) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a model directory.

    Raises:
        InputError: there is no such folder.
        ModelFileError: not a model directory, newer than this version, or damaged.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a model directory: make one with  fsad-edge finetune.")
    file = path / MANIFEST
    if not file.is_file():
        raise ModelFileError(
            f"{path} holds no {MANIFEST}: give the folder that  fsad-edge finetune  wrote."
        )
    try:
        document = json.loads(file.read_text())
        check_schema(document, str(path))
        document.pop("schema")
        encoder = EncoderSpec(**document.pop("encoder"))
        threshold = Threshold(**document.pop("threshold"))
        manifest = Manifest(encoder=encoder, threshold=threshold, **document)
        _check(manifest)
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ModelFileError(
            f"{file} is damaged ({error!r}): run  fsad-edge finetune  again."
        ) from error


def read_encoder(path: Path, manifest: Manifest) -> Encoder:
    """The fine-tuned encoder of a model directory.

    Raises:
        ModelFileError: its weights are missing, changed or corrupt.
    """
    _check_hash(path, ENCODER, manifest)
    return load_encoder(manifest.encoder, path / ENCODER)


def read_reference(path: Path, manifest: Manifest) -> ReferenceModel:
    """The projection, the memory bank and the Gaussian of a model directory.

    Raises:
        ModelFileError: they are missing, changed or corrupt.
    """
    _check_hash(path, REFERENCE, manifest)
    try:
        return ReferenceModel(**safetensors.numpy.load((path / REFERENCE).read_bytes()))
    except (OSError, TypeError, SafetensorError) as error:
        raise ModelFileError(
            f"{path / REFERENCE} is damaged ({error}): run  fsad-edge finetune  again."
        ) from error


def shot_paths(path: Path, manifest: Manifest) -> list[Path]:
    """The files of the normal images, checked.

    Raises:
        ModelFileError: one is missing or is not the one it was.
    """
    paths = []
    for entry in manifest.shots:
        file = path / SHOTS / Path(entry["file"]).name
        if not file.is_file() or sha256(file.read_bytes()) != entry["sha256"]:
            raise ModelFileError(
                f"{file} is missing or changed since training: put it back, or run  "
                "fsad-edge finetune  again."
            )
        paths.append(file)
    return paths


def views_from_manifest(manifest: Manifest) -> Views:
    """How far augmented views may differ, as the user chose."""
    return Views(**manifest.calibration["views"])


def _check(manifest: Manifest) -> None:
    """Raise KeyError, TypeError or ValueError where a value would fail its user later on."""
    encoder, kept = manifest.encoder, manifest.calibration
    views_from_manifest(manifest)
    for value, kind in (
        *((text, str) for text in (manifest.name, manifest.created)),
        *((text, str) for text in (manifest.threshold.method, manifest.threshold.reliability)),
        *((text, str) for text in (encoder.architecture, encoder.source, encoder.sha256)),
        *((number, int) for number in (encoder.height, encoder.width, manifest.bank_rows)),
        *((kept[key], int) for key in ("bank_size", "bank_rotations", "gaussian_views", "seed")),
        *((entry[key], str) for entry in manifest.shots for key in ("file", "sha256")),
        (kept["align"], bool),
        (manifest.training["epochs"], int),
        (manifest.training["synthetic_auroc"]["kept"], bool),
        (manifest.files, dict),
        (manifest.versions, dict),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{value!r} is not of type {kind.__name__}")
    if not (
        manifest.shots
        and min(encoder.height, encoder.width) >= 16
        and max(encoder.height, encoder.width) <= 4096
        and manifest.threshold.value > 0
        and 0.001 <= manifest.threshold.prior_std <= 10
        and 0 < kept["false_alarm_rate"] < 1
        and kept["score"] in {"patch", "image"}
    ):
        raise ValueError("a value is out of range")


def _check_hash(path: Path, name: str, manifest: Manifest) -> None:
    file = path / name
    if not file.is_file():
        raise ModelFileError(f"{file} is missing: run  fsad-edge finetune  again.")
    if sha256(file.read_bytes()) != manifest.files.get(name):
        raise ModelFileError(
            f"{file} is not the file that was written (its SHA-256 differs): "
            "run  fsad-edge finetune  again."
        )
