"""List the classes and attributes of TensorRT's Python bindings, from their wheels alone.

The bindings are one extension module, which loads only with TensorRT's libraries. This script makes
empty libraries with a C compiler and adds the missing symbols one by one until the module loads.
That is enough to list its classes. It needs Linux and the Python that the wheel is for.

    pip download --no-deps -d wheels tensorrt_cu12_bindings==10.3.0
    pip download --no-deps -d wheels tensorrt_cu13_bindings==10.13.2.6
    pip download --no-deps -d wheels tensorrt_cu13_bindings==11.4.0.106
    python tests/tensorrt_names/read_names.py wheels/*.whl

writes a JSON file for each version into the folder of this script: the attributes of each class,
and those of the module itself under an empty name. Only classes that fsad-edge uses are listed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")

#: TensorRT's classes by the names of the variables that hold their objects in fsad-edge.
CLASSES = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "complaint": "ParserError",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
}

#: Classes that the code names, such as ``trt.BuilderFlag``.
NAMED = (
    "BuilderFlag",
    "DataType",
    "HardwareCompatibilityLevel",
    "ILogger",
    "IProgressMonitor",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "TensorIOMode",
)

LIST = """
import importlib.util, json, sys, types
package = types.ModuleType("tensorrt_bindings")
package.__path__ = [sys.argv[1]]
sys.modules["tensorrt_bindings"] = package
file = sys.argv[1] + "/tensorrt.so"
spec = importlib.util.spec_from_file_location("tensorrt_bindings.tensorrt", file)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
public = lambda thing: sorted(name for name in dir(thing) if not name.startswith("_"))
names = {name: public(getattr(module, name)) for name in sys.argv[2:]}
names[""] = public(module)
print(json.dumps(names))
"""


def read_names(wheel: Path) -> dict[str, list[str]]:
    """The attributes of each class in a wheel; those of the module itself under an empty name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract("tensorrt_bindings/tensorrt.so", folder)
        symbols: set[str] = set()
        while True:
            _empty_libraries(folder, symbols)
            listed = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    LIST,
                    folder / "tensorrt_bindings",
                    *CLASSES.values(),
                    *NAMED,
                ],
                env={**os.environ, "LD_LIBRARY_PATH": name},
                capture_output=True,
                text=True,
                check=False,
            )
            if listed.returncode == 0:
                found: dict[str, list[str]] = json.loads(listed.stdout)
                return found
            missing = re.search(r"undefined symbol: (\w+)", listed.stderr)
            if missing is None or missing[1] in symbols:
                sys.exit(f"{wheel.name} does not load:\n{listed.stderr}")
            symbols.add(missing[1])


def _empty_libraries(folder: Path, symbols: set[str]) -> None:
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(symbols)))
    for major in ("10", "11"):
        for library in LIBRARIES:
            target = folder / f"lib{library}.so.{major}"
            subprocess.run(["cc", "-shared", "-fPIC", "-o", target, source], check=True)


def main() -> None:
    for wheel in map(Path, sys.argv[1:]):
        package, version = wheel.name.split("-")[:2]
        target = Path(__file__).with_name(f"{version}.json")
        document = {"package": package, "version": version, "names": read_names(wheel)}
        target.write_text(json.dumps(document, indent=0) + "\n")
        print(target)


if __name__ == "__main__":
    main()
