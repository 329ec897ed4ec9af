"""Contrastive fine-tuning of a pretrained encoder on a handful of normal images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.synthesis import Shot, Views, add_defect, random_view
from fsad_edge.training.encoder import Encoder
from fsad_edge.training.losses import contrastive_loss, negative_pair_loss, positive_pair_loss

#: Shots in one step at most; each comes as two views and one synthesised anomaly.
BATCH = 8


@dataclass(frozen=True)
class FinetuneSettings:
    """Choices of the user's that training needs.

    Attributes:
        epochs: passes over the shots; 0 leaves the pretrained weights alone.
        lambda_con: weight of L_con.
        lambda_pp: weight of L_pp.
        lambda_np: weight of L_np.
        temperature: of the contrastive terms.
        learning_rate: of the encoder, at its height; the projection head learns ten times faster.
        views: how far augmented views may differ.
        seed: of all chance.
    """

    epochs: int = 30
    lambda_con: float = 1.0
    lambda_pp: float = 1.0
    lambda_np: float = 1.0
    temperature: float = 0.2
    learning_rate: float = 1e-5
    views: Views = field(default_factory=Views)
    seed: int = 0


@dataclass(frozen=True)
class Losses:
    """One step's terms, unweighted, and their weighted sum."""

    total: float
    con: float
    pp: float
    np: float


class ProjectionHead(nn.Sequential):
    """Image embedding to the space of the losses; thrown away after training (SimCLR)."""

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width))


def limit_threads(threads: int) -> None:
    """Let torch compute with so many threads in this process; 0 leaves it as it is."""
    if threads:
        torch.set_num_threads(threads)


def pick_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: no such name, or there is no GPU that torch can use.
    """
    if name not in {"auto", "cpu", "cuda"}:
        raise InputError(f"there is no device '{name}': take auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda was asked for, but torch finds no GPU: take --device cpu, or see  "
            "fsad-edge doctor."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def finetune(
    encoder: Encoder,
    shots: Sequence[Shot],
    settings: FinetuneSettings,
    device: torch.device,
    progress: Callable[[int, int, Losses], None] = lambda step, steps, losses: None,
) -> None:
    """Fine-tune an encoder in place; it ends on the CPU, in evaluation mode.

    Batch norm keeps its pretrained statistics: a handful of images has none worth having.

    Args:
        encoder: pretrained.
        shots: normal images, at least one.
        settings: the user's choices.
        device: to train on.
        progress: told the step, all steps and the step's losses.
    """
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    encoder.eval().to(device)
    head = ProjectionHead(encoder.channels).to(device)
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
            features = encoder(_to_tensor(images, device))
            embeddings = functional.normalize(head(features.mean(dim=(2, 3))), dim=1)
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
            progress(epoch * batches + place + 1, steps, losses)
    encoder.to("cpu").eval()


def _training_images(
    shots: Sequence[Shot], views: Views, rng: np.random.Generator
) -> list[UInt8Array]:
    """A view of each shot, another view of each, and a view of each with a defect in it."""

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
    """Learning rate over its height: up over the first tenth, down a half cosine after it."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
