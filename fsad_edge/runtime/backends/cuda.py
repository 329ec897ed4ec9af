"""The little of CUDA's runtime that a TensorRT engine needs, through ctypes on libcudart.

JetPack installs libcudart, and so do TensorRT's own wheels; a Python package for it would be one
more thing to find for a board. Functions named here are in CUDA 12 and 13 alike.
"""

from __future__ import annotations

import ctypes
import functools
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError

_LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")

# cudaMemcpyKind, cudaDeviceAttr and flags of driver_types.h.
TO_DEVICE, TO_HOST = 1, 2
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1

#: More than cudaDeviceProp has ever had; of it the name alone is read, which comes first.
_PROPERTIES_BYTES = 1 << 14


@dataclass(frozen=True)
class Gpu:
    """What an engine is bound to.

    Attributes:
        name: as CUDA gives it; all Orins are called ``Orin``.
        compute_capability: such as ``8.7``.
        multiprocessors: tells one Orin from another.
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
    """CUDA's runtime library.

    Raises:
        InputError: it is not installed.
    """
    for candidate in _candidates():
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    raise InputError(
        "CUDA's runtime (libcudart) is not found: on a Jetson run  "
        "sudo apt install nvidia-jetpack , elsewhere  pip install 'fsad-edge[trt]'  and name its "
        "folder in LD_LIBRARY_PATH."
    )


def _candidates() -> Iterator[str]:
    """Names for the linker first, then where CUDA and its wheels put the library."""
    yield from _LIBRARIES
    folders = [Path("/usr/local/cuda/lib64")]
    folders += sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/*/lib"))
    for folder in folders:
        yield from (str(folder / name) for name in _LIBRARIES if (folder / name).exists())


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library.

    Raises:
        InputError: it does not succeed.
    """
    library = load_cuda()
    code = getattr(library, name)(*arguments)
    if code:
        library.cudaGetErrorString.restype = ctypes.c_char_p
        reason = library.cudaGetErrorString(code).decode()
        raise InputError(
            f"the GPU cannot be used ({reason}, in {name}): see  fsad-edge doctor  for the driver."
        )


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


def _attribute(number: int) -> int:
    value = ctypes.c_int()
    call("cudaDeviceGetAttribute", ctypes.byref(value), number, 0)
    return value.value


class Buffer:
    """Memory of one tensor on the device, and pinned memory on the host to copy from and to.

    Args:
        size: bytes of each.

    Attributes:
        address: on the device.
        host: uint8 ``[size]``, pinned.
    """

    def __init__(self, size: int) -> None:
        self._device, self._pinned = ctypes.c_void_p(), ctypes.c_void_p()
        call("cudaMalloc", ctypes.byref(self._device), ctypes.c_size_t(size))
        call("cudaHostAlloc", ctypes.byref(self._pinned), ctypes.c_size_t(size), 0)
        pointer = ctypes.cast(self._pinned, ctypes.POINTER(ctypes.c_uint8))
        self.host: npt.NDArray[np.uint8] = np.ctypeslib.as_array(pointer, (size,))

    @property
    def address(self) -> int:
        return self._device.value or 0

    def copy(self, kind: int, size: int, stream: Stream) -> None:
        """Begin to copy the first ``size`` bytes, ``TO_DEVICE`` or ``TO_HOST``."""
        ends = (self._device, self._pinned) if kind == TO_DEVICE else (self._pinned, self._device)
        call("cudaMemcpyAsync", *ends, ctypes.c_size_t(size), kind, stream.handle)

    def free(self) -> None:
        """Give the memory back; ``host`` must not be used from then on."""
        call("cudaFree", self._device)
        call("cudaFreeHost", self._pinned)
        self._device, self._pinned = ctypes.c_void_p(), ctypes.c_void_p()


class Stream:
    """A queue of work on the device, and a graph captured from it.

    Attributes:
        handle: as CUDA and TensorRT take it.
    """

    def __init__(self) -> None:
        self.handle, self._graph = ctypes.c_void_p(), ctypes.c_void_p()
        call("cudaStreamCreateWithFlags", ctypes.byref(self.handle), _NON_BLOCKING)

    def wait(self) -> None:
        """Until all that was queued is done."""
        call("cudaStreamSynchronize", self.handle)

    def begin_capture(self) -> None:
        """From here on work is not run but recorded."""
        call("cudaStreamBeginCapture", self.handle, _CAPTURE_THREAD_LOCAL)

    def end_capture(self) -> None:
        """Make of what was recorded what :meth:`launch` runs.

        Raises:
            InputError: something in it cannot be recorded; the stream can be used on.
        """
        recorded = ctypes.c_void_p()
        call("cudaStreamEndCapture", self.handle, ctypes.byref(recorded))
        try:
            graph, none = ctypes.byref(self._graph), ctypes.c_ulonglong(0)
            call("cudaGraphInstantiateWithFlags", graph, recorded, none)
        finally:
            call("cudaGraphDestroy", recorded)

    def launch(self) -> None:
        """Queue the captured graph."""
        call("cudaGraphLaunch", self._graph, self.handle)

    def free(self) -> None:
        """Give it back."""
        if self._graph:
            call("cudaGraphExecDestroy", self._graph)
        call("cudaStreamDestroy", self.handle)
        self.handle, self._graph = ctypes.c_void_p(), ctypes.c_void_p()
