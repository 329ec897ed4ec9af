"""What a learning store keeps only to start faster: sealed, bound to what it belongs to, never
needed. What is damaged or belongs to something else is left out, and made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from pathlib import Path

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.learning.novelty import Novelty
from fsad_edge.runtime.files import open_regular, sha256, write_bytes
from fsad_edge.runtime.photograph import FINGERPRINT

log = logging.getLogger("fsad_edge.learning")

#: Digits of the seal at the end of a cache: a SHA-256.
_SEAL = 64

#: The most bytes of a cache that are read.
_LARGEST = 2**28


def write_sealed(path: Path, data: bytes, owner: str) -> None:
    """Write data with a seal that holds for its owner alone; failing does no harm.

    Args:
        path: the file.
        data: what is kept.
        owner: what it belongs to.
    """
    with contextlib.suppress(InputError):
        write_bytes(path, data + _seal(data, owner), sync=False)


def read_sealed(path: Path, owner: str) -> bytes | None:
    """What :func:`write_sealed` wrote for an owner; None where it is missing or not as it was."""
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST)
    except (OSError, ValueError):
        return None
    data, seal = data[:-_SEAL], data[-_SEAL:]
    if seal == _seal(data, owner):
        return data
    log.info("%s is damaged, or was kept for something else: it is made again.", path)
    return None


def pack_novelty(novelty: Novelty) -> bytes:
    """What is kept of an image, as bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **vars(novelty))
    return buffer.getvalue()


def unpack_novelty(data: bytes, dimension: int) -> Novelty | None:
    """The same from bytes whose seal is right; None where it does not fit the model.

    Args:
        data: what :func:`pack_novelty` gave.
        dimension: of the patches.
    """
    try:
        with np.load(io.BytesIO(data)) as arrays:
            novelty = Novelty(*(arrays[field.name] for field in dataclasses.fields(Novelty)))
    except (ValueError, KeyError):  # another version kept something else
        return None
    fits = novelty.upright.shape[1:] == novelty.rotated.shape[1:] == (dimension,)
    fits = fits and novelty.fingerprint.shape == (FINGERPRINT**2,)
    fits = fits and novelty.weights.shape == (len(novelty.upright) + len(novelty.rotated),)
    fits = fits and novelty.masks.shape == (len(novelty.upright),)
    return novelty if fits and novelty.known.ndim == novelty.known_masked.ndim == 1 else None


def _seal(data: bytes, owner: str) -> bytes:
    return sha256(owner.encode() + b"\0" + data).encode()
