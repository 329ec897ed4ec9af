"""A TensorRT engine, with the interface of :class:`.onnxruntime.OnnxSession`.

This needs numpy, a TensorRT and CUDA's runtime, but no onnxruntime. It uses what TensorRT 10.3,
10.13 and 11 and TensorRT for RTX have in common.
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

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.backends.cuda import TO_DEVICE, TO_HOST, Buffer, Gpu, Stream, find_gpu
from fsad_edge.runtime.backends.memory import is_out_of_memory
from fsad_edge.runtime.backends.tensorrt_module import import_tensorrt, last_message, logger_of
from fsad_edge.runtime.engine_file import EngineHeader, Flavour, gpu_words, read_engine
from fsad_edge.runtime.files import is_file, read_bytes, sha256
from fsad_edge.runtime.metadata import Metadata

#: numpy's types by the names of TensorRT's types.
_TYPES: dict[str, type[np.generic]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
}


class NoGpuError(InputError):
    """There is no GPU here that an engine could run on; the file itself may be sound."""


class UnfitGpuError(ModelFileError):
    """The GPU of this machine is none that the engine is for; the file itself may be sound."""


def find_mismatch(header: EngineHeader, tensorrt: str, gpu: Gpu) -> str | None:
    """Why an engine cannot run on this machine; None where it can.

    Args:
        header: the header of its file.
        tensorrt: the version of TensorRT here.
        gpu: the GPU here.
    """
    options = header.options
    here, built = _numbers(tensorrt), _numbers(header.tensorrt)
    if header.tensorrt != tensorrt and not (options.version_compatible and here >= built):
        return f"was built by {header.flavour.words} {header.tensorrt}, and this is {tensorrt}"
    if header.flavour == Flavour.RTX:
        return None  # the library knows which GPUs it can compile the engine for
    # Hardware compatibility begins at Ampere, 8.0.
    if header.gpu != gpu and not (
        options.hardware_compatible and _numbers(gpu.compute_capability) >= (8, 0)
    ):
        return f"was built on {header.gpu}, and this is {gpu}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:4])


def check_source(path: Path, header: EngineHeader) -> None:
    """Refuse an engine where the ONNX file in its folder is not the one it was built from.

    Raises:
        ModelFileError: the ONNX file of that name is another one.
    """
    onnx = path.with_name(header.source_name)
    try:
        same = not is_file(onnx) or sha256(read_bytes(onnx)) == header.source_sha256
    except InputError:
        return  # a file that cannot be read proves nothing
    if not same:
        raise ModelFileError(
            f"{path} was built from another {onnx.name} than the one in its folder: run  "
            f"{rebuild_command(path)}  or remove that {onnx.name}."
        )


def rebuild_command(path: str | Path) -> str:
    """The command that builds an engine again with its own options."""
    return f"fsad-edge build {path}"


def gpu_for(header: EngineHeader, source: str) -> Gpu:
    """The GPU that an engine is to run on.

    Raises:
        NoGpuError: there is none; the sentence says what can run without one.
    """
    try:
        return find_gpu()
    except InputError as error:
        raise NoGpuError(
            f"{source} cannot run here, because {str(error).rstrip('.')}; its ONNX file "
            f"{header.source_name} can, with  --provider cpu."
        ) from error


def _why_not_loaded(header: EngineHeader, source: str, gpu: Gpu, reason: str) -> ModelFileError:
    """What to say where TensorRT does not load an engine, and what runs instead."""
    if header.flavour == Flavour.TENSORRT:
        return ModelFileError(
            f"TensorRT cannot load {source} ({reason}): run  {rebuild_command(source)}."
        )
    cure = f"its ONNX file {header.source_name} can, with  --provider cuda"
    if header.options.gpus and gpu.compute_capability not in header.options.gpus:
        cure += (
            f" ; an engine for this card, where TensorRT for RTX supports it, is built by  "
            f"fsad-edge build {header.source_name} --gpu {gpu.compute_capability} --force"
        )
    return UnfitGpuError(
        f"{source} cannot run on {gpu} ({reason}), because it is for GPUs of compute capability "
        f"{gpu_words(header.options)}; {cure}."
    )


class TensorrtSession:
    """One engine, with memory for its largest batch.

    A larger batch is run in pieces. A session can be used from several threads, which take turns.

    Args:
        data: the bytes of an engine file.
        source: where they came from, for the sentences of errors.

    Attributes:
        provider: ``TensorRT`` or ``TensorRT for RTX``.
        metadata: what the ONNX file says of itself.
        inputs: shapes of the inputs by name; -1 stands for the batch.
        outputs: names of the outputs.
        header: the header of the file.
        reference: the file's own reference model, by the names of the inputs.
        graph: a run is one CUDA graph.

    Raises:
        MissingExtraError: TensorRT is not installed.
        InputError: there is no GPU, or not enough memory on it.
        ModelFileError: the file is damaged, or for another GPU or TensorRT.
        UnfitGpuError: TensorRT for RTX does not support the GPU.
    """

    notice: str | None = None

    def __init__(self, data: bytes, source: str) -> None:
        file = read_engine(data, source)
        self.header = file.header
        self.provider = self.header.flavour.words
        self.metadata = Metadata.from_json(file.header.metadata, source)
        self._source = source
        trt, gpu = import_tensorrt(self.header.flavour), gpu_for(self.header, source)
        mismatch = find_mismatch(self.header, trt.__version__, gpu)
        if mismatch is not None:
            raise ModelFileError(f"{source} {mismatch}: run  {rebuild_command(source)}.")
        self._logger = logger_of(trt)
        self._logger.messages.clear()
        # All of these must live as long as the engine does.
        self._runtime = runtime = trt.Runtime(self._logger)
        if self.header.options.version_compatible:
            runtime.engine_host_code_allowed = True
        self._engine = engine = runtime.deserialize_cuda_engine(file.plan)
        if engine is None:
            raise _why_not_loaded(self.header, source, gpu, last_message(self._logger))
        self._context = engine.create_execution_context()
        if self._context is None:
            raise self._no_room(last_message(self._logger))
        names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
        given = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.inputs: dict[str, list[Any]] = {
            name: list(engine.get_tensor_shape(name)) for name in names if name in given
        }
        self.outputs = [name for name in names if name not in given]
        if given != {"image", *file.reference}:
            raise ModelFileError(
                f"{source} has other inputs than its header says: run  {rebuild_command(source)}."
            )
        self._types = {name: _TYPES[engine.get_tensor_dtype(name).name] for name in names}
        self._lock = threading.Lock()
        self._buffers: dict[str, Buffer] = {}
        self._stream = Stream()
        try:
            self._prepare(file.reference)
        except InputError as error:
            if not is_out_of_memory(error):
                raise
            raise self._no_room(str(error).rstrip(".")) from error

    def _no_room(self, reason: str) -> InputError:
        """What to say where the GPU has no memory for the largest batch."""
        most = self.header.options.batch[2]
        fewer = f"fsad-edge build {self.header.source_name} --batch {max(1, most // 2)} --force"
        return InputError(
            f"the GPU has no room for {self._source} with {most} images in a run ({reason}): "
            + (f"build it for fewer with  {fewer} ." if most > 1 else "free some of its memory.")
        )

    def _prepare(self, reference: Mapping[str, Float32Array]) -> None:
        """Allocate memory for the largest batch, copy the reference model to it, and run once."""
        least, _, most = self.header.options.batch
        self._batch = most
        self._set_batch(most)
        for name in (*self.inputs, *self.outputs):
            size = math.prod(self._shape(name)) * np.dtype(self._types[name]).itemsize
            buffer = self._buffers[name] = Buffer(size)
            self._check(self._context.set_tensor_address(name, buffer.address))
        self.reference = dict(reference)
        self._on_gpu: dict[str, AnyArray] = {}
        self._set_reference({})
        self._check(self._context.execute_async_v3(self._stream.handle.value))
        self._stream.wait()
        self.graph = least == most and self._capture()

    def _capture(self) -> bool:
        """Make a run one CUDA graph; False where a layer cannot be captured."""
        try:
            self._stream.begin_capture()
            done = bool(self._context.execute_async_v3(self._stream.handle.value))
            self._stream.end_capture()
        except InputError:
            return False
        return done

    def run(self, outputs: list[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        """Run the engine.

        Args:
            outputs: names of the outputs to compute.
            feeds: ``image``, uint8 ``[N, H, W, 3]``, and the arrays of another reference model
                where the file's own is not to be used. Those arrays must not change afterwards:
                an array that is on the GPU already is not copied again.

        Returns:
            The outputs, in the order of their names.
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

    def _run(self, outputs: list[str], images: AnyArray) -> list[Float32Array]:
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

    def _set_reference(self, feeds: Mapping[str, AnyArray]) -> None:
        """Copy those arrays of the reference model to the GPU that it does not have yet."""
        for name, default in self.reference.items():
            value = feeds.get(name, default)
            if self._on_gpu.get(name) is not value:
                view = self._view(name)
                view[...] = value
                self._buffers[name].copy(TO_DEVICE, view.nbytes, self._stream)
                self._stream.wait()
                self._on_gpu[name] = value

    def _set_batch(self, size: int) -> None:
        if size != self._batch or not self._buffers:
            shape = (size, *self.inputs["image"][1:])
            self._check(self._context.set_input_shape("image", shape))
            self._batch = size

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor for the batch that is set."""
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise ModelFileError(
                f"{self._source} does not tell the shape of '{name}': run  "
                f"{rebuild_command(self._source)}."
            )
        return shape

    def _view(self, name: str) -> AnyArray:
        """The pinned memory of a tensor, for the batch that is set."""
        shape, kind = self._shape(name), np.dtype(self._types[name])
        data = self._buffers[name].host[: math.prod(shape) * kind.itemsize]
        return data.view(kind).reshape(shape)

    def _check(self, done: bool) -> None:
        if not done:
            raise InputError(f"TensorRT cannot run {self._source} ({last_message(self._logger)}).")

    def close(self) -> None:
        """Free all memory; the session cannot be used afterwards."""
        self._stream.wait()
        del self._context, self._engine, self._runtime
        for buffer in self._buffers.values():
            buffer.free()
        self._stream.free()

    def __del__(self) -> None:
        # The session may be incomplete, or its process may be ending.
        with contextlib.suppress(Exception):
            self.close()
