"""benchmarks/parity on rendered parts, without the peers' environment."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.parity.__main__ import run
from benchmarks.parity.camera import AS_IS, Size, camera_images, evenly_spaced
from benchmarks.parity.report import summarise
from benchmarks.parity.systems import Scored, score_anomalib
from benchmarks.peers.client import REPOSITORY
from benchmarks.rendered_parts import write_set
from fsad_edge.errors import InputError
from fsad_edge.graph.parity import TOLERANCE
from tests.conftest import Job

SIZES = (Size("JPEG", 400, 300, ".jpg"), Size("PNG", 320, 200, ".png", noise=2.0))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_set(folder, "bracket", seed=0, train=0, good=2, bad=1, size=96)
    return folder


def test_our_score_is_the_same_after_export(job: Job, parts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"  # the model is of other parts, which does not matter for parity
    report = run(out, parts, job.part, [job.file], count=2, sizes=SIZES)
    written = json.loads((out / "parity.json").read_text())
    assert [row["size"] for row in written["rows"]] == [AS_IS, "JPEG", "PNG"]
    for row in written["rows"]:
        assert row["system"] == "fsad-edge fp32"
        assert row["images"] == 4
        assert row["largest_drift"] <= TOLERANCE
        assert row["flipped"] == 0
    assert report == (out / "parity.md").read_text()
    assert "anomalib" not in report
    assert (out / "parity.png").stat().st_size > 1000
    assert str(parts) not in (out / "parity.json").read_text()


def test_drift_and_flips_are_counted() -> None:
    same = Scored("a system", "a size", "good/0.png", 0.5, 0.5, 0.4, 0.4)
    moved = dataclasses.replace(same, after=0.3)
    small = dataclasses.replace(same, before=0.01, after=0.03)
    (row,) = summarise([same, moved, small])
    assert moved.drift == pytest.approx(0.4)
    assert small.drift == pytest.approx(
        0.05
    )  # relative to the threshold, because 0.01 has no digits to compare
    assert (row.images, row.flipped) == (3, 1)
    assert row.largest_drift == moved.drift
    assert dataclasses.replace(same, after=float("nan")).drift == float("inf")
    # A threshold of the file's own can flip a decision even if the scores are equal.
    assert dataclasses.replace(same, threshold_after=0.6).flipped


def test_images_are_written_at_camera_sizes(parts: Path, tmp_path: Path) -> None:
    photos = camera_images(sorted((parts / "test/good").iterdir()), SIZES, tmp_path)
    opened = [Image.open(photo.path) for photo in photos]
    assert [image.size for image in opened] == [(96, 96)] * 2 + [(400, 300)] * 2 + [(320, 200)] * 2
    assert [image.format for image in opened] == ["JPEG"] * 4 + ["PNG"] * 2
    for image in opened:
        image.close()


def test_paths_are_evenly_spaced() -> None:
    paths = [Path(str(index)) for index in range(10)]
    assert [path.name for path in evenly_spaced(paths, 3)] == ["0", "3", "6"]
    assert evenly_spaced(paths, 20) == paths


@pytest.mark.parametrize("module", ["benchmarks.peers", "benchmarks.peers.parity"])
def test_a_peer_names_the_missing_keys_of_its_job_in_one_line(module: str, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"system": "patchcore", "shots": []}')
    line = [sys.executable, "-m", module, str(tmp_path / "job.json"), str(tmp_path / "out.npz")]
    ran = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "has no" in ran.stderr
    assert "weights" in ran.stderr
    assert not (tmp_path / "out.npz").exists()


def test_the_error_of_a_peer_is_passed_on() -> None:
    with pytest.raises(
        InputError, match=r"benchmarks\.peers\.parity failed: .* has no shots, good"
    ):
        score_anomalib(Path(sys.executable), {}, [])
