"""NVIDIA's driver: whether it is here, its version, and the lowest version that CUDA needs."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

#: The lowest version of the driver by CUDA's major version; it serves all of its minor versions.
#: Source: NVIDIA, CUDA Compatibility, "Minor Version Compatibility", table 1
#: (https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
LOWEST_DRIVER = {12: 525, 13: 580}

_ROOT = Path("/")

#: Where the kernel's part of the driver tells its version, below the root of the file system.
_TOLD = "proc/driver/nvidia/version"


def driver_version(root: Path = _ROOT) -> str | None:
    """The version of the driver, such as ``580.65.06``; None where the system does not tell one.

    Args:
        root: root of the file system, so that tests can describe another machine.
    """
    try:
        text = (root / _TOLD).read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text)
    return found[1] if found else None


def has_driver_library() -> bool:
    """Whether the driver's library loads, by which CUDA calls it."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def driver_problem(cuda: int | None = None, root: Path = _ROOT) -> str | None:
    """Why no GPU can be used, as far as it is the driver: words for a sentence; None where it fits.

    Args:
        cuda: CUDA's major version that is to run; None for any.
        root: root of the file system.
    """
    version, lowest = driver_version(root), None if cuda is None else LOWEST_DRIVER.get(cuda)
    needs = f"CUDA {cuda} needs version {lowest} or later"
    if version is None and not has_driver_library():
        return "there is no NVIDIA driver here" + (f" ({needs})" if lowest else "")
    if version is not None and lowest and int(version.partition(".")[0]) < lowest:
        return f"NVIDIA's driver {version} is too old ({needs})"
    if not has_driver_library():
        return (
            f"NVIDIA's driver {version} is here without its library libcuda, as in a container "
            "that was started without  --gpus all"
        )
    return None


def describe_driver(root: Path = _ROOT) -> str:
    """The driver and the versions that CUDA needs, for whoever looks for what is missing."""
    version = driver_version(root)
    if not has_driver_library():
        here = "none" if version is None else f"{version}, without its library libcuda"
    else:
        here = version or "of unknown version"
    needed = ", ".join(f"CUDA {cuda} needs {one} or later" for cuda, one in LOWEST_DRIVER.items())
    return f"{here} ({needed})"
