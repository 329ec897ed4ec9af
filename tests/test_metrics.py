"""The metrics equal scikit-learn's and a brute-force AUPRO; the evaluation and its picture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

from fsad_edge.errors import InputError
from fsad_edge.evaluation import Mask, Sample, evaluate_results
from fsad_edge.evaluation.metrics import PixelMetrics, image_auroc
from fsad_edge.evaluation.report import write_report
from fsad_edge.evaluation.report_words import About
from fsad_edge.options import Doubt
from fsad_edge.runtime.found_regions import Region

Maps = list[tuple[NDArray[np.float32], NDArray[np.bool_]]]


def brute_force_aupro(images: Maps, limit: float) -> float:
    """AUPRO with every distinct score as a threshold, 8-connected regions and trapezoids."""
    normal = np.concatenate([m[~mask] for m, mask in images])
    regions = []
    for m, mask in images:
        labels, count = label(mask, np.ones((3, 3)))
        regions += [m[labels == i] for i in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for t in sorted({float(v) for m, _ in images for v in m.ravel()}, reverse=True):
        overlap = float(np.mean([(r >= t).mean() for r in regions]))
        points.append((float((normal >= t).mean()), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (limit - x0) / (x1 - x0) * (y1 - y0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def pixel_metrics(images: Maps, bins: int = 20_000) -> PixelMetrics:
    metrics = PixelMetrics(bins=bins)
    for anomaly_map, mask in images:
        metrics.add(anomaly_map, mask)
    return metrics


def exact_auroc(images: Maps) -> float:
    truth = np.concatenate([mask.ravel() for _, mask in images])
    return float(roc_auc_score(truth, np.concatenate([m.ravel() for m, _ in images])))


@st.composite
def small_images(draw: st.DrawFn, values: st.SearchStrategy[float]) -> Maps:
    """One to three maps at the size of their masks, with normal and defective pixels."""
    images: Maps = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
        mask = draw(hnp.arrays(np.bool_, shape))
        images.append((draw(hnp.arrays(np.float32, shape, elements=values)), mask))
    images[0][1].flat[0] = True
    images.append((np.full((1, 2), draw(values), np.float32), np.zeros((1, 2), dtype=bool)))
    return images


LIMITS = st.sampled_from([0.05, 0.3, 0.5, 1.0])


# Multiples of 1/8 are the edges of 16 bins from 0 to 2, so binning loses nothing.
@given(small_images(st.integers(0, 15).map(lambda n: n / 8)), LIMITS)
@settings(deadline=None)
def test_metrics_of_scores_on_bin_edges_are_exact(images: Maps, limit: float) -> None:
    metrics = pixel_metrics(images, bins=16)
    assert metrics.auroc() == pytest.approx(exact_auroc(images), abs=1e-12)
    assert metrics.aupro(limit) == pytest.approx(brute_force_aupro(images, limit), abs=1e-9)


@given(small_images(st.floats(0, 2, width=32)), LIMITS, st.sampled_from([1, 3, 10, 200, 20_000]))
@settings(deadline=None)
def test_metrics_of_other_scores_differ_by_no_more_than_the_bound(
    images: Maps, limit: float, bins: int
) -> None:
    metrics = pixel_metrics(images, bins)
    auroc, aupro = metrics.auroc(), metrics.aupro(limit)
    assert auroc is not None
    assert aupro is not None
    assert abs(auroc - exact_auroc(images)) <= metrics.auroc_error() + 1e-9
    assert abs(aupro - brute_force_aupro(images, limit)) <= metrics.aupro_error(limit) + 1e-9
    assert 0 <= auroc <= 1
    assert 0 <= aupro <= 1 + 1e-12


def test_the_default_bins_are_fine_enough() -> None:
    rng = np.random.default_rng(0)
    images: Maps = []
    for _ in range(8):
        mask = np.zeros((48, 48), dtype=bool)
        y, x = rng.integers(0, 40, 2)
        mask[y : y + 8, x : x + 5] = True
        scores = rng.normal(0.3, 0.05, mask.shape) + 0.07 * mask
        images.append((scores.clip(0, 2).astype(np.float32), mask))
    metrics = pixel_metrics(images)
    assert metrics.auroc_error() < 5e-4
    assert metrics.aupro_error() < 2e-3
    assert metrics.auroc() == pytest.approx(exact_auroc(images), abs=5e-5)
    assert metrics.aupro() == pytest.approx(brute_force_aupro(images, 0.3), abs=5e-4)


def test_maps_are_stretched_to_the_mask() -> None:
    anomaly_map = np.zeros((14, 14), dtype=np.float32)
    anomaly_map[3:6, 9:12] = 1.0
    mask = np.zeros((140, 280), dtype=bool)
    mask[30:60, 180:240] = True
    metrics = pixel_metrics([(anomaly_map, mask)])
    auroc, aupro = metrics.auroc(), metrics.aupro()
    assert auroc is not None
    assert auroc > 0.99
    assert aupro is not None
    assert aupro > 0.95


def test_small_regions_count_as_much_as_large_ones() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:10] = True
    mask[19, 19] = True
    anomaly_map = np.where(mask, 1.0, 0.5).astype(np.float32)
    anomaly_map[19, 19] = 0.0  # the small region is missed, the large one is found first
    assert pixel_metrics([(anomaly_map, mask)]).aupro() == pytest.approx(0.5, abs=0.01)


def test_touching_corners_are_one_region() -> None:
    mask = np.eye(4, dtype=bool)
    anomaly_map = np.zeros((4, 4), dtype=np.float32)
    anomaly_map[0, 0] = 1.0
    expected = brute_force_aupro([(anomaly_map, mask)], 0.3)
    assert pixel_metrics([(anomaly_map, mask)]).aupro() == pytest.approx(expected)


def test_missing_classes_have_no_figure() -> None:
    some = np.full((2, 2), 0.5, dtype=np.float32)
    for mask in (np.zeros((2, 2), dtype=bool), np.ones((2, 2), dtype=bool)):
        metrics = pixel_metrics([(some, mask)])
        assert metrics.auroc() is None
        assert metrics.aupro() is None
    assert PixelMetrics().auroc() is None
    assert image_auroc([1.0, 2.0], [True, True]) is None
    assert image_auroc([], []) is None


@pytest.mark.parametrize("value", [2.5, -0.5, float("nan")])
def test_map_values_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        PixelMetrics().add(np.full((2, 2), value, np.float32), np.zeros((2, 2), dtype=bool))


def test_a_distance_rounded_below_zero_is_accepted() -> None:
    PixelMetrics().add(np.full((2, 2), -1e-6, np.float32), np.ones((2, 2), dtype=bool))


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        PixelMetrics(1.0, 1.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_image_auroc_counts_pairs(drawn: list[tuple[int, bool]]) -> None:
    good = [score for score, defective in drawn if not defective]
    bad = [score for score, defective in drawn if defective]
    pairs = [(b > g) + 0.5 * (b == g) for b in bad for g in good]
    auroc = image_auroc([float(score) for score, _ in drawn], [d for _, d in drawn])
    assert auroc == (pytest.approx(np.mean(pairs)) if pairs else None)


@dataclass
class FakeResult:
    score: float
    anomaly_map: NDArray[np.float32]
    map_threshold: float = 0.5
    doubts: tuple[Doubt, ...] = ()
    regions: tuple[Region, ...] = ()
    more_regions: int = 0


def labelled(folder: Path, defects: bool = True) -> tuple[list[Sample], list[FakeResult]]:
    """Four good parts, three dents with masks, two 'a$b$' without masks; odd names and shapes."""
    rng = np.random.default_rng(0)
    samples, results = [], []
    kinds: list[str | None] = [None] * 4 + (["dent"] * 3 + ["a$b$"] * 2 if defects else [])
    for index, kind in enumerate(kinds):
        height, width = (60, 40) if index % 2 else (40, 160)
        path = folder / f"{index}_$x$_{'long' * (20 * index)}"[:200]
        path = path.with_name(path.name + ".png")
        Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).save(path)
        anomaly_map = rng.uniform(0.1, 0.3, (8, 8)).astype(np.float32)
        mask = None
        if kind == "dent":
            marked = np.zeros((height, width), dtype=np.uint8)
            marked[: height // 2, : width // 2] = 255
            file = folder / f"{index}_mask.png"
            Image.fromarray(marked).save(file)
            mask = Mask((file,), path)
            anomaly_map[:4, :4] += 0.5
        samples.append(Sample(path, kind, mask))
        results.append(FakeResult(float(anomaly_map.max()), anomaly_map))
    return samples, results


def test_an_evaluation_counts_every_image(tmp_path: Path) -> None:
    samples, results = labelled(tmp_path)
    found = evaluate_results(samples, results, 0.4)
    assert (found.n_good, found.n_defective, found.n_masked) == (4, 5, 3)
    assert (found.false_alarms, found.false_alarm_rate) == (0, 0.0)
    assert (found.missed, found.miss_rate) == (2, 0.4)
    assert found.image_auroc is not None
    assert 0.6 < found.image_auroc <= 1
    assert found.pixel_auroc is not None
    assert found.pixel_auroc > 0.95
    assert found.aupro is not None
    assert found.aupro > 0.8
    assert [(row.defect, row.n, row.missed) for row in found.by_defect] == [
        ("a$b$", 2, 2),
        ("dent", 3, 0),
    ]
    assert found.by_defect[1].image_auroc == 1.0


def test_what_is_not_judged_is_no_false_alarm_and_no_miss(tmp_path: Path) -> None:
    samples, results = labelled(tmp_path)
    plain = evaluate_results(samples, results, 0.2)
    assert (plain.false_alarms, plain.missed) == (4, 0)
    for index in (0, 4, 5, 7):  # a good part, two dents and one of the others
        results[index].doubts = (Doubt.UNLIKE,)
    found = evaluate_results(samples, results, 0.2)
    assert (found.n_good, found.false_alarms, found.not_judged_good) == (4, 3, 1)
    assert found.false_alarm_rate == 0.75
    assert (found.n_defective, found.missed, found.not_judged_defective) == (5, 0, 3)
    assert [(row.defect, row.n, row.missed, row.not_judged) for row in found.by_defect] == [
        ("a$b$", 2, 0, 1), ("dent", 3, 0, 2),
    ]  # fmt: skip
    areas = ("image_auroc", "pixel_auroc", "aupro")
    assert [getattr(found, name) for name in areas] == [getattr(plain, name) for name in areas]
    missed = evaluate_results(samples, results, 10.0)
    assert (missed.false_alarms, missed.missed, missed.miss_rate) == (0, 2, 0.4)
    assert [(row.missed, row.miss_rate) for row in missed.by_defect] == [(1, 0.5), (1, 1 / 3)]


def test_an_evaluation_without_masks_or_defects(tmp_path: Path) -> None:
    samples, results = labelled(tmp_path, defects=False)
    found = evaluate_results(samples, results, 0.2)
    assert found.false_alarm_rate == 1.0
    assert (found.image_auroc, found.pixel_auroc, found.aupro, found.miss_rate) == (None,) * 4
    assert found.by_defect == ()


def test_an_evaluation_refuses_results_that_it_cannot_use(tmp_path: Path) -> None:
    samples, results = labelled(tmp_path)
    with pytest.raises(ValueError, match="results for"):
        evaluate_results(samples, results[1:], 0.4)
    with pytest.raises(InputError, match="no good image"):
        evaluate_results(samples[4:], results[4:], 0.4)
    results[2].score = float("nan")
    with pytest.raises(InputError, match="not a number"):
        evaluate_results(samples, results, 0.4)


@pytest.mark.parametrize("defects", [True, False])
@pytest.mark.parametrize("judged", [True, False])
def test_the_report_is_a_picture(tmp_path: Path, defects: bool, judged: bool) -> None:
    samples, results = labelled(tmp_path, defects)
    if not judged:
        results[0].doubts = results[-1].doubts = (Doubt.UNLIKE,)
    found = evaluate_results(samples, results, 0.25)
    path = tmp_path / "report.png"
    write_report(found, samples, results, path, About("a $title$ of parts"))
    with Image.open(path) as image:
        image.load()
        assert image.width == 1800
        assert image.height > 800
    assert not list(tmp_path.glob(".report*"))


def test_a_report_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    samples, results = labelled(tmp_path)
    found = evaluate_results(samples, results, 0.25)
    with pytest.raises(InputError, match="cannot be written"):
        write_report(found, samples, results, tmp_path / "nowhere" / "report.png")


def test_a_score_that_is_not_a_number_has_no_auroc() -> None:
    with pytest.raises(ValueError, match="not a number"):
        image_auroc([1.0, math.nan], [False, True])
