"""The newest results in memory, and their images within a limit on their bytes."""

from __future__ import annotations

import dataclasses
import io
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.heatmap import overlay, shrink
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.own_pictures import marked
from fsad_edge.serve.schemas import Decision, Latency, ResultRecord, timestamp
from fsad_edge.serve.scoring_queue import ScoredImage

#: Results that are kept, and anomalies that are kept besides, so that good parts do not displace
#: them.
KEPT, KEPT_ANOMALIES = 1000, 200


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

    def jpeg(self, side: int, heat: bool) -> bytes:
        """A JPEG with a longer side of at most ``side`` pixels, under its heat map or not."""
        image = shrink(load_image(self.data, self.scale), side)
        if heat:
            image = overlay(image, self.anomaly_map, self.map_threshold)
        return encode_image(image, "JPEG", drawn=heat)


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

    Args:
        limit: most bytes of all encoded images.
    """

    def __init__(self, limit: int) -> None:
        self._limit = self._free_bytes = limit
        self._images: OrderedDict[int, StoredImage] = OrderedDict()

    def add(self, number: int, image: StoredImage) -> None:
        """Keep an image, unless it is larger than the store."""
        if len(image.data) > self._limit:
            return
        self._images[number] = image
        self._free_bytes -= len(image.data)
        while self._free_bytes < 0:
            _, oldest = self._images.popitem(last=False)
            self._free_bytes += len(oldest.data)

    def get(self, number: int) -> StoredImage | None:
        """The image of a result; None where it is not kept."""
        return self._images.get(number)


class ResultStore:
    """The newest results. Safe to use from several threads.

    Args:
        image_bytes: most bytes of all encoded images; half of them are for anomalies.

    Attributes:
        counts: results of this run of the service, by decision.
    """

    def __init__(self, image_bytes: int) -> None:
        self._all: deque[ResultRecord] = deque(maxlen=KEPT)
        self._anomalies: deque[ResultRecord] = deque(maxlen=KEPT_ANOMALIES)
        self._images = {decision: ImageStore(image_bytes // 2) for decision in Decision}
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
            self._all.append(record)
            if record.decision is Decision.ANOMALY:
                self._anomalies.append(record)
            result = scored.result
            scale = scored.served.model.metadata.scale
            stored = StoredImage(image, result.anomaly_map, result.map_threshold, scale)
            self._images[record.decision].add(self._last, stored)
            return record

    def restore(self, records: list[ResultRecord]) -> None:
        """Keep records of earlier runs of the service, without images; known ones are skipped."""
        with self._lock:
            known = {record.id: record for record in (*self._anomalies, *self._all)}
            earlier = {record.id: record for record in records if record.id not in known}
            merged = sorted([*known.values(), *earlier.values()], key=lambda one: one.id)
            anomalies = [one for one in merged if one.decision is Decision.ANOMALY]
            for kept, all_of_them in ((self._all, merged), (self._anomalies, anomalies)):
                kept.clear()
                kept.extend(all_of_them)
            self._earlier = max([self._earlier, *earlier])
            self._last = max(self._last, self._earlier)

    def recent(
        self, after: int, model: str | None, decision: Decision | None, limit: int
    ) -> tuple[list[ResultRecord], int]:
        """The newest records with an id above ``after``, oldest first, and the newest id of all."""
        with self._lock:
            if decision is Decision.ANOMALY:
                kept = list(self._anomalies)
            else:
                ids = {record.id for record in self._all}
                kept = [record for record in self._anomalies if record.id not in ids]
                kept += self._all
            last = self._last
        found = [
            record
            for record in kept
            if record.id > after
            and (model is None or record.model == model)
            and (decision is None or record.decision is decision)
        ]
        return found[-limit:], last

    def get(self, number: int) -> ResultRecord | None:
        """A record by its id; None where it is not kept."""
        with self._lock:
            for kept in (self._all, self._anomalies):
                for record in reversed(kept):
                    if record.id == number:
                        return record
        return None

    def image(self, number: int) -> StoredImage | None:
        """The image of a result; None where it is not kept."""
        with self._lock:
            found = (store.get(number) for store in self._images.values())
            return next(filter(None, found), None)

    def latency(self) -> Latency:
        """Percentiles of the total time of the kept results of this run of the service."""
        with self._lock:
            own = (record for record in self._all if record.id > self._earlier)
            totals = [record.timings["total"] for record in own]
        if not totals:
            return Latency(None, None, None, 0)
        p50, p95, p99 = np.percentile(totals, [50, 95, 99]).round(3).tolist()
        return Latency(p50, p95, p99, len(totals))
