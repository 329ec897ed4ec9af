"""The newest results, kept in memory: within a number, their images within a number of bytes."""

from __future__ import annotations

import io
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsad_edge.runtime.heatmap import overlay, shrink
from fsad_edge.runtime.images import load_image
from fsad_edge.serve.models import now
from fsad_edge.serve.scoring_queue import Scored

#: Results kept, and anomalies kept apart from them, so that good parts don't push them out.
KEPT, KEPT_ANOMALIES = 1000, 200

Record = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """An image and its map.

    Attributes:
        data: encoded, as it came.
        anomaly_map: float32 ``[h, w]``.
        map_threshold: to draw it against.
    """

    data: bytes
    anomaly_map: npt.NDArray[np.float32]
    map_threshold: float

    def jpeg(self, side: int, heat: bool) -> bytes:
        """A JPEG, the longer side at most ``side`` pixels, with or without the heat map."""
        return encode(self._picture(side, heat), "JPEG")

    def _picture(self, side: int, heat: bool) -> npt.NDArray[np.uint8]:
        image = shrink(load_image(self.data), side)
        return overlay(image, self.anomaly_map, self.map_threshold) if heat else image


def encode(picture: npt.NDArray[np.uint8], kind: str) -> bytes:
    """Uint8 ``[H, W, 3]`` as ``JPEG`` or ``PNG``."""
    buffer = io.BytesIO()
    options = {"quality": 88} if kind == "JPEG" else {"compress_level": 1}
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


class ImageStore:
    """Images by id, the oldest given up for room."""

    def __init__(self, room: int) -> None:
        self._most = self._room = room
        self._images: OrderedDict[int, Kept] = OrderedDict()

    def put(self, number: int, kept: Kept) -> None:
        """Keep one, if it fits at all."""
        if len(kept.data) > self._most:
            return
        self._images[number] = kept
        self._room -= len(kept.data)
        while self._room < 0:
            _, oldest = self._images.popitem(last=False)
            self._room += len(oldest.data)

    def get(self, number: int) -> Kept | None:
        """One by id; None where it has gone."""
        return self._images.get(number)


class Results:
    """What was scored last. Safe to use from any thread.

    Args:
        image_bytes: of encoded images in all; half of it is for anomalies alone.
    """

    def __init__(self, image_bytes: int) -> None:
        self._all: deque[Record] = deque(maxlen=KEPT)
        self._anomalies: deque[Record] = deque(maxlen=KEPT_ANOMALIES)
        self._good_images = ImageStore(image_bytes // 2)
        self._bad_images = ImageStore(image_bytes // 2)
        self._lock = threading.Lock()
        self._last = 0
        self.counts = {"good": 0, "anomaly": 0}

    def add(self, record: Record, image: bytes | None, scored: Scored) -> None:
        """Give a record its ``id`` and keep it, with its encoded image where there is one."""
        with self._lock:
            # Ids grow with time, so that a page goes on where it was when the service restarts.
            self._last = max(self._last + 1, time.time_ns() // 1000)
            record["id"] = self._last
            record["time"] = now()
            anomalous = record["decision"] == "anomaly"
            self.counts[record["decision"]] += 1
            self._all.append(record)
            if anomalous:
                self._anomalies.append(record)
            if image is not None:
                store = self._bad_images if anomalous else self._good_images
                store.put(
                    self._last, Kept(image, scored.result.anomaly_map, scored.result.map_threshold)
                )

    def recent(
        self, after: int, model: str | None, decision: str | None, limit: int
    ) -> tuple[list[Record], int]:
        """The newest ``limit`` records over an id, oldest first, and the newest id there is."""
        with self._lock:
            if decision == "anomaly":
                kept = list(self._anomalies)
            else:
                ids = {record["id"] for record in self._all}
                kept = [record for record in self._anomalies if record["id"] not in ids]
                kept += self._all
            last = self._last
        found = [
            record
            for record in kept
            if record["id"] > after
            and (model is None or record["model"] == model)
            and (decision is None or record["decision"] == decision)
        ]
        return found[-limit:], last

    def get(self, number: int) -> Record | None:
        """One record by id; None where it has gone."""
        with self._lock:
            for kept in (self._all, self._anomalies):
                for record in reversed(kept):
                    if record["id"] == number:
                        return record
        return None

    def image(self, number: int) -> Kept | None:
        """One image by its record's id; None where it has gone."""
        with self._lock:
            return self._bad_images.get(number) or self._good_images.get(number)

    def latency(self) -> dict[str, float | int | None]:
        """Percentiles of the kept results' total time, milliseconds."""
        with self._lock:
            totals = [record["timings"]["total"] for record in self._all]
        if not totals:
            return {"p50": None, "p95": None, "p99": None, "count": 0}
        p50, p95, p99 = np.percentile(totals, [50, 95, 99]).round(3).tolist()
        return {"p50": p50, "p95": p95, "p99": p99, "count": len(totals)}


def make_record(scored: Scored, source: str, name: str | None) -> Record:
    """What the API, the sinks and the files say of one image; id and time come when it is kept."""
    result, served = scored.result, scored.served
    p_value = None if served.p_value is None else served.p_value(result.score)
    return {
        "id": 0,
        "time": "",
        "model": served.name,
        "version": served.version,
        "source": source,
        "name": name,
        "width": scored.width,
        "height": scored.height,
        "score": result.score,
        "threshold": result.threshold,
        "ratio": result.ratio,
        "decision": "anomaly" if result.anomalous else "good",
        "p_value": p_value,
        "flags": scored.flags,
        "timings": dict(scored.timings),
        "learned": served.learned,
    }
