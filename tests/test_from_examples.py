"""A threshold from examples: where it lies, and what is said of both errors."""

from __future__ import annotations

import pytest

from fsad_edge.calibration.examples import Example, errors_at
from fsad_edge.calibration.from_examples import threshold_from_examples
from fsad_edge.calibration.threshold import threshold_from_scores
from fsad_edge.errors import InputError

SHOTS = threshold_from_scores([0.10, 0.11, 0.12, 0.10, 0.11], 0.01)


def some(kind: str, *scores: float) -> list[Example]:
    return [Example(f"{kind}-{number}.png", score) for number, score in enumerate(scores, 1)]


def test_a_boundary_between_good_and_bad_examples_is_found() -> None:
    good, bad = some("good", 0.09, 0.11, 0.1), some("bad", 0.15, 0.25, 0.3)
    found = threshold_from_examples(SHOTS, True, good, bad)
    assert 0.11 < found.threshold.value < 0.15
    assert (found.after.missed.wrong, found.after.rejected.wrong) == (0, 0)
    assert found.before.missed.wrong == 1
    assert found.sentences == (
        "0 of 3 bad parts missed: at most 63 % at 95 %",
        "0 of 3 good parts rejected: at most 63 % at 95 %",
    )


def test_an_example_on_the_wrong_side_is_named() -> None:
    good, bad = some("good", 0.1, 0.35), some("bad", 0.2, 0.3)
    found = threshold_from_examples(SHOTS, True, good, bad)
    assert any("good-2.png was called good" in said for said in found.contradictions)


def test_examples_are_needed() -> None:
    with pytest.raises(InputError, match="no example"):
        threshold_from_examples(SHOTS, True, [], [])
    with pytest.raises(InputError, match=r"good-1\.png"):
        threshold_from_examples(SHOTS, True, some("good", float("nan")), [])


def test_errors_are_counted_as_the_model_decides() -> None:
    errors = errors_at(0.2, some("good", 0.1, 0.2, 0.3), some("bad", 0.2, 0.21))
    assert (errors.rejected.wrong, errors.missed.wrong) == (1, 1)
