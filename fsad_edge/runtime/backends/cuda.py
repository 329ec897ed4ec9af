"""The functions of CUDA's runtime that a TensorRT engine needs, through ctypes on libcudart.

JetPack installs libcudart, and so do TensorRT's own wheels. A Python package for it would be one
more dependency to find for a board. The functions named here are in CUDA 12 and in CUDA 13.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sysconfig
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.errors import InputError
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.driver import driver_problem, driver_version

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")

# cudaMemcpyKind, cudaDeviceAttr and flags of driver_types.h.
TO_DEVICE, TO_HOST = 1, 2
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1

# cudaError. CUDA says that the driver is too old where there is none, too.
_OLD_DRIVER, _NO_GPU, _OUT_OF_MEMORY = 35, 100, 2

#: More bytes than cudaDeviceProp has ever had. Only its first field is read, the name.
_PROPERTIES_BYTES = 1 << 14


@dataclass(frozen=True)
class Gpu:
    """The GPU that an engine is built for.

    Attributes:
        name: its name in CUDA; all Orins are called ``Orin``.
        compute_capability: such as ``8.7``.
        multiprocessors: their number, which differs from one kind of Orin to another.
    """

    name: str
    compute_capability: str
    multiprocessors: int

    def __str__(self) -> str:
        return (
            f"{self.name} (compute capability {self.compute_capability}, "
            f"{self.multiprocessors} multiprocessors)"
        )


@functools.cache
def load_cuda() -> ctypes.CDLL:
    """Load CUDA's runtime library.

    Raises:
        InputError: it is not installed.
    """
    for candidate in _candidates():
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise InputError(
        "CUDA's runtime (libcudart) was not found: on a Jetson run  "
        "sudo apt install nvidia-jetpack , elsewhere run  pip install 'fsad-edge[trt]'  and add "
        "its folder to LD_LIBRARY_PATH."
    )


def _candidates() -> Iterator[str]:
    """Names for the linker, then the folders in which CUDA and its wheels put the library."""
    yield from _LIBRARIES
    folders = [Path("/usr/local/cuda/lib64")]
    folders += sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/lib"))
    for folder in folders:
        yield from (str(folder / name) for name in _LIBRARIES if (folder / name).exists())


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library.

    Raises:
        InputError: it reports an error.
    """
    library = load_cuda()
    code = getattr(library, name)(*arguments)
    if code:
        library.cudaGetErrorString.restype = ctypes.c_char_p
        raise InputError(_describe_error(code, library.cudaGetErrorString(code).decode(), name))


def _describe_error(code: int, reason: str, function: str) -> str:
    """What an error of CUDA means for a user, a sentence."""
    if code == _OLD_DRIVER and (problem := driver_problem(_major_version())):
        return f"{problem}."
    if code == _NO_GPU:
        return f"NVIDIA's driver {driver_version() or ''}".rstrip() + " finds no GPU here."
    if code == _OUT_OF_MEMORY:
        return f"the GPU has not enough memory free ({reason}, in {function})."
    return f"the GPU cannot be used ({reason}, in {function}): see  fsad-edge doctor."


def _major_version() -> int:
    """The major version of CUDA's runtime."""
    version = ctypes.c_int()
    load_cuda().cudaRuntimeGetVersion(ctypes.byref(version))
    return version.value // 1000


def find_gpu() -> Gpu:
    """The first GPU.

    Raises:
        InputError: there is none, or no driver for it.
    """
    count = ctypes.c_int()
    call("cudaGetDeviceCount", ctypes.byref(count))
    properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
    call("cudaGetDeviceProperties", properties, 0)
    major, minor, multiprocessors = (
        _attribute(number) for number in (_MAJOR, _MINOR, _MULTIPROCESSORS)
    )
    name = properties.value.decode(errors="replace")
    return Gpu(name, f"{major}.{minor}", multiprocessors)


def free_memory() -> tuple[int, int] | None:
    """Bytes of the first GPU's memory that are free, and all; None where there is no GPU."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
    except InputError:
        return None
    return free.value, total.value


def _attribute(number: int) -> int:
    value = ctypes.c_int()
    call("cudaDeviceGetAttribute", ctypes.byref(value), number, 0)
    return value.value


def pinned(shape: tuple[int, ...]) -> UInt8Array:
    """Memory of the host from which the GPU copies without a detour, uint8 of this shape.

    Where there is no GPU, or CUDA's runtime is not found, it is ordinary memory.
    """
    size, pointer = math.prod(shape), ctypes.c_void_p()
    try:
        call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), 0)
    except InputError:
        return np.empty(shape, np.uint8)
    memory = (ctypes.c_uint8 * size).from_address(pointer.value or 0)
    # The array keeps what it is made from. A process that ends frees its memory by itself.
    weakref.finalize(memory, load_cuda().cudaFreeHost, pointer).atexit = False
    array: UInt8Array = np.ctypeslib.as_array(memory).reshape(shape)
    return array


class Buffer:
    """Memory for one tensor on the GPU, and pinned memory on the host to copy from and to.

    Args:
        size: bytes of each.

    Attributes:
        host: the pinned memory, uint8 ``[size]``.
    """

    def __init__(self, size: int) -> None:
        self._device, self._pinned = ctypes.c_void_p(), ctypes.c_void_p()
        call("cudaMalloc", ctypes.byref(self._device), ctypes.c_size_t(size))
        call("cudaHostAlloc", ctypes.byref(self._pinned), ctypes.c_size_t(size), 0)
        pointer = ctypes.cast(self._pinned, ctypes.POINTER(ctypes.c_uint8))
        self.host: UInt8Array = np.ctypeslib.as_array(pointer, (size,))

    @property
    def address(self) -> int:
        """The address on the GPU."""
        return self._device.value or 0

    def copy(self, kind: int, size: int, stream: Stream) -> None:
        """Queue a copy of the first ``size`` bytes, ``TO_DEVICE`` or ``TO_HOST``."""
        ends = (self._device, self._pinned) if kind == TO_DEVICE else (self._pinned, self._device)
        call("cudaMemcpyAsync", *ends, ctypes.c_size_t(size), kind, stream.handle)

    def free(self) -> None:
        """Free the memory; ``host`` must not be used afterwards."""
        call("cudaFree", self._device)
        call("cudaFreeHost", self._pinned)
        self._device, self._pinned = ctypes.c_void_p(), ctypes.c_void_p()


class Stream:
    """A queue of work on the GPU, and a CUDA graph captured from it.

    Attributes:
        handle: the stream's handle for CUDA and TensorRT.
    """

    def __init__(self) -> None:
        self.handle, self._graph = ctypes.c_void_p(), ctypes.c_void_p()
        call("cudaStreamCreateWithFlags", ctypes.byref(self.handle), _NON_BLOCKING)

    def wait(self) -> None:
        """Wait until all queued work is done."""
        call("cudaStreamSynchronize", self.handle)

    def begin_capture(self) -> None:
        """Record the work that follows instead of running it."""
        call("cudaStreamBeginCapture", self.handle, _CAPTURE_THREAD_LOCAL)

    def end_capture(self) -> None:
        """Turn the recorded work into the graph that :meth:`launch` runs.

        Raises:
            InputError: some of the work cannot be recorded; the stream can still be used.
        """
        recorded = ctypes.c_void_p()
        call("cudaStreamEndCapture", self.handle, ctypes.byref(recorded))
        try:
            graph, flags = ctypes.byref(self._graph), ctypes.c_ulonglong(0)
            call("cudaGraphInstantiateWithFlags", graph, recorded, flags)
        finally:
            call("cudaGraphDestroy", recorded)

    def launch(self) -> None:
        """Queue the captured graph."""
        call("cudaGraphLaunch", self._graph, self.handle)

    def free(self) -> None:
        """Destroy the graph and the stream."""
        if self._graph:
            call("cudaGraphExecDestroy", self._graph)
        call("cudaStreamDestroy", self.handle)
        self.handle, self._graph = ctypes.c_void_p(), ctypes.c_void_p()
