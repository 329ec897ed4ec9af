"""Which mask belongs to which image, by folder and name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TypeAlias

from fsad_edge.errors import InputError

#: Names of folders that hold masks, in lower case.
MASK_FOLDERS = ("ground_truth", "groundtruth", "gt", "mask", "masks")
#: How names of folders begin that may hold masks, but also photographs, as of a crooked label.
_MASK_WORDS = ("annot", "ground", "gt", "label", "mask", "seg")

#: The folders of a file and its name without suffix, in lower case.
Key: TypeAlias = tuple[tuple[str, ...], str]

_SUFFIX = re.compile(r"[-_. ](masks?|gt|ground[-_ ]?truth|labels?|seg)$")
#: What else programs add to the name of an image; photographs have some of these names, too.
_AFFIX = re.compile(
    r"^(masks?|gt|ground[-_ ]?truth|labels?|seg|annotations?|segmentations?)[-_. ]|"
    r"[-_. ](masks?|gt|ground[-_ ]?truth|labels?|seg|annot|annotations?|segmentations?|segmented|m|"
    r"bw|bin|binary|defects?|anomaly|pixels?|jpe?g|png|bmp|tiff?|gif|webp)$"
)


@dataclass
class Matches:
    """The masks of each image.

    Attributes:
        files: the masks of an image; several only from a folder with the name of the image.
        unmatched: the masks that belong to no image.
    """

    files: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    unmatched: list[Path] = field(default_factory=list)


def match(images: Mapping[Path, PurePath], masks: Mapping[Path, PurePath], good: str) -> Matches:
    """Find the masks of images.

    The mask of ``scratch/7.jpg`` is ``scratch/7.png``, ``scratch/7_mask.bmp`` or with another such
    ending or beginning, or all masks in ``scratch/7/``. Upper and lower case are the same. A mask
    in no folder of its kind, or one whose image is in a further subfolder, is matched by its name
    alone.

    Args:
        images: for each image, its path below the folder that holds the kinds of defects.
        masks: for each mask, its path below the folder that stands for that one.
        good: name of the folder of good images, which are not matched by their name alone.

    Raises:
        InputError: a mask could belong to two images, or two files could be the mask of one image.
    """
    exact, loose = _index(images, good)
    flat: dict[Path, list[Path]] = defaultdict(list)
    nested: dict[Path, list[Path]] = defaultdict(list)
    found = Matches()
    for mask, place in sorted(masks.items()):
        folder, name = _key(place)
        names = _names(name)
        here = _first([exact.get((folder, one)) for one in names])
        inside = exact.get((folder[:-1], folder[-1])) if folder else None
        by_name = _first([loose.get((folder, one)) for one in names]) if len(folder) < 2 else None
        owners = here or inside or by_name
        if not owners:
            found.unmatched.append(mask)
            continue
        if len(owners) > 1:
            raise InputError(
                f"the mask {mask} could belong to {owners[0]} or to {owners[1]}: put masks into "
                "folders as their images, and give the images different names."
            )
        (nested if inside and not here else flat)[owners[0]].append(mask)
    for image in {**flat, **nested}:
        if len(flat[image]) > 1 or (flat[image] and nested[image]):
            one, other = (flat[image] + nested[image])[:2]
            raise InputError(
                f"the image {image} has two masks, {one} and {other}: keep one of them, or put "
                f"masks that are to be joined into a folder named {image.stem}."
            )
        found.files[image] = tuple(flat[image] or nested[image])
    return found


def may_hold_masks(folder: str) -> bool:
    """Whether a folder's name begins as one of masks does; its images have to show it."""
    return folder.lower().startswith(_MASK_WORDS)


def _names(name: str) -> list[str]:
    """The names that the image of a mask may have, most like the mask's first."""
    names = [name, _SUFFIX.sub("", name)]
    while (shorter := _AFFIX.sub("", names[-1], count=1)) != names[-1]:
        names.append(shorter)
    return names


def by_stem(images: Iterable[Path]) -> dict[tuple[Path, str], list[Path]]:
    """Images by their folder and their name without suffix, in lower case."""
    found: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for image in images:
        found[image.parent, image.stem.lower()].append(image)
    return found


def may_own(mask: Path, images: Mapping[tuple[Path, str], Sequence[Path]]) -> list[Path]:
    """The images of :func:`by_stem` whose name is the beginning or the end of a mask's name."""
    name = mask.stem.lower()
    parts = {name[:end] for end in range(1, len(name) + 1)}
    parts |= {name[start:] for start in range(len(name))}
    return [image for part in parts for image in images.get((mask.parent, part), ())]


def owner_of(mask: Path, images: Collection[Path]) -> Path | None:
    """The image that a mask beside it is named after, whatever was added; None if not clear.

    Example:
        >>> owner_of(Path("7-bw.png"), [Path("7.jpg"), Path("6.jpg")])
        PosixPath('7.jpg')
    """
    name, found = mask.stem.lower(), dict[Path, int]()
    for image in images:
        stem = image.stem.lower()
        before, between, after = name.partition(stem)
        added = before + after
        if image.parent != mask.parent or not (between and added) or (before and after):
            continue
        apart = not (before[-1:].isalnum() or after[:1].isalnum())
        if apart and not any(letter.isdigit() for letter in added):
            found[image] = len(stem)
    longest = [image for image, length in found.items() if length == max(found.values())]
    return longest[0] if len(longest) == 1 else None


def is_beside_its_image(path: Path, stems: Collection[str]) -> bool:
    """Whether a file is named as the mask of another one in its folder.

    Args:
        path: the file.
        stems: the names without suffix of all images in the folder, in lower case.
    """
    name = path.stem.lower()
    bare = _SUFFIX.sub("", name)
    return bare != name and bare in stems


def _key(place: PurePath) -> Key:
    # Some systems store an umlaut as two characters.
    place = PurePath(unicodedata.normalize("NFC", str(place)).lower())
    return place.parent.parts, place.stem


def _index(
    images: Mapping[Path, PurePath], good: str
) -> tuple[dict[Key, list[Path]], dict[Key, list[Path]]]:
    """The images by folder and name, and by kind or by nothing and name."""
    exact: dict[Key, list[Path]] = defaultdict(list)
    loose: dict[Key, list[Path]] = defaultdict(list)
    for image, place in sorted(images.items()):
        folder, name = _key(place)
        exact[folder, name].append(image)
        if folder[0] != good.lower():
            for shorter in (folder[:1], ()):
                loose[shorter, name].append(image)
    return exact, loose


def _first(found: Sequence[list[Path] | None]) -> list[Path] | None:
    return next((one for one in found if one), None)
