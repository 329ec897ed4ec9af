"""Model files with damaged bytes: refused, or exactly as they were."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.children import in_child
from tests.fuzz.mutations import apply_edits, draw_edits
from tests.fuzz.outcomes import Outcome, Steps, Verdict
from tests.fuzz.subject import Subject, behaviour, differences

#: A number in the description, not within Base64.
_NUMBER = re.compile(rb"(?<=[ \[:])-?\d+(?:\.\d+)?(?:e-?\d+)?(?=[,\]} ])")


class Attack:
    """Flips, cuts, exchanges and appends bytes of an exported file."""

    def __init__(self, subject: Subject) -> None:
        self._probes = subject.probes
        self._data = subject.file.read_bytes()
        self._folder = Path(tempfile.mkdtemp(dir=subject.work))
        self._before = in_child(lambda: behaviour(subject.file, subject.probes)).value
        self._spans = self._interesting()

    def _interesting(self) -> dict[str, list[tuple[int, int]]]:
        """Where damage is looked for most, by kind of place."""
        size = len(self._data)
        begin = max(self._data.find(b'"schema"') - 64, 0)
        end = min(max(self._data.rfind(b"}", begin) + 1, begin + 1), size)
        numbers = [found.span() for found in _NUMBER.finditer(self._data, begin, end)]
        threshold = self._data.find(b'"threshold"', begin)
        return {
            "anywhere": [(0, size)],
            "description": [(begin, end)],
            "number": numbers or [(begin, end)],
            "threshold": [one for one in numbers if 0 <= threshold < one[0] < threshold + 200]
            or [(begin, end)],
            "start": [(0, 4096)],
            "end": [(size - 65536, size)],
        }

    def make(self, rng: random.Random) -> Steps:
        kind = rng.choice([*self._spans, "anywhere", "number", "field"])
        if kind == "field":
            return {"kind": kind, "edits": [["insert", len(self._data), self._field(rng).hex()]]}
        span = rng.choice(self._spans[kind])
        ways = ("flip", "flip", "set") if kind in {"number", "threshold"} else None
        more: dict[str, Any] = {"ways": ways} if ways else {}
        spans = [span] * 50  # hardly ever anywhere else
        return {"kind": kind, "edits": draw_edits(rng, len(self._data), spans, **more)}

    def _field(self, rng: random.Random) -> bytes:
        """One more field of a protocol buffer at the end, which parsers accept."""
        body = b"harmless"
        key = rng.choice([b"other", b"fsad_edge"])
        at = self._data.find(b"\x0a\x09fsad_edge\x12")
        value = b"{}"
        if at >= 0 and rng.random() < 0.7:  # the description again, with another threshold
            begin = self._data.find(b"{", at)
            whole = self._data[begin : self._data.rfind(b"}") + 1]
            value = re.sub(rb'("threshold": \{"value": )\d', rb"\g<1>9", whole, count=1)
        if rng.random() < 0.7:
            pair = b"\x0a" + _sized(key) + b"\x12" + _sized(value)
            return b"\x72" + _sized(pair)
        return rng.choice([b"\x32", b"\xfa\x7f", b"\x12", b"\x42"]) + _sized(body)

    def run(self, steps: Steps) -> Verdict:
        data = apply_edits(self._data, steps["edits"])
        if data == self._data:
            return Verdict(Outcome.SAME, "the edits change nothing")
        file = self._folder / "part.onnx"
        file.write_bytes(data)
        ended = in_child(lambda: behaviour(file, self._probes))
        return ended.verdict(self._judge)

    def _judge(self, found: Any) -> Verdict:
        differ = differences(self._before, found)
        return Verdict(Outcome.SILENT, differ) if differ else Verdict(Outcome.SAME)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _sized(data: bytes) -> bytes:
    """Bytes with their length in front, as a protocol buffer has them."""
    size, length = b"", len(data)
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return size + bytes([length]) + data
