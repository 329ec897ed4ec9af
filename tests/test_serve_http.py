"""HTTP as other clients speak it: upgrades, HEAD, too large bodies, forms, names, encodings."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import Job, photograph
from tests.serving import Server, assert_problem, encoded, serving

JPEG = {"Content-Type": "image/jpeg"}
POST = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
CLOSING = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
MB = 1 << 20


@pytest.fixture(scope="module")
def server(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = shutil.copy(job.file, tmp_path_factory.mktemp("http") / "part.onnx")
    with serving(file, "--max-mb", "1", "--timeout", "1") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@pytest.fixture(scope="module")
def good() -> bytes:
    return encoded(photograph(np.random.default_rng(5)))


def talk(server: Server, *pieces: bytes) -> str:
    """Send all pieces, and only then read what the server sends until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        while data := connection.recv(65536):
            received += data
    return received.decode("latin-1")


def chunks(*data: bytes) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (*data, b""))


OFFERS = {
    "Java's client and curl --http2": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    ),
    "WebSocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "several": b"connection: keep-alive, upgrade\r\nupgrade: TLS/1.0, a/2\r\nUpgrade: b\r\n",
}


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_of_another_protocol_is_ignored(server: Server, good: bytes, offer: str) -> None:
    sized = b"Content-Length: %d\r\n\r\n" % len(good) + good
    for body in (sized, CHUNKED + chunks(good[:100], good[100:])):
        request = POST + OFFERS[offer] + body
        whole = request + request + CLOSING  # the connection goes on after each
        for pieces in ([whole], [request[:70], request[70:300], whole[300:]]):
            answers = talk(server, *pieces)
            assert answers.count("HTTP/1.1 200 OK") == 3, answers
            assert answers.count('"decision": "good"') == 2
    assert "pgrade" not in server.log


def test_what_is_no_http_1_is_refused(server: Server) -> None:
    for line in (b"PRI * HTTP/2.0", b"CONNECT localhost:1 HTTP/1.1"):
        answer = talk(server, line + b"\r\nHost: localhost\r\n\r\n")
        assert answer.startswith("HTTP/1.1 400"), answer
        assert "application/problem+json" in answer
        assert "not valid HTTP/1.1" in answer


def test_head_answers_as_get(client: httpx.Client, good: bytes) -> None:
    scored = client.post("/v1/score", content=good, headers=JPEG).json()["results"][0]
    for path in (
        *("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/page/main.js", "/v1/status"),
        *("/v1/models", "/v1/models/part", "/v1/recent", "/v2/health/ready", "/v2/models/part"),
        *(f"/v1/results/{scored['id']}/image", "/v1/models/none", "/v1/score", "/nothing"),
    ):
        head, got = client.head(path), client.get(path)
        assert head.status_code == got.status_code, path
        assert head.content == b""
        if path not in {"/metrics", "/v1/status"}:  # whose length changes
            kept = [{k: v for k, v in one.headers.items() if k != "date"} for one in (head, got)]
            assert kept[0] == kept[1], path
    assert 'method="HEAD",route="/healthz"' in client.get("/metrics").text
    assert set(client.delete("/healthz").headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_body_over_the_limit_gets_its_answer(server: Server, client: httpx.Client) -> None:
    block, length = bytes(MB), b"Content-Length: %d\r\n\r\n" % (40 * MB)
    for pieces in (
        [POST + length, *[block] * 40],
        [POST + CHUNKED, *[chunks(block)[:-5]] * 40, b"0\r\n\r\n"],
        [POST.replace(b"image/jpeg", b"text/plain") + length, *[block] * 40],
        [POST + b"Expect: 100-continue\r\n" + length, *[block] * 40],
        [POST + OFFERS["WebSocket"] + length, *[block] * 40],
    ):
        answer = talk(server, *pieces)
        assert answer.startswith("HTTP/1.1 41"), answer[:200]
        assert "connection: close" in answer
        assert "than 1 MB" in answer or "send an image" in answer
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
        connection.sendall(POST + b"Expect: 100-continue\r\n" + length)
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert time.monotonic() - begin < 1
    assert client.get("/healthz").status_code == 200


def test_a_refused_body_that_never_ends_is_cut(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        connection.sendall(POST + CHUNKED + chunks(bytes(MB + 1))[:-5])
        connection.settimeout(0.05)
        begin, received = time.monotonic(), b""
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < begin + 15:
                connection.sendall(b"1\r\na\r\n")
                with contextlib.suppress(TimeoutError):
                    received += connection.recv(4096)
                time.sleep(0.05)
        assert received.startswith(b"HTTP/1.1 413")
        assert time.monotonic() - begin < 10


def test_a_form_is_refused_by_the_name_of_its_field(client: httpx.Client, good: bytes) -> None:
    photo = ("photo.jpg", good, "image/jpeg")
    extra = client.post("/v1/score", files={"file": photo}, data={"model": "part"})
    sentence = str(assert_problem(extra, 422)["detail"])
    assert "'model'" in sentence
    assert "'file'" in sentence
    assert "?model=NAME" in sentence
    broken = client.post("/v1/score", files=[("file", photo), ("notes", ("notes.txt", b"dull"))])
    assert "'notes.txt' in the field 'notes'" in str(assert_problem(broken, 422)["detail"])
    two = client.post("/v1/models/part/normals?who=anna", files=[("file", photo), ("b", photo)])
    assert "2 images were sent" in str(assert_problem(two, 400)["detail"])
    assert "in the field 'b'" in two.json()["detail"]
    # Images are taken whatever their field and without a file name.
    for files in ({"image": photo}, {"file": (None, good)}, {"x": (None, good, "image/jpeg")}):
        assert client.post("/v1/score", files=files).status_code == 200


def test_compressed_bodies_are_refused(client: httpx.Client, good: bytes) -> None:
    packed = gzip.compress(good)
    for path in ("/v1/score", "/v1/models/part/normals?who=anna", "/v2/models/part/infer"):
        for encoding in ("gzip", "deflate", "br", "zstd", "identity, gzip"):
            headers = {**JPEG, "Content-Encoding": encoding}
            answer = client.post(path, content=packed, headers=headers)
            assert "uncompressed" in str(assert_problem(answer, 415)["detail"])
            assert encoding in answer.json()["detail"]
    plain = {**JPEG, "Content-Encoding": "Identity"}
    assert client.post("/v1/score", content=good, headers=plain).status_code == 200
    part = form(b'form-data; name="file"', b"Content-Transfer-Encoding: base64\r\n", good)
    answer = client.post("/v1/score", **part)
    assert "'file' is encoded" in str(assert_problem(answer, 415)["detail"])


def form(disposition: bytes, headers: bytes, data: bytes) -> dict[str, Any]:
    """A form with one part, as arguments of a request."""
    head = b"--x\r\nContent-Disposition: " + disposition + b"\r\n" + headers + b"\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return {"content": head + data + b"\r\n--x--\r\n", "headers": kind}


NAMES = {
    b"filename*=UTF-8''na%C3%AFve%20%e2%82%ac.jpg": "naïve €.jpg",
    b"filename=\"x.jpg\"; filename*=utf-8'de'%C3%A4.jpg": "ä.jpg",
    b"FileName*=iso-8859-1''%E4.jpg; filename=x.jpg": "ä.jpg",
    b"filename*=UTF-16''%d8%00; filename=x.jpg": "x.jpg",
    b"filename*=nonsense": "nonsense",
    'filename="tür;1=2 €.jpg"'.encode(): "tür;1=2 €.jpg",
    'filename="tür.jpg"'.encode("latin-1"): "tür.jpg",
    b'filename="=?utf-8?B?w6QuanBn?="': "ä.jpg",  # .NET
    b'filename="a%22b.jpg"': 'a"b.jpg',  # browsers
    b'filename="a\\"b.jpg"': 'a"b.jpg',
    b'filename="C:\\photos\\new\\a.jpg"': "a.jpg",
    b'filename="\\\\host\\a.jpg"': "a.jpg",
    b"filename=a.jpg": "a.jpg",
    b'filename="camera 1/a.jpg"': "camera 1/a.jpg",
}


@pytest.mark.parametrize(("given", "name"), NAMES.items(), ids=NAMES.values())
def test_a_result_has_the_name_that_the_client_gave(
    client: httpx.Client, good: bytes, given: bytes, name: str
) -> None:
    answer = client.post("/v1/score", **form(b"form-data; name=file; " + given, b"", good))
    assert answer.json()["results"][0]["name"] == name
    headers = {b"Content-Type": b"image/jpeg", b"Content-Disposition": b"attachment; " + given}
    raw = client.post("/v1/score", content=good, headers=headers)
    assert raw.json()["results"][0]["name"] == name
