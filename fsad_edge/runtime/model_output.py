"""Which files a model file may replace."""

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
    """Refuse to write a model file in place of something else, with ``force`` too.

    Raises:
        InputError: there is a file that is no model file and is not empty, or as
            :func:`~fsad_edge.runtime.files.check_output` says.
    """
    check_output(path, force)
    if path.suffix.lower() in SUFFIXES or not is_file(path):
        return
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path} cannot be replaced: {error.strerror or error}.") from error
    if head and not (head.startswith(ONNX) or is_engine(head)):
        raise InputError(
            f"{path} exists and is not a model file: it is left alone; name another output, such "
            f"as {path.with_suffix('.onnx')}."
        )
