"""A part, from its shots to a model directory: what ``fsad-edge finetune`` does."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsad_edge.cli.console import err, progress_bar, stopped, versions, warn
from fsad_edge.errors import InputError, MissingExtraError
from fsad_edge.pipeline.candidates import candidates, choices, shapes_to_try, sizes_held
from fsad_edge.pipeline.check_shots import warn_of_shots
from fsad_edge.runtime.files import check_output
from fsad_edge.runtime.images import find_images

if TYPE_CHECKING:
    from fsad_edge.calibration.selection import Trial
    from fsad_edge.training.encoder import Encoder

#: AUROC on synthesised defects that steadiness against light may cost: less is noise, the task
#: being 60 normal views against 120 others.
ALIGN_LOSS = 0.05

#: What a model directory holds.
MODEL_DIRECTORY = {"manifest.json", "encoder.safetensors", "reference.safetensors", "shots"}


@dataclass(frozen=True)
class PartOptions:
    """The options of ``fsad-edge finetune``, which says what each of them is.

    ``threads`` are those of torch and of ONNX Runtime; 0 leaves the choice to them. ``bank_size``
    None goes by the number of shots.
    """

    backbone: str
    weights: Path | None
    epochs: int
    image_size: str
    strides: str
    rotations: str
    budget_ms: float | None
    device: str
    seed: int
    lambda_con: float
    lambda_pp: float
    lambda_np: float
    learning_rate: float
    flip: bool
    keep_gain: float
    align: bool
    bank_size: int | None
    score: str
    false_alarm_rate: float
    threads: int
    force: bool


@dataclass(frozen=True)
class Made:
    """What was made: for programs, and for people."""

    summary: dict[str, Any]
    facts: dict[str, str]


def make_part(shots: Path, output: Path, options: PartOptions) -> Made:
    """Fine-tune an encoder on a folder of normal images and write the model directory.

    Raises:
        FsadEdgeError: nothing was written.
    """
    files = find_images(shots)
    check_output(output, options.force)
    check_replaceable(output)
    if options.score not in {"patch", "image"}:
        raise InputError(f"--score is patch or image, not '{options.score}'.")
    sizes, wanted_strides, wanted_turns = shapes_to_try(
        options.image_size, options.strides, options.rotations
    )
    numbers = (
        options.lambda_con,
        options.lambda_pp,
        options.lambda_np,
        options.learning_rate,
        options.false_alarm_rate,
        options.keep_gain,
    )
    if not all(map(math.isfinite, numbers)):
        raise InputError("every option that takes a number needs a finite one.")

    with err.status("starting"):
        try:
            import fsad_edge.training.loop as training
            from fsad_edge.calibration.calibrate import (
                CalibrationSettings,
                bank_size_for,
                calibrate,
            )
            from fsad_edge.calibration.selection import best_rotations, best_trial, try_rotations
            from fsad_edge.calibration.synthetic_task import SyntheticTask
            from fsad_edge.graph.scoring_graph import ScoringGraph, build_graph
            from fsad_edge.runtime.backends.onnxruntime import OnnxSession, import_onnxruntime
            from fsad_edge.synthesis import Views, load_shot
            from fsad_edge.training.encoder import check_finite, pretrained_encoder, strides_of
            from fsad_edge.training.model_directory import Manifest, write_model_directory
        except ImportError as error:
            raise MissingExtraError(error.name or "torch", "train") from error
        import_onnxruntime()  # missing: say so before the training, not after it
        target = training.pick_device(options.device)
        training.limit_threads(options.threads)
        offered = strides_of(options.backbone, options.weights)
    with err.status("reading the shots"):
        loaded = [load_shot(file, sizes[0], sizes[0]) for file in files]
        warn_of_shots(loaded)
        if options.image_size == "auto":
            sizes = sizes_held(sizes, [shot.size for shot in loaded])
        shapes = candidates(sizes, wanted_strides, offered)
    bank_size = options.bank_size or bank_size_for(len(files))
    calibration_settings = CalibrationSettings(
        views=Views(flip=options.flip),
        bank_size=bank_size,
        align=False,  # until it is known to do no harm
        false_alarm_rate=options.false_alarm_rate,
        score=options.score,
        seed=options.seed,
    )

    def graph_of(encoder: Encoder) -> OnnxSession:
        model = build_graph(ScoringGraph(encoder, options.score), bank_size)
        return OnnxSession(
            model.SerializeToString(), "the graph just built", threads=options.threads
        )

    with progress_bar() as bar:
        # What suits the part: every shape with every way to turn the bank.
        task = bar.add_task("choosing for the part", total=len(shapes), note="")
        trials: list[Trial] = []
        best: tuple[Trial, Encoder, SyntheticTask] | None = None
        synthetic = None
        for shape in shapes:
            bar.update(task, note=f"{shape[0]} px")
            encoder = pretrained_encoder(options.backbone, options.weights, *shape)
            session = graph_of(encoder)
            if synthetic is None or shape[0] != synthetic.side:
                if shape[0] != loaded[0].image.shape[0]:
                    loaded = [load_shot(file, shape[0], shape[1]) for file in files]
                synthetic = SyntheticTask(loaded, calibration_settings)
            milliseconds = synthetic.milliseconds(session)
            if best is None or options.budget_ms is None or milliseconds <= options.budget_ms:
                tried = try_rotations(
                    *(synthetic, session, calibration_settings, shape[2]),
                    *(wanted_turns, milliseconds),
                )
                trials += tried
                found = best_rotations(tried, len(files))
                # The beaten are let go of: many shots at several sizes would fill the memory.
                if best is None or best_trial([best[0], found]) is found:
                    best = found, encoder, synthetic
            bar.advance(task)
        assert best is not None  # the first shape is tried whatever it takes
        chosen, encoder, synthetic = best
        loaded = list(synthetic.shots)
        calibration_settings = dataclasses.replace(
            calibration_settings, bank_rotations=chosen.rotations
        )
        settings = training.FinetuneSettings(
            options.epochs,
            options.lambda_con,
            options.lambda_pp,
            options.lambda_np,
            learning_rate=options.learning_rate,
            views=calibration_settings.lying_views,
            seed=options.seed,
        )
        start = copy.deepcopy(encoder)
        started = time.perf_counter()
        task = bar.add_task(
            "fine-tuning", total=options.epochs, note="", visible=options.epochs > 0
        )

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
        choice: dict[str, float | bool] = {"kept": options.epochs > 0, "before": chosen.auroc}
        if options.epochs:
            choice["after"] = synthetic.solve(session, calibration_settings).auroc
            # Training must not leave a worse model than it was given.
            choice["kept"] = choice["after"] > choice["before"] + options.keep_gain
            if not choice["kept"]:
                encoder, session = start, graph_of(start)
        alignment = {"before": choice["after"] if choice["kept"] else choice["before"]}
        if options.align:
            aligned = dataclasses.replace(calibration_settings, align=True)
            alignment["after"] = synthetic.solve(session, aligned).auroc
            if alignment["after"] >= alignment["before"] - ALIGN_LOSS:
                calibration_settings = aligned
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
            "alignment": alignment,
            "trials": [dataclasses.asdict(trial) for trial in trials],
        },
        calibration=dataclasses.asdict(calibration_settings),
        shots=[],
        files={},
        threshold=fitted.threshold,
        map_threshold=fitted.map_threshold,
        bank_rows=fitted.reference.rows,
        versions=versions("torch", "timm", "onnx", "onnxruntime", "onnxruntime-gpu"),
    )
    write_model_directory(output, manifest, encoder, fitted.reference, loaded)
    summary: dict[str, Any] = {
        "output": str(output),
        "shots": len(loaded),
        "backbone": encoder.spec.source,
        "image_size": chosen.image_size,
        "strides": chosen.strides,
        "rotations": chosen.rotations,
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "epochs": options.epochs,
        "training_seconds": round(seconds, 1),
        "synthetic_auroc": choice,
        "aligned": calibration_settings.align,
        "alignment": alignment,
        "bank_rows": fitted.reference.rows,
        "threshold": fitted.threshold.value,
        "reliability": fitted.threshold.reliability,
        "next": f"fsad-edge export {output}",
    }

    if options.budget_ms is not None and chosen.milliseconds > options.budget_ms:
        warn(
            f"the cheapest choice takes {chosen.milliseconds:.1f} ms here, more than the "
            f"{options.budget_ms:g} ms of --budget-ms."
        )
    facts = {
        "encoder": f"{encoder.spec.source}, {encoder.channels} features at stride {encoder.stride}",
        **choices(trials, chosen),
        "training": _describe(options.epochs, seconds, target.type, choice),
        "light": _describe_alignment(alignment, calibration_settings.align),
        "memory bank": f"{fitted.reference.rows} rows (--bank-size {bank_size})",
        "threshold": f"{fitted.threshold.value:.4g} ({fitted.threshold.method})",
        "": fitted.threshold.reliability,
        "next": f"fsad-edge export {output}",
    }
    return Made(summary, facts)


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


def _describe_alignment(aurocs: dict[str, float], kept: bool) -> str:
    if "after" not in aurocs:
        return "features as they are (--no-align)"
    verdict = (
        "what light changes in the features is shrunk"
        if kept
        else "features as they are, for shrinking what light changes would cost accuracy"
    )
    return (
        f"{verdict}; AUROC on synthesised defects {aurocs['before']:.4f} before, "
        f"{aurocs['after']:.4f} after (--no-align leaves them)"
    )


def check_replaceable(output: Path) -> None:
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
