"""Patches of images that are kept, to score the images with other reference models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fsad_edge.calibration.batches import plain_inputs, run_batches
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.side_by_side import side_by_side
from fsad_edge.runtime.steps import Steps
from fsad_edge.scoring.scoring_graph import build_patch_graph

#: The most bytes that are kept of one task.
MOST_BYTES = 1 << 30

#: Images that are scored in one call, where calls do not run side by side.
_BATCH = 8

#: What of a reference model decides the patch score.
_TAKEN = ("bank", "bank_bias", "projection", "rejected", "rejected_bias", "weights")


def map_size(session: OnnxSession, image: UInt8Array) -> tuple[int, int]:
    """Rows and columns of the map of an image, uint8 ``[H, W, 3]`` at the model's size."""
    [found] = run_batches(session, [image], ["anomaly_map"], plain_inputs(session))
    return found.shape[1], found.shape[2]


def may_be_kept(session: OnnxSession, images: int, image: UInt8Array) -> bool:
    """Whether so many images like this one take no more than ``MOST_BYTES``."""
    rows, columns = map_size(session, image)
    length = int(session.defaults["bank"][1]) + 1
    return 4 * images * rows * columns * length <= MOST_BYTES


class KeptPatches:
    """Images that go through an encoder once, and are then scored with any reference model.

    Args:
        session: a scoring graph.
        locator: how the part is found, as in that graph.
        groups: images uint8 ``[H, W, 3]`` at the model's size, in groups.
        on_progress: called with the fraction that is done.
    """

    def __init__(
        self,
        session: OnnxSession,
        locator: Locator | None,
        groups: Sequence[Sequence[UInt8Array]],
        on_progress: Callable[[float], None] = lambda done: None,
    ) -> None:
        plain = plain_inputs(session)
        rows, columns = map_size(session, groups[0][0])
        capacity, channels = session.defaults["bank"]
        graph = build_patch_graph(channels, rows, columns, capacity, locator)
        self._scorer = OnnxSession(
            graph.to_bytes(),
            "the graph just built",
            "cpu",
            session.threads,
            side_by_side=session.workers > 1,
        )
        steps, count = Steps(on_progress), sum(map(len, groups))
        self._groups: list[Float32Array] = [
            run_batches(session, group, ["patches"], plain, steps.next(len(group) / count))[0]
            for group in groups
        ]

    def scores(self, group: int, reference: Mapping[str, Float32Array]) -> Float32Array:
        """The patch scores of one group, float32 ``[N]``."""
        patches = self._groups[group]
        taken = {name: reference[name] for name in _TAKEN}
        count = 1 if self._scorer.workers > 1 else _BATCH
        batches = [patches[start : start + count] for start in range(0, len(patches), count)]

        def score(batch: Float32Array) -> Float32Array:
            return self._scorer.run(["patch_score"], {"unprojected": batch, **taken})[0]

        return np.concatenate(side_by_side(score, batches, self._scorer.workers))
