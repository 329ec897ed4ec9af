"""The scoring graph in PyTorch, which proves what :mod:`fsad_edge.scoring` builds in ONNX."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from fsad_edge.graph.encoder_graph import encoder_graph
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.bank import (
    NEIGHBOURS,
    RARITY_WEIGHT,
    REJECTED_RATIO,
    WORST_PATCHES,
)
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.places import patches_of_place, place_grid, place_of_patch, worst_count
from fsad_edge.scoring.scoring_graph import (
    LEAST_LENGTH,
    NOT_COMPARED,
    build_scoring_graph,
    compared_step,
    near_places,
)
from fsad_edge.training.encoder import Encoder


class ScoringGraph(nn.Module):
    """What the exported graph computes.

    Args:
        encoder: gives the patch features.
        score: the score that decides.
        locator: how the part is found; cells of the map that show it in no shot do not count in
            the embedding. None counts all.
    """

    def __init__(self, encoder: Encoder, score: ScoreKind, locator: Locator | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.score = score
        self.locator = locator

    def forward(
        self,
        image: Tensor,
        bank: Tensor,
        bank_bias: Tensor,
        gaussian_mean: Tensor,
        gaussian_whitening: Tensor,
        projection: Tensor,
        rejected: Tensor,
        rejected_bias: Tensor,
        weights: Tensor,
        place_bank: Tensor | None = None,
        place_projection: Tensor | None = None,
        place_scale: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Score a batch.

        Args:
            image: uint8 ``[N, H, W, 3]``, RGB.
            bank: float ``[K, D]``; this and the following are as in :class:`ReferenceModel`.
            bank_bias: float ``[K]``.
            gaussian_mean: float ``[E]``.
            gaussian_whitening: float ``[E, E]``.
            projection: float ``[D, D]``.
            rejected: float ``[R, D]``.
            rejected_bias: float ``[R]``.
            weights: float ``[h * w]``.
            place_bank: float ``[Q, K, D]``; this and the following are all given or none.
            place_projection: float ``[D, D]``.
            place_scale: float ``[Q]``.

        Returns:
            score ``[N]``, the score that decides; anomaly_map ``[N, h, w]``, mean distance of each
            patch to its nearest bank rows: the cosine distance, and by how much the patch is rarer
            in its image than the rows are in theirs; up to twice that where it resembles a
            rejected row (:func:`~fsad_edge.runtime.bank.raised_distances`); times its weight;
            limited to the patch score, so that the map crosses a threshold where that does;
            patch_score ``[N]``, mean of the worst patches; image_score ``[N]``, Mahalanobis
            distance of the image embedding (COFT-AD); patches ``[N, h*w, D + 1]``, features and,
            last, rarity; embedding ``[N, E]``: of the encoder's full depth, or else the projected
            mean of the map, and E is D. Features and embedding are L2-normalised. Where places are
            compared, ``score`` is the larger of patch and place score, and two more follow:
            place_score ``[N]``, mean of the worst places; place_map ``[N, h, w]``, distance of each
            place from the shots there, limited to the place score.
        """
        # Cast first: the only thing that TensorRT can do with bytes is to cast them.
        features, whole = self.encoder.with_embedding(image.float().permute(0, 3, 1, 2))
        # The mean with the 3x3 neighbourhood (PatchCore, section 3.1) counts half: on its own it
        # would hide small defects. At the borders the mean is over what is inside the image.
        neighbourhood = nn.functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
        local = (features + neighbourhood) / 2
        height, width = local.shape[-2:]
        unprojected = _unit(local.permute(0, 2, 3, 1))
        rarities = rarity(unprojected).flatten(1).unsqueeze(2)
        projected = _unit(unprojected.flatten(1, 2) @ projection)
        patches = torch.cat([projected, rarities], dim=2)
        queries = projected.reshape(-1, projected.shape[-1])
        # |x - b|^2 / 2 = |x|^2 / 2 - (x.b - |b|^2 / 2): one matrix product. The bias of a row holds
        # its norm and its rarity.
        similarity = torch.addmm(bank_bias, queries, bank.t())
        nearest = similarity.topk(min(NEIGHBOURS, len(bank)), dim=1).values.mean(dim=1)
        query_bias = queries.square().sum(dim=1) / 2 + RARITY_WEIGHT * rarities.flatten()
        distance = (query_bias - nearest).clamp(min=0)
        # An unused slot is so far away that nothing, exactly, is added.
        known_bad = torch.addmm(rejected_bias, queries, rejected.t()).amax(dim=1)
        beyond = (distance - REJECTED_RATIO * (query_bias - known_bad)).clamp(min=0)
        distance = distance + torch.minimum(beyond, distance)
        distance = distance.reshape(-1, height * width) * weights
        if self.locator is not None and not self.encoder.spec.full_depth:
            cells = torch.from_numpy(np.float32(self.locator.cells(height, width)))
            whole = (features * (cells / cells.mean())).mean(dim=(2, 3))
        patch_score = distance.topk(WORST_PATCHES, dim=1).values.mean(dim=1)
        limited = torch.minimum(distance, patch_score.unsqueeze(1))
        anomaly_map = limited.reshape(-1, height, width)
        embedding = _unit(whole if self.encoder.spec.full_depth else whole @ projection)
        white = (embedding - gaussian_mean) @ gaussian_whitening
        image_score = white.square().sum(dim=1).sqrt()
        known = (anomaly_map, patch_score, image_score, patches, embedding)
        if place_bank is not None and place_projection is not None and place_scale is not None:
            grid = (height, width)
            apart = _place_distances(projected, grid, place_bank, place_projection) * place_scale
            places = _on_the_map(apart, grid) * weights
            place_score = places.topk(worst_count(*grid), dim=1).values.mean(dim=1)
            place_map = torch.minimum(places, place_score.unsqueeze(1)).reshape(-1, height, width)
            score = torch.maximum(patch_score, place_score)
            return score, *known, place_score, place_map
        score = patch_score if self.score == ScoreKind.PATCH else image_score
        # The exporter would drop an output that is an alias of another one.
        return score + 0, *known


def _place_distances(
    projected: Tensor, grid: tuple[int, int], bank: Tensor, projection: Tensor
) -> Tensor:
    """The distance of each place from its rows, ``[N, Q]``, of patches ``[N, P, D]``."""
    planes = projected.transpose(1, 2).reshape(len(projected), -1, *grid)
    means = nn.functional.avg_pool2d(planes, patches_of_place(*grid)).flatten(2).transpose(1, 2)
    features = _unit(means @ projection)
    similar = torch.einsum("nqd,qkd->nqk", features, bank)
    return (1 - similar.amax(dim=2)).clamp(min=0)


def _on_the_map(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values of places ``[N, Q]`` on the finer grid of the map, ``[N, P]``."""
    side = patches_of_place(*grid)
    down, across = (torch.from_numpy(place_of_patch(length, side)) for length in grid)
    fine = values.reshape(-1, *place_grid(*grid))[:, down][:, :, across]
    return fine.flatten(1)


def rarity(patches: Tensor) -> Tensor:
    """How different each patch is from the rest of its own image.

    Both a scratch and a new grain of wood are far from the bank, but only the scratch is rare in
    its image.

    Args:
        patches: float ``[N, h, w, D]``, L2-normalised.

    Returns:
        float ``[N, h, w]``, 0 to 2: mean cosine distance to the ``NEIGHBOURS`` most similar patches
        among every ``step``-th patch that is more than ``AROUND`` steps away; 0 where there is no
        such patch.
    """
    count, height, width, depth = patches.shape
    step, around = compared_step(height, width)
    near_y, near_x = (near_places(length, step, around) for length in (height, width))
    rows, columns = near_y.shape[1], near_x.shape[1]
    left = rows * columns - max(near_y.sum(axis=1)) * max(near_x.sum(axis=1))
    compared = min(NEIGHBOURS, int(left))
    if compared < 1:
        return torch.zeros_like(patches[..., 0])
    others = patches[:, step // 2 :: step, step // 2 :: step].reshape(count, -1, depth)
    similarity = patches.reshape(count, -1, depth) @ others.transpose(1, 2)
    similarity = similarity.reshape(count, height, width, rows, columns)
    # A patch is near if it is near in both directions. Two small constants say so: their product
    # would be as large as the encoder on a fine map.
    similarity = torch.maximum(
        similarity - NOT_COMPARED * torch.from_numpy(near_y)[:, None, :, None],
        similarity - NOT_COMPARED * torch.from_numpy(near_x)[None, :, None, :],
    )
    return (1 - similarity.flatten(3).topk(compared, dim=3).values.mean(dim=3)).clamp(min=0)


def _unit(vectors: Tensor) -> Tensor:
    """Vectors with an L2-normalised last axis; zero vectors stay zero."""
    return vectors / vectors.square().sum(dim=-1, keepdim=True).sqrt().clamp(min=LEAST_LENGTH)


def build_graph(graph: ScoringGraph, bank_size: int, places: bool = False) -> onnx.ModelProto:
    """The graph in ONNX, with a dynamic batch, a fixed size and an empty reference model.

    Args:
        graph: the graph; it is switched to evaluation mode.
        bank_size: the most rows of the memory bank that is exported; the input has room for more.
        places: compare images with the shots place by place, too.
    """
    spec = graph.encoder.spec
    built = build_scoring_graph(
        encoder_graph(graph.eval().encoder),
        spec.height,
        spec.width,
        graph.score,
        graph.locator,
        bank_size,
        places,
    )
    return onnx.load_from_string(built.to_bytes())
