"""``fsad-edge build``: a TensorRT engine of an ONNX file; for RTX cards also without one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import out, print_facts, print_json, shown_progress, warn
from fsad_edge.cli.learned_model import taught_beside
from fsad_edge.cli.shared_options import Json
from fsad_edge.errors import InputError

if TYPE_CHECKING:
    from fsad_edge.deploy.engine import EngineResult
    from fsad_edge.deploy.engine_options import EngineOptions


def build(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="PART.onnx",
            help="ONNX file that export wrote. An engine is built again, with its own options, "
            "from the ONNX file in its folder.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; PART.engine by default.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Images in a run: one number, or MIN,OPT,MAX.")] = "1",
    workspace: Annotated[
        int,
        typer.Option(min=1, max=1 << 20, help="MiB of memory that TensorRT may use to try layers."),
    ] = 1024,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="Later versions of TensorRT can run it too."),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option("--hardware-compatible", help="Other GPUs from Ampere on can run it too."),
    ] = False,
    gpu: Annotated[
        str,
        typer.Option(
            help="Compute capabilities of the RTX cards that the engine is for, such as 8.9 or "
            "8.6,12.0; all that TensorRT for RTX supports by default.",
        ),
    ] = "",
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="File of TensorRT's measurements; PART.timing by default."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build it again, and replace an older output.")
    ] = False,
    json_: Json = False,
) -> None:
    """Build a TensorRT engine, and prove it where a GPU can run it.

    Where the Python module tensorrt is installed, as on a Jetson, the engine is for the GPU here.
    Elsewhere TensorRT for RTX builds it for RTX cards and needs no GPU: pip install
    'fsad-edge[trt-rtx]'. An engine that scores the golden images wrongly is not kept.
    """
    from fsad_edge.deploy.batch_sizes import parse_batch_sizes
    from fsad_edge.deploy.engine_options import EngineOptions
    from fsad_edge.deploy.rtx_gpus import parse_gpus

    options = EngineOptions(
        batch=parse_batch_sizes(batch),
        workspace_mb=workspace,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        gpus=parse_gpus(gpu),
        timing_cache=timing_cache,
        force=force,
    )
    result = shown_build(file, output, options)
    if json_:
        print_json(result.to_json())
    else:
        print_engine(result)


def shown_build(file: Path, output: Path | None, options: EngineOptions) -> EngineResult:
    """Build an engine and show the progress; an engine file is built again with its own options."""
    from fsad_edge.deploy.engine import build_engine, rebuild_engine
    from fsad_edge.deploy.engine_options import EngineOptions
    from fsad_edge.pipeline.events import Progress
    from fsad_edge.runtime.engine_file import is_engine
    from fsad_edge.runtime.files import is_folder, read_bytes

    with shown_progress() as on_progress:

        def show(phase: str, fraction: float) -> None:
            on_progress(Progress("engine", fraction, phase[:40]))

        if is_folder(file) or not is_engine(read_bytes(file)):
            return build_engine(file, output, options, on_progress=show, on_warning=warn)
        if dataclasses.replace(options, timing_cache=None, force=False) != EngineOptions():
            raise InputError(
                f"{file} is built again with its own options: leave out the others, or give the "
                "ONNX file."
            )
        cache = options.timing_cache
        return rebuild_engine(file, output, cache, on_progress=show, on_warning=warn)


def print_engine(result: EngineResult) -> None:
    """Print what was built."""
    done = f"Wrote {result.path}" if result.built else f"{result.path} is built already"
    out.print(f"{done} ({result.size / 1e6:.1f} MB).")
    facts = {
        "engine": f"{result.builder}, {result.precision}, in {result.seconds} s",
        "golden images": f"{result.golden_images}, which the engine scores right"
        if result.unproved is None
        else "not scored here, but each time the engine is loaded",
    }
    if result.unproved is not None:
        without = "without a GPU" if result.gpu is None else "without trying it on the GPU here"
        facts["built"] = f"ahead of time {without}, because {result.unproved}"
        facts["runs on"] = f"{result.runs_on}; here its ONNX file runs"
    taught = taught_beside(result.path)
    if taught is not None and taught.summary.counts:
        facts["taught here"] = f"{taught.summary.words}: it counts with the engine, too"
    print_facts({**facts, "next": result.next})
