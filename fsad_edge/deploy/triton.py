"""Add an exported file to a model repository of Triton Inference Server: no torch, no onnx.

    REPOSITORY/NAME/config.pbtxt
    REPOSITORY/NAME/warmup/1-golden-0.raw
    REPOSITORY/NAME/1/model.onnx

Triton may read the repository at any time. Every file is complete when it appears, and the folder
of the version appears last, when the files that it needs are there. Before that Triton cannot load
a new model: it reports that once and tries again. Triton takes every folder of the repository for a
model, so the files cannot be prepared elsewhere in it. Within a model's folder Triton ignores
folders whose names do not begin with a digit: an unfinished version's name begins with a dot.

A configuration is for all versions of a model, but each version has its own threshold. Its key ends
with the version's number. Once written, the configuration belongs to the user, who may have tuned
it: a later version appends its parameters and missing outputs, and changes nothing else. If no
version is left, the configuration is written again and the old one is kept as
``config.pbtxt.before``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.deploy.batch_sizes import check_batch_sizes
from fsad_edge.deploy.triton_config import (
    TritonOptions,
    make_configuration,
    output_line,
    parameter_line,
    read_tensors,
)
from fsad_edge.errors import InputError
from fsad_edge.runtime.directories import new_directory
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.files import (
    is_folder,
    make_folder,
    read_bytes,
    sha256,
    write_bytes,
)
from fsad_edge.runtime.metadata import NAME, Metadata
from fsad_edge.runtime.model import Model


@dataclass(frozen=True)
class AddedVersion:
    """The newest version of a model in a repository.

    Attributes:
        folder: the version's folder.
        version: its number.
        written: False where the newest version already was this file.
        configured: whether the configuration was written.
        warmups: number of golden images that Triton scores before it takes requests.
        unsealed: a sentence for the user where the file cannot be checked for damage, else None.
    """

    folder: Path
    version: int
    written: bool
    configured: bool
    warmups: int
    unsealed: str | None = None


def add_model(
    file: Path, repository: Path, name: str, options: TritonOptions | None = None
) -> AddedVersion:
    """Add an ONNX file to a model repository, as the newest version of a model.

    Args:
        file: the ONNX file that ``fsad-edge export`` wrote.
        repository: the folder that Triton reads; it is made if it does not exist.
        name: the model's name in the repository.
        options: how Triton runs a model that is not in the repository yet.

    Raises:
        InputError: the name, file, folder or an option cannot be used, the model in the repository
            has other inputs or outputs, or the file finds the part in photographs.
        ModelFileError: the file is damaged or no model file, or scores its golden images wrong.
    """
    options = options or TritonOptions()
    check_batch_sizes(options.batch)
    if not NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot name a model: use letters, digits, '.', '_' and '-', as in  "
            "--name part."
        )
    data = _read_model(file)
    model = Model.from_bytes(data, str(file), "cpu")
    if model.metadata.locator is not None:
        raise InputError(
            f"{file} finds the part in each photograph before its graph runs, and Triton runs the "
            "graph alone: serve it with  fsad-edge serve , or make the part again with  fsad-edge "
            "finetune --locate off ."
        )
    model.check_golden()
    folder = repository / name
    config = folder / "config.pbtxt"
    newest = _newest_version(folder)
    written = newest == 0 or not _is_same(folder / str(newest), file, data)
    version = newest + 1 if written else newest
    target = folder / str(version)
    if written and target.exists():
        raise InputError(f"{target} is in the way: move it out of the repository.")
    configured = newest == 0 or not config.exists()
    inputs, outputs = read_tensors(data, str(file))
    warmups: list[str] = []
    if configured:
        if config.exists():  # without a version: an export was stopped, or the user tuned it
            write_bytes(config.with_name("config.pbtxt.before"), read_bytes(config))
        warmups = _write_warmups(folder, version, model.metadata)
        text = make_configuration(name, inputs, outputs, options, warmups)
        text += parameter_line("title", model.metadata.name)
        text += parameter_line("resize", model.metadata.resize)
    else:
        text = read_bytes(config).decode("utf-8", "surrogateescape")
    if written or configured:
        text += "".join(
            f"\n{output_line(one)}" for one in outputs if f'name: "{one.name}"' not in text
        )
        text = _replace_parameters(text, _parameters(version, model.metadata, sha256(data)))
        write_bytes(config, text.encode("utf-8", "surrogateescape"))
    if written:
        with new_directory(target) as unfinished:
            write_bytes(unfinished / "model.onnx", data)
    return AddedVersion(target, version, written, configured, len(warmups), model.unsealed)


def _is_same(version: Path, file: Path, data: bytes) -> bool:
    """Whether a version holds these bytes.

    Raises:
        InputError: the version's clients could not use them.
    """
    older = read_bytes(version / "model.onnx")
    if older == data:
        return True
    if read_tensors(older, str(version)) != read_tensors(data, str(file)):
        raise InputError(
            f"{version.parent} is a model with other inputs or outputs, and its clients would "
            "fail: add this file under another --name."
        )
    return False


def _write_warmups(folder: Path, version: int, metadata: Metadata) -> list[str]:
    """Write the golden images as the graph takes them; no file is replaced. Returns their names."""
    make_folder(folder / "warmup")
    names = []
    for place, golden in enumerate(metadata.golden):
        image = metadata.preparation.load(golden.image).pixels
        names.append(f"{version}-golden-{place}.raw")
        write_bytes(folder / "warmup" / names[-1], image.tobytes())
    return names


def _parameters(version: int, metadata: Metadata, digest: str) -> dict[str, str]:
    return {
        f"threshold_{version}": repr(metadata.threshold.value),
        f"map_threshold_{version}": repr(metadata.map_threshold),
        f"judgement_{version}": json.dumps(to_document(metadata.judgement)),
        f"sha256_{version}": digest,
    }


def _replace_parameters(text: str, parameters: dict[str, str]) -> str:
    """Append parameters, and remove the lines with their keys that a stopped export left."""
    starts = tuple(f'parameters {{ key: "{key}"' for key in parameters)
    kept = [f"{line}\n" for line in text.split("\n") if not line.startswith(starts)]
    added = [parameter_line(key, value) for key, value in parameters.items()]
    return "".join(kept).rstrip("\n") + "\n" + "".join(added)


def _newest_version(folder: Path) -> int:
    """The highest version that holds a file; 0 where there is none."""
    if not is_folder(folder):
        return 0
    versions = (
        int(path.name)
        for path in folder.iterdir()
        if re.fullmatch(r"[1-9][0-9]{0,17}", path.name) and (path / "model.onnx").is_file()
    )
    return max(versions, default=0)


def _read_model(file: Path) -> bytes:
    if is_folder(file):
        raise InputError(
            f"{file} is a model directory: run  fsad-edge export {file}  first, and give the ONNX "
            "file that it writes."
        )
    data = read_bytes(file)
    if is_engine(data):
        raise InputError(
            f"{file} stores its memory bank outside TensorRT's plan, and every client of Triton "
            "would have to send it: give the ONNX file and  --device tensorrt , and Triton builds "
            "an engine of it."
        )
    return data
