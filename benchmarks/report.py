"""Write the tables and figures of RESULTS.md from the stored rows in benchmarks/results.

    python -m benchmarks.report

They are what is between ``<!-- NAME -->`` and ``<!-- end -->``; the rest is written by hand.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import size_ranking
from benchmarks.accuracy.cells import cell, summary
from benchmarks.accuracy.rows import Row, read_rows
from benchmarks.accuracy.table import group_of
from benchmarks.decisions import foreign
from benchmarks.decisions.estimates import estimate_table
from benchmarks.decisions.rejects import rejection_table
from benchmarks.decisions.table import table as decision_table
from fsad_edge.errors import InputError
from fsad_edge.runtime.files import write_bytes

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
ROWS = HERE / "results"

#: The three data sets of photographs, and their names in the tables.
PHOTOGRAPHS = {
    "metal_nut": "metal nut",
    "elpv_poly": "solar cells",
    "magnetic_tile": "magnetic tile",
}

#: The image AUROC that was aimed at with MobileNetV2, by data set and number of shots.
AIMS = {
    "metal_nut": {1: 0.85, 5: 0.96, 10: 0.97},
    "elpv_poly": {1: 0.87, 5: 0.88, 10: 0.89},
    "magnetic_tile": {1: 0.81, 5: 0.88, 10: 0.89},
}

#: The commit whose code made the rows of a folder.
CODE = {"accuracy": "0577d91", "ablation": "c700773"}


def main() -> None:
    """Command line."""
    write_bytes(RESULTS, fill(RESULTS.read_text()).encode())


def fill(text: str) -> str:
    """Replace what is between markers by tables and figures from the rows."""

    def between(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        new = "\n".join(["", *TABLES[name](), ""]) if name in TABLES else FIGURES[name]()
        return f"{start}{new}{end}"

    return re.sub(r"(<!-- (\w+) -->).*?(<!-- end -->)", between, text, flags=re.DOTALL)


@cache
def _runs(folder: str) -> list[Row]:
    return read_rows(ROWS / folder / "runs.jsonl")


def _select(data: str, system: str, shots: int, folder: str = "accuracy") -> list[Row]:
    return [
        row
        for row in _runs(folder)
        if (group_of(row), row["system"], row["shots"]) == (data, system, shots)
    ]


def _json_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROWS / name).read_text().splitlines()]


def _markdown_rows(name: str) -> list[list[str]]:
    """The cells of every table row of a Markdown file, heads and rules included."""
    lines = (ROWS / name).read_text().splitlines()
    return [[part.strip() for part in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]


def _markdown_row(name: str, *starts: str) -> list[str]:
    """The cells of the first table row that starts with these cells."""
    for row in _markdown_rows(name):
        if row[: len(starts)] == list(starts):
            return row
    raise InputError(f"{ROWS / name} has no row {' | '.join(starts)}.")


def _find(name: str, pattern: str) -> re.Match[str]:
    match = re.search(pattern, (ROWS / name).read_text())
    if match is None:
        raise InputError(f"{ROWS / name} does not contain '{pattern}'.")
    return match


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def accuracy() -> list[str]:
    """Image AUROC of all systems by data set and number of shots."""
    systems = {
        "bundled encoder": "ours:bundled",
        "MobileNetV2": "ours:mobilenetv2",
        "aim": "",
        "plain bank": "plain-bank",
        "PatchCore": "patchcore",
        "PaDiM": "padim",
        "colour": "colour",
        "pixels": "pixels",
    }
    draws = [(data, name, shots) for data, name in PHOTOGRAPHS.items() for shots in (1, 5, 10)]
    draws += [("rendered_bracket", "bracket, rendered, 320 px", 5), ("cifar10", "CIFAR-10", 5)]
    rows = []
    for data, name, shots in draws:
        cells = {
            column: cell(_select(data, system, shots), "image_auroc")
            for column, system in systems.items()
        }
        if aim := AIMS.get(data, {}).get(shots):
            value = summary(_select(data, "ours:mobilenetv2", shots), "image_auroc")
            missed = value is None or round(value.mean, 3) < aim
            cells["aim"] = f"{aim:.2f}{', **missed**' if missed else ''}"
        rows.append([name, str(shots), *cells.values()])
    return _table(["data set", "shots", *systems], rows)


def variants() -> list[str]:
    """Five shots with other options, on the three data sets of photographs."""
    chosen = [
        ("the bundled encoder, 224 pixels", "accuracy", "bundled"),
        ("in int8", "accuracy", "int8"),
        ("features not aligned", "accuracy", "bundled, not aligned"),
        ("image size chosen by finetune", "accuracy", "bundled, auto"),
        ("the bundled encoder, 224 pixels", "ablation", "not trained"),
        ("shots not rotated in the bank", "ablation", "not rotated"),
        ("trained with the contrastive loss alone", "ablation", "con"),
        ("trained with all three losses", "ablation", "con+pp+np"),
        ("the image score of COFT-AD", "ablation", "image"),
    ]
    rows = []
    for name, folder, system in chosen:
        cells = []
        for data in PHOTOGRAPHS:
            found = _select(data, f"ours:{system}", 5, folder)
            rates = [summary(found, figure) for figure in ("false_alarm_rate", "miss_rate")]
            percent = [f"{rate.mean:.0%}" if rate else "–" for rate in rates]
            cells.append(" / ".join([cell(found, "image_auroc"), *percent]))
        rows.append([CODE[folder], name, *cells])
    return _table(["code", "variant", *PHOTOGRAPHS.values()], rows)


def latency() -> list[str]:
    """Milliseconds of each model, and how many times faster it is than others."""
    aims = {"patchcore-resnet18": 15, "patchcore-wide_resnet50_2": 25, "edge_fp32": 1.8}
    rows = []
    for system in json.loads((ROWS / "latency/latency.json").read_text())["systems"]:
        alone, whole = system["alone"], system["whole"]
        times = [f"{one['total']['p50']:.2f}" for one in (alone, whole)]
        rows.append([system["name"], *times])
        for other in aims:
            times_faster = alone["faster_than"].get(other, {}).get("times", 0)
            is_ours = system["ours"] and times_faster > 1
            rows[-1].append(f"{times_faster:.3g}×" if is_ours else "–")
    heads = [f"faster than {other} (aim {aim:g}×)" for other, aim in aims.items()]
    return _table(["model", "alone, ms", "from a JPEG, ms", *heads], rows)


def rates() -> str:
    """False alarms / misses of the bundled encoder, and of MobileNetV2, by number of shots."""
    bundled = ", ".join(_mean_rates("bundled", shots) for shots in (1, 5, 10))
    other = ", ".join(_mean_rates("mobilenetv2", shots) for shots in (1, 5, 10))
    return f"bundled encoder {bundled}; MobileNetV2 {other}"


def rates_at_5_percent() -> str:
    """The same with five shots where 5% was asked for."""
    return _mean_rates("bundled, 5 %", 5)


def _mean_rates(name: str, shots: int) -> str:
    means = []
    for figure in ("false_alarm_rate", "miss_rate"):
        values = [summary(_select(data, f"ours:{name}", shots), figure) for data in PHOTOGRAPHS]
        means.append(statistics.fmean(value.mean for value in values if value))
    return f"{means[0]:.1%} / {means[1]:.0%}"


def sizes() -> str:
    """AUROC / misses at 224 pixels and at the size that finetune chooses."""
    changes = []
    for data in ("bracket_640", "wood_640", "print_640", "metal_nut"):
        cells = []
        for name in ("bundled", "bundled, auto"):
            found = _select(data, f"ours:{name}", 5)
            auroc, misses = summary(found, "image_auroc"), summary(found, "miss_rate")
            cells.append(f"{auroc.mean:.3f} / {misses.mean:.0%}" if auroc and misses else "–")
        changes.append(f"{data.replace('_640', '').replace('_', ' ')} {' → '.join(cells)}")
    return "; ".join(changes)


def parity() -> str:
    """Largest drift and number of flipped decisions, of ours and of a peer."""
    figures = []
    for name in ("fsad-edge fp32", "anomalib 2.7.0 PatchCore"):
        rows = [row for row in _markdown_rows("parity/parity.md") if row[0] == name]
        images, flips = (sum(int(row[column]) for row in rows) for column in (2, 5))
        largest = max(rows, key=lambda row: float(row[3]))[3]
        figures.append(f"{largest}, {flips} of {images} decisions flip")
    return f"{figures[0]}; anomalib's PatchCore {figures[1]}"


def illumination() -> str:
    """AUROC / false alarms / misses at 1 and 1.4 times the brightness."""
    aligned, other = (
        _markdown_row("light/light.md", "mean", features) for features in ("aligned", "not aligned")
    )
    return f"{aligned[5]} → {aligned[7]}; not aligned {other[5]} → {other[7]}"


def threshold_rules() -> str:
    """False alarms / misses of the rule that is used and of another one."""
    rules = ("prediction bound with a prior (used)", "conformal rank")
    used, rank = (_markdown_row("thresholds/thresholds.md", "5", "1%", rule)[3] for rule in rules)
    return f"{used}; conformal rank {rank}"


def bank_size() -> str:
    """Image AUROC and milliseconds by number of rows."""
    rows = [_markdown_row("bank_size/bank_size.md", size) for size in ("500", "1000", "2000")]
    return "; ".join(f"{row[0]} rows {row[4]}, {row[5]} ms" for row in rows)


def start() -> str:
    """Seconds and memory of a start, and the size of what is installed."""
    started = _markdown_row("lean/python3.10.md", "`fsad-edge score`")
    installed = _markdown_row("lean/python3.10.md", "**all of `[cpu]`**")
    return f"{started[1]} s, {started[4]} MB; {installed[1]} MB installed"


def service_overhead() -> str:
    """Milliseconds that the service adds to one client's request."""
    return _find("serve/load.md", r"overhead ([\d.]+ ms)")[1]


def refusals() -> str:
    """Milliseconds to a refusal under overload: the 99th percentile and the longest."""
    row = _markdown_row("serve/load.md", "3×")
    return f"{row[7].split(' / ')[2]} ms, {row[8]} ms at the longest"


def soak() -> str:
    """Memory of the service after some and after many requests."""
    found = _find("serve/soak.md", r"(\d+) × 200; memory (\d+) MB after \d+ requests, (\d+) MB")
    return f"{found[2]} MB → {found[3]} MB after {int(found[1]):,} requests"


def many_banks() -> str:
    """Memory of one part and of fifty, and the time that a change of parts adds."""
    head, *rows = _json_lines("many_banks/many_banks.jsonl")
    memory = {row["banks"]: row["megabytes"] for row in rows if row["what"] == "library"}
    microseconds = 1e3 * head["switching"]["switch_ms"]
    return (
        f"{memory[1]:.0f} → {memory[50]:.0f} MB (×{memory[50] / memory[1]:.2f}), "
        f"{microseconds:.0f} µs"
    )


def learning() -> str:
    """False alarms and misses before and after learning, and milliseconds for an image."""
    rows = _json_lines("learning/learning.jsonl")

    def mean(data: str, state: str, figure: str) -> float:
        return statistics.fmean(row[state][figure] for row in rows if row["data"] == data)

    changes = []
    for data, name in PHOTOGRAPHS.items():
        alarms, misses = (
            [mean(data, state, figure) for state in ("before", "after")]
            for figure in ("false_alarms", "misses")
        )
        changes.append(
            f"{name} {alarms[0]:.1%} → {alarms[1]:.1%}, {misses[0]:.0%} → {misses[1]:.0%}"
        )
    times = [milliseconds for row in rows for milliseconds in row["ms"]]
    return f"{'; '.join(changes)}; {statistics.median(times):.0f} ms"


def photographs() -> str:
    """Flagged good images, and those of half the brightness that are flagged as dark."""
    cells = []
    for data, name in PHOTOGRAPHS.items():
        row = _markdown_row("drift/drift.md", data, "5")
        cells.append(f"{name} {row[2].split()[0]}, {row[4]}")
    return "; ".join(cells)


def archive() -> str:
    """Images a second with Ray as a share of the best plain loop, one for each round."""
    speeds: dict[str, list[float]] = {}
    for row in _json_lines("archive/archive.jsonl"):
        if "way" in row:
            speeds.setdefault(row["way"], []).append(row["images_per_second"])
    rounds = zip(*(speeds[way] for way in ("ray", "one loop", "loops side by side")), strict=True)
    return ", ".join(f"{ray / max(loops):.0%}" for ray, *loops in rounds)


#: The tables and figures by the name in their marker.
def limits() -> list[str]:
    """False alarms and misses at the shots' threshold, with examples and at the best threshold."""
    return decision_table(_decisions("limits")).strip().splitlines()


def size_chosen() -> str:
    """The same figures in one line, where ``finetune`` chose the image size."""
    rows = _decisions("size_chosen/limits")
    sizes = " and ".join(sorted({row["settings"] for row in rows}))
    names = ("misses", "false_alarms", "examples_misses", "examples_false_alarms")
    auroc = statistics.fmean(row["image_auroc"] for row in rows)
    missed, alarms, missed_then, alarms_then = (
        f"{statistics.fmean(row[name] for row in rows):.1%}" for name in names
    )
    return (
        f"{sizes}, AUROC {auroc:.3f}, {missed} missed at {alarms} false alarms, with three good "
        f"and three bad examples {missed_then} at {alarms_then}"
    )


def not_judged() -> list[str]:
    """What is not judged: of all pictures of something else, of defects and of good parts."""
    lines = foreign.table(_decisions("foreign")).strip().splitlines()
    return [*_head(lines), *(line for line in lines if line.startswith("| **")), "", lines[-1]]


def taught() -> list[str]:
    """What teaching missed defects changes, in the mean over kinds."""
    lines = rejection_table(_decisions("rejects")).strip().splitlines()
    return [*_head(lines), *(line for line in lines if line.startswith("| mean"))]


def drawn_defects() -> list[str]:
    """How figures on drawn defects rank against the truth."""
    return estimate_table(_decisions("estimates")).strip().splitlines()


def _decisions(name: str) -> list[Row]:
    return read_rows(ROWS / "decisions" / f"{name}.jsonl")


def _head(lines: Sequence[str]) -> Sequence[str]:
    """A table in Markdown up to the line below its headings."""
    rule = next(place for place, line in enumerate(lines) if line.startswith("|---"))
    return lines[: rule + 1]


def located() -> list[str]:
    """Small parts in large photographs: found and looked at alone, and the whole photograph."""
    rows = _runs("located")
    lines = [
        "| rendered parts | AUROC, whole photograph | AUROC, located | pixel AUROC | misses | "
        "false alarms |",
        "|---|---|---|---|---|---|",
    ]
    for data in dict.fromkeys(row["dataset"] for row in rows):
        whole, alone = (
            next(row for row in rows if row["dataset"] == data and row["system"] == f"ours:{name}")
            for name in ("whole photograph", "located")
        )
        changes = [
            f"{whole[name]:.3f} → {alone[name]:.3f}"
            if name == "pixel_auroc"
            else f"{whole[name]:.0%} → {alone[name]:.0%}"
            for name in ("pixel_auroc", "miss_rate", "false_alarm_rate")
        ]
        aurocs = [f"{row['image_auroc']:.3f}" for row in (whole, alone)]
        lines.append(f"| {' | '.join([data.partition('_')[2], *aurocs, *changes])} |")
    return lines


def encoders() -> list[str]:
    """The bundled encoders, with their features as they are and fine-tuned, and a plain bank."""
    rows = _runs("encoders")
    systems = ("fast", "fast tuned", "accurate", "accurate tuned")
    names = [*(f"ours:{system}" for system in systems), "plain-bank"]
    lines = list[list[str]]()
    for data, shots in sorted({(row["dataset"], row["shots"]) for row in rows}):
        cells = []
        for name in names:
            found = _select(data, name, shots, "encoders")
            rates = [summary(found, name) for name in ("false_alarm_rate", "miss_rate")]
            words = [f" / {rate.mean:.0%}" for rate in rates if rate]
            cells.append("".join([cell(found, "image_auroc"), *words]) if found else "–")
        lines.append([PHOTOGRAPHS.get(str(data), str(data)), str(shots), *cells])
    return _table(["data set", "shots", *systems, "plain bank"], lines)


def switched_off() -> list[str]:
    """What each of the choices of ``finetune`` brings: with it and without it."""
    rows = _runs("switched_off")
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = []
        for data in sets:
            found = _select(data, system, 5, "switched_off")
            words = [f" / {row['false_alarm_rate']:.0%} / {row['miss_rate']:.0%}" for row in found]
            cells.append("".join([cell(found, "image_auroc"), *words]))
        lines.append([system.removeprefix("ours:"), *cells])
    return _table(["", *(PHOTOGRAPHS.get(data, data) for data in sets)], lines)


def trays() -> list[str]:
    """What sizes up to 2,048 pixels find in photographs of many parts."""
    return size_ranking.table(_of_sizes("tray_")).splitlines()[5:-2]


def size_choice() -> str:
    """What choosing the size on drawn defects costs over all sets."""
    return size_ranking.table(_of_sizes("")).splitlines()[-1]


def _of_sizes(start: str) -> list[Row]:
    rows = read_rows(ROWS / "size_ranking" / "size_ranking.jsonl")
    return [row for row in rows if row["dataset"].startswith(start)]


TABLES: dict[str, Callable[[], list[str]]] = {
    table.__name__: table
    for table in (
        *(accuracy, encoders, located, trays, variants, switched_off, latency),
        *(limits, not_judged, taught, drawn_defects),
    )
}
FIGURES: dict[str, Callable[[], str]] = {
    figure.__name__: figure
    for figure in (
        rates,
        size_chosen,
        size_choice,
        rates_at_5_percent,
        sizes,
        parity,
        illumination,
        threshold_rules,
        bank_size,
        start,
        service_overhead,
        refusals,
        soak,
        many_banks,
        learning,
        photographs,
        archive,
    )
}

if __name__ == "__main__":
    main()
