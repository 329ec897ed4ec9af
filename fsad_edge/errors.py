"""The errors that a user can meet; each message is one sentence that says what to do.

FsadEdgeError
├── InputError            what was given cannot be used: a folder, an image, a value
│   ├── ImageError        this one image cannot be read
│   └── NotNormalError    an image should not be learned as normal, unless that is forced
├── ModelFileError        the model file or directory is foreign, newer, corrupt or changed
│   └── GoldenImageError  it loads, but does not score its golden images as it must
├── ExportError           the exported graph differs from the trained model, or no engine takes it
├── WeightsError          the pretrained weights are not available
└── MissingExtraError     a package of an optional extra is not installed
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class FsadEdgeError(Exception):
    """Base of all errors that fsad-edge raises on purpose."""


class InputError(FsadEdgeError):
    """What the user gave cannot be used."""


class ImageError(InputError):
    """One image cannot be read."""


class NotNormalError(InputError):
    """An image is learned only if that is forced.

    It scores like a defect, its photograph is bad, or it is learned or one of the shots already.
    """


class ModelFileError(FsadEdgeError):
    """A model file or directory is foreign, newer, corrupt or changed."""


class GoldenImageError(ModelFileError):
    """A model loads but does not score its golden images as it must."""


class ExportError(FsadEdgeError):
    """The exported graph is not the trained model, or no engine would take it."""


class WeightsError(FsadEdgeError):
    """The pretrained weights are not available."""


class MissingExtraError(FsadEdgeError):
    """A package of an optional extra is not installed."""

    def __init__(self, package: str, extra: str, command: str | None = None) -> None:
        command = command or f"pip install 'fsad-edge[{extra}]'"
        super().__init__(f"{package} is not installed: run  {command}  and try again.")


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import in the block into :class:`MissingExtraError`.

    Args:
        extra: the optional extra that brings what the block imports.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or f"a package of '{extra}'", extra) from error
