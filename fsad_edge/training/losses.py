"""The three terms of contrastive fine-tuning (COFT-AD, arXiv 2402.18998).

L = L_con + λ_pp·L_pp + λ_np·L_np. The paper's formulas of the last two could not be read, so
their form is this project's choice. All three take L2-normalised embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """L_con: two views of one image attract, and the other images of the batch repel.

    InfoNCE over both directions (SimCLR, Chen et al. 2020, eq. 1). Zero for a batch of one.

    Args:
        first: float ``[B, E]``, one view of each image.
        second: float ``[B, E]``, another view of each image, in the same order.
        temperature: the temperature, above 0.
    """
    count = len(first)
    both = torch.cat([first, second])
    similarity = both @ both.T / temperature
    itself = torch.eye(2 * count, dtype=torch.bool, device=both.device)
    similarity = similarity.masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * count, device=both.device).roll(count)
    return functional.cross_entropy(similarity, partner)


def positive_pair_loss(first: Tensor, second: Tensor) -> Tensor:
    """L_pp: views of different normal images attract, so that normal images form one cluster.

    The mean of ``1 - cos`` over all pairs of different images, 0 to 2. Zero for a batch of one.

    Args:
        first: float ``[B, E]``, one view of each image.
        second: float ``[B, E]``, another view of each image, in the same order.
    """
    count = len(first)
    if count < 2:
        return first.sum() * 0
    both = torch.cat([first, second])
    image = torch.arange(2 * count, device=both.device) % count
    different = image[:, None] != image[None, :]
    return (1 - both @ both.T)[different].mean()


def negative_pair_loss(
    first: Tensor, second: Tensor, anomalies: Tensor, temperature: float
) -> Tensor:
    """L_np: synthesised anomalies are pushed away from the normal images.

    InfoNCE over both directions. The positive is the other view of the same image, and only the
    anomalies are negatives.

    Args:
        first: float ``[B, E]``, one view of each image.
        second: float ``[B, E]``, another view of each image, in the same order.
        anomalies: float ``[M, E]``, views with a synthesised defect.
        temperature: the temperature, above 0.
    """
    positive = (first * second).sum(dim=1, keepdim=True)
    logits = torch.cat(
        [
            torch.cat([positive, first @ anomalies.T], dim=1),
            torch.cat([positive, second @ anomalies.T], dim=1),
        ]
    )
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return functional.cross_entropy(logits / temperature, target)
