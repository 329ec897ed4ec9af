"""What rejected rows do to images that were called good, in any order and in the next process."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsad_edge import Model
from fsad_edge.learning.embedding import novelty_of, prepare, rejected_of, telling_of
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.taught import Taught
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.bank import patch_scores
from tests.conftest import Job, photograph


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def model(file: Path) -> Iterator[Model]:
    with Model.load(file, "cpu", threads=1) as loaded:
        yield loaded


def grooved(seed: int) -> bytes:
    """A plate with a groove next to the hole, which the shots do not have."""
    image = photograph(np.random.default_rng(seed))
    image.paste((96, 99, 106), (8, 78, 88, 86))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def score(model: Model, taught: Taught, image: bytes) -> float:
    patches = model.embed(prepare(model, image)[None])["patches"]
    return float(patch_scores(patches, taught.reference())[0])


def test_rejected_rows_leave_a_learned_image_alone_that_adds_no_row(model: Model) -> None:
    bad, good = grooved(0), grooved(1)
    taught = Taught(model)
    plain = score(model, taught, good)
    taught.reject(rejected_of(model, bad, None))
    before = taught.copy()
    assert score(model, before, good) > 1.1 * plain
    prepared = prepare(model, good)
    novelty = novelty_of(model, prepared)
    taught.learn(novelty, novelty.upright[:0], False, lambda: telling_of(model, prepared))
    assert score(model, taught, good) == pytest.approx(plain, rel=1e-3)
    assert not taught.bank_is(before)
    assert score(model, before, good) > 1.1 * plain  # what it was copied from is as it was


def test_patches_of_learned_images_are_looked_for_where_something_is_rejected(
    model: Model,
) -> None:
    def refuse() -> Float32Array:
        raise AssertionError("nothing is rejected")

    taught = Taught(model)
    novelty = novelty_of(model, prepare(model, grooved(1)))
    taught.learn(novelty, novelty.upright, True, refuse)
    taught.reference()
    taught.reject(rejected_of(model, grooved(0), None))
    with pytest.raises(AssertionError, match="nothing"):
        taught.reference()


def test_the_next_process_and_undo_find_the_same_reach(file: Path, model: Model) -> None:
    def arrays(learner: Learner) -> bytes:
        return b"".join(value.tobytes() for value in learner.reference.as_inputs().values())

    with Learner.open(file, model) as learner:
        learner.set_threshold("Anna", ratio=10, force=True)
        kept = learner.reject(grooved(0), "Anna")
        rejected = arrays(learner)
        learner.add(grooved(1), "Ben", force=True)
        both = arrays(learner)
        assert kept.rows
        assert rejected != both
    with Model.load(file, "cpu") as other, Learner.open(file, other) as learner:
        assert arrays(learner) == both
        learner.undo(who="Ben", force=True)
        assert arrays(learner) == rejected
        learner.add(grooved(1), "Ben", force=True)
        assert arrays(learner) == both
