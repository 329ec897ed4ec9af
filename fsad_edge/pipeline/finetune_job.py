"""What the steps of one run of ``finetune`` share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fsad_edge.calibration.batches import BATCH_ON_CUDA
from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.candidates import Shape
from fsad_edge.pipeline.events import OnProgress, OnWarning
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.pipeline.part_encoder import PartEncoder, pretrained
from fsad_edge.pipeline.time_budget import TimeBudget
from fsad_edge.pipeline.where_it_ran import provider_for
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.cores import usable_cores
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.side_by_side import side_by_side
from fsad_edge.synthesis import Shot, load_shot

#: Runs behind a model's latency, and the seconds after which the least of them suffice.
LEAST_RUNS, MOST_RUNS, RUN_SECONDS = 5, 15, 1.0


@dataclass
class FinetuneJob:
    """The options of a run, and what it says while it runs.

    Attributes:
        options: the user's choices.
        scale: how pixel values become 8 bits.
        bank_size: most rows of the memory bank.
        on_progress: called with each step.
        on_warning: called with each warning.
        whole_size: side at which the encoder was trained, pixels, where whole images are told apart
            by its full depth; None where they are not.
        time: what is left of the time for the search.
        warnings: what was said so far.
        pretrained: the encoder that was looked at last, for what, and its graph.
    """

    options: FinetuneOptions
    scale: ImageScale
    bank_size: int
    on_progress: OnProgress
    on_warning: OnWarning
    time: TimeBudget
    whole_size: int | None = None
    warnings: list[str] = field(default_factory=list)
    pretrained: tuple[tuple[object, ...], PartEncoder, OnnxSession] | None = None

    @property
    def workers(self) -> int:
        """How many images are worked on at a time."""
        return self.options.threads or usable_cores()

    def warn(self, sentence: str) -> None:
        """Say a sentence, and keep it for the result."""
        self.warnings.append(sentence)
        self.on_warning(sentence)

    def pretrained_of(
        self, backbone: str, shape: Shape, locator: Locator | None
    ) -> tuple[PartEncoder, OnnxSession]:
        """An encoder with its pretrained weights, for an input of a shape, and its scoring graph.

        The last one is kept, because other backbones are traced, which takes seconds.
        """
        asked = (backbone, shape, locator)
        if self.pretrained is None or self.pretrained[0] != asked:
            encoder = pretrained(
                backbone,
                self.options.weights,
                *shape.size,
                shape.strides,
                full_depth=self.options.score is ScoreKind.IMAGE,
            )
            self.pretrained = asked, encoder, self.session_of(encoder, locator)
        return self.pretrained[1:]

    def session_of(
        self, encoder: PartEncoder, locator: Locator | None, side_by_side: bool = True
    ) -> OnnxSession:
        """The encoder's scoring graph in ONNX Runtime: calibration never scores in torch.

        Args:
            encoder: the encoder.
            locator: how the part is found.
            side_by_side: as of :class:`OnnxSession`.
        """
        graph = encoder.scoring_graph(self.options.score, locator, self.bank_size)
        return OnnxSession(
            graph.to_bytes(),
            "the graph just built",
            provider_for(self.options.device),
            self.options.threads,
            side_by_side=side_by_side,
            max_batch=BATCH_ON_CUDA,
        )

    def latency_ms(
        self,
        encoder: PartEncoder,
        shot: Shot,
        locator: Locator | None,
        on_progress: Callable[[float], None] = lambda done: None,
    ) -> float:
        """Milliseconds of the model alone for one image, on this machine at this time."""
        session = self.session_of(encoder, locator, side_by_side=False)
        return median_ms(session, shot.image, on_progress)

    def shots_of(self, files: Sequence[Path], shape: Shape, locator: Locator | None) -> list[Shot]:
        """The shots at the size of an input."""
        return side_by_side(
            lambda file: load_shot(file, *shape.size, self.scale, locator), files, self.workers
        )


def median_ms(
    session: OnnxSession,
    image: UInt8Array,
    on_progress: Callable[[float], None] = lambda done: None,
) -> float:
    """Milliseconds of a graph alone for one image, uint8 ``[H, W, 3]``: the median of some runs.

    There are ``MOST_RUNS``, or fewer where they take longer than ``RUN_SECONDS``.
    """
    times: list[float] = []
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and sum(times) < 1e3 * RUN_SECONDS):
        start = time.perf_counter()
        session.run(["score", "anomaly_map"], {"image": image[None]})
        times.append(1e3 * (time.perf_counter() - start))
        on_progress(len(times) / MOST_RUNS)
    return statistics.median(times)
