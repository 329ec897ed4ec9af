"""A camera: the newest frame is scored, and older ones are dropped."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsad_edge.errors import MissingExtraError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.serve.result_store import encode_image
from fsad_edge.serve.schemas import CameraStatus, Source
from fsad_edge.serve.service import Service

log = logging.getLogger("fsad_edge.serve")

#: Seconds between two attempts to connect: the first pause doubles each time, up to the last.
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0


@dataclass(frozen=True)
class Frame:
    """A frame, BGR as OpenCV delivers it, and when it arrived (monotonic)."""

    pixels: UInt8Array
    when: float


class Camera:
    """Reads all frames of a camera in one thread, and scores the newest in another.

    Args:
        uri: a number, a file, an address that OpenCV opens, or a GStreamer pipeline (with a
            ``!``) that ends in an ``appsink``.
        model: name of the model that scores.
        service: the service.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """

    def __init__(self, uri: str, model: str, service: Service) -> None:
        try:
            import cv2
        except ImportError:
            raise MissingExtraError("opencv-python-headless", "camera") from None
        self._cv2: Any = cv2
        self._uri, self._model, self._service = uri, model, service
        self._newest: Frame | None = None
        self._last = 0.0  # when the newest frame arrived
        self._dropped = self._failed = 0
        self._fault = ""
        self._arrived = threading.Condition()
        self._stop = threading.Event()
        self._connected = False
        self._threads = [
            threading.Thread(target=self._read_frames, name="camera", daemon=True),
            threading.Thread(target=self._score_frames, name="camera scores", daemon=True),
        ]
        service.metrics.frame_age.set_function(self._age)

    def status(self) -> CameraStatus:
        """Whether frames arrive, and how many were dropped or could not be scored."""
        age = round(self._age(), 3) if self._last else None
        return CameraStatus(self._connected, age, self._dropped, self._failed)

    def start(self) -> None:
        """Start to read and score frames."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, once the current frame is scored."""
        self._stop.set()
        with self._arrived:
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join(5)

    def _age(self) -> float:
        return time.monotonic() - self._last if self._last else 0.0

    def _read_frames(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                capture = self._open()
                if capture.isOpened():
                    log.info("camera %s is connected.", self._uri)
                    pause = FIRST_PAUSE
                    self._set_connected(True)
                    self._read_until_lost(capture)
                capture.release()
            except Exception:  # OpenCV and its backends raise what they like
                log.exception("camera %s cannot be read.", self._uri)
            finally:
                self._set_connected(False)
            if not self._stop.is_set():
                log.warning("camera %s delivers no frames; trying again in %g s.", self._uri, pause)
            self._stop.wait(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _open(self) -> Any:
        if self._uri.isdigit():
            return self._cv2.VideoCapture(int(self._uri))
        if "!" in self._uri:
            return self._cv2.VideoCapture(self._uri, self._cv2.CAP_GSTREAMER)
        capture = self._cv2.VideoCapture(self._uri)
        capture.set(self._cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _set_connected(self, connected: bool) -> None:
        self._connected = connected
        self._service.metrics.camera_connected.set(connected)

    def _read_until_lost(self, capture: Any) -> None:
        """Read frames until none come. A file is read at its own frame rate."""
        is_file = capture.get(self._cv2.CAP_PROP_FRAME_COUNT) > 0
        period = 1 / max(capture.get(self._cv2.CAP_PROP_FPS), 1.0) if is_file else 0.0
        while not self._stop.is_set():
            found, pixels = capture.read()
            if not found:
                return
            with self._arrived:
                if self._newest is not None:  # it was not scored
                    self._dropped += 1
                    self._service.metrics.frames_dropped.inc()
                self._last = time.monotonic()
                self._newest = Frame(pixels, self._last)
                self._arrived.notify()
            if period:
                self._stop.wait(period)

    def _score_frames(self) -> None:
        while not self._stop.is_set():
            with self._arrived:
                self._arrived.wait_for(lambda: self._newest is not None or self._stop.is_set())
            # First the place in the queue, then the frame: otherwise the frame would grow old.
            with self._service.queue.reserve(wait=True):
                with self._arrived:
                    frame, self._newest = self._newest, None
                if frame is None:
                    continue
                try:
                    self._score(frame)
                    self._fault = ""
                except Exception as error:
                    self._failed += 1
                    self._service.metrics.frames_failed.inc()
                    if str(error) != self._fault:  # once, and not thirty times a second
                        log.exception("a frame could not be scored.")
                    self._fault = str(error)

    def _score(self, frame: Frame) -> None:
        rgb = _to_rgb(frame.pixels)
        taken = time.monotonic()
        scored = self._service.score(self._service.models[self._model], rgb).result()
        self._service.metrics.frames_scored.inc()
        wait = {"frame": round((taken - frame.when) * 1e3, 3)}
        # The JPEG is for the page only, so it is made after scoring.
        self._service.record(scored, Source.CAMERA, None, encode_image(rgb, "JPEG"), wait)


def _to_rgb(pixels: UInt8Array) -> UInt8Array:
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, 2::-1])
