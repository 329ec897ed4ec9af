"""The service's budget of memory for images, whatever comes and however much of it at once."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Job, photograph
from tests.picture_files import png
from tests.serving import Server, assert_problem, encoded, serving

JPEG = {"Content-Type": "image/jpeg"}

#: MB of memory for images in these tests, and what the rest of a busy service may take.
BUDGET, REST = 320, 120

#: Pixels of a side of the large images: 16 megapixels take 160 MB or more to draw.
SIDE = 4000


@pytest.fixture(scope="module")
def server(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = Path(shutil.copy(job.file, tmp_path_factory.mktemp("memory") / "part.onnx"))
    with serving(
        file, "--decode-memory-mb", str(BUDGET), "--max-mb", "16", "--queue", "16"
    ) as server:
        with server.client() as client:  # what is loaded once
            small = encoded(photograph(np.random.default_rng(5)))
            assert client.post("/v1/score", content=small, headers=JPEG).status_code == 200
        yield server


@pytest.fixture(scope="module")
def large() -> bytes:
    """A PNG of 30 kB."""
    return encoded(photograph(np.random.default_rng(5)).resize((10, 10)).resize((SIDE, SIDE), 0))


def peak(server: Server) -> float:
    """The most memory that the service has had, in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def all_at_once(
    server: Server, method: str, path: str, count: int, body: bytes = b""
) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
            request = {"content": body, "headers": JPEG} if body else {}
            return await asyncio.gather(
                *(client.request(method, path, **request) for _ in range(count))  # type: ignore[arg-type]
            )

    return asyncio.run(ask())


def test_pictures_of_large_images_at_once_stay_within_the_memory(
    server: Server, large: bytes
) -> None:
    with server.client() as client:
        answer = client.post("/v1/score", content=large, headers=JPEG)
        assert answer.status_code == 200, answer.text
        number = answer.json()["results"][0]["id"]
    before = peak(server)
    for what in ("overlay", "image"):
        answers = all_at_once(server, "GET", f"/v1/results/{number}/{what}", 10)
        counts = Counter(answer.status_code for answer in answers)
        assert set(counts) <= {200, 429}
        assert counts[200] >= 1
        assert all(one.headers["retry-after"] for one in answers if one.status_code == 429)
    assert peak(server) - before < BUDGET + REST
    with server.client() as client:
        assert client.get(f"/v1/results/{number}/overlay").status_code == 200


def test_16_bit_images_at_once_stay_within_the_memory(server: Server) -> None:
    grey = (np.arange(SIDE) * 16).astype(np.uint16)
    image = png(np.tile(grey, (SIDE, 1)))
    before = peak(server)
    answers = all_at_once(server, "POST", "/v1/score", 8, image)
    assert {answer.status_code for answer in answers} == {200}
    assert peak(server) - before < BUDGET + REST


def test_bodies_that_wait_to_be_learned_count(server: Server) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    image = encoded(Image.fromarray(noise), "BMP")
    before = peak(server)
    answers = all_at_once(server, "POST", "/v1/models/part/normals?who=anna", 40, image)
    counts = Counter(answer.status_code for answer in answers)
    assert counts[429] > 0
    assert set(counts) <= {201, 409, 429}
    assert peak(server) - before < BUDGET + REST
    # What they held is free again.
    small = encoded(photograph(np.random.default_rng(5)))
    with server.client() as client:
        assert client.post("/v1/score", content=small, headers=JPEG).status_code == 200


def test_an_image_that_is_larger_than_the_memory_is_413(server: Server) -> None:
    huge = encoded(Image.new("RGB", (6000, 6000), (9, 99, 9)))
    with server.client() as client:
        for path in ("/v1/score", "/v1/models/part/normals?who=anna"):
            answer = client.post(path, content=huge, headers=JPEG)
            assert "--decode-memory-mb" in str(assert_problem(answer, 413)["detail"])


def test_learning_has_the_limits_of_scoring(server: Server) -> None:
    many = encoded(photograph(np.random.default_rng(5)), progressive=True)
    last = many.rindex(b"\xff\xda")
    scans = many[:-2] + 200 * many[last:-2] + many[-2:]
    pixels = encoded(Image.new("1", (9000, 9000)), "PNG")
    for image, words in ((scans, "more than 100 JPEG scans"), (pixels, "limit of 50,000,000")):
        with server.client() as client:
            for path in ("/v1/score", "/v1/models/part/normals?who=anna"):
                answer = client.post(path, content=image, headers=JPEG)
                assert words in str(assert_problem(answer, 422)["detail"])


def test_an_image_of_many_parts_takes_neither_time_nor_memory(server: Server) -> None:
    image = encoded(photograph(np.random.default_rng(5)))
    image = image[:2] + b"\xff\xe2\0\6MPF\0" * 1_500_000 + image[2:]
    with server.client() as client:
        for path in ("/v1/score", "/v1/models/part/normals?who=a"):
            answer = client.post(path, content=image, headers=JPEG)
            document = assert_problem(answer, 422)
            assert "more than 4,096 segments before its pixels" in str(document["detail"])
