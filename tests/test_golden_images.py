"""Golden images: every load tests decoding, resizing and the model, and differences are found."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fsad_edge import Model, load_image
from fsad_edge.errors import GoldenImageError, ModelFileError
from fsad_edge.runtime.golden_images import (
    GOLDEN_IMAGES,
    GoldenImage,
    check_golden_images,
    make_golden_images,
)
from fsad_edge.runtime.images import decode
from fsad_edge.runtime.preparation import Preparation
from tests.conftest import Job, photograph

SIZE = (32, 48)
PREPARATION = Preparation(*SIZE)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shots")
    paths = [folder / f"{index}.png" for index in range(GOLDEN_IMAGES + 1)]
    for index, path in enumerate(paths):
        photograph(np.random.default_rng(index)).save(path)
    return paths


@pytest.fixture(scope="module")
def golden(shots: list[Path]) -> list[GoldenImage]:
    return make_golden_images(shots, PREPARATION, lambda image: float(load_image(image).mean()))


def check(
    golden: list[GoldenImage],
    score: Callable[[object], float],
    threshold: float = 1.0,
    tolerance: float = 0.01,
) -> None:
    check_golden_images(golden, PREPARATION, score, threshold, tolerance, "CPUExecutionProvider")


def test_a_few_shots_are_made_larger_than_the_model_s_input(
    shots: list[Path], golden: list[GoldenImage]
) -> None:
    assert [one.name for one in golden] == [path.name for path in shots[:GOLDEN_IMAGES]]
    for one in golden:
        whole = load_image(one.image)
        assert one.score == whole.mean()
        assert whole.shape[0] >= 2 * SIZE[0]
        assert whole.shape[1] >= 2 * SIZE[1]
    for one, path in zip(golden, shots, strict=False):
        made, photograph = load_image(one.image).shape, load_image(path).shape
        assert np.less_equal(made, photograph).all()  # never larger than the photograph
        # A JPEG of that size is decoded at a smaller scale, so that every load tests that too.
        assert decode(one.image, at_least=SIZE).height < whole.shape[0]


def test_equal_scores_pass(golden: list[GoldenImage]) -> None:
    scores = iter([one.score for one in golden])

    def score(image: object) -> float:
        assert isinstance(image, np.ndarray)
        assert image.shape == (*SIZE, 3)
        return next(scores)

    check(golden, score)
    assert next(scores, None) is None  # all of them were scored
    check([], score)


@given(st.floats(1e-3, 10), st.floats(1e-3, 10), st.floats(1e-4, 0.5), st.floats(0.5, 2))
def test_differences_are_relative_to_the_larger_of_score_and_threshold(
    golden: list[GoldenImage], score: float, threshold: float, tolerance: float, share: float
) -> None:
    recorded = [dataclasses.replace(golden[0], score=score)]
    found = score + share * tolerance * max(score, threshold)
    if share < 0.999:
        check(recorded, lambda image: found, threshold, tolerance)
    elif share > 1.001:
        with pytest.raises(GoldenImageError, match=r"golden image 0\.png scores .* doctor"):
            check(recorded, lambda image: found, threshold, tolerance)


def test_a_score_that_is_no_number_is_refused(golden: list[GoldenImage]) -> None:
    with pytest.raises(GoldenImageError, match="scores nan here"):
        check(golden, lambda image: math.nan)


def test_a_golden_image_that_is_no_image_is_refused(golden: list[GoldenImage]) -> None:
    for data in (b"", b"no image", golden[0].image[:300]):
        broken = [dataclasses.replace(golden[0], image=data)]
        with pytest.raises(ModelFileError, match=r"golden image 0\.png .*: export it again\.$"):
            check(broken, lambda image: 1.0)


def test_an_exported_file_scores_its_golden_images(job: Job) -> None:
    with Model.load(job.file, "cpu") as model:
        assert len(model.metadata.golden) == GOLDEN_IMAGES
        for one in model.metadata.golden:
            assert model.score(one.image).score == pytest.approx(one.score, rel=1e-4)
            mirrored = Image.fromarray(load_image(one.image)[:, ::-1])
            assert model.score(np.asarray(mirrored)).score != one.score
