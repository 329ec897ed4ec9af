"""What earlier runs of the service have written, for the page after a restart."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsad_edge.errors import FsadEdgeError, ImageError
from fsad_edge.options import Decision, HeatScale
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.documents import from_document, parse_json
from fsad_edge.runtime.files import open_regular, read_bytes, sha256
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.images import load_at_most
from fsad_edge.serve.result_lines import read_newest
from fsad_edge.serve.result_store import APART, KEPT, KEPT_APART, encode_image
from fsad_edge.serve.schemas import ResultRecord, WatchedResult

#: Bytes at the end of the results files that are read for the newest results: about 10,000 lines,
#: or some thousands where most of the parts are rejected.
NEWEST_BYTES = 8 << 20

#: Most bytes of a heat map that are read: it has at most 1600 pixels a side.
LARGEST_OVERLAY = 16 << 20

#: What is in the line of an image that was scored.
SCORED = b'"id": '


def read_earlier(folder: Path) -> list[ResultRecord]:
    """The newest results of a folder's results files, oldest first, as many as the store keeps.

    Raises:
        OSError: they cannot be read.
    """
    lines = [line for line in read_newest(folder, NEWEST_BYTES) if SCORED in line]
    older, newest = lines[:-KEPT], lines[-KEPT:]
    for decision in APART:
        of_it = f'"decision": "{decision}"'.encode()
        newest += [line for line in older if of_it in line][-KEPT_APART:]
    found = (_to_record(line) for line in newest)
    return sorted((one for one in found if one is not None), key=lambda record: record.id)


def _to_record(line: bytes) -> ResultRecord | None:
    """The result in a line; None where it is damaged."""
    with contextlib.suppress(ValueError):
        document: Any = parse_json(line)
        if isinstance(document, dict):
            kind = WatchedResult if "folder" in document else ResultRecord
            fields = {field.name for field in dataclasses.fields(kind)}
            # A newer version may have written more.
            return from_document(kind, {name: document[name] for name in fields & document.keys()})
    return None


@dataclass(frozen=True)
class WatchedImage:
    """The image of a result in its watched folder, for one that is not in memory.

    Attributes:
        record: the result.
        overlays: the folder of the heat maps of what is not good.
        scale: the model's, for images of more than 8 bits.
    """

    record: WatchedResult
    overlays: Path
    scale: ImageScale

    def read(self) -> bytes | None:
        """The encoded image; None where it is gone, or another one now."""
        record, name = self.record, self.record.name or ""
        if not _is_plain(name):
            return None
        path = Path(record.folder) / name
        # A name with a null byte is a ValueError.
        with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
            if os.fstat(file.fileno()).st_size == record.size:
                data = file.read(record.size + 1)
                return data if sha256(data) == record.sha256 else None
        return None

    def jpeg(
        self,
        side: int,
        heat: HeatScale | None,
        patience: float | None = None,
        numbered: bool = True,
    ) -> bytes | None:
        """A JPEG as of :meth:`StoredImage.jpeg`; None where it is gone.

        Heat maps are there as they were drawn: numbered, in the colours of ``HeatScale.THRESHOLD``
        alone.
        """
        if heat is HeatScale.NEAR:
            return None
        data = self.read() if heat is None else self._overlay()
        with contextlib.suppress(ImageError):
            if data is not None:
                with GATE.working(patience):
                    image = load_at_most(data, side, self.scale if heat is None else UNASKED)
                    return encode_image(image, "JPEG", drawn=heat is not None)
        return None

    def _overlay(self) -> bytes | None:
        folder, name = os.path.split(self.record.overlay or "")
        if not _is_plain(name) or folder not in {"", str(Decision.NOT_JUDGED)}:
            return None
        with contextlib.suppress(FsadEdgeError):
            return read_bytes(self.overlays / folder / name, most=LARGEST_OVERLAY)
        return None


def _is_plain(name: str) -> bool:
    """Whether a name leads to no other folder."""
    return os.path.basename(name) == name and name not in {"", ".", ".."}
