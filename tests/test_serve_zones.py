"""Zones over HTTP: set, painted, undone, proposed."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import Job, photograph, run_cli
from tests.serving import Server, assert_problem, encoded, serving, wait_until

ZONES = "/v1/models/part/zones"
LEFT = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]


@pytest.fixture
def file(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copy(job.file, tmp_path / "part.onnx"))


@pytest.fixture
def server(file: Path) -> Iterator[Server]:
    with serving(file) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def spotted() -> bytes:
    """A part with a defect on its left alone."""
    image = photograph(np.random.default_rng(31))
    ImageDraw.Draw(image).rectangle((6, 40, 22, 60), (235, 60, 40))
    return encoded(image, "PNG")


def score(client: httpx.Client, image: bytes) -> dict[str, Any]:
    answer = client.post("/v1/score", files={"file": ("one.png", image, "image/png")})
    found: dict[str, Any] = answer.json()["results"][0]
    return found


def test_a_zone_is_set_and_undone(client: httpx.Client, file: Path) -> None:
    before = client.get(ZONES).json()
    assert (before["zones"], before["file_zones"], before["share"]) == ([], [], 1)
    assert np.shape(before["weights"]) == (before["rows"], before["columns"])
    assert before["shots"] == 5
    assert score(client, spotted())["decision"] == "anomaly"
    zone = {"kind": "ignore", "weight": 0, "polygon": LEFT, "note": "a label", "shot": 0}
    answer = client.post(f"{ZONES}?who=anna", json=zone)
    assert answer.status_code == 201, answer.text
    done = answer.json()
    assert (done["id"], done["kind"], done["weight"]) == (1, "ignore", 0)
    assert (done["who"], done["note"], done["undone"]) == ("anna", "a label", None)
    assert done["polygon"] == LEFT
    assert done["threshold"] == before["threshold"] >= done["threshold_after"]
    assert (done["share_before"], done["changes"]) == (1, [])
    assert 0.5 - done["beside"] == done["share"] < 0.5
    assert (done["threshold_in_zone"], done["left_out"], done["rejected"]) == (None, 5, 0)
    state = client.get(ZONES).json()
    assert state["threshold"] == done["threshold_after"]
    assert [one["id"] for one in state["zones"]] == [1]
    assert np.array(state["weights"])[:, 0].max() == 0
    assert score(client, spotted())["decision"] == "good"
    # Another process sees it, and what it does is seen here.
    listed = run_cli("region", file, "--json").json
    assert listed["zones"][0]["note"] == "a label"
    assert run_cli("region", file, "--undo", 1, "--who", "otto").code == 0
    wait_until(lambda: score(client, spotted())["decision"] == "anomaly")
    [undone] = client.get(ZONES).json()["zones"]
    assert undone["undone_by"] == "otto"
    problem = assert_problem(client.delete(f"{ZONES}/1?who=anna"), 409)
    assert problem["detail"] == "zone 1 is undone already: the zones that count are none."
    assert_problem(client.delete(f"{ZONES}/2?who=anna"), 404)


def test_a_zone_on_the_photograph_of_a_result_and_its_undoing(client: httpx.Client) -> None:
    result = score(client, spotted())
    zone = {"kind": "weight", "weight": 0.02, "polygon": LEFT, "result": result["id"]}
    done = client.post(f"{ZONES}?who=anna", json=zone).json()
    assert (done["kind"], done["weight"]) == ("weight", 0.02)
    assert done["polygon"] == LEFT  # the model looks at the whole photograph
    assert score(client, spotted())["decision"] == "good"
    undone = client.delete(f"{ZONES}/{done['id']}?who=otto").json()
    assert undone["undone_by"] == "otto"
    assert undone["threshold_after"] == done["threshold"]
    assert score(client, spotted())["score"] == pytest.approx(result["score"], rel=1e-6)


def test_a_painted_png_is_a_zone(client: httpx.Client) -> None:
    result = score(client, spotted())
    layer = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(layer).rectangle((0, 0, 47, 95), (255, 0, 0, 128))
    data = encoded(layer, "PNG")
    assert_problem(client.post(f"{ZONES}?who=anna", content=data), 422)
    assert_problem(client.post(f"{ZONES}?who=anna&kind=ignore", content=data), 422)
    assert_problem(client.post(f"{ZONES}?who=anna&kind=ignore&result=999", content=data), 404)
    assert_problem(client.post(f"{ZONES}?who=anna&kind=ignore&shot=999", content=data), 404)
    path = f"{ZONES}?who=anna&kind=ignore&note=paint&result={result['id']}"
    done = client.post(path, content=data)
    assert done.status_code == 201, done.text
    assert (done.json()["share"], done.json()["note"]) == (0.34375, "paint")
    other = encoded(layer.resize((64, 64)), "PNG")
    problem = assert_problem(client.post(path, content=other), 422)
    assert "64 x 64 pixels, and the photograph has 96 x 96" in str(problem["detail"])
    picture = client.get("/v1/models/part/shots/0").content
    size = Image.open(io.BytesIO(picture)).size
    on_shot = encoded(layer.resize(size), "PNG")
    path = f"{ZONES}?who=anna&kind=weight&weight=2&shot=0"
    assert client.post(path, content=on_shot).json()["weight"] == 2


def test_a_zone_that_would_lose_an_example_is_refused_unless_it_is_forced(
    client: httpx.Client,
) -> None:
    bad = client.post("/v1/models/part/rejects?who=anna", content=spotted())
    assert bad.status_code == 201, bad.text
    assert bad.json()["decision_after"] == "anomaly"
    zone = {"kind": "ignore", "polygon": LEFT}
    problem = assert_problem(client.post(f"{ZONES}?who=anna", json=zone), 409)
    assert (problem["force"], problem["lost"]) == (True, [bad.json()["id"]])
    assert client.get(ZONES).json()["zones"] == []
    forced = client.post(f"{ZONES}?who=anna&force=true", json=zone).json()
    assert [one["lost"] for one in forced["changes"]] == [True]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "ignore"}, "polygon"),
        ({"kind": "away", "polygon": LEFT}, "not one of"),
        ({"kind": "ignore", "polygon": LEFT[:2]}, "needs 3 to"),
        ({"kind": "ignore", "polygon": [[0, 0], [2, 0], [2, 2]]}, "outside 0 to 1"),
        ({"kind": "ignore", "polygon": [[0, 0], [0.5, 0.5], [1, 1]]}, "one line"),
        ({"kind": "weight", "polygon": LEFT}, "takes a weight or a threshold"),
        ({"kind": "weight", "polygon": LEFT, "weight": 1000}, "outside 0 to 100"),
        ({"kind": "look", "polygon": LEFT, "own_threshold": 0.2}, "takes no weight"),
        ({"kind": "ignore", "polygon": LEFT, "colour": "red"}, "unknown field"),
        ([], "an object"),
        ({"kind": "ignore", "polygon": LEFT, "weight": 0.5}, "kind ignore takes no weight"),
        ({"kind": "look", "polygon": LEFT, "weight": 2}, "kind look takes no weight"),
        ({"kind": "ignore", "polygon": LEFT, "result": 1, "shot": 0}, "not both"),
    ],
)
def test_what_is_no_zone_is_refused(job: Job, body: object, words: str) -> None:
    with serving(job.file) as server, server.client() as client:
        problem = assert_problem(client.post(f"{ZONES}?who=anna", json=body), 422)
        assert words in str(problem["detail"])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("who=anna&kind=look", "kind is of a painted PNG"),
        ("who=anna&weight=2", "weight is of a painted PNG"),
        ("who=anna&result=3", "result is of a painted PNG"),
        ("who=anna&dryrun=true", "no parameter 'dryrun'"),
        ("who=%20%09", "letters or digits"),
        ("who=%00%1b", "letters or digits"),
    ],
)
def test_nothing_else_is_set_than_the_address_asks_for(job: Job, query: str, words: str) -> None:
    with serving(job.file) as server, server.client() as client:
        zone = {"kind": "ignore", "polygon": LEFT}
        problem = assert_problem(client.post(f"{ZONES}?{query}", json=zone), 422)
        assert words in str(problem["detail"])
        assert client.get(ZONES).json()["zones"] == []


def test_a_shot_without_a_picture_is_not_there(client: httpx.Client) -> None:
    for shot in (-1, 5, 99):
        zone = {"kind": "ignore", "polygon": LEFT, "shot": shot}
        assert_problem(client.post(f"{ZONES}?who=anna", json=zone), 404)
    assert client.get(ZONES).json()["zones"] == []


def test_a_dry_run_tells_what_a_zone_would_change_and_sets_nothing(client: httpx.Client) -> None:
    zone = {"kind": "ignore", "polygon": LEFT, "note": "a label"}
    tried = client.post(f"{ZONES}?who=anna&dry_run=true", json=zone)
    assert tried.status_code == 200, tried.text
    assert client.get(ZONES).json()["zones"] == []
    done = client.post(f"{ZONES}?who=anna", json=zone)
    assert done.status_code == 201
    own = {"id", "time"}
    assert {key: one for key, one in tried.json().items() if key not in own} == {
        key: one for key, one in done.json().items() if key not in own
    }


def test_a_painted_png_is_bounded_by_its_photograph_and_by_the_service(file: Path) -> None:
    with serving(file, "--max-megapixels", "0.5") as server, server.client() as client:
        path = f"{ZONES}?who=anna&kind=ignore&result={score(client, spotted())['id']}"
        for side, words in ((300, "300 x 300 pixels, and the photograph has 96 x 96"),
                            (9000, "more than the limit of 500,000")):  # fmt: skip
            png = encoded(Image.new("1", (side, side)), "PNG")
            problem = assert_problem(client.post(path, content=png), 422)
            assert words in str(problem["detail"])


def test_places_are_proposed_or_it_is_said_why_not(client: httpx.Client) -> None:
    found = client.get(f"{ZONES}/proposal").json()
    assert found["sentence"]
    assert (found["polygon"] is None) == (found["polygons"] == [])
    if found["polygon"]:
        zone = {"kind": "ignore", "polygon": found["polygon"]}
        assert client.post(f"{ZONES}?who=anna", json=zone).status_code == 201
    assert client.get(ZONES).json()["shots"] == 5
