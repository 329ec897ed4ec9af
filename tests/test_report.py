"""The page that ``fsad-edge eval`` writes: what it says, shows and leaves out."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import fsad_edge
from fsad_edge.evaluation import Mask, Sample, evaluate_results
from fsad_edge.evaluation.report import write_report
from fsad_edge.evaluation.report_words import About, next_step, verdict
from fsad_edge.options import Doubt
from fsad_edge.runtime.found_regions import Region, regions_of
from tests.conftest import Cli, Job

SIZE = 64


@dataclass
class Fake:
    """A result with a map that is high in one corner, as high as the score."""

    score: float
    anomaly_map: NDArray[np.float32]
    regions: tuple[Region, ...]
    doubts: tuple[Doubt, ...] = ()
    map_threshold: float = 0.5
    more_regions: int = 0


@dataclass
class Page(HTMLParser):
    """A page's words, its headings and what it loads."""

    words: str = ""
    tags: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in {"style", "title"}:
            self.words += " " + data.replace("\N{NO-BREAK SPACE}", " ")


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    page.words = re.sub(r"\s+", " ", page.words)
    return page


def made(
    folder: Path, good: list[float], bad: list[float], masked: bool = True, kind: str = "dent"
) -> tuple[list[Sample], list[Fake]]:
    """Images with these scores at a threshold of 0.5."""
    samples, results = [], []
    mask = folder / "mask.png"
    marked = np.zeros((SIZE, SIZE), dtype=np.uint8)
    marked[:32, :32] = 255
    Image.fromarray(marked).save(mask)
    for index, (score, defect) in enumerate(
        [(one, None) for one in good] + [(one, kind) for one in bad]
    ):
        path = folder / f"{index}.png"
        Image.new("RGB", (SIZE, SIZE), (90, 100 + index % 50, 110)).save(path)
        anomaly_map = np.full((8, 8), 0.1, dtype=np.float32)
        anomaly_map[:4, :4] = score
        samples.append(Sample(path, defect, Mask((mask,), path) if defect and masked else None))
        found = regions_of(anomaly_map, 0.5, (SIZE, SIZE))
        results.append(Fake(score, anomaly_map, found))
    return samples, results


def drawn(folder: Path, samples: list[Sample], results: list[Fake], about: About) -> Page:
    path = folder / "report.html"
    write_report(evaluate_results(samples, results, 0.5), samples, results, path, about)
    return read(path)


ABOUT = About("part on parts", Path("my part.onnx"), 0.01)


def test_a_perfect_evaluation_says_so_and_its_curve_is_not_on_the_axes(tmp_path: Path) -> None:
    samples, results = made(tmp_path, [0.2] * 20, [0.9] * 10)
    page = drawn(tmp_path, samples, results, ABOUT)
    assert "It rejects 10 of 10 defective parts and 0 of 20 good parts." in page.words
    assert "nothing needs to be set" in page.words
    assert "the true share that it rejects may be anywhere from 69.2 to 100.0 %" in page.words
    for heading in ("Missed defects none", "False alarms none", "Not judged none"):
        assert heading in page.words
    source = (tmp_path / "report.html").read_text("utf-8")
    [curve] = re.findall(r'<polyline class="curve" points="([^"]+)"', source)
    axes = re.findall(r'<path class="axes" d="M([\d.]+) [\d.]+V([\d.]+)H[\d.]+"', source)[-1]
    corners = np.array([[float(x) for x in corner.split(",")] for corner in curve.split()])
    assert corners[:, 0].min() > float(axes[0]) + 5
    assert corners[:, 1].max() < float(axes[1]) - 5
    assert '<circle class="now"' in source


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    page = drawn(tmp_path, *made(tmp_path, [0.2, 0.6], [0.9, 0.4]), ABOUT)
    assert page.sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_all_mistakes_are_shown_or_named(tmp_path: Path) -> None:
    samples, results = made(tmp_path, [0.2] * 10 + [0.6] * 45, [0.9] * 10 + [0.3] * 3)
    results[0].doubts = (Doubt.UNLIKE,)
    page = drawn(tmp_path, samples, results, ABOUT)
    assert "Missed defects 3" in page.words
    assert "False alarms 45" in page.words
    assert "Not judged 1" in page.words
    assert page.words.count("dent, missed") == 3
    assert page.words.count("false alarm 1.20 x threshold") == 36
    assert "9 more, by name" in page.words
    for sample, result in zip(samples, results, strict=True):
        if (result.score > 0.5) != (sample.defect is not None):
            assert f"/{sample.path.name}" in page.words


def test_the_best_threshold_comes_with_the_line_that_sets_it(tmp_path: Path) -> None:
    samples, results = made(tmp_path, [0.2] * 10 + [0.6] * 5, [0.9] * 10)
    page = drawn(tmp_path, samples, results, ABOUT)
    best = evaluate_results(samples, results, 0.5).best
    assert best is not None
    assert f"fsad-edge threshold 'my part.onnx' --value {best.within.threshold!r}" in page.words
    assert f"Set the first of the thresholds below, {best.within.threshold!r}" in page.words


@pytest.mark.parametrize("masked", [True, False])
def test_what_was_not_measured_is_a_sentence_and_no_figure(tmp_path: Path, masked: bool) -> None:
    samples, results = made(tmp_path, [0.2] * 10, [0.9] * 5, masked)
    page = drawn(tmp_path, samples, results, ABOUT)
    assert not re.search(r"n/a|nan|None", page.words)
    assert ("AUPRO" in page.words) == masked
    assert ("defect regions found (recall)" in page.words) == masked
    assert ("No image has a mask" in page.words) != masked
    good_only = drawn(tmp_path, samples[:10], results[:10], ABOUT)
    assert "It rejects 0 of 10 good parts." in good_only.words
    assert "Without defective images nobody knows what it misses" in good_only.words
    assert not re.search(r"n/a|nan|None|ROC", good_only.words.replace("AUROC", ""))


def test_maps_that_find_nothing_have_a_word_for_their_precision(tmp_path: Path) -> None:
    samples, results = made(tmp_path, [0.2] * 5, [0.3] * 5)
    page = drawn(tmp_path, samples, results, ABOUT)
    assert "found regions on a defect (precision) none found nothing to count" in page.words
    assert "0 of 5" in page.words


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    kind = "<b>&'\"\x1b[31m"
    samples, results = made(tmp_path, [0.2], [0.9, 0.3], kind=kind)
    page = drawn(tmp_path, samples, results, About("<script>alert(1)</script> on x"))
    assert "<script>alert(1)</script> on x" in page.words
    assert "script" not in page.tags
    assert "<b>&'\"\\x1b[31m, missed" in page.words


def test_the_advice_never_hides_what_a_threshold_costs(tmp_path: Path) -> None:
    # The least sum of errors misses more than now.
    samples, results = made(tmp_path, [0.2] * 4 + [0.65] * 6, [0.9] * 7 + [0.6] * 3)
    advice = next_step(evaluate_results(samples, results, 0.5), ABOUT)
    assert "misses 30.0" in advice
    assert "trades one error for the other" in advice
    hopeless = made(tmp_path, [0.2, 0.6, 0.9] * 4, [0.2, 0.6, 0.9] * 4)
    advice = next_step(evaluate_results(*hopeless, 0.5), ABOUT)
    assert "No threshold makes a good inspection of it" in advice
    assert "Set the" not in advice


def test_the_verdict_counts_what_is_not_judged_apart(tmp_path: Path) -> None:
    samples, results = made(tmp_path, [0.2] * 3, [0.9] * 3)
    results[0].doubts = results[-1].doubts = (Doubt.UNLIKE,)
    assert verdict(evaluate_results(samples, results, 0.5)) == (
        "It rejects 2 of 3 defective parts and 0 of 3 good parts. It does not judge 1 of the good "
        "parts and 1 of the defective ones: a person must look there."
    )


def test_eval_writes_the_page_and_the_figures_of_regions(
    cli: Cli, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("eval", job.file, job.dataset, "--json")
    assert done.code == 0, done.err
    assert done.json["report"] == "report.html"
    regions = done.json["regions"]
    assert regions["recall"]["of"] == 2
    assert regions["without_mask"] == 2
    assert regions["good_with_regions"]["of"] == 3
    assert 0 <= regions["recall"]["low"] <= regions["recall"]["share"] <= 1
    low, high = done.json["false_alarm_bounds"]
    assert low <= done.json["false_alarm_rate"] <= high
    page = read(tmp_path / "report.html")
    assert f"It rejects {4 - done.json['missed']} of 4 defective parts" in page.words
    assert "2 defective images without a mask are left out." in page.words
    assert "[red]dent" in page.words
    plain = cli("eval", job.file, job.dataset, "--force")
    assert "  recall        of the defect regions that masks mark: " in plain.out
    assert "a good image (" in plain.out
    assert "The report is report.html." in plain.out


@pytest.mark.parametrize("name", ["report.pdf", "report"])
def test_a_report_is_a_page_or_a_picture(job: Job, tmp_path: Path, name: str) -> None:
    with pytest.raises(fsad_edge.InputError, match=r"must be a \.html or a \.png file"):
        fsad_edge.evaluate(job.file, job.dataset, tmp_path / name)


def test_a_reject_that_misses_its_defect_is_told(tmp_path: Path) -> None:
    samples, results = made(tmp_path, [0.2] * 20, [0.9] * 2)
    field = np.zeros((8, 8), np.float32)
    field[7, 7] = 0.9  # the mask marks the upper left
    away = regions_of(field, 0.5, (SIZE, SIZE))
    results[-1] = dataclasses.replace(results[-1], anomaly_map=field, regions=away)
    page = drawn(tmp_path, samples, results, ABOUT)
    assert "It rejects 2 of 2 defective parts, 1 of them at the defect, and 0 of 20" in page.words
    assert "dent, rejected, but not where the defect is" in page.words
