"""From photographs in a folder to the first score of the exported file: what each step takes.

    python -m benchmarks.finetune OUT [--no-peers] [--threads 2]

Makes an environment with fsad-edge as the README installs it, without PyTorch, and one with
anomalib, and times both installations. Renders photographs, and times ``finetune``, ``export`` and
the first ``score`` in that environment: how it grows with the photographs, with their pixels and
with the rows of the memory bank. anomalib's PatchCore is made of the same photographs. Writes
OUT/finetune.json, OUT/finetune.md and OUT/finetune.png. It takes about fifteen minutes on two
cores, and 7 GB for anomalib's environment; --no-peers leaves that out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.progress import track

from benchmarks.finetune.report import markdown, plot
from benchmarks.finetune.steps import (
    Case,
    Installed,
    Timed,
    install_own,
    install_peers,
    time_commands,
    time_patchcore,
)
from benchmarks.rendered_parts import render
from fsad_edge.bench.machine import describe_machine
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.cores import usable_cores
from fsad_edge.runtime.files import write_bytes

#: What is timed. The first is what the others are compared with.
CASES = (
    Case(5, 640, 640),
    Case(5, 1280, 960, first_model=True),
    Case(1, 640, 640),
    Case(10, 640, 640),
    Case(20, 640, 640),
    Case(5, 320, 320),
    Case(5, 1280, 960),
    Case(5, 640, 640, bank_rows=500),
    Case(5, 640, 640, bank_rows=2000),
)

#: What PatchCore is timed with.
PEER_CASES = CASES[:1] + CASES[6:7]


def photographs(case: Case, folder: Path) -> Path:
    """A folder of rendered photographs."""
    shots = folder / "shots"
    shots.mkdir(parents=True)
    for index in range(case.shots):
        image = Image.fromarray(render("bracket", (0, 0, index), size=case.height).image)
        resized = image.resize((case.width, case.height), Image.Resampling.BICUBIC)
        resized.save(shots / f"{index:03d}.jpg", quality=92)
    return shots


def run(out: Path, peers: bool, threads: int, cases: Sequence[Case] = CASES) -> str:
    """Run the benchmark and write OUT; returns the Markdown.

    Raises:
        FsadEdgeError: an environment cannot be made, or a command fails.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror or error}.") from error
    rows: list[Timed] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installed = {"fsad-edge": install_own(folder / "own")}
        if peers:
            installed["anomalib"] = install_peers(folder / "peers")
        for place, case in enumerate(track(cases, description="timing")):
            work = folder / str(place)
            shots = photographs(case, work)
            rows.append(time_commands(installed["fsad-edge"].python, shots, case, work))
            if peers and case in PEER_CASES:
                python = installed["anomalib"].python
                rows.append(time_patchcore(python, shots, case, threads))
    return _write(out, rows, installed)


def _write(out: Path, rows: Sequence[Timed], installed: dict[str, Installed]) -> str:
    machine = describe_machine()
    text = markdown(rows, installed, machine)
    document = {
        "machine": machine,
        "installed": {
            name: {"seconds": one.seconds, "megabytes": one.megabytes}
            for name, one in installed.items()
        },
        "rows": [{**dataclasses.asdict(row), "seconds": row.seconds} for row in rows],
    }
    write_bytes(out / "finetune.json", (json.dumps(document, indent=1) + "\n").encode())
    write_bytes(out / "finetune.md", text.encode())
    write_bytes(out / "finetune.png", plot(rows))
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.finetune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--no-peers", action="store_true", help="leave anomalib out")
    parser.add_argument(
        "--threads", type=int, default=usable_cores(), help="threads of torch with anomalib"
    )
    args = parser.parse_args(argv)
    try:
        print(run(args.out, not args.no_peers, args.threads), end="")
    except FsadEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
