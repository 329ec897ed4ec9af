"""``fsad-edge triton``: an ONNX file into a model repository of Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsad_edge.cli.console import out, print_facts, print_json, warn
from fsad_edge.cli.learned_model import taught_beside
from fsad_edge.cli.shared_options import Json
from fsad_edge.cli.unused_options import given
from fsad_edge.options import TritonDevice

if TYPE_CHECKING:
    from fsad_edge.deploy.triton import AddedVersion


def triton(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="PART.onnx", help="ONNX file that export wrote.")],
    repository: Annotated[
        Path,
        typer.Argument(
            metavar="REPOSITORY", help="Triton's model repository; made if it does not exist."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the model in the repository; PART by default.")
    ] = None,
    device: Annotated[
        TritonDevice, typer.Option(help="What Triton runs a new model on.")
    ] = TritonDevice.AUTO,
    batch: Annotated[
        str,
        typer.Option(help="Images in a run of a new model: one number, or MIN,PREFERRED,MAX."),
    ] = "1,8,8",
    json_: Json = False,
) -> None:
    """Add an ONNX file to Triton's model repository.

    It becomes the newest version of its model.
    """
    from fsad_edge.deploy.batch_sizes import parse_batch_sizes
    from fsad_edge.deploy.triton import add_model
    from fsad_edge.deploy.triton_config import TritonOptions

    options = TritonOptions(parse_batch_sizes(batch), device)
    added = add_model(file, repository, file.stem if name is None else name, options)
    if added.unsealed:
        warn(added.unsealed)
    for name_ in ("device", "batch"):
        if (option := given(context, name_)) and not added.configured:
            warn(
                f"{option} is for a new model and changed nothing: {added.folder.parent.name} has "
                "a configuration, which you may edit."
            )
    taught = taught_beside(file)
    if taught is not None and taught.summary.counts:
        warn(
            f"the file does not hold what it was taught here ({taught.summary.words}): run  "
            f"fsad-edge bank export {file} -o NEW.onnx  and add that file."
        )
    command = f"tritonserver --model-repository {repository}"
    if json_:
        print_json(
            {
                "output": str(added.folder / "model.onnx"),
                "model": added.folder.parent.name,
                "version": added.version,
                "written": added.written,
                "config": str(added.folder.parent / "config.pbtxt"),
                "configured": added.configured,
                "golden_images": added.warmups,
                "next": command,
            }
        )
        return
    done = "Wrote" if added.written else "The newest version already is this file:"
    out.print(f"{done} {added.folder / 'model.onnx'}")
    print_facts({**_facts(added), "next": command})


def _facts(added: AddedVersion) -> dict[str, str]:
    config = added.folder.parent / "config.pbtxt"
    facts = {"model": f"{added.folder.parent.name}, version {added.version}"}
    if added.configured:
        facts["configuration"] = f"{config}, which you may edit"
        facts["warm-up"] = f"{added.warmups} golden images" if added.warmups else "zeros"
    elif added.written:
        facts["configuration"] = f"{config}, unchanged but for this version's threshold"
    return facts
