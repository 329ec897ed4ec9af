"""The errors that a user can meet; each message is one sentence that says what to do.

FsadEdgeError
├── InputError            what was given cannot be used: a folder, an image, a value
│   ├── ImageError        this one image cannot be read
│   │   └── ImageTooLargeError  decoding it takes more memory than there is for that
│   └── NotNormalError    an image should not be learned as it was called, unless that is forced
│       └── ExamplesLostError  a change would decide examples wrongly that were decided rightly
├── ModelFileError        the model file or directory is foreign, newer, corrupt or changed
│   └── GoldenImageError  it loads, but does not score its golden images as it must
├── ExportError           the exported graph differs from the trained model, or no engine takes it
├── WeightsError          the pretrained weights are not available
├── BusyError             what is wanted is in use: try again
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


class ImageTooLargeError(ImageError):
    """Decoding one image takes more memory than there is for that."""


class NotNormalError(InputError):
    """An image is learned only if that is forced.

    It scores like a defect, its photograph is bad, or it is learned or one of the shots already.
    """


class ExamplesLostError(NotNormalError):
    """A change would decide examples wrongly that are decided rightly, and is made only by force.

    Attributes:
        lost: the ids of these examples.
    """

    def __init__(self, message: str, lost: tuple[int, ...]) -> None:
        super().__init__(message)
        self.lost = lost


class ModelFileError(FsadEdgeError):
    """A model file or directory is foreign, newer, corrupt or changed."""


class GoldenImageError(ModelFileError):
    """A model loads but does not score its golden images as it must."""


class ExportError(FsadEdgeError):
    """The exported graph is not the trained model, or no engine would take it."""


class BusyError(FsadEdgeError):
    """What is wanted is in use by others; a little later it is free."""


class WeightsError(FsadEdgeError):
    """The pretrained weights are not available."""


class MissingExtraError(FsadEdgeError):
    """A package of an optional extra is not installed, or is installed and broken.

    Args:
        package: the package.
        extra: the optional extra that brings it.
        command: what installs it, where pip does not.
        broken: why it cannot be imported although it is there.
    """

    def __init__(
        self, package: str, extra: str, command: str | None = None, broken: Exception | None = None
    ) -> None:
        command = command or f"pip install 'fsad-edge[{extra}]'"
        size = " (several GB, Python 3.11 or newer)" if extra == "train" else ""
        problem = f"{package} is not installed: run  {command}  and try again{size}."
        if broken is not None:
            reason = (str(broken).splitlines() or [type(broken).__name__])[0].rstrip(".")
            problem = (
                f"{package} is installed and cannot be imported ({reason}): mend that, or "
                f"uninstall it, run  {command}  and try again."
            )
        super().__init__(problem)


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import in the block into :class:`MissingExtraError`; it does nothing else.

    Args:
        extra: the optional extra that brings what the block imports.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or f"a package of '{extra}'", extra) from error
    except (ImportError, OSError) as error:  # OSError: a shared library cannot be loaded
        name = getattr(error, "name", None) or f"a package of '{extra}'"
        raise MissingExtraError(name, extra, broken=error) from error
