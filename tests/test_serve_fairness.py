"""Forms that are hard to split, lists that are made once, and clients that take turns."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fsad_edge.serve import create_app, json_pixels
from fsad_edge.serve.client import client_of
from fsad_edge.serve.fair_shares import FairQueue, FairShares
from fsad_edge.serve.json_pixels import PixelError, cut_pixels, flatten, read_pixels
from fsad_edge.serve.multipart import split_parts
from fsad_edge.serve.problems import ProblemError
from tests.conftest import Job, photograph
from tests.serving import Server, assert_problem, encoded, serving

FORM = {"Content-Type": "multipart/form-data; boundary=x"}
PART = b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\na\r\n"


@pytest.fixture(scope="module")
def server(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = shutil.copy(job.file, tmp_path_factory.mktemp("fair") / "part.onnx")
    with serving(file) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@pytest.fixture(scope="module")
def good() -> bytes:
    return encoded(photograph(np.random.default_rng(5)))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (PART * 400_000 + b"--x--", 413, "8 images at most"),
        (b"--x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n--x--", 400, "16 kB of headers"),
        (b"--x\r\n" + b"A: b\r\n" * 100 + b"\r\na\r\n--x--", 400, "32 headers"),
        (b"--x\r\nnonsense\r\n\r\na\r\n--x--", 400, "header without a name"),
        (PART[:20] + b"\r\n--" * 1_000_000, 400, "16 kB of headers"),
        (PART + b"--xy\r\n\r\n", 400, "followed by other characters"),
        (b"nonsense", 400, "does not begin"),
        (PART, 400, "ends early"),
        (PART[:30], 400, "ends early"),
        (b"--x", 400, "ends early"),
        (b"--x--", 400, "holds no file"),
    ],
)
def test_a_form_that_is_hard_to_split_is_refused(
    client: httpx.Client, body: bytes, status: int, words: str
) -> None:
    answer = client.post("/v1/score", content=body, headers=FORM)
    assert words in str(assert_problem(answer, status)["detail"])


def test_a_long_boundary_that_nearly_comes_is_data(client: httpx.Client) -> None:
    boundary = b"a" * 70
    data = (b"\r\n--" + boundary[:-1] + b"b") * 20_000
    body = b"--" + boundary + b"\r\nContent-Type: image/png\r\n\r\n" + data
    body += b"\r\n--" + boundary + b"--"
    [part] = split_parts(body, boundary)
    assert part.data == data


@given(
    boundary=st.text("ab-", min_size=1, max_size=5).map(str.encode),
    datas=st.lists(st.lists(st.sampled_from([b"\r", b"\n", b"-", b"a", b"b", b":"]), max_size=20)),
    named=st.booleans(),
    padding=st.sampled_from([b"", b" ", b" \t"]),
    rest=st.sampled_from([b"", b"\r\n", b"\r\nepilogue"]),
)
def test_what_is_put_into_a_form_comes_out_of_it(
    boundary: bytes, datas: list[list[bytes]], named: bool, padding: bytes, rest: bytes
) -> None:
    line = b"--" + boundary
    parts = [data for data in map(b"".join, datas) if b"\r\n" + line not in b"\r\n" + data]
    head = b"Content-Disposition: form-data; name=file\r\nX: 1\r\n" if named else b""
    body = b"".join(
        line + padding + b"\r\n" + head + b"\r\n" + data + b"\r\n" for data in parts
    ) + (line + b"--" + rest)
    found = list(split_parts(body, boundary))
    assert [part.data for part in found] == parts
    assert all((part.headers.get(b"x") == b"1") == named for part in found)
    for cut in range(0, len(body) - len(rest) - 2, max(1, len(body) // 20)):
        with pytest.raises(ProblemError):
            list(split_parts(body[:cut], boundary))


def test_a_list_is_made_once_and_told_again_when_it_changes(
    client: httpx.Client, good: bytes
) -> None:
    paths = ["/v1/recent", "/v1/models", "/v1/models/part", "/v1/models/part/normals",
             "/openapi.json"]  # fmt: skip
    for path in paths:
        first = client.get(path)
        tag = {"If-None-Match": first.headers["etag"]}
        again = client.get(path, headers=tag)
        assert (again.status_code, again.content) == (304, b""), path
        assert client.get(path, headers={"If-None-Match": '"x"'}).json() == first.json()
    before = client.get("/v1/recent?limit=1000")
    scored = client.post("/v1/score", content=good).json()["results"][0]
    after = client.get("/v1/recent?limit=1000", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.json() == {
        "results": [*before.json()["results"], scored], "last": scored["id"]
    }  # fmt: skip
    assert client.get(f"/v1/results/{scored['id']}").json() == scored
    assert client.get(f"/v1/recent?after={scored['id']}").json()["results"] == []


def test_a_long_query_is_refused(client: httpx.Client) -> None:
    assert_problem(client.get("/v1/recent?" + "decision=good&" * 1000), 414)
    many = assert_problem(client.get("/v1/recent?" + "decision=x&" * 300), 422)
    assert len(many["errors"]) == 20  # type: ignore[arg-type]


def test_lists_do_not_wait_for_a_change_that_is_being_made(
    job: Job, tmp_path: Path, good: bytes
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    app = create_app(file)
    with TestClient(app, base_url="http://localhost") as client:
        learner = app.service.models["part"].learner
        begun, end = threading.Event(), threading.Event()

        def hold() -> None:
            with learner._guard:  # as a change that takes long
                begun.set()
                end.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        try:
            assert begun.wait(10)
            for path in ("normals", "rejects", ""):
                assert client.get(f"/v1/models/part/{path}".rstrip("/")).status_code == 200
            for path in ("/v1/models", "/v1/status", "/metrics", "/readyz", "/v1/recent"):
                assert client.get(path).status_code == 200
            assert client.post("/v1/score", content=good).status_code == 200
            assert client.delete("/v1/models/part/normals/7?who=x").status_code == 404
        finally:
            end.set()
            holder.join()


def test_changes_that_wait_are_limited_by_client(job: Job, tmp_path: Path, good: bytes) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    app = create_app(file)
    with TestClient(app, base_url="http://localhost") as client:
        learner, end = app.service.models["part"].learner, threading.Event()
        held, begun = threading.Thread(target=lambda: _hold(learner, begun, end)), threading.Event()
        held.start()
        assert begun.wait(10)
        statuses = Counter[int]()

        def teach() -> None:
            answer = client.post("/v1/models/part/normals?who=x&force=true", content=good)
            statuses[answer.status_code] += 1
            if answer.status_code == 429:
                assert answer.headers["retry-after"] == "1"

        threads = [threading.Thread(target=teach) for _ in range(12)]
        for thread in threads:
            thread.start()
        threads[0].join(0.2)
        while statuses[429] < 8:
            threads[0].join(0.05)
        end.set()
        for thread in [*threads, held]:
            thread.join(60)
    assert statuses == {201: 4, 429: 8}


def _hold(learner: object, begun: threading.Event, end: threading.Event) -> None:
    with learner._guard:  # type: ignore[attr-defined]
        begun.set()
        end.wait(30)


@given(
    limit=st.integers(1, 20), asked=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-3, 5)))
)
def test_no_client_takes_all(limit: int, asked: list[tuple[str, int]]) -> None:
    shares, held = FairShares(limit), Counter[str]()
    for client, count in asked:
        if count > 0 and shares.take(client, count):
            held[client] += count
        if count < 0 and held[client] >= -count:
            shares.give(client, -count)
            held[client] += count
        assert shares.count == held.total() <= 2 * limit
        assert max(held.values(), default=0) <= limit
        if len([one for one in held.values() if one]) <= 1:  # beside one there is always room
            assert shares.has("new")
    for client, count in held.items():
        shares.give(client, count)
    assert shares.take("alone", limit)
    assert not shares.take("alone")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=30))
def test_clients_take_turns(items: list[tuple[str, int]]) -> None:
    queue = FairQueue[tuple[str, int]]()
    for client, number in items:
        queue.put(client, (client, number))
    taken = []
    while (item := queue.take()) is not None:
        taken.append(item)
    assert sorted(taken) == sorted(items)
    for client in "abc":
        own = [item for item in items if item[0] == client]
        assert [item for item in taken if item[0] == client] == own
        # Between two of its items, no other client has two.
        places = [place for place, item in enumerate(taken) if item[0] == client]
        for first, second in itertools.pairwise(places):
            between = Counter(item[0] for item in taken[first + 1 : second])
            assert max(between.values(), default=0) <= 1


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_address_tells_the_client(address: str, client: str) -> None:
    assert client_of(address) == client


def nested(depth: int) -> st.SearchStrategy[list[Any]]:
    inner: st.SearchStrategy[Any] = st.integers(-1, 256) if depth == 1 else nested(depth - 1)
    return st.lists(inner, min_size=1, max_size=6 - depth)


NESTED = st.integers(1, 4).flatmap(nested)


def flat(lists: list[Any]) -> bytes | None:
    """The numbers of nested lists; None where they are no pixels."""
    pixels = bytearray()
    with contextlib.suppress(PixelError):
        flatten(lists, pixels)
        return bytes(pixels)
    return None


@given(
    lists=NESTED | st.lists(NESTED | st.integers(0, 9)), step=st.integers(32, 64), pad=st.booleans()
)
def test_pixels_in_pieces_are_those_of_the_whole_list(
    lists: list[Any], step: int, pad: bool
) -> None:
    text = json.dumps(lists, separators=(" , ", ":") if pad else (",", ":"))
    document = f'{{"name": "image", "data" : {text}, "shape": [1]}}'.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_pixels, "TEXT_STEP", step)
        try:
            rest, name, cut = cut_pixels(document)
            found = read_pixels(cut)
        except PixelError:
            assert flat(lists) is None
            return
    assert json.loads(rest) == {"name": "image", "data": name, "shape": [1]}
    assert found == flat(lists)


def test_a_client_that_may_not_have_its_turn_is_passed() -> None:
    queue = FairQueue[str]()
    for client, item in (("a", "a1"), ("b", "b1"), ("a", "a2")):
        queue.put(client, item)
    assert queue.take(lambda client: client != "a") == "b1"
    assert queue.take(lambda client: client != "a") is None
    assert [queue.take(), queue.take(), queue.take()] == ["a1", "a2", None]
