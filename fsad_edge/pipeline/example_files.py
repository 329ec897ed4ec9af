"""The files that are given as examples of good and bad parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import ImageError, InputError
from fsad_edge.pipeline.shot_folder import check_no_data_set, check_only_defects
from fsad_edge.runtime.files import folder_and_name, read_bytes
from fsad_edge.runtime.folders import Reason, Skipped, classify, describe, find_images

#: The most examples that are taken at a time, and the most bytes of them: they are held in memory.
MOST_EXAMPLES, MOST_BYTES = 1000, 2**30


@dataclass(frozen=True)
class ExampleFiles:
    """Encoded images of good and bad parts with their names.

    Attributes:
        good: names and encoded images of good parts.
        bad: those of bad parts.
        skipped: what was skipped in the folders.
    """

    good: list[tuple[str, bytes]]
    bad: list[tuple[str, bytes]]
    skipped: list[Skipped]


def read_examples(
    good: Sequence[Path], bad: Sequence[Path], skip_unreadable: bool = False
) -> ExampleFiles:
    """Read examples; folders are read with the folders in them.

    Args:
        good: files and folders of good parts.
        bad: those of bad parts.
        skip_unreadable: leave out what is or may be a photograph of a kind that is not read.

    Raises:
        InputError: a folder cannot be opened, holds no image or parts of the other kind, there are
            too many images, or one would be left out and ``skip_unreadable`` is not set.
        ImageError: a file cannot be read.

    Example:
        >>> tested = Path(dataset) / "test"
        >>> found = read_examples([tested / "good"], [tested / "scratch"])
        >>> len(found.good), len(found.bad), found.skipped
        (3, 2, [])
    """
    skipped: list[Skipped] = []
    paths = [_collect(good, check_no_data_set, skipped), _collect(bad, check_only_defects, skipped)]
    unseen = [one for one in skipped if one.unseen]
    if unseen and not skip_unreadable:
        raise InputError(
            f"some examples were not looked at ({describe(unseen)}): convert them, or add "
            "--skip-unreadable (skip_unreadable=True in Python) if that is meant."
        )
    count = sum(map(len, paths))
    size = sum(os.path.getsize(path) for some in paths for path in some if path.is_file())
    if count > MOST_EXAMPLES or size > MOST_BYTES:
        raise InputError(
            f"{count} examples of {size / 2**20:.0f} MiB are more than are taken at a time, "
            f"{MOST_EXAMPLES} of {MOST_BYTES // 2**20} MiB: give fewer of them, or set the "
            "threshold that  fsad-edge eval  prints for all of them."
        )
    taken = [
        [(folder_and_name(path), read_bytes(path, ImageError)) for path in some] for some in paths
    ]
    return ExampleFiles(taken[0], taken[1], skipped)


def _collect(
    given: Sequence[Path], check: Callable[[Path], None], skipped: list[Skipped]
) -> list[Path]:
    """The image files among files and folders, each once; ``skipped`` gets the others."""
    images: list[Path] = []
    for path in given:
        if os.path.isdir(path):
            check(path)
            found = find_images(path)
            images += found.images
            skipped += found.skipped
        elif os.path.isfile(path) and classify(path) is Reason.OWN:
            skipped.append(Skipped(path, Reason.OWN))
        else:
            images.append(path)
    return list(dict.fromkeys(images))
