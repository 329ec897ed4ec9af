"""The part of ``fsad-edge export`` that adds a file to Triton's model repository."""

from __future__ import annotations

from pathlib import Path

from fsad_edge.cli.console import out, print_facts, print_json, warn
from fsad_edge.cli.engine import EngineRequest
from fsad_edge.errors import FsadEdgeError, InputError


def export_to_triton(
    file: Path, repository: Path, name: str | None, device: str, request: EngineRequest, json_: bool
) -> None:
    """``export part.onnx --triton REPOSITORY``.

    Raises:
        FsadEdgeError: it cannot be added; no version was.
    """
    from fsad_edge.deploy.triton import add_model
    from fsad_edge.deploy.triton_config import DEVICES, TritonOptions

    if file.is_dir():
        raise InputError(
            f"{file} is a model directory: run  fsad-edge export {file}  first, and give the ONNX "
            "file that it writes."
        )
    if device not in DEVICES:
        raise InputError(f"--device {device}: take one of {', '.join(DEVICES)}.")
    options = TritonOptions(request.options().batch, device)
    added = add_model(file, repository, file.stem if name is None else name, options)
    if _has_learned(file):
        warn(
            f"what was learned beside {file} is not in it: write a file that has it with  "
            f"fsad-edge bank export {file} -o NEW.onnx , and add that one."
        )
    folder = added.folder
    if json_:
        print_json(
            {
                "output": str(folder / "model.onnx"),
                "model": folder.parent.name,
                "version": added.version,
                "written": added.written,
                "config": str(folder.parent / "config.pbtxt"),
                "configured": added.configured,
                "golden_images": added.warmups,
                "next": f"tritonserver --model-repository {repository}",
            }
        )
        return
    done = "Wrote" if added.written else "The newest version is this file already:"
    out.print(f"{done} {folder / 'model.onnx'}", markup=False)
    config = folder.parent / "config.pbtxt"
    facts = {"model": f"{folder.parent.name}, version {added.version}"}
    if added.configured:
        facts["configuration"] = f"{config}, yours to edit"
        facts["warm-up"] = f"{added.warmups} golden images" if added.warmups else "zeros"
    elif added.written:
        facts["configuration"] = f"{config} as it was, with this version's threshold"
    facts["next"] = f"tritonserver --model-repository {repository}"
    print_facts(facts)


def _has_learned(file: Path) -> bool:
    """Whether a device taught the file something that is kept beside it."""
    from fsad_edge.learning.store import LearningStore
    from fsad_edge.runtime.files import sha256

    learned = LearningStore(file, sha256(file.read_bytes()))
    try:
        learned.read()
    except FsadEdgeError:  # damaged, or another file's: what scores with it says so
        return False
    return bool(learned.active)
