"""Many images through a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from fsad_edge.options import Provider
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.providers import PROVIDERS
from fsad_edge.runtime.side_by_side import fraction_of, side_by_side

#: Images that go through the graph at once: so many, and no more pixels than as many squares of
#: this side have.
BATCH, BATCH_SIDE = 8, 724

#: The most of them on a GPU through CUDA, which takes little longer for them than for one.
BATCH_ON_CUDA = 32


def run_batches(
    session: OnnxSession,
    images: Sequence[UInt8Array],
    outputs: list[str],
    reference: Mapping[str, Float32Array] | None = None,
    on_progress: Callable[[float], None] = lambda done: None,
) -> list[Float32Array]:
    """The named outputs for any number of images.

    They go through the graph as many at a time as :func:`batch_size` allows: in one call, or where
    the session scores images side by side in as many calls as it has workers. CUDA searches for
    its fastest algorithms whenever the number of images changes, and that search takes longer than
    scoring them. So all calls have the same number of images there: the last call is filled up, and
    what was added is dropped from its result.

    Args:
        session: the graph.
        images: uint8 ``[H, W, 3]`` at the model's size, at least one.
        outputs: names of the outputs.
        reference: inputs that replace the graph's defaults.
        on_progress: called with the fraction that is done.
    """
    feeds = reference or {}
    on_cuda = session.provider == PROVIDERS[Provider.CUDA]
    height, width = images[0].shape[:2]
    at_once = batch_size(height, width, BATCH_ON_CUDA if on_cuda else BATCH)
    workers = min(session.workers, at_once)
    # A call for each image is the fastest, where calls run side by side.
    batches = stacked(images, at_once if workers == 1 else 1)

    def run(batch: UInt8Array) -> list[Float32Array]:
        given = len(batch)
        if on_cuda and given < at_once:
            batch = np.concatenate([batch, batch[:1].repeat(at_once - given, axis=0)])
        return [array[:given] for array in session.run(outputs, {"image": batch, **feeds})]

    count = -(-len(images) // at_once) if workers == 1 else len(images)
    done = side_by_side(run, batches, workers, fraction_of(on_progress, count))
    return [np.concatenate(arrays) for arrays in zip(*done, strict=True)]


def batch_size(height: int, width: int, most: int = BATCH) -> int:
    """How many images of this size in pixels go through the graph at once, at most ``most``."""
    return min(most, max(1, BATCH * BATCH_SIDE**2 // (height * width)))


def stacked(images: Sequence[UInt8Array], count: int = 0) -> Iterator[UInt8Array]:
    """Images in batches, uint8 ``[N, H, W, 3]`` each.

    Args:
        images: uint8 ``[H, W, 3]``, of one size.
        count: the most images of a batch; 0 takes :func:`batch_size`.

    Example:
        >>> [len(batch) for batch in stacked([np.zeros((64, 64, 3), np.uint8)] * 11)]
        [8, 3]
        >>> [len(batch) for batch in stacked([np.zeros((2048, 2048, 3), np.uint8)] * 3)]
        [1, 1, 1]
    """
    count = count or (batch_size(*images[0].shape[:2]) if images else BATCH)
    for start in range(0, len(images), count):
        yield np.stack(images[start : start + count])


def unit_patches(
    session: OnnxSession,
    images: Sequence[UInt8Array],
    on_progress: Callable[[float], None] = lambda done: None,
) -> Float32Array:
    """Patches of images before a projection.

    Args:
        session: the graph.
        images: uint8 ``[H, W, 3]`` at the model's size.
        on_progress: called with the fraction that is done.

    Returns:
        float32 ``[N, P, D]``, L2-normalised.
    """
    plain = plain_inputs(session)
    [patches] = run_batches(session, images, ["patches"], plain, on_progress)
    unit: Float32Array = patches[..., :-1]
    return unit


def plain_inputs(session: OnnxSession) -> dict[str, Float32Array]:
    """The input of a scoring graph that leaves features as the encoder gives them."""
    return {"projection": np.eye(session.defaults["projection"][0], dtype=np.float32)}
