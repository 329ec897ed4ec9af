"""A benchmark against an earlier one."""

from __future__ import annotations

from fsad_edge.bench.report import (
    BenchmarkReport,
    ComparisonReport,
    ConfigurationReport,
    RatioReport,
)
from fsad_edge.errors import InputError

CAVEAT = (
    "Ratios between two runs are not certain, because the machine may have been in another state. "
    "For certainty, give both files to one bench."
)

#: Facts about the machine that explain a difference between two runs.
_MACHINE_FACTS = ("board", "cpu", "cores", "governor", "gpu", "engine")


def compare(new: BenchmarkReport, base: BenchmarkReport) -> ComparisonReport:
    """Ratios of p50s, new over base.

    Configurations are matched by label. If each run has a single one, these two are compared.

    Raises:
        InputError: the two have no configuration in common.
    """
    now = {row.label: row for row in new.configurations}
    then = {row.label: row for row in base.configurations}
    pairs = {label: label for label in now if label in then}
    if len(now) == len(then) == 1:
        pairs = dict(zip(now, then, strict=True))
    if not pairs:
        raise InputError(
            "the base of --compare holds none of the configurations measured here: it holds "
            f"{', '.join(then)}; measured were {', '.join(now)}."
        )
    notes = [
        f"the {fact} differs: it was {base.machine.get(fact, 'unknown')} in the base"
        for fact in _MACHINE_FACTS
        if base.machine.get(fact) != new.machine.get(fact)
    ]
    if base.images.sha256 != new.images.sha256:
        notes.append(f"the images differ: they were {base.images.source} in the base")
    unmatched = [label for label in now if label not in pairs]
    if unmatched:
        notes.append(f"not in the base: {', '.join(unmatched)}")
    return ComparisonReport(
        rows=[_ratio(now[here], then[there]) for here, there in pairs.items()],
        reference=round(new.noise.reference.p50 / base.noise.reference.p50, 4),
        notes=notes,
        caveat=CAVEAT,
    )


def _ratio(new: ConfigurationReport, base: ConfigurationReport) -> RatioReport:
    known = bool(new.block_p50 and base.block_p50)
    return RatioReport(
        label=new.label,
        base=base.label,
        ratio=round(new.total.p50 / base.total.p50, 4),
        low=round(min(new.block_p50) / max(base.block_p50), 4) if known else None,
        high=round(max(new.block_p50) / min(base.block_p50), 4) if known else None,
    )
