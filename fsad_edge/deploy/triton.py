"""An exported file into a model repository of Triton Inference Server: no torch, no onnx.

    REPOSITORY/NAME/config.pbtxt
    REPOSITORY/NAME/warmup/1-golden-0.raw
    REPOSITORY/NAME/1/model.onnx

Triton may be looking at the repository all the while. Every file is whole when it appears, and the
version's folder appears last, under its name: what it needs is there by then. Until then a model
that is new cannot be loaded: Triton says so once, and looks again. (It takes every folder of the
repository for a model, so that there is no place to prepare one in.) Within a model a folder that
does not begin with a digit is no version to it, which is why the unfinished one begins with a dot.

A configuration holds for all versions of a model, thresholds do not: each version has its own under
a key that ends with its number. A configuration that is there is its owner's, who may have tuned
it: a later version adds its parameters at the end and touches nothing else. Where no version is
left, it is written anew, and what it was kept as ``config.pbtxt.before``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.deploy.triton_config import TritonOptions, configuration, parameter, tensors
from fsad_edge.errors import InputError
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.files import new_directory, sha256, write_bytes
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.metadata import NAME, Metadata
from fsad_edge.runtime.model import Model


@dataclass(frozen=True)
class Added:
    """What became of an export.

    Attributes:
        folder: of the version.
        version: its number.
        written: False where the newest version already was this file.
        configured: whether the configuration was written anew.
        warmups: files of golden images, which Triton scores before it takes requests.
    """

    folder: Path
    version: int
    written: bool
    configured: bool
    warmups: int


def add_model(file: Path, repository: Path, name: str, options: TritonOptions) -> Added:
    """Add an ONNX file to a model repository, as the newest version of a model.

    Args:
        file: that ``fsad-edge export`` wrote.
        repository: the folder that Triton is given; made if it is not there.
        name: of the model.
        options: for a model that is not there yet.

    Raises:
        InputError: name, file or folder are unfit, or the model there takes other images.
        ModelFileError: the file is damaged or foreign, or does not score as it must.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot name a model: use letters, digits, '.', '_' and '-', as in  "
            "--name part."
        )
    data = _read(file)
    model = Model.from_bytes(data, str(file), "cpu")
    model.check_golden()
    folder = repository / name
    config = folder / "config.pbtxt"
    versions = _versions(folder)
    newest = versions[-1] if versions else 0
    written = newest == 0 or not _is_same(folder / str(newest), file, data)
    version = newest + 1 if written else newest
    target = folder / str(version)
    if written and target.exists():
        raise InputError(f"{target} is in the way: move it out of the repository.")
    configured = newest == 0 or not config.exists()
    warmups: list[str] = []
    if configured:
        if config.exists():  # but no version: of a stopped export, or tuned by its owner
            write_bytes(config.with_name("config.pbtxt.before"), _read(config))
        warmups = _write_warmups(folder, version, model.metadata)
        text = configuration(name, *tensors(data, str(file)), options, warmups)
        text += parameter("title", model.metadata.name)
        text += parameter("resize", model.metadata.resize)
    else:
        text = _read(config).decode("utf-8", "surrogateescape")
    if written or configured:
        text = _with(text, _parameters(version, model.metadata, sha256(data)))
        write_bytes(config, text.encode("utf-8", "surrogateescape"))
    if written:
        with new_directory(target) as unfinished:
            write_bytes(unfinished / "model.onnx", data)
    return Added(target, version, written, configured, len(warmups))


def _is_same(version: Path, file: Path, data: bytes) -> bool:
    """Whether a version holds these bytes.

    Raises:
        InputError: its clients could not use them.
    """
    older = _read(version / "model.onnx")
    if older == data:
        return True
    if tensors(older, str(version)) != tensors(data, str(file)):
        raise InputError(
            f"{version.parent} is a model of other inputs or outputs, whose clients would break: "
            "add this file under another --name."
        )
    return False


def _write_warmups(folder: Path, version: int, metadata: Metadata) -> list[str]:
    """The golden images as the graph takes them; their names. Never in place of another."""
    _make(folder / "warmup")
    names = []
    for place, golden in enumerate(metadata.golden):
        image = load_resized(golden.image, metadata.height, metadata.width)
        names.append(f"{version}-golden-{place}.raw")
        write_bytes(folder / "warmup" / names[-1], image.tobytes())
    return names


def _parameters(version: int, metadata: Metadata, digest: str) -> dict[str, str]:
    return {
        f"threshold_{version}": repr(metadata.threshold.value),
        f"map_threshold_{version}": repr(metadata.map_threshold),
        f"sha256_{version}": digest,
    }


def _with(text: str, parameters: dict[str, str]) -> str:
    """The text with parameters at its end, and without what a stopped export left of them."""
    begins = tuple(f'parameters {{ key: "{key}"' for key in parameters)
    kept = [f"{line}\n" for line in text.split("\n") if not line.startswith(begins)]
    added = [parameter(key, value) for key, value in parameters.items()]
    return "".join(kept).rstrip("\n") + "\n" + "".join(added)


def _versions(folder: Path) -> list[int]:
    """Versions that hold a file, ascending."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if re.fullmatch(r"[1-9][0-9]{0,17}", path.name) and (path / "model.onnx").is_file()
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}.") from error


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if is_engine(data):
        raise InputError(
            f"{path} keeps its normal parts beside TensorRT's plan, and Triton would have every "
            "client send them: give the ONNX file, with  --device tensorrt  to have Triton build "
            "an engine of it."
        )
    return data
