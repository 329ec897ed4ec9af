"""``fsad-edge export``: from a model directory to one ONNX file that is proved to be the same."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import err, out, print_facts, print_json, progress_bar, versions, warn
from fsad_edge.errors import ExportError, InputError, MissingExtraError, ModelFileError
from fsad_edge.runtime.files import check_output, write_bytes

if TYPE_CHECKING:
    from fsad_edge.pipeline.precision_report import PrecisionReport
    from fsad_edge.runtime.arrays import UInt8Array
    from fsad_edge.runtime.model import Model

#: Runs of the model behind the milliseconds that are printed.
TIMED_RUNS = 30


def export(
    part: Annotated[
        Path,
        typer.Argument(
            help="Model directory that finetune wrote; with --trt an ONNX file too, with --rebuild "
            "an engine."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; PART.onnx by default.")
    ] = None,
    golden: Annotated[
        bool,
        typer.Option(
            "--golden/--no-golden",
            help="Put two small shots into the file, which every load must score right; not where "
            "the parts are secret.",
        ),
    ] = True,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32; int8, twice as fast on a CPU; fp16, for GPUs. Memory bank and threshold "
            "are made anew through the graph that is written."
        ),
    ] = "fp32",
    target: Annotated[
        str,
        typer.Option(help="What int8 is for, cpu or tensorrt: they want other placements."),
    ] = "cpu",
    ranges_of: Annotated[
        Path | None,
        typer.Option(
            help="int8 file of another part with the same encoder, whose ranges are taken: both "
            "share a session then."
        ),
    ] = None,
    allow_drift: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of decisions that int8 or fp16 may flip on views of the shots, with and "
            "without synthesised defects; of AUROC they may lose half as much.",
        ),
    ] = 0.1,
    trt: Annotated[
        bool,
        typer.Option("--trt", help="Build a TensorRT engine, of PART or of an ONNX file; here."),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Build PART.engine again from the ONNX file beside it."),
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            help="Images in a run of the engine: one number, or MIN,OPT,MAX; 1, and up to 8 for "
            "Triton, by default."
        ),
    ] = None,
    workspace: Annotated[
        int, typer.Option(min=1, help="MB that TensorRT may try layers with.")
    ] = 1024,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later TensorRT versions run it too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Other GPUs from Ampere on run it too.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option(help="Of TensorRT's; PART.timing by default.")
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            "--triton", metavar="REPO", help="Add an ONNX file to Triton's model repository."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the model in that repository; PART by default.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where Triton runs it: auto, cpu, gpu or tensorrt.")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace an older output.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Write one self-contained ONNX file and prove that it scores as the trained model does."""
    from fsad_edge.cli.engine import (
        EngineRequest,
        build_engine,
        check_request,
        export_engine,
        print_engine,
    )
    from fsad_edge.cli.triton import export_to_triton

    request = EngineRequest(
        batch if batch is not None else "1" if triton is None else "1,8,8",
        *(workspace, version_compatible, hardware_compatible, timing_cache, force),
    )
    if triton is not None:
        other = precision != "fp32" or ranges_of is not None or not golden
        if trt or rebuild or output is not None or other:
            raise InputError(
                "--triton adds an ONNX file as it is: leave out --trt, --rebuild, --output, "
                "--precision, --ranges-of and --no-golden."
            )
        return export_to_triton(part, triton, name, device, request, json_)
    if name is not None or device != "auto":
        raise InputError("--name and --device go with --triton alone.")
    if rebuild or (trt and not part.is_dir()):
        return export_engine(part, output, request, rebuild, json_)
    if part.is_file():
        raise InputError(
            f"{part} is a file, not a model directory: give the folder that  fsad-edge finetune  "
            "wrote, or --trt to make an engine of an ONNX file."
        )
    if trt:
        check_request(request, precision, target)
    file = output or part.absolute().with_name(part.absolute().name + ".onnx")
    check_output(file, force)
    if file.is_dir():
        raise InputError(f"{file} is a folder: name a file, such as part.onnx.")
    with err.status("starting"):
        try:
            from fsad_edge.calibration.calibrate import (
                CalibrationSettings,
                calibrate,
                score_images,
            )
            from fsad_edge.calibration.synthetic_task import SyntheticTask
            from fsad_edge.graph.operators import check_operators
            from fsad_edge.graph.package import (
                GOLDEN_TOLERANCE,
                REDUCED_TOLERANCE,
                golden_images,
                set_metadata,
            )
            from fsad_edge.graph.parity import TOLERANCE, compare, random_images, torch_scores
            from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph, set_reference
            from fsad_edge.graph.tensorrt_operators import check_tensorrt, verdict
            from fsad_edge.pipeline.precision import (
                check_drift,
                check_precision,
                check_ranges_of,
                facts,
                rewritten,
            )
            from fsad_edge.pipeline.precision_report import CalibratedGraph, compare_precisions
            from fsad_edge.synthesis import load_shot
            from fsad_edge.training.model_directory import (
                read_encoder,
                read_manifest,
                read_reference,
                shot_paths,
                views_from_manifest,
            )
        except ImportError as error:
            raise MissingExtraError(error.name or "onnx", "train") from error

        from fsad_edge.runtime.backends.onnxruntime import OnnxSession, import_onnxruntime
        from fsad_edge.runtime.metadata import Metadata
        from fsad_edge.runtime.model import Model

        import_onnxruntime()
        check_precision(precision, target)
        manifest = read_manifest(part)
        if ranges_of is not None:
            check_ranges_of(ranges_of, precision, target, manifest)
        encoder = read_encoder(part, manifest)
        read_reference(part, manifest)
        paths = shot_paths(part, manifest)
    spec = manifest.encoder
    choices = {**manifest.calibration, "views": views_from_manifest(manifest)}
    try:
        settings = CalibrationSettings(**choices)
    except TypeError as error:
        raise ModelFileError(
            f"{part} has a damaged manifest ({error}): run  fsad-edge finetune  again."
        ) from error
    shots = [load_shot(path, spec.height, spec.width) for path in paths]
    with progress_bar() as bar:
        task = bar.add_task("graph", total=None, note="")
        graph = ScoringGraph(encoder, settings.score)
        model = build_graph(graph, settings.bank_size)
        check_operators(model)
        if trt:
            check_tensorrt(model)
        bar.update(task, total=1, completed=1)
        task = bar.add_task("memory bank and threshold", total=1.0, note="")
        fitted = calibrate(
            OnnxSession(model.SerializeToString(), str(part), "cpu"),
            shots,
            settings,
            lambda done: bar.update(task, completed=done),
        )
        set_reference(model, fitted.reference)
        task = bar.add_task("parity with torch", total=None, note="")
        session = OnnxSession(model.SerializeToString(), str(file), "cpu")
        images = [shot.image for shot in shots]
        images += random_images(spec.height, spec.width, settings.seed)
        parity = compare(
            torch_scores(graph, images, fitted.reference),
            score_images(session, images),
            fitted.threshold.value,
        )
        bar.update(task, total=1, completed=1)
    if not parity.holds:
        raise ExportError(
            f"the exported graph differs from the trained model by {parity.largest_difference:.2g} "
            f"of the score ({TOLERANCE:g} is allowed) and {parity.flips} of {parity.images} "
            "decisions flip: no file was written; take another --backbone, or report this."
        )
    report: PrecisionReport | None = None
    if precision != "fp32":
        with progress_bar() as bar:
            task = bar.add_task(f"{precision}, calibrated anew", total=1.0, note="")
            model = rewritten(model, precision, target, spec, shots, settings, ranges_of)
            check_operators(model)
            before = CalibratedGraph(session, fitted)
            session = OnnxSession(model.SerializeToString(), str(file), "cpu")
            fitted = calibrate(
                session, shots, settings, lambda done: bar.update(task, completed=done)
            )
            set_reference(model, fitted.reference)
            task = bar.add_task("compared with fp32", total=None, note="")
            report = compare_precisions(
                before, CalibratedGraph(session, fitted), SyntheticTask(shots, settings), settings
            )
            bar.update(task, total=1, completed=1)
        if not json_:
            print_facts(facts(report, precision, target))
        check_drift(report, precision, allow_drift)
    metadata = Metadata(
        name=manifest.name,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        height=spec.height,
        width=spec.width,
        backbone={
            "name": spec.architecture,
            "source": spec.source,
            "sha256": spec.sha256,
            "epochs": manifest.training["epochs"]
            if manifest.training["synthetic_auroc"]["kept"]
            else 0,
        },
        shots={"count": len(shots), "sha256": [shot.sha256 for shot in shots]},
        score=settings.score,
        threshold=fitted.threshold,
        map_threshold=fitted.map_threshold,
        bank_rows=fitted.reference.rows,
        precision=precision if precision != "int8" else f"int8 ({target})",
        golden_tolerance=GOLDEN_TOLERANCE if report is None else REDUCED_TOLERANCE,
        golden=[],
        versions=versions("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu"),
        bank_rotations=settings.bank_rotations,
        bank_flip=settings.views.flip,
        appearance=describe([shot.image for shot in shots]),
    )
    set_metadata(model, metadata)
    runtime = Model.from_bytes(model.SerializeToString(), str(file), "cpu")
    if golden:
        metadata.golden.extend(
            golden_images(paths, spec.height, spec.width, lambda data: runtime.score(data).score)
        )
        set_metadata(model, metadata)
    data = model.SerializeToString()
    Model.from_bytes(data, str(file), "cpu").check_golden()
    milliseconds = _time(runtime, images[0])
    write_bytes(file, data)
    engine = build_engine(file, None, request) if trt else None
    drift = abs(fitted.threshold.value / manifest.threshold.value - 1)
    if drift > 0.01 and report is None:
        warn(
            f"the threshold is {fitted.threshold.value:.4g} here and was "
            f"{manifest.threshold.value:.4g} at training: this version or its packages differ "
            "from those it was trained with; this file holds the value for this graph."
        )
    if json_:
        print_json(
            {
                "output": str(file),
                "bytes": len(data),
                "parity_images": parity.images,
                "largest_relative_difference": parity.largest_difference,
                "tolerance": TOLERANCE,
                "flips": parity.flips,
                "threshold": fitted.threshold.value,
                "golden_images": len(metadata.golden),
                "median_model_ms": milliseconds,
                "precision": metadata.precision,
                "against_fp32": dataclasses.asdict(report) if report else None,
                "engine": engine,
                "next": f"fsad-edge score {file} IMAGE",
            }
        )
        return
    out.print(f"Wrote {file} ({len(data) / 1e6:.1f} MB).", markup=False)
    print_facts(
        {
            "parity": f"{parity.images} images through torch and ONNX Runtime: largest difference "
            f"{parity.largest_difference:.1e} of the score ({TOLERANCE:g} allowed), "
            f"{parity.flips} decisions flip",
            "threshold": f"{fitted.threshold.value:.4g} ({fitted.threshold.method})",
            "golden images": f"{len(metadata.golden)}, scored at every load",
            "model alone": f"{milliseconds:.1f} ms, median of {TIMED_RUNS} on this CPU",
            "TensorRT": verdict(model),
            "next": f"fsad-edge score {file} IMAGE|FOLDER",
        }
    )
    if engine is not None:
        print_engine(engine)


def _time(model: Model, image: UInt8Array) -> float:
    """Median milliseconds of the model alone."""
    times = []
    for _ in range(TIMED_RUNS):
        times.append(model.score(image).timings["infer"])
    return round(sorted(times)[TIMED_RUNS // 2], 2)
