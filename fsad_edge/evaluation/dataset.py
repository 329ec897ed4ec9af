"""Labelled test images in folders, with their masks.

part/test/good/000.png                       an image without a defect
part/test/scratch/000.png                    an image with a defect of the kind 'scratch'
part/ground_truth/scratch/000_mask.png       its mask, optional

This is the layout of MVTec AD. Others are read, too: see :mod:`fsad_edge.evaluation.layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from fsad_edge.errors import InputError, needs_extra
from fsad_edge.evaluation.layouts import Layout, find_layout, relative
from fsad_edge.evaluation.mask_looks import is_mostly_black, looks_like_mask
from fsad_edge.evaluation.mask_match import (
    MASK_FOLDERS,
    Matches,
    by_stem,
    is_beside_its_image,
    match,
    may_hold_masks,
    may_own,
    owner_of,
)
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
        MissingExtraError: there are masks, and scipy is not installed.
    """
    if isinstance(masks, str) or not isinstance(masks, Collection):
        raise InputError(f"masks takes a list of words, such as ['large'], not {masks!r}.")
    meanings = frozenset(to_choice(MaskMeaning, one, "meaning of masks") for one in masks)
    layout = find_layout(folder)
    kinds = {kind: _read_kind(kind) for kind in (layout.good, *layout.defects)}
    _sort_out_masks(kinds, layout.good)
    mask_places = {mask: place for found in kinds.values() for mask, place in found.masks.items()}
    skipped = [one for found in kinds.values() for one in found.skipped]
    for entry in walk(layout.masks) if layout.masks else ():
        if isinstance(entry, Skipped):
            skipped.append(entry)
        elif layout.masks:
            mask_places[entry] = entry.relative_to(layout.masks)
    beside = list(walk(layout.root, recursive=False))
    for entry in beside:
        if not isinstance(entry, Skipped):
            continue
        if entry.path in layout.own:
            skipped += [one for one in walk(entry.path) if isinstance(one, Skipped)]
        elif entry.reason is not Reason.SUBFOLDER or entry.path in layout.left_out:
            skipped.append(entry)
    images = {
        path: path.relative_to(layout.root) for kind in kinds.values() for path in kind.images
    }
    matches = match(images, mask_places, layout.good.name)
    _check_mask_folder(layout, matches)
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
        folders = place.parts[1:-1]
        known = any(part.lower() in MASK_FOLDERS for part in folders)
        named = any(may_hold_masks(part) for part in folders)
        in_folder = known or (named and looks_like_mask(path, or_empty=True))
        is_masks = may_hold_masks if in_folder and not known else MASK_FOLDERS.__contains__
        parts = [part for part in folders if not is_masks(part.lower())]
        if in_folder or is_beside_its_image(path, stems[path.parent]):
            masks[path] = PurePath(folder.name, *parts, path.name)
        else:
            images.append(path)
    if not images:
        raise InputError(f"{folder} holds no image, but only masks: put its images there.")
    return _Kind(images, masks, found.skipped)


def _check_mask_folder(layout: Layout, matches: Matches) -> None:
    """Refuse a folder that was taken for one of masks by its looks, if no mask has an image."""
    folder = layout.masks
    if folder is None or folder.name.lower() in MASK_FOLDERS:
        return
    if not any(file.is_relative_to(folder) for files in matches.files.values() for file in files):
        raise InputError(
            f"the images in {folder} look like masks, and none has the name of an image: name them "
            "as their images, or name the folder otherwise if it holds photographs of a defect."
        )


def _sort_out_masks(kinds: dict[Path, _Kind], good: Path) -> None:
    """Move masks that lie among the images to the masks.

    Where most good photographs look like masks themselves, looks tell nothing, and where they are
    mostly black, bright shades on black are no sign of a mask.

    Raises:
        InputError: an image looks like a mask, and its name does not say of which image.
    """
    of_good = kinds[good].images
    if sum(looks_like_mask(path) for path in of_good) > len(of_good) / 2:
        return
    shades = sum(is_mostly_black(path) for path in of_good) <= len(of_good) / 2
    found = {
        kind: [path for path in kinds[kind].images if looks_like_mask(path, shades=shades)]
        for kind in kinds
    }
    unclear: list[Path] = []
    for kind, paths in found.items():
        drawn, moved = set(paths), set[Path]()
        photographs = by_stem(path for path in kinds[kind].images if path not in drawn)
        for path in paths:
            if owner := owner_of(path, may_own(path, photographs)):
                moved.add(path)
                place = path.with_stem(owner.stem).relative_to(kind.parent)
                kinds[kind].masks[path] = PurePath(place)
            else:
                unclear.append(path)
        kinds[kind].images[:] = [path for path in kinds[kind].images if path not in moved]
    if unclear:
        raise InputError(_unclear(unclear, kinds, good))


def _unclear(unclear: list[Path], kinds: dict[Path, _Kind], good: Path) -> str:
    """Say what to do about images that look like masks."""
    path, more = unclear[0], len(unclear) - 1
    beside = [one for kind in kinds.values() for one in kind.images if one.parent == path.parent]
    twin = next((one for one in beside if one != path and one.stem == path.stem), None)
    looks = f"the mask of {twin.name} beside it" if twin else "a mask"
    others = f", and so do {more} others" if more > 1 else ", and so does 1 other" if more else ""
    name = twin.stem if twin else "IMAGE"
    return (
        f"{path} looks like {looks}, and not like the photographs in {good}{others}: name it "
        f"{name}_mask{path.suffix}, or put masks into a folder ground_truth. If it is a "
        "photograph, take it out of the dataset."
    )


def _check(dataset: Dataset, on_checked: Callable[[float], None]) -> Dataset:
    """Check all masks of images that can be read; scoring will name the others."""
    masked = [sample for sample in dataset.samples if sample.mask and _has_size(sample.path)]
    masks = [sample.mask for sample in masked if sample.mask]
    if masks:
        with needs_extra("eval"):
            import scipy.ndimage  # noqa: F401  (masks need it, images without masks do not)
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
