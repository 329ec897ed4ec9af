"""Labelled test images in the folder layout of MVTec AD.

part/test/good/000.png                       an image without a defect
part/test/scratch/000.png                    an image with a defect of the kind 'scratch'
part/ground_truth/scratch/000_mask.png       its mask, optional; 000.png is also found
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import BoolArray
from fsad_edge.runtime.folders import find_images
from fsad_edge.runtime.images import load_image

GOOD, TEST, GROUND_TRUTH = "good", "test", "ground_truth"


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        path: the image file.
        defect: the kind of defect; None for a good part.
        mask: the image file that marks the defect; None if the image has no mask.
    """

    path: Path
    defect: str | None
    mask: Path | None = None


def read_dataset(folder: Path) -> list[Sample]:
    """List the test images of a dataset: the good ones first, then those of each kind of defect.

    A dataset without defects is accepted, because it still shows the false alarm rate.

    Args:
        folder: the dataset, or its ``test`` folder.

    Raises:
        InputError: the folder or its ``test/good`` does not exist, or a folder holds no image.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: give a dataset with test/good in it.")
    test = folder / TEST if (folder / TEST).is_dir() else folder
    if not (test / GOOD).is_dir():
        raise InputError(
            f"{folder} has no folder {TEST}/{GOOD}: put good test images there, and images of each "
            f"kind of defect into {TEST}/DEFECT."
        )
    samples = [Sample(path, None) for path in find_images(test / GOOD).images]
    masks = _mask_folder(folder, test)
    for kind in sorted(test.iterdir()):
        if kind.name in {GOOD, GROUND_TRUTH} or kind.name.startswith(".") or not kind.is_dir():
            continue
        for path in find_images(kind).images:
            samples.append(Sample(path, kind.name, _find_mask(masks, path.relative_to(test))))
    return samples


def load_mask(path: Path) -> BoolArray:
    """Read a mask: bool ``[H, W]``, True on the defect.

    Pixels of at least half the brightest pixel's value are the defect. This rule reads masks of 0
    and 1, masks of 0 and 255, and masks with soft or JPEG-compressed edges correctly.

    Raises:
        ImageError: the mask cannot be read.
    """
    grey = load_image(path).max(axis=2)
    # Without the lower limit of 1, every pixel of an empty mask would be a defect.
    mask: BoolArray = grey >= max(1.0, float(grey.max()) / 2)
    return mask


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels after EXIF rotation. Only its header is read.

    Raises:
        InputError: the image cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            rotated = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    return (width, height) if rotated else (height, width)


def _mask_folder(folder: Path, test: Path) -> Path | None:
    """The folder of masks: next to the test folder as in MVTec AD, or inside the given folder."""
    for parent in (test.parent if test.name == TEST else folder, folder):
        if (parent / GROUND_TRUTH).is_dir():
            return parent / GROUND_TRUTH
    return None


def _find_mask(masks: Path | None, image: Path) -> Path | None:
    if masks is None:
        return None
    for name in (f"{image.stem}_mask.png", f"{image.stem}.png"):
        mask = masks / image.parent / name
        if mask.is_file():
            return mask
    return None
