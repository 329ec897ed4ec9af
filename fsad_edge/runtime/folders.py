"""The one reader of folders: every entry is an image, or is named with the reason why it is not.

It needs the standard library and Pillow only. No image is decoded here.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import features

from fsad_edge.errors import InputError
from fsad_edge.options import Choice
from fsad_edge.runtime.own_pictures import HEAD, OWN_SUFFIXES, is_own_picture


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What Pillow reads everywhere, and what it reads where it was built with the decoder.
IMAGE_SUFFIXES = (
    _words(
        """
        .apng .bmp .btf .gif .jfif .jpe .jpeg .jpg .mpo .pbm .pfm .pgm .png .pnm .ppm .tf8 .tif
        .tiff .webp
        """
    )
    | _words(".avif" * ("avif" in features.modules and features.check_module("avif")))
    | _words(".j2c .j2k .jp2 .jpc .jpf .jpx" * features.check_codec("jpg_2000"))
)

#: Kinds of photographs and films that are not read. Such a file may well show a part.
UNREAD_SUFFIXES = (
    _words(
        """
        .3fr .arw .avif .avifs .cr2 .cr3 .crw .czi .dcm .dds .dib .dng .exr .fit .fits .gpr .hdr
        .heic .heics .heif .hif .ico .iiq .j2c .j2k .jls .jp2 .jp2k .jpc .jpf .jph .jpx .jxl .jxr
        .lif .mef .mos .mrw .nd2 .nef .npy .nrw .orf .pcx .pef .psb .psd .qoi .raf .raw .rw2 .rwl
        .sgi .sr2 .srf .srw .tga .vsi .wdp .x3f .xcf
        .3g2 .3gp .avi .flv .m2ts .m4v .mjpeg .mjpg .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv
        """
    )
    - IMAGE_SUFFIXES
)

#: Names of the folder of good images in data sets, in lower case, the likeliest first.
GOOD_FOLDERS = ("good", "ok", "okay", "normal", "nominal", "defect_free", "no_defect")

#: Names of the folders of a split in data sets, in lower case.
SPLIT_FOLDERS = ("train", "training", "val", "valid", "validation", "test")

#: Folders and files that cameras, desktops and storage boxes make for themselves.
SYSTEM_NAMES = _words(
    """
    @eadir .thumbnails thumbs.db ehthumbs.db .ds_store desktop.ini __macosx #recycle @recycle
    $recycle.bin .trash .trashes .@__thumb .picasaoriginals .comments lost+found
    """
) | {"system volume information"}

#: First bytes of JPEG, PNG, GIF, TIFF, BigTIFF, JPEG 2000, JPEG XL, OpenEXR, Photoshop, FITS, QOI,
#: DDS and numpy's arrays.
_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"\xff\x0a", b"v/1\x01",
    b"8BPS\0\1", b"SIMPLE  =", b"qoif", b"DDS ", b"\x93NUMPY",
)  # fmt: skip

#: The files by which a model directory is known, the second of an earlier version; the folder of
#: shots in it belongs to the model.
_MANIFEST, _ENCODERS = "manifest.json", ("encoder.onnx", "encoder.safetensors")


class Reason(Choice):
    """Why an entry of a folder was not taken."""

    KIND = "kind is not read"
    CLOSED = "folder cannot be opened"
    NO_ACCESS = "file cannot be opened"
    BROKEN_LINK = "link leads nowhere"
    SPECIAL = "not a regular file"
    MISNAMED = "image under another suffix"
    NAMED_OWN = "named like a picture of fsad-edge"
    SUBFOLDER = "subfolder is not read"
    REPEATED = "linked folder was read already"
    OWN = "made by fsad-edge"
    SYSTEM = "thumbnails or system files"
    HIDDEN = "hidden"
    OTHER = "not an image"


#: Reasons that leave a photograph of a part unseen, or may do so.
UNSEEN = frozenset(
    {Reason.KIND, Reason.CLOSED, Reason.NO_ACCESS}
    | {Reason.BROKEN_LINK, Reason.SPECIAL, Reason.MISNAMED, Reason.NAMED_OWN}
)

#: What one entry and several are called in a count; ``{}`` stands for the suffix.
_WORDS = {
    Reason.KIND: ("{} is not read", "{} are not read"),
    Reason.CLOSED: ("subfolder cannot be opened", "subfolders cannot be opened"),
    Reason.NO_ACCESS: ("file cannot be opened", "files cannot be opened"),
    Reason.BROKEN_LINK: ("link leads nowhere", "links lead nowhere"),
    Reason.SPECIAL: ("entry is not a regular file", "entries are not regular files"),
    Reason.MISNAMED: ("{} is an image under another suffix", "{} are images under another suffix"),
    Reason.NAMED_OWN: (
        "is named like a heat map of fsad-edge",
        "are named like heat maps of fsad-edge",
    ),
    Reason.SUBFOLDER: ("subfolder is not read", "subfolders are not read"),
    Reason.REPEATED: ("linked folder was read already", "linked folders were read already"),
    Reason.OWN: ("was made by fsad-edge", "were made by fsad-edge"),
    Reason.SYSTEM: ("holds thumbnails or system files", "hold thumbnails or system files"),
    Reason.HIDDEN: ("is hidden", "are hidden"),
    Reason.OTHER: ("{} is not an image", "{} are not images"),
}


@dataclass(frozen=True)
class Skipped:
    """An entry of a folder that was not taken, and why."""

    path: Path
    reason: Reason

    @property
    def unseen(self) -> bool:
        """Whether it is, or may hold, a photograph that nobody looked at."""
        return self.reason in UNSEEN

    def as_dict(self) -> dict[str, Any]:
        """The entry for a JSON document."""
        return {"path": str(self.path), "reason": self.reason.value, "unseen": self.unseen}


@dataclass(frozen=True)
class FolderImages:
    """All entries of a folder: the images, sorted, and what was skipped."""

    images: list[Path]
    skipped: list[Skipped]


def find_images(folder: Path, recursive: bool = True) -> FolderImages:
    """Find the images of a folder and account for all else in it.

    Args:
        folder: the folder.
        recursive: read the folders in it, too.

    Raises:
        InputError: the folder is missing, cannot be opened or holds no image.
    """
    images: list[Path] = []
    skipped: list[Skipped] = []
    for entry in walk(folder, recursive):
        if isinstance(entry, Skipped):
            skipped.append(entry)
        else:
            images.append(entry)
    if not images:
        raise no_image(folder, skipped)
    return FolderImages(sorted(images), skipped)


def no_image(folder: Path, skipped: list[Skipped], others: str = "") -> InputError:
    """The error for a folder without an image; ``others`` names what was looked for besides."""
    found = f" ({describe(skipped)})" if skipped else ""
    return InputError(
        f"{folder} holds no image{others}{found}: put photographs there, such as .jpg, .png, .bmp "
        "or .tif files."
    )


def walk(folder: Path, recursive: bool = True) -> Iterator[Path | Skipped]:
    """The entries of a folder one at a time, because there may be millions; unsorted.

    A link to a folder is followed, unless the folder was read already, so that loops end.

    Raises:
        InputError: the folder is missing or cannot be opened.
    """
    check_folder(folder)
    pending, links = [folder], list[Path]()
    seen: set[tuple[int, int]] = set()
    while pending or links:
        # Links come last: a folder is read under its own name where it has one below the root.
        current = pending.pop() if pending else links.pop(0)
        try:
            found = os.stat(current)
            entries = list(os.scandir(current))
        except OSError as error:
            if current == folder:
                raise _cannot_open(folder, error) from error
            yield Skipped(current, Reason.CLOSED)
            continue
        if (found.st_dev, found.st_ino) in seen:
            yield Skipped(current, Reason.REPEATED)
            continue
        seen.add((found.st_dev, found.st_ino))
        for entry in entries:
            path = Path(entry.path)
            verdict = classify(path)
            if verdict is Reason.SUBFOLDER and recursive:
                (links if entry.is_symlink() else pending).append(path)
            else:
                yield path if verdict is None else Skipped(path, verdict)


def classify(path: Path) -> Reason | None:
    """Why an entry is not an image that is read, judged by its name and its first bytes.

    A folder of images is ``Reason.SUBFOLDER``.

    Returns:
        None for an image. It is not decoded: it may be damaged all the same.
    """
    name = path.name.lower()
    suffix = path.suffix.lower()
    if name in SYSTEM_NAMES:
        return Reason.SYSTEM
    if name.startswith("."):
        return Reason.HIDDEN
    try:
        mode = path.stat().st_mode
    except OSError:
        return Reason.BROKEN_LINK if os.path.islink(path) else Reason.NO_ACCESS
    if stat.S_ISDIR(mode):
        return Reason.OWN if _is_own_folder(path) else Reason.SUBFOLDER
    if not stat.S_ISREG(mode):
        return Reason.SPECIAL
    if suffix in UNREAD_SUFFIXES:
        return Reason.KIND
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return Reason.NO_ACCESS
    if suffix in IMAGE_SUFFIXES:
        if is_own_picture(head):
            return Reason.OWN
        return Reason.NAMED_OWN if name.endswith(OWN_SUFFIXES) else None
    return Reason.MISNAMED if is_image(head) else Reason.OTHER


def describe(skipped: Iterable[Skipped]) -> str:
    """Count skipped entries by reason, what nobody looked at first.

    Example:
        >>> describe([Skipped(Path("a.heic"), Reason.KIND), Skipped(Path("b"), Reason.CLOSED)])
        '2 skipped: 1 .heic is not read, 1 subfolder cannot be opened'
    """
    counts = Counter(
        (one.reason, _kind_of(one) if "{}" in _WORDS[one.reason][0] else "") for one in skipped
    )
    order = list(Reason)
    parts = []
    for reason, kind in sorted(counts, key=lambda key: (order.index(key[0]), key[1])):
        count = counts[reason, kind]
        kind = kind or ("file without a suffix" if count == 1 else "files without a suffix")
        parts.append(f"{count} {_WORDS[reason][count > 1].format(kind)}")
    return f"{counts.total()} skipped: {', '.join(parts)}"


def check_folder(folder: Path) -> None:
    """Refuse what is no folder.

    Raises:
        InputError: it does not exist, is something else, or a folder above it cannot be searched.
    """
    try:
        found = folder.stat()
    except (OSError, ValueError) as error:
        raise _cannot_open(folder, error) from error
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"{folder} is not a folder: give a folder of images.")


def _cannot_open(folder: Path, error: OSError | ValueError) -> InputError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return InputError(f"{folder} does not exist: give a folder of images.")
    why = getattr(error, "strerror", None) or str(error)
    return InputError(f"{folder} cannot be opened ({why}): give a folder of images.")


def _kind_of(one: Skipped) -> str:
    return one.path.suffix.lower()


def _is_own_folder(path: Path) -> bool:
    """Whether this is a model directory, or what a model has learned."""
    return path.suffix == ".learned" or has_model(path)


def has_model(folder: Path) -> bool:
    """Whether a folder holds the files of a model directory; they are not read."""
    has_encoder = any(os.path.isfile(folder / name) for name in _ENCODERS)
    return has_encoder and os.path.isfile(folder / _MANIFEST)


def is_image(head: bytes) -> bool:
    """Whether a file begins as a photograph does, whatever its name."""
    bitmap = head[:2] == b"BM" and head[6:10] == bytes(4) and head[15:18] == bytes(3)
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    heif = head[4:8] == b"ftyp" and head[8:11] in {b"avi", b"hei", b"hev", b"mif", b"msf"}
    netpbm = head[:1] == b"P" and head[1:2] in b"56" and head[2:3].isspace() and len(head) > 9
    return head.startswith(_SIGNATURES) or bitmap or webp or heif or netpbm
