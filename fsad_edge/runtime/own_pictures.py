"""The mark on pictures that this project draws, so that no folder's reader takes them for parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from fsad_edge.errors import InputError
from fsad_edge.runtime.files import check_output, open_regular

MARK = "fsad-edge"

#: Bytes from a file's start within which its mark stands, or its kind can be told.
HEAD = 128

#: Names that heat maps, overlays and pictures of twins are given.
OWN_SUFFIXES = (".heatmap.png", ".overlay.jpg", ".why.png")


def marked(kind: str) -> dict[str, Any]:
    """The options with which Pillow's ``save`` marks a picture.

    Args:
        kind: ``PNG`` or ``JPEG``.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (64, 64)).save(file, "PNG", **marked("PNG"))
        >>> is_own_picture(file.getvalue()[:HEAD])
        True
    """
    if kind == "JPEG":
        return {"comment": MARK}
    text = PngInfo()
    text.add_text("Software", MARK)
    return {"pnginfo": text}


def check_own(path: Path) -> None:
    """Refuse to replace a file that this project did not draw.

    Raises:
        InputError: there is such a file, or a link, a device, a pipe or a socket.
    """
    check_output(path, force=True)
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from error
    if not is_own_picture(head):
        raise InputError(
            f"{path} exists and is no picture that fsad-edge drew: it is left alone; name another."
        )


def is_own_picture(head: bytes) -> bool:
    """Whether this project drew a picture: a heat map, an overlay, a report or a plot.

    Args:
        head: the first ``HEAD`` bytes of its file.
    """
    png = b"tEXtSoftware\0" + MARK.encode()
    jpeg = b"\xff\xfe" + (len(MARK) + 2).to_bytes(2, "big") + MARK.encode()
    return (head.startswith(b"\x89PNG") and png in head) or (
        head.startswith(b"\xff\xd8") and jpeg in head
    )
