"""A twin for JSON."""

from __future__ import annotations

from typing import Any

from fsad_edge.twin.comparison import Figures
from fsad_edge.twin.find import Twin


def twin_document(twin: Twin) -> dict[str, Any]:
    """A twin without its pictures."""
    return {
        "region": twin.region.number,
        "shot": twin.shot,
        "name": twin.name or None,
        "sentence": twin.sentence,
        "figures": [figures_document(one) for one in twin.compared.figures],
    }


def figures_document(one: Figures) -> dict[str, Any]:
    """One measure of a region and of the shots, rounded."""
    return {
        "quantity": one.quantity.value,
        "part": one.part.value,
        "value": round(one.value, 2),
        "mean": round(one.mean, 2),
        "spread": None if one.spread is None else round(one.spread, 2),
        "shots": [round(value, 2) for value in one.shots],
        "times": round(one.times, 2),
        "clear": one.clear,
    }
