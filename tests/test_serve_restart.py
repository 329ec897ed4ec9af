"""The page after a restart: counts and history come back from the results files."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsad_edge import Model
from fsad_edge.options import Decision
from fsad_edge.serve import result_lines
from fsad_edge.serve.earlier_results import read_earlier
from fsad_edge.serve.result_counts import count_results, counts_path
from fsad_edge.serve.results_file import ResultsFile
from fsad_edge.serve.schemas import EXAMPLE_RESULT, RegionRecord, ResultRecord, Source, to_json
from tests.conftest import Job, photograph
from tests.serving import Server, assert_problem, encoded, serving, wait_until


@pytest.fixture
def model_file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture(scope="module")
def images(job: Job) -> dict[str, bytes]:
    """A good part and one that is rejected."""
    rng = np.random.default_rng(8)
    with Model.load(job.file) as model:
        while True:
            bad = encoded(photograph(rng, defect=True), quality=95)
            if model.score(bad).anomalous:
                break
    return {"good": encoded(Image.open(min(job.shots.iterdir())), quality=98), "bad": bad}


def record(number: int, **members: Any) -> ResultRecord:
    given = {"id": number, "source": Source.HTTP, "decision": Decision.GOOD, **members}
    given["regions"] = [RegionRecord(**one) for one in EXAMPLE_RESULT["regions"]]
    return ResultRecord(**{**EXAMPLE_RESULT, **given})


def recent(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/recent?limit=1000").json()["results"]
    return found


def counts(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/status").json()["counts"]
    return found


def test_counts_history_and_watched_images_survive_a_restart(
    model_file: Path, tmp_path: Path, images: dict[str, bytes]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("kept", "moved", "replaced"):
        (folder / f"{name}.jpg").write_bytes(images["bad"])
    (folder / "good.jpg").write_bytes(images["good"])
    (folder / "torn.jpg").write_bytes(images["good"][:900])
    first = Server(model_file, "--watch", folder)
    with first.client() as client:
        client.post("/v1/score", files={"file": ("sent.jpg", images["bad"])})
        wait_until(lambda: counts(client)["good"] == 1 and counts(client)["anomaly"] == 4)
        wait_until(lambda: client.get("/v1/status").json()["watch"]["errors"] == 1, 30)
        before, counted = recent(client), counts(client)
        started = client.get("/v1/status").json()["started"]
    assert counted["since"] == started
    first.terminate()
    (folder / "moved.jpg").rename(tmp_path / "moved.jpg")
    replaced = folder / "replaced.jpg"
    replaced.write_bytes(images["bad"][:-1] + b"\0")  # of the same size

    with serving(model_file, "--watch", folder) as server, server.client() as client:
        wait_until(lambda: client.get("/v1/status").json()["watch"]["scored"] == 1)
        after = recent(client)
        assert after[:-1] == before
        assert after[-1]["name"] == "replaced.jpg"
        assert counts(client) == {
            **counted, "anomaly": 5, "since": min(line["time"] for line in before)
        }  # fmt: skip
        assert client.get("/v1/status").json()["latency_ms"]["count"] == 1  # of this run
        ids = {line["name"]: line["id"] for line in before}
        for name, status, heat_status in [
            ("kept.jpg", 200, 200), ("good.jpg", 200, 404), ("moved.jpg", 404, 200),
            ("replaced.jpg", 404, 200), ("sent.jpg", 404, 404),
        ]:  # fmt: skip
            place = f"/v1/results/{ids[name]}"
            assert client.get(f"{place}/image").status_code == status, name
            assert client.get(f"{place}/overlay").status_code == heat_status, name
        drawn = client.get(f"/v1/results/{ids['kept.jpg']}/overlay?side=48").content
        with Image.open(io.BytesIO(drawn)) as picture:
            assert picture.size == (48, 48)
        # What is still there can be taught, and what is not is told.
        normals = "/v1/models/part/normals?who=Anna&force=true&result="
        assert client.post(f"{normals}{ids['kept.jpg']}").status_code == 201
        problem = assert_problem(client.post(f"{normals}{ids['sent.jpg']}"), 404)
        assert problem["detail"] == "the image of that result is no longer kept."


def test_a_name_in_a_results_file_leads_to_no_other_folder(
    model_file: Path, tmp_path: Path, images: dict[str, bytes]
) -> None:
    folder, secret = tmp_path / "in", tmp_path / "secret.jpg"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(images["bad"])
    secret.write_bytes(images["bad"])
    first = Server(model_file, "--watch", folder)
    results = folder / "fsad-edge/results.jsonl"
    wait_until(lambda: results.exists() and results.read_text().endswith("}\n"))
    first.terminate()
    line = json.loads(results.read_text())
    forged = [
        {**line, "id": line["id"] + 1, "name": "../secret.jpg", "overlay": "../../../secret.jpg"},
        {**line, "id": line["id"] + 2, "folder": str(tmp_path), "name": "secret.jpg"},
    ]
    with results.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in forged)
    with serving(model_file, "--watch", folder) as server, server.client() as client:
        assert len(recent(client)) == 3
        assert client.get(f"/v1/results/{line['id']}/image").status_code == 200
        for one in forged:
            for kind in ("image", "overlay"):
                assert_problem(client.get(f"/v1/results/{one['id']}/{kind}"), 404)


def test_a_service_that_takes_a_folder_over_shows_what_the_other_one_scored(
    model_file: Path, tmp_path: Path, images: dict[str, bytes]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    first = Server(model_file, "--watch", folder)
    results = folder / "fsad-edge/results.jsonl"

    def state(client: httpx.Client) -> str:
        return str(client.get("/v1/status").json()["watch"]["folders"][0]["state"])

    with first.client() as client:
        wait_until(lambda: state(client) == "watching")
    with serving(model_file, "--watch", folder) as second, second.client() as client:
        wait_until(lambda: state(client) == "standby")
        client.post("/v1/score", files={"file": ("sent.jpg", images["good"])})
        (folder / "one.jpg").write_bytes(images["bad"])
        wait_until(lambda: '"one.jpg"' in results.read_text())
        assert [line["name"] for line in recent(client)] == ["sent.jpg"]
        first.terminate()
        wait_until(lambda: state(client) == "watching")
        assert [line["name"] for line in recent(client)] == ["sent.jpg", "one.jpg"]
        assert (counts(client)["good"], counts(client)["anomaly"]) == (1, 1)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["good", "anomaly", "count", "restart", "damage"]), max_size=60)
)
def test_every_result_is_counted_once_whatever_was_deleted_meanwhile(steps: list[str]) -> None:
    written: Counter[str] = Counter()
    name = '", "decision": "anomaly", "name": "'  # a name may not count as a decision
    with (
        tempfile.TemporaryDirectory() as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(result_lines, "ROTATED", 2)
        folder = Path(place)
        file, own = ResultsFile(folder, rotate_bytes=1500), Counter[str]()
        for number, step in enumerate(steps):
            if step in {"good", "anomaly"}:
                file.write(record(number, decision=Decision(step), name=name))
                written[step] += 1
                own[step] += 1
            elif step == "restart":
                file.close()
                file, own = ResultsFile(folder, rotate_bytes=1500), Counter()
            elif step == "damage":
                with file.path.open("ab") as damaged:
                    damaged.write(b'"decision": "good", "cut sh\n')
            assert step != "count" or count_results(folder).counts == written
        assert Counter(count_results(folder).counts) == written
        assert Counter(file.count_others().counts) == written - own
        file.close()


def test_counts_are_made_again_where_they_are_damaged_or_their_results_are_gone(
    tmp_path: Path,
) -> None:
    file = ResultsFile(tmp_path)
    for number in range(3):
        file.write(record(number))
    assert count_results(tmp_path).counts == {"good": 3}
    counts_path(tmp_path).write_text("{")
    assert count_results(tmp_path).counts == {"good": 3}
    file.path.unlink()
    file.write(record(4, time="2026-11-25T10:00:00.000Z"))
    assert dataclasses.astuple(count_results(tmp_path)) == (
        "2026-11-25T10:00:00.000Z",
        {"good": 1},
    )
    file.close()


def test_the_newest_results_and_older_rejects_are_read_from_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ResultsFile(tmp_path, rotate_bytes=200_000)
    for number in range(1500):
        reject = number in {1, 100, 1400}
        file.write(record(number, decision=Decision.ANOMALY if reject else Decision.GOOD))
    file.close()
    assert [one.id for one in read_earlier(tmp_path)] == [1, 100, *range(500, 1500)]
    lines = file.path.read_bytes().splitlines(keepends=True)
    monkeypatch.setattr("fsad_edge.serve.earlier_results.NEWEST_BYTES", len(b"".join(lines)) - 1)
    assert [one.id for one in read_earlier(tmp_path)] == list(range(1501 - len(lines), 1500))


def test_lines_of_other_versions_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    known = json.loads(json.dumps(dataclasses.asdict(record(7)), default=str))
    lines = [
        {**known, "of a newer version": 1},
        {**known, "id": "8"},
        {name: value for name, value in known.items() if name != "score"},
        [known],
    ]
    text = "\n".join(json.dumps(line) for line in lines) + f"\n{json.dumps(known)[:-5]}"
    (tmp_path / "results.jsonl").write_text(text)
    assert read_earlier(tmp_path) == [record(7)]


def test_results_that_cannot_be_read_do_not_stop_the_service(
    model_file: Path, tmp_path: Path, images: dict[str, bytes]
) -> None:
    results = tmp_path / "results"
    (results / "results.1.jsonl").mkdir(parents=True)
    with serving(model_file, "--results", results) as server, server.client() as client:
        client.post("/v1/score", files={"file": ("sent.jpg", images["good"])})
        assert counts(client)["good"] == 1
        assert f"{results}/results.1.jsonl cannot be read (Is a directory)" in server.log


def test_a_name_that_is_no_text_comes_back(model_file: Path, tmp_path: Path, job: Job) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsdecode(b"\xff.png")
    try:
        shutil.copy(min(job.shots.iterdir()), folder / name)
    except OSError:
        pytest.skip("the file system takes text only")
    first = Server(model_file, "--watch", folder)
    with first.client() as client:
        wait_until(lambda: recent(client))
        (before,) = recent(client)
    first.terminate()
    with serving(model_file, "--watch", folder) as server, server.client() as client:
        assert recent(client) == [before]
        assert client.get(f"/v1/results/{before['id']}/image").status_code == 200


def files_below(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Time of the last write and content of all files."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def settled_files_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The files below a folder, once a service has written all that it was given.

    The service answers before its records, counts and pictures are on the disk.
    """
    seen = [files_below(folder)]

    def settled() -> bool:
        time.sleep(0.5)
        seen.append(files_below(folder))
        return seen[-1] == seen[-2]

    wait_until(settled)
    return seen[-1]


@pytest.mark.parametrize("watch", [False, True])
def test_a_second_service_that_cannot_start_touches_no_file_of_the_first(
    model_file: Path, tmp_path: Path, images: dict[str, bytes], watch: bool
) -> None:
    results, folder, state = tmp_path / "results", tmp_path / "in", tmp_path / "state"
    folder.mkdir()
    options: list[str | Path] = ["--results", results]
    if watch:
        options += ["--watch", folder]
    environment = {"XDG_STATE_HOME": str(state)}
    with serving(model_file, *options, environment=environment) as first, first.client() as client:
        for name in ("good", "bad"):
            client.post("/v1/score", files={"file": (f"{name}.jpg", images[name])})
        teach = client.post("/v1/models/part/rejects?who=Anna", content=images["bad"])
        assert teach.status_code == 201
        wait_until(lambda: (results / "results.jsonl").read_bytes().count(b"}\n") == 2)
        if watch:  # which opens the results again
            wait_until(lambda: client.get("/v1/status").json()["watch"]["folders"][0]["state"]
                       == "watching")  # fmt: skip
        # As if the first one were just writing a line.
        with (results / "results.jsonl").open("ab") as file:
            file.write(b'{"id": 1, "decision": "go')
        before = settled_files_below(tmp_path)
        second = subprocess.run(
            [sys.executable, "-m", "fsad_edge.cli", "serve", str(model_file), *map(str, options),
             "--port", str(first.port)],
            capture_output=True, text=True, timeout=60,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        assert second.returncode == 2
        assert "cannot be listened on" in second.stderr
        assert files_below(tmp_path) == before


def test_a_service_beside_another_one_leaves_its_results_until_it_writes(
    model_file: Path, tmp_path: Path, images: dict[str, bytes]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    lines = [to_json(record(number, decision=Decision.ANOMALY)) + "\n" for number in range(3)]
    (results / "results.jsonl").write_text("".join(lines) + '{"id": 4, "decision": "go')
    before = files_below(results)
    with serving(model_file, "--results", results) as server, server.client() as client:
        assert counts(client)["anomaly"] == 3
        assert files_below(results) == before
        client.post("/v1/score", files={"file": ("good.jpg", images["good"])})
        wait_until(lambda: (results / "results.jsonl").read_bytes().endswith(b"}\n"))
        assert (counts(client)["good"], counts(client)["anomaly"]) == (1, 3)
        assert json.loads(counts_path(results).read_text())["counts"] == {"anomaly": 3}
        text = (results / "results.jsonl").read_text()
        assert [json.loads(text.splitlines()[place])["id"] for place in (0, 1, 2)] == [0, 1, 2]
        assert json.loads(text.splitlines()[-1])["name"] == "good.jpg"
