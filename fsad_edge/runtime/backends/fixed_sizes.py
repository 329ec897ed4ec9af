"""One graph in ONNX Runtime in a few batch sizes, each with memory and a CUDA graph of its own.

What follows from how ONNX Runtime does this on a GPU:

- Each size has a session of its own. In a shared one, kernels would keep what they know of one
  shape only, and a larger size could replace memory that the CUDA graph of a smaller one reads.
- ONNX Runtime keeps a CUDA graph with the thread that captured it, so all runs are in one thread.
- While one thread captures, no other may allocate or copy on the GPU: captures and runs of all
  sessions of the process exclude one another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.backends.batch_sizes import pieces
from fsad_edge.runtime.backends.cuda import pinned
from fsad_edge.runtime.backends.memory import is_out_of_memory
from fsad_edge.runtime.backends.providers import first_line
from fsad_edge.runtime.onnx_file import read_initializers

#: Held while a session of this process is made, and while one runs or is captured.
_MAKING, _RUNNING = threading.Lock(), threading.Lock()

#: Parts of the largest value by which a replayed run may differ from an ordinary one.
_TOLERANCE = 0.01

#: ONNX Runtime's run option for the CUDA graph of a run, and its value for none.
_GRAPH_OPTION, _NO_GRAPH = "gpu_graph_id", "-1"

#: numpy's types of the reference model by ONNX Runtime's names.
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class FixedSizes:
    """Runs a graph in fixed batch sizes: images are padded to the next one, or go in pieces.

    A size is prepared when it is first needed, or by :meth:`prepare`; the smallest one at once. All
    memory of a run is fixed, and the reference model is copied only where it is another one.

    Args:
        ort: the module ``onnxruntime``.
        graph: the serialised model, in which the defaults of its inputs are.
        open_session: opens a session; whether its runs are to be captured as a CUDA graph.
        sizes: the batch sizes, ascending.
        device: where the memory is: ``cuda`` or ``cpu``.
        capture: whether runs are captured. Where that fails, ``notice`` says so.

    Attributes:
        sizes: the batch sizes. Those for which the GPU has no room are left out.
        session: the session of the smallest size.
        captured: whether a run is one CUDA graph.
        notice: a sentence for the user where runs are not captured or sizes were left out.

    Raises:
        Exception: what ``open_session`` or the first run raised.
    """

    def __init__(
        self,
        ort: Any,
        graph: bytes,
        open_session: Callable[[bool], Any],
        sizes: Sequence[int],
        device: str,
        capture: bool,
    ) -> None:
        self.sizes = tuple(sizes)
        self.captured = capture
        self.notice: str | None = None
        self._ort, self._open, self._device = ort, open_session, device
        self._graph = graph
        self._reference: _Reference | None = None
        self._bound: dict[int, _BoundRun] = {}
        self._thread = ThreadPoolExecutor(1, "engine")
        self._thread.submit(self._prepare, self.sizes[0]).result()
        self.session = self._bound[self.sizes[0]].session

    def prepare(self) -> None:
        """Prepare every size, so that no later run takes longer for being the first of its size."""
        for size in self.sizes:
            self._thread.submit(self._prepare_or_leave_out, size).result()

    def run(self, outputs: Sequence[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        """Run the graph; takes and returns what :meth:`.onnxruntime.OnnxSession.run` does.

        The arrays of a reference model must not change afterwards: one that is on the device
        already is not copied again.
        """
        return self._thread.submit(self._run, outputs, feeds).result()

    def _run(self, outputs: Sequence[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        images = feeds["image"]
        done: list[list[Float32Array]] = []
        for part, size in self._spread(len(images)):
            with _RUNNING:
                self._reference_of(self.session).set(feeds)
                done.append(self._bound[size].run(outputs, images[part]))
        return [np.concatenate(parts) for parts in zip(*done, strict=True)]

    def _spread(self, count: int) -> list[tuple[slice, int]]:
        """Images over sizes that are prepared."""
        while True:
            spread = list(pieces(count, self.sizes))
            missing = {size for _, size in spread} - self._bound.keys()
            if not missing:
                return spread
            for size in sorted(missing):
                self._prepare_or_leave_out(size)

    def _reference_of(self, session: Any) -> _Reference:
        if self._reference is None:
            types = {value.name: value.type for value in session.get_overridable_initializers()}
            found = read_initializers(self._graph, types)
            defaults = {name: array.astype(_TYPES[types[name]]) for name, array in found.items()}
            self._reference = _Reference(self._ort, self._device, defaults)
        return self._reference

    def _prepare_or_leave_out(self, size: int) -> None:
        """Prepare a size; where that fails, it and the larger ones are left out."""
        if size not in self.sizes:
            return
        try:
            self._prepare(size)
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            self.sizes = tuple(one for one in self.sizes if one < size)
            most = self.sizes[-1]
            why = "it has no memory for" if is_out_of_memory(error) else "it cannot run"
            self.notice = (
                f"the GPU runs at most {most} images at once, because {why} {size} "
                f"({first_line(error)}): --max-batch {most} of  fsad-edge serve  asks for no more."
            )

    def _prepare(self, size: int) -> None:
        if size in self._bound:
            return
        with _MAKING:
            if self.captured:
                try:
                    self._bound[size] = self._bind(size)
                    return
                except InputError:  # there is no GPU
                    raise
                except Exception as error:  # of many types
                    self.captured = False
                    self.notice = (
                        "the GPU runs this model without CUDA graphs, which takes longer: "
                        f"{first_line(error)}."
                    )
            self._bound[size] = self._bind(size)

    def _bind(self, size: int) -> _BoundRun:
        session = self._open(self.captured)
        reference = self._reference_of(session)
        reference.set({})
        return _BoundRun(self._ort, session, size, self._device, reference)


class _Reference:
    """The reference model in the device's memory, for the runs of all sizes.

    Args:
        ort: the module ``onnxruntime``.
        device: ``cuda`` or ``cpu``.
        defaults: the file's own arrays by name.
    """

    def __init__(self, ort: Any, device: str, defaults: Mapping[str, AnyArray]) -> None:
        self._defaults = dict(defaults)
        self._there: dict[str, AnyArray] = {}
        self.buffers = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype, device, 0)
            for name, array in self._defaults.items()
        }

    def set(self, feeds: Mapping[str, AnyArray]) -> None:
        """Copy those arrays that the device does not have yet."""
        for name, default in self._defaults.items():
            value = feeds.get(name, default)
            if self._there.get(name) is not value:
                if value.shape != default.shape:
                    raise ModelFileError(
                        f"'{name}' is of shape {list(value.shape)}, and not {list(default.shape)}."
                    )
                self._there.pop(name, None)  # a copy that fails leaves neither
                self.buffers[name].update_inplace(np.ascontiguousarray(value, default.dtype))
                self._there[name] = value


class _BoundRun:
    """A session for one batch size, with fixed memory for its inputs and outputs.

    Args:
        ort: the module ``onnxruntime``.
        session: the session.
        size: the batch size.
        device: ``cuda`` or ``cpu``.
        reference: holds the file's own reference model.

    Raises:
        ModelFileError: a run with fixed memory computes something else than one without.
    """

    def __init__(
        self, ort: Any, session: Any, size: int, device: str, reference: _Reference
    ) -> None:
        self.session = session
        [image] = session.get_inputs()
        shape = (size, *image.shape[1:])
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        names = [value.name for value in session.get_outputs()]
        # An ordinary run searches the algorithms, allocates memory and tells the outputs' shapes.
        plainly = ort.RunOptions()
        plainly.add_run_config_entry(_GRAPH_OPTION, _NO_GRAPH)
        expected = session.run(names, {image.name: pixels}, plainly)
        new = ort.OrtValue.ortvalue_from_shape_and_type
        self._host = pinned(shape) if device == "cuda" else np.empty(shape, np.uint8)
        self._image = new(pixels.shape, pixels.dtype, device, 0)
        self._outputs = {
            name: new(array.shape, array.dtype, device, 0)
            for name, array in zip(names, expected, strict=True)
        }
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(image.name, self._image)
        for name, buffer in reference.buffers.items():
            self._binding.bind_ortvalue_input(name, buffer)
        for name, buffer in self._outputs.items():
            self._binding.bind_ortvalue_output(name, buffer)
        with _RUNNING:  # not for the search, so that other models go on meanwhile
            self.run(names, np.zeros_like(pixels))  # which captures it
            found = self.run(names, pixels)
        for one, other in zip(expected, found, strict=True):
            most = np.abs(one, dtype=np.float64).max(initial=0.0)
            if not np.allclose(one, other, _TOLERANCE, _TOLERANCE * most, equal_nan=True):
                raise ModelFileError("a run with fixed memory computes something else.")

    def run(self, outputs: Sequence[str], images: AnyArray) -> list[Float32Array]:
        """The outputs of at most as many images as the batch size."""
        if images.dtype != np.uint8 or images.shape[1:] != self._host.shape[1:]:
            raise ModelFileError(f"the images are {images.dtype} {list(images.shape)}.")
        self._host[: len(images)] = images
        self._host[len(images) :] = 0
        self._image.update_inplace(self._host)
        self._binding.synchronize_inputs()
        self.session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        # A copy, because on the CPU these are the arrays of the next run as well.
        return [np.array(self._outputs[name].numpy()[: len(images)]) for name in outputs]
