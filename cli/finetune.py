"""``fsad-edge finetune``: from a folder of good photographs to a model directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import fsad_edge
from fsad_edge.calibration.placing import ASSUMES, place_facts
from fsad_edge.cli.console import ERROR, counted, out, print_facts, print_json, shown_progress, warn
from fsad_edge.cli.shared_options import Force, Json
from fsad_edge.cli.unused_options import refuse_unused
from fsad_edge.errors import InputError, needs_extra
from fsad_edge.options import (
    MAX_THREADS,
    MAX_WORKERS,
    BundledEncoder,
    ComparePlaces,
    Device,
    Locate,
    ScoreKind,
    Turning,
)
from fsad_edge.pipeline.options import FEWEST_TO_TRAIN, FinetuneOptions
from fsad_edge.runtime.documents import to_document
from fsad_edge.runtime.environment import has_modules
from fsad_edge.runtime.files import exists
from fsad_edge.runtime.folders import describe

if TYPE_CHECKING:
    from fsad_edge.pipeline.finetune import FinetuneResult


def finetune(
    context: typer.Context,
    shots: Annotated[
        Path,
        typer.Argument(
            help="Folder of 1 to about 50 normal images; with --ray a folder of such folders."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Model directory to write; with --ray a folder of them."
        ),
    ] = Path("part"),
    encoder: Annotated[
        BundledEncoder | None,
        typer.Option(
            help="Bundled encoder. accurate takes about three times as long as fast. Without this, "
            "it is taken where drawn defects stand out more with it and --budget-ms allows it.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Another pretrained encoder, in timm's forms: a model name, hf-hub:NAME or "
            "local-dir:FOLDER. Needs the extra train.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint (.safetensors or .pth) for --backbone or --encoder; without these, "
            "for fast."
        ),
    ] = None,
    epochs: Annotated[
        str,
        typer.Option(
            help="Contrastive training on the shots. auto trains a projection of the features and "
            "keeps it where shots that it has not seen confirm it; a number, up to 1,000,000, "
            "trains the whole encoder for so many passes, which seldom helps; 0 trains nothing. "
            "Training needs the extra train."
        ),
    ] = "auto",
    image_size: Annotated[
        str,
        typer.Option(
            help="Side of the model's square input in pixels, 32 to 4096, or auto. auto tries 224 "
            "to 2048, and nothing with more pixels than the photographs have; a part that is found "
            "may be enlarged, to 1024 at most. Four times the pixels take four times as long. "
            "Above 1024 the encoder runs over overlapping tiles."
        ),
    ] = "auto",
    strides: Annotated[
        str,
        typer.Option(
            help="Strides of the encoder's feature maps, or auto: the bundled encoders have 16 "
            "alone, others have several, such as 8,16."
        ),
    ] = "auto",
    locate: Annotated[
        Locate,
        typer.Option(
            help="Find the part in each photograph, so that the model looks at it alone: auto "
            "where the shots show one part on a plain ground and it pays, turned upright where "
            "parts lie at different angles; box always and never turned; or off."
        ),
    ] = Locate.AUTO,
    rotations: Annotated[
        str,
        typer.Option(
            help="Steps of a full turn in which the shots go into the memory bank, or auto: 1, or "
            "12 where the shots show parts at any angle. With more than 1 turned parts are good."
        ),
    ] = "auto",
    place: Annotated[
        ComparePlaces,
        typer.Option(
            help="Compare images with the shots place by place, too, which finds what is missing, "
            "extra or in another place: auto where the shots show the same thing at the same "
            "places, on always, or off."
        ),
    ] = ComparePlaces.AUTO,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1e6,
            help="Most milliseconds that the model alone may take on this computer.",
        ),
    ] = None,
    budget_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1e6,
            help="Most seconds to search for the image size and encoder that suit the part. What "
            "there is no time for is named. 0 takes the first model without a search. Without this "
            "option, the search goes on to its end.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        Device,
        typer.Option(
            help="cuda trains on the GPU, and computes the features there, too, where "
            "onnxruntime-gpu is installed; cpu uses no GPU; auto takes what is there. It is "
            "meant for a number of --epochs: without one most of the work stays on the CPU."
        ),
    ] = Device.AUTO,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")] = 0,
    lambda_con: Annotated[
        float,
        typer.Option(min=0, max=1e6, help="Weight of the instance contrastive loss."),
    ] = 1.0,
    lambda_pp: Annotated[
        float, typer.Option(min=0, max=1e6, help="Weight of the cross-instance positive pairs.")
    ] = 1.0,
    lambda_np: Annotated[
        float, typer.Option(min=0, max=1e6, help="Weight of the synthesised negative pairs.")
    ] = 1.0,
    learning_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1e3, help="Peak learning rate of the encoder, with a number of --epochs."
        ),
    ] = 1e-5,
    flip: Annotated[bool, typer.Option("--flip", help="A mirrored part is a good part.")] = False,
    keep_gain: Annotated[
        float,
        typer.Option(
            min=-1,
            max=1,
            help="With a number of --epochs: the fine-tuned weights are kept where they gain more "
            "than this in AUROC on drawn defects, as less is noise. -1 keeps them always.",
        ),
    ] = 0.02,
    align: Annotated[
        bool,
        typer.Option(
            help="Make the features steady against changes of light; left out where that costs "
            "more than 0.05 of AUROC on drawn defects."
        ),
    ] = True,
    bank_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Most rows of the memory bank; by default 200 for each shot, but 1000 to 2000.",
        ),
    ] = None,
    score: Annotated[
        ScoreKind,
        typer.Option(
            help="Score that decides: patch, of the worst patches, finds defects; image, of the "
            "whole image, finds other kinds of objects. The bundled encoder tells these apart less "
            "well than a network that learned them: give image a --backbone such as "
            "tf_efficientnet_lite0."
        ),
    ] = ScoreKind.PATCH,
    false_alarm_rate: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="Share of good parts that may be rejected."),
    ] = 0.01,
    bits: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=16,
            help="Significant bits of 16-bit files, such as 12 for a camera of 12 bits, for the "
            "shots and for all that is scored later. By default what the files say.",
        ),
    ] = None,
    range_: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="BLACK WHITE",
            help="Values of black and white in float, signed and 32-bit files, such as 0 1, for "
            "the shots and for all that is scored later. By default what the files say.",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_THREADS,
            help="Threads for one part; 0 takes as many as this process may use, 1 with --ray.",
        ),
    ] = 0,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Fine-tune every folder in SHOTS, many at a time, with Ray."),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="With --ray: address of a cluster, such as auto or HOST:6379."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=MAX_WORKERS,
            help="With --ray: parts at a time; 0 takes what cores and memory bear.",
        ),
    ] = 0,
    export: Annotated[
        bool, typer.Option("--export", help="With --ray: export each part, too.")
    ] = False,
    recursive: Annotated[
        bool,
        typer.Option("--recursive", help="Learn from the images in subfolders of SHOTS, too."),
    ] = False,
    keep_outliers: Annotated[
        bool,
        typer.Option(
            "--keep-outliers", help="Learn from shots that are unlike the rest, too: all are good."
        ),
    ] = False,
    force: Force = False,
    json_: Json = False,
) -> None:
    """Learn what normal parts look like from good photographs.

    A first model is in the directory after seconds, and can be exported. The search for what suits
    the part goes on; Ctrl-C ends it and keeps the first model.
    """
    options = FinetuneOptions(
        backbone=backbone,
        encoder=encoder,
        weights=weights,
        epochs=_number_or_auto(epochs, "epochs"),
        image_size=_number_or_auto(image_size, "image-size"),
        strides=_strides(strides),
        locate=locate,
        rotations=_number_or_auto(rotations, "rotations"),
        place=place,
        budget_ms=budget_ms,
        budget_s=budget_s,
        device=device,
        seed=seed,
        lambda_con=lambda_con,
        lambda_pp=lambda_pp,
        lambda_np=lambda_np,
        learning_rate=learning_rate,
        flip=flip,
        keep_gain=keep_gain,
        align=align,
        bank_size=bank_size,
        score=score,
        false_alarm_rate=false_alarm_rate,
        bits=bits,
        range=range_,
        threads=threads,
        recursive=recursive,
        keep_outliers=keep_outliers,
        force=force,
    )
    if not options.epochs:
        refuse_unused(context, "a number of --epochs that is not 0", "learning_rate", "keep_gain")
    if options.epochs == 0:
        refuse_unused(context, "--epochs auto or a number", "lambda_con", "lambda_pp", "lambda_np")
    if ray:
        return _finetune_parts(shots, output, options, export, address, workers, json_)
    if address is not None or workers or export:
        raise InputError("--address, --workers and --export are for --ray alone.")
    new = not exists(output)
    try:
        with shown_progress() as on_progress:
            made = fsad_edge.finetune(
                shots, output, options, on_progress=on_progress, on_warning=warn
            )
    except BaseException:
        if new and exists(output):
            warn(
                f"{output} holds the first model:  fsad-edge export {output}  makes a file of it; "
                "to search again, give the same command with --force."
            )
        raise
    if json_:
        print_json(_summary(made))
        return
    skipped = f"; {describe(made.skipped)}" if made.skipped else ""
    shots_ = counted(made.shots, "normal image")
    same = f"; {made.left_out} left out that show the same" if made.left_out else ""
    out.print(f"Made {output} from {shots_}{same}{skipped}.")
    print_facts(_facts(made, options))


def _finetune_parts(
    folder: Path,
    output: Path,
    options: FinetuneOptions,
    export: bool,
    address: str | None,
    workers: int,
    json_: bool,
) -> None:
    """``finetune --ray``: exit code 2 where a part failed."""
    from fsad_edge.cli.parts_table import print_parts

    with needs_extra("ray"):
        from fsad_edge.distributed.parts import finetune_parts
    with shown_progress() as on_progress:
        report = finetune_parts(
            folder,
            output,
            options,
            export=export,
            address=address,
            workers=workers,
            on_progress=on_progress,
            on_warning=warn,
        )
    print_parts(report, json_)
    raise typer.Exit(ERROR if report.failed else 0)


def _number_or_auto(text: str, option: str) -> int | None:
    if text == "auto":
        return None
    # Options check what is too large.
    if not text.isdecimal():
        raise InputError(f"--{option} takes a whole number or auto, not '{text}'.")
    return int(text)


def _strides(text: str) -> tuple[int, ...] | None:
    if text == "auto":
        return None
    try:
        return tuple(int(stride) for stride in text.split(","))
    except ValueError:
        raise InputError(
            f"--strides takes numbers such as 16 or 8,16, or auto, not '{text}'."
        ) from None


def _summary(made: FinetuneResult) -> dict[str, Any]:
    return {
        "output": str(made.path),
        "shots": made.shots,
        "left_out": made.left_out,
        "findings": [to_document(finding) for finding in made.findings],
        "backbone": made.backbone,
        "full_depth": made.full_depth,
        "encoder": made.encoder,
        "image_size": made.chosen.image_size,
        "strides": made.chosen.strides,
        "input": made.chosen.sides or (made.chosen.image_size,) * 2,
        "located": made.located,
        "places_compared": made.by_place.on,
        "by_place": made.by_place.why,
        "place_ratios": made.by_place.place_scores,
        "places_assume": ASSUMES if made.by_place.on else None,
        "turned_upright": made.locator is not None and made.locator.turned,
        "rotations": made.chosen.rotations,
        "turning": made.turning,
        "turned_parts_good": made.chosen.rotations > 1 or made.turning is Turning.UPRIGHT,
        "mirrored_parts_good": made.flip,
        "trials": [dataclasses.asdict(trial) for trial in made.trials],
        "epochs": made.training.settings.epochs,
        "fine_tuning": None
        if made.training.features is None
        else {**to_document(made.training.features), "kept": made.training.features.kept},
        "training_seconds": made.training.seconds,
        "training_device": made.training.device,
        "gpu": made.where,
        "weights_kept": made.training.weights_kept,
        "drawn_auroc_pretrained": made.training.drawn_pretrained,
        "drawn_auroc_finetuned": made.training.drawn_finetuned,
        "drawn_auroc_aligned": made.training.drawn_aligned,
        "aligned": made.aligned,
        "bank_rows": made.bank_rows,
        "threshold": made.threshold.value,
        "false_alarm_rate": made.threshold.false_alarm_rate,
        "rate_promised": made.threshold.rate_promised,
        "reliability": made.threshold.reliability,
        "warnings": made.warnings,
        "skipped": [one.as_dict() for one in made.skipped],
        "next": f"fsad-edge export {made.path}",
    }


def _facts(made: FinetuneResult, options: FinetuneOptions) -> dict[str, str]:
    return {
        "encoder": f"{made.encoder}, {made.channels} features at stride {made.stride}"
        + (", and its full depth for the score" if made.full_depth else ""),
        "chosen": str(dataclasses.replace(made.chosen, encoder=None)),  # it is named above
        # An empty name for all but the first of them: they are one list.
        **{
            "also tried" if not place else " " * place: text
            for place, text in enumerate(_not_chosen(made))
        },
        "the part": made.located,
        **place_facts(made.by_place),
        "turned parts": describe_turned(made.chosen.rotations, made.turning),
        **({"mirrored parts": "count as good (--flip)"} if made.flip else {}),
        "training": _describe_training(made, options),
        "alignment": _describe_alignment(made, options),
        **({"GPU": made.where} if made.where else {}),
        "memory bank": f"{made.bank_rows} rows (--bank-size {made.bank_size})",
        "threshold": f"{made.threshold.value:.4g} ({made.threshold.method})",
        "": made.threshold.reliability,
        "misses": "how many defects will be found cannot be known from good parts alone; try bad "
        "ones with  fsad-edge eval  after the export",
        "next": f"fsad-edge export {made.path}",
    }


def _not_chosen(made: FinetuneResult) -> list[str]:
    """The other choices, from the fastest to the slowest, each with why it was not taken."""
    chosen = made.trials.index(made.chosen)
    return [
        f"{trial}: " + ("drawn defects stand out less" if place < chosen else "no clear gain")
        for place, trial in enumerate(made.trials)
        if place != chosen
    ]


def describe_turned(rotations: int, turning: Turning) -> str:
    """What becomes of a part that is turned, and why."""
    if rotations > 1:
        return {
            Turning.NEARER: "count as good, because the shots lie at different angles "
            "(--rotations 1 changes that)",
        }.get(turning, f"count as good (--rotations {rotations})")
    if turning is Turning.UPRIGHT:
        return "count as good, because each part is turned upright (--locate box changes that)"
    rejected = "are rejected where they look different"
    return {
        Turning.ONE_SHOT: f"{rejected}: one shot cannot show at which angles parts lie "
        "(--rotations 12 makes turned parts good)",
        Turning.WHOLE: f"{rejected}: kinds of objects are told apart as photographed "
        "(--rotations 12 makes turned parts good)",
        Turning.NO_NEARER: f"{rejected}: the shots lie alike "
        "(--rotations 12 makes turned parts good)",
    }.get(turning, f"{rejected} (--rotations 1)")


def _why_untrained(made: FinetuneResult, options: FinetuneOptions) -> str:
    if options.epochs == 0:
        return "--epochs 0"
    if options.score is ScoreKind.IMAGE:
        return "it is for patches, and the score is of the whole image"
    if made.shots < FEWEST_TO_TRAIN:
        return f"it needs {FEWEST_TO_TRAIN} shots"
    if not has_modules("torch"):
        return "PyTorch is not installed:  pip install 'fsad-edge[train]'  adds it"
    if options.lambda_con or options.lambda_pp or options.lambda_np:
        return "--budget-s left no time for it"
    return "all --lambda weights are 0"


def _describe_training(made: FinetuneResult, options: FinetuneOptions) -> str:
    record = made.training
    if (features := record.features) is not None:
        verdict = (
            "kept, because drawn defects stand out more on shots that it had not seen"
            if features.kept
            else "left out, because drawn defects do not clearly stand out more on shots that it "
            "had not seen"
        )
        return (
            f"features fine-tuned contrastively in {features.seconds:.1f} s; {verdict} (AUROC "
            f"{features.held_out_before:.3f} before and {features.held_out_after:.3f} after, which "
            "compares the features and does not say how many real defects will be found)"
        )
    if record.drawn_finetuned is None:
        why = _why_untrained(made, options)
        return f"none, the pretrained features are used as they are ({why})"
    verdict = (
        "the fine-tuned weights were kept, because drawn defects stand out more"
        if record.weights_kept and record.drawn_finetuned > (record.drawn_pretrained or 0.0)
        else "the fine-tuned weights were kept (--keep-gain)"
        if record.weights_kept
        else "drawn defects stand out no more, so the pretrained weights were kept"
    )
    epochs = record.settings.epochs
    return f"{epochs} epochs in {record.seconds:.1f} s on {record.device}; {verdict}"


def _describe_alignment(made: FinetuneResult, options: FinetuneOptions) -> str:
    record = made.training
    if made.full_depth:
        return "none: it is for patch features, and the score is of the whole image"
    if record.drawn_aligned is None:
        return "none: --budget-s left no time for it" if options.align else "off (--no-align)"
    if record.aligned:
        return "features are made steady against changes of light"
    return "left out, because drawn defects would stand out less in features steady against light"
