"""Evaluate a model on labelled images: the work of ``fsad-edge eval``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fsad_edge.errors import ImageError, InputError, needs_extra
from fsad_edge.evaluation import Dataset, Evaluation, Sample, evaluate_results, read_dataset
from fsad_edge.evaluation.report import PAGE, PICTURE, write_report
from fsad_edge.evaluation.report_words import About
from fsad_edge.learning.journal import Entry
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.summary import TaughtSummary
from fsad_edge.options import MaskMeaning, Provider
from fsad_edge.pipeline.events import (
    OnProgress,
    OnWarning,
    Progress,
    ignore_progress,
    ignore_warning,
)
from fsad_edge.pipeline.known_images import KnownImage, describe_known, find_known
from fsad_edge.runtime.files import check_no_input, check_output, is_folder
from fsad_edge.runtime.folders import check_folder
from fsad_edge.runtime.given import path_of
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Model, Result, check_model_file


@dataclass(frozen=True)
class NotScored:
    """A test image that cannot be read, and why; the figures are without it."""

    path: Path
    error: str


@dataclass(frozen=True)
class NotJudged:
    """One of the reasons why images are not judged.

    Attributes:
        image: the first image that it is said of.
        reason: the reason as it is said of that image, one sentence without a full stop.
        images: how many images it is said of; one image may have several reasons.
    """

    image: Path
    reason: str
    images: int


@dataclass(frozen=True)
class EvaluationReport:
    """The result of :func:`fsad_edge.evaluate`.

    Attributes:
        figures: AUROC, AUPRO, false alarms and misses.
        dataset: the images that were scored, how the folders were understood, and what was left
            out.
        not_scored: test images that cannot be read.
        known: test images that the model was made from, was taught or was given as examples; the
            figures are without them.
        not_judged: why images are not judged, the commonest reason first.
        learned: number of images learned on this device that the figures rest on; 0 for a loaded
            model, which is evaluated as it is.
        taught: the same with what else was taught that they rest on, in words; None where nothing
            was.
        false_alarm_rate_asked: the share of good parts that the threshold may reject, as it was
            asked for when the model was made.
        title: which model was evaluated on which dataset.
        picture: the report that was written, a page or a PNG; None if there is none.
        picture_error: why the report cannot be written; None if it was, or was not asked for.
    """

    figures: Evaluation
    dataset: Dataset
    not_scored: tuple[NotScored, ...]
    known: tuple[KnownImage, ...]
    not_judged: tuple[NotJudged, ...]
    learned: int
    taught: str | None
    false_alarm_rate_asked: float
    title: str
    picture: Path | None
    picture_error: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every image of the folders was scored."""
        return not self.not_scored and not any(one.unseen for one in self.dataset.skipped)


def evaluate(
    model: str | os.PathLike[str] | Model,
    dataset: str | os.PathLike[str],
    report: str | os.PathLike[str] | None = None,
    *,
    masks: Collection[MaskMeaning | str] = (),
    provider: Provider | str = Provider.AUTO,
    threads: int = 0,
    strict: bool = False,
    learned: bool = True,
    on_progress: OnProgress = ignore_progress,
    on_warning: OnWarning = ignore_warning,
) -> EvaluationReport:
    """Score a labelled dataset and compute how good the model is on it.

    Args:
        model: the exported file, or a loaded model, which stays open.
        dataset: a folder with good images, images of each kind of defect and, for the pixel
            figures, masks: ``test/good``, ``test/DEFECT`` and ``ground_truth/DEFECT`` as in MVTec
            AD, or another layout that :func:`fsad_edge.evaluation.layouts.find_layout` understands.
        report: a page to write (``.html``), with a verdict in words, the figures, the charts and
            all mistakes, or a picture of the most important of it (``.png``); an existing file is
            replaced.
        masks: how masks are meant that would be refused otherwise: inverted, larger than half of
            the image, or of another size.
        provider: what runs the model, as :meth:`Model.load` takes it; a loaded model has its own.
        threads: threads for one image; 0 takes as many as this process may use.
        strict: refuse to run on the CPU instead of the GPU.
        learned: use what the model was taught on this device, as ``score`` does; a loaded model is
            evaluated as it is.
        on_progress: called with each step.
        on_warning: called with each warning.

    Raises:
        InputError: the dataset has no folder of good images, none of them can be read or the model
            knows all of them, a mask cannot be used, or ``report`` is not the path of a page
            or a PNG that can be written.
        ModelFileError: the model file, or what it learned, cannot be used.
        MissingExtraError: scipy for masks, or matplotlib for a PNG, is not installed.

    Example:
        >>> report = evaluate(part_file, dataset)
        >>> 0 <= report.figures.image_auroc <= 1
        True
    """
    folder = path_of(dataset, "the data set")
    picture = None if report is None else path_of(report, "the report")
    _check_paths(model, folder, picture)
    read = read_dataset(folder, masks, _stage("checking the masks", on_progress))
    if picture is not None:
        _check_no_input(picture, model, read)
    scorer = (
        model if isinstance(model, Model) else Model.load(model, provider, threads, True, strict)
    )
    try:
        for notice in scorer.notices if scorer is not model else ():
            on_warning(notice)
        taught, entries = TaughtSummary(), list[Entry]()
        if learned and not isinstance(model, Model):
            taught, entries = _apply_learned(Path(model), scorer, on_warning)
        samples, known = _without_known(read.samples, scorer.metadata, entries, on_warning)
        scored, not_scored = _score(scorer, samples, on_progress)
    finally:
        if scorer is not model:
            scorer.close()
    _check_good_left(scored, known, not_scored)
    read = replace(read, samples=[sample for sample, _ in scored])
    results = [result for _, result in scored]
    on_progress(Progress("computing the figures"))
    asked = scorer.metadata.threshold.false_alarm_rate
    figures = evaluate_results(read.samples, results, scorer.threshold, asked)
    on_progress(Progress("computing the figures", 1.0))
    title, picture_error = f"{scorer.metadata.name} on {folder.absolute().name}", None
    if picture is not None:
        on_progress(Progress("drawing the report"))
        file = None if isinstance(model, Model) else Path(model)
        about = About(title, file, asked, taught.sentence)
        drawn = read.samples, results, picture, about, scorer.metadata.scale
        picture_error = _error_of(lambda: write_report(figures, *drawn))
    return EvaluationReport(
        figures=figures,
        dataset=read,
        not_scored=tuple(not_scored),
        known=tuple(known),
        not_judged=_not_judged(scored),
        learned=taught.learned,
        taught=taught.sentence,
        false_alarm_rate_asked=asked,
        title=title,
        picture=picture if picture_error is None else None,
        picture_error=picture_error,
    )


def _not_judged(scored: Sequence[tuple[Sample, Result]]) -> tuple[NotJudged, ...]:
    said = [(sample.path, reason) for sample, result in scored for reason in result.reasons]
    counts = Counter(reason.doubt for _, reason in said)
    first = {reason.doubt: (path, reason.text) for path, reason in reversed(said)}
    return tuple(NotJudged(*first[doubt], images) for doubt, images in counts.most_common())


def _stage(name: str, on_progress: OnProgress) -> Callable[[float], None]:
    return lambda done: on_progress(Progress(name, done))


def _error_of(draw: Callable[[], None]) -> str | None:
    """Why a picture cannot be written; the figures took long and are worth more than it."""
    try:
        draw()
    except InputError as error:
        return str(error)
    return None


def _score(
    scorer: Model, samples: list[Sample], on_progress: OnProgress
) -> tuple[list[tuple[Sample, Result]], list[NotScored]]:
    """Score the images that can be read, and name the others."""
    scored: list[tuple[Sample, Result]] = []
    not_scored: list[NotScored] = []
    on_progress(Progress("scoring", 0.0))
    for count, sample in enumerate(samples, 1):
        try:
            scored.append((sample, scorer.score(sample.path)))

        except ImageError as error:
            not_scored.append(NotScored(sample.path, str(error)))
        on_progress(Progress("scoring", count / len(samples)))
    return scored, not_scored


def _check_good_left(
    scored: Sequence[tuple[Sample, Result]],
    known: Sequence[KnownImage],
    not_scored: Sequence[NotScored],
) -> None:
    """Refuse to measure where no good image is left."""
    if all(sample.defect is not None for sample, _ in scored):
        first = f" ({not_scored[0].error})" if not_scored else ""
        raise InputError(
            f"no good image is left to measure with: the model knows {len(known)} images, and "
            f"{len(not_scored)} could not be read{first}. Add other good images."
        )


def _apply_learned(
    path: Path, model: Model, on_warning: OnWarning
) -> tuple[TaughtSummary, list[Entry]]:
    """Score with what was taught on this device: that, counted and as entries."""
    with Learner.open(path, model, write=False) as learner:
        if learner.notice:
            on_warning(learner.notice)
        return learner.summary, learner.active


def _without_known(
    samples: list[Sample], metadata: Metadata, taught: Sequence[Entry], on_warning: OnWarning
) -> tuple[list[Sample], list[KnownImage]]:
    """The images that the model does not know, and the others, which a warning names.

    Raises:
        InputError: it knows all good ones.
    """
    known = find_known([sample.path for sample in samples], metadata, taught)
    if not known:
        return samples, known
    on_warning(describe_known(known))
    paths = {one.path for one in known}
    left = [sample for sample in samples if sample.path not in paths]
    if all(sample.defect is not None for sample in left):
        raise InputError(
            "the model knows all good images of the data set, so that false alarms cannot be "
            "measured: take other ones."
        )
    return left, known


def _check_no_input(picture: Path, model: str | os.PathLike[str] | Model, read: Dataset) -> None:
    """Refuse a report that would replace the model, or an image or mask of the data set."""
    masks = [file for sample in read.samples if sample.mask for file in sample.mask.files]
    files = [] if isinstance(model, Model) else [Path(model)]
    images = [sample.path for sample in read.samples]
    check_no_input(picture, [*files, *images, *masks, *read.unmatched_masks, *read.unlabelled])


def _check_paths(model: str | os.PathLike[str] | Model, folder: Path, picture: Path | None) -> None:
    """Refuse paths, and a report without what draws it, before anything is read."""
    if picture is not None:
        _check_picture(picture)
    check_folder(folder)
    if not isinstance(model, Model):
        check_model_file(path_of(model, "the model file"))
    if picture is not None and picture.suffix.lower() == PICTURE:
        with needs_extra("eval"):
            import fsad_edge.evaluation.report_picture  # noqa: F401


def _check_picture(path: Path) -> None:
    check_output(path, force=True)
    if path.suffix.lower() not in {*PAGE, PICTURE} or is_folder(path):
        raise InputError(f"the report {path} must be a .html or a .png file.")
