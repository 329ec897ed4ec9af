"""What the steps of one run of ``finetune`` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.candidates import Shape
from fsad_edge.pipeline.events import OnProgress, OnWarning
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.pipeline.part_encoder import PartEncoder, pretrained
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.locator import Locator
from fsad_edge.synthesis import Shot, load_shot


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
        warnings: what was said so far.
        pretrained: the encoder that was looked at last, for what, and its graph.
    """

    options: FinetuneOptions
    scale: ImageScale
    bank_size: int
    on_progress: OnProgress
    on_warning: OnWarning
    whole_size: int | None = None
    warnings: list[str] = field(default_factory=list)
    pretrained: tuple[tuple[object, ...], PartEncoder, OnnxSession] | None = None

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

    def session_of(self, encoder: PartEncoder, locator: Locator | None) -> OnnxSession:
        """The encoder's scoring graph in ONNX Runtime: calibration never scores in torch."""
        graph = encoder.scoring_graph(self.options.score, locator, self.bank_size)
        return OnnxSession(graph.to_bytes(), "the graph just built", threads=self.options.threads)

    def shots_of(self, files: Sequence[Path], shape: Shape, locator: Locator | None) -> list[Shot]:
        """The shots at the size of an input."""
        return [load_shot(file, *shape.size, self.scale, locator) for file in files]
