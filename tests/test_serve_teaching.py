"""Images that are called bad and thresholds that are set, over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fsad_edge import Model
from tests.conftest import Cli, Job, photograph
from tests.serving import Server, assert_problem, encoded, serving, wait_until

NORMALS, REJECTS = "/v1/models/part/normals", "/v1/models/part/rejects"
THRESHOLD = "/v1/models/part/threshold"


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


@pytest.fixture(scope="module")
def missed(job: Job) -> list[bytes]:
    """Bad parts that the model takes for good ones: a spot, always of one kind."""
    found = []
    with Model.load(job.file) as model:
        for seed in range(40):
            rng = np.random.default_rng(seed)
            image = photograph(rng)
            left, top = rng.integers(4, 80, 2).tolist()
            image.paste((150, 112, 96), (left, top, left + 9, top + 9))
            data = encoded(image, "PNG")
            if model.score(data).good:
                found.append(data)
    assert len(found) > 2
    return found


def score(client: httpx.Client, image: bytes, name: str = "one.png") -> dict[str, Any]:
    answer = client.post("/v1/score", files={"file": (name, image, "image/png")})
    found: dict[str, Any] = answer.json()["results"][0]
    return found


def good_image(seed: int = 30) -> bytes:
    return encoded(photograph(np.random.default_rng(seed)), "PNG")


def test_a_missed_part_is_called_bad_and_undone(
    client: httpx.Client, server: Server, missed: list[bytes]
) -> None:
    before = score(client, missed[0], "missed.png")
    assert before["decision"] == "good"
    answer = client.post(f"{REJECTS}?who=otto&result={before['id']}")
    assert answer.status_code == 201, answer.text
    entry = answer.json()
    assert (entry["role"], entry["who"], entry["name"]) == ("rejected", "otto", "missed.png")
    assert entry["rows"] > 0
    assert entry["score"] == pytest.approx(before["score"], rel=1e-5)
    after = score(client, missed[0])
    assert after["score"] > before["score"]
    assert entry["score_after"] == pytest.approx(after["score"], rel=1e-5)
    assert entry["decision_after"] == after["decision"]
    assert client.get("/v1/models/part").json()["rejected"] == 1
    assert client.get("/v1/models/part").json()["learned"] == 0
    assert 'fsad_edge_model_rejected{model="part"} 1.0' in client.get("/metrics").text
    # It is listed by itself, and not among what was learned.
    assert [one["id"] for one in client.get(REJECTS).json()["entries"]] == [entry["id"]]
    assert client.get(NORMALS).json()["entries"] == []
    problem = assert_problem(client.post(f"{REJECTS}?who=otto", content=missed[0]), 409)
    assert problem["force"] is True
    assert "called bad already, as 1 (missed.png, by otto)" in str(problem["detail"])
    assert_problem(client.delete(f"{NORMALS}/{entry['id']}?who=anna"), 404)
    undone = client.delete(f"{REJECTS}/{entry['id']}?who=anna").json()
    assert (undone["undone_by"], undone["decision_after"]) == ("anna", None)
    assert score(client, missed[0])["score"] == pytest.approx(before["score"], rel=1e-5)


def test_the_bad_place_can_be_marked_with_a_box(
    client: httpx.Client, missed: list[bytes], server: Server
) -> None:
    whole = client.post(f"{REJECTS}?who=otto&box=0,0,96,96", content=missed[0]).json()
    assert whole["box"] == [0, 0, 96, 96]
    corner = client.post(f"{REJECTS}?who=otto&box=0,0,5,5", content=missed[1]).json()
    assert 0 < corner["rows"] < whole["rows"]
    # The spot lies elsewhere: the corner looks as good parts do.
    marked = corner["marked"]
    assert (marked["place"], marked["patches"]) == ("box", corner["rows"])
    assert (marked["effect"], corner["decision_after"]) == ("too_little", "good")
    assert marked["ratio_before"] < marked["ratio_after"] < 1
    for words in (
        "The place inside the box was used. 1 patch of it was kept, but it stays below",
        "The image still counts as good, at", "draw a box close around the fault",
    ):  # fmt: skip
        assert words in marked["message"]
    assert whole["marked"]["effect"] == "rejected"
    assert whole["marked"]["ratio_after"] > 1
    assert f"{whole['rows']} patches of it were kept" in whole["marked"]["message"]
    at = whole["score_after"] / whole["threshold_after"]
    assert (
        f"is rejected from now on, at {at:.2f} times the threshold." in whole["marked"]["message"]
    )
    outside = client.post(f"{REJECTS}?who=otto&box=0,0,97,96", content=missed[2])
    assert "not within the photograph of 96 x 96" in str(assert_problem(outside, 409)["detail"])
    for box in ("1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,5,1e3"):
        assert_problem(client.post(f"{REJECTS}?who=otto&box={box}", content=missed[2]), 422)
    assert_problem(client.post(REJECTS, content=missed[2]), 422)  # nobody said so
    assert_problem(client.post(f"{REJECTS}?who=otto&result=1"), 404)
    assert client.get("/v1/models/part").json()["rejected"] == 2


def test_a_marked_place_that_good_parts_show_is_an_example_only(
    client: httpx.Client, missed: list[bytes], server: Server
) -> None:
    answer = client.post(f"{REJECTS}?who=otto&box=20,20,40,40", content=good_image()).json()
    marked = answer["marked"]
    assert (answer["rows"], marked["patches"], marked["effect"]) == (0, 0, "example_only")
    assert marked["ratio_after"] == marked["ratio_before"] < 1
    assert "none of its patches were kept" in marked["message"]
    assert "lower the threshold" in marked["message"]
    taught = client.post(f"{REJECTS}?who=otto", content=missed[0]).json()["marked"]
    assert (taught["place"], taught["effect"]) == ("heat_map", "rejected")
    assert taught["message"].startswith("No box was drawn, so the place where the heat map is")
    # What is undone, and what is learned, has no bad place to tell of.
    assert client.delete(f"{REJECTS}/{answer['id']}?who=anna").json()["marked"] is None
    learned = client.post(f"{NORMALS}?who=anna&force=true", content=good_image(31)).json()
    assert learned["marked"] is None


def test_a_threshold_is_shown_set_and_undone(
    client: httpx.Client, job: Job, missed: list[bytes]
) -> None:
    own = client.get(THRESHOLD).json()
    with Model.load(job.file) as model:
        known = model.metadata.threshold
    assert own == {
        "value": known.value, "file_value": known.value, "ratio": 1.0,
        "false_alarm_rate": known.false_alarm_rate, "rate_promised": known.rate_promised,
        "method": known.method, "reliability": known.reliability,
        "set_id": None, "set_by": None, "set_when": None,
        "scores": known.scores, "learned_scores": [], "examples": [], "zones": 0,
    }  # fmt: skip
    image = good_image()
    ratio = 0.97 * score(client, image)["ratio"]
    changed = client.put(f"{THRESHOLD}?who=anna&ratio={ratio}").json()
    assert changed["value"] == pytest.approx(known.value * ratio)
    assert (changed["set_by"], changed["changes"]) == ("anna", [])
    result = score(client, image)
    assert (result["decision"], result["threshold"]) == ("anomaly", changed["value"])
    assert client.get("/v1/models/part").json()["threshold"] == changed["value"]
    value = client.put(f"{THRESHOLD}?who=otto&value={known.value * 2}").json()
    assert (value["ratio"], value["set_by"]) == (2.0, "otto")
    rate = client.put(f"{THRESHOLD}?who=otto&false_alarm_rate=0.2").json()
    assert (rate["false_alarm_rate"], rate["value"] < known.value) == (0.2, True)
    back = [client.delete(f"{THRESHOLD}?who=anna").json() for _ in range(3)]
    assert [one["set_by"] for one in back] == ["otto", "anna", None]
    assert {**back[-1]} == {**own, "changes": []}
    assert_problem(client.delete(f"{THRESHOLD}?who=anna"), 404)
    for query in ("", "&value=1&ratio=1", "&value=0", "&ratio=inf", "&false_alarm_rate=0.6"):
        assert_problem(client.put(f"{THRESHOLD}?who=anna{query}"), 422)
    assert_problem(client.put(f"{THRESHOLD}?ratio=1.1"), 422)
    assert_problem(client.put("/v1/models/other/threshold?who=anna&ratio=1.1"), 404)


def test_no_example_is_lost_silently(client: httpx.Client, missed: list[bytes]) -> None:
    good = good_image()
    normal = client.post(f"{NORMALS}?who=anna", files={"file": ("good.png", good)}).json()
    assert (normal["decision_after"], normal["changes"]) == ("good", [])
    bad = client.post(f"{REJECTS}?who=otto", files={"file": ("bad.png", missed[0])}).json()
    examples = {one["id"]: one for one in client.get(THRESHOLD).json()["examples"]}
    assert [examples[one]["right"] for one in examples] == [
        True, bad["decision_after"] != "good",
    ]  # fmt: skip
    # So low that the good example is a reject.
    below = 0.9 * examples[normal["id"]]["ratio"]
    before = client.get(THRESHOLD).json()
    problem = assert_problem(client.put(f"{THRESHOLD}?who=anna&ratio={below}"), 409)
    assert (problem["force"], problem["lost"]) == (True, [normal["id"]])
    assert "good example 1 (good.png, by anna): good -> anomaly" in str(problem["detail"])
    assert client.get(THRESHOLD).json() == before
    forced = client.put(f"{THRESHOLD}?who=anna&ratio={below}&force=true").json()
    change = next(one for one in forced["changes"] if one["id"] == normal["id"])
    assert change == {
        "id": normal["id"], "name": "good.png", "role": "normal", "before": "good",
        "after": "anomaly", "lost": True,
    }  # fmt: skip
    assert examples[normal["id"]]["right"] is True
    assert {one["id"]: one["right"] for one in forced["examples"]}[normal["id"]] is False
    back = client.delete(f"{THRESHOLD}?who=anna").json()
    assert {one["id"]: one["lost"] for one in back["changes"]}[normal["id"]] is False
    assert back["examples"] == before["examples"]


def test_many_rejected_images_are_told_until_something_changes(
    client: httpx.Client, server: Server
) -> None:
    """As on a line whose good parts differ from the shots."""

    def told() -> dict[str, object]:
        rejections: dict[str, object] = client.get("/v1/models/part").json()["rejections"]
        return rejections

    client.put(f"{THRESHOLD}?who=otto&value=1e-6")
    assert told() == {"images": 0, "rejected": 0, "many": False}
    for count in range(20):
        assert told()["many"] is False
        assert score(client, good_image())["decision"] == "anomaly", count
    assert told() == {"images": 20, "rejected": 20, "many": True}
    part = client.get("/v1/models/part").json()
    assert part["rate_promised"] is False
    assert part["reliability"].startswith("20 of the newest 20 images were rejected")
    wait_until(lambda: "20 of the newest 20 images were rejected" in server.log, 6)
    assert 'fsad_edge_many_rejected{model="part"} 1.0' in client.get("/metrics").text
    client.post("/v1/models/part/drift/reset")
    assert told() == {"images": 0, "rejected": 0, "many": False}
    score(client, good_image())
    client.delete(f"{THRESHOLD}?who=otto")
    assert told() == {"images": 0, "rejected": 0, "many": False}


def test_what_is_taught_elsewhere_is_in_effect_within_seconds(
    cli: Cli, file: Path, client: httpx.Client, server: Server, missed: list[bytes]
) -> None:
    with serving(file) as other, other.client() as second:
        second.put(f"{THRESHOLD}?who=otto&ratio=1.5")
        wait_until(lambda: client.get(THRESHOLD).json()["set_by"] == "otto", 6)
        evidence = [score(client, good_image())["id"] for _ in range(3)]
        images = client.get("/v1/models/part").json()["drift"]["images"]
        client.put(f"{THRESHOLD}?who=otto&ratio=1.1")
        # A threshold leaves the scores as they are, so that the drift test goes on.
        assert client.get("/v1/models/part").json()["drift"]["images"] == images == len(evidence)
        second.post(f"{REJECTS}?who=otto", content=missed[0])
        wait_until(lambda: client.get("/v1/models/part").json()["rejected"] == 1, 6)
        assert client.get("/v1/models/part").json()["drift"]["images"] == 0
        assert "taught here by now: 1 image called bad, threshold " in server.log
