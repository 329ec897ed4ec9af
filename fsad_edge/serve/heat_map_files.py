"""The heat maps of what a watched folder did not call good, as files beside its results."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from fsad_edge.errors import FsadEdgeError
from fsad_edge.options import Decision, HeatScale
from fsad_edge.runtime.files import sha256, write_bytes, writing
from fsad_edge.serve.result_store import StoredImage
from fsad_edge.serve.watch_index import FileVersion

log = logging.getLogger("fsad_edge.serve")

#: Bytes of a file's name that its heat map keeps. With what is added to it, also while it is
#: written, no file system refuses the name: the shortest limit (eCryptfs) is 143.
KEPT_NAME = 80

#: Most pixels of a heat map's longer side.
SIDE = 1600


class HeatMapFiles:
    """Writes heat maps into a folder. One that cannot be written is counted, and stops nothing.

    Args:
        folder: the folder.

    Attributes:
        lost: how many could not be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lost = 0
        self._fault = ""

    def clear(self) -> None:
        """Delete what a killed process left half written. No other process may write here."""
        for folder in (self._folder, self._folder / Decision.NOT_JUDGED):
            with contextlib.suppress(OSError):
                for left in folder.glob(".*.overlay.jpg.*"):
                    left.unlink()

    def write(
        self, file: FileVersion, digest: str, decision: Decision, image: StoredImage
    ) -> str | None:
        """Write the heat map of an image.

        Args:
            file: the image's file.
            digest: the SHA-256 of its content.
            decision: what was decided.
            image: the image.

        Returns:
            the name below the folder; None where it could not be written.
        """
        name = f"{_short(file.name)}.{file.mtime_ns}.{digest[:8]}.overlay.jpg"
        if decision is Decision.NOT_JUDGED:
            name = f"{Decision.NOT_JUDGED}/{name}"
        path = self._folder / name
        try:
            data = image.jpeg(SIDE, HeatScale.THRESHOLD)
            with writing(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        except Exception as error:  # whatever it is, the result counts
            self.lost += 1
            fault = str(getattr(error.__cause__, "strerror", None) or error)
            if fault != self._fault:
                self._fault = fault
                log.warning(
                    "heat maps cannot be written to %s (%s); results go on without them.",
                    self._folder, fault, exc_info=not isinstance(error, FsadEdgeError),
                )  # fmt: skip
            return None
        if self._fault:
            self._fault = ""
            log.info("heat maps are written to %s again; %d are lost.", self._folder, self.lost)
        return name


def _short(name: str) -> str:
    """A file's name, or its beginning with a hash of all of it where not every byte can be kept."""
    data = os.fsencode(name)
    text = data[:KEPT_NAME].decode(errors="ignore")
    kept = "".join(one if one.isprintable() else "_" for one in text)
    return name if kept == name else f"{kept}~{sha256(data)[:8]}"
