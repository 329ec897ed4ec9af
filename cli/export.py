"""``fsad-edge export``: from a model directory to one ONNX file that is proved to be the same."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import err, out, print_facts, print_json, progress_bar, versions, warn
from fsad_edge.errors import ExportError, InputError, MissingExtraError, ModelFileError
from fsad_edge.runtime.files import check_output, write_bytes

if TYPE_CHECKING:
    from fsad_edge.runtime.images import UInt8Array
    from fsad_edge.runtime.model import Model

#: Runs of the model behind the milliseconds that are printed.
TIMED_RUNS = 30


def export(
    part: Annotated[Path, typer.Argument(help="Model directory that finetune wrote.")],
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
    force: Annotated[bool, typer.Option("--force", help="Replace an older output.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Write one self-contained ONNX file and prove that it scores as the trained model does."""
    target = output or part.absolute().with_name(part.absolute().name + ".onnx")
    check_output(target, force)
    if target.is_dir():
        raise InputError(f"{target} is a folder: name a file, such as part.onnx.")
    with err.status("starting"):
        try:
            from fsad_edge.calibration.calibrate import (
                CalibrationSettings,
                calibrate,
                score_images,
            )
            from fsad_edge.export.graph import ScoringGraph, build_graph, set_normals
            from fsad_edge.export.operators import check_operators
            from fsad_edge.export.package import GOLDEN_TOLERANCE, golden_images, set_metadata
            from fsad_edge.export.parity import TOLERANCE, compare, random_images, torch_scores
            from fsad_edge.synthesis import load_shot
            from fsad_edge.training.model_directory import (
                read_encoder,
                read_manifest,
                read_normals,
                shot_paths,
                views_from_manifest,
            )
        except ImportError as error:
            raise MissingExtraError(error.name or "onnx", "train") from error
        from fsad_edge.runtime.metadata import Metadata
        from fsad_edge.runtime.model import Model
        from fsad_edge.runtime.session import OnnxSession, import_onnxruntime

        import_onnxruntime()
        manifest = read_manifest(part)
        encoder = read_encoder(part, manifest)
        read_normals(part, manifest)
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
        bar.update(task, total=1, completed=1)
        task = bar.add_task("memory bank and threshold", total=1.0, note="")
        fitted = calibrate(
            OnnxSession(model.SerializeToString(), str(part), "cpu"),
            shots,
            settings,
            lambda done: bar.update(task, completed=done),
        )
        set_normals(model, fitted.normals)
        task = bar.add_task("parity with torch", total=None, note="")
        session = OnnxSession(model.SerializeToString(), str(target), "cpu")
        images = [shot.image for shot in shots]
        images += random_images(spec.height, spec.width, settings.seed)
        parity = compare(
            torch_scores(graph, images, fitted.normals),
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
        bank_rows=fitted.normals.rows,
        precision="fp32",
        golden_tolerance=GOLDEN_TOLERANCE,
        golden=[],
        versions=versions("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu"),
    )
    set_metadata(model, metadata)
    runtime = Model.from_bytes(model.SerializeToString(), str(target), "cpu")
    if golden:
        metadata.golden.extend(
            golden_images(paths, spec.height, spec.width, lambda data: runtime.score(data).score)
        )
        set_metadata(model, metadata)
    data = model.SerializeToString()
    Model.from_bytes(data, str(target), "cpu").check_golden()
    milliseconds = _time(runtime, images[0])
    write_bytes(target, data)
    drift = abs(fitted.threshold.value / manifest.threshold.value - 1)
    if drift > 0.01:
        warn(
            f"the threshold is {fitted.threshold.value:.4g} here and was "
            f"{manifest.threshold.value:.4g} at training: the packages differ from those it was "
            "trained with; this file holds the value for this graph."
        )
    if json_:
        print_json(
            {
                "output": str(target),
                "bytes": len(data),
                "parity_images": parity.images,
                "largest_relative_difference": parity.largest_difference,
                "tolerance": TOLERANCE,
                "flips": parity.flips,
                "threshold": fitted.threshold.value,
                "golden_images": len(metadata.golden),
                "median_model_ms": milliseconds,
                "next": f"fsad-edge score {target} IMAGE",
            }
        )
        return
    out.print(f"Wrote {target} ({len(data) / 1e6:.1f} MB).", markup=False)
    print_facts(
        {
            "parity": f"{parity.images} images through torch and ONNX Runtime: largest difference "
            f"{parity.largest_difference:.1e} of the score ({TOLERANCE:g} allowed), "
            f"{parity.flips} decisions flip",
            "threshold": f"{fitted.threshold.value:.4g} ({fitted.threshold.method})",
            "golden images": f"{len(metadata.golden)}, scored at every load",
            "model alone": f"{milliseconds:.1f} ms, median of {TIMED_RUNS} on this CPU",
            "next": f"fsad-edge score {target} IMAGE|FOLDER",
        }
    )


def _time(model: Model, image: UInt8Array) -> float:
    """Median milliseconds of the model alone."""
    times = []
    for _ in range(TIMED_RUNS):
        times.append(model.score(image).timings["infer"])
    return round(sorted(times)[TIMED_RUNS // 2], 2)
