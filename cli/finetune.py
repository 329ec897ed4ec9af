"""``fsad-edge finetune``: from a folder of good photographs to a model directory."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import (
    err,
    out,
    print_facts,
    print_json,
    progress_bar,
    stopped,
    versions,
    warn,
)
from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.runtime.files import check_output
from fsad_edge.runtime.images import find_images

if TYPE_CHECKING:
    from fsad_edge.synthesis import Shot
    from fsad_edge.training.encoder import Encoder

#: What a model directory holds.
MODEL_DIRECTORY = {"manifest.json", "encoder.safetensors", "normals.safetensors", "shots"}

#: The encoder inside the package: needs no network.
DEFAULT_BACKBONE = "fsad_edge"


def finetune(
    shots: Annotated[Path, typer.Argument(help="Folder of normal images, 1 to about 50.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model directory to write.")],
    backbone: Annotated[
        str,
        typer.Option(
            help="Pretrained encoder: the bundled one, or in timm's forms a model name, "
            "hf-hub:NAME or local-dir:FOLDER."
        ),
    ] = DEFAULT_BACKBONE,
    weights: Annotated[
        Path | None,
        typer.Option(help="Checkpoint (.safetensors or .pth) for it, instead of the hub's."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=0, help="Passes over the shots; 0 keeps the pretrained weights.")
    ] = 30,
    image_size: Annotated[
        int, typer.Option(min=32, max=2048, help="Side of the model's square input, pixels.")
    ] = 224,
    strides: Annotated[
        str, typer.Option(help="Strides of the feature maps to use, such as 16 or 8,16.")
    ] = "16",
    device: Annotated[str, typer.Option(help="To train on: auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all chance.")] = 0,
    lambda_con: Annotated[
        float, typer.Option(min=0, help="Weight of the instance contrastive loss.")
    ] = 1.0,
    lambda_pp: Annotated[
        float, typer.Option(min=0, help="Weight of the cross-instance positive pairs.")
    ] = 1.0,
    lambda_np: Annotated[
        float, typer.Option(min=0, help="Weight of the synthesised negative pairs.")
    ] = 1.0,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Of the encoder, at its height.")
    ] = 1e-5,
    rotate: Annotated[
        float,
        typer.Option(
            min=0, max=180, help="Largest turn of a view, degrees; 180 for parts at any angle."
        ),
    ] = 2.0,
    flip: Annotated[bool, typer.Option("--flip", help="A mirrored part is a good part.")] = False,
    bank_size: Annotated[
        int, typer.Option(min=1, max=100_000, help="Memory bank rows at most.")
    ] = 2000,
    score: Annotated[str, typer.Option(help="The score that decides: patch or image.")] = "patch",
    false_alarm_rate: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="Good parts that may be rejected, as a fraction."),
    ] = 0.01,
    force: Annotated[bool, typer.Option("--force", help="Replace an older output.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Fine-tune an encoder on normal images and learn what normal is."""
    files = find_images(shots)
    check_output(output, force)
    _check_replaceable(output)
    if score not in {"patch", "image"}:
        raise InputError(f"--score is patch or image, not '{score}'.")
    wanted_strides = _parse_strides(strides)
    numbers = (lambda_con, lambda_pp, lambda_np, learning_rate, rotate, false_alarm_rate)
    if not all(map(math.isfinite, numbers)):
        raise InputError("every option that takes a number needs a finite one.")

    with err.status("starting"):
        try:
            import fsad_edge.training.finetune as training
            from fsad_edge.calibration.calibrate import CalibrationSettings, calibrate
            from fsad_edge.calibration.synthetic_task import NOISE, synthetic_auroc
            from fsad_edge.export.graph import ScoringGraph, build_graph
            from fsad_edge.runtime.session import OnnxSession, import_onnxruntime
            from fsad_edge.synthesis import Views
            from fsad_edge.training.encoder import check_finite, pretrained_encoder
            from fsad_edge.training.model_directory import Manifest, write_model_directory
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train") from error
        import_onnxruntime()  # missing: say so before the training, not after it
        target = training.pick_device(device)
        encoder = pretrained_encoder(backbone, weights, image_size, image_size, wanted_strides)
    loaded = _load_shots(files, image_size)
    views = Views(rotate=rotate, flip=flip)
    settings = training.FinetuneSettings(
        epochs,
        lambda_con,
        lambda_pp,
        lambda_np,
        learning_rate=learning_rate,
        views=views,
        seed=seed,
    )
    calibration_settings = CalibrationSettings(
        views=views,
        bank_size=bank_size,
        bank_turns=12 if rotate >= 90 else 1,
        false_alarm_rate=false_alarm_rate,
        score=score,
        seed=seed,
    )

    def graph_of(encoder: Encoder) -> OnnxSession:
        model = build_graph(ScoringGraph(encoder, score), bank_size)
        return OnnxSession(model.SerializeToString(), "the graph just built")

    choice: dict[str, float | bool] = {"kept": epochs > 0}
    with progress_bar() as bar:
        if epochs:
            task = bar.add_task("synthetic task", total=None, note="")
            start = copy.deepcopy(encoder)
            choice["before"] = synthetic_auroc(graph_of(encoder), loaded, calibration_settings)
            bar.update(task, total=1, completed=1)
        started = time.perf_counter()
        task = bar.add_task("fine-tuning", total=max(epochs, 1), note="")

        def show(step: int, steps: int, losses: training.Losses) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            note = f"loss {losses.total:.3f} = con {losses.con:.3f}, pp {losses.pp:.3f}, "
            bar.update(task, completed=step, total=steps, note=note + f"np {losses.np:.3f}")

        training.finetune(encoder, loaded, settings, target, show)
        bar.update(task, completed=bar.tasks[task].total)
        seconds = time.perf_counter() - started
        check_finite(encoder, loaded[0].image)
        task = bar.add_task("memory bank and threshold", total=1.0, note="")
        session = graph_of(encoder)
        if epochs:
            choice["after"] = synthetic_auroc(session, loaded, calibration_settings)
            # Training must not leave a worse model than it was given.
            choice["kept"] = choice["after"] > choice["before"] + NOISE
            if not choice["kept"]:
                encoder, session = start, graph_of(start)
        fitted = calibrate(
            session, loaded, calibration_settings, lambda done: bar.update(task, completed=done)
        )
    manifest = Manifest(
        name=output.absolute().name,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        encoder=encoder.spec,
        training={
            **dataclasses.asdict(settings),
            "seconds": round(seconds, 1),
            "synthetic_auroc": choice,
        },
        calibration=dataclasses.asdict(calibration_settings),
        shots=[],
        files={},
        threshold=fitted.threshold,
        map_threshold=fitted.map_threshold,
        bank_rows=fitted.normals.rows,
        versions=versions("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu"),
    )
    write_model_directory(output, manifest, encoder, fitted.normals, loaded)
    summary = {
        "output": str(output),
        "shots": len(loaded),
        "backbone": encoder.spec.source,
        "epochs": epochs,
        "training_seconds": round(seconds, 1),
        "synthetic_auroc": choice,
        "bank_rows": fitted.normals.rows,
        "threshold": fitted.threshold.value,
        "promise": fitted.threshold.promise,
        "next": f"fsad-edge export {output}",
    }
    if json_:
        print_json(summary)
        return
    plural = "s" * (len(loaded) > 1)
    out.print(f"Made {output} from {len(loaded)} normal image{plural}.", markup=False)
    print_facts(
        {
            "encoder": f"{encoder.spec.source}, {encoder.channels} features at stride "
            f"{encoder.stride}",
            "training": _describe(epochs, seconds, target.type, choice),
            "memory bank": f"{fitted.normals.rows} rows (room for {bank_size})",
            "threshold": f"{fitted.threshold.value:.4g} ({fitted.threshold.method})",
            "": fitted.threshold.promise,
            "next": f"fsad-edge export {output}",
        }
    )


def _describe(epochs: int, seconds: float, device: str, choice: dict[str, float | bool]) -> str:
    if not epochs:
        return "none, the pretrained weights as they are"
    verdict = (
        "fine-tuned weights kept"
        if choice["kept"]
        else "no clear gain, so the pretrained weights were kept"
    )
    return (
        f"{epochs} epochs in {seconds:.1f} s on {device}; AUROC on synthesised defects "
        f"{choice['before']:.4f} before, {choice['after']:.4f} after; {verdict}"
    )


def _parse_strides(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--strides takes numbers such as 16 or 8,16, not '{text}'.") from None


def _check_replaceable(output: Path) -> None:
    """--force replaces a model directory, never somebody's other folder."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        # Many tools write a manifest.json; a damaged one of this project's is not recognised.
        manifest = json.loads((output / "manifest.json").read_text())
        ours = {"schema", "encoder", "calibration"} <= set(manifest)
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise InputError(
            f"{output} exists and is not a model directory: it is left alone, name another output."
        )
    others = sorted({path.name for path in output.iterdir()} - MODEL_DIRECTORY)
    if others:
        raise InputError(
            f"{output} also holds {others[0]}, which finetune did not write and --force would "
            "delete: move it away, or name another output."
        )


def _load_shots(files: Sequence[Path], image_size: int) -> list[Shot]:
    from fsad_edge.synthesis import load_shot

    if len(files) > 50:
        warn(
            f"{len(files)} images: more than about 50 take long and add little; the memory bank "
            "keeps what differs."
        )
    with progress_bar() as bar:
        task = bar.add_task("reading shots", total=len(files), note="")
        shots = []
        for file in files:
            shots.append(load_shot(file, image_size, image_size))
            bar.advance(task)
    areas = [shot.size[0] * shot.size[1] for shot in shots]
    shapes = [shot.size[0] / shot.size[1] for shot in shots]
    if max(areas) > 4 * min(areas) or max(shapes) > 1.5 * min(shapes):
        small, large = (shots[areas.index(pick(areas))] for pick in (min, max))
        warn(
            "the shots differ much in size or shape "
            f"({small.path.name} is {small.size[0]}x{small.size[1]}, "
            f"{large.path.name} is {large.size[0]}x{large.size[1]}): all are stretched to "
            f"{image_size}x{image_size}, so photograph parts alike where you can."
        )
    if len({shot.sha256 for shot in shots}) < len(shots):
        warn("some shots are the same file twice: they add nothing and make the threshold too low.")
    return shots
