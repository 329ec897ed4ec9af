"""The table that ``fsad-edge finetune --ray`` prints."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fsad_edge.cli.console import out, print_json
from fsad_edge.runtime.plain_text import printable

if TYPE_CHECKING:
    from fsad_edge.distributed.parts import PartsReport


def print_parts(report: PartsReport, json_: bool) -> None:
    """Print a row for each part, as a table or as JSON."""
    if json_:
        rows = [dataclasses.asdict(row) for row in report.rows]
        print_json({"output": str(report.output), "failed": report.failed, "parts": rows})
        return
    width = max(len("part"), *(len(printable(row.part)) for row in report.rows))
    out.print(f"{'part':<{width}}  shots  threshold  seconds  state")
    for row in report.rows:
        cells = (
            f"{printable(row.part):<{width}}",
            f"{_text(row.shots, 'd'):>5}",
            f"{_text(row.threshold, '.4g'):>9}",
            f"{_text(row.seconds, '.1f'):>7}",
            f"{row.state}: {row.error}" if row.error else str(row.state),
        )
        out.print("  ".join(cells), style="bold red" if row.error else None)
    out.print(
        f"{len(report.rows)} parts, {report.failed} failed. The table is {report.table}.",
    )


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
