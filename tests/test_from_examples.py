"""A threshold from examples: where it lies, what may move it, and what is said of both errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fsad_edge.calibration.examples import Example, errors_at
from fsad_edge.calibration.from_examples import (
    LEAST_SHARE,
    MOST_SHARE,
    ExampleThreshold,
    threshold_from_examples,
)
from fsad_edge.calibration.prediction import predict_score
from fsad_edge.calibration.threshold import threshold_from_one_shot, threshold_from_scores
from fsad_edge.errors import InputError

STD = 0.12
SHOTS = threshold_from_scores([0.10, 0.11, 0.12, 0.10, 0.11], 0.01, STD)

score = st.floats(0.01, 1)
scores = st.lists(score, max_size=12)
shots = st.lists(score, min_size=2, max_size=10)


def some(kind: str, *values: float) -> list[Example]:
    return [Example(f"{kind}-{number}.png", value) for number, value in enumerate(values, 1)]


def found(
    normal: list[float], good: list[float], bad: list[float], rate: float | None = None
) -> ExampleThreshold:
    threshold = threshold_from_scores(normal, 0.01, STD)
    return threshold_from_examples(threshold, True, some("good", *good), some("bad", *bad), rate)


def test_a_boundary_between_good_and_bad_examples_is_found() -> None:
    best = threshold_from_examples(
        SHOTS, True, some("good", 0.09, 0.11, 0.1), some("bad", 0.143, 0.25, 0.3)
    )
    assert 0.12 < best.threshold.value < 0.143 < SHOTS.value
    assert best.before.missed.wrong == 1
    assert best.sentences == (
        "0 of 3 bad parts missed: at most 63 % of all such parts, with 95 % confidence",
        "0 of 3 good parts rejected: at most 63 % of all such parts, with 95 % confidence",
    )
    assert best.threshold.scores == [0.09, 0.1, 0.1, 0.1, 0.11, 0.11, 0.11, 0.12]
    assert best.threshold.rate_promised


def test_what_catching_a_missed_example_would_cost_is_said() -> None:
    best = threshold_from_examples(SHOTS, True, some("good", 0.1), some("bad", 0.115, 0.3))
    assert best.after.missed.wrong == 1
    assert best.expected_false_alarm_rate == pytest.approx(MOST_SHARE * 0.01, rel=1e-3)
    assert not best.threshold.rate_promised
    (said,) = best.contradictions
    assert "bad-1.png was called bad and scores 0.8" in said
    share = float(said.split("about ")[1].split(" %")[0])
    expected = predict_score([*SHOTS.scores, 0.1], STD).share_above(0.115)
    assert share == pytest.approx(100 * expected, rel=0.05)


@given(shots, scores, scores)
def test_examples_move_the_threshold_between_two_bounds(
    normal: list[float], good: list[float], bad: list[float]
) -> None:
    assume(good or bad)
    best, before = found(normal, good, bad), threshold_from_scores(normal, 0.01, STD).value
    expected = best.expected_false_alarm_rate
    assert expected is not None
    assert expected >= LEAST_SHARE * 0.01 * 0.99
    # It may be lower only because no good example asks for a higher one than before, or because a
    # higher one would miss a bad example that was found.
    found_before = [pytest.approx(one, rel=1e-5) for one in bad if one > before]
    lower = [before, *found_before]
    assert expected <= MOST_SHARE * 0.01 * 1.01 or best.threshold.value in lower


@given(shots, scores, scores)
def test_no_bad_example_that_was_rejected_is_missed_afterwards(
    normal: list[float], good: list[float], bad: list[float]
) -> None:
    assume(bad)
    best, before = found(normal, good, bad), threshold_from_scores(normal, 0.01, STD).value
    assert all(one > best.threshold.value for one in bad if one > before)


def test_a_bad_example_that_a_lower_threshold_finds_stays_found() -> None:
    good, bad = some("good", 0.13), some("bad", 0.115)
    free = threshold_from_examples(SHOTS, True, good, bad)
    assert free.threshold.value > 0.115
    held = threshold_from_examples(SHOTS, True, good, bad, present=0.09)
    assert 0.09 < held.threshold.value < 0.115


def test_examples_that_overlap_do_not_raise_the_threshold_above_the_bad_ones() -> None:
    best = threshold_from_examples(SHOTS, True, some("good", 0.5, 0.6), some("bad", 0.3, 0.7))
    assert SHOTS.value < best.threshold.value < 0.3
    assert best.sentences[2] == (
        "no threshold separates these examples: 1 of 2 bad ones score no higher than the highest "
        "good one"
    )


@given(shots, scores, scores, st.floats(0.1, 10))
def test_the_threshold_scales_with_all_scores(
    normal: list[float], good: list[float], bad: list[float], scale: float
) -> None:
    assume(good or bad)
    plain = found(normal, good, bad).threshold.value
    normal, good, bad = ([scale * one for one in many] for many in (normal, good, bad))
    scaled = found(normal, good, bad)
    assert scaled.threshold.value == pytest.approx(scale * plain, rel=1e-3)


@given(shots, scores, scores, st.data())
def test_another_good_example_that_scores_low_never_raises_the_threshold(
    normal: list[float], good: list[float], bad: list[float], data: st.DataObject
) -> None:
    before = found(normal, good, bad).threshold.value if good or bad else math.inf
    low = min(float(np.exp(np.log(normal).mean())), *good, 1.0)
    more = data.draw(st.lists(st.floats(0.01, max(low, 0.01)), min_size=1, max_size=5))
    assert found(normal, [*good, *more], bad).threshold.value <= before * (1 + 1e-9)


@given(shots, scores)
def test_good_examples_that_are_accepted_do_not_raise_the_threshold(
    normal: list[float], good: list[float]
) -> None:
    value = threshold_from_scores(normal, 0.01, STD).value
    accepted = [one for one in good if one <= value]
    assume(accepted)
    assert found(normal, accepted, []).threshold.value <= value


@given(shots, scores, scores, score)
def test_another_bad_example_never_raises_the_threshold(
    normal: list[float], good: list[float], bad: list[float], more: float
) -> None:
    assume(good)  # else there is no threshold from examples to compare with
    # A good example that scores above the new one does not hold the threshold up any longer.
    assert (
        found(normal, good, [*bad, more]).threshold.value
        <= found(normal, good, bad).threshold.value
    )


@given(shots, score)
def test_one_bad_example_alone_moves_the_threshold_within_bounds(
    normal: list[float], bad: float
) -> None:
    shots_say = predict_score(threshold_from_scores(normal, 0.01, STD).scores, STD)
    best = found(normal, [], [bad])
    lowest = shots_say.score_at(MOST_SHARE * 0.01)
    assert lowest * 0.999 <= best.threshold.value <= shots_say.score_at(0.01) * 1.001
    if lowest < bad:
        assert best.after.missed.wrong == 0


@pytest.mark.parametrize("wrong", [0.35, 5.0, 1000.0])
def test_a_bad_part_that_was_called_good_does_not_wreck_the_threshold(wrong: float) -> None:
    good, bad = [0.1, 0.11, 0.12], [0.3, 0.35, 0.4]
    right, wrecked = found(SHOTS.scores, good, bad), found(SHOTS.scores, [*good, wrong], bad)
    assert wrecked.after.missed.wrong == 0
    assert right.threshold.value <= wrecked.threshold.value < 0.2
    (said,) = wrecked.contradictions
    above = sum(one <= wrong for one in bad)
    assert said.startswith("good-4.png was called good")
    assert said.endswith(f"above {above} of 3 bad ones")


def test_a_good_part_that_was_called_bad_is_named() -> None:
    best = found(SHOTS.scores, [0.1, 0.11, 0.12], [0.1, 0.3, 0.35])
    assert best.threshold.value > 0.12
    (said,) = best.contradictions
    assert "bad-1.png was called bad" in said
    assert "below 3 of 3 good ones" in said


def test_many_examples_outweigh_shots_that_mislead() -> None:
    """The shots were much alike: most good parts were rejected."""
    rng = np.random.default_rng(0)
    good, bad = np.exp(rng.normal(-1.7, 0.12, 200)), np.exp(rng.normal(-0.7, 0.2, 100))
    assert np.mean(good > SHOTS.value) > 0.8
    errors = []
    for number in (3, 20, 100):
        value = found(SHOTS.scores, good[:number].tolist(), bad[:number].tolist()).threshold.value
        errors.append((float(np.mean(good[100:] > value)), float(np.mean(bad[50:] <= value))))
    assert errors[0][0] < 0.1
    assert errors[-1][0] <= 0.03
    assert all(missed <= 0.05 for _, missed in errors)


def test_of_many_good_examples_the_asked_share_may_be_rejected() -> None:
    best = found(SHOTS.scores, [0.1] * 97 + [0.18, 0.19, 0.5], [], rate=0.03)
    assert best.after.rejected.wrong <= 3


def test_many_contradictions_are_counted_and_not_all_said() -> None:
    best = found(SHOTS.scores, [], [0.1 - 0.001 * number for number in range(20)])
    assert len(best.contradictions) == 20
    assert best.sentences[-1] == "15 more examples are on the wrong side"
    assert len(best.sentences) == 7


def test_the_asked_rate_can_be_another_one() -> None:
    strict, loose = (found(SHOTS.scores, [0.1], [], rate=rate) for rate in (0.001, 0.1))
    assert strict.threshold.value > SHOTS.value > loose.threshold.value
    assert (strict.threshold.false_alarm_rate, loose.threshold.false_alarm_rate) == (0.001, 0.1)


def test_views_of_a_single_shot_do_not_count_as_good_parts() -> None:
    single = threshold_from_one_shot([0.10, 0.11, 0.12, 0.11], 0.01, STD)
    best = threshold_from_examples(single, False, some("good", 0.1, 0.11), [])
    assert best.threshold.scores == [0.1, 0.11]
    assert not best.threshold.rate_promised
    by_bad = threshold_from_examples(single, False, [], some("bad", 0.15))
    assert 0.15 < by_bad.threshold.value < single.value
    assert by_bad.threshold.value == pytest.approx(
        threshold_from_one_shot(single.scores, MOST_SHARE * 0.01).value
    )
    assert by_bad.expected_false_alarm_rate is None


def test_examples_are_needed() -> None:
    with pytest.raises(InputError, match="no example"):
        threshold_from_examples(SHOTS, True, [], [])
    with pytest.raises(InputError, match=r"good-1\.png"):
        threshold_from_examples(SHOTS, True, some("good", float("nan")), [])
    with pytest.raises(InputError, match="false alarm rate"):
        threshold_from_examples(SHOTS, True, some("good", 0.1), [], 0.7)


def test_errors_are_counted_as_the_model_decides() -> None:
    errors = errors_at(0.2, some("good", 0.1, 0.2, 0.3), some("bad", 0.2, 0.21))
    assert (errors.rejected.wrong, errors.missed.wrong) == (1, 1)
