"""Labelled test images in folders, with their masks.

part/test/good/000.png                       an image without a defect
part/test/scratch/000.png                    an image with a defect of the kind 'scratch'
part/ground_truth/scratch/000_mask.png       its mask, optional

This is the layout of MVTec AD. Others are read, too: see :mod:`fsad_edge.evaluation.layouts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from fsad_edge.errors import InputError
from fsad_edge.evaluation.layouts import Layout, find_layout, relative
from fsad_edge.evaluation.mask_match import MASK_FOLDERS, is_beside_its_image, match
from fsad_edge.evaluation.mask_pixels import has_few_values
from fsad_edge.evaluation.masks import Mask, check_masks, image_size
from fsad_edge.options import MaskMeaning, to_choice
from fsad_edge.runtime.folders import Reason, Skipped, describe, find_images, walk

#: Paths that a note names; it counts the others.
_NAMED = 3


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        path: the image file.
        defect: the kind of defect; None for a good part.
        mask: what marks the defect; None if the image has no mask or an empty one.
    """

    path: Path
    defect: str | None
    mask: Mask | None = None


@dataclass(frozen=True)
class Dataset:
    """The test images of a dataset, and how its folders were understood.

    Attributes:
        samples: the good images first, then those of each kind of defect.
        folder: the dataset.
        layout: which of its folders was taken for what.
        empty_masks: images with a defect whose mask marks nothing; they count as without a mask.
        scaled_masks: images whose mask has another size than the image.
        turned_masks: images with a mask and an EXIF rotation; the mask is taken as drawn on the
            turned image.
        unmatched_masks: masks that belong to no image.
        unlabelled: images beside the folders of the kinds, which have no label.
        skipped: other entries of the folders, with the reason.
    """

    samples: list[Sample]
    folder: Path
    layout: Layout
    empty_masks: tuple[Path, ...] = ()
    scaled_masks: tuple[Path, ...] = ()
    turned_masks: tuple[Path, ...] = ()
    unmatched_masks: tuple[Path, ...] = ()
    unlabelled: tuple[Path, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def notes(self) -> list[str]:
        """Sentences that say how the folders were read, which masks were used and what was not."""
        defective = [sample for sample in self.samples if sample.defect is not None]
        masked = sum(sample.mask is not None for sample in defective)
        sentences = [f"Read as: {self.layout.describe(self.folder)}."]
        if defective:
            sentences.append(f"{masked} of {len(defective)} images with a defect had a mask.")
        for paths, what in (
            (self.empty_masks, "Images with a defect whose mask is empty, which counts as none"),
            (self.scaled_masks, "Images whose mask was resized to their size"),
            (
                self.turned_masks,
                "Images that EXIF turns; the mask was read as lying as they do then",
            ),
            (self.unmatched_masks, "Masks that belong to no image"),
            (self.unlabelled, "Images in no folder of a kind, which were not scored"),
        ):
            if paths:
                sentences.append(f"{what}: {len(paths)} ({self._names(paths)}).")
        if self.skipped:
            sentences.append(f"{describe(self.skipped)}.")
        return sentences

    def _names(self, paths: Sequence[Path]) -> str:
        """The first paths, as seen from the dataset, and how many more there are."""
        names = [relative(path, self.folder) for path in paths[:_NAMED]]
        more = len(paths) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")


def read_dataset(
    folder: Path,
    masks: Collection[MaskMeaning | str] = (),
    on_checked: Callable[[float], None] = lambda fraction: None,
) -> Dataset:
    """Find the test images of a dataset and check all masks.

    A dataset without defects is accepted, because it still shows the false alarm rate.

    Args:
        folder: the dataset, or its ``test`` folder.
        masks: how masks are meant that would be refused otherwise.
        on_checked: called with the share of the masks that is checked.

    Raises:
        InputError: no folder of good images is found, a folder holds no image, a label is not
            clear, or a mask cannot be used.
    """
    meanings = frozenset(to_choice(MaskMeaning, one, "meaning of masks") for one in masks)
    layout = find_layout(folder)
    kinds = {kind: _read_kind(kind) for kind in (layout.good, *layout.defects)}
    mask_places = {mask: place for found in kinds.values() for mask, place in found.masks.items()}
    skipped = [one for found in kinds.values() for one in found.skipped]
    for entry in walk(layout.masks) if layout.masks else ():
        if isinstance(entry, Skipped):
            skipped.append(entry)
        elif layout.masks:
            mask_places[entry] = entry.relative_to(layout.masks)
    beside = list(walk(layout.root, recursive=False))
    skipped += [
        entry
        for entry in beside
        if isinstance(entry, Skipped)
        and (entry.reason is not Reason.SUBFOLDER or entry.path in layout.left_out)
    ]
    images = {
        path: path.relative_to(layout.root) for kind in kinds.values() for path in kind.images
    }
    matches = match(images, mask_places, layout.good.name)
    samples = [
        Sample(
            path,
            None if kind == layout.good else kind.name,
            Mask(matches.files[path], path, meanings) if path in matches.files else None,
        )
        for kind, found in kinds.items()
        for path in found.images
    ]
    dataset = Dataset(
        samples,
        folder,
        layout,
        unmatched_masks=tuple(matches.unmatched),
        unlabelled=tuple(sorted(entry for entry in beside if isinstance(entry, Path))),
        skipped=tuple(sorted(skipped, key=lambda one: one.path)),
    )
    return _check(dataset, on_checked)


@dataclass(frozen=True)
class _Kind:
    """What one folder of images holds: images, and masks with the place of their image."""

    images: list[Path]
    masks: dict[Path, PurePath]
    skipped: list[Skipped]


def _read_kind(folder: Path) -> _Kind:
    """Read the folder of one kind; masks are beside their images or in a folder of their own."""
    found = find_images(folder)
    images, masks = list[Path](), dict[Path, PurePath]()
    stems: dict[Path, set[str]] = {}
    for path in found.images:
        stems.setdefault(path.parent, set()).add(path.stem.lower())
    for path in found.images:
        place = path.relative_to(folder.parent)
        parts = [part for part in place.parts[1:-1] if part.lower() not in MASK_FOLDERS]
        in_folder = len(parts) < len(place.parts) - 2
        if in_folder or is_beside_its_image(path, stems[path.parent]):
            masks[path] = PurePath(folder.name, *parts, path.name)
        else:
            images.append(path)
    if not images:
        raise InputError(f"{folder} holds no image, but only masks: put its images there.")
    _refuse_unnamed_masks(images)
    return _Kind(images, masks, found.skipped)


def _refuse_unnamed_masks(images: list[Path]) -> None:
    """Refuse a mask beside its image that has the same name but for the suffix."""
    counts = Counter(path.with_suffix("") for path in images)
    twins = [path for path in images if counts[path.with_suffix("")] > 1]
    for path in twins:
        if has_few_values(path):
            other = next(
                one for one in twins if one != path and one.with_suffix("") == path.with_suffix("")
            )
            raise InputError(
                f"{path} looks like the mask of {other.name} beside it: name it "
                f"{path.stem}_mask{path.suffix}, or put masks into a folder ground_truth."
            )


def _check(dataset: Dataset, on_checked: Callable[[float], None]) -> Dataset:
    """Check all masks of images that can be read; scoring will name the others."""
    masked = [sample for sample in dataset.samples if sample.mask and _has_size(sample.path)]
    masks = [sample.mask for sample in masked if sample.mask]
    facts = dict(
        zip([sample.path for sample in masked], check_masks(masks, on_checked), strict=True)
    )
    for sample in masked:
        if sample.defect is None and not facts[sample.path].empty:
            assert sample.mask is not None
            raise InputError(
                f"{sample.path} is among the good images, but its mask {sample.mask.files[0]} "
                "marks a defect: move the image to the folder of its kind of defect, or remove "
                "the mask."
            )
    empty = {path for path, fact in facts.items() if fact.empty}
    samples = [
        replace(sample, mask=None) if sample.path in empty else sample for sample in dataset.samples
    ]
    return replace(
        dataset,
        samples=samples,
        empty_masks=tuple(s.path for s in masked if s.defect and facts[s.path].empty),
        scaled_masks=tuple(path for path, fact in facts.items() if fact.scaled),
        turned_masks=tuple(path for path, fact in facts.items() if fact.turned),
    )


def _has_size(path: Path) -> bool:
    try:
        image_size(path)
    except InputError:
        return False
    return True
