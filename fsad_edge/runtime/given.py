"""What callers of the library give: refused with one sentence where it is not what is meant.

Nothing is guessed. A file name is no image of characters, an array of 16 bits is not cut to 8, and
an empty path is not the current folder.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import TypeVar

import numpy as np

from fsad_edge.errors import ImageError, InputError
from fsad_edge.options import MAX_THREADS
from fsad_edge.runtime.arrays import AnyArray, UInt8Array
from fsad_edge.runtime.images import MAX_PIXELS, MIN_SIDE, ImagePage

Item = TypeVar("Item")

#: What an array of an image is, in words.
WANTED = "uint8 [H, W, 3] in RGB, or uint8 [H, W] in grey"


def path_of(given: str | os.PathLike[str], what: str) -> Path:
    """A path as it was given.

    Args:
        given: text or a path.
        what: what it is the path of, for the error.

    Raises:
        InputError: it is neither text nor a path, it is empty, or it holds a null byte.
    """
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(f"the path of {what} is a text or a path, not {describe(given)}.")
    text = os.fspath(given)
    if not isinstance(text, str):
        raise InputError(f"the path of {what} is {text!r:.80}, which are bytes: use os.fsdecode.")
    if not text or "\0" in text:
        why = "holds a null byte" if text else "is empty"
        raise InputError(f"the path of {what} {why}: name a file or a folder.")
    return Path(text)


def source_of(given: object) -> Path | ImagePage | bytes | UInt8Array:
    """One image as it was given: a path, a page, the bytes of a file or an array of pixels.

    Raises:
        ImageError: an array that is no image of 8 bits.
        InputError: it is something else, such as a list of images.
    """
    if isinstance(given, np.ndarray):
        return pixels_of(given)
    if isinstance(given, (bytes, ImagePage)):
        return given
    if isinstance(given, (bytearray, memoryview)):
        return bytes(given)
    if isinstance(given, (list, tuple, set, frozenset, dict)):
        raise InputError(
            f"one image is meant, not {describe(given)}: score_batch takes several images."
        )
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"an image is a path, the bytes of a file or an array {WANTED}, not {describe(given)}."
        )
    return path_of(given, "the image")


def pixels_of(given: AnyArray, name: str = "an image as an array") -> UInt8Array:
    """An array as an image: uint8 ``[H, W, 3]`` in RGB, contiguous.

    Grey of 8 bits gets three equal channels, as a grey file does. Its memory is not written to.

    Raises:
        ImageError: it has another dtype or shape, is masked, or is smaller than a patch or larger
            than what is decoded.
    """
    found = f"{given.dtype} {list(given.shape)}"
    if given.dtype != np.uint8 or not (
        given.ndim == 2 or (given.ndim == 3 and given.shape[2] == 3)
    ):
        raise ImageError(f"{name} is {WANTED}, not {found}{_cure(given)}.")
    if np.ma.isMaskedArray(given):
        raise ImageError(f"{name} is masked, which no photograph is: fill it, with filled().")
    height, width = given.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{name} has the shape {list(given.shape)}, smaller than one patch "
            f"({MIN_SIDE}x{MIN_SIDE}): give a larger image."
        )
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width}x{height} pixels, more than the {MAX_PIXELS:,} that are taken: "
            "crop it or make it smaller."
        )
    pixels = np.asarray(given)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels)


def images_of(given: Iterable[Item]) -> list[Item]:
    """Several images as they were given, at least one.

    Raises:
        InputError: it is one image, or none.
    """
    one = isinstance(given, (str, bytes, bytearray, memoryview, os.PathLike, ImagePage, dict))
    if isinstance(given, np.ndarray):
        one = given.ndim != 4
    if one or not isinstance(given, Iterable):
        raise InputError(
            f"score_batch takes a list of images, not {describe(given)}: score takes one image."
        )
    images = list(given)
    if not images:
        raise InputError("there is no image to score: give at least one.")
    return images


def check_prepared(batch: object, height: int, width: int) -> UInt8Array:
    """A batch of prepared images: uint8 ``[N, height, width, 3]``, contiguous.

    Raises:
        InputError: it is something else, or holds no image.
    """
    if (
        not isinstance(batch, np.ndarray)
        or batch.dtype != np.uint8
        or batch.shape[1:] != (height, width, 3)
        or not len(batch)
    ):
        raise InputError(
            f"prepared images are uint8 [N, {height}, {width}, 3] with N at least 1, as prepare "
            f"makes each of them, not {describe(batch)}."
        )
    return np.ascontiguousarray(batch)


def check_encoded(image: object) -> None:
    """Refuse what is not the bytes of an image file.

    Raises:
        InputError: it is something else, such as a path or pixels.
    """
    if not isinstance(image, bytes):
        raise InputError(
            f"an image is learned as the bytes of its file, not as {describe(image)}: read the "
            "file, or encode the pixels, as PNG."
        )


def pairs_of(given: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Named images as they were given.

    Raises:
        InputError: it is no list of pairs of a name and bytes.
    """
    wanted = "examples are a list of pairs, a name and the bytes of an image file"
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise InputError(f"{wanted}, not {describe(given)}.")
    pairs = list(given)
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise InputError(f"{wanted}, not {describe(pair)} in a list.")
    return pairs


def box_of(given: object) -> tuple[int, int, int, int]:
    """A box in a photograph: left, top, right and bottom in pixels.

    Raises:
        InputError: it is not four whole numbers.
    """
    try:
        left, top, right, bottom = (operator.index(side) for side in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InputError(
            "a box is four whole numbers, left, top, right and bottom in pixels, not "
            f"{describe(given)}."
        ) from None
    return left, top, right, bottom


def is_positive(given: object) -> bool:
    """Whether something is a finite number above 0; True and False are no numbers here."""
    if not isinstance(given, Real) or isinstance(given, bool):
        return False
    try:
        number = float(given)
        return math.isfinite(number) and number > 0
    except OverflowError:  # a whole number beyond all others
        return False


def check_flag(given: object, name: str) -> None:
    """Refuse what is neither True nor False: the text "no" would count as True.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(given, (bool, np.bool_)):
        raise InputError(f"{name} is True or False, not {describe(given)}.")


def check_kind(given: object, kind: type, what: str) -> None:
    """Refuse what is no object of a class.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(given, kind):
        raise InputError(f"{what} is a {kind.__name__}, not {describe(given)}.")


def check_threads(threads: object) -> None:
    """Refuse what is no number of threads.

    Raises:
        InputError: it is no whole number from 0 to ``MAX_THREADS``.
    """
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if not (whole and 0 <= threads <= MAX_THREADS):  # type: ignore[operator]
        raise InputError(f"the threads are 0 to {MAX_THREADS}, not {threads!r:.80}.")


def describe(given: object) -> str:
    """What something is, for an error: its type, and the dtype and shape of an array."""
    if isinstance(given, np.ndarray):
        return f"an array of {given.dtype} {list(given.shape)}"
    if isinstance(given, (list, tuple, set, frozenset, dict)):
        return f"a {type(given).__name__} of {len(given)}"
    return f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")


def _cure(array: AnyArray) -> str:
    """What to do about an array that is no image."""
    if array.dtype != np.uint8:
        return (
            ": bring its values to 0 to 255 and convert it; for 16 bits, save it as PNG or TIFF "
            "and give the file, which is read as in  finetune"
        )
    if array.ndim == 3 and array.shape[2] == 4:
        return ": leave the alpha channel out, with [..., :3]"
    if array.ndim == 3 and array.shape[0] == 3:
        return ": the channels come last, with transpose(1, 2, 0)"
    if array.ndim == 3 and array.shape[2] == 1:
        return ": leave the last axis out, with [..., 0]"
    return ": give one image" if array.ndim == 4 else ": convert it first"
