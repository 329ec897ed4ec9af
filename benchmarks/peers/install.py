"""Make the peers' virtual environment from the pinned ``requirements.txt``.

    python -m benchmarks.peers.install FOLDER

This takes several GB (torch) and some minutes. ``FOLDER/bin/python`` is then the PEERS_PYTHON that
runs ``-m benchmarks.peers`` from the repository root.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

#: What the peers' code imports; an environment without one of these is incomplete.
IMPORTS = "import anomalib.engine, anomalib.models, onnx, onnxruntime, onnxscript, timm"


def install(folder: Path) -> Path:
    """Make the environment and return its interpreter; a failed step ends the program."""
    if sys.version_info < (3, 11):
        sys.exit("the peers need Python 3.11 or newer: run this command with such a Python.")
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: name another folder.")
    venv.create(folder, with_pip=True)
    python = folder.absolute() / "bin" / "python"
    for step in (["-m", "pip", "install", "-r", str(REQUIREMENTS)], ["-c", IMPORTS]):
        if subprocess.run([str(python), *step]).returncode:
            sys.exit(f"{folder} is incomplete (see above): remove it and try again.")
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="new or empty folder")
    print(install(parser.parse_args().folder))


if __name__ == "__main__":
    main()
