"""``fsad-edge doctor``: what is installed, what is missing, and the line that installs it."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from typing import Annotated, Any

import typer

from fsad_edge.cli.console import err, out, package_version, print_facts, print_json
from fsad_edge.errors import MissingExtraError

#: Packages by the extra that brings them; a name after a slash is what is imported.
EXTRAS = {
    "train": [
        "torch",
        "timm",
        "onnx",
        "onnxscript",
        "safetensors",
        "scikit-learn/sklearn",
        "scipy",
        "matplotlib",
    ],
    "trt": ["tensorrt"],
}


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, providers, GPU and TensorRT, and how to get what is missing."""
    with err.status("looking"):
        found, missing = _examine()
    if json_:
        print_json({"found": found, "missing": missing})
        return
    print_facts(found)
    for what, line in missing.items():
        out.print(f"missing: {what}\n  {line}", markup=False)
    if not missing:
        out.print("Nothing is missing.")


def _examine() -> tuple[dict[str, str], dict[str, str]]:
    from fsad_edge.bench.machine import describe_gpu

    missing: dict[str, str] = {}
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in ("fsad-edge", "numpy", "pillow", "typer"):
        found[package] = package_version(package) or "not installed as a package"
    found["onnxruntime"] = _onnxruntime(missing)
    for extra, packages in EXTRAS.items():
        absent = []
        for entry in packages:
            package, _, module = entry.partition("/")
            version = package_version(package)
            # What is installed can still fail to import; the small ones are not worth the wait.
            if (version and package in {"torch", "tensorrt"}) or (
                version is None and importlib.util.find_spec(module or package)
            ):
                version = _import_version(module or package)
            found[package] = version or "not installed"
            if version is None:
                absent.append(package)
        if absent:
            line = f"pip install 'fsad-edge[{extra}]'"
            if extra == "trt":
                line += "   (on a Jetson it comes with JetPack: apt install tensorrt)"
            missing[", ".join(absent)] = line
    found["gpu"] = describe_gpu()
    return found, missing


def _onnxruntime(missing: dict[str, str]) -> str:
    from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime

    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if package_version(name)]
    if len(installed) == 2:
        missing["a clean onnxruntime: onnxruntime and onnxruntime-gpu overwrite each other"] = (
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'fsad-edge[cpu]'"
        )
    try:
        ort = import_onnxruntime()
    except MissingExtraError:
        missing["onnxruntime"] = "pip install 'fsad-edge[cpu]'   (or [gpu] beside an NVIDIA GPU)"
        return "not installed"
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()
    )
    return f"{ort.__version__} ({installed[0] if installed else 'of unknown origin'}): {providers}"


def _import_version(module: str) -> str | None:
    try:
        loaded: Any = importlib.import_module(module)
    except Exception as error:  # a broken install can raise anything
        return f"installed, but does not import ({error})"
    return str(getattr(loaded, "__version__", "of unknown version"))
