"""From the bytes of an image to what the engine takes: in a thread, or in a process of its own.

Most of the time for an image goes into decoding and resizing, where Pillow lets other threads run.
But a third of it is Python's own work, which one thread of a process does at a time, so that a
process cannot prepare images on many cores. :func:`main` prepares images for another process, which
it asks for the memory of each.
"""

from __future__ import annotations

import functools
import io
import pickle
import signal
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from fsad_edge.errors import ImageError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.given import source_of
from fsad_edge.runtime.images import decode
from fsad_edge.runtime.judgement import Look, look_at
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.opening import open_image
from fsad_edge.runtime.photograph import PhotographCheck
from fsad_edge.runtime.preparation import Preparation, Prepared


@dataclass(frozen=True)
class Recipe:
    """What is to be known of a model to prepare images for it.

    Attributes:
        preparation: how photographs are brought to its size.
        check: tells what is wrong with a photograph itself.
    """

    preparation: Preparation
    check: PhotographCheck

    @classmethod
    def of(cls, metadata: Metadata) -> Recipe:
        """The recipe of a model."""
        return cls(metadata.preparation, PhotographCheck(metadata.appearance))


@dataclass(frozen=True)
class PreparedImage:
    """An image that is ready for the engine.

    Attributes:
        prepared: the image at the model's size, and where its part was found.
        flags: what is wrong with the photograph itself.
        look: how it looks as a photograph.
        seconds: what decoding it took, and what resizing and looking at it took.
    """

    prepared: Prepared
    flags: list[str]
    look: Look
    seconds: tuple[float, float]


def prepare_image(recipe: Recipe, source: bytes | UInt8Array, max_pixels: int) -> PreparedImage:
    """Decode an image and bring it to the model's size.

    Args:
        recipe: the model's.
        source: encoded bytes, or uint8 ``[H, W, 3]`` RGB.
        max_pixels: most pixels of an encoded image.

    Raises:
        ImageError: it cannot be decoded, or has more pixels.
    """
    begin = time.perf_counter()
    given = source_of(source)
    if isinstance(source, bytes):
        check_size(source, max_pixels)
    with GATE.working():
        image = given if isinstance(given, np.ndarray) else recipe.preparation.decode(given)
        decoded = time.perf_counter()
        prepared = recipe.preparation.prepare(image)
        del image, source, given
    flags, look = recipe.check.check(prepared.pixels), look_at(prepared.pixels)
    seconds = (decoded - begin, time.perf_counter() - decoded)
    return PreparedImage(prepared, flags, look, seconds)


def check_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Refuse an image of more pixels than the service takes, by its header.

    Returns:
        the stored width and height in pixels.

    Raises:
        ImageError: it has more pixels, or the bytes are no image.
    """
    try:
        with open_image(io.BytesIO(data), "the image") as image:
            width, height = image.size
    except ImageError:
        raise
    except Exception:
        decode(data)  # raises with what is wrong
        raise ImageError("the image cannot be decoded.") from None
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width}x{height} pixels, more than the limit of "
            f"{max_pixels:,}: make it smaller."
        )
    return width, height


@functools.lru_cache(64)
def _recipe_from(text: bytes) -> Recipe:
    found: Recipe = pickle.loads(text)
    return found


def main() -> None:
    """Prepare images for the process at the other end of a connection until it is gone.

    The number of the connection's file is the argument of the command line. The other end is told
    that this one has begun. It sends a recipe, an image, the most pixels and the memory of its
    gate, and gets the prepared image or the error. In between it is asked for bytes, which it
    grants, or refuses with an error.
    """
    # A signal to all processes of a service is for the one that answers requests: it still needs
    # what is prepared here, and its end is seen by the connection.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))

    def ask(need: int, name: str) -> None:
        connection.send((need, name))
        refusal = connection.recv()
        if refusal is not None:
            raise refusal

    GATE.ask = ask
    connection.send(None)  # it has begun
    while True:
        try:
            recipe, data, max_pixels, GATE.memory = connection.recv()
        except (EOFError, OSError):
            return
        answer: Any
        try:
            answer = _without_surroundings(prepare_image(_recipe_from(recipe), data, max_pixels))
        except (EOFError, OSError):
            return
        except Exception as error:
            answer = error
        connection.send(answer)


def _without_surroundings(image: PreparedImage) -> PreparedImage:
    """The image without what lies beside its part, which is painted over by now."""
    located = image.prepared.located
    if located is None or located.beside is None:
        return image
    return replace(image, prepared=replace(image.prepared, located=replace(located, beside=None)))
