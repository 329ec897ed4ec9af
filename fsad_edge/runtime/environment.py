"""What is installed on this machine, what is missing, and the command that installs it."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import sys
from dataclasses import dataclass, field

from fsad_edge.errors import MissingExtraError
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.batch_sizes import USUAL_MOST, batch_sizes
from fsad_edge.runtime.backends.cuda import free_memory
from fsad_edge.runtime.backends.driver import describe_driver
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.cores import default_threads, describe_cores
from fsad_edge.runtime.provenance import package_version

#: Packages by the extra that installs them, and the name to import where it is another one.
EXTRAS = {
    "train": {
        "torch": "torch",
        "timm": "timm",
        "onnx": "onnx",
        "onnxscript": "onnxscript",
        "safetensors": "safetensors",
    },
    "eval": {"scipy": "scipy", "matplotlib": "matplotlib"},
    "trt": {"tensorrt": "tensorrt"},
    "trt-rtx": {"tensorrt-rtx": "tensorrt_rtx_bindings"},
}

#: What else to know where a package of an extra is missing.
_HINTS = {
    "trt": "   (on a Jetson it comes with JetPack: apt install tensorrt)",
    "trt-rtx": "   (TensorRT for PCs with RTX cards; it builds engines without a GPU, too)",
}

#: Packages that are often installed but broken, and are therefore imported to find their version.
_IMPORTED = {"torch", "tensorrt", "tensorrt-rtx"}


@dataclass(frozen=True)
class Environment:
    """What is installed.

    Attributes:
        found: versions and facts by name.
        missing: commands that install what is missing, by what it is.
    """

    found: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def has_modules(*names: str) -> bool:
    """Whether modules are installed; they are not imported.

    Example:
        >>> has_modules("numpy"), has_modules("numpy", "no_such_module")
        (True, False)
    """
    return all(map(_is_installed, names))


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None  # None keeps it from being imported
    return importlib.util.find_spec(name) is not None


def check_environment() -> Environment:
    """Find the versions of everything that fsad-edge can use.

    Example:
        >>> check_environment().found["numpy"].count(".")
        2
    """
    environment = Environment()
    found = environment.found
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["python"] = platform.python_version()
    found["cores"] = describe_cores()
    found["threads"] = str(default_threads() or "as the engine chooses") + " without --threads"
    for package in ("fsad-edge", "numpy", "pillow", "typer"):
        found[package] = package_version(package) or "not installed as a package"
    found["NVIDIA driver"] = describe_driver()
    _check_onnxruntime(environment)
    for extra, packages in EXTRAS.items():
        versions = {package: _version(package, module) for package, module in packages.items()}
        absent = [package for package, version in versions.items() if version is None]
        found.update({package: versions[package] or "not installed" for package in versions})
        # Each of two TensorRTs builds engines, and with both the first is taken.
        other = {"trt": "tensorrt_rtx_bindings", "trt-rtx": "tensorrt"}.get(extra)
        if absent and not (other and has_modules(other)):
            install = f"pip install 'fsad-edge[{extra}]'" + _HINTS.get(extra, "")
            environment.missing[", ".join(absent)] = install
    return environment


def _check_onnxruntime(environment: Environment) -> None:
    found, missing = environment.found, environment.missing
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if package_version(name)]
    if len(installed) == 2:
        missing["a clean onnxruntime: onnxruntime and onnxruntime-gpu overwrite each other"] = (
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'fsad-edge[cpu]'"
        )
    try:
        ort = import_onnxruntime()
    except MissingExtraError:
        found["onnxruntime"] = "installed, but cannot be imported" if installed else "not installed"
        missing["onnxruntime"] = (
            "pip install 'fsad-edge[cpu]'   (or [gpu] on a machine with an NVIDIA GPU)"
        )
        return
    providers = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    package = installed[0] if installed else "of unknown origin"
    found["onnxruntime"] = f"{ort.__version__} ({package}): {', '.join(providers)}"
    if Provider.CUDA.name in providers:
        sizes = ", ".join(map(str, batch_sizes(USUAL_MOST)))
        found["batches on a GPU"] = (
            f"{sizes} images in one run, unless --max-batch says otherwise; each size keeps the "
            "weights, working memory and a CUDA graph of its own on the GPU"
        )
    if (memory := free_memory()) is not None:
        found["GPU memory"] = "{:.0f} of {:.0f} MB are free".format(*(one / 1e6 for one in memory))


def _version(package: str, module: str) -> str | None:
    """The version of a package; None where it is not installed."""
    version = package_version(package)
    if version and package not in _IMPORTED:
        return version
    if version is None and importlib.util.find_spec(module) is None:
        return None
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a broken installation can raise anything
        return f"installed, but cannot be imported ({error})"
    return str(getattr(loaded, "__version__", "of unknown version"))
