"""Contrastive fine-tuning of a pretrained encoder on a handful of normal images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.side_by_side import ahead
from fsad_edge.synthesis import Shot, Views, add_defect, generators, random_view
from fsad_edge.training.device_views import (
    DeviceViews,
    DrawnDefects,
    DrawnViews,
    IntArray,
    draw_defects,
    draw_views,
)
from fsad_edge.training.encoder import Encoder
from fsad_edge.training.losses import contrastive_loss, negative_pair_loss, positive_pair_loss
from fsad_edge.training.settings import TrainingSettings

#: The most shots in one step. Each gives two views and one view with a synthesised defect.
BATCH = 8


@dataclass(frozen=True)
class Losses:
    """The three terms of one step, unweighted, and their weighted sum."""

    total: float
    con: float
    pp: float
    np: float


class ProjectionHead(nn.Sequential):
    """Maps the image embedding to the space of the losses; discarded after training (SimCLR)."""

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width))


def train_contrastively(
    encoder: Encoder,
    shots: Sequence[Shot],
    settings: TrainingSettings,
    device: torch.device,
    on_step: Callable[[int, int, Losses], None] = lambda step, steps, losses: None,
    views_on_device: bool | None = None,
) -> None:
    """Fine-tune an encoder in place; afterwards it is on the CPU, in evaluation mode.

    Batch norm keeps its pretrained statistics: a handful of images gives no usable ones.

    Args:
        encoder: the pretrained encoder.
        shots: normal images, at least one.
        settings: the settings of the training.
        device: the device to train on.
        on_step: called after each step with its number, the number of all steps and its losses.
        views_on_device: compute the views in torch (:mod:`fsad_edge.training.device_views`) and not
            in numpy and Pillow, in the layout and with the optimiser that suit a GPU; None does so
            on all devices but the CPU.
    """
    on_device = device.type != "cpu" if views_on_device is None else views_on_device
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    encoder.eval().to(device)
    if on_device:  # convolutions would turn the weights into this layout at every step
        encoder.to(memory_format=torch.channels_last)
    head = ProjectionHead(encoder.embedding_channels).to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder.parameters(), "lr": settings.learning_rate},
            {"params": head.parameters(), "lr": 10 * settings.learning_rate},
        ],
        weight_decay=1e-4,
        fused=on_device,
    )
    batches = math.ceil(len(shots) / BATCH)
    steps = settings.epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_cosine(step, max(steps, 1))
    )
    made = _made_on_device if on_device else _made_on_host
    for step, images in enumerate(made(shots, settings, batches, rng, device)):
        _, whole = encoder.with_embedding(images.contiguous(memory_format=torch.channels_last))
        embeddings = functional.normalize(head(whole), dim=1)
        first, second, anomalies = embeddings.chunk(3)
        con = contrastive_loss(first, second, settings.temperature)
        pp = positive_pair_loss(first, second)
        np_ = negative_pair_loss(first, second, anomalies, settings.temperature)
        total = settings.lambda_con * con + settings.lambda_pp * pp + settings.lambda_np * np_
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        # One copy from the device, which waits for it.
        losses = Losses(*torch.stack([total, con, pp, np_]).tolist())
        on_step(step + 1, steps, losses)
    encoder.to("cpu").eval()
    if on_device:
        encoder.to(memory_format=torch.contiguous_format)


def _made_on_host(
    shots: Sequence[Shot],
    settings: TrainingSettings,
    batches: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[Tensor]:
    """The images of each step, float ``[3 N, 3, H, W]``."""
    for _ in range(settings.epochs):
        for chosen in np.array_split(rng.permutation(len(shots)), batches):
            images = _training_images([shots[index] for index in chosen], settings.views, rng)
            batch = torch.from_numpy(np.stack(images)).to(device)
            yield batch.permute(0, 3, 1, 2).float()


def _made_on_device(
    shots: Sequence[Shot],
    settings: TrainingSettings,
    batches: int,
    rng: np.random.Generator,
    device: torch.device,
) -> Iterator[Tensor]:
    """The same, with views and defects computed on the device, in the same order."""
    made = DeviceViews(shots, settings.views, device, settings.seed)
    height, width = shots[0].image.shape[:2]

    def chosen() -> Iterator[tuple[IntArray, np.random.Generator]]:
        for _ in range(settings.epochs):
            parts = np.array_split(rng.permutation(len(shots)), batches)
            yield from zip(parts, generators(rng, batches), strict=True)

    def draw(step: tuple[IntArray, np.random.Generator]) -> tuple[DrawnViews, DrawnDefects]:
        some, own = step
        views = draw_views(np.tile(some, 3), settings.views, height, width, own)
        return views, draw_defects(len(some), height, width, own)

    # The shapes of defects are drawn by threads while the device trains.
    for views, defects in ahead(draw, chosen(), max(1, torch.get_num_threads() // 2)):
        images = made.views(views)
        first, second, others = images.chunk(3)
        yield torch.cat([first, second, made.with_defects(others, defects)])


def _training_images(
    shots: Sequence[Shot], views: Views, rng: np.random.Generator
) -> list[UInt8Array]:
    """A view of each shot, then a second view of each, then a view of each with a defect in it."""

    def view(shot: Shot) -> UInt8Array:
        height, width = shot.image.shape[:2]
        return random_view(shot.canvas, height, width, views, rng)

    return [
        *(view(shot) for shot in shots),
        *(view(shot) for shot in shots),
        *(add_defect(view(shot), rng)[0] for shot in shots),
    ]


def _warm_cosine(step: int, steps: int) -> float:
    """Learning rate over its peak: it rises over a tenth of the steps, then falls (half cosine)."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
