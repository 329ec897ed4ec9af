"""Time of each node of a model, and how far it is from the floor.

    python -m benchmarks.profile PART.onnx OUT [--threads N] [--seconds 60]

ONNX Runtime's own profiler times each node of the optimised graph. The model without the profiler
and large matrix products in fp32 and int8 are interleaved with it. The floor is the time that the
operations of convolutions and matrix products would take at the rate of the large products. Writes
OUT/profile.md, OUT/profile.json and OUT/profile.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.profile.nodes import measure
from benchmarks.profile.report import markdown, plot, summarise
from fsad_edge.bench.machine import describe_machine
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.files import write_bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", type=Path, help="file that export wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="threads for one image; 0 leaves the choice to the engine",
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="time for all measurements together"
    )
    chosen = parser.parse_args(argv)
    if chosen.threads < 0 or not 0 < chosen.seconds < 1e5:
        parser.error("--threads takes 0 or more, --seconds more than 0")
    name, machine = chosen.part.name, describe_machine()
    try:
        try:
            chosen.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{chosen.out} cannot be made: {error.strerror or error}.") from error
        nodes, run = measure(chosen.part, chosen.threads, chosen.seconds)
        report = summarise(nodes, run, machine)
        text = markdown(name, report)
        document = json.dumps(to_document(report), indent=1)
        write_bytes(chosen.out / "profile.json", document.encode())
        write_bytes(chosen.out / "profile.md", text.encode())
        write_bytes(chosen.out / "profile.png", plot(name, report))
    except FsadEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
