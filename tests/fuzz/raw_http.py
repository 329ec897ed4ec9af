"""Requests that no client should send, over plain sockets, to a service that runs."""

from __future__ import annotations

import contextlib
import json
import random
import re
import select
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.service import LATE_ON_CLOCK, Service
from tests.fuzz.subject import Subject, encoded, photograph

_PATHS = (
    *("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/page/page.js", "/v1/status"),
    *("/v1/score", "/v1/recent", "/v1/recent?limit=1000", "/v1/results/1", "/v1/results/1/image"),
    *("/v1/results/1/overlay", "/v1/models", "/v1/models/part", "/v1/models/part/normals"),
    *("/v1/models/part/rejects", "/v1/models/part/threshold", "/v1/models/part/drift/reset"),
    *("/v2", "/v2/models/part", "/v2/models/part/infer", "/v2/models/part/config"),
    *("/v2/models/part/versions/1/infer", "/v2/repository/index", "/v1/models/part/learned"),
)
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get",
            "BREW", "POST" * 50, "\x00", "")  # fmt: skip
_VALUES = (
    *(
        "0",
        "-1",
        "1",
        "9" * 30,
        "1e400",
        "nan",
        "inf",
        "true",
        "null",
        "",
        " ",
        "%00",
        "%0d%0aX:%20y",
    ),
    *("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "a" * 3000, "%ff%fe", "\xff", "é", "[]", "{}"),
    *("0,0,1,1", "-5,-5,1e9,1e9", "'\"<script>", "\x1b[31m", "1;2", "part", "png", "near"),
)
_QUERIES = ("limit", "model", "heatmap", "scale", "who", "force", "box", "result", "side", "after",
            "ratio", "value", "false_alarm_rate", "id", "unheard")  # fmt: skip
_HEADERS = (
    *("Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 5, 7"),
    *("Content-Length: 5\r\nContent-Length: 7", "Transfer-Encoding: chunked, gzip"),
    *("Transfer-Encoding: chunked\r\nContent-Length: 3", "Content-Encoding: gzip"),
    *("Expect: 100-continue", "Upgrade: websocket\r\nConnection: Upgrade", "Connection: close"),
    *("Host: evil.example", "Host: ", "Host: [::1", "Host: a\r\nHost: b", "Origin: http://evil"),
    *("Origin: http://[", "Range: bytes=0-0,-1", "If-None-Match: *", "Authorization: Bearer \xff"),
    *("Content-Disposition: attachment; filename*=UTF-8''%ff%", "Accept: \xff", "A" * 9000 + ": b"),
    *("X: " + "y" * 40_000, " folded: x", "X : y", "X\x00: y", "Cookie: " + "a=b; " * 500),
    *("Content-Type: multipart/form-data", "Content-Type: \xff"),
    *(f"Inference-Header-Content-Length: {one}" for one in ("-1", "99999999999", "x", "\xb2")),
    *("X-Forwarded-For: \x1b[31m", "Forwarded: for=\"_x", "Sec-Fetch-Site: cross-site"),
)  # fmt: skip

_KINDS = ("line", "query", "header", "body", "form", "kserve", "chunks", "pipeline", "slow",
          "noise", "json", "flood", "unread", "idle", "large")  # fmt: skip

#: The address of the one who attacks: a limit for each client must not hit the honest one.
ATTACKER = "127.0.0.2"


class Attack:
    """Sends bytes, reads what comes, and sends an honest request afterwards."""

    def __init__(self, subject: Subject) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        shutil.copy(subject.file, self._folder)
        self._image = encoded(photograph(51), "JPEG", quality=80)
        self._service: Service | None = None

    def make(self, rng: random.Random) -> Steps:
        kind = rng.choice(_KINDS)
        if kind == "large":
            return self._large(rng)
        if kind == "idle":
            pieces = rng.choice([[""], ["GET / HTTP/1.1\r\nHost: x\r\n"], ["\x16\x03\x01"]])
            return {"kind": kind, "pieces": pieces, "wait": 0.0, "clients": 600, "hold": 2.0}
        if kind == "unread":
            request = _request("GET", rng.choice(_PATHS)).decode("latin-1")
            pieces = [request * rng.choice((10, 500, 5000))]
            return {"kind": kind, "pieces": pieces, "wait": 0.0, "clients": 60, "hold": 2.0}
        makers: dict[str, Callable[[random.Random], Sequence[bytes]]] = {
            "line": self._line, "query": self._query, "header": self._header, "body": self._body,
            "form": self._form, "kserve": self._kserve, "chunks": self._chunks,
            "pipeline": self._pipeline, "slow": self._slow, "noise": self._noise,
            "json": self._json, "flood": self._flood,
        }  # fmt: skip
        pieces = [one.decode("latin-1") for one in makers[kind](rng)]
        wait = 0.05 if kind == "slow" else 0.0
        return {
            "kind": kind,
            "pieces": pieces,
            "wait": wait,
            "clients": 20 * (kind == "flood") or 1,
        }

    def _line(self, rng: random.Random) -> list[bytes]:
        version = rng.choice(["HTTP/1.1"] * 3 + ["HTTP/1.0", "HTTP/9.9", "HTTP/2.0", "", "ICY"])
        path = rng.choice([*_PATHS, "*", "http://evil/", "//evil/", "/" * 3000, "/\x00", "?", "#"])
        return [_request(rng.choice(_METHODS), path, version=version)]

    def _query(self, rng: random.Random) -> list[bytes]:
        path = rng.choice(_PATHS)
        path = path.replace("part", rng.choice(["part", *_VALUES]))
        path = re.sub(r"/1\b", lambda _: "/" + rng.choice(_VALUES), path)
        pairs = [f"{rng.choice(_QUERIES)}={rng.choice(_VALUES)}" for _ in range(rng.randrange(6))]
        method = rng.choice(["GET", "GET", "POST", "DELETE", "PUT"])
        body = b"" if method == "GET" else self._image
        return [_request(method, path.replace(" ", "%20") + "?" + "&".join(pairs), body)]

    def _header(self, rng: random.Random) -> list[bytes]:
        headers = [rng.choice(_HEADERS) for _ in range(rng.choice((1, 1, 2, 3)))]
        method = rng.choice(["GET", "POST"])
        body = self._image if method == "POST" else b""
        return [_request(method, rng.choice(_PATHS), body, headers)]

    def _body(self, rng: random.Random) -> list[bytes]:
        path = rng.choice(["/v1/score", "/v1/models/part/normals?who=a", "/v1/models/part/rejects"])
        body = rng.choice([b"", b"\x00", rng.randbytes(3000), self._image[: rng.randrange(3000)]])
        kind = rng.choice(["image/jpeg", "text/html", "application/json", "", "a/b;" * 1000])
        return [_request("POST", path, body, [f"Content-Type: {kind}"])]

    def _form(self, rng: random.Random) -> list[bytes]:
        mark = rng.choice([b"x", b"x" * 70, b"x" * 3000, b"", b'a"b', b"--", b"\xff"])
        parts = b""
        for _ in range(rng.choice((0, 1, 2, 40, 3000))):
            name = rng.choice([b'name="file"', b"name=file", b'name="', b"", b'name="\xff"'])
            file = rng.choice(
                [b'; filename="a.jpg"', b'; filename="../../x"', b"; filename*=x", b""]
            )
            data = rng.choice([b"", self._image, b"\r\n--", b"--" + mark, b"\r" * 100])
            parts += b"--" + mark + b"\r\nContent-Disposition: form-data; " + name + file
            parts += rng.choice([b"\r\n\r\n", b"\r\nContent-Type: image/png\r\n\r\n", b"\n\n", b""])
            parts += data[: 3000 if len(parts) > 10**5 else None] + b"\r\n"
        parts += rng.choice([b"--" + mark + b"--\r\n", b"", b"--" + mark, b"junk"])
        kind = "Content-Type: multipart/form-data; boundary=" + mark.decode("latin-1")
        path = rng.choice(["/v1/score", "/v1/models/part/normals?who=a"])
        return [_request("POST", path, parts, [kind])]

    def _kserve(self, rng: random.Random) -> list[bytes]:
        shapes: list[Any] = [
            *([1, 96, 96, 3], [0], [-1, 96, 96, 3], [2**40, 96, 96, 3], [], ["1"], None),
            *([1] * 999, [1.5, 96, 96, 3], [1, 96, 96, 4]),
        ]
        data = rng.choice(
            [[0] * 27648, [], [[0]], ["x"], [1e400], None, [-1], [256] * 27648, [True]]
        )
        tensor = {
            "name": rng.choice(["image", "other", None, "image" * 999]),
            "datatype": rng.choice(["UINT8", "BYTES", "FP32", 5, None]),
            "shape": rng.choice(shapes),
            "data": data,
            "parameters": {"binary_data_size": rng.choice([27648, 0, -1, 2**63, "x", 1.5])},
        }
        for name in rng.sample(sorted(tensor), rng.randrange(3)):
            del tensor[name]
        document: dict[str, Any] = {
            "id": rng.choice(["a", 5, None, "x" * 10_000, "\ud800"]),
            "inputs": rng.choice([[tensor]] * 5 + [[], [tensor] * 3, {}, None, [None], tensor]),
            "outputs": rng.choice([[{"name": "score"}], [{"name": 1}], [1], None, {}, [{}] * 999]),
        }
        text = rng.choice([json.dumps(document)] * 9 + ["[" * 100_000, '{"a":' * 50_000, "NaN"])
        body, headers = text.encode(), ["Content-Type: application/json"]
        if rng.random() < 0.4:
            length = rng.choice([len(body), 0, 5, len(body) + 10**6, 2**64])
            headers.append(f"Inference-Header-Content-Length: {length}")
            body += rng.choice(
                [b"", bytes(27648), rng.randbytes(100), struct.pack("<I", 2**32 - 1)]
            )
        return [_request("POST", "/v2/models/part/infer", body, headers)]

    def _json(self, rng: random.Random) -> list[bytes]:
        bodies = (
            "",
            "null",
            "[]",
            "{}",
            "NaN",
            '{"value": NaN}',
            '{"value": 1e999}',
            "[" * 50_000,
            '{"value": true}',
            '{"ratio": -1}',
            '{"ratio": "1"}',
            '{"who": 5}',
            '{"id": []}',
            '{"value": ' + "9" * 5000 + "}",
            '{"false_alarm_rate": 0}',
            '{"who": "\\ud800"}',
            '{"value":0.1,"who":"' + "x" * 10**5 + '"}',
            '{"box": [0, 0, 1e308, NaN]}',
        )
        method, path = rng.choice(["POST", "PUT", "PATCH", "DELETE"]), rng.choice(_PATHS)
        body = rng.choice(bodies).encode()
        return [_request(method, path, body, ["Content-Type: application/json"])]

    def _chunks(self, rng: random.Random) -> list[bytes]:
        head = "POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        sizes = (b"5", b"0", b"-1", b"ffffffffffffffff", b"5;ext=" + b"x" * 9000, b"", b"z", b"5 ")
        body = b""
        for _ in range(rng.randrange(1, 6)):
            body += rng.choice(sizes) + rng.choice([b"\r\n", b"\n", b""]) + b"hello\r\n"
        if rng.random() < 0.3:
            body += b"".join(b"1\r\na\r\n" for _ in range(20_000))
        return [head.encode(), body + rng.choice([b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b""])]

    def _pipeline(self, rng: random.Random) -> list[bytes]:
        requests = [_request("GET", rng.choice(_PATHS)) for _ in range(rng.choice((5, 50, 500)))]
        return [b"".join(requests)]

    def _slow(self, rng: random.Random) -> list[bytes]:
        whole = _request("POST", "/v1/score", self._image)
        cuts = sorted(rng.randrange(len(whole)) for _ in range(8))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        return pieces[: rng.randrange(1, 10)]

    def _noise(self, rng: random.Random) -> list[bytes]:
        whole = bytearray(_request("POST", "/v1/score", self._image))
        for _ in range(rng.randrange(1, 20)):
            whole[rng.randrange(min(len(whole), 300))] = rng.randrange(256)
        hello = b"\x16\x03\x01\x02\x00\x01" + rng.randbytes(300)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(50)
        return [
            rng.choice([bytes(whole)] * 4 + [rng.randbytes(500), hello, preface, b"\r\n" * 5000])
        ]

    def _flood(self, rng: random.Random) -> list[bytes]:
        path = rng.choice(["/v1/score", "/v1/models/part/normals?who=a&force=true"])
        return [_request("POST", path, self._image)] * rng.randrange(1, 4)

    def _large(self, rng: random.Random) -> Steps:
        """A form of nearly the largest size, whose parts cost more than their bytes."""
        units = ("--x\r\n\r\n", "\r\n--x", "\r\n", "\r", "-", "\r\n--x\r\nA:b\r\n\r\n", "a")
        unit = rng.choice(units)
        times = 7_000_000 // len(unit)
        head = "--x\r\nContent-Disposition: form-data; name=file\r\n\r\n"
        tail = "\r\n--x--\r\n"
        size = len(head) + len(unit) * times + len(tail)
        kind = "Content-Type: multipart/form-data; boundary=x"
        start = _request("POST", "/v1/score", b"", [kind, f"Content-Length: {size}"])
        pieces = [start.decode() + head, unit, tail]
        return {"kind": "large", "pieces": pieces, "wait": 0.0, "clients": 2, "times": times}

    def run(self, steps: Steps) -> Verdict:
        if self._service is None:
            self._service = Service(
                self._folder, self._folder / "part.onnx", "--timeout", "2", "--max-mb", "8"
            )
        service = self._service
        pieces = [one.encode("latin-1") for one in steps["pieces"]]
        if "times" in steps:
            pieces = [pieces[0] + pieces[1] * steps["times"] + pieces[2]]
        with service.alive() as alive:
            if "hold" in steps:
                answers = _hold(service, pieces[0], steps["clients"], steps["hold"])
            else:
                answers = _talk(service, pieces, steps["wait"], steps["clients"])
        after = service.check(self._image)
        after = after if after.outcome.is_fault else alive()
        if after.outcome.is_fault:
            service.close()
            self._service = None
            return after
        statuses = [int(one) for one in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answers)]
        if any(status >= 500 and status not in {501, 503, 505} for status in statuses):
            return Verdict(Outcome.SERVER_ERROR, f"{statuses}: {answers[:300]!r}")
        refused = not statuses or statuses[0] >= 400
        return Verdict(Outcome.REFUSED if refused else Outcome.ACCEPTED, str(statuses[:5]))

    def close(self) -> None:
        if self._service is not None:
            self._service.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _talk(service: Service, pieces: list[bytes], wait: float, clients: int) -> bytes:
    """What the service answers on all connections; a client leaves when nothing more comes."""
    received = b""
    with contextlib.ExitStack() as stack:
        connections = _connect(stack, service, clients)
        for piece in pieces:
            for one in connections:
                received += _send(one, piece)
            time.sleep(wait)
        for one in connections:
            received += _receive(one, 1.0 if clients == 1 else 0.2)
    return received


def _hold(service: Service, piece: bytes, clients: int, seconds: float) -> bytes:
    """Send what a connection takes, read nothing, and stay for a while."""
    with contextlib.ExitStack() as stack:
        for one in _connect(stack, service, clients):
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.send(piece)
        time.sleep(seconds)
    return b""


def _connect(stack: contextlib.ExitStack, service: Service, clients: int) -> list[socket.socket]:
    """Connections, as many as the service takes."""
    connections = []
    for _ in range(clients):
        with contextlib.suppress(OSError):
            one = socket.create_connection(
                ("127.0.0.1", service.port), timeout=2, source_address=(ATTACKER, 0)
            )
            connections.append(stack.enter_context(one))
    return connections


def _request(
    method: str,
    path: str,
    body: bytes = b"",
    headers: Sequence[str] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """A request; a header of these stands in the place of one that it needs."""
    names = {one.partition(":")[0].lower() for one in headers}
    needed = [] if "host" in names else ["Host: 127.0.0.1"]
    if body and not names & {"content-length", "transfer-encoding"}:
        needed.append(f"Content-Length: {len(body)}")
    lines = [f"{method} {path} {version}", *needed, *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def _send(connection: socket.socket, data: bytes) -> bytes:
    """Send, and read what comes meanwhile: a service may not read on before its answer is read."""
    received, end = b"", time.monotonic() + LATE_ON_CLOCK
    connection.setblocking(False)
    while data and time.monotonic() < end:
        readable, writable, _ = select.select([connection], [connection], [], 0.5)
        try:
            if readable:
                piece = connection.recv(1 << 20)
                received += piece
                if not piece:
                    break
            if writable:
                data = data[connection.send(data) :]
        except OSError:
            break
    return received


def _receive(connection: socket.socket, patience: float) -> bytes:
    """What comes until nothing came for a while."""
    received = b""
    connection.settimeout(patience)
    with contextlib.suppress(OSError):
        while piece := connection.recv(1 << 20):
            received += piece
            connection.settimeout(0.1)
    return received
