"""Image files that are mutated, truncated or bombs: scored, learned and sent to a service."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from fsad_edge import Model
from fsad_edge.errors import ImageError
from fsad_edge.learning.learner import Learner
from tests.fuzz.children import in_child
from tests.fuzz.mutations import apply_edits, draw_edits
from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.service import Service
from tests.fuzz.subject import Subject, encoded, photograph

#: Clients that send a bomb at the same time.
CLIENTS = 10

_SHARES = {"mutated": 55, "cut": 20, "bomb": 12, "made up": 13}
_DOORS = {"score": 50, "learn": 25, "serve": 25}


@cache
def bases() -> dict[str, bytes]:
    """A photograph in each format and variant that is read, by name."""
    image = photograph(51)
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256)
    made = {
        "png": encoded(image),
        "png16": encoded(deep),
        "png palette": encoded(image.quantize(32)),
        "png alpha": encoded(image.convert("RGBA")),
        "jpeg": encoded(image, "JPEG", quality=90),
        "jpeg progressive": encoded(image, "JPEG", progressive=True),
        "jpeg exif": encoded(image, "JPEG", exif=b"Exif\0\0MM\0*" + bytes(200)),
        "jpeg cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "bmp": encoded(image, "BMP"),
        "gif": encoded(image, "GIF"),
        "tiff": encoded(image, "TIFF"),
        "tiff16": encoded(deep, "TIFF"),
        "tiff lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tiff float": encoded(Image.fromarray(np.asarray(image.convert("F"))), "TIFF"),
        "tiff pages": encoded(image, "TIFF", save_all=True, append_images=[image] * 3),
        "ppm": encoded(image, "PPM"),
        "pgm16": b"P5 96 96 65535\n" + np.asarray(deep).astype(">u2").tobytes(),
        "webp": encoded(image, "WEBP", lossless=True),
        "webp lossy": encoded(image, "WEBP"),
    }
    if features.check("jpg_2000"):
        made["jpeg2000"] = encoded(image, "JPEG2000")
    if features.check("avif"):
        made["avif"] = encoded(image, "AVIF")
    return made


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, more: bytes = b"") -> bytes:
    """A PNG of blocks of two patterns, which is small whatever its sides."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    size = (width * depth * samples + 7) // 8
    rows = [b"\0" + (bytes(range(one, one + 150)) * (size // 150 + 1))[:size] for one in (40, 90)]
    packer = zlib.compressobj(9)
    pieces = [packer.compress(rows[one // 64 % 2]) for one in range(height)]
    body = b"".join(pieces) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n" + header + palette + more + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def scans(count: int) -> bytes:
    """A progressive JPEG whose scans stand there many times."""
    data = encoded(photograph(51, 512), "JPEG", progressive=True)
    begin = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    end = data.index(b"\xff\xc4", begin)
    return data[:end] + data[begin:end] * count + data[end:]


def gif(frames: int) -> bytes:
    """A GIF with many frames."""
    image = Image.new("P", (300, 300))
    data = encoded(image, "GIF")
    start = data.index(b",", 13)
    return data[:start] + data[start:-1] * frames + b";"


def tiff_pages(count: int, loop: bool = False) -> bytes:
    """A TIFF of many tiny pages, or whose last page is followed by its first."""
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    entries = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (279, 4096)]
    size = 2 + 12 * len(entries) + 4
    for page in range(count):
        following = 8 + size * (page + 1) if page + 1 < count else 8 if loop else 0
        data += struct.pack("<H", len(entries))
        data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        data += struct.pack("<I", following)
    return bytes(data) + bytes(4096)


def segments(kind: bytes, data: bytes, count: int) -> bytes:
    """A JPEG with a segment that stands there many times."""
    whole = encoded(photograph(51), "JPEG")
    segment = b"\xff" + kind + struct.pack(">H", len(data) + 2) + data
    return whole[:2] + segment * count + whole[2:]


def tiff_of(width: int, height: int, bits: int = 8, samples: int = 1, **more: int) -> bytes:
    """A TIFF that claims a size, whose pixels are not all there."""
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: samples}
    entries |= {278: height, 279: width * height} | {int(tag[1:]): one for tag, one in more.items()}
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in sorted(entries.items()):
        data += struct.pack("<HHII", tag, 4, 1, value & 0xFFFFFFFF)
    return data + bytes(4 + 65536)


def _long_tag(tag: int, kind: int, count: int) -> bytes:
    """The rest of a TIFF, in which a tag has many values."""
    entries = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: 4096}
    packed = {one: (4, 1, value) for one, value in entries.items()} | {tag: (kind, count, 200)}
    data = struct.pack("<H", len(packed))
    data += b"".join(struct.pack("<HHII", one, *packed[one]) for one in sorted(packed))
    return data + bytes(30_000_000)


#: Files that ask for much. Each is made when it is used.
BOMBS: dict[str, Callable[[], bytes]] = {
    "png 50 megapixels": lambda: png(7000, 7000, 8, 2),
    "png 88 megapixels": lambda: png(9400, 9400, 8, 2),
    "png grey 88 megapixels": lambda: png(9400, 9400, 8, 0),
    "png 16 bits": lambda: png(6900, 6900, 16, 2),
    "png 16 bits grey": lambda: png(7000, 7000, 16, 0),
    "png one bit": lambda: png(9000, 9000, 1, 0),
    "png alpha": lambda: png(7000, 7000, 8, 6),
    "png palette": lambda: png(7000, 7000, 8, 3),
    "png claims": lambda: png(16, 16, 8, 2).replace(
        chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)),
        chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
    ),
    "png text": lambda: png(
        96, 96, 8, 2, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(60 << 20), 9)) * 3
    ),
    "png profile": lambda: png(
        96, 96, 8, 2, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(60 << 20), 9))
    ),
    "png many chunks": lambda: png(96, 96, 8, 2, chunk(b"tEXt", b"a\0b") * 300_000),
    "png empty chunks": lambda: png(96, 96, 8, 2, chunk(b"aaAa", b"") * 2_400_000),
    "png chunks behind": lambda: png(96, 96, 8, 2)[:-12] + chunk(b"aaAa", b"") * 2_400_000
                                 + chunk(b"IEND", b""),
    "png empty pixels": lambda: png(96, 96, 8, 2, chunk(b"IDAT", b"") * 2_400_000),
    "png many profiles": lambda: png(
        96, 96, 8, 2, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20), 9)) * 28_000
    ),
    "jpeg empty segments": lambda: segments(b"\xe2", b"MPF\0", 3_900_000),
    "jpeg comments": lambda: segments(b"\xfe", b"", 7_500_000),
    "jpeg exif segments": lambda: segments(b"\xe1", b"Exif\0\0" + bytes(56), 450_000),
    "jpeg fill": lambda: encoded(photograph(51), "JPEG").replace(
        b"\xff\xd8", b"\xff\xd8" + b"\xff" * 30_000_000, 1
    ),
    "jpeg fill in pixels": lambda: encoded(photograph(51), "JPEG")[:-2] + b"\xff" * 30_000_000
                                   + b"\xff\xd9",
    "jpeg scans": lambda: scans(4000),
    "jpeg 50 megapixels": lambda: encoded(Image.new("RGB", (7000, 7000)), "JPEG"),
    "jpeg thin": lambda: encoded(Image.new("L", (65000, 16)), "JPEG"),
    "gif frames": lambda: gif(3000),
    "gif comments": lambda: encoded(photograph(51), "GIF").replace(
        b",", b"!\xfe\1a\0" * 6_000_000 + b",", 1
    ),
    "gif blocks": lambda: encoded(photograph(51), "GIF")[:-2] + b"\1a" * 15_000_000 + b"\0;",
    "gif large": lambda: encoded(Image.new("P", (9000, 9000)), "GIF"),
    "tiff pages": lambda: tiff_pages(60_000),
    "tiff loop": lambda: tiff_pages(50, loop=True),
    "tiff claims": lambda: tiff_of(2**31, 2**31),
    "tiff long row": lambda: tiff_of(2**30, 1),
    "tiff samples": lambda: tiff_of(64, 64, samples=60_000),
    "tiff numbers": lambda: tiff_of(64, 64, t320=0)[:8] + _long_tag(282, 5, 3_500_000),
    "tiff strips": lambda: tiff_of(64, 64, t320=0)[:8] + _long_tag(273, 4, 7_500_000),
    "tiff float": lambda: tiff_of(5000, 5000, bits=64, t339=3),
    "bmp claims": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1,
                                              2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp runs": lambda: b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078)
                        + struct.pack("<IiiHHIIiiII", 40, 7000, 7000, 1, 8, 1, 0, 0, 0, 256, 0)
                        + bytes(1024) + b"\1\1\0\0" * 7000,
    "jpeg 2000 boxes": lambda: b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
                               + b"\0\0\0\x08free" * 3_800_000,
    "webp chunks": lambda: encoded(photograph(51), "WEBP") + b"abcd\0\0\0\0" * 3_800_000,
    "pbm comments": lambda: b"P1\n5000 3000\n" + b"#\n" * 15_000_000,
    "pbm comments in pixels": lambda: b"P1\n5000 3000\n1 " + b"#\n" * 15_000_000,
    "ppm blanks": lambda: b"P6\n" + b" " * 31_000_000 + b"96 96 255\n" + bytes(96 * 96 * 3),
    "ppm plain": lambda: b"P3 1500 1500 255\n" + b"107 " * (1500 * 1500 * 3),
    "pgm of 12 bits": lambda: b"P5 5000 3000 4095\n" + b"\7\x77" * 15_000_000,
    "ppm claims": lambda: b"P6 9000 9000 255\n" + bytes(1000),
    "ppm digits": lambda: b"P6 " + b"9" * 100_000 + b" 1 255\n",
    "ppm text": lambda: b"P3 9000 9000 255\n" + b"1 " * 2_000_000,
    "webp large": lambda: encoded(Image.new("RGB", (9000, 9000)), "WEBP", lossless=True),
    "webp frames": lambda: encoded(
        Image.new("RGB", (64, 64)), "WEBP", save_all=True, duration=10,
        append_images=[Image.new("RGB", (64, 64), (one, 0, 0)) for one in range(200)],
    ),
}  # fmt: skip


class Attack:
    """Sends image files through each door by which they come in."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        shutil.copy(subject.file, self._folder)
        self._service: Service | None = None
        self._honest = encoded(photograph(51))
        self._scores: dict[str, float] = in_child(self._score_bases).value

    def _score_bases(self) -> dict[str, float]:
        scores = {}
        with Model.load(self._subject.file, "cpu", threads=1) as model:
            for name, data in bases().items():
                with contextlib.suppress(ImageError):  # some variants are refused, and may be
                    scores[name] = model.score(data).score
        return scores

    def make(self, rng: random.Random) -> Steps:
        [kind] = rng.choices([*_SHARES], [*_SHARES.values()])
        [door] = rng.choices([*_DOORS], [*_DOORS.values()])
        steps: Steps = {"kind": f"{kind}, {door}", "door": door}
        if kind == "bomb":
            return {**steps, "bomb": rng.choice([*BOMBS])}
        name = rng.choice([*bases()])
        size = len(bases()[name])
        steps["base"] = name
        if kind == "cut":
            near = size - rng.randrange(1, 40)
            return {**steps, "edits": [["cut", rng.choice([rng.randrange(size), max(near, 0)])]]}
        if kind == "made up":
            return {**steps, "edits": _sizes(rng, bases()[name])}
        spans = [(0, 100), (0, 600), (0, size)]
        return {**steps, "edits": draw_edits(rng, size, spans)}

    def run(self, steps: Steps) -> Verdict:
        bomb = steps.get("bomb")
        data = BOMBS[bomb]() if bomb else apply_edits(bases()[steps["base"]], steps["edits"])
        if steps["door"] == "serve":
            return self._send(data, CLIENTS if bomb else 1)
        job = self._score if steps["door"] == "score" else self._learn
        cut = steps["kind"].startswith("cut")
        return in_child(lambda: job(data)).verdict(
            lambda score: self._judge(score, steps["base"] if cut else None)
        )

    def _judge(self, score: float, base: str | None) -> Verdict:
        """A score; where the file was cut, it must be that of the whole one."""
        if not np.isfinite(score):
            return Verdict(Outcome.SILENT, f"the score is {score}")
        if base is None or score < 0:  # one that was learned has no score
            return Verdict(Outcome.ACCEPTED, f"score {score}")
        if score != self._scores.get(base):
            return Verdict(Outcome.SILENT, f"cut, and score {self._scores.get(base)} -> {score}")
        return Verdict(Outcome.SAME)

    def _score(self, data: bytes) -> float:
        with Model.load(self._subject.file, "cpu", threads=1) as model:
            return model.score(data).score

    def _learn(self, data: bytes) -> float:
        place = Path(tempfile.mkdtemp(dir=self._folder))
        os.environ["XDG_STATE_HOME"] = str(place / "state")
        file = Path(shutil.copy(self._subject.file, place / "part.onnx"))
        try:
            with (
                Model.load(file, "cpu", threads=1) as model,
                Learner.open(file, model) as learner,
            ):
                learner.add(data, "anna", force=True)
                return -1.0
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _send(self, data: bytes, clients: int) -> Verdict:
        """Score an image by HTTP, ask for its picture, and look at the service afterwards."""
        if self._service is None:
            self._service = Service(self._folder, self._folder / "part.onnx", "--queue", "64")
        service = self._service
        with service.alive() as alive, concurrent.futures.ThreadPoolExecutor(clients) as pool:
            found = [*pool.map(lambda _: _score_and_look(service, data), range(clients))]
        after = service.check(self._honest)
        after = after if after.outcome.is_fault else alive()
        if after.outcome.is_fault:
            service.close()
            self._service = None
            return after
        for verdict in found:
            if verdict.outcome.is_fault:
                return verdict
        return found[0]

    def close(self) -> None:
        if self._service is not None:
            self._service.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _score_and_look(service: Service, data: bytes) -> Verdict:
    answers = []
    status, body = service.ask("POST", "/v1/score", data, "image/png")
    answers.append((status, body))
    if status == 200:
        results = json.loads(body)["results"]
        answers += [
            service.ask("GET", f"/v1/results/{results[0]['id']}/{kind}")
            for kind in ("overlay?side=300", "image")
        ]
    for status, body in answers:
        if status == 0:
            return Verdict(Outcome.HUNG, repr(body[:200]))
        if status >= 500 and status != 503:
            return Verdict(Outcome.SERVER_ERROR, f"{status}: {body[:200]!r}")
    good = answers[0][0] == 200
    return Verdict(Outcome.ACCEPTED if good else Outcome.REFUSED, str([one[0] for one in answers]))


def _sizes(rng: random.Random, data: bytes) -> list[Any]:
    """Numbers of two or four bytes in the header, made extreme."""
    edits = []
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(min(len(data), rng.choice((40, 200, 800))))
        value = rng.choice((0, 1, 2, 0x7FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1, 9000))
        form = rng.choice((">I", "<I", ">H", "<H"))
        new = struct.pack(form, value & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
        edits.append(["set", at, new.hex()])
    return edits
