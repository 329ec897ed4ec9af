"""Score image files and draw their heat maps: the work of ``fsad-edge score``."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsad_edge.errors import FsadEdgeError, ImageError, InputError
from fsad_edge.options import Decision, Doubt, HeatScale
from fsad_edge.runtime.files import folder_and_name, make_folder, write_bytes
from fsad_edge.runtime.folders import Reason, Skipped, classify, find_images
from fsad_edge.runtime.found_regions import Region, region_document
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.region_words import describe_others, describe_regions

if TYPE_CHECKING:
    from PIL import Image

    from fsad_edge.runtime.images import ImagePage
    from fsad_edge.runtime.model import Model, Result
    from fsad_edge.twin import Twin


#: The end of a heat map's name, after the name of its image; and of that of its twins' picture.
HEATMAP, WHY = ".heatmap.png", ".why.png"

#: Bytes of the longest name of a file.
LONGEST_NAME = 255

#: Pixels of the longer side of the photograph beside twins.
MOST_SHOWN = 960


@dataclass(frozen=True)
class ScoredFile:
    """The result of one image file, rounded for a table. Numbers are None if it cannot be read.

    Attributes:
        image: path of the file.
        score: the score, to 6 decimals.
        ratio: score over threshold, to 4 decimals; 1.0 is the boundary.
        decision: the decision.
        good: whether the part may pass: the decision is ``good``, and nothing else.
        doubts: why the image is not judged; empty where it is.
        reasons: the same in sentences.
        image_score: distance of the whole image from the shots, to 4 decimals.
        place_score: the place score, to 6 decimals; None where the model compares no places.
        place_ratio: place score over threshold, to 4 decimals.
        out_of_place: what the place score says of an anomalous image; None where it says nothing.
        ms: milliseconds for decoding, resizing and scoring.
        error: why the image cannot be read; None if it can.
        heatmap_error: why its heat map cannot be written; None if it can, or none was asked for.
        width, height: of the photograph as it is seen, pixels; None if it cannot be read.
        regions: where the map is above its threshold, highest peak first.
        more_regions: how many regions there are that are not listed.
        mm_per_px: millimetres that a pixel of the photograph shows; None where it is not known.
        twins: what the regions of a reject differ in from the shots, where that was asked for.
        why_error: why that cannot be told or drawn; None if it can.
    """

    image: str
    score: float | None
    ratio: float | None
    decision: Decision
    good: bool
    doubts: tuple[Doubt, ...]
    reasons: tuple[str, ...]
    image_score: float | None
    ms: float | None
    error: str | None
    heatmap_error: str | None = None
    width: int | None = None
    height: int | None = None
    regions: tuple[Region, ...] = ()
    more_regions: int = 0
    mm_per_px: float | None = None
    twins: tuple[Twin, ...] = ()
    why_error: str | None = None
    place_score: float | None = None
    place_ratio: float | None = None
    out_of_place: str | None = None

    @property
    def sentences(self) -> str:
        """What the twins say, for a line of text, and how many regions have none; empty where
        nobody asked."""
        said = [f"{one.region.number}: {one.sentence}" for one in self.twins]
        others = describe_others(len(self.regions) - len(self.twins) + self.more_regions)
        return " ".join([*said, others] if said and others else said)

    @property
    def region_words(self) -> str:
        """The regions for a line of text; empty where there is none."""
        return describe_regions(self.regions, self.more_regions, self.mm_per_px)

    def as_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        from fsad_edge.twin import twin_document

        regions = [region_document(region, self.mm_per_px) for region in self.regions]
        twins = [twin_document(one) for one in self.twins]
        return {**vars(self), "regions": regions, "twins": twins}


@dataclass(frozen=True)
class Collected:
    """The image files that were asked for, and what was skipped in their folders.

    Attributes:
        images: each file once, with a unique path for its heat map: folders may share file names.
        skipped: entries that were not taken, each once.
    """

    images: dict[Path, Path]
    skipped: list[Skipped]


def collect_images(given: Sequence[Path]) -> Collected:
    """List image files and the images of folders, at any depth.

    A file that was named is taken whatever its suffix, unless this project drew it.

    Raises:
        InputError: a folder cannot be opened or holds no image.
    """
    wanted: dict[Path, Path] = {}
    roots: dict[Path, str] = {}
    skipped: list[Skipped] = []
    for path in given:
        if os.path.isdir(path):
            found = find_images(path)
            inside = {image: image.relative_to(path) for image in found.images}
            root = path
            skipped += found.skipped
        elif os.path.isfile(path) and classify(path) is Reason.OWN:
            skipped.append(Skipped(path, Reason.OWN))
            continue
        else:
            inside, root = {path: Path(path.name)}, path.parent
        for image, name in inside.items():
            roots.setdefault(image, os.path.basename(os.path.abspath(root)))
            wanted.setdefault(image, name)
    once = {one.path: one for one in skipped}  # a folder may be given twice
    return Collected(_distinct_names(wanted, roots), list(once.values()))


def _distinct_names(wanted: dict[Path, Path], roots: dict[Path, str]) -> dict[Path, Path]:
    """A path for the heat map of each image; those that would share one get their folder's name.

    Args:
        wanted: for each image its path in the folder that was given, or its file name.
        roots: for each image the name of that folder, or of the one that holds the file.
    """
    sharing = Counter(wanted.values())
    names: dict[Path, Path] = {}
    taken: set[Path] = set()
    last: dict[Path, int] = {}  # the number that the last image of a name got
    for image, name in wanted.items():
        first = Path(roots[image]) / name if sharing[name] > 1 else name
        number, free = last.get(first, 1), first
        while free in taken:
            number += 1
            free = first.with_name(f"{first.stem}_{number}{first.suffix}")
        names[image], last[first] = free, number
        taken.add(free)
    return names


def score_pages(
    model: Model,
    path: Path,
    heatmap: Path | None = None,
    colours: HeatScale = HeatScale.THRESHOLD,
    mm_per_px: float | None = None,
    why: Path | None = None,
) -> Iterator[ScoredFile]:
    """Score an image file. Each page of one with several is an image of its own: ``name.tif#2``.

    Args:
        model: a loaded model.
        path: the image file.
        heatmap: a PNG to write, as :func:`score_file` takes it; the number of a page comes into its
            name, too.
        colours: the colours of the heat map.
        mm_per_px: millimetres that a pixel of the photograph shows.
        why: a PNG to write where it is a reject, as ``heatmap`` is named.
    """
    from fsad_edge.runtime.images import ImagePage, find_pages

    try:
        pages = find_pages(path)
    except ImageError as error:
        yield _unread(str(path), error)
        return
    for page in pages:
        targets = heatmap, why
        if isinstance(page, ImagePage):
            targets = _of_page(heatmap, HEATMAP, page), _of_page(why, WHY, page)
        yield score_file(model, page, targets[0], colours, mm_per_px, targets[1])


def _of_page(target: Path | None, end: str, page: ImagePage) -> Path | None:
    """The picture of a page, named after that of its file."""
    if target is None:
        return None
    name = target.with_name(f"{target.name.removesuffix(end)}#{page.number}")
    return picture_beside(name, end)


def picture_beside(name: Path, end: str) -> Path:
    """The path of an image's picture: the image's name, with its suffix, and an end.

    A folder may hold part.jpg and part.png. Where the name would be longer than a file's name can
    be, it is shortened, and a hash of all of it tells it from others.

    Args:
        name: the image's name in the folder of the pictures.
        end: ``HEATMAP`` or ``WHY``.

    Example:
        >>> picture_beside(Path("maps/a.png"), HEATMAP).name
        'a.png.heatmap.png'
        >>> len(picture_beside(Path("maps") / ("a" * 250 + ".png"), HEATMAP).name)
        255
    """
    data, room = os.fsencode(name.name), LONGEST_NAME - len(end)
    if len(data) <= room:
        return name.with_name(f"{name.name}{end}")
    mark = f"~{hashlib.sha256(data).hexdigest()[:8]}"
    kept = data[: room - len(mark)].decode("utf-8", "ignore")
    return name.with_name(f"{kept}{mark}{end}")


def score_file(
    model: Model,
    path: Path | ImagePage,
    heatmap: Path | None = None,
    colours: HeatScale = HeatScale.THRESHOLD,
    mm_per_px: float | None = None,
    why: Path | None = None,
) -> ScoredFile:
    """Score one image. What cannot be read or drawn gets a row with the reason.

    Args:
        model: a loaded model.
        path: the image file, or a page of one.
        heatmap: a PNG to write, with the image and its anomaly map; None writes none.
        colours: the colours of the heat map.
        mm_per_px: millimetres that a pixel of the photograph shows.
        why: a PNG to write where it is a reject: its regions beside their twins; None finds none.
    """
    try:
        result = model.score(path)
    except ImageError as error:
        return _unread(str(path), error)
    heatmap_error = None
    if heatmap is not None:
        try:
            write_heatmap(heatmap, path, result, model.metadata.scale, colours, mm_per_px)
        # The score is worth more than its picture.
        except InputError as error:
            heatmap_error = str(error)
        except (MemoryError, ValueError, OSError) as error:
            heatmap_error = f"{heatmap} cannot be drawn: {str(error) or 'out of memory'}."
    twins: list[Twin] = []
    why_error = None
    if why is not None and result.anomalous and result.regions:
        from fsad_edge.twin import find_twins

        try:
            twins = find_twins(model, path, result.regions, mm_per_px)
            write_why(why, path, result, twins, model.metadata.scale)
        except FsadEdgeError as error:
            why_error = str(error)
        except (MemoryError, ValueError, OSError) as error:
            why_error = f"{why} cannot be drawn: {str(error) or 'out of memory'}."
    return ScoredFile(
        image=str(path),
        score=round(result.score, 6),
        ratio=round(result.ratio, 4),
        decision=result.decision,
        good=result.good,
        doubts=result.doubts,
        reasons=tuple(reason.text for reason in result.reasons),
        image_score=round(result.image_score, 4),
        width=result.size[0],
        height=result.size[1],
        regions=result.regions,
        more_regions=result.more_regions,
        mm_per_px=mm_per_px,
        ms=round(sum(result.timings.values()), 2),
        error=None,
        heatmap_error=heatmap_error,
        twins=tuple(twins),
        why_error=why_error,
        place_score=None if result.place_score is None else round(result.place_score, 6),
        place_ratio=None if result.place_ratio is None else round(result.place_ratio, 4),
        out_of_place=result.out_of_place,
    )


def _unread(image: str, error: ImageError) -> ScoredFile:
    return ScoredFile(
        image=image,
        score=None,
        ratio=None,
        decision=Decision.ERROR,
        good=False,
        doubts=(),
        reasons=(),
        image_score=None,
        ms=None,
        error=str(error),
    )


def write_heatmap(
    target: Path,
    image: Path | ImagePage,
    result: Result,
    scale: ImageScale = UNASKED,
    colours: HeatScale = HeatScale.THRESHOLD,
    mm_per_px: float | None = None,
) -> None:
    """Write a picture of an image and its anomaly map as a PNG; missing folders are created.

    Args:
        target: the PNG; only an older picture of this project is replaced.
        image: the image file, or a page of one.
        result: its result.
        scale: the model's, for images of more than 8 bits.
        colours: the colours of the heat map.
        mm_per_px: millimetres that a pixel of the photograph shows.

    Raises:
        InputError: the file cannot be written, or is none that this project drew.
        ImageError: the image cannot be read.
    """
    from fsad_edge.runtime.heatmap import describe, render
    from fsad_edge.runtime.images import load_image

    caption = describe(
        folder_and_name(str(image)),
        result.score,
        result.threshold,
        [reason.text for reason in result.reasons],
        describe_regions(result.regions, result.more_regions, mm_per_px),
        result.out_of_place,
    )
    picture = render(
        load_image(image, scale),
        result.anomaly_map,
        result.map_threshold,
        caption,
        result.decision,
        colours,
    )
    _write_own(target, picture)


def write_why(
    target: Path,
    image: Path | ImagePage,
    result: Result,
    twins: Sequence[Twin],
    scale: ImageScale = UNASKED,
) -> None:
    """Write a picture of a reject beside its twins; arguments and errors as :func:`write_heatmap`.

    Args:
        twins: of the image; at least one.
    """
    from fsad_edge.runtime.images import load_at_most
    from fsad_edge.twin.picture import Title, draw_twins

    small = load_at_most(image, MOST_SHOWN, scale)
    name = folder_and_name(str(image))
    told = [f"score {result.score:.4g}, {result.ratio:.2f} times the threshold"]
    if result.out_of_place:
        told.append(result.out_of_place)
    others = describe_others(len(result.regions) - len(twins) + result.more_regions)
    if others:
        told.append(others.removeprefix("and ") + " that the heat map shows")
    title = Title(result.decision, name, "; ".join(told))
    _write_own(target, draw_twins(small, result.size, twins, title))


def _write_own(target: Path, picture: Image.Image) -> None:
    """Write a picture that this project drew as a PNG."""
    from fsad_edge.runtime.own_pictures import check_own, marked

    make_folder(target.parent)
    check_own(target)
    buffer = io.BytesIO()
    # Level 3 takes half the time of the default, for a tenth more bytes.
    picture.save(buffer, "PNG", compress_level=3, **marked("PNG"))
    write_bytes(target, buffer.getvalue())
