"""Latency of exported files and of peers, all in turns in one process.

    python -m benchmarks.latency OUT --models OURS.onnx ... [--peers-python PYTHON]
        [--peers NAME ...] [--image FILE.jpg] [--minutes 3]

Each file is timed as a model alone and from the bytes of a JPEG to a decision. Writes latency.md,
latency.json (raw percentiles) and latency.png into OUT; the peers' ONNX files and the rendered
picture stay there too, and a second run takes them from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.latency.report import describe, write_report
from benchmarks.latency.systems import PEERS, System, camera_jpeg, export_peers, ours, peer
from fsad_edge.bench.benchmark import Configuration, labels_of
from fsad_edge.bench.latency import interleave
from fsad_edge.bench.machine import describe_machine
from fsad_edge.bench.pictures import read_pictures
from fsad_edge.cli.console import err
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.files import write_bytes


def run(
    out: Path,
    files: Sequence[Path],
    python: Path | None = None,
    peers: Sequence[str] = PEERS,
    image: Path | None = None,
    threads: int = 0,
    seconds: float = 180.0,
) -> str:
    """Measure and write OUT; returns the Markdown.

    Args:
        out: folder to write into.
        files: that ``fsad-edge export`` wrote; all others are held against the first where there
            are no peers.
        python: of the peers' environment; None: ours only.
        peers: which of them, of ``PEERS``.
        image: JPEG to decode; None: a rendered part of a camera's size.
        threads: for one image, of every session; 0 leaves the choice to the engine.
        seconds: to measure, all together; warming up comes before.

    Raises:
        FsadEdgeError: a file, the picture or the peers' environment cannot be used.
    """
    machine = describe_machine()  # the load before this adds to it
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror or error}.") from error
    jpeg, picture = _picture(out, image)
    names = labels_of([Configuration(file) for file in files])
    systems = [
        ours(file, name.removesuffix(".onnx"), jpeg, threads)
        for file, name in zip(files, names, strict=True)
    ]
    versions: dict[str, Any] = {}
    if python is not None:
        versions = export_peers(python, out)
        found = versions.pop("models")
        systems += [
            peer(out / f"{each['name']}.onnx", each, jpeg, threads)
            for each in found
            if each["name"] in peers
        ]
    calls = {_key(system, "alone"): system.alone for system in systems}
    calls |= {_key(system, "whole"): system.whole for system in systems}
    with Progress(console=err) as bar:
        task = bar.add_task("measuring", total=1.0)
        measured = interleave(
            calls,
            seconds=seconds / len(calls),
            progress=lambda fraction: bar.update(task, completed=fraction),
        )
    document = describe(systems, measured, machine, versions, picture, threads)
    return write_report(out, document)


def _key(system: System, what: str) -> str:
    return f"{what}/{system.name}"


def _picture(out: Path, given: Path | None) -> tuple[bytes, str]:
    if given is not None:
        pictures = read_pictures([given])
        (width, height), jpeg = pictures.sizes[0], pictures.encoded[0]
        return jpeg, f"{given.name}, {width}x{height}, {len(jpeg) / 1e3:.0f} kB"
    jpeg = camera_jpeg()
    write_bytes(out / "part.jpg", jpeg)
    return jpeg, f"a rendered part, 1280x960 with sensor noise, JPEG of {len(jpeg) / 1e3:.0f} kB"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="OURS.onnx")
    parser.add_argument("--peers-python", type=Path, metavar="PYTHON")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, metavar="NAME")
    parser.add_argument("--image", type=Path, metavar="FILE.jpg")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to the engine")
    parser.add_argument("--minutes", type=float, default=3.0, help="to measure, all together")
    chosen = parser.parse_args(argv)
    if chosen.threads < 0 or not 0 < chosen.minutes < 1000:
        parser.error("--threads takes 0 or more, --minutes more than 0")
    try:
        text = run(
            chosen.out,
            chosen.models,
            chosen.peers_python,
            chosen.peers,
            chosen.image,
            chosen.threads,
            chosen.minutes * 60,
        )
    except FsadEdgeError as error:
        print(error, file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
