"""What is refused when an image is called good or bad, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fsad_edge.errors import InputError, NotNormalError
from fsad_edge.learning.examples import title
from fsad_edge.learning.journal import Entry, Role
from fsad_edge.learning.novelty import Novelty
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.judgement import Reason
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.photograph import PhotographCheck, same_photograph

#: An image that scores above this many times the threshold is taken for a defect.
DEFECT_RATIO = 1.5


def check_score_kind(metadata: Metadata) -> None:
    """Refuse to teach images to a model that decides by the image score.

    Raises:
        InputError: it does.
    """
    if metadata.score is not ScoreKind.PATCH:
        raise InputError(
            f"{metadata.name} decides by the image score, which cannot learn on a device: run  "
            "fsad-edge finetune  with this image among the shots."
        )


def find_entry(active: Sequence[Entry], digest: str, *roles: Role) -> Entry | None:
    """The entry of an image in one of some roles, by its content; None where there is none."""
    found = (entry for entry in active if entry.sha256 == digest and entry.role in roles)
    return next(found, None)


def check_other_side(metadata: Metadata, active: Sequence[Entry], digest: str, good: bool) -> None:
    """Refuse an image that was called the opposite.

    Args:
        metadata: of the model.
        active: the images that are kept.
        digest: SHA-256 of the image.
        good: whether it is called good now.

    Raises:
        InputError: it was.
    """
    known = find_entry(active, digest, *(role for role in Role if role.is_good is not good))
    if known is not None:
        called = "bad" if good else "good"
        raise InputError(
            f"the image was called {called}, as {title(known)}: undo {known.id} first."
        )
    if good and digest in metadata.rejected:
        raise InputError(
            "the image was called bad before this file was exported, which holds its patches: undo "
            "it where that was done, and export the file again."
        )
    if not good and digest in metadata.shots.sha256:
        raise InputError(
            "the image is one of the shots that the model was made from: run  fsad-edge finetune  "
            "again without it."
        )


def check_unknown(metadata: Metadata, active: Sequence[Entry], digest: str) -> None:
    """Refuse an image that is learned already or one of the shots, by its content.

    Raises:
        NotNormalError: it is.
    """
    if known := find_entry(active, digest, Role.NORMAL):
        raise NotNormalError(
            f"the image is learned already, as {title(known)}: force it to learn it twice."
        )
    if digest in metadata.shots.sha256:
        raise NotNormalError(
            "the image is one of the shots that the model was made from: force it to learn it all "
            "the same."
        )


def check_not_rejected(metadata: Metadata, active: Sequence[Entry], digest: str) -> None:
    """Refuse an image whose patches are rejected already, by its content.

    Raises:
        NotNormalError: they are.
    """
    if known := find_entry(active, digest, Role.REJECTED):
        raise NotNormalError(
            f"the image is called bad already, as {title(known)}: force it to do it twice."
        )
    if digest in metadata.rejected:
        raise NotNormalError(
            "the image was called bad before this file was exported, which holds its patches: "
            "force it to do it twice."
        )


def check_judged(reasons: Sequence[Reason], good: bool) -> None:
    """Refuse an image that is not judged: it says nothing of how parts look.

    Args:
        reasons: why it is not judged.
        good: it is called good, and not bad.

    Raises:
        NotNormalError: it is not judged.
    """
    if reasons:
        said = "; ".join(reason.text for reason in reasons)
        raise NotNormalError(
            f"the image is not judged ({said}): force it if it is a "
            f"{'good' if good else 'bad'} part all the same."
        )


def check_normal(metadata: Metadata, prepared: UInt8Array, score: float, threshold: float) -> None:
    """Refuse an image that scores like a defect or is no good photograph.

    Raises:
        NotNormalError: it does, or is not.
    """
    faults = []
    if score > DEFECT_RATIO * threshold:
        times = f"{score / threshold:.1f} times the threshold"
        faults.append(f"the image scores {times}, as defects do")
    if flags := PhotographCheck(metadata.appearance).check(prepared):
        faults.append(f"the photograph is {' and '.join(flags)} compared with the shots")
    if faults:
        raise NotNormalError(f"{', and '.join(faults)}: force it if it is good all the same.")


def check_new(
    metadata: Metadata,
    normals: Sequence[Entry],
    fingerprints: Mapping[int, UInt8Array],
    novelty: Novelty,
) -> None:
    """Refuse a photograph that is learned already or one of the shots, in another format.

    Raises:
        NotNormalError: it is.
    """
    for entry in normals:
        if same_photograph(novelty.fingerprint, fingerprints[entry.id]):
            raise NotNormalError(
                "the image is nearly the same photograph as one that is learned already, "
                f"{title(entry)}: force it if it shows another part."
            )
    for shot in metadata.appearance.fingerprints:
        if same_photograph(novelty.fingerprint, np.frombuffer(shot, np.uint8)):
            raise NotNormalError(
                "the image is nearly the same photograph as one of the shots: force it if it "
                "shows another part."
            )
