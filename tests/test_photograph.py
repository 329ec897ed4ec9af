"""The photograph check: bad photographs are flagged, good ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fsad_edge import Model
from fsad_edge.runtime.photograph import (
    PhotographCheck,
    find_shift,
    image_quality,
    measure_appearance,
)
from tests.conftest import Job, photograph

UInt8 = NDArray[np.uint8]


def shots() -> list[UInt8]:
    rng = np.random.default_rng(0)
    return [np.asarray(photograph(rng, 64)) for _ in range(5)]


def blurred(image: UInt8) -> UInt8:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)))


def test_bad_photographs_are_flagged_and_good_ones_are_not() -> None:
    check = PhotographCheck(measure_appearance(shots()))
    rng = np.random.default_rng(1)
    good = [np.asarray(photograph(rng, 64)) for _ in range(40)]
    assert sum(bool(check.check(image)) for image in good) <= 1
    for image in good[:10]:
        assert "dark" in check.check((image * 0.4).astype(np.uint8))
        assert "bright" in check.check((255 - (255 - image) * 0.2).astype(np.uint8))
        assert "flat" in check.check((image * 0.1 + 105).astype(np.uint8))
        assert "blurred" in check.check(blurred(image))
        assert check.check(np.roll(image, (8, -6), (0, 1))) == ["shifted"]


def test_a_shift_is_looked_for_only_where_the_shots_are_aligned() -> None:
    rng = np.random.default_rng(0)
    scattered = [np.roll(image, rng.integers(0, 64, 2), (0, 1)) for image in shots()]
    for images in (scattered, shots()[:2]):
        appearance = measure_appearance(images)
        assert appearance.similarity is None
        assert "shifted" not in PhotographCheck(appearance).check(np.roll(shots()[0], 9, 0))


@given(st.integers(-12, 12), st.integers(-12, 12), st.integers(0, 99))
@settings(deadline=None)
def test_a_shift_is_measured(down: int, right: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(32, 32)).astype(np.float32)
    shift, peak = find_shift(np.roll(image, (down, right), (0, 1)), image)
    # With a large shift half of the image is another one, and the window hides the rest.
    if abs(down) < 8 and abs(right) < 8:
        assert shift == (down, right)
    assert 0 < peak <= 1.001


@given(st.integers(16, 80), st.integers(16, 80), st.integers(0, 99), st.booleans())
@settings(deadline=None)
def test_any_image_is_measured(height: int, width: int, seed: int, plain: bool) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    if plain:
        image[:] = seed
    quality = image_quality(image)
    green = image[:, :, 1].astype(np.float64)
    assert quality.brightness == pytest.approx(green.mean(), abs=0.01)
    assert quality.contrast == pytest.approx(green.std() / max(green.mean(), 1), abs=0.01)
    assert np.isfinite([quality.sharpness, *quality.small.ravel()]).all()
    assert quality.small.shape == (32, 32)
    assert quality.small.mean() == pytest.approx(green.mean(), abs=8)
    assert PhotographCheck(measure_appearance([image])).check(image) == []


def test_an_exported_file_knows_its_shots(job: Job) -> None:
    with Model.load(job.file, "cpu") as model:
        metadata = model.metadata
    assert len(metadata.appearance.brightness) == 5
    check = PhotographCheck(metadata.appearance)
    image = np.asarray(photograph(np.random.default_rng(3)).resize((64, 64)))
    assert check.check(image) == []
    assert "dark" in check.check(image // 4)
    assert "mean_image" not in metadata.summary()["appearance"]
