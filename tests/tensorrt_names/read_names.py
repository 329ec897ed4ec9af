"""What TensorRT's Python bindings hold, class by class, read from their wheels without TensorRT.

The bindings are one extension module, which loads only beside TensorRT's libraries. These are
stood in for by empty ones (a C compiler makes them, a symbol at a time, until the module loads):
enough to list its classes, and nothing more. Linux, and the Python that the wheel is for.

    pip download --no-deps -d wheels tensorrt_cu12_bindings==10.3.0
    pip download --no-deps -d wheels tensorrt_cu13_bindings==10.13.2.6
    pip download --no-deps -d wheels tensorrt_cu13_bindings==11.4.0.106
    python tests/tensorrt_names/read_names.py wheels/*.whl

writes a JSON file for each version beside this script: attributes by class, those of the module
itself under an empty name. Only the classes that fsad-edge uses are kept.
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

#: TensorRT's classes by the names that its objects have in fsad-edge.
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

#: Classes that are named in the code, as ``trt.BuilderFlag``.
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
    """Attributes by class of the bindings in a wheel; the module's own under an empty name."""
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
