"""Which files a model file may replace, and what name an ONNX file and an engine may have."""

from __future__ import annotations

from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.files import check_output, is_file, open_regular

#: Names under which a file is taken for a model file, even one that is damaged.
SUFFIXES = frozenset({".onnx", ".engine"})

#: How an ONNX file begins: with the number of its format's version, or as a sealed one does.
ONNX = (b"\x08", b"2TSealed: ")

#: Bytes at the beginning of a file by which a model file is known.
_HEAD = 64


def check_model_output(path: Path, force: bool) -> None:
    """Refuse to write an ONNX file in place of something else, with ``force`` too.

    Raises:
        InputError: the name is an engine's, there is a file that is no model file and is not empty,
            or as :func:`~fsad_edge.runtime.files.check_output` says.
    """
    if path.suffix.lower() == ".engine":
        raise InputError(
            f"{path} is the name of an engine, and this writes an ONNX file: name it "
            f"{path.with_suffix('.onnx')}."
        )
    check_output(path, force)
    _check_replaced(path, ".onnx")


def check_engine_output(path: Path) -> None:
    """Refuse to write an engine under the name of an ONNX file, or in place of something else.

    Whether it may replace an older engine is asked elsewhere.

    Raises:
        InputError: the name is an ONNX file's, there is an ONNX file or another one that is no
            engine, or as :func:`~fsad_edge.runtime.files.check_output` says.
    """
    engine = path.with_suffix(".engine")
    if path.suffix.lower() == ".onnx":
        raise InputError(
            f"{path} is the name of an ONNX file, and this writes an engine: name it {engine}."
        )
    check_output(path, force=True)
    if _check_replaced(path, ".engine").startswith(ONNX):
        raise InputError(
            f"{path} holds an ONNX file, and this writes an engine: it is left alone; name another "
            f"output, such as {path.with_name(f'{path.stem}-trt.engine')}."
        )


def _check_replaced(path: Path, suffix: str) -> bytes:
    """The first bytes of the file that would be replaced; empty where there is none.

    Raises:
        InputError: it is no model file.
    """
    if not is_file(path):
        return b""
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be replaced: {error.strerror or error}.") from error
    known = path.suffix.lower() in SUFFIXES or head.startswith(ONNX) or is_engine(head)
    if head and not known:
        raise InputError(
            f"{path} exists and is not a model file: it is left alone; name another output, such "
            f"as {path.with_suffix(suffix)}."
        )
    return head
