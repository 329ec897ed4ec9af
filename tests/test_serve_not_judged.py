"""What the service says of images that are not judged: neither good nor anomalies, anywhere."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fsad_edge.options import Decision
from fsad_edge.runtime.image_scale import UNASKED
from fsad_edge.serve.result_store import ImageStore, StoredImage
from tests.conftest import Job
from tests.serving import Server, serving, wait_until


@pytest.fixture(scope="module")
def server(careful_file: Path) -> Iterator[Server]:
    with serving(careful_file) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


COUNTED = ("good", "anomaly", "not_judged", "refused")


def score(client: httpx.Client, image: Path) -> dict[str, Any]:
    answer = client.post("/v1/score", content=image.read_bytes())
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    return dict(result)


def test_a_result_says_that_it_is_not_judged_and_why(
    client: httpx.Client, job: Job, foreign: Path
) -> None:
    strange, good = score(client, foreign), score(client, job.shots / "0.png")
    assert (strange["decision"], strange["good"]) == ("not_judged", False)
    assert strange["doubts"] == ["unlike"]
    assert "unlike the shots" in strange["reasons"][0]
    assert strange["p_value"] is None
    assert strange["image_score"] > 2 * good["image_score"]
    assert (good["decision"], good["good"], good["doubts"]) == ("good", True, [])
    assert 0 < good["p_value"] <= 1
    assert client.get(f"/v1/results/{strange['id']}").json() == strange


def test_results_are_found_by_one_decision_or_several(
    client: httpx.Client, job: Job, foreign: Path
) -> None:
    images = (job.shots / "0.png", job.scratched / "0.png", foreign)
    good, bad, strange = (score(client, image) for image in images)
    for asked, expected in (
        ("decision=not_judged", [strange]),
        ("decision=anomaly", [bad]),
        ("decision=anomaly&decision=not_judged", [bad, strange]),
        ("", [good, bad, strange]),
    ):
        found = client.get(f"/v1/recent?after={good['id'] - 1}&{asked}").json()["results"]
        assert found == expected
    assert client.get("/v1/recent?decision=unsure").status_code == 422


def test_they_have_a_count_and_a_metric_of_their_own(
    client: httpx.Client, job: Job, foreign: Path
) -> None:
    def counts() -> dict[str, int]:
        found: dict[str, int] = client.get("/v1/status").json()["counts"]
        return found

    def metric(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(f"fsad_edge_{name} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    images = 'images_total{decision="not_judged",model="part",source="http"}'
    doubts = 'not_judged_total{doubt="unlike",model="part"}'
    ratios = 'score_ratio_count{model="part"}'
    before = counts(), [metric(name) for name in (images, doubts, ratios)]
    score(client, foreign)
    score(client, foreign)
    score(client, job.shots / "0.png")
    after = counts(), [metric(name) for name in (images, doubts, ratios)]
    assert {name: after[0][name] - before[0][name] for name in COUNTED} == {
        "good": 1, "anomaly": 0, "not_judged": 2, "refused": 0,
    }  # fmt: skip
    assert (np.subtract(after[1], before[1]) == [2, 2, 1]).all()


def test_they_do_not_count_in_the_drift_of_the_scores(
    client: httpx.Client, job: Job, foreign: Path
) -> None:
    client.post("/v1/models/part/drift/reset")
    score(client, job.shots / "0.png")
    for _ in range(5):
        score(client, foreign)
    assert client.get("/v1/models/part").json()["drift"]["images"] == 1


def test_a_heat_map_has_a_second_scale(client: httpx.Client, job: Job) -> None:
    image = job.dataset / "test/good/1.png"
    number = score(client, image)["id"]

    def pixels(path: str) -> NDArray[np.int64]:
        answer = client.get(f"/v1/results/{number}/{path}")
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)

    photo, plain, near = map(pixels, ("image", "overlay?scale=threshold", "overlay?scale=near"))
    assert (pixels("overlay") == plain).all()
    assert np.abs(plain - photo).max() < 10 < np.abs(near - photo).max()
    assert client.get(f"/v1/results/{number}/overlay?scale=far").status_code == 422

    drawn = []
    for scale in ("threshold", "near"):
        answer = client.post(f"/v1/score?heatmap=png&scale={scale}", content=image.read_bytes())
        url = answer.json()["results"][0]["heatmap"]
        drawn.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))))
    assert (drawn[0] != drawn[1]).any()


def test_a_watched_folder_keeps_their_heat_maps_apart(
    careful_file: Path, job: Job, foreign: Path, tmp_path: Path
) -> None:
    for name, image in (
        ("good.png", job.shots / "0.png"), ("bad.png", job.scratched / "0.png"),
        ("strange.png", foreign),
    ):  # fmt: skip
        shutil.copy(image, tmp_path / name)
    results = tmp_path / "fsad-edge/results.jsonl"

    def rows() -> dict[str, dict[str, Any]]:
        lines = results.read_text().splitlines() if results.exists() else []
        return {row["name"]: row for row in map(json.loads, lines)}

    with serving(careful_file, "--watch", tmp_path) as server, server.client() as client:
        wait_until(lambda: len(rows()) == 3)
        assert client.get("/v1/status").json()["counts"]["not_judged"] == 1
    found = rows()
    assert {name: (row["decision"], row["good"]) for name, row in found.items()} == {
        "good.png": ("good", True),
        "bad.png": ("anomaly", False),
        "strange.png": ("not_judged", False),
    }
    overlays = results.parent / "overlays"
    drawn = {path.relative_to(overlays).as_posix() for path in overlays.rglob("*.jpg")}
    assert drawn == {found["bad.png"]["overlay"], found["strange.png"]["overlay"]}
    assert found["good.png"]["overlay"] is None
    assert [path.parent.name for path in overlays.rglob("strange*")] == ["not_judged"]


def test_a_file_that_cannot_be_read_is_not_good(careful_file: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"no image")
    results = tmp_path / "fsad-edge/results.jsonl"
    with serving(careful_file, "--watch", tmp_path):
        wait_until(lambda: results.exists() and results.read_text())
    row = json.loads(results.read_text())
    assert (row["decision"], row["good"]) == ("error", False)


def test_images_of_one_decision_do_not_displace_those_of_another() -> None:
    store = ImageStore(100)

    def add(number: int, decision: Decision, size: int = 10) -> None:
        data, nothing = bytes(size), np.zeros((1, 1), np.float32)
        store.add(number, decision, StoredImage(data, nothing, 1.0, UNASKED))

    def kept(numbers: range) -> list[int]:
        return [number for number in numbers if store.get(number) is not None]

    for number in range(100, 120):
        add(number, Decision.GOOD)
    assert len(kept(range(100, 120))) == 10  # all of the room while nobody else needs it
    for number in range(200, 220):
        add(number, Decision.ANOMALY)
    for number in range(300, 340):
        add(number, Decision.NOT_JUDGED)
    assert len(kept(range(200, 220))) == 5
    assert kept(range(200, 220))[-1] == 219  # the newest
    assert len(kept(range(100, 120))) >= 2
    add(400, Decision.NOT_JUDGED, size=90)  # larger than the share of its decision
    assert store.get(400) is not None
    add(401, Decision.NOT_JUDGED, size=101)
    assert store.get(401) is None
    assert store.get(400) is not None
