"""The API of the service: its answers, problem documents, broken images, learning."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fsad_edge import Model
from tests.conftest import Job, photograph
from tests.serving import Server, assert_problem, encoded, serving


@pytest.fixture(scope="module")
def model_file(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, which the tests may teach."""
    return Path(shutil.copy(job.file, tmp_path_factory.mktemp("api") / "part.onnx"))


@pytest.fixture(scope="module")
def server(model_file: Path) -> Iterator[Server]:
    other = shutil.copy(model_file, model_file.with_name("o.onnx"))
    limits = ("--max-mb", "2", "--max-megapixels", "4", "--queue", "4")
    with serving(model_file, f"other={other}", *limits) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def good() -> bytes:
    return encoded(photograph(np.random.default_rng(5)), quality=95)


@pytest.fixture(scope="module")
def bad() -> bytes:
    return encoded(photograph(np.random.default_rng(6), defect=True), quality=95)


#: Schemathesis applies these checks to every answer.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
JPEG = {"Content-Type": "image/jpeg"}


def test_scores_equal_those_of_the_runtime(
    client: httpx.Client, model_file: Path, good: bytes, bad: bytes
) -> None:
    with Model.load(model_file) as model:
        for image in (good, bad):
            answer = client.post("/v1/score?model=part", content=image, headers=JPEG)
            assert answer.status_code == 200
            (result,) = answer.json()["results"]
            expected = model.score(image)
            assert result["score"] == pytest.approx(expected.score, rel=1e-5)
            assert result["decision"] == ("anomaly" if expected.anomalous else "good")
            assert result["ratio"] == pytest.approx(expected.ratio, rel=1e-5)
            assert (result["width"], result["height"]) == (96, 96)
            # The p-value and the threshold come from one distribution.
            rate = model.metadata.threshold.false_alarm_rate
            assert (result["p_value"] < rate) == expected.anomalous
            assert {"read", "decode", "resize", "queue", "infer", "total"} == set(result["timings"])


def test_several_files_are_answered_in_order(client: httpx.Client, good: bytes, bad: bytes) -> None:
    files = [("file", ("g/../ä.jpg", good)), ("file", ("b.jpg", bad)), ("file", ("c.jpg", good))]
    answer = client.post("/v1/score?model=part&heatmap=png", files=files)
    results = answer.json()["results"]
    assert [result["name"] for result in results] == ["g/../ä.jpg", "b.jpg", "c.jpg"]
    assert results[0]["score"] == results[2]["score"] != results[1]["score"]
    head, _, picture = results[1]["heatmap"].partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (96, 96)


def test_results_and_their_images_are_kept(client: httpx.Client, good: bytes, bad: bytes) -> None:
    before = client.get("/v1/recent").json()["last"]
    sent = [
        client.post("/v1/score?model=part", content=image, headers=JPEG).json()["results"][0]
        for image in (good, bad)
    ]
    recent = client.get(f"/v1/recent?after={before}").json()
    assert recent["results"] == sent
    assert recent["last"] == sent[1]["id"]
    number = sent[1]["id"]
    assert client.get(f"/v1/results/{number}").json() == sent[1]
    pictures = []
    for kind in ("image", "overlay"):
        answer = client.get(f"/v1/results/{number}/{kind}?side=48")
        assert answer.headers["content-type"] == "image/jpeg"
        pictures.append(np.asarray(Image.open(io.BytesIO(answer.content))).astype(int))
        assert pictures[-1].shape == (48, 48, 3)
    assert (np.abs(pictures[0] - pictures[1]).max() > 30) == (sent[1]["ratio"] > 1)
    only = client.get(f"/v1/recent?after={before}&decision=anomaly").json()["results"]
    assert only == [result for result in sent if result["decision"] == "anomaly"]
    assert client.get("/v1/recent?model=other&limit=5").json()["results"] == []


def test_models_health_status_and_metrics(client: httpx.Client, good: bytes) -> None:
    client.post("/v1/score?model=part", content=good, headers=JPEG)
    models = {model["name"]: model for model in client.get("/v1/models").json()["models"]}
    assert set(models) == {"part", "other"}
    assert models["part"] == client.get("/v1/models/part").json()
    assert models["part"]["golden"] == 2
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["ready"]
    for key in ("version", "graph"):
        assert ready["models"]["part"][key] == models["part"][key]
    seen = models["part"]["drift"]["images"]
    assert seen > 0
    reset = client.post("/v1/models/part/drift/reset").json()
    assert reset["drift"]["images"] == 0
    status = client.get("/v1/status").json()
    assert status["counts"]["good"] > 0
    assert status["queue"] == {"length": 0, "limit": 4}
    metrics = client.get("/metrics").text
    for line in (
        'fsad_edge_images_total{decision="good",model="part",source="http"}',
        'fsad_edge_stage_seconds_bucket{le="0.01",stage="infer"}',
        'fsad_edge_requests_total{method="POST",route="/v1/score",status="200"}',
        "fsad_edge_queue_limit 4.0",
        'fsad_edge_score_ratio_count{model="part"}',
        f'fsad_edge_model_info{{graph="{models["part"]["graph"]}",model="part",'
        f'version="{models["part"]["version"]}"}} 1.0',
    ):
        assert line in metrics


def test_errors_are_problem_documents(client: httpx.Client, good: bytes) -> None:
    post = client.post
    assert_problem(client.get("/nothing/here"), 404)
    assert_problem(client.delete("/healthz"), 405)
    assert_problem(client.get("/v1/models/nobody"), 404)
    assert_problem(client.get("/v1/results/1"), 404)
    assert_problem(client.get("/v1/results/x"), 422)
    assert_problem(client.get("/page/..%2f..%2fmodels.py"), 404)
    assert_problem(client.get("/page/%2e%2e/models.py"), 404)
    score = "/v1/score?model=part"
    assert_problem(post("/v1/score?model=nobody", content=good, headers=JPEG), 404)
    several = assert_problem(post("/v1/score", content=good, headers=JPEG), 422)
    assert "part, other" in str(several["detail"])
    assert_problem(post(score + "&heatmap=gif", content=good, headers=JPEG), 422)
    assert_problem(post(score, content=b"", headers=JPEG), 400)
    assert_problem(post(score, content=b"a=b", headers={"Content-Type": "text/plain"}), 415)
    assert_problem(post(score, content=bytes(3 << 20), headers=JPEG), 413)
    assert_problem(post(score, content=iter([bytes(1 << 20)] * 3), headers=JPEG), 413)
    assert_problem(post(score, files=[("file", ("a", good))] * 5), 413)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"x",
        b"--x\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nab",
        b"--x--\r\n",
    ):
        assert_problem(post(score, content=body, headers=form), 400)
    assert_problem(post(score, content=good, headers={"Content-Type": "multipart/form-data"}), 400)
    second = assert_problem(post(score, files=[("f", ("a", good)), ("f", ("b", b"no"))]), 422)
    assert second["image"] == 1


def broken_images(good: bytes) -> Iterator[bytes]:
    """Files that are not images, although most begin like one."""
    rng = np.random.default_rng(0)
    picture = Image.open(io.BytesIO(good))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"):
        whole = encoded(picture, kind)
        for cut in np.linspace(1, 0.75 * len(whole), 22).astype(int):
            yield whole[:cut]
        yield bytes([whole[0] ^ 0xFF]) + whole[1:]  # wrong magic
    for size in (0, 1, 7, 15):  # smaller than a patch
        yield encoded(Image.new("RGB", (max(size, 1), 40)), "PNG")
    for width, height in (
        (1 << 31 - 1, 1),
        (60_000, 60_000),
        (1 << 20, 1 << 20),
        (0, 0),
        (3000, 3000),
    ):
        yield png(width, height, 8, 2, b"\0" * 64)  # its data does not fill it
    bomb = zlib.compress(bytes(9000 * 2000), 9)
    yield png(9000, 2000, 8, 0, bomb)  # its data fills it, but it is too large
    for depth, colour in ((3, 2), (8, 5), (16, 3), (64, 0), (0, 0)):
        yield png(32, 32, depth, colour, zlib.compress(bytes(8192)))
    yield b"\xff\xd8" + b"\xff\xda\x00\x02" * 500 + b"\xff\xd9"
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n"
    yield b"<svg xmlns='http://www.w3.org/2000/svg' width='99' height='99'/>"
    yield b"GIF89a" + bytes(4) + b"\xff" * 40
    for _ in range(20):
        yield bytes(rng.integers(0, 256, 500, dtype=np.uint8))


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """A PNG file with any header and any data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width % 2**32, height % 2**32, depth, colour, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_broken_images_are_refused_quickly(
    client: httpx.Client, good: bytes, server: Server
) -> None:
    broken = list(broken_images(good))
    assert len(broken) >= 200
    slowest = 0.0
    for image in broken:
        begin = time.monotonic()
        answer = client.post("/v1/score?model=part", content=image, headers=JPEG)
        slowest = max(slowest, time.monotonic() - begin)
        assert_problem(answer, 422 if image else 400)
    assert slowest < 2
    assert client.post("/v1/score?model=part", content=good, headers=JPEG).status_code == 200


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "I", "F"])
def test_odd_modes_are_scored(client: httpx.Client, good: bytes, mode: str) -> None:
    picture: Image.Image = Image.open(io.BytesIO(good))
    grey = np.asarray(picture.convert("L"))
    deep = {"I;16": grey.astype(np.uint16) << 8, "F": (grey / 255).astype(np.float32)}
    picture = Image.fromarray(deep[mode]) if mode in deep else picture.convert(mode)
    image = encoded(picture, "TIFF")
    answer = client.post("/v1/score?model=part", content=image, headers=JPEG)
    if mode == "I":  # of 32 bits: what is white in it?
        assert "--range 0 255" in str(assert_problem(answer, 422)["detail"])
    else:
        assert answer.status_code == 200, answer.text


def test_several_pages_are_refused_and_an_image_that_shows_nothing_is_neither_judged_nor_learned(
    client: httpx.Client, good: bytes
) -> None:
    with Image.open(io.BytesIO(good)) as picture:
        pages = encoded(picture, "TIFF", save_all=True, append_images=[picture])
    answer = client.post("/v1/score?model=part", files={"file": ("pages.tif", pages)})
    assert "holds several pages or frames" in str(assert_problem(answer, 422)["detail"])
    for colour, doubt in (
        ((0, 0, 0), "black"), ((255, 255, 255), "white"), ((90, 140, 30), "flat"),
    ):  # fmt: skip
        flat = encoded(Image.new("RGB", (300, 300), colour))
        answer = client.post("/v1/score?model=part", content=flat, headers=JPEG)
        (result,) = answer.json()["results"]
        assert (result["decision"], result["good"]) == ("not_judged", False)
        assert result["doubts"] == [doubt]
        answer = client.post("/v1/models/part/normals?who=a", content=flat, headers=JPEG)
        assert "the image shows nothing" in str(assert_problem(answer, 422)["detail"])


def test_a_dark_photograph_is_flagged(client: httpx.Client, good: bytes) -> None:
    with Image.open(io.BytesIO(good)) as picture:
        dark = encoded(picture.point(lambda level: level // 6), "PNG")
    results = [
        client.post("/v1/score?model=part", content=image, headers=JPEG).json()["results"][0]
        for image in (good, dark)
    ]
    assert results[0]["flags"] == []
    assert "dark" in results[1]["flags"]
    assert 'fsad_edge_flags_total{flag="dark",model="part"}' in client.get("/metrics").text
    assert 'fsad_edge_drift_evidence{model="part"}' in client.get("/metrics").text


def test_a_new_normal_is_learned_and_undone(client: httpx.Client, good: bytes, bad: bytes) -> None:
    def score(image: bytes) -> dict[str, float]:
        answer = client.post("/v1/score?model=other", content=image, headers=JPEG)
        result: dict[str, float] = answer.json()["results"][0]
        return result

    before = score(bad)
    path = "/v1/models/other/normals"
    assert_problem(client.post(f"{path}?result={before['id']}"), 422)  # without a name
    added = client.post(f"{path}?who=anna&force=true&result={before['id']}")
    assert added.status_code == 201, added.text
    entry = added.json()
    assert entry["who"] == "anna"
    after = score(bad)
    assert after["learned"] == 1
    assert after["score"] < 0.7 * before["score"]
    listed = client.get(path).json()["entries"]
    assert [(known["id"], known["undone"]) for known in listed] == [(entry["id"], None)]
    assert client.delete(f"{path}/{entry['id']}?who=ben").json()["undone_by"] == "ben"
    assert score(bad)["score"] == pytest.approx(before["score"], rel=1e-6)
    assert_problem(client.delete(f"{path}/{entry['id']}?who=ben"), 409)
    assert_problem(client.delete(f"{path}/99?who=ben"), 404)
    assert_problem(client.post(f"{path}?who=ben", content=b"no", headers=JPEG), 422)
    assert_problem(client.post(f"/v1/models/part/normals?who=a&result={before['id']}"), 404)
    raw = client.post(f"{path}?who=anna", content=good, headers=JPEG)
    assert raw.status_code == 201
    client.delete(f"{path}/{raw.json()['id']}?who=ben")


def test_answers_follow_the_openapi_document(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) >= 14
    for operation in operations:

        @settings(
            max_examples=15, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=operation.as_strategy())
        def follows_it(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        follows_it()
