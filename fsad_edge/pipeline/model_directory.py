"""The model directory that ``finetune`` writes and ``export`` reads.

part/
  manifest.json          what it is, where it came from, threshold, SHA-256 of the files below
  encoder.onnx           the encoder
  encoder.safetensors    its weights in PyTorch, unless it is a bundled one as it is in the package
  reference.npz          the reference model: projection, memory bank and Gaussian
  learned.npz            the projection that fine-tuning trained, where it was kept
  shots/                 the normal images themselves, so that export can score them
"""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from fsad_edge.calibration.calibrate import CalibrationSettings
from fsad_edge.calibration.selection import Share, Trial
from fsad_edge.errors import InputError, ModelFileError, needs_extra
from fsad_edge.pipeline.fine_tuning import FeatureTraining
from fsad_edge.pipeline.part_encoder import PartEncoder
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.directories import new_directory, restore_directory
from fsad_edge.runtime.documents import (
    Matches,
    Range,
    Sha256,
    read_document,
    shorten,
    write_document,
)
from fsad_edge.runtime.files import (
    exists,
    is_file,
    is_folder,
    read_bytes,
    sha256,
    writing,
)
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.metadata import Positive, ShotFinding, Threshold
from fsad_edge.runtime.model_file import check_arrays
from fsad_edge.runtime.seal import check_seal, sealed
from fsad_edge.scoring.bundled import is_bundled
from fsad_edge.scoring.encoder_file import encoder_file
from fsad_edge.scoring.encoder_file import read_encoder as read_encoder_file
from fsad_edge.scoring.encoder_spec import EncoderSpec
from fsad_edge.synthesis import Shot
from fsad_edge.training.settings import TrainingSettings

if TYPE_CHECKING:
    from fsad_edge.training.encoder import Encoder

MANIFEST = "manifest.json"
ENCODER = "encoder.onnx"
NETWORK = "encoder.safetensors"
REFERENCE = "reference.npz"
LEARNED = "learned.npz"
SHOTS = "shots"

#: What stands for the manifest's own SHA-256 where that is computed.
_NOT_YET = "0" * 64

#: All that a model directory holds.
CONTENTS = frozenset({MANIFEST, ENCODER, NETWORK, REFERENCE, LEARNED, SHOTS})

#: What it held in an earlier version.
EARLIER_CONTENTS = frozenset({"reference.safetensors", "learned.safetensors"})

#: The name of the tensor in ``learned.npz``, float32 ``[D, D]``.
PROJECTION = "projection"

_CURE = "run  fsad-edge finetune  again"


@dataclass(frozen=True)
class TrainingRecord:
    """What fine-tuning did.

    ``drawn_`` figures are AUROCs of drawn defects against normal views, 0 to 1. They compare
    weights with weights and say nothing of real defects.

    Attributes:
        settings: epochs, weights of the losses, learning rate, views, seed.
        device: what torch trained on.
        seconds: how long it took.
        weights_kept: the fine-tuned weights were kept; False also where nothing was trained.
        drawn_pretrained: with the pretrained weights; None where there was no time to look at any.
        drawn_finetuned: with the fine-tuned weights; None where nothing was trained.
        drawn_aligned: with features made steady against light; None where that was off.
        aligned: whether they were made so.
        trials: what was tried before, to choose image size, strides and rotations.
        features: what the training of a projection of the features did; None where there was none.
    """

    settings: TrainingSettings
    device: str
    seconds: Annotated[float, Range(0)]
    weights_kept: bool
    drawn_pretrained: Share | None
    drawn_finetuned: Share | None
    drawn_aligned: Share | None
    aligned: bool
    trials: list[Trial]
    features: FeatureTraining | None = None

    @property
    def epochs_kept(self) -> int:
        """Epochs of training in the weights that were kept."""
        return self.settings.epochs if self.weights_kept else 0

    @property
    def features_kept(self) -> bool:
        """Whether fine-tuned features are used: a projection of them, or the encoder's weights."""
        return self.weights_kept or (self.features is not None and self.features.kept)

    @property
    def drawn_unaligned(self) -> float | None:
        """AUROC of the weights that were kept, without alignment."""
        if self.weights_kept and self.drawn_finetuned is not None:
            return self.drawn_finetuned
        return self.drawn_pretrained


@dataclass(frozen=True)
class ShotFile:
    """A normal image in the model directory: its file name below ``shots/`` and its SHA-256."""

    file: Annotated[str, Range(1, 255), Matches(r"(?!\.{1,2}$)[^/\0]+", "the name of a shot")]
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """What a model directory says of itself.

    Attributes:
        name: name of the model.
        created: UTC time, ISO 8601.
        encoder: how to build the encoder.
        training: what fine-tuning did.
        calibration: settings of the calibration, to repeat it in another precision.
        shots: the normal images.
        left_out: SHA-256 of further ones, near-identical to one of these or copies of it.
        findings: what was found when they were looked at as a set.
        files: SHA-256 of the files of tensors, by file name; and of the manifest itself, with
            zeros in place of this one.
        threshold: the threshold of the fp32 graph.
        map_threshold: what to hold anomaly maps against.
        bank_rows: memory bank rows in use.
        versions: versions of the packages that made it.
        scale: black and white in files of more than 8 bits, as the user or the shots said.
        finished: False where ``finetune`` was stopped in its search: it is the first model.
    """

    name: str
    created: str
    encoder: EncoderSpec
    training: TrainingRecord
    calibration: CalibrationSettings
    shots: Annotated[list[ShotFile], Range(1)]
    left_out: list[Sha256]
    findings: list[ShotFinding]
    files: dict[str, Sha256]
    threshold: Threshold
    map_threshold: Positive
    bank_rows: Annotated[int, Range(1)]
    versions: dict[str, str]
    scale: ImageScale
    finished: bool = True

    def __post_init__(self) -> None:
        """Refuse files that no version writes.

        Raises:
            InputError: a name is not that of a file of a model directory.
        """
        unknown = self.files.keys() - CONTENTS - EARLIER_CONTENTS
        if unknown:
            raise InputError(f"files names {shorten(repr(min(unknown)))}, which no part holds")

    @property
    def sealed(self) -> bool:
        """Whether it can be checked for damage; earlier versions wrote no hash of the manifest."""
        return MANIFEST in self.files

    @property
    def image_size(self) -> int | None:
        """Side of the square input, pixels, or of a square of about as many; None if not known."""
        sides = self.encoder.width, self.encoder.height
        sizes = {one.sides or (one.image_size,) * 2: one.image_size for one in self.training.trials}
        return sizes.get(sides)


def write_model_directory(
    path: Path,
    manifest: Manifest,
    encoder: PartEncoder,
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
            entries.append(ShotFile(name, shot.sha256))
        (folder / ENCODER).write_bytes(sealed(encoder_file(encoder.graph)))
        if encoder.network is not None:
            from fsad_edge.training.encoder import save_encoder

            save_encoder(encoder.network, folder / NETWORK)
        _write_arrays(folder / REFERENCE, reference.as_inputs())
        if learned := manifest.calibration.learned:
            depth = math.isqrt(len(learned) // 4)
            projection = np.frombuffer(learned, np.float32).reshape(depth, depth)
            _write_arrays(folder / LEARNED, {PROJECTION: projection})
        names = sorted(CONTENTS - {MANIFEST, SHOTS})
        present = [folder / name for name in names if (folder / name).exists()]
        files = {file.name: sha256(file.read_bytes()) for file in present}
        files[MANIFEST] = _NOT_YET
        whole = dataclasses.replace(manifest, shots=entries, files=files)
        text = write_document(whole, indent=1) + "\n"
        own = f'"{MANIFEST}": "{{}}"'.format
        text = text.replace(own(_NOT_YET), own(sha256(text.encode())))
        (folder / MANIFEST).write_bytes(text.encode())


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a model directory, and the projection that was trained, if there is one.

    Raises:
        InputError: there is no such folder.
        ModelFileError: not a model directory, newer than this version, or damaged.
    """
    restore_directory(path)
    if not is_folder(path):
        raise InputError(f"{path} is not a model directory: make one with  fsad-edge finetune.")
    file = path / MANIFEST
    if not is_file(file):
        raise ModelFileError(
            f"{path} holds no {MANIFEST}: give the folder that  fsad-edge finetune  wrote."
        )
    data = read_bytes(file, ModelFileError, _CURE)
    manifest = read_document(Manifest, data, str(file), _CURE)
    own = manifest.files.get(MANIFEST, "").encode()
    if own and sha256(data.replace(own, _NOT_YET.encode(), 1)) != own.decode():
        raise ModelFileError(f"{file} is damaged (its SHA-256 differs): {_CURE}.")
    if LEARNED not in manifest.files:
        return manifest  # nothing was kept, or an earlier version wrote it into the manifest
    learned = _read_learned(path, manifest)
    calibration = dataclasses.replace(manifest.calibration, learned=learned)
    return dataclasses.replace(manifest, calibration=calibration)


def _read_document(file: Path) -> Manifest:
    data = read_bytes(file, ModelFileError, _CURE)
    return read_document(Manifest, data, str(file), _CURE)


def _write_arrays(file: Path, arrays: Mapping[str, Float32Array]) -> None:
    np.savez(file, allow_pickle=False, **arrays)


def _read_learned(path: Path, manifest: Manifest) -> bytes:
    """The projection that was trained, float32 ``[D, D]`` in C order.

    Raises:
        ModelFileError: the file is missing, changed or corrupt.
    """
    arrays = _read_arrays(path, LEARNED, manifest)
    if PROJECTION not in arrays:
        raise ModelFileError(f"{path / LEARNED} holds no {PROJECTION}: {_CURE}.")
    return arrays[PROJECTION].tobytes()


def read_encoder(path: Path, manifest: Manifest) -> PartEncoder:
    """The encoder of a model directory.

    Raises:
        ModelFileError: it is missing, changed or corrupt.
    """
    data = _read_checked(path, ENCODER, manifest)
    try:
        graph = read_encoder_file(data)
        has_seal = check_seal(data, ENCODER)
    except ModelFileError as error:
        reason = shorten(str(error).rstrip("."))
        raise ModelFileError(f"{path / ENCODER} is damaged ({reason}): {_CURE}.") from error
    if has_seal and not manifest.sealed:  # it was taken out, or is of another directory
        raise ModelFileError(f"{path / MANIFEST} is damaged (it has no SHA-256): {_CURE}.")
    spec = manifest.encoder
    if NETWORK not in manifest.files and not is_bundled(spec.architecture, graph):
        raise ModelFileError(
            f"{path / ENCODER} is not the encoder {spec.architecture} of this version: {_CURE}."
        )
    if (list(graph.mean), list(graph.std)) != (spec.mean, spec.std):
        raise ModelFileError(f"{path / ENCODER} and {MANIFEST} do not belong together: {_CURE}.")
    return PartEncoder(spec, graph)


def read_network(path: Path, manifest: Manifest) -> Encoder | None:
    """The encoder of a model directory in PyTorch; None for a bundled one with its own weights.

    Raises:
        ModelFileError: its weights are missing, changed or corrupt.
        MissingExtraError: PyTorch or timm is not installed.
    """
    if NETWORK not in manifest.files:
        return None
    weights = _read_checked(path, NETWORK, manifest)
    with needs_extra("train"):
        from fsad_edge.training.encoder import load_encoder
    return load_encoder(manifest.encoder, weights, str(path / NETWORK))


def read_reference(path: Path, manifest: Manifest) -> ReferenceModel:
    """The reference model of a model directory.

    Raises:
        ModelFileError: it is missing, changed or corrupt.
    """
    arrays = _read_arrays(path, REFERENCE, manifest)
    reference = check_arrays(arrays, str(path / REFERENCE), _CURE)
    if reference.rows != manifest.bank_rows:
        raise ModelFileError(f"{path / REFERENCE} and {MANIFEST} do not belong together: {_CURE}.")
    return reference


def _read_arrays(path: Path, name: str, manifest: Manifest) -> dict[str, Float32Array]:
    """The arrays of a file, by name.

    Raises:
        ModelFileError: it is missing, changed or corrupt.
    """
    data = _read_checked(path, name, manifest)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(one.file_size for one in archive.infolist()) > len(data):
                raise ValueError("it holds more than its own size")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # bytes that numpy did not write make it raise errors of any type
        reason = shorten(str(error) or type(error).__name__)
        raise ModelFileError(f"{path / name} is damaged ({reason}): {_CURE}.") from error
    for key, values in arrays.items():
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise ModelFileError(
                f"{path / name} is damaged ({key} holds other things than finite numbers of 32 "
                f"bits): {_CURE}."
            )
    return arrays


def without_hash(path: Path) -> str:
    """The sentence about a directory whose manifest has no SHA-256 of itself."""
    return (
        f"{path / MANIFEST} was written by a version that kept no SHA-256 of it, so it cannot be "
        "checked for damage:  fsad-edge finetune  writes one that can."
    )


def check_directory(path: Path, manifest: Manifest) -> None:
    """Read all that a model directory holds, and compare it with the manifest.

    Raises:
        ModelFileError: something is missing, changed, corrupt or of another directory.
    """
    read_encoder(path, manifest)
    read_reference(path, manifest)
    if NETWORK in manifest.files:
        _read_checked(path, NETWORK, manifest)
    shot_paths(path, manifest)


def shot_paths(path: Path, manifest: Manifest) -> list[Path]:
    """The files of the normal images, checked.

    Raises:
        ModelFileError: one is missing or changed.
    """
    paths = []
    for entry in manifest.shots:
        file = path / SHOTS / Path(entry.file).name
        if not is_file(file) or sha256(read_bytes(file, ModelFileError)) != entry.sha256:
            raise ModelFileError(
                f"{file} is missing or changed since training: put it back, or {_CURE}."
            )
        paths.append(file)
    return paths


def shot_name(path: Path) -> str:
    """The name that a shot of a model directory had before it was copied there.

    Example:
        >>> shot_name(Path("part/shots/003_left.jpg"))
        'left.jpg'
    """
    return path.name.partition("_")[2] or path.name


def is_model_directory(path: Path) -> bool:
    """Whether a folder holds a manifest that this version can read.

    Many tools write a ``manifest.json``; a damaged one of this project is not recognised. Other
    files may be missing or damaged.
    """
    try:
        _read_document(path / MANIFEST)
    except (InputError, ModelFileError):
        return False
    return True


def _has_weights(path: Path) -> bool:
    """Whether a folder with a manifest is a model directory, be it damaged or newer."""
    return (path / ENCODER).is_file() or (path / REFERENCE).is_file()


def find_model_directory(folder: Path) -> Path:
    """The one model directory in a folder.

    Raises:
        InputError: there is none, or more than one.
    """
    found = sorted(file.parent for file in folder.glob(f"*/{MANIFEST}"))
    # One that is damaged or newer is returned, too: whoever reads it tells what to do about that.
    found = [path for path in found if is_model_directory(path) or _has_weights(path)]
    if not found:
        raise InputError(
            "there is no model directory here: run  fsad-edge finetune shots/  first, or name one."
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"there are several model directories here: name one of {names}.")
    return found[0]


def check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a model directory.

    Raises:
        InputError: ``path`` is something else, or holds files that ``finetune`` did not write.
    """
    if not exists(path):
        return
    with writing(path):
        names = {entry.name for entry in path.iterdir()} if is_folder(path) else None
    if names == set():
        return
    if not is_model_directory(path):
        if _has_weights(path):
            raise InputError(
                f"{path} exists, and its {MANIFEST} cannot be read by this version: it is left "
                "alone, move it away or name another output."
            )
        raise InputError(
            f"{path} exists and is not a model directory: it is left alone, name another output."
        )
    others = sorted((names or set()) - CONTENTS - EARLIER_CONTENTS)
    if others:
        raise InputError(
            f"{path} also holds {others[0]}, which finetune did not write and --force would "
            "delete: move it away, or name another output."
        )
    known = {shot.file: shot.sha256 for shot in _read_document(path / MANIFEST).shots}
    for file in sorted((path / SHOTS).glob("*")):
        if file.name not in known or sha256(read_bytes(file)) != known[file.name]:
            raise InputError(
                f"{file} is not a shot that finetune put there, and --force would delete it: move "
                "it away, or name another output."
            )


def _read_checked(path: Path, name: str, manifest: Manifest) -> bytes:
    """The bytes of a file of tensors, which are those that were written.

    Raises:
        ModelFileError: the file is missing or changed.
    """
    file = path / name
    if name not in manifest.files:
        raise ModelFileError(
            f"{path} was made by another version of fsad-edge and holds no {name}: {_CURE}."
        )
    if not is_file(file):
        raise ModelFileError(f"{file} is missing: {_CURE}.")
    data = read_bytes(file, ModelFileError, _CURE)
    if sha256(data) != manifest.files[name]:
        raise ModelFileError(
            f"{file} is not the file that was written (its SHA-256 differs): {_CURE}."
        )
    return data
