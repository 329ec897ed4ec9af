"""The pages that a file holds, and those that it says it holds."""

from __future__ import annotations

import json
import math
import re
from typing import IO, Any

from PIL import ImageFile

from fsad_edge.errors import ImageError
from fsad_edge.runtime.plain_pnm import PLAIN, SCALED
from fsad_edge.runtime.unreadable import raw_file

# Tags of a TIFF file, and the bits of the first that mark a page as no page of its own.
_SUBFILE, _OLD_SUBFILE, _SUB_IFDS, _DNG = 254, 255, 330, 50706
_REDUCED_OR_MASK = 1 | 4
_WIDTH, _HEIGHT, _BITS, _DESCRIPTION, _SAMPLES = 256, 257, 258, 270, 277
_DEPTH, _TILE_DEPTH = 32997, 32998

#: A description as ImageJ writes it.
_IMAGEJ = re.compile(r"ImageJ=.*^images=(\d+)\s*$", re.DOTALL | re.MULTILINE)

_NEXT_PPM = re.compile(rb"\s*P[1-7fF]\s")
_NEXT_PPM_LINE = re.compile(rb"^[ \t\r\f\v]*P[1-7fF]\s", re.MULTILINE)


def tiff_pages(image: ImageFile.ImageFile, name: str, most: int, frames: int) -> list[int]:
    """The first ``most`` frames of a TIFF that are pages, of at most ``frames`` that are looked at.

    Where all are marked as previews, none is of another, and all are pages.

    Raises:
        ImageError: a camera's RAW file, or pages that would be left out.
    """
    pages: list[int] = []
    claimed: list[tuple[float, float]] = []
    for frame in range(frames):
        try:
            image.seek(frame)
        except EOFError:
            _check_claims(claimed, image, name)
            return pages or list(range(frame))[:most] or [0]
        except SyntaxError:  # samples that Pillow does not read; it has read the tags
            pass
        tags = image.tag_v2  # type: ignore[attr-defined]
        claimed.append(_claimed(tags, name))
        if _DNG in tags:
            raise ImageError(raw_file(name))
        if tags.get(_SUBFILE, 0) & _REDUCED_OR_MASK or tags.get(_OLD_SUBFILE, 1) == 2:
            if _SUB_IFDS in tags:  # where cameras put the photograph itself
                raise ImageError(raw_file(name))
        else:
            pages.append(frame)
            if len(pages) == most:
                break
    return pages or list(range(frames))[:most]


def check_single_ppm(image: ImageFile.ImageFile, name: str) -> None:
    """Refuse a PBM, PGM, PPM or PFM with a second image behind the first."""
    file = image.fp
    assert file is not None
    codec, _, offset, arguments = image.tile[0]
    place = file.tell()
    file.seek(offset)
    if codec == PLAIN:
        further = _has_further_text(file)
    else:
        file.seek(offset + _ppm_size(image, codec, arguments))
        further = _NEXT_PPM.match(file.read(64)) is not None
    file.seek(place)
    if further:
        raise ImageError(
            f"{name} holds several images one after the other, of which only the first is read: "
            "save each as a file of its own."
        )


def _has_further_text(file: IO[bytes]) -> bool:
    """Whether a line of a text begins a PBM, PGM or PPM."""
    while block := file.read(1 << 20):
        block += file.readline(1 << 20)  # up to the end of a line
        if b"P" in block and _NEXT_PPM_LINE.search(block):
            return True
    return False


def _ppm_size(image: ImageFile.ImageFile, codec: str, arguments: Any) -> int:
    """Bytes of the samples."""
    width, height = image.size
    if image.mode == "1":
        return (width + 7) // 8 * height
    if image.mode == "F":
        return 4 * width * height
    wide = arguments[-1] > 255 if codec == SCALED else str(arguments).startswith("I;16")
    return width * height * len(image.getbands()) * (2 if wide else 1)


def _claimed(tags: Any, name: str) -> tuple[float, float]:
    """How many images of its size a frame says that it begins, and their bytes; else 0."""
    for tag in (_DEPTH, _TILE_DEPTH):
        depth = tags.get(tag, 1)
        if isinstance(depth, int) and depth > 1:
            raise ImageError(
                f"{name} holds a volume of {depth} planes, which is not read: save each plane as "
                "a page or a file of its own."
            )
    text = str(tags.get(_DESCRIPTION, ""))
    imagej = _IMAGEJ.match(text)
    try:
        samples = int(tags[_WIDTH]) * int(tags[_HEIGHT]) * int(tags.get(_SAMPLES, 1))
        shape = [samples, int(imagej[1])] if imagej else json.loads(text)["shape"]
        images = math.prod(float(side) for side in shape) / samples
        return images, images * samples * int(tags[_BITS][0]) / 8
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
        return 0, 0


def _check_claims(
    claimed: list[tuple[float, float]], image: ImageFile.ImageFile, name: str
) -> None:
    said, size = (sum(column) for column in zip(*claimed, strict=True))
    file = image.fp
    assert file is not None
    # A description that was copied from another file is followed by fewer bytes.
    if said > len(claimed) and file.seek(0, 2) >= size:
        raise ImageError(
            f"{name} says that it holds {said:.0f} images, and {len(claimed)} can be read as "
            "pages: save each as a page or a file of its own."
        )
