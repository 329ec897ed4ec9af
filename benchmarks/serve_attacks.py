"""An honest client beside attacks: ``python -m benchmarks.serve_attacks MODEL IMAGE``.

It starts ``fsad-edge serve``, lets an honest client ask for a score each 100 ms, first alone and
then beside each attack, and prints a Markdown table: the latency of the honest client, the answers
that the attackers got, and the most memory that the service took. Honest client and attackers have
addresses of their own (127.0.0.2, 127.0.0.3, …). Each attack has a new service. To measure another
version of the package, name its folder in PYTHONPATH: nothing here imports the package.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: The addresses of the honest client and of the attackers.
HONEST, ATTACKER = "127.0.0.2", "127.0.0.3"

#: Seconds between two requests of the honest client, and in which each must be answered.
PAUSE, LIMIT = 0.1, 60.0

PAGE = 4096


@dataclass
class Target:
    """A running service.

    Attributes:
        port: where it listens.
        pid: its process.
        context: of TLS; None where it serves plain HTTP.
        stop: set when the attack is to end.
        answers: to the attackers, by status; ``none`` where there was none.
    """

    port: int
    pid: int
    context: ssl.SSLContext | None
    stop: threading.Event = field(default_factory=threading.Event)
    answers: Counter[str] = field(default_factory=Counter)

    def connect(self, source: str, tls: bool = True) -> socket.socket:
        """A connection from an address."""
        sock = socket.create_connection(("127.0.0.1", self.port), LIMIT, source_address=(source, 0))
        if self.context is not None and tls:
            return self.context.wrap_socket(sock)
        return sock

    def ask(self, sock: socket.socket, request: bytes) -> str:
        """The status of the answer to a request; ``none`` where there was none."""
        try:
            with contextlib.suppress(OSError):  # refused before all was sent
                sock.sendall(request)
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(65536)
                if not data:
                    return "none"
                head += data
            head, _, body = head.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            left = (int(length[1]) if length else 0) - len(body)
            while left > 0:
                data = sock.recv(1 << 20)
                if not data:
                    return "none"
                left -= len(data)
            return head[9:12].decode()
        except OSError:
            return "none"

    def repeat(self, request: bytes, source: str = ATTACKER) -> None:
        """Send a request again and again, and count the answers."""
        sock: socket.socket | None = None
        while not self.stop.is_set():
            try:
                sock = sock or self.connect(source)
            except OSError:
                self.answers["none"] += 1
                time.sleep(0.05)
                continue
            status = self.ask(sock, request)
            self.answers[status] += 1
            if status not in {"200", "201", "304", "404", "429"}:
                sock.close()
                sock = None
            if status in {"429", "none"}:
                time.sleep(0.05)  # less than Retry-After asks for
        if sock is not None:
            sock.close()


def post(path: str, body: bytes, kind: str = "image/png") -> bytes:
    """The bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def get(path: str) -> bytes:
    """The bytes of a request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def encoded(pixels: NDArray[np.generic], kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def in_threads(jobs: list[Callable[[], None]]) -> None:
    """Do jobs at the same time until all end."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)


def overlays(target: Target, image: bytes) -> None:
    """Ten parallel overlays of one PNG of 50 megapixels."""
    sock = target.connect(ATTACKER)
    large = encoded(np.zeros((7070, 7070, 3), np.uint8))
    target.answers["POST " + target.ask(sock, post("/v1/score", large))] += 1
    found = newest(target)
    if found is None:
        return
    in_threads([lambda: target.repeat(get(f"/v1/results/{found}/overlay"))] * 10)


def newest(target: Target) -> int | None:
    """The id of the newest result."""
    with target.connect(ATTACKER) as sock:
        sock.sendall(get("/v1/recent?limit=1"))
        text = sock.recv(1 << 20).decode()
        while not text.rstrip().endswith("}"):
            text += sock.recv(1 << 20).decode()
    results = json.loads(text.partition("\r\n\r\n")[2])["results"]
    return results[-1]["id"] if results else None


def deep_images(target: Target, image: bytes) -> None:
    """Eight 16-bit PNGs of 50 megapixels at once."""
    request = post("/v1/score", encoded(np.full((7070, 7070), 40000, np.uint16)))
    in_threads([lambda: target.repeat(request)] * 8)


def tiny_parts(target: Target, image: bytes) -> None:
    """Multipart bodies of 31 MB of tiny parts, two at once."""
    part = b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\na\r\n"
    body = part * (31_000_000 // len(part)) + b"--x--\r\n"
    request = post("/v1/score", body, "multipart/form-data; boundary=x")
    in_threads([lambda: target.repeat(request)] * 2)


def list_polling(target: Target, image: bytes) -> None:
    """Five clients that ask for 1000 results again and again."""
    in_threads([lambda: target.repeat(get("/v1/recent?limit=1000"))] * 5)


def never_reading(target: Target, image: bytes) -> None:
    """512 connections that pipeline lists and never read."""
    held = []
    for place in range(512):
        try:
            sock = target.connect(ATTACKER)
        except OSError:
            target.answers["none"] += 1
            continue
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.send(get("/v1/recent?limit=1000") * 200)
        held.append(sock)
        if target.stop.wait(0.002 if place % 8 else 0):
            break
    target.stop.wait()
    for sock in held:
        try:
            target.answers["open" if sock.recv(1) else "closed"] += 1
        except BlockingIOError:
            target.answers["open"] += 1
        except OSError:
            target.answers["closed"] += 1
        sock.close()


def half_open(target: Target, image: bytes) -> None:
    """600 TLS handshakes that never come."""
    held = []
    for _ in range(600):
        with contextlib.suppress(OSError):
            held.append(target.connect(ATTACKER, tls=False))
    target.stop.wait()
    for sock in held:
        sock.setblocking(False)
        try:
            target.answers["open" if sock.recv(1) else "closed"] += 1
        except BlockingIOError:
            target.answers["open"] += 1
        except OSError:
            target.answers["closed"] += 1
        sock.close()


def bodies_to_learn(target: Target, image: bytes) -> None:
    """40 bodies of 31 MB that wait to be learned."""
    body = image + bytes(31_000_000 - len(image))
    request = post("/v1/models/attacked/normals?who=x&force=true", body)
    in_threads([lambda: target.repeat(request)] * 40)


def scoring(target: Target, image: bytes) -> None:
    """16 clients of one address that score without a pause."""
    in_threads([lambda: target.repeat(post("/v1/score", image))] * 16)


ATTACKS: dict[str, Callable[[Target, bytes], None]] = {
    "none": lambda target, image: None,
    "10 parallel overlays of a PNG of 50 megapixels": overlays,
    "8 PNGs of 16 bits and 50 megapixels": deep_images,
    "multipart bodies of 31 MB of tiny parts": tiny_parts,
    "5 clients poll `recent?limit=1000`": list_polling,
    "512 connections that pipeline and never read": never_reading,
    "600 TLS handshakes that never come": half_open,
    "40 bodies of 31 MB wait to be learned": bodies_to_learn,
    "16 connections score without a pause": scoring,
}


@contextlib.contextmanager
def serving(model: Path, tls: tuple[Path, Path] | None, options: list[str]) -> Iterator[Target]:
    """A service while the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(shutil.copy(model, Path(folder, "attacked.onnx")))
        secure = ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])] if tls else []
        process = subprocess.Popen(
            [sys.executable, "-m", "fsad_edge.cli", "serve", str(file), "--port", "0",
             *secure, *options],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr
        port = None
        for line in process.stderr:
            if found := re.search(r"listening on \S+:(\d+)", line):
                port = int(found[1])
                break
        if port is None:
            raise RuntimeError("the service did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            yield Target(port, process.pid, context)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                print(f"SIGTERM: exit code {process.wait(40)}", file=sys.stderr)
            except subprocess.TimeoutExpired:
                print("SIGTERM: still there after 40 s", file=sys.stderr)
                process.kill()
                process.wait()


def watch_memory(pid: int, done: threading.Event, found: list[float]) -> None:
    """Append the resident memory in MB, until ``done``."""
    while not done.wait(0.02):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6)


def honest(target: Target, image: bytes, seconds: float) -> tuple[list[float], Counter[str]]:
    """The seconds of each answer of 200, since it was due, and the number of each status."""
    request, latencies, statuses = post("/v1/score", image), list[float](), Counter[str]()
    begin, sock = time.perf_counter(), None
    for number in itertools.count():
        due = begin + number * PAUSE
        if due > begin + seconds:
            break
        if (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
            start = due
        else:
            start = time.perf_counter()  # the one before it took longer
        try:
            sock = sock or target.connect(HONEST)
            status = target.ask(sock, request)
        except OSError:
            status = "none"
        statuses[status] += 1
        if status == "200":
            latencies.append(time.perf_counter() - start)
        else:
            if sock is not None:
                sock.close()
            sock = None
    return latencies, statuses


def words(counts: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{count}x {what}" for what, count in sorted(counts.items())) or "—"


def measure(name: str, given: argparse.Namespace, image: bytes, base: float | None) -> float:
    """Measure an attack and print its row. Returns the p99 in milliseconds."""
    tls = (given.cert, given.key) if ATTACKS[name] is half_open else None
    memory: list[float] = []
    done = threading.Event()
    with serving(given.model, tls, given.options) as target:
        threading.Thread(target=watch_memory, args=(target.pid, done, memory), daemon=True).start()
        honest(target, image, 2)  # warms up
        if ATTACKS[name] is list_polling or ATTACKS[name] is never_reading:
            with target.connect(ATTACKER) as sock:
                for _ in range(given.results):
                    target.ask(sock, post("/v1/score", image))
        attack = threading.Thread(target=ATTACKS[name], args=(target, image), daemon=True)
        attack.start()
        time.sleep(2)
        latencies, statuses = honest(target, image, given.seconds)
        target.stop.set()
        attack.join(5)
    done.set()
    p50, p99 = np.percentile(np.array(latencies or [float("nan")]) * 1e3, [50, 99])
    ratio = "—" if base is None else f"{p99 / base:.1f}"
    row = [name, f"{p50:.0f}", f"{p99:.0f}", ratio, words(statuses), words(target.answers),
           f"{max(memory, default=0):.0f}"]  # fmt: skip
    print("| " + " | ".join(row) + " |", flush=True)
    return float(p99)


def main() -> None:
    """Measure as the command line says and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="exported model file")
    parser.add_argument("image", type=Path, help="photograph of the honest client")
    parser.add_argument("--seconds", type=float, default=20, help="seconds of each attack")
    parser.add_argument("--results", type=int, default=300, help="results before lists are asked")
    parser.add_argument("--only", help="only attacks whose names contain this, and none")
    parser.add_argument("options", nargs="*", help="further options for  fsad-edge serve")
    given = parser.parse_args()
    image = given.image.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        given.cert, given.key = Path(folder, "cert.pem"), Path(folder, "key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "1", "-subj", "/CN=localhost",
             "-keyout", given.key, "-out", given.cert],
            check=True, capture_output=True,
        )  # fmt: skip
        print("| attack | honest p50, ms | p99, ms | ratio of p99 | honest answers | answers to "
              "the attacker | most memory, MB |")  # fmt: skip
        print("|---|---|---|---|---|---|---|")
        base: float | None = None
        for name in ATTACKS:
            if given.only is None or given.only in name or name == "none":
                found = measure(name, given, image, base)
                base = found if base is None else base


if __name__ == "__main__":
    main()
