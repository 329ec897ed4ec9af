"""``fsad-edge finetune``: from a folder of good photographs to a model directory."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.choices import candidates, choices, shapes_to_try
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
from fsad_edge.cli.shots import warn_of_shots
from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.runtime.files import check_output
from fsad_edge.runtime.images import find_images

if TYPE_CHECKING:
    from fsad_edge.calibration.choose import Trial
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
        int,
        typer.Option(
            min=0, help="Passes of contrastive training over the shots, 30 for instance; 0 is none."
        ),
    ] = 0,
    image_size: Annotated[
        str,
        typer.Option(help="Side of the model's square input, pixels; auto chooses by the shots."),
    ] = "auto",
    strides: Annotated[
        str,
        typer.Option(help="Strides of the feature maps, such as 16 or 8,16; auto chooses."),
    ] = "auto",
    turns: Annotated[
        str,
        typer.Option(
            help="Steps of a full turn in which the shots go into the bank: 12 for parts at any "
            "angle, 1 where a turned part is a bad part; auto chooses."
        ),
    ] = "auto",
    budget_ms: Annotated[
        float | None,
        typer.Option(min=0.01, help="Milliseconds of the model alone that auto may spend."),
    ] = None,
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
    flip: Annotated[bool, typer.Option("--flip", help="A mirrored part is a good part.")] = False,
    keep_gain: Annotated[
        float,
        typer.Option(
            min=-1,
            max=1,
            help="Fine-tuned weights are kept where the AUROC on synthesised defects gains more "
            "than this: less is noise. -1 keeps them always.",
        ),
    ] = 0.02,
    bank_size: Annotated[
        int, typer.Option(min=1, max=100_000, help="Memory bank rows at most.")
    ] = 1000,
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
    sizes, wanted_strides, wanted_turns = shapes_to_try(image_size, strides, turns)
    numbers = (lambda_con, lambda_pp, lambda_np, learning_rate, false_alarm_rate, keep_gain)
    if not all(map(math.isfinite, numbers)):
        raise InputError("every option that takes a number needs a finite one.")

    with err.status("starting"):
        try:
            import fsad_edge.training.finetune as training
            from fsad_edge.calibration.calibrate import CalibrationSettings, calibrate
            from fsad_edge.calibration.choose import best_trial, best_turns, try_turns
            from fsad_edge.calibration.synthetic_task import SyntheticTask
            from fsad_edge.export.graph import ScoringGraph, build_graph
            from fsad_edge.runtime.session import OnnxSession, import_onnxruntime
            from fsad_edge.synthesis import Views, load_shot
            from fsad_edge.training.encoder import check_finite, pretrained_encoder, strides_of
            from fsad_edge.training.model_directory import Manifest, write_model_directory
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train") from error
        import_onnxruntime()  # missing: say so before the training, not after it
        target = training.pick_device(device)
        shapes = candidates(sizes, wanted_strides, strides_of(backbone, weights))
        encoders = [pretrained_encoder(backbone, weights, *shape) for shape in shapes]
    calibration_settings = CalibrationSettings(
        views=Views(flip=flip),
        bank_size=bank_size,
        false_alarm_rate=false_alarm_rate,
        score=score,
        seed=seed,
    )

    def graph_of(encoder: Encoder) -> OnnxSession:
        model = build_graph(ScoringGraph(encoder, score), bank_size)
        return OnnxSession(model.SerializeToString(), "the graph just built")

    with progress_bar() as bar:
        # What suits the part: every shape with every way to turn the bank.
        task = bar.add_task("choosing for the part", total=len(shapes), note="")
        trials: list[Trial] = []
        shaped: dict[Trial, Encoder] = {}
        tasks: dict[int, SyntheticTask] = {}
        for shape, encoder in zip(shapes, encoders, strict=True):
            bar.update(task, note=f"{shape[0]} px")
            if shape[0] not in tasks:
                loaded = [load_shot(file, shape[0], shape[1]) for file in files]
                if not tasks:
                    warn_of_shots(loaded, shape[0])
                tasks[shape[0]] = SyntheticTask(loaded, calibration_settings)
            tried = try_turns(
                tasks[shape[0]], graph_of(encoder), calibration_settings, shape[2], wanted_turns
            )
            trials += tried
            shaped[best_turns(tried, len(files))] = encoder
            bar.advance(task)
        chosen = best_trial(list(shaped), budget_ms)
        encoder, synthetic = shaped[chosen], tasks[chosen.image_size]
        loaded = list(synthetic.shots)
        calibration_settings = dataclasses.replace(calibration_settings, bank_turns=chosen.turns)
        settings = training.FinetuneSettings(
            epochs,
            lambda_con,
            lambda_pp,
            lambda_np,
            learning_rate=learning_rate,
            views=calibration_settings.lying_views,
            seed=seed,
        )
        start = copy.deepcopy(encoder)
        started = time.perf_counter()
        task = bar.add_task("fine-tuning", total=epochs, note="", visible=epochs > 0)

        def show(step: int, steps: int, losses: training.Losses) -> None:
            if stopped.is_set():
                raise KeyboardInterrupt
            note = f"loss {losses.total:.3f} = con {losses.con:.3f}, pp {losses.pp:.3f}, "
            bar.update(task, completed=step, total=steps, note=note + f"np {losses.np:.3f}")

        training.finetune(encoder, loaded, settings, target, show)
        seconds = time.perf_counter() - started
        check_finite(encoder, loaded[0].image)
        task = bar.add_task("memory bank and threshold", total=1.0, note="")
        session = graph_of(encoder)
        choice: dict[str, float | bool] = {"kept": epochs > 0, "before": chosen.auroc}
        if epochs:
            choice["after"] = synthetic.auroc(session, calibration_settings)
            # Training must not leave a worse model than it was given.
            choice["kept"] = choice["after"] > choice["before"] + keep_gain
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
            "trials": [dataclasses.asdict(trial) for trial in trials],
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
        "image_size": chosen.image_size,
        "strides": chosen.strides,
        "turns": chosen.turns,
        "trials": [dataclasses.asdict(trial) for trial in trials],
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
    if budget_ms is not None and chosen.milliseconds > budget_ms:
        warn(
            f"the cheapest choice takes {chosen.milliseconds:.1f} ms here, more than the "
            f"{budget_ms:g} ms of --budget-ms."
        )
    plural = "s" * (len(loaded) > 1)
    out.print(f"Made {output} from {len(loaded)} normal image{plural}.", markup=False)
    print_facts(
        {
            "encoder": f"{encoder.spec.source}, {encoder.channels} features at stride "
            f"{encoder.stride}",
            **choices(trials, chosen),
            "training": _describe(epochs, seconds, target.type, choice),
            "memory bank": f"{fitted.normals.rows} rows (--bank-size {bank_size})",
            "threshold": f"{fitted.threshold.value:.4g} ({fitted.threshold.method})",
            "": fitted.threshold.promise,
            "next": f"fsad-edge export {output}",
        }
    )


def _describe(epochs: int, seconds: float, device: str, choice: dict[str, float | bool]) -> str:
    if not epochs:
        return "none, the pretrained weights as they are (--epochs 30 trains)"
    verdict = (
        "fine-tuned weights kept"
        if choice["kept"]
        else "no clear gain, so the pretrained weights were kept"
    )
    return (
        f"{epochs} epochs in {seconds:.1f} s on {device}; AUROC on synthesised defects "
        f"{choice['before']:.4f} before, {choice['after']:.4f} after; {verdict}"
    )


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
