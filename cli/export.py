"""``fsad-edge export``: from a model directory to one ONNX file that is proved to be the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fsad_edge
from fsad_edge.cli.console import out, print_facts, print_json, shown_progress, warn
from fsad_edge.cli.learned_model import change_document
from fsad_edge.cli.shared_options import Force, Json
from fsad_edge.cli.unused_options import refuse_unused
from fsad_edge.errors import FsadEdgeError, InputError, MissingExtraError
from fsad_edge.options import Precision, Target
from fsad_edge.pipeline.options import ExportOptions
from fsad_edge.runtime.where_fast import where_fast

if TYPE_CHECKING:
    from fsad_edge.deploy.engine import EngineResult
    from fsad_edge.deploy.engine_options import EngineOptions
    from fsad_edge.pipeline.export import ExportResult
    from fsad_edge.pipeline.precision import PrecisionReport


def export(
    context: typer.Context,
    part: Annotated[
        Path | None,
        typer.Argument(
            help="Model directory that finetune wrote; by default the one in this folder.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; PART.onnx by default.")
    ] = None,
    golden: Annotated[
        bool,
        typer.Option(
            "--golden/--no-golden",
            help="Put two small shots into the file, which every load must score right, and small "
            "pictures of all shots, to show what a part should look like. Leave them out where the "
            "parts are secret.",
        ),
    ] = True,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Number format of the encoder: int8 is faster on a CPU (bench tells how much), "
            "fp16 is for GPUs and needs the extra fp16. Both are compared with fp32 on drawn "
            "defects, which takes about as long as finetune."
        ),
    ] = Precision.FP32,
    target: Annotated[
        Target,
        typer.Option(
            help="Engine that an int8 file is written for, and alone runs it fast: ONNX Runtime on "
            "a CPU, or TensorRT."
        ),
    ] = Target.CPU,
    ranges_of: Annotated[
        Path | None,
        typer.Option(
            help="int8 file of another part with the same encoder, whose activation ranges are "
            "taken: both parts can then share a session."
        ),
    ] = None,
    allow_drift: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of decisions that int8 or fp16 may change on views of the shots, with and "
            "without synthesised defects. Half as much AUROC may be lost.",
        ),
    ] = 0.1,
    trt: Annotated[
        bool,
        typer.Option(
            "--trt",
            help="Build a TensorRT engine of the file, too: for the GPU here where tensorrt is "
            "installed, else for RTX cards, without a GPU, where fsad-edge[trt-rtx] is. Where "
            "neither can, the ONNX file is written, and a sentence says how to build the engine on "
            "the device.",
        ),
    ] = False,
    gpu: Annotated[
        str,
        typer.Option(
            help="With --trt: compute capabilities of the RTX cards that the engine is for, such "
            "as 8.9 or 8.6,12.0; all that TensorRT for RTX supports by default."
        ),
    ] = "",
    allow_lost: Annotated[
        bool,
        typer.Option(
            "--allow-lost",
            help="Write the file although it decides examples wrongly that files of this part "
            "beside it decide rightly with what they were taught.",
        ),
    ] = False,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Write one ONNX file that is proved to score the same.

    It holds all that scoring needs. With a --backbone that torch made, the shots and noise are
    scored by torch and by ONNX Runtime, and no file is written where they differ.
    """
    if precision == Precision.FP32:
        refuse_unused(context, "--precision int8 or fp16", "allow_drift")
    if precision != Precision.INT8:
        refuse_unused(context, "--precision int8", "target")
    if trt and precision == Precision.INT8 and target != Target.TENSORRT:
        raise InputError("--precision int8 --trt  needs  --target tensorrt: the other is for CPUs.")
    if not trt:
        refuse_unused(context, "--trt", "gpu")
    engine_options = _engine_options(gpu, force)
    options = ExportOptions(
        golden=golden,
        precision=precision,
        target=target,
        ranges_of=ranges_of,
        allow_drift=allow_drift,
        force=force,
        allow_lost=allow_lost,
    )
    no_engine = _why_no_engine(engine_options) if trt else None
    if part is None:
        from fsad_edge.pipeline.model_directory import find_model_directory

        part = find_model_directory(Path())
    with shown_progress() as on_progress:
        made = fsad_edge.export(part, output, options, on_progress=on_progress, on_warning=warn)
    engine = _build_engine(made, engine_options) if trt and no_engine is None else None
    stale = _warn_of_stale(made, engine)
    if json_:
        print_json(_summary(made, engine, no_engine, stale))
        return
    out.print(f"Wrote {made.path} ({made.size / 1e6:.1f} MB).")
    print_facts(_facts(made))
    if engine is not None:
        from fsad_edge.cli.build import print_engine

        print_engine(engine)
    elif no_engine is not None:
        out.print(
            f"No TensorRT engine was built here: {no_engine} An engine is built on the device that "
            f"runs it: copy {made.path.name} there and run  fsad-edge build {made.path.name} . For "
            "RTX cards it is built here too, after  pip install 'fsad-edge[trt-rtx]'",
        )


def _engine_options(gpu: str, force: bool) -> EngineOptions:
    from fsad_edge.deploy.engine_options import EngineOptions
    from fsad_edge.deploy.rtx_gpus import parse_gpus

    return EngineOptions(gpus=parse_gpus(gpu), force=force)


def _why_no_engine(options: EngineOptions) -> str | None:
    """Why TensorRT cannot build an engine on this machine, one sentence; None where it can."""
    from fsad_edge.deploy.build_machine import check_machine

    try:
        check_machine(options)
    except MissingExtraError:
        return "TensorRT is not installed."
    except FsadEdgeError as error:
        if options.gpus:  # it is these that do not fit, and not the machine
            raise
        return str(error)
    return None


def _build_engine(made: ExportResult, options: EngineOptions) -> EngineResult:
    from fsad_edge.cli.build import shown_build

    return shown_build(made.path, None, options)


def _warn_of_stale(made: ExportResult, engine: EngineResult | None) -> list[str]:
    """Warn of engines beside the file that were built from the one before; the sentences."""
    from fsad_edge.deploy.stale_engines import stale_sentence

    built = None if engine is None else engine.path.absolute()
    sentences = [
        stale_sentence(one, made.path) for one in made.stale_engines if one.absolute() != built
    ]
    for sentence in sentences:
        warn(sentence)
    return sentences


def _summary(
    made: ExportResult, engine: EngineResult | None, no_engine: str | None, stale: list[str]
) -> dict[str, Any]:
    report, parity = made.precision_report, made.parity
    return {
        "output": str(made.path),
        "bytes": made.size,
        "parity_images": parity and parity.images,
        "largest_relative_difference": parity and parity.largest_difference,
        "flips": parity and parity.flips,
        "threshold": made.threshold.value,
        "golden_images": made.golden_images,
        "median_model_ms": made.latency_ms,
        "precision": made.precision,
        "runs_fast": where_fast(made.precision),
        "against_fp32": None if report is None else dataclasses.asdict(report),
        "engine": None if engine is None else engine.to_json(),
        "no_engine": no_engine,
        "warnings": [*made.warnings, *stale],
        "examples": [
            {
                "model": str(one.model),
                "folder": str(one.folder),
                "count": 0 if one.result is None else one.result.count,
                "changes": [
                    change_document(change)
                    for change in (() if one.result is None else one.result.changes)
                ],
            }
            for one in made.regression
        ],
        "next": f"fsad-edge score {made.path} IMAGE",
    }


def _facts(made: ExportResult) -> dict[str, str]:
    parity, report = made.parity, made.precision_report
    return {
        "parity": f"the encoder's {'' if report is None else 'fp32 '}graph is that of the package, "
        "which was compared with torch before"
        if parity is None
        else f"{parity.images} images (the shots and noise) through torch and ONNX Runtime: "
        f"they differ by {parity.largest_difference:.1e} of the score at most, {parity.flips} "
        "decisions flip",
        **({} if report is None else _precision_facts(report, made.precision)),
        "threshold": f"{made.threshold.value:.4g} ({made.threshold.method})",
        "golden images": f"{made.golden_images}, scored at every load",
        **_regression_facts(made),
        "runs fast": where_fast(made.precision),
        "model alone": f"{made.latency_ms:.1f} ms, median on this CPU",
        **_tensorrt_facts(made),
        "next": f"fsad-edge score {made.path} IMAGE|FOLDER",
    }


def _tensorrt_facts(made: ExportResult) -> dict[str, str]:
    if made.tensorrt is not None:
        return {"TensorRT": made.tensorrt}
    if made.precision == f"{Precision.INT8} ({Target.TENSORRT})":
        return {
            "TensorRT": "the graph was not compared with NVIDIA's operator tables, which needs the "
            "package onnx ( pip install 'fsad-edge[fp16]' );  fsad-edge build  asks NVIDIA's parser"
        }
    return {}


def _regression_facts(made: ExportResult) -> dict[str, str]:
    tried = [one.result for one in made.regression if one.result is not None]
    count = sum(one.count for one in tried)
    if not count:
        return {}
    changed = sum(len(one.changes) for one in tried)
    return {"examples": f"{count} of files of this part were tried, {changed} of them change sides"}


def _precision_facts(report: PrecisionReport, name: str) -> dict[str, str]:
    return {
        "precision": f"{name}, compared with fp32 on {report.images} views of the shots, with and "
        "without a synthesised defect:",
        "  score drift": f"{report.normal_drift:.3f} of the threshold at most without a defect, "
        f"{report.defect_drift:.3f} with one",
        "  decisions": f"{report.flips} of {report.images} flip",
        "  drawn defects": f"AUROC {report.auroc_before:.4f} before, {report.auroc_after:.4f} "
        "after, which compares the two and does not say how many real ones will be found",
        "  time": f"{report.ms_before:.2f} ms before, {report.ms_after:.2f} ms after, on this CPU"
        + ("; fp16 is for GPUs, a CPU computes it as fp32" if name == Precision.FP16 else ""),
    }
