"""Import every module that a device runs, where no training framework is installed."""

from __future__ import annotations

import importlib
import pkgutil
import sys

ROOMS = (
    "runtime",
    "synthesis",
    "calibration",
    "learning",
    "monitoring",
    "deploy",
    "bench",
    "serve",
)
#: Modules that need an extra beyond `cpu` and `serve`.
LEFT_OUT = {"fsad_edge.bench.plot"}

modules = ["fsad_edge"]
for room in ROOMS:
    package = importlib.import_module(f"fsad_edge.{room}")
    modules += [
        found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
for name in modules:
    if name not in LEFT_OUT:
        importlib.import_module(name)
heavy = {"torch", "timm", "onnx"} & sys.modules.keys()
sys.exit(f"a device imports {sorted(heavy)}" if heavy else 0)
