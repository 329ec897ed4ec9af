"""Images of a data set that a model knows: they say nothing of what it makes of other parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.learning.journal import Entry, Role
from fsad_edge.runtime.files import folder_and_name, read_bytes, sha256
from fsad_edge.runtime.metadata import Metadata

#: File names that the sentence lists.
NAMED = 5

#: How a known image is known, one and several of them.
_WORDS = {
    "shot": ("shot or learned before the export", "shots or learned before the export"),
    Role.NORMAL: ("learned as good", "learned as good"),
    Role.REJECTED: ("called bad", "called bad"),
    "example": ("example", "examples"),
}


@dataclass(frozen=True)
class KnownImage:
    """An image that a model knows.

    Attributes:
        path: its file.
        known_as: ``shot`` (or learned before the file was exported), ``normal`` (learned as good),
            ``rejected`` (called bad) or ``example``.
    """

    path: Path
    known_as: str


def find_known(
    images: Iterable[Path], metadata: Metadata, taught: Sequence[Entry]
) -> list[KnownImage]:
    """The images that a model was made from, was taught, or was given as examples.

    Args:
        images: the files; one that cannot be read is not known.
        metadata: of the model.
        taught: what was taught to it on this device and counts.
    """
    known: dict[str, str] = dict.fromkeys(metadata.examples, "example")
    for entry in taught:
        in_bank = entry.role in {Role.NORMAL, Role.REJECTED}
        if in_bank or entry.sha256 not in known:
            known[entry.sha256] = str(entry.role) if in_bank else "example"
    known |= dict.fromkeys(metadata.rejected, str(Role.REJECTED))
    known |= dict.fromkeys(metadata.shots.sha256, "shot")
    found = ((image, known.get(_sha256(image))) for image in images)
    return [KnownImage(image, how) for image, how in found if how is not None]


def describe_known(known: Sequence[KnownImage]) -> str:
    """The sentence on known images that are left out of figures; there is at least one."""
    counts = Counter(one.known_as for one in known)
    kinds = [
        f"{counts[how]} {one if counts[how] == 1 else more}"
        for how, (one, more) in _WORDS.items()
        if counts[how]
    ]
    names = [folder_and_name(one.path) for one in known[:NAMED]]
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    left = "1 image is" if len(known) == 1 else f"{len(known)} images are"
    return (
        f"{left} left out of the figures, because the model knows "
        f"{'it' if len(known) == 1 else 'them'} ({', '.join(kinds)}): {', '.join(names)}{more}."
    )


def _sha256(image: Path) -> str:
    try:
        return sha256(read_bytes(image))
    except InputError:  # scoring says so
        return ""
