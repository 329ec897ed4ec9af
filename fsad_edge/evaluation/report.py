"""The report of an evaluation: a page, or a picture of the most important of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsad_edge.evaluation.dataset import Sample
from fsad_edge.evaluation.figures import Evaluation, Scored
from fsad_edge.evaluation.report_mistakes import cases_of
from fsad_edge.evaluation.report_words import About
from fsad_edge.runtime.files import write_bytes
from fsad_edge.runtime.image_scale import UNASKED, ImageScale

#: The endings of a report's name: a page, which needs nothing to be installed, or a picture.
PAGE, PICTURE = (".html", ".htm"), ".png"
_UNSAID = About()


def write_report(
    evaluation: Evaluation,
    samples: Sequence[Sample],
    results: Sequence[Scored],
    path: Path,
    about: About = _UNSAID,
    scale: ImageScale = UNASKED,
) -> None:
    """Write the report. The file is complete or is not written at all.

    Args:
        evaluation: the figures of these samples and results.
        samples: the samples given to :func:`fsad_edge.evaluation.evaluate_results`.
        results: one result for each sample, in the same order.
        path: the file to write, a page or, where it ends in ``.png``, a picture; an existing file
            is replaced.
        about: the title, and what the words need.
        scale: the model's, for images of more than 8 bits.

    Raises:
        InputError: the file cannot be written, or an image or a mask can no longer be read.
        ImportError: a picture needs matplotlib, which is not installed.
    """
    cases = cases_of(samples, results, evaluation.threshold)
    if path.suffix.lower() == PICTURE:
        from fsad_edge.evaluation.report_picture import picture

        data = picture(evaluation, cases, about, scale)
    else:
        from fsad_edge.evaluation.report_page import page

        data = page(evaluation, cases, about, scale).encode("utf-8", "backslashreplace")
    write_bytes(path, data)
