"""The model files of a service and the names that they are served under."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fsad_edge.errors import FsadEdgeError, InputError, ModelFileError
from fsad_edge.options import Provider
from fsad_edge.runtime.engine_file import is_engine, read_engine
from fsad_edge.runtime.files import exists, is_folder, read_bytes, sha256
from fsad_edge.runtime.metadata import NAME

log = logging.getLogger("fsad_edge.serve")

#: Suffixes of model files; a later one replaces an earlier one of the same name in a folder.
SUFFIXES = (".onnx", ".engine")


@dataclass(frozen=True)
class ModelFile:
    """A model file and its name.

    Attributes:
        name: the name that it is served under.
        path: the file.
        found: it was found in a folder, so that a fault in it leaves the others in service.
        fault: why it cannot be served under its name; None where it can.
        onnx: the ONNX file of the same name beside an engine that was found in a folder.
    """

    name: str
    path: Path
    found: bool = False
    fault: str | None = None
    onnx: Path | None = None


def find_model_files(
    models: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    provider: Provider = Provider.AUTO,
) -> list[ModelFile]:
    """Model files with the names that they are served under.

    Args:
        models: one or several of ``NAME=FILE``; ``FILE``, which is served under its own name
            without the suffix; and ``FOLDER``, which stands for the model files in it. What exists
            is a path, also with an ``=`` in it.
        provider: what runs the models. Where it runs no engines, those are left out of a folder
            that have an ONNX file beside them.

    Raises:
        InputError: a name is unfit or given twice, a file is given under two names, or a folder
            holds no model file or cannot be read. In a folder an unfit name is a fault of that
            file, and so is a link to a file that was named before.
    """
    given = [models] if isinstance(models, str | os.PathLike) else models
    files: dict[str, ModelFile] = {}
    for file in (one for text in given for one in _named_files(os.fspath(text), provider)):
        if file.fault is not None and not file.found:
            raise InputError(file.fault)
        if file.name in files:
            if _place(file.path) == _place(files[file.name].path) is not None:
                raise InputError(_same_file(files[file.name], file))
            raise InputError(
                f"two models are called {file.name}: rename one, as in  other={file.path}."
            )
        files[file.name] = file
    _refuse_same_files(files)
    if not files:
        raise InputError("no model is named: give a file that  fsad-edge export  wrote.")
    return list(files.values())


def _refuse_same_files(files: dict[str, ModelFile]) -> None:
    """Refuse a file under two names; in a folder the link to a file is refused alone.

    Raises:
        InputError: one of the names is not from a folder.
    """
    known: dict[tuple[int, int], ModelFile] = {}
    for file in sorted(files.values(), key=lambda file: (file.found, file.path.is_symlink())):
        if (place := _place(file.path)) is None:
            continue  # whoever loads it says so
        other = known.setdefault(place, file)
        if other is not file and not file.found:
            raise InputError(_same_file(other, file))
        if other is not file:
            files[file.name] = replace(file, fault=_same_file(other, file))


def _same_file(one: ModelFile, other: ModelFile) -> str:
    paths = {os.fsencode(file.path).decode("utf-8", "backslashreplace") for file in (one, other)}
    what = "is given twice" if len(paths) == 1 else "are the same file"
    return (
        f"{' and '.join(sorted(paths))} {what}, so that what it is taught under one name would "
        "change the other: name it once, or copy it into a folder of its own."
    )


def _place(path: Path) -> tuple[int, int] | None:
    """By which a file is known under each of its names; None where it cannot be reached."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def describe_fault(path: Path, error: Exception) -> str:
    """Why a file cannot be loaded, as a sentence."""
    if isinstance(error, FsadEdgeError):
        return str(error)
    return f"{path} cannot be loaded ({type(error).__name__}: {error})."


def check_belongs(engine: Path, onnx: Path) -> None:
    """Refuse an engine in the place of an ONNX file that it was not built from.

    Raises:
        ModelFileError: it was built from another file.
        FsadEdgeError: one of them cannot be read.
    """
    data = read_bytes(engine)
    if is_engine(data):
        header = read_engine(data, str(engine)).header
        if header.source_sha256 != sha256(read_bytes(onnx)):
            raise ModelFileError(
                f"{engine} was built from another file than {onnx}, whose place it would take: "
                f"run  fsad-edge build {onnx} --force  or rename one of the two."
            )


def refuse_faults(faults: dict[str, str], served: int) -> None:
    """Refuse to start without some of the files in a folder.

    Raises:
        ModelFileError: its sentence names each file that has a fault.
    """
    what = f"{len(faults)} of {len(faults) + served} model files cannot be served"
    raise ModelFileError(f"{what}: {' '.join(faults.values())}")


def _named_files(text: str, provider: Provider) -> Iterator[ModelFile]:
    """The models that one argument names."""
    name, equals, rest = text.partition("=")
    if equals and not exists(Path(text)):
        yield _make_file(name, Path(rest))
    elif is_folder(Path(text)):
        yield from _folder_files(Path(text), provider)
    else:
        yield _make_file(Path(text).stem, Path(text))


def _folder_files(folder: Path, provider: Provider) -> list[ModelFile]:
    """The models in a folder. An engine goes before the ONNX file of its name."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be read ({error.strerror}): check its permissions."
        ) from error
    by_stem: dict[str, Path] = {}
    beside: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in paths:
            # One whose name begins with a dot is being copied.
            if path.suffix.lower() != suffix or path.name.startswith("."):
                continue
            other = by_stem.get(path.stem)
            if other is not None and other.suffix.lower() != suffix:
                if provider in {Provider.CPU, Provider.CUDA}:
                    log.info("%s is served, because --provider %s runs no engine.", other, provider)
                    continue
                beside[path.stem] = other
            by_stem[path.stem] = path
    if not by_stem:
        what = "the current folder" if folder == Path() else f"the folder {folder}"
        raise InputError(
            f"{what} holds no model file (.onnx or .engine): write one with  fsad-edge export,  "
            "or name a file."
        )
    return [
        replace(_make_file(name, path, found=True), onnx=beside.get(name))
        for name, path in sorted(by_stem.items())
    ]


def _make_file(name: str, path: Path, found: bool = False) -> ModelFile:
    if NAME.fullmatch(name):
        return ModelFile(name, path, found)
    name, shown = (os.fsencode(text).decode("utf-8", "backslashreplace") for text in (name, path))
    cure = "rename the file" if found else f"name it, as in  part={shown}"
    return ModelFile(
        name,
        path,
        found,
        f"'{name}' cannot name a model ({shown}): use letters, digits, '.', '_' and '-', beginning "
        f"with a letter or digit, and at most 64 of them; {cure}.",
    )
