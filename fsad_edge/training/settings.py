"""What training takes: settings and patches, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.documents import Above, Range
from fsad_edge.synthesis import Views

Weight = Annotated[float, Range(0)]


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of contrastive training.

    Attributes:
        epochs: passes over the shots; 0 leaves the pretrained weights as they are.
        lambda_con: weight of L_con.
        lambda_pp: weight of L_pp.
        lambda_np: weight of L_np.
        temperature: temperature of the contrastive terms.
        learning_rate: peak learning rate of the encoder; that of the projection head is ten times
            as high.
        views: how far augmented views may differ.
        seed: random seed.
    """

    epochs: Annotated[int, Range(0)] = 30
    lambda_con: Weight = 1.0
    lambda_pp: Weight = 1.0
    lambda_np: Weight = 1.0
    temperature: Annotated[float, Above(0)] = 0.2
    learning_rate: Weight = 1e-5
    views: Views = field(default_factory=Views)
    seed: Annotated[int, Range(0)] = 0


@dataclass(frozen=True)
class ShotPatches:
    """The patch features of one shot; all rows are L2-normalised.

    Attributes:
        bank: float32 ``[K, D]``, what it puts into the memory bank.
        normal: float32 ``[V, P, D]``, views of it; place p is the same patch in all of them.
        defective: float32 ``[M, D]`` each, the patches that a defect drawn onto it changes.
    """

    bank: Float32Array
    normal: Float32Array
    defective: Sequence[Float32Array]


@dataclass(frozen=True)
class LossWeights:
    """The user's weights; those of L_con and L_pp are also multiplied by ``CON`` and ``PP``."""

    con: float = 1.0
    pp: float = 1.0
    np: float = 1.0

    @property
    def any(self) -> bool:
        """Whether there is a loss at all."""
        return max(self.con, self.pp, self.np) > 0
