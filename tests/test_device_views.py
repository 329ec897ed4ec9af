"""Views and defects that are computed in torch, as on a GPU, beside those of numpy and Pillow."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.runtime.images import resize
from fsad_edge.synthesis import DEFECTS, Shot, Views, add_defect, generators, random_view
from fsad_edge.training.device_views import DeviceViews, draw_defects, draw_views
from fsad_edge.training.encoder import pretrained_encoder
from fsad_edge.training.loop import Losses, train_contrastively
from fsad_edge.training.settings import TrainingSettings
from tests.conftest import SIZE, photograph

CPU = torch.device("cpu")
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([(64, 64), (48, 96), (96, 32)])

#: The same ranges as they come, wide ones, and an exposure alone.
RANGES = st.sampled_from(
    [
        Views(noise=0),
        Views(rotate=180, flip=True, shift=0.1, zoom=0.2, noise=0),
        Views(rotate=0, shift=0, zoom=0, brightness=0.5, contrast=0.5, noise=0),
    ]
)


def shots_of(height: int, width: int, count: int = 3) -> list[Shot]:
    shots = []
    for seed in range(count):
        whole = np.asarray(photograph(np.random.default_rng(seed), 200))
        canvas = resize(whole, 2 * height, 2 * width)
        image = resize(whole, height, width)
        shots.append(Shot(Path(f"{seed}.png"), "", (200, 200), image, canvas))
    return shots


#: So near to squares that Pillow's mirrored borders suffice at any angle.
NEARLY_SQUARE = st.sampled_from([(64, 64), (48, 64), (96, 80)])


@given(SEEDS, NEARLY_SQUARE, RANGES)
@settings(max_examples=25, deadline=None)
def test_a_view_in_torch_is_the_view_in_pillow(
    seed: int, size: tuple[int, int], views: Views
) -> None:
    """The same draws give the same view: nothing is turned, moved or mirrored the other way."""
    shots = shots_of(*size)
    drawn = draw_views(np.arange(3), views, *size, np.random.default_rng(seed))
    made = DeviceViews(shots, views, CPU, 0).views(drawn)
    assert made.shape == (3, 3, *size)
    assert torch.equal(made, made.round().clamp(0, 255))
    rng = np.random.default_rng(seed)
    for shot, view in zip(shots, made, strict=True):
        expected = torch.from_numpy(random_view(shot.canvas, *size, views, rng).copy())
        # Where the photograph is mirrored at its borders, it may be off by a pixel.
        difference = (view.permute(1, 2, 0) - expected).abs()
        assert difference.mean() < 2.5
        assert difference.quantile(0.7) <= 2


def test_sensor_noise_has_the_deviation_that_is_asked_for() -> None:
    still = Views(rotate=0, shift=0, zoom=0, brightness=0, contrast=0, noise=5)
    shots = shots_of(64, 64, 1)
    grey = Shot(shots[0].path, "", (200, 200), *(np.full_like(shots[0].canvas, 128),) * 2)
    drawn = draw_views(np.zeros(8, int), still, 64, 64, np.random.default_rng(0))
    made = DeviceViews([grey], still, CPU, 0).views(drawn)
    assert abs(float(made.mean()) - 128) < 0.1
    assert abs(float(made.std()) - 5) < 0.1
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("kind", sorted(DEFECTS))
@given(SEEDS, SIZES)
@settings(max_examples=12, deadline=None)
def test_a_defect_in_torch_is_the_defect_in_numpy(
    kind: str, seed: int, size: tuple[int, int]
) -> None:
    [shot] = shots_of(*size, count=1)
    device = DeviceViews([shot], Views(), CPU, 0)
    image = torch.from_numpy(shot.image.copy()).permute(2, 0, 1)[None].float()
    drawn = draw_defects(1, *size, np.random.default_rng(seed), kind)
    [made] = device.with_defects(image, drawn)
    [own] = generators(np.random.default_rng(seed), 1)
    expected, _ = add_defect(shot.image, own, kind)
    difference = (made.permute(1, 2, 0) - torch.from_numpy(expected)).abs()
    if kind == "smear":  # Pillow's Gaussian is three boxes
        assert difference.mean() < 2
    else:
        assert difference.max() <= 1


def test_a_defect_that_does_not_show_is_drawn_again_alone() -> None:
    """A piece of a blank image changes nothing where it is moved, unless it is brightened."""
    [shot] = shots_of(64, 64, 1)
    device = DeviceViews([shot], Views(), CPU, 0)
    drawn = draw_defects(8, 64, 64, np.random.default_rng(0), "scar")
    shown = [abs(defect.gain - 1) * 60 > 7 for defect in drawn.defects]
    assert len(set(shown)) == 2
    made = device.with_defects(torch.full((8, 3, 64, 64), 60.0), drawn).byte().permute(0, 2, 3, 1)
    blank = np.full((64, 64, 3), 60, np.uint8)
    for one, own in zip(made.numpy(), generators(np.random.default_rng(0), 8), strict=True):
        expected, mask = add_defect(blank, own, "scar")
        assert mask.any()
        assert np.abs(one.astype(int) - expected).max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_computes_the_same_pixels() -> None:
    shots, still, gpu = shots_of(64, 64), Views(noise=0), torch.device("cuda")
    views = draw_views(np.arange(3), still, 64, 64, np.random.default_rng(0))
    defects = draw_defects(3, 64, 64, np.random.default_rng(1))
    made = []
    for device in (CPU, gpu):
        images = DeviceViews(shots, still, device, 0)
        made.append(images.with_defects(images.views(views), defects).cpu())
    assert (made[0] - made[1]).abs().mean() < 0.1


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_training_as_on_a_gpu_learns_what_training_on_the_cpu_does(
    backbones: dict[str, str], kind: str
) -> None:
    start = pretrained_encoder(backbones[kind], None, SIZE, SIZE, [16])
    shots, training = shots_of(SIZE, SIZE, 10), TrainingSettings(epochs=3, learning_rate=1e-4)
    trained, first = [], []
    for on_device in (False, True, True):
        encoder, losses = copy.deepcopy(start), dict[int, Losses]()

        def note(step: int, steps: int, loss: Losses, kept: dict[int, Losses] = losses) -> None:
            assert steps == 6
            kept[step] = loss

        train_contrastively(encoder, shots, training, CPU, note, on_device)
        assert list(losses) == [1, 2, 3, 4, 5, 6]
        first.append(losses[1].total)
        assert all(value.is_contiguous() for value in encoder.state_dict().values())
        assert not encoder.training
        trained.append(torch.cat([value.detach().ravel() for value in encoder.parameters()]))
    before = torch.cat([value.detach().ravel() for value in start.parameters()])
    assert torch.equal(trained[1], trained[2])
    # Other views are drawn, but the loss begins alike, and the weights change as much.
    assert first[1] == pytest.approx(first[0], rel=0.25)
    changes = [(weights - before).norm() for weights in trained[:2]]
    assert float(changes[1]) == pytest.approx(float(changes[0]), rel=0.5)
