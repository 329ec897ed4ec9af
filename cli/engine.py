"""The part of ``fsad-edge export`` that builds a TensorRT engine, on the device to run it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsad_edge.cli.console import out, print_facts, print_json, progress_bar, stopped, warn
from fsad_edge.errors import InputError
from fsad_edge.runtime.files import check_output

if TYPE_CHECKING:
    from fsad_edge.runtime.engine_file import BuildOptions


@dataclass(frozen=True)
class EngineRequest:
    """What the options of ``export`` ask for."""

    batch: str
    workspace: int
    version_compatible: bool
    hardware_compatible: bool
    timing_cache: Path | None
    force: bool

    def options(self) -> BuildOptions:
        """Raises InputError where a value is none."""
        from fsad_edge.runtime.engine_file import BuildOptions

        try:
            sizes = [int(part) for part in self.batch.split(",")]
        except ValueError:
            sizes = []
        if len(sizes) == 1:
            sizes *= 3
        if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2] <= 256:
            raise InputError(
                f"--batch {self.batch}: take one number from 1 to 256, or MIN,OPT,MAX, ascending."
            )
        return BuildOptions(
            (sizes[0], sizes[1], sizes[2]),
            self.workspace,
            self.version_compatible,
            self.hardware_compatible,
        )


def check_request(request: EngineRequest, precision: str, target: str) -> None:
    """Before anything takes its time: options, TensorRT and GPU.

    Raises:
        FsadEdgeError: one of them is missing, or no use for the others.
    """
    from fsad_edge.deploy.engine import check_machine

    if precision == "int8" and target != "tensorrt":
        raise InputError("--precision int8 --trt  needs  --target tensorrt: the other is for CPUs.")
    check_machine(request.options())


def export_engine(
    file: Path, output: Path | None, request: EngineRequest, rebuild: bool, json_: bool
) -> None:
    """``export part.onnx --trt``, and ``export part.engine --rebuild``."""
    if rebuild:
        file, output, request = _as_built(file, output, request)
    document = build_engine(file, output, request)
    if json_:
        print_json(document)
    else:
        print_engine(document)


def build_engine(file: Path, output: Path | None, request: EngineRequest) -> dict[str, Any]:
    """Build the engine of an ONNX file beside it; what there is to say about it.

    Raises:
        FsadEdgeError: it cannot be built, or does not score as it must; nothing was written.
    """
    from fsad_edge.deploy.engine import build, check_machine, header_of, is_built, read_source

    options = request.options()
    source = read_source(file)
    target = output or file.with_suffix(".engine")
    trt, gpu = check_machine(options)
    header = header_of(source, options, trt.__version__, gpu)
    start, built = time.monotonic(), False
    if request.force or not is_built(target, header):
        check_output(target, request.force)
        cache = request.timing_cache or target.with_suffix(".timing")
        with progress_bar() as bar:
            task = bar.add_task("TensorRT", total=1.0, note="for minutes on a small board")

            def show(phase: str, fraction: float) -> None:
                bar.update(task, description=phase[:40], completed=fraction)

            header = build(source, target, options, cache, show, stopped.is_set)
        built = True
    if not source.metadata.golden:
        warn("the file has no golden images: that the engine scores as it does was not proved.")
    return {
        "output": str(target),
        "built": built,
        "seconds": round(time.monotonic() - start, 1),
        "bytes": target.stat().st_size,
        "tensorrt": header.tensorrt,
        "gpu": dataclasses.asdict(gpu),
        "precision": header.precision,
        "options": dataclasses.asdict(options),
        "key": header.key,
        "golden_images": len(source.metadata.golden),
        "next": f"fsad-edge score {target} IMAGE",
    }


def print_engine(document: dict[str, Any]) -> None:
    """The same for people."""
    done = f"Wrote {document['output']}" if document["built"] else f"{document['output']} is built"
    out.print(f"{done} ({document['bytes'] / 1e6:.1f} MB).", markup=False)
    print_facts(
        {
            "engine": f"TensorRT {document['tensorrt']} on {document['gpu']['name']}, "
            f"{document['precision']}, in {document['seconds']} s",
            "golden images": f"{document['golden_images']}, scored by the engine as they must",
            "next": document["next"],
        }
    )


def _as_built(
    file: Path, output: Path | None, request: EngineRequest
) -> tuple[Path, Path, EngineRequest]:
    """ONNX file, target and options of an engine that is there."""
    from fsad_edge.runtime.engine_file import read_engine

    try:
        header = read_engine(file.read_bytes(), str(file)).header
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error
    onnx = file.with_name(header.source_name)
    if not onnx.is_file():
        raise InputError(
            f"{file} is built again from {onnx.name}, which is not beside it: bring it there."
        )
    options = header.options
    return (
        onnx,
        output or file,
        dataclasses.replace(
            request,
            batch=",".join(map(str, options.batch)),
            workspace=options.workspace_mb,
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
            force=True,
        ),
    )
