"""The benchmark of rejected patches: what it teaches, on which images it measures, its table."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.accuracy.datasets import mvtec_style
from benchmarks.decisions.parts import Part
from benchmarks.decisions.rejects import BOX, REGION, rejection_rows, rejection_table
from fsad_edge import Model
from fsad_edge.runtime.model import ScoringState
from tests.conftest import Job, photograph


@pytest.fixture(scope="module")
def part(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Part:
    """Scratched plates with masks, all of them missed by a threshold just above their scores."""
    folder = tmp_path_factory.mktemp("sets") / "plates"
    counts = {"train/good": 1, "test/good": 16, "test/scratch": 7, "test/rare": 1}
    rng = np.random.default_rng(1)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            image = photograph(rng, defect=not name.endswith("good"))
            image.save(folder / name / f"{index}.png")
    mask = Image.new("L", (96, 96))
    ImageDraw.Draw(mask).rectangle((8, 8, 88, 60), 255)
    (folder / "ground_truth/scratch").mkdir(parents=True)
    for index in range(7):
        mask.save(folder / f"ground_truth/scratch/{index}_mask.png")
    data, model = mvtec_style(folder), Model.load(job.file, "cpu")
    results = [model.score(sample.path) for sample in data.samples]
    threshold = 1.01 * max(result.score for result in results)
    model.set_state(ScoringState(threshold, threshold, {}))
    return Part(data, job.finetune, model, data.samples, results)


def test_taught_defects_are_found_and_good_parts_stay_good(part: Part) -> None:
    rows = rejection_rows(part, seed=0)
    found = {(row["kind"], row["taught"], row["marking"]): row for row in rows}
    # One defect of a kind leaves no others to measure on.
    assert set(found) == {("scratch", n, way) for n in (1, 3, 5) for way in (REGION, BOX)}
    for row in rows:
        assert row["missed"] == 7
        assert row["recall_before"] == row["false_alarms_before"] == row["false_alarms"] == 0
        assert row["taught_found"] == 1
        assert 1 <= row["rows"] <= 8 * row["taught"]
    for way in (REGION, BOX):
        assert found["scratch", 5, way]["recall"] > found["scratch", 1, way]["recall"]
    assert rejection_rows(part, seed=0) == rows


def test_the_table_holds_a_line_for_each_way_and_the_means() -> None:
    figures = {"recall_before": 0.25, "false_alarms_before": 0.01, "taught_found": 1.0}
    after = {"false_alarms": 0.02, "false_alarms_corrected": 0.01, "marking": REGION, "taught": 1}
    rows = [
        {"dataset": "plates", "kind": kind, "recall": recall, "recall_corrected": recall - 0.1}
        | {**figures, **after}
        for kind, recall in [("dent", 0.5), ("dent", 0.7), ("scratch", 0.3)]
    ]
    lines = rejection_table(rows).splitlines()[2:]
    alarms = "1.00% → 2.00% → 1.00% | 100% |"
    assert lines == [
        f"| plates | dent | 1 | worst region | 2 | 25.0% → 60.0% → 50.0% | {alarms}",
        f"| plates | scratch | 1 | worst region | 1 | 25.0% → 30.0% → 20.0% | {alarms}",
        # Each kind counts once.
        f"| mean | 2 kinds | 1 | worst region | 3 | 25.0% → 45.0% → 35.0% | {alarms}",
    ]
