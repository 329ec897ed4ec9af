"""A benchmark against an earlier one's document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fsad_edge.bench.benchmark import SCHEMA
from fsad_edge.errors import InputError

CAVEAT = (
    "Only ratios within one run are sure: two runs may have met the machine in two moods. To know, "
    "give both files to one bench."
)


def read_base(file: Path) -> dict[str, Any]:
    """Read what ``bench --json`` wrote.

    Raises:
        InputError: it cannot be read, is something else, or is of another schema.
    """
    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"{file} is not JSON: give what  bench --json  printed.") from error
    schema = document.get("fsad_edge_bench") if isinstance(document, dict) else None
    if schema is None:
        raise InputError(f"{file} is not of a benchmark: give what  bench --json  printed.")
    if schema != SCHEMA:
        raise InputError(
            f"{file} has schema {schema} and this fsad-edge compares schema {SCHEMA}: measure the "
            "base again with this version."
        )
    try:
        for row in document["configurations"]:
            float(row["total"]["p50"]), list(row["block_p50"]), str(row["label"])
        float(document["noise"]["reference"]["p50"])
        dict(document["machine"]), str(document["pictures"]["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error!r}): measure the base again.") from error
    assert isinstance(document, dict)
    return document


def compare(document: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """Ratios of p50s, new over old, by label; one against one where each has only one.

    Returns:
        ``rows`` (``label``, ``base``, ``ratio``, and ``low`` and ``high`` over the blocks of both
        runs, null where a run was too short), ``reference`` (the ratio of the fixed computation:
        how much of it the machine alone explains), ``notes`` on what else differs, ``caveat``.

    Raises:
        InputError: the two have no configuration in common.
    """
    new = {row["label"]: row for row in document["configurations"]}
    old = {row["label"]: row for row in base["configurations"]}
    pairs = [(label, label) for label in new if label in old]
    if len(new) == len(old) == 1:
        pairs = [(*new, *old)]
    if not pairs:
        raise InputError(
            f"the base has none of what was measured here: it has {', '.join(old)}; here are "
            f"{', '.join(new)}."
        )
    notes = [
        f"the {fact} is another: {base['machine'].get(fact)} then"
        for fact in ("board", "cpu", "cores", "governor", "gpu", "engine")
        if base["machine"].get(fact) != document["machine"].get(fact)
    ]
    if base["pictures"]["sha256"] != document["pictures"]["sha256"]:
        notes.append(f"the pictures are others: {base['pictures'].get('source')} then")
    alone = [label for label in new if label not in {pair[0] for pair in pairs}]
    if alone:
        notes.append(f"not in the base: {', '.join(alone)}")
    reference = document["noise"]["reference"]["p50"] / base["noise"]["reference"]["p50"]
    return {
        "rows": [_row(new[here], old[there]) for here, there in pairs],
        "reference": round(reference, 4),
        "notes": notes,
        "caveat": CAVEAT,
    }


def _row(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    blocks, before = new["block_p50"], old["block_p50"]
    known = bool(blocks and before)
    return {
        "label": new["label"],
        "base": old["label"],
        "ratio": round(new["total"]["p50"] / old["total"]["p50"], 4),
        "low": round(min(blocks) / max(before), 4) if known else None,
        "high": round(max(blocks) / min(before), 4) if known else None,
    }
