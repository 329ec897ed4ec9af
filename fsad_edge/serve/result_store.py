"""The newest results in memory, and their images within a limit on their bytes."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from fsad_edge.options import Decision, HeatScale
from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.heatmap import OVERLAY_BYTES, overlay
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.images import load_at_most
from fsad_edge.runtime.own_pictures import marked
from fsad_edge.serve.schemas import Latency, ResultRecord, timestamp, to_json
from fsad_edge.serve.scoring_queue import ScoredImage

#: Results that are kept, and how many anomalies and how many images that are not judged are kept
#: besides, so that others do not displace them.
KEPT, KEPT_APART = 1000, 200

#: Lists of results that are kept as they were made, until a result comes.
MADE = 8

#: The decisions whose results are kept besides.
APART = (Decision.ANOMALY, Decision.NOT_JUDGED)

#: The share of the memory for images that each decision has for itself where all need it.
SHARES = {Decision.ANOMALY: 0.5, Decision.GOOD: 0.25, Decision.NOT_JUDGED: 0.25}


@dataclass(frozen=True)
class StoredImage:
    """The image of a result and its anomaly map.

    Attributes:
        data: the encoded image as it came.
        anomaly_map: float32 ``[h, w]``.
        map_threshold: the threshold that the map is drawn against.
        scale: the model's, for images of more than 8 bits.
    """

    data: bytes
    anomaly_map: Float32Array
    map_threshold: float
    scale: ImageScale

    def read(self) -> bytes:
        """The encoded image."""
        return self.data

    def jpeg(
        self,
        side: int,
        heat: HeatScale | None,
        patience: float | None = None,
        numbered: bool = True,
    ) -> bytes:
        """A JPEG of the image, under its heat map where ``heat`` names its colours.

        Args:
            side: most pixels of the longer side.
            heat: the colours of the heat map; None leaves it out.
            patience: seconds to wait for memory; None waits until it is free.
            numbered: number the regions of the heat map.

        Raises:
            BusyError: it was not free in that time.
        """
        with GATE.working(patience, drawing_bytes(side)):
            image = load_at_most(self.data, side, self.scale)
            if heat is not None:
                image = overlay(image, self.anomaly_map, self.map_threshold, heat, numbered)
            return encode_image(image, "JPEG", drawn=heat is not None)


def drawing_bytes(side: int) -> int:
    """The bytes that drawing a picture of this longer side takes at most."""
    return OVERLAY_BYTES * side * side


def encode_image(pixels: UInt8Array, kind: Literal["JPEG", "PNG"], drawn: bool = False) -> bytes:
    """The bytes of an image file of uint8 ``[H, W, 3]``.

    Args:
        pixels: the image.
        kind: the format.
        drawn: it is a picture of a result and no photograph: mark it so.
    """
    buffer = io.BytesIO()
    options = {"quality": 88} if kind == "JPEG" else {"compress_level": 1}
    marks = marked(kind) if drawn else {}
    Image.fromarray(pixels).save(buffer, kind, **options, **marks)
    return buffer.getvalue()


class ImageStore:
    """Images by the id of their result; the oldest make room for new ones.

    Room is made among the images of the decision that is furthest above its share, so that a
    thousand good parts do not displace an anomaly, nor a camera that sees nothing all night.

    Args:
        limit: most bytes of all encoded images.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._images: dict[Decision, OrderedDict[int, StoredImage]] = {
            decision: OrderedDict() for decision in SHARES
        }
        self._bytes = dict.fromkeys(SHARES, 0)

    def add(self, number: int, decision: Decision, image: StoredImage) -> None:
        """Keep an image, unless it is larger than the store."""
        if len(image.data) > self._limit:
            return
        self._images[decision][number] = image
        self._bytes[decision] += len(image.data)
        while sum(self._bytes.values()) > self._limit:
            # The image that was just added stays.
            others = [one for one in SHARES if len(self._images[one]) > (one is decision)]
            largest = max(others, key=lambda one: self._bytes[one] - SHARES[one] * self._limit)
            _, oldest = self._images[largest].popitem(last=False)
            self._bytes[largest] -= len(oldest.data)

    def get(self, number: int) -> StoredImage | None:
        """The image of a result; None where it is not kept."""
        found = (images.get(number) for images in self._images.values())
        return next(filter(None, found), None)


class Asked(NamedTuple):
    """Which of the newest results are asked for.

    Attributes:
        after: only records with an id above it.
        model: only records of this model; None takes all.
        decisions: only records with one of these; empty takes all.
        limit: most records.
    """

    after: int
    model: str | None
    decisions: frozenset[Decision]
    limit: int

    def takes(self, record: ResultRecord) -> bool:
        """Whether a record is asked for."""
        return (
            record.id > self.after
            and (self.model is None or record.model == self.model)
            and (not self.decisions or record.decision in self.decisions)
        )


@dataclass(frozen=True)
class KeptResult:
    """A result and its JSON text, which is made once."""

    record: ResultRecord
    json: bytes

    @classmethod
    def of(cls, record: ResultRecord) -> KeptResult:
        """A result with its text."""
        return cls(record, to_json(record).encode())


def tag_of(text: bytes) -> str:
    """The ETag of an answer."""
    return f'"{sha256(text)[:16]}"'


class ResultStore:
    """The newest results. Safe to use from several threads.

    Args:
        image_bytes: most bytes of all encoded images.

    Attributes:
        counts: results of this run of the service, by decision.
    """

    def __init__(self, image_bytes: int) -> None:
        self._kept: dict[int, KeptResult] = {}  # in the order of their ids
        self._all: deque[int] = deque()
        self._apart: dict[Decision, deque[int]] = {decision: deque() for decision in APART}
        self._version = 0  # of what is kept
        self._made: OrderedDict[Asked, tuple[int, bytes, str]] = OrderedDict()
        self._images = ImageStore(image_bytes)
        self._lock = threading.Lock()
        self._last = self._earlier = 0  # ids: the newest, and the newest of an earlier run
        self.counts = dict.fromkeys(Decision, 0)

    def add(self, record: ResultRecord, image: bytes, scored: ScoredImage) -> ResultRecord:
        """Keep a record with its encoded image.

        Returns:
            the record with its ``id`` and ``time``.
        """
        with self._lock:
            # Ids grow with time, so that a page continues where it was after a restart.
            self._last = max(self._last + 1, time.time_ns() // 1000)
            record = dataclasses.replace(record, id=self._last, time=timestamp())
            self.counts[record.decision] += 1
            self._keep(KeptResult.of(record))
            result = scored.result
            scale = scored.served.model.metadata.scale
            stored = StoredImage(image, result.anomaly_map, result.map_threshold, scale)
            self._images.add(self._last, record.decision, stored)
            return record

    def restore(self, records: list[ResultRecord]) -> None:
        """Keep records of earlier runs of the service, without images; known ones are skipped."""
        with self._lock:
            known, self._kept = self._kept, {}
            earlier = {one.id: KeptResult.of(one) for one in records if one.id not in known}
            self._all.clear()
            for numbers in self._apart.values():
                numbers.clear()
            for _, kept in sorted({**known, **earlier}.items()):
                self._keep(kept)
            self._earlier = max([self._earlier, *earlier])
            self._last = max(self._last, self._earlier)

    def made(self, asked: Asked) -> tuple[bytes, str] | None:
        """The list of :meth:`make`, if it was made and nothing has changed since."""
        with self._lock:
            version, text, tag = self._made.get(asked, (-1, b"", ""))
            return (text, tag) if version == self._version else None

    def make(self, asked: Asked) -> tuple[bytes, str]:
        """The newest records, oldest first, and the newest id of all: their JSON and its ETag."""
        with self._lock:
            kept, last, version = list(self._kept.values()), self._last, self._version
        found = [one.json for one in kept if asked.takes(one.record)][-asked.limit :]
        text = b'{"results": [%b], "last": %d}' % (b", ".join(found), last)
        tag = tag_of(text)
        with self._lock:
            self._made[asked] = version, text, tag
            self._made.move_to_end(asked)
            while len(self._made) > MADE:
                self._made.popitem(last=False)
        return text, tag

    def get(self, number: int) -> ResultRecord | None:
        """A record by its id; None where it is not kept."""
        kept = self._kept.get(number)
        return None if kept is None else kept.record

    def json(self, record: ResultRecord) -> bytes:
        """The JSON text of a record, which was made already where the record is kept."""
        kept = self._kept.get(record.id)
        return kept.json if kept is not None else KeptResult.of(record).json

    def image(self, number: int) -> StoredImage | None:
        """The image of a result; None where it is not kept."""
        with self._lock:
            return self._images.get(number)

    def _keep(self, kept: KeptResult) -> None:
        """Keep the newest result, and drop what there is no room for."""
        record = kept.record
        self._version += 1
        self._kept[record.id] = kept
        apart = self._apart.get(record.decision, deque())
        for numbers, most in ((self._all, KEPT), (apart, KEPT_APART)):
            numbers.append(record.id)
            if len(numbers) > most:
                self._drop(numbers.popleft())

    def _drop(self, number: int) -> None:
        """Drop a result that was taken from one of the rows, if it is in no other."""
        apart = self._apart.get(self._kept[number].record.decision, deque())
        if not any(row and number >= row[0] for row in (self._all, apart)):
            del self._kept[number]

    def latency(self) -> Latency:
        """Percentiles of the total time of the kept results of this run of the service."""
        with self._lock:
            own = (self._kept[number].record for number in self._all if number > self._earlier)
            totals = [record.timings["total"] for record in own]
        if not totals:
            return Latency(None, None, None, 0)
        p50, p95, p99 = np.percentile(totals, [50, 95, 99]).round(3).tolist()
        return Latency(p50, p95, p99, len(totals))
