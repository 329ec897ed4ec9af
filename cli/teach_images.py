"""Teaching images one after the other: what ``bank add`` and ``bank reject`` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsad_edge.cli.console import counted, fail, out, words_of
from fsad_edge.cli.learned_model import change_document, print_changes
from fsad_edge.errors import ImageError, NotNormalError
from fsad_edge.runtime.files import folder_and_name, read_bytes

if TYPE_CHECKING:
    from fsad_edge.learning.journal import Entry
    from fsad_edge.learning.learner import Learner
    from fsad_edge.learning.taught_elsewhere import LeftOut, TaughtElsewhere


@dataclass(frozen=True)
class Job:
    """One image to teach.

    Attributes:
        path: its file, for people.
        read: reads it.
        teach: teaches it.
    """

    path: Path
    read: Callable[[], bytes]
    teach: Callable[[Learner, bytes], Entry]


def jobs_of_files(
    paths: Sequence[Path], teach: Callable[[Learner, bytes, str], Entry]
) -> list[Job]:
    """Image files to teach; ``teach`` also gets the names of the folder and the file."""

    def with_name(name: str, learner: Learner, image: bytes) -> Entry:
        return teach(learner, image, name)

    return [
        Job(path, partial(read_bytes, path, ImageError), partial(with_name, folder_and_name(path)))
        for path in paths
    ]


def jobs_of_folders(
    learner: Learner, folders: Sequence[TaughtElsewhere], who: str | None, force: bool
) -> tuple[list[Job], list[LeftOut]]:
    """The images that other files were taught, to be taught as what they were there.

    Args:
        learner: of the model.
        folders: what the others were taught.
        who: the person; None keeps the names of those who taught the others.
        force: as of :meth:`Learner.add`.

    Returns:
        the images, and those that are left out.
    """
    from fsad_edge.learning.taught_elsewhere import teach_again, to_take_along

    def again(entry: Entry, learner: Learner, image: bytes) -> Entry:
        return teach_again(learner, entry, image, who or entry.who, force)

    wanted, left_out = to_take_along(folders, learner.entries())
    jobs = [
        Job(folder.image_path(entry), partial(folder.image, entry), partial(again, entry))
        for folder, entry in wanted
    ]
    return jobs, left_out


def teach(
    learner: Learner, jobs: Sequence[Job], quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Teach images; one that is refused leaves the others.

    Args:
        learner: of the model.
        jobs: the images.
        quiet: print what is refused alone.

    Returns:
        what was taught and what was not, for a JSON document.
    """
    done, refused = list[dict[str, Any]](), list[dict[str, str]]()
    for job in jobs:
        words = ""  # the error of a file that cannot be read names it
        try:
            image = job.read()
            words = f"{job.path}: "
            entry = job.teach(learner, image)
        except (ImageError, NotNormalError) as error:
            said = words_of(error)
            fail(f"{words}{said}")
            refused.append({"image": str(job.path), "error": said})
            continue
        done.append(_document(learner, job.path, entry))
        if not quiet:
            _print(learner, job.path, entry)
    return done, refused


def _document(learner: Learner, path: Path, entry: Entry) -> dict[str, Any]:
    after = next(one for one in learner.examples() if one.entry.id == entry.id)
    return {
        "image": str(path),
        **vars(entry),
        "threshold_after": after.threshold,
        "score_after": after.score,
        "decision_after": after.decision,
        "marked": _marked(learner, entry),
        "changes": [change_document(one) for one in learner.changes],
    }


def _marked(learner: Learner, entry: Entry) -> dict[str, Any] | None:
    """What calling an image bad did with its bad place, under the names of the service."""
    told = learner.rejection
    if told is None or told.entry.id != entry.id:
        return None
    return {
        "place": told.place,
        "box": told.marked,
        "patches": entry.rows,
        "ratio_before": told.place_before,
        "ratio_after": told.place_after,
        "effect": told.effect,
        "message": told.message,
    }


def _print(learner: Learner, path: Path, entry: Entry) -> None:
    from fsad_edge.learning.journal import Role

    after = next(one for one in learner.examples() if one.entry.id == entry.id)
    ratio = f"{entry.score / entry.threshold:.2f}"
    rows = counted(entry.rows, "row")
    now = f"{after.score / after.threshold:.2f}, {after.decision.words}"
    if entry.role is Role.NORMAL:
        words = f"learned {path} as {entry.id}: ratio {ratio}, {rows}; now {now}"
    elif entry.role is not Role.REJECTED:
        words = f"kept {path} as {entry.id}, an example of a {entry.role} part: ratio {now}"
    else:
        told = learner.rejection
        words = f"called {path} bad as {entry.id}: ratio {ratio}; now {now}"
        if told is not None and told.entry.id == entry.id:
            words += f". {told.message}"
    out.print(words)
    print_changes(learner.changes)
