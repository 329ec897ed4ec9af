"""Print candidates.json and results.json as one Markdown table.

python table.py --times candidates.json --figures results.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

SETS = {"magnetic_tile": "magnetic tile", "metal_nut": "metal nut", "elpv_poly": "solar cells"}


def row(name: str, times: dict[str, Any], figures: dict[str, Any], shown: str) -> str:
    """One row: time, size, AUROC on drawn defects and AUROC on the test splits of a network."""
    time = times.get(name)
    cells = [shown]
    if time:
        cells += [f"{time['ms_fp32']:.2f}", f"{time['ms_int8']:.2f}", f"{time['ratio_fp32']:.2f}×"]
        cells += [f"{time['parameters'] / 1e6:.2f} M", f"{time['mb_fp16']:.2f}"]
    else:
        cells += ["–"] * 5
    drawn = figures.get("synthetic", {}).get(shown)
    cells.append(f"{drawn['mean']:.3f}" if drawn else "–")
    test = figures.get("test", {}).get(shown)
    for key in SETS:
        cells.append(" / ".join(f"{test[key][n]:.3f}" for n in ("1", "5", "10")) if test else "–")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="The table of candidates.")
    parser.add_argument("--times", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    args = parser.parse_args()
    times = json.loads(args.times.read_text())
    figures = json.loads(args.figures.read_text())
    heads = ["network", "ms fp32", "ms int8", "teacher's time / its", "parameters", "MB fp16"]
    heads += ["drawn defects, 5 shots", *(f"{v}, 1 / 5 / 10 shots" for v in SETS.values())]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    names = figures.get("names", {})
    for shown in {**figures.get("synthetic", {}), **figures.get("test", {})}:
        print(row(names.get(shown, shown), times, figures, shown))
    for name in times:
        if name not in {names.get(n, n) for n in figures.get("synthetic", {})}:
            print(row(name, times, figures, name))


if __name__ == "__main__":
    main()
