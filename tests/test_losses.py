"""The three losses: what minimises them, and what a step down their gradient does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fsad_edge.training.losses import contrastive_loss, negative_pair_loss, positive_pair_loss

TEMPERATURE = 0.2
SEEDS = st.integers(0, 2**31 - 1)


def free(seed: int, count: int, dimension: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=1)


def descend(
    loss: Callable[..., Tensor], *points: Tensor, steps: int = 1, rate: float = 1e-3
) -> tuple[list[Tensor], float, float]:
    """Gradient descent on the directions of points. Returns the points, first and last loss."""
    moving = [point.clone().requires_grad_() for point in points]
    first = value = loss(*map(unit, moving))
    for _ in range(steps):
        gradients = torch.autograd.grad(value, moving)
        moving = [
            (point - rate * gradient).detach().requires_grad_()
            for point, gradient in zip(moving, gradients, strict=True)
        ]
        value = loss(*map(unit, moving))
    return [unit(point).detach() for point in moving], first.item(), value.item()


def con(first: Tensor, second: Tensor) -> Tensor:
    return contrastive_loss(first, second, TEMPERATURE)


def neg(first: Tensor, second: Tensor, anomalies: Tensor) -> Tensor:
    return negative_pair_loss(first, second, anomalies, TEMPERATURE)


def cosine(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum(dim=1).mean())


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_a_step_lowers_each_loss(seed: int, count: int) -> None:
    first, second, anomalies = free(seed, 3 * count).chunk(3)
    for loss, points in (
        (con, (first, second)),
        (positive_pair_loss, (first, second)),
        (neg, (first, second, anomalies)),
    ):
        _, before, after = descend(loss, *points)
        assert after < before


def cosine_of_different(one: Tensor, other: Tensor) -> float:
    """Mean cosine of views of different images."""
    different = ~torch.eye(len(one), dtype=torch.bool)
    return float((one @ other.T)[different].mean())


@pytest.mark.parametrize("seed", range(4))
def test_contrastive_views_attract_and_images_repel(seed: int) -> None:
    first, second = free(seed, 8).chunk(2)
    (one, other), _, _ = descend(con, first, second, steps=40, rate=0.5)
    assert cosine(one, other) > cosine(unit(first), unit(second)) + 0.2
    assert cosine_of_different(one, other) < cosine(one, other) - 0.6


@pytest.mark.parametrize("seed", range(4))
def test_positive_pairs_come_together(seed: int) -> None:
    first, second = free(seed, 8).chunk(2)
    (one, other), before, after = descend(positive_pair_loss, first, second, steps=60, rate=10.0)
    assert after < min(before, 0.2)
    at_first = cosine_of_different(unit(first), unit(second))
    assert cosine_of_different(one, other) > at_first + 0.5


@pytest.mark.parametrize("seed", range(4))
def test_anomalies_are_pushed_away(seed: int) -> None:
    first, second, anomalies = free(seed, 12).chunk(3)
    (one, other, away), _, _ = descend(neg, first, second, anomalies, steps=40, rate=0.5)
    assert cosine(one, other) > cosine(unit(first), unit(second)) + 0.1
    for views in (one, other):
        assert float((views @ away.T).mean()) < cosine(one, other) - 0.6
    # Anomalies that move alone, with the normal images fixed, move away from these.
    normal = unit(first)
    (moved,), _, _ = descend(lambda a: neg(normal, normal, a), anomalies, steps=20, rate=0.5)
    assert float((normal @ moved.T).mean()) < float((normal @ unit(anomalies).T).mean())


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_losses_are_bounded_below_by_their_best_case(seed: int, count: int) -> None:
    first, second, anomalies = (unit(part) for part in free(seed, 3 * count).chunk(3))
    assert float(con(first, first)) < float(con(first, unit(-first)))
    assert 0 <= float(positive_pair_loss(first, second)) <= 2
    alike = first[:1].expand(count, -1)
    assert float(positive_pair_loss(alike, alike)) == pytest.approx(0, abs=1e-12)
    assert float(neg(first, second, anomalies)) > float(neg(alike, alike, -alike)) > 0


@given(SEEDS, st.integers(2, 6))
@settings(max_examples=25, deadline=None)
def test_losses_do_not_depend_on_the_order_of_the_batch(seed: int, count: int) -> None:
    first, second, anomalies = (unit(part) for part in free(seed, 3 * count).chunk(3))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for loss, points in (
        (con, (first, second)),
        (positive_pair_loss, (first, second)),
        (neg, (first, second, anomalies)),
    ):
        expected = loss(*points)
        torch.testing.assert_close(loss(*(point[order] for point in points)), expected)
        torch.testing.assert_close(loss(second, first, *points[2:]), expected)


def test_the_positive_pair_is_two_views_of_one_image() -> None:
    first = torch.eye(4, dtype=torch.float64)
    right, wrong = float(con(first, first)), float(con(first, first.roll(1, 0)))
    # By hand: the similarity of the pair is 1/t, and that of the six others is 0.
    expected = -(1 / TEMPERATURE) + torch.logsumexp(
        torch.tensor([1 / TEMPERATURE] + [0.0] * 6, dtype=torch.float64), 0
    )
    assert right == pytest.approx(float(expected))
    assert wrong > right + 4


def test_a_single_image_gives_no_loss_of_pairs_of_images() -> None:
    first, second = (unit(part).requires_grad_() for part in free(0, 2).chunk(2))
    for loss in (con, positive_pair_loss):
        value = loss(first, second)
        assert value.item() == pytest.approx(0, abs=1e-12)
        gradients = torch.autograd.grad(value, [first, second], allow_unused=True)
        assert all(g is None or float(g.abs().max()) < 1e-12 for g in gradients)
    assert neg(first, second, unit(free(1, 1))).item() > 0


@given(SEEDS, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_gradients_of_equal_views_are_finite(seed: int, count: int) -> None:
    point = free(seed, 1).expand(count, -1).clone().requires_grad_()
    first = unit(point)
    total = con(first, first) + positive_pair_loss(first, first) + neg(first, first, first)
    assert torch.isfinite(total)
    (gradient,) = torch.autograd.grad(total, point)
    assert torch.isfinite(gradient).all()
