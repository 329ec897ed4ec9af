"""Which images a report shows: every kind of mistake, the worst first, and the closest calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsad_edge.evaluation.dataset import Sample
from fsad_edge.evaluation.figures import Scored, decide, is_rejected_elsewhere
from fsad_edge.options import Decision, HeatScale


@dataclass(frozen=True)
class Case:
    """One image and what was said of it.

    Attributes:
        sample: the image.
        result: its result.
        ratio: its score over the threshold.
        decision: what is said at that threshold.
        elsewhere: whether it is rejected, but not where its mask marks the defect.
    """

    sample: Sample
    result: Scored
    ratio: float
    decision: Decision
    elsewhere: bool = False

    @property
    def wrong(self) -> bool:
        """Whether the decision is wrong; one that is left open is not."""
        right = Decision.GOOD if self.sample.defect is None else Decision.ANOMALY
        return self.decision not in {right, Decision.NOT_JUDGED}

    @property
    def words(self) -> str:
        """What the image is, and what was said of it."""
        defect, decision = self.sample.defect, self.decision
        if decision is Decision.NOT_JUDGED:
            return decision.words if defect is None else f"{defect}, {decision.words}"
        alarm = decision is Decision.ANOMALY
        if defect is None:
            return "false alarm" if alarm else "passed"
        if self.elsewhere:
            return f"{defect}, rejected, but not where the defect is"
        return f"{defect}, {'found' if alarm else 'missed'}"


@dataclass(frozen=True)
class Group:
    """Images that are shown under one heading.

    Attributes:
        heading: what they are.
        cases: all of them, the worst first.
        colours: of their heat maps: a defect that was missed shows nothing near the threshold, but
            perhaps something below it.
    """

    heading: str
    cases: tuple[Case, ...]
    colours: HeatScale


def cases_of(samples: Sequence[Sample], results: Sequence[Scored], threshold: float) -> list[Case]:
    """All images with their decisions."""
    return [
        Case(
            sample,
            result,
            result.score / threshold,
            decide(result, threshold),
            is_rejected_elsewhere(sample, result, threshold),
        )
        for sample, result in zip(samples, results, strict=True)
    ]


def mistakes(cases: Sequence[Case]) -> list[Group]:
    """Missed defects, those rejected for something else, false alarms and what is not judged: all
    of them, in this order."""
    missed = [case for case in cases if case.wrong and case.sample.defect is not None]
    alarms = [case for case in cases if case.wrong and case.sample.defect is None]
    elsewhere = [case for case in cases if case.elsewhere]
    open_ = [case for case in cases if case.decision is Decision.NOT_JUDGED]
    return [
        Group("Missed defects", _ascending(missed), HeatScale.NEAR),
        Group("Rejected, but not where the defect is", _ascending(elsewhere), HeatScale.NEAR),
        Group("False alarms", _descending(alarms), HeatScale.THRESHOLD),
        Group("Not judged", _descending(open_), HeatScale.THRESHOLD),
    ]


def closest(cases: Sequence[Case], right_only: bool) -> list[Group]:
    """The good parts that score highest and the defects that score lowest.

    Args:
        cases: all images.
        right_only: leave out mistakes and what is not judged.
    """
    kept = [
        case
        for case in cases
        if not (right_only and (case.wrong or case.decision is Decision.NOT_JUDGED))
    ]
    good = _descending([case for case in kept if case.sample.defect is None])
    defects = _ascending([case for case in kept if case.sample.defect is not None])
    return [
        Group("Good parts that score highest", good, HeatScale.THRESHOLD),
        Group("Defects that score lowest", defects, HeatScale.NEAR),
    ]


def _ascending(cases: list[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: case.ratio))


def _descending(cases: list[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: -case.ratio))
