"""Contrastive fine-tuning of a projection of patch features, with the encoder as it is.

The three losses of COFT-AD (arXiv 2402.18998), of patches instead of whole images: two views of one
patch attract (L_con); a patch and the most similar patches of the *other* shots attract, which are
the cross-instance positive pairs (L_pp); and the patches of a synthesised defect are pushed farther
from the other shots than the worst patches of a normal image are (L_np). The last one compares what
the score compares. A linear map of the features is all that is trained: it begins as the identity,
so that few and small steps keep what the encoder knows, and costs the device nothing, because the
graph projects its features in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import NEIGHBOURS, WORST_PATCHES
from fsad_edge.training.losses import contrastive_loss
from fsad_edge.training.settings import LossWeights, ShotPatches

#: Weights of L_con and L_pp where those of the options are 1; that of L_np is 1.
CON, PP = 0.3, 0.3

#: Temperature of L_con, and of L_np as a fraction of the normal images' mean score at the start.
TEMPERATURE, NP_TEMPERATURE = 0.1, 0.2

#: Patches of a view that L_con compares, and defective views in one step.
COMPARED, DEFECTS = 128, 6

#: The device that is taken where none is named.
CPU = torch.device("cpu")

#: Steps, and their size (AdamW).
STEPS, RATE = 20, 3e-4


def train_projection(
    shots: Sequence[ShotPatches],
    weights: LossWeights,
    seed: int,
    on_progress: Callable[[float], None] = lambda _: None,
    device: torch.device = CPU,
) -> Float32Array:
    """Train a projection of patch features.

    Args:
        shots: at least two.
        weights: of the losses.
        seed: random seed.
        on_progress: called after each step with the fraction that is done.
        device: the device to train on.

    Returns:
        float32 ``[D, D]``: features are multiplied by it from the right and normalised again.

    Raises:
        ValueError: there are fewer than two shots, so that there is no pair of different ones.
    """
    if len(shots) < 2:
        raise ValueError("cross-instance pairs need two shots or more")
    rng = np.random.default_rng(seed)
    depth = shots[0].bank.shape[1]
    there = [_Tensors.of(shot, device) for shot in shots]
    change = torch.zeros(depth, depth, device=device, requires_grad=True)
    start = torch.eye(depth, device=device)
    optimizer = torch.optim.AdamW([change], lr=RATE, weight_decay=0.0)
    scale = _scale(there)
    for step in range(STEPS):
        loss = _loss(there, start + change, weights, scale, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        on_progress((step + 1) / STEPS)
    projection: Float32Array = (start + change).detach().cpu().numpy()
    return projection


@dataclass(frozen=True)
class _Tensors:
    """The patches of one shot on the device, as :class:`ShotPatches` has them."""

    bank: Tensor
    normal: Tensor
    defective: Sequence[Tensor]

    @classmethod
    def of(cls, shot: ShotPatches, device: torch.device) -> _Tensors:
        bank, normal, *defective = (
            torch.from_numpy(array).to(device)
            for array in (shot.bank, shot.normal, *shot.defective)
        )
        return cls(bank, normal, defective)


@dataclass(frozen=True)
class _Scale:
    """Mean distance of normal patches to the other shots, and mean score, at the start."""

    distance: float
    score: float


def _scale(shots: Sequence[_Tensors]) -> _Scale:
    with torch.inference_mode():
        distances = [
            _distances(shot.normal[:2], _bank_without(shots, place))
            for place, shot in enumerate(shots)
        ]
        means = [float(one.mean()) for one in distances]
        scores = [float(_score(one).mean()) for one in distances]
    # Shots that are the same picture have no distance: nothing is divided by zero.
    return _Scale(max(float(np.mean(means)), 1e-6), max(float(np.mean(scores)), 1e-6))


def _loss(
    shots: Sequence[_Tensors],
    projection: Tensor,
    weights: LossWeights,
    scale: _Scale,
    rng: np.random.Generator,
) -> Tensor:
    """The loss of one shot against the others."""
    place = int(rng.integers(len(shots)))
    shot = shots[place]
    bank = _projected(_bank_without(shots, place), projection)
    views = rng.choice(len(shot.normal), 2, replace=len(shot.normal) < 2)
    normal = _projected(shot.normal[views], projection)
    distances = _distances(normal, bank)
    compared = rng.permutation(normal.shape[1])[:COMPARED]
    con = contrastive_loss(normal[0, compared], normal[1, compared], TEMPERATURE)
    loss = CON * weights.con * con + PP * weights.pp * distances.mean() / scale.distance
    drawn = rng.permutation(len(shot.defective))[:DEFECTS]
    worst = [_distances(_projected(shot.defective[k], projection), bank).max() for k in drawn]
    if worst:
        lead = _score(distances)[None] - torch.stack(worst)[:, None]
        ranked = functional.softplus(lead / (NP_TEMPERATURE * scale.score)).mean()
        loss = loss + weights.np * ranked
    return loss


def _bank_without(shots: Sequence[_Tensors], place: int) -> Tensor:
    """The memory bank of all shots but one, float ``[K, D]``."""
    return torch.cat([shot.bank for other, shot in enumerate(shots) if other != place])


def _projected(features: Tensor, projection: Tensor) -> Tensor:
    return functional.normalize(features @ projection, dim=-1)


def _distances(features: Tensor, bank: Tensor) -> Tensor:
    """Mean cosine distance of patches ``[..., D]`` to their nearest rows of a bank."""
    near = (features @ bank.T).topk(min(NEIGHBOURS, len(bank)), dim=-1).values
    return 1 - near.mean(dim=-1)


def _score(distances: Tensor) -> Tensor:
    """The mean of an image's worst patches, as the graph computes it."""
    return distances.topk(min(WORST_PATCHES, distances.shape[-1]), dim=-1).values.mean(dim=-1)
