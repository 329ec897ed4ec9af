"""Archives and many parts with Ray: complete, and no image in two rows, whatever is killed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ray")
pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from benchmarks.archive import read_rows, workers_below  # noqa: E402
from fsad_edge import Model  # noqa: E402
from fsad_edge.distributed.archive import ArchiveOptions, score_archive  # noqa: E402
from fsad_edge.distributed.cluster import cluster  # noqa: E402
from fsad_edge.distributed.score_folder import (  # noqa: E402
    MAX_ATTEMPTS,
    ScoreFolder,
    ScoreManifest,
)
from fsad_edge.distributed.source import images_of, read_source  # noqa: E402
from fsad_edge.errors import InputError  # noqa: E402
from fsad_edge.learning.learner import Learner  # noqa: E402
from fsad_edge.pipeline.events import Progress  # noqa: E402

from .commands import assert_refused  # noqa: E402
from .conftest import Cli, Job, photograph  # noqa: E402

# Ray leaves sockets open and uses deprecated names.
pytestmark = pytest.mark.filterwarnings("ignore")

LARGE = 60

#: Each worker takes seconds to start: where one is enough, there is one.
ALONE = ("--workers", 1)

MANIFEST = ScoreManifest("part.onnx", "0", "/archive")


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """Ray on this machine; commands in this process use it too."""
    with cluster(None) as ray:
        yield ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photographs in two folders, one of them truncated, and files that are no images."""
    place = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(1)
    for index in range(60):
        below = place / f"day {index % 2}"
        below.mkdir(exist_ok=True)
        photograph(rng, defect=index % 7 == 0).save(below / f"{index:02d}.png")
    cut = place / "day 0/00.png"
    cut.write_bytes(cut.read_bytes()[:400])
    (place / "notes.txt").write_text("no image")
    (place / ".hidden.png").write_bytes(b"no image")
    return place


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many names of one large photograph, so that scoring them takes seconds."""
    place = tmp_path_factory.mktemp("slow")
    picture = photograph(np.random.default_rng(2), side=1600)
    picture.save(place / "000.png")
    for index in range(1, LARGE):
        os.link(place / "000.png", place / f"{index:03d}.png")
    return place


def test_an_archive_gets_the_scores_of_the_model_and_a_second_run_only_scores_new_images(
    cli: Cli, job: Job, folder: Path, tmp_path: Path, ray_here: Any
) -> None:
    copy, output = tmp_path / "archive", tmp_path / "scores"
    shutil.copytree(folder, copy)
    nameless = Path(os.fsdecode(os.fsencode(copy) + b"/\xff.png"))  # Linux takes such names
    nameless.write_bytes(b"no image")
    first = cli("archive", job.file, copy, "-o", output, "--json")
    assert first.code == 2, first.err
    assert (first.json["images"], first.json["errors"], first.json["scored_before"]) == (61, 2, 0)
    rows = {row["path"]: row for row in read_rows(output)}
    assert len(rows) == 61
    assert "udcff.png is not an image" in rows.pop(f"{copy}/\\udcff.png")["error"]
    nameless.unlink()
    with Model.load(job.file, threads=1) as model:
        for path, row in rows.items():
            if path.endswith("00.png"):
                assert row["score"] is None
                assert "cannot be decoded" in row["error"] or "not an image" in row["error"]
                continue
            result = model.score(path)
            assert row["score"] == pytest.approx(result.score, rel=1e-5)
            assert row["threshold"] == result.threshold
            assert row["decision"] == result.decision
            assert row["good"] == result.good
            assert row["image_score"] == pytest.approx(result.image_score, rel=1e-5)
            assert (row["width"], row["height"]) == result.size
            assert len(row["regions"]) == len(result.regions)
            for region, expected in zip(row["regions"], result.regions, strict=True):
                assert list(region["box"]) == pytest.approx(list(expected.box), abs=0.2)
                assert region["area_mm2"] is None
            assert row["error"] is None
    shutil.copy(copy / "day 1/01.png", copy / "new.png")
    (copy / "phone.heic").touch()
    again = cli("archive", job.file, copy, "-o", output, "--json", *ALONE)
    assert (again.json["scored"], again.json["scored_before"]) == (1, 61)
    unseen = [one["path"] for one in again.json["skipped"] if one["unseen"]]
    assert unseen == [str(copy / "phone.heic")]
    shutil.copy(copy / "day 0/02.png", copy / "day 0/00.png")
    mended = cli("archive", job.file, copy, "-o", output, "--retry-errors", "--json", *ALONE)
    assert (mended.json["scored"], mended.json["images"], mended.json["errors"]) == (1, 61, 0)
    assert mended.code == 2  # the photograph of the phone was not looked at
    assert len({row["path"] for row in read_rows(output)}) == len(read_rows(output)) == 61


def test_images_that_are_not_judged_are_counted_and_no_good_ones(
    cli: Cli, job: Job, careful_file: Path, foreign: Path, tmp_path: Path, ray_here: Any
) -> None:
    archive, output = tmp_path / "archive", tmp_path / "scores"
    archive.mkdir()
    for image in (job.shots / "0.png", foreign):
        shutil.copy(image, archive)
    done = cli("archive", careful_file, archive, "-o", output, "--json", *ALONE)
    assert done.code == 3, done.err
    counts = {name: done.json[name] for name in ("good", "anomalies", "not_judged", "errors")}
    assert counts == {"good": 1, "anomalies": 0, "not_judged": 1, "errors": 0}
    scaled = cli("archive", careful_file, archive, "-o", output, "--mm-per-px", "0.1", *ALONE)
    assert_refused(scaled, "holds scores with another --mm-per-px: leave it out")
    in_mm = tmp_path / "mm"
    cli("archive", careful_file, archive, "-o", in_mm, "--mm-per-px", "0.1", *ALONE)
    found = [region for row in read_rows(in_mm) for region in row["regions"]]
    assert found
    for region in found:
        assert region["area_mm2"] == pytest.approx(region["area"] * 0.01, rel=1e-3)
    rows = {Path(row["path"]).name: row for row in read_rows(output)}
    strange = rows[foreign.name]
    assert (strange["decision"], strange["good"], strange["doubts"]) == (
        "not_judged", False, ["unlike"],
    )  # fmt: skip
    assert "unlike the shots" in strange["reasons"][0]
    assert (rows["0.png"]["good"], rows["0.png"]["doubts"]) == (True, [])
    shutil.copy(job.scratched / "0.png", archive / "bad.png")
    again = cli("archive", careful_file, archive, "-o", output, *ALONE)
    assert again.code == 1
    assert "1 good, 1 anomaly, 1 not judged, 0 could not be read" in again.out


def test_a_table_of_images_keeps_its_ids(
    cli: Cli, job: Job, folder: Path, tmp_path: Path, ray_here: Any
) -> None:
    paths = sorted(folder.glob("day 1/*.png"))
    images: list[Any] = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    images[3], images[4] = {"bytes": b"nothing", "path": "x"}, {"bytes": None, "path": "y"}
    table = pa.table({"id": [7 * index for index in range(30)], "image": images})
    pq.write_table(table, tmp_path / "parts.parquet", row_group_size=8)
    output = tmp_path / "scores"
    done = cli("archive", job.file, tmp_path / "parts.parquet", "-o", output, "--json")
    assert (done.code, done.json["images"], done.json["errors"]) == (2, 30, 2)
    rows = {row["id"]: row for row in read_rows(output)}
    assert sorted(rows) == table["id"].to_pylist()
    assert rows[28]["error"] == "the row holds no image."
    with Model.load(job.file, threads=1) as model:
        for index in (0, 8, 29):
            assert rows[7 * index]["score"] == pytest.approx(model.score(paths[index]).score)


def test_the_images_learned_on_the_device_count_unless_left_out(
    job: Job, tmp_path: Path, ray_here: Any
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    images, seen = job.dataset / "test/good", list[Progress]()
    with Model.load(file) as model, Learner.open(file, model) as learner:
        learner.add((images / "0.png").read_bytes(), "inspector", force=True)
    one = ArchiveOptions(workers=1)
    report = score_archive(file, images, tmp_path / "scores", one, on_progress=seen.append)
    assert (report.images, report.scored, report.learned) == (3, 3, 1)
    assert seen[0].stage == "listing images"
    assert (seen[-1].stage, seen[-1].fraction) == ("scoring", 1.0)
    without = ArchiveOptions(workers=1, learned=False)
    with pytest.raises(InputError, match="or what it had learned then"):
        score_archive(file, images, tmp_path / "scores", without)
    assert score_archive(file, images, tmp_path / "others", without).learned == 0
    scores, others = (
        {row["path"]: row["score"] for row in read_rows(tmp_path / name)}
        for name in ("scores", "others")
    )
    learned = str(images / "0.png")
    assert scores[learned] < 0.5 * others[learned]


def test_a_killed_worker_loses_no_row_and_repeats_none(
    cli: Cli, job: Job, slow_folder: Path, tmp_path: Path, ray_here: Any
) -> None:
    output = tmp_path / "scores"
    command = _started(job.file, slow_folder, output, _address(ray_here))
    _wait_for_chunks(output, command)
    pid = workers_below(os.getpid())[0]
    os.kill(pid, signal.SIGKILL)
    _, err = command.communicate(timeout=60)
    assert command.returncode in {0, 1, 3}, err
    assert pid not in workers_below(os.getpid())
    names = [row["path"] for row in read_rows(output)]
    assert len(names) == len(set(names)) == LARGE


def test_a_killed_command_is_continued_by_the_next(
    cli: Cli, job: Job, slow_folder: Path, tmp_path: Path, ray_here: Any
) -> None:
    output = tmp_path / "scores"
    # The cluster outlives the command, and the command's workers do so for a moment.
    command = _started(job.file, slow_folder, output, _address(ray_here))
    _wait_for_chunks(output, command)
    command.kill()
    command.communicate()
    before = {path: path.stat().st_mtime_ns for path in output.glob("chunk-*.parquet")}
    (output / ".chunk-0.parquet.torn").write_bytes(b"PAR1")
    again = cli("archive", job.file, slow_folder, "-o", output, "--json")
    assert again.code in {0, 1, 3}, again.err
    assert 0 < again.json["scored_before"] < LARGE
    assert again.json["scored"] == LARGE - again.json["scored_before"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    names = [row["path"] for row in read_rows(output)]
    assert len(names) == len(set(names)) == LARGE
    assert not list(output.glob(".chunk-*"))


def test_a_run_writes_nothing_once_another_run_has_the_folder(tmp_path: Path) -> None:
    old = ScoreFolder.open(tmp_path / "scores", MANIFEST)
    keys = pa.table({"path": ["a"]})
    chunk = old.start_chunk(keys)
    new = ScoreFolder.open(tmp_path / "scores", MANIFEST)
    with pytest.raises(InputError, match="another run writes"):
        old.write_chunk(chunk, keys)
    assert not chunk.exists()
    new.write_chunk(new.start_chunk(keys), keys)
    assert chunk.exists()


def test_a_chunk_on_which_workers_die_is_given_up(tmp_path: Path) -> None:
    scores = ScoreFolder.open(tmp_path / "scores", MANIFEST)
    keys = pa.table({"path": ["first.png", "last.png"]})
    for _ in range(MAX_ATTEMPTS):
        scores.start_chunk(keys)
    with pytest.raises(InputError, match=r"died 5 times on the 2 images from first.png to last"):
        scores.start_chunk(keys)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    group=st.integers(1, 50),
    data=st.data(),
)
def test_any_rows_of_tables_give_the_images_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], group: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    total = sum(sizes)
    table = pa.table(
        {
            "id": [f"n{index}" for index in range(total)],
            "image": [f"image {index}".encode() for index in range(total)],
        }
    )
    start = 0
    for number, size in enumerate(sizes):
        pq.write_table(table.slice(start, size), folder / f"{number}.parquet", row_group_size=group)
        start += size
    done = data.draw(st.sets(st.integers(0, total - 1)))
    source = read_source(folder)
    names = pa.chunked_array([[f"n{index}" for index in done]], pa.string())
    rows = source.without(names).rows
    step = data.draw(st.integers(1, total))
    found = [
        image
        for first in range(0, rows.num_rows, step)
        for image in images_of(rows.slice(first, step), source.column)
    ]
    assert found == [f"image {index}".encode() for index in range(total) if index not in done]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"image": [b"a", b"b"]}, "no column `id` or `path`"),
        ({"x": [1], "y": [2]}, "has the columns x, y: it needs"),
        ({"id": [1, 1], "image": [b"a", b"b"]}, "the id 1 is in more than one row"),
        ({"path": ["a", None]}, "is empty in 1 rows"),
        ({"id": [0.5], "path": ["a"]}, "must hold text or whole numbers"),
        ({"id": [1], "image": ["a"]}, "must hold the bytes of image files"),
        ({"image": [{"bytes": b"a"}]}, "no column `id` or `path`"),
        ({"id": [1], "path": [2]}, "holds int64: it must hold text"),
    ],
)
def test_a_table_that_cannot_be_scored_is_refused_with_a_sentence(
    cli: Cli, job: Job, tmp_path: Path, columns: dict[str, Any], sentence: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    outcome = cli("archive", job.file, tmp_path / "t.parquet", "-o", tmp_path / "scores")
    assert outcome.code == 2
    assert sentence in outcome.err
    assert not (tmp_path / "scores").exists()


def test_a_folder_with_other_files_or_scores_is_not_changed(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    place = tmp_path / "images"
    place.mkdir()
    photograph(np.random.default_rng(0)).save(place / "a.png")
    foreign, other = tmp_path / "foreign", tmp_path / "other"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    ScoreFolder.open(other, ScoreManifest("other.onnx", "0", str(place)))
    for output, sentence in ((foreign, "holds no scores"), (other, "another model (other.onnx")):
        outcome = cli("archive", job.file, place, "-o", output)
        assert outcome.code == 2
        assert sentence in outcome.err
    assert (foreign / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["archive", "FILE", "IMAGES", "-o", "OUT", "--address", "127.0.0.1:1"], "no Ray at"),
        (["archive", "FILE", "IMAGES", "-o", "OUT", "--workers", "99"], "but 99 are asked for"),
        (["finetune", "IMAGES", "-o", "x", "--export"], "are for --ray alone"),
        (["finetune", "none", "-o", "x", "--ray"], "none does not exist"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    cli: Cli, job: Job, tmp_path: Path, ray_here: Any, arguments: list[str], sentence: str
) -> None:
    paths = {"FILE": job.file, "IMAGES": job.shots, "OUT": tmp_path / "scores"}
    outcome = cli(*(paths.get(argument, argument) for argument in arguments))
    assert outcome.code == 2
    assert sentence in outcome.err


def test_without_ray_the_extra_is_named(
    cli: Cli, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.startswith("fsad_edge.distributed.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    outcome = cli("archive", job.file, job.shots, "-o", tmp_path / "scores")
    assert outcome.code == 2
    assert "pip install 'fsad-edge[ray]'" in outcome.err


def test_parts_are_made_at_the_same_time_and_a_bad_one_does_not_stop_the_others(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path, ray_here: Any
) -> None:
    place, output = tmp_path / "parts", tmp_path / "models"
    shutil.copytree(job.shots, place / "bracket")
    shutil.copytree(job.shots, place / "broken")
    (place / "broken/z.png").write_bytes(b"no image")
    (place / "empty").mkdir()
    shutil.copy(place / "bracket/0.png", place / "bracket/again.png")
    options = ["--backbone", backbones["conv"], "--image-size", "64", "--bank-size", "200"]
    options += ["--strides", "16", "--rotations", "1", "--epochs", "0"]
    command = ("finetune", "--ray", place, "-o", output, *options, "--export", "--json")
    first = cli(*command)
    assert first.code == 2
    rows = {row["part"]: row for row in first.json["parts"]}
    assert rows["bracket"]["state"] == "made"
    assert rows["bracket"]["shots"] == 5
    assert "warning: bracket: again.png is the same file as 0.png" in first.err
    assert "z.png is not an image" in rows["broken"]["error"]
    assert "holds no image" in rows["empty"]["error"]
    with io.StringIO((output / "parts.csv").read_text()) as file:
        table = list(csv.DictReader(file))
    assert [row["part"] for row in table] == ["bracket", "broken", "empty"]
    looked = {"encoder": backbones["conv"], "image_size": 64, "fine_tuned": False}
    assert {name: table[0][name] for name in looked} == {k: str(v) for k, v in looked.items()}
    assert {name: rows["bracket"][name] for name in looked} == looked
    with Model.load(output / "bracket.onnx") as model:
        assert model.threshold == pytest.approx(rows["bracket"]["threshold"], rel=1e-3)
    shutil.rmtree(place / "broken")
    (place / "empty").rmdir()
    again = cli(*command)
    assert again.code == 0
    [kept] = again.json["parts"]
    assert kept["state"] == "there already"
    assert {name: kept[name] for name in looked} == looked
    manifest = output / "bracket/manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"finished": False}))  # stopped in its search
    os.utime(manifest, (0, 0))  # and exported later
    [finished] = cli(*command).json["parts"]
    assert finished["state"] == "made"
    assert json.loads(manifest.read_text())["finished"]
    os.utime(output / "bracket.onnx", (0, 0))  # as if exported from an earlier model
    # It is to be made again, which this option refuses.
    [row] = cli(*command, "--strides", "3").json["parts"]
    assert (row["state"], "no feature map at stride 3" in row["error"]) == ("failed", True)


def _address(ray: Any) -> str:
    return str(ray.get_runtime_context().gcs_address)


def _started(model: Path, place: Path, output: Path, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fsad_edge.cli", "archive", str(model), str(place)]
    return subprocess.Popen(
        [*command, "-o", str(output), "--address", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_chunks(output: Path, command: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and command.poll() is None:
        with contextlib.suppress(OSError):
            if list(output.glob("chunk-*.parquet")):
                return
        time.sleep(0.02)
    raise AssertionError(f"no chunk was written: {command.communicate(timeout=5)}")
