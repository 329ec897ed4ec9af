"""A TensorRT engine behind the interface of :class:`~fsad_edge.runtime.backends.onnxruntime.OnnxSession`.

Needs numpy, the ``tensorrt`` module and CUDA's runtime; no onnxruntime. Uses what is in TensorRT
10.3, 10.13 and 11 alike.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError, MissingExtraError, ModelFileError
from fsad_edge.runtime.backends.cuda import TO_DEVICE, TO_HOST, Buffer, Gpu, Stream, find_gpu
from fsad_edge.runtime.engine_file import EngineHeader, read_engine
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.metadata import KEY

#: The file by which a Jetson's system is known.
TEGRA = Path("/etc/nv_tegra_release")

#: numpy's types by the names that TensorRT's have.
_TYPES: dict[str, type[np.generic]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
}


def import_tensorrt() -> Any:
    """The ``tensorrt`` module.

    Raises:
        MissingExtraError: it is not installed.
        InputError: it is, and one of its libraries is not.
    """
    try:
        import tensorrt
    except ModuleNotFoundError:
        command = None
        if TEGRA.exists():  # what pip would find there is for other machines
            command = (
                "sudo apt install python3-libnvinfer , make the environment with  "
                "python3 -m venv --system-site-packages"
            )
        raise MissingExtraError("tensorrt", "trt", command) from None
    except ImportError as error:
        raise InputError(
            f"tensorrt is installed and does not load ({error}): install it with its libraries."
        ) from error
    return tensorrt


def new_logger(trt: Any) -> Any:
    """A logger for TensorRT that keeps errors and warnings in ``messages``, and prints nothing."""

    class Messages(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING):
                self.messages = [*self.messages[-9:], " ".join(msg.split())]

    return Messages()


def why(logger: Any) -> str:
    """What TensorRT said last, for an error's sentence."""
    return logger.messages[-1].rstrip(".") if logger.messages else "it does not say why"


def foreign(header: EngineHeader, tensorrt: str, gpu: Gpu) -> str | None:
    """Why an engine cannot run here; None where it can.

    Args:
        header: of its file.
        tensorrt: version here.
        gpu: that is here.
    """
    options = header.options
    here, built = _numbers(tensorrt), _numbers(header.tensorrt)
    if header.tensorrt != tensorrt and not (options.version_compatible and here >= built):
        return f"was built by TensorRT {header.tensorrt}, and this is {tensorrt}"
    # Levels of hardware compatibility begin at Ampere, 8.0.
    if header.gpu != gpu and not (
        options.hardware_compatible and _numbers(gpu.compute_capability) >= (8, 0)
    ):
        return f"was built on {header.gpu}, and this is {gpu}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:4])


def check_source(path: Path, header: EngineHeader) -> None:
    """Refuse an engine beside which lies a newer ONNX file of the name it was built from.

    Raises:
        ModelFileError: the file beside it is another than it was built from.
    """
    onnx = path.with_name(header.source_name)
    try:
        same = not onnx.is_file() or sha256(onnx.read_bytes()) == header.source_sha256
    except OSError:
        return  # what cannot be read has no say
    if not same:
        raise ModelFileError(
            f"{path} was built from another {onnx.name} than lies beside it: run  "
            f"{rebuild_command(path)}  or take the {onnx.name} away."
        )


def rebuild_command(path: str | Path) -> str:
    """The command that builds an engine again, as it was built."""
    return f"fsad-edge export {path} --rebuild"


class TensorrtSession:
    """One engine, with memory for its largest batch.

    A larger batch is run in pieces. Safe to use from several threads, which take turns.

    Args:
        data: the bytes of an engine file.
        source: where they came from, for error sentences.

    Attributes:
        provider: ``TensorRT``.
        metadata: the ONNX file's key-value pair of this project.
        inputs: shapes by name; -1 stands for the batch.
        outputs: names.
        header: what the file says of itself.
        normals: the file's own normal parts, by the names of the inputs.
        graph: whether a run is one CUDA graph.

    Raises:
        MissingExtraError: TensorRT is not installed.
        InputError: there is no GPU or no room on it.
        ModelFileError: the file is damaged, or for another GPU or TensorRT.
    """

    provider = "TensorRT"
    notice: str | None = None

    def __init__(self, data: bytes, source: str) -> None:
        file = read_engine(data, source)
        self.header = file.header
        self._source = source
        trt, gpu = import_tensorrt(), find_gpu()
        reason = foreign(self.header, trt.__version__, gpu)
        if reason is not None:
            raise ModelFileError(f"{source} {reason}: run  {rebuild_command(source)}.")
        self._logger = new_logger(trt)
        # All of these must live as long as the engine does.
        self._runtime = runtime = trt.Runtime(self._logger)
        if self.header.options.version_compatible:
            runtime.engine_host_code_allowed = True
        self._engine = engine = runtime.deserialize_cuda_engine(file.plan)
        if engine is None:
            raise ModelFileError(
                f"TensorRT does not take {source} ({why(self._logger)}): run  "
                f"{rebuild_command(source)}."
            )
        self._context = engine.create_execution_context()
        if self._context is None:
            raise InputError(f"the GPU has no room for {source} ({why(self._logger)}).")
        self.metadata = {KEY: self.header.metadata}
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        given = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.inputs: dict[str, list[Any]] = {
            name: list(engine.get_tensor_shape(name)) for name in names if name in given
        }
        self.outputs = [name for name in names if name not in given]
        if given != {"image", *file.reference}:
            raise ModelFileError(
                f"{source} has other inputs than it says: run  {rebuild_command(source)}."
            )
        self._types = {name: _TYPES[engine.get_tensor_dtype(name).name] for name in names}
        self._lock = threading.Lock()
        self._buffers: dict[str, Buffer] = {}
        self._stream = Stream()
        self._prepare(file.reference)

    def _prepare(self, reference: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Memory for the largest batch, the file's normal parts in it, and a first run."""
        least, _, most = self.header.options.batch
        self._batch = most
        self._set_batch(most)
        for name in (*self.inputs, *self.outputs):
            size = math.prod(self._shape(name)) * np.dtype(self._types[name]).itemsize
            buffer = self._buffers[name] = Buffer(size)
            self._check(self._context.set_tensor_address(name, buffer.address))
        self.reference = dict(reference)
        self._in_force: dict[str, npt.NDArray[np.float32]] = {}
        self._set_reference({})
        self._check(self._context.execute_async_v3(self._stream.handle.value))
        self._stream.wait()
        self.graph = least == most and self._capture()

    def _capture(self) -> bool:
        """Make a run one CUDA graph; False where a layer does not let itself be captured."""
        try:
            self._stream.begin_capture()
            done = bool(self._context.execute_async_v3(self._stream.handle.value))
            self._stream.end_capture()
        except InputError:
            return False
        return done

    def run(
        self, outputs: list[str], feeds: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float32]]:
        """Run the engine; the named outputs, in the order asked for.

        Args:
            outputs: names.
            feeds: ``image`` uint8 ``[N, H, W, 3]``; and normal parts, where others than the file's
                are to be scored against. Arrays of these must not change once they were given.
        """
        images = feeds["image"]
        most = self.header.options.batch[2]
        with self._lock:
            self._set_reference(feeds)
            pieces = [
                self._run(outputs, images[start : start + most])
                for start in range(0, len(images), most)
            ]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _run(self, outputs: list[str], images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
        self._set_batch(max(len(images), self.header.options.batch[0]))
        places = self._view("image")
        places[: len(images)] = images
        places[len(images) :] = 0  # fewer than the engine's smallest batch
        self._buffers["image"].copy(TO_DEVICE, places.nbytes, self._stream)
        if self.graph:
            self._stream.launch()
        else:
            self._check(self._context.execute_async_v3(self._stream.handle.value))
        views = [self._view(name) for name in outputs]
        for name, view in zip(outputs, views, strict=True):
            self._buffers[name].copy(TO_HOST, view.nbytes, self._stream)
        self._stream.wait()
        return [view[: len(images)].astype(np.float32) for view in views]

    def _set_reference(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        """Bring to the device those normal parts that it does not have yet."""
        for name, default in self.reference.items():
            value = feeds.get(name, default)
            if self._in_force.get(name) is not value:
                view = self._view(name)
                view[...] = value
                self._buffers[name].copy(TO_DEVICE, view.nbytes, self._stream)
                self._stream.wait()
                self._in_force[name] = value

    def _set_batch(self, size: int) -> None:
        if size != self._batch or not self._buffers:
            shape = (size, *self.inputs["image"][1:])
            self._check(self._context.set_input_shape("image", shape))
            self._batch = size

    def _shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, for the batch that is set."""
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise ModelFileError(f"{self._source} does not tell the shape of '{name}'.")
        return shape

    def _view(self, name: str) -> npt.NDArray[Any]:
        """The pinned memory of a tensor, for the batch that is set."""
        shape, kind = self._shape(name), np.dtype(self._types[name])
        data = self._buffers[name].host[: math.prod(shape) * kind.itemsize]
        return data.view(kind).reshape(shape)

    def _check(self, done: bool) -> None:
        if not done:
            raise InputError(f"TensorRT cannot run {self._source} ({why(self._logger)}).")

    def close(self) -> None:
        """Give all memory back; the session cannot be used from then on."""
        self._stream.wait()
        del self._context, self._engine, self._runtime
        for buffer in self._buffers.values():
            buffer.free()
        self._stream.free()

    def __del__(self) -> None:
        # A session that was not made whole, or whose process ends.
        with contextlib.suppress(Exception):
            self.close()
