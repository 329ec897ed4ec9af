"""``fsad-edge finetune``: from a folder of good photographs to a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fsad_edge.cli.console import out, print_facts, print_json
from fsad_edge.errors import InputError
from fsad_edge.pipeline.finetune import PartOptions, make_part

#: The encoder inside the package: needs no network.
DEFAULT_BACKBONE = "fsad_edge"


def finetune(
    shots: Annotated[
        Path,
        typer.Argument(help="Folder of normal images, 1 to about 50; with --ray of such folders."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Model directory to write; with --ray a folder of them."
        ),
    ],
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
        typer.Option(
            help="Side of the model's square input, pixels; auto tries 224 to 640, nothing with "
            "more pixels than the photographs have. Four times the pixels take four times as long."
        ),
    ] = "auto",
    strides: Annotated[
        str,
        typer.Option(help="Strides of the feature maps, such as 16 or 8,16; auto chooses."),
    ] = "auto",
    rotations: Annotated[
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
    align: Annotated[
        bool,
        typer.Option(
            help="Learn from the shots under other light what light changes in the features, and "
            "shrink it; left out where that costs AUROC on synthesised defects."
        ),
    ] = True,
    bank_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Memory bank rows at most; by default 200 a shot, but 1000 to 2000.",
        ),
    ] = None,
    score: Annotated[str, typer.Option(help="The score that decides: patch or image.")] = "patch",
    false_alarm_rate: Annotated[
        float,
        typer.Option(min=1e-6, max=0.5, help="Good parts that may be rejected, as a fraction."),
    ] = 0.01,
    threads: Annotated[
        int,
        typer.Option(min=0, help="Of one part; 0 leaves the choice to the engines, 1 with --ray."),
    ] = 0,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Fine-tune every folder in SHOTS, a part each, many at a time."),
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="With --ray: of a cluster, such as auto or HOST:6379.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="With --ray: parts at a time; 0: what cores and memory bear.")
    ] = 0,
    export: Annotated[
        bool, typer.Option("--export", help="With --ray: export each part, too.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an older output.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Fine-tune an encoder on normal images and learn what normal is."""
    options = PartOptions(
        backbone=backbone,
        weights=weights,
        epochs=epochs,
        image_size=image_size,
        strides=strides,
        rotations=rotations,
        budget_ms=budget_ms,
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
        threads=threads,
        force=force,
    )
    if ray:
        from fsad_edge.cli.parts import PartsRequest, finetune_parts

        return finetune_parts(shots, PartsRequest(output, address, workers, export), options, json_)
    if address is not None or workers or export:
        raise InputError("--address, --workers and --export go with --ray alone.")
    made = make_part(shots, output, options)
    if json_:
        print_json(made.summary)
        return
    plural = "s" * (made.summary["shots"] > 1)
    out.print(f"Made {output} from {made.summary['shots']} normal image{plural}.", markup=False)
    print_facts(made.facts)
