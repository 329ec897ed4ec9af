"""The user's normal images looked at as a set, before they are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fsad_edge.calibration.batches import BATCH_ON_CUDA
from fsad_edge.calibration.calibrate import Calibration
from fsad_edge.calibration.threshold import ENOUGH_SHOTS
from fsad_edge.errors import InputError
from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.candidates import encoders_to_try, shapes_to_try
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.pipeline.part_encoder import pretrained, strides_of
from fsad_edge.pipeline.same_photograph import find_same
from fsad_edge.pipeline.shot_outliers import (
    FEWEST,
    TWO_APART,
    Unlike,
    features_of,
    find_unlike,
    nearest_patches,
    part_distances,
)
from fsad_edge.pipeline.where_it_ran import provider_for
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.files import folder_and_name
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.metadata import ShotFinding, ShotProblem
from fsad_edge.runtime.photograph import Quality, flags_among, image_quality
from fsad_edge.synthesis import Shot, load_shot

#: Side of the images that are compared, pixels, whatever size the model will have: the bounds were
#: chosen at this one.
SIDE = 224

#: More shots than this take long and add little.
MANY = 50

#: Shots are named where their shape, width over height, or their sides differ by more than this.
SHAPE, SIZE = 1.02, 1.1

#: Mean grey levels beyond which a photograph is dark or bright whatever the others are, and the
#: sharpness below which it is blurred. Of ten materials the darkest good part had 27; the least
#: sharp photograph that was not enlarged had 0.35, and a blur of 2 to 3 pixels left 0.1 to 0.2 of
#: parts without a texture.
DARK, BRIGHT, BLURRED = 16, 240, 0.2

#: File names that one sentence lists.
NAMES = 6

_QUALITY = {
    "dark": (ShotProblem.DARK, "brightness", "darker"),
    "bright": (ShotProblem.BRIGHT, "brightness", "brighter"),
    "flat": (ShotProblem.FLAT, "contrast", "lower in contrast"),
    "blurred": (ShotProblem.BLURRED, "sharpness", "less sharp"),
}


@dataclass(frozen=True)
class CheckedShots:
    """What :func:`check_shots` found.

    Attributes:
        kept: the distinct shots, from which the model is made.
        left_out: shots that show what one of those shows, in the same place.
        findings: what was found, with the names of the files.
    """

    kept: tuple[Shot, ...]
    left_out: tuple[Shot, ...]
    findings: tuple[ShotFinding, ...]

    @property
    def outliers(self) -> int:
        """How many shots that are unlike the rest were kept."""
        return sum(
            len(finding.files)
            for finding in self.findings
            if finding.problem is ShotProblem.OUTLIER
        )


def check_shots(
    files: Sequence[Path],
    options: FinetuneOptions,
    scale: ImageScale = UNASKED,
    on_finding: Callable[[str], None] = lambda sentence: None,
) -> CheckedShots:
    """Look at the shots as a set.

    Near-identical shots count as one: only one of each group is kept. A single shot is compared
    with nothing. Of two, neither can be called the odd one; that they differ much is said.

    Args:
        files: the shots, at least one.
        options: the encoder, and whether outliers may be kept.
        scale: what black and white are in files of more than 8 bits.
        on_finding: called with the sentence of each finding.

    Raises:
        InputError: a shot is unlike the rest, and ``options.keep_outliers`` is not set.
        ImageError: a shot cannot be read.
        WeightsError: there is no such encoder.
    """
    shots = [load_shot(file, SIDE, SIDE, scale) for file in files]
    findings = [*_about_sizes(shots), *_about_quality(shots)]
    kept, left_out = list(range(len(shots))), []
    for same in find_same(shots, options.seed):
        findings += _about_same(shots, same.kept, same.copies, same.exposures)
        left_out += [*same.copies, *same.exposures]
    kept = [index for index in kept if index not in set(left_out)]
    distinct = [shots[index] for index in kept]
    if left_out and len(distinct) < ENOUGH_SHOTS:
        findings.append(_about_distinct(len(distinct), len(shots)))
    for finding in findings:
        on_finding(finding.text)
    unlike = _about_unlike(distinct, options)
    outliers = [one for one in unlike if one.problem is ShotProblem.OUTLIER]
    if outliers and not options.keep_outliers:
        raise InputError(
            f"{' '.join(one.text for one in outliers)} Nothing was learned: take "
            f"{'it' if sum(len(one.files) for one in outliers) == 1 else 'them'} out of the folder "
            "if this is another part or a broken one, or use --keep-outliers if it is good."
        )
    for finding in unlike:
        on_finding(finding.text)
    return CheckedShots(
        tuple(distinct), tuple(shots[index] for index in sorted(left_out)), (*findings, *unlike)
    )


def about_high_score(shots: Sequence[Shot], fitted: Calibration) -> list[ShotFinding]:
    """The shot that alone decides a threshold, if there is one.

    Args:
        shots: those that the threshold was made from.
        fitted: what :func:`calibrate` made of them.
    """
    if (high := fitted.high_score) is None:
        return []
    name = _name(shots, high.index)
    text = (
        f"{name} scores {high.score:.3g} without itself in the memory bank, the others "
        f"{high.others[0]:.3g} to {high.others[1]:.3g}; it alone raises the threshold from "
        f"{high.without:.3g} to {fitted.threshold.value:.3g}: check that it is a good part."
    )
    return [ShotFinding(ShotProblem.HIGH_SCORE, [name], text)]


def checking_session(options: FinetuneOptions) -> OnnxSession:
    """The encoder of the options at the one size and stride that shots are compared at.

    Raises:
        WeightsError: there is no such encoder.
    """
    [fastest, *_] = encoders_to_try(options)
    offered = strides_of(fastest, options.weights)
    strides = shapes_to_try([SIDE], None, offered)[0].strides
    side = -(-SIDE // max(strides)) * max(strides)
    encoder = pretrained(fastest, options.weights, side, side, strides)
    graph = encoder.scoring_graph(ScoreKind.PATCH, None, 1)
    provider = provider_for(options.device)
    return OnnxSession(
        graph.to_bytes(),
        "the graph just built",
        provider,
        options.threads,
        max_batch=BATCH_ON_CUDA,
    )


def _about_sizes(shots: Sequence[Shot]) -> Iterator[ShotFinding]:
    if len(shots) > MANY:
        yield ShotFinding(
            ShotProblem.MANY,
            [],
            f"{len(shots)} images: more than about {MANY} take long and add little; the memory "
            "bank keeps what differs.",
        )
    shapes = np.array([shot.size[0] / shot.size[1] for shot in shots])
    sides = np.sqrt([float(shot.size[0] * shot.size[1]) for shot in shots])
    # The usual one is the shot in the middle, so that the files that differ from it can be named.
    usual_shape, usual_side = (np.sort(values)[len(shots) // 2] for values in (shapes, sides))
    differ = np.maximum(shapes / usual_shape, usual_shape / shapes) > SHAPE
    if differ.any():
        yield ShotFinding(
            ShotProblem.SHAPE,
            [_name(shots, index) for index in np.flatnonzero(differ).tolist()],
            f"{_sizes(shots, differ)} differ in shape from the others "
            f"({_size(shots[int(np.abs(shapes - usual_shape).argmin())])}): all are stretched to "
            "one square, so photograph all parts in the same way.",
        )
    differ = ~differ & (np.maximum(sides / usual_side, usual_side / sides) > SIZE)
    if differ.any():
        yield ShotFinding(
            ShotProblem.SIZE,
            [_name(shots, index) for index in np.flatnonzero(differ).tolist()],
            f"{_sizes(shots, differ)} differ in size from the others "
            f"({_size(shots[int(np.abs(sides - usual_side).argmin())])}): small ones show less "
            "detail, so photograph all parts in the same way.",
        )


def _size(shot: Shot) -> str:
    return f"{shot.size[0]}x{shot.size[1]}"


def _sizes(shots: Sequence[Shot], chosen: NDArray[np.bool_]) -> str:
    return _listed(
        [f"{_name(shots, i)} ({_size(shots[i])})" for i in np.flatnonzero(chosen).tolist()]
    )


def _name(shots: Sequence[Shot], index: int) -> str:
    """What a person knows a shot by: subfolders may hold files of the same name."""
    path = shots[index].path
    same = [shot.path for shot in shots if shot.path.name == path.name]
    return path.name if len(same) == 1 else folder_and_name(path)


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of them."""
    if len(names) > NAMES:
        return f"{', '.join(names[:NAMES])} and {len(names) - NAMES} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _about_quality(shots: Sequence[Shot]) -> Iterator[ShotFinding]:
    """Each shot compared with the others, and with what no photograph should be."""
    measured = [image_quality(shot.image) for shot in shots]
    odd: dict[str, list[int]] = {flag: [] for flag in _QUALITY}
    for index, quality in enumerate(measured):
        others = [*measured[:index], *measured[index + 1 :]]
        flags = set(_absolute(quality, shots[index]))
        if others:
            flags |= set(flags_among(quality, others))
        for flag in flags & odd.keys():
            odd[flag].append(index)
    for flag, indices in odd.items():
        if not indices:
            continue
        problem, measure, word = _QUALITY[flag]
        rest = [i for i in range(len(shots)) if i not in indices]
        values = [f"{getattr(measured[i], measure):.3g}" for i in indices[:NAMES]]
        middle = np.median([getattr(measured[i], measure) for i in rest]) if rest else None
        names = [_name(shots, index) for index in indices]
        than = f"{word} than the others" if rest else f"{flag}"
        beside = f", theirs mostly {middle:.3g}" if middle is not None else ""
        yield ShotFinding(
            problem,
            names,
            f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {than} "
            f"({measure} {', '.join(values)}{beside}): take a better photograph of this part.",
        )


def _absolute(quality: Quality, shot: Shot) -> Iterator[str]:
    if quality.brightness < DARK:
        yield "dark"
    if quality.brightness > BRIGHT:
        yield "bright"
    if quality.sharpness < BLURRED and min(shot.size) >= SIDE:  # an enlarged one is never sharp
        yield "blurred"


def _about_same(
    shots: Sequence[Shot], kept: int, copies: Sequence[int], exposures: Sequence[int]
) -> Iterator[ShotFinding]:
    """What is said of shots that show one part in one place."""
    like = _name(shots, kept)
    if copies:
        names = [_name(shots, index) for index in copies]
        same_file = all(shots[index].sha256 == shots[kept].sha256 for index in copies)
        what = "the same file as" if same_file else "the same photograph as"
        yield ShotFinding(
            ShotProblem.DUPLICATE,
            names,
            f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {what} {like}: only {like} "
            "is used.",
        )
    if exposures:
        names = [_name(shots, index) for index in exposures]
        yield ShotFinding(
            ShotProblem.NEAR_IDENTICAL,
            names,
            f"{_listed(names)} and {like} are near-identical, as photographs of one part in one "
            f"place are: only {like} is used.",
        )


def _about_distinct(distinct: int, given: int) -> ShotFinding:
    only = "is" if distinct == 1 else "are"
    return ShotFinding(
        ShotProblem.FEW_DISTINCT,
        [],
        f"only {distinct} of {given} shots {only} distinct, too few to promise a false alarm rate: "
        "photograph different parts.",
    )


def _about_unlike(shots: Sequence[Shot], options: FinetuneOptions) -> list[ShotFinding]:
    """The outliers, all in one finding, and those that are only named."""
    if len(shots) < 2:
        return []
    features = features_of(checking_session(options), [shot.image for shot in shots])
    if len(shots) < FEWEST:
        apart = float(part_distances(features, nearest_patches(features.patches))[0, 1])
        names = [_name(shots, index) for index in range(len(shots))]
        text = (
            f"{names[0]} and {names[1]} are as unlike as two different parts (distance "
            f"{apart:.2f}), and two shots cannot show which is the odd one."
        )
        return [ShotFinding(ShotProblem.UNUSUAL, names, text)] if apart >= TWO_APART else []
    found = find_unlike(features)
    chosen = {
        ShotProblem.OUTLIER: [one for one in found if one.refused],
        ShotProblem.UNUSUAL: [one for one in found if not one.refused],
    }
    return [
        ShotFinding(
            problem, [_name(shots, one.index) for one in ones], _unlike(shots, ones, problem)
        )
        for problem, ones in chosen.items()
        if ones
    ]


def _unlike(shots: Sequence[Shot], found: Sequence[Unlike], problem: ShotProblem) -> str:
    described = [
        f"{_name(shots, one.index)} ("
        f"{'distance' if one.whole else 'its most different place at distance'} "
        f"{one.distance:.2f}, of the others at most {one.others:.2f})"
        for one in found
    ]
    verb = "is" if len(found) == 1 else "are"
    if problem is ShotProblem.OUTLIER:
        return f"{_listed(described)} {verb} unlike the other shots."
    return (
        f"{_listed(described)} {verb} somewhat unlike the other shots: check that "
        f"{'this is a good part' if len(found) == 1 else 'these are good parts'}."
    )
