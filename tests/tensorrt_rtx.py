"""An environment with TensorRT for RTX, NVIDIA's own parser and builder, for the tests that ask it.

It is the extra ``trt-rtx`` alone, in a folder of its own: the tests' environment stays as it is.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: What pip says where it reaches no index, or one without these packages or for another machine.
UNREACHABLE = ("No matching distribution", "Could not find a version", "Connection", "timed out")

#: Parses and builds ONNX files; run there. It prints the complaint of each, or the plan's length.
JUDGE = """
import dataclasses, json, sys
from pathlib import Path
from fsad_edge.deploy.engine_source import read_source
from fsad_edge.deploy.tensorrt_plan import build_plan, find_complaint
from fsad_edge.runtime.backends.tensorrt_module import import_tensorrt
from fsad_edge.runtime.engine_file import BuildOptions, Flavour
trt, exported = import_tensorrt(Flavour.RTX), read_source(Path(sys.argv[1]))
options = BuildOptions(tuple(json.loads(sys.argv[2])))
said = {}
for file in map(Path, sys.argv[3:]):
    complaint, size = find_complaint(trt, file.read_bytes()), 0
    if complaint is None and options.batch[0]:
        source = dataclasses.replace(exported, path=file, data=file.read_bytes())
        plan = build_plan(trt, Flavour.RTX, source, options, Path("none"), lambda *step: None)
        size = len(plan)
    said[file.name] = [complaint, size]
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Rtx:
    """The folder with the packages."""

    folder: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python with these packages and this checkout."""
        paths = os.pathsep.join([str(self.folder), str(ROOT)])
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``fsad-edge``."""
        return self.run("-m", "fsad_edge.cli", *arguments)

    def judge(
        self,
        exported: Path,
        files: Sequence[Path],
        batch: tuple[int, int, int] = (1, 1, 1),
        parse_only: bool = False,
    ) -> dict[str, tuple[str | None, int]]:
        """Parse files and build those that are taken.

        Args:
            exported: a file of the same size, whose metadata is taken.
            files: the ONNX files.
            batch: smallest, usual and largest number of images.
            parse_only: build nothing.

        Returns:
            The parser's complaint, or the length of the plan, by the name of the file.
        """
        done = self.run(
            "-c", JUDGE, exported, json.dumps((0, 0, 0) if parse_only else batch), *files
        )
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return {name: (complaint, size) for name, (complaint, size) in said.items()}


def install(folder: Path) -> Rtx:
    """Install the extra ``trt-rtx`` into a folder; skips the test where there is no index."""
    extra = re.search(r"^trt-rtx = (\[.*?\])$", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert extra is not None
    wanted = ast.literal_eval(extra[1])
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--retries", "1"]
    done = subprocess.run(
        [*command, "--only-binary", ":all:", "--target", str(folder), *wanted],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip("pip has no index that TensorRT for RTX can be installed from")
    assert done.returncode == 0, done.stderr
    return Rtx(folder)
