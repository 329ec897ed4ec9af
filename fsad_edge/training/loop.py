"""Contrastive fine-tuning of a pretrained encoder on a handful of normal images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsad_edge.errors import InputError
from fsad_edge.options import Device
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.cores import usable_cores
from fsad_edge.synthesis import Shot, Views, add_defect, random_view
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


def limit_threads(threads: int) -> None:
    """Set the number of threads of torch in this process; 0 takes what the process may use."""
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))


def pick_device(device: Device) -> torch.device:
    """The device that torch trains on; ``auto`` takes the GPU where there is one.

    Raises:
        InputError: ``cuda`` is wanted and torch finds no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if device == Device.CUDA and not has_gpu:
        raise InputError(
            "--device cuda needs a GPU and torch finds none: take --device cpu, or run  "
            "fsad-edge doctor."
        )
    return torch.device("cuda" if has_gpu and device != Device.CPU else "cpu")


def train_contrastively(
    encoder: Encoder,
    shots: Sequence[Shot],
    settings: TrainingSettings,
    device: torch.device,
    on_step: Callable[[int, int, Losses], None] = lambda step, steps, losses: None,
) -> None:
    """Fine-tune an encoder in place; afterwards it is on the CPU, in evaluation mode.

    Batch norm keeps its pretrained statistics: a handful of images gives no usable ones.

    Args:
        encoder: the pretrained encoder.
        shots: normal images, at least one.
        settings: the settings of the training.
        device: the device to train on.
        on_step: called after each step with its number, the number of all steps and its losses.
    """
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    encoder.eval().to(device)
    head = ProjectionHead(encoder.embedding_channels).to(device)
    optimizer = torch.optim.AdamW(
        [
            {"params": encoder.parameters(), "lr": settings.learning_rate},
            {"params": head.parameters(), "lr": 10 * settings.learning_rate},
        ],
        weight_decay=1e-4,
    )
    batches = math.ceil(len(shots) / BATCH)
    steps = settings.epochs * batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warm_cosine(step, max(steps, 1))
    )
    for epoch in range(settings.epochs):
        order = rng.permutation(len(shots))
        for place, chosen in enumerate(np.array_split(order, batches)):
            images = _training_images([shots[index] for index in chosen], settings.views, rng)
            _, whole = encoder.with_embedding(_to_tensor(images, device))
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
            losses = Losses(total.item(), con.item(), pp.item(), np_.item())
            on_step(epoch * batches + place + 1, steps, losses)
    encoder.to("cpu").eval()


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


def _to_tensor(images: Sequence[UInt8Array], device: torch.device) -> Tensor:
    batch = torch.from_numpy(np.stack(images)).to(device)
    return batch.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


def _warm_cosine(step: int, steps: int) -> float:
    """Learning rate over its peak: it rises over a tenth of the steps, then falls (half cosine)."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
