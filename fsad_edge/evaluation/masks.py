"""The mask of an image: checked against its image before anything is scored, read afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from fsad_edge.errors import ImageError, InputError
from fsad_edge.evaluation.mask_pixels import read_defect
from fsad_edge.options import MaskMeaning
from fsad_edge.runtime.arrays import BoolArray, Float64Array
from fsad_edge.runtime.decode_cost import admitted
from fsad_edge.runtime.files import open_regular
from fsad_edge.runtime.opening import open_image

#: A mask that marks more than this share of its image may be inverted.
MOST_MARKED = 0.5
#: A mask that correlates with its photograph by more than this, marks at least this share of it and
#: has this many regions, or more shades than one, was made of it. Real masks reach 0.74.
ALIKE, LEAST_SPECKLED, MOST_REGIONS = 0.8, 0.05, 20

_GRID = 64  # a mask is compared with its photograph at this many points across and down


@dataclass(frozen=True)
class Mask:
    """The files that mark the defect of one image.

    Attributes:
        files: one file, or several that are joined, as in MVTec LOCO AD.
        image: the image that they belong to.
        meanings: what the user said of the masks.
    """

    files: tuple[Path, ...]
    image: Path
    meanings: frozenset[MaskMeaning] = frozenset()

    def read(self) -> BoolArray:
        """Read the defect: bool ``[H, W]`` at the size of the image, True on the defect.

        Raises:
            InputError: a file cannot be read, could be misread, or does not fit the image.
        """
        return self._read()[0]

    def check(self) -> MaskFacts:
        """Read the mask and refuse what does not fit its image or could be misread.

        Raises:
            InputError: as :meth:`read`; the mask is a photograph, or marks more than half of the
                image.
        """
        marked, facts = self._read()
        for file in self.files:
            if _shows_the_image(file, self.image, marked):
                raise ImageError(
                    f"the mask {file} shows the same as its image {self.image}: give a mask that "
                    "is black, with the defect in white."
                )
        share = float(marked.mean())
        if share > MOST_MARKED and MaskMeaning.LARGE not in self.meanings:
            raise ImageError(
                f"the mask {self.files[0]} marks {share:.0%} of its image {self.image}: if it is "
                "white where the part is good, add --masks inverted, and if the defect is so "
                "large, add --masks large."
            )
        return facts

    def _read(self) -> tuple[BoolArray, MaskFacts]:
        width, height, orientation = _header(self.image)
        size = (width, height) if orientation >= 5 else (height, width)
        joined, scaled = np.zeros(size, dtype=bool), False
        for file in self.files:
            marked = read_defect(file, MaskMeaning.INVERTED in self.meanings)
            if marked.shape != size:
                self._check_size(file, marked.shape, size, orientation)
                resized = Image.fromarray(marked).resize(size[::-1], Image.Resampling.NEAREST)
                marked, scaled = np.asarray(resized, dtype=bool), True
            joined |= marked
        return joined, MaskFacts(not joined.any(), scaled, orientation != 1)

    def _check_size(
        self, file: Path, found: tuple[int, ...], size: tuple[int, int], orientation: int
    ) -> None:
        """Refuse a mask of another size, unless it is the same shape and that is meant."""
        if _same_shape(found, size):
            if MaskMeaning.SCALED in self.meanings:
                return
            cure = (
                "if it is the whole mask at another size, add --masks scaled, and if it was padded "
                "or cropped, save it at the size of the image"
            )
        elif found == size[::-1] and orientation >= 5:
            cure = (
                "it fits the image as stored, which its EXIF tag turns: turn the mask in the same "
                "way"
            )
        elif found == size[::-1]:
            cure = "height and width are exchanged: turn the mask so that it lies as the image does"
        else:
            cure = "it was padded, cropped or stretched: save it at the size of the image"
        raise ImageError(
            f"the mask {file} has {_pixels(found)} pixels and its image {self.image} has "
            f"{_pixels(size)}: {cure}."
        )


@dataclass(frozen=True)
class MaskFacts:
    """What the check of one mask found.

    Attributes:
        empty: it marks nothing.
        scaled: a file has another size than the image.
        turned: the image has an EXIF rotation, and the mask is taken as drawn on the turned image.
    """

    empty: bool
    scaled: bool
    turned: bool


def check_masks(
    masks: Sequence[Mask], on_checked: Callable[[float], None] = lambda fraction: None
) -> list[MaskFacts]:
    """Check all masks, and refuse them all at once.

    Args:
        masks: the masks, each of an image that can be read.
        on_checked: called with the share of them that is checked.

    Raises:
        ImageError: for the first mask that cannot be used, with the number of the others.
    """
    facts, refused = [], list[str]()
    for count, mask in enumerate(masks, 1):
        try:
            facts.append(mask.check())
        except InputError as error:
            refused.append(str(error))
        on_checked(count / len(masks))
    if len(refused) > 1:
        others = f"{len(refused)} of {len(masks)} masks cannot be used; the first: "
        raise ImageError(others + refused[0])
    if refused:
        raise ImageError(refused[0])
    return facts


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels after EXIF rotation. Only its header is read.

    Raises:
        InputError: the image cannot be read.
    """
    width, height, orientation = _header(path)
    return (width, height) if orientation >= 5 else (height, width)


def _header(path: Path) -> tuple[int, int, int]:
    """Width and height of an image as it is stored, and its EXIF orientation, 1 to 8."""
    try:
        with open_regular(path) as file, open_image(file, str(path)) as image:
            width, height = image.size
            if image.format == "TIFF":  # of which Pillow tells the size when it is turned
                tags = image.tag_v2
                width, height = int(tags[256]), int(tags[257])
            with admitted(image, str(path)):  # Pillow decodes a PNG to find this out
                orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
            return width, height, orientation
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes are one shape at two scales, but for rounding to whole pixels."""
    small, large = sorted((one, other))
    return abs(small[0] * large[1] - small[1] * large[0]) <= max(large) / 2


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def _shows_the_image(file: Path, image: Path, marked: BoolArray) -> bool:
    """Whether a mask is its photograph, in any format, or one with few shades made of it.

    A mask follows the brightness of a bright defect on black, too, but has one shade there, and no
    speckles over much of the image.
    """
    mask, photograph = _thumbnail(file), _thumbnail(image)
    if mask is None or photograph is None or mask.std() == 0 or photograph.std() == 0:
        return False
    if np.abs(mask - photograph).mean() < 0.1 * photograph.std():
        return True
    alike = _correlation(mask, photograph)
    if alike < ALIKE or marked.mean() < LEAST_SPECKLED:
        return False
    from scipy.ndimage import label

    if label(marked)[1] >= MOST_REGIONS:
        return True
    within = mask > 0
    shaded = float((within & (mask < mask.max())).mean()) > LEAST_SPECKLED
    return shaded and _correlation(mask[within], photograph[within]) > ALIKE


def _correlation(one: Float64Array, other: Float64Array) -> float:
    """The absolute correlation of two arrays; 0 where one is constant."""
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]))


def _thumbnail(path: Path) -> Float64Array | None:
    """The brightness of an image on a small grid, up to 255; None for a damaged one."""
    try:
        with (
            open_regular(path) as file,
            open_image(file, str(path)) as image,
            admitted(image, str(path)),
        ):
            turned = ImageOps.exif_transpose(image)
            deep = turned.mode == "F" or turned.mode.startswith("I")
            grey = np.asarray(turned if deep else turned.convert("L"), dtype=np.float32)
    except Exception:  # of many types; scoring will say what is wrong with the image
        return None
    if deep and grey.max() > 0:
        grey = grey * np.float32(255 / grey.max())
    small = Image.fromarray(grey).resize((_GRID, _GRID), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)
