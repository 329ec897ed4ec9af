"""Options that several commands have, so that one word means the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from fsad_edge.options import MAX_THREADS, Provider

Force = Annotated[bool, typer.Option("--force", help="Replace an older output.")]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable", help="Exit as if what could not be looked at were not there."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunsOn = Annotated[
    Provider,
    typer.Option(
        "--provider",
        help="What runs the model; auto takes the GPU where there is one and the file is fast "
        "there, else the CPU.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse to run on the CPU in place of the GPU, also a part of the model."
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        max=MAX_THREADS,
        help="Threads for one image; 0 takes as many as this process may use.",
    ),
]
MmPerPx = Annotated[
    float | None,
    typer.Option(
        "--mm-per-px",
        help="Millimetres that a pixel of the photographs shows, at the full size of their files: "
        "regions are told in millimetres, too. They are where the heat map is above the threshold; "
        "the defect itself is mostly smaller.",
        show_default=False,
    ),
]
Learned = Annotated[
    bool, typer.Option(help="Use the images that the model learned on this device, if any.")
]
