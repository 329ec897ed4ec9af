"""Run a job in the peers' environment, from ours."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError

REPOSITORY = Path(__file__).parents[2]


def run_job(python: Path, module: str, job: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Run a module of ``benchmarks.peers`` and return its arrays by name.

    Args:
        python: interpreter of the peers' environment.
        module: the module, such as ``benchmarks.peers.parity``, which describes its job and arrays.
        job: the job, for JSON.

    Raises:
        InputError: the interpreter cannot be started, or the job failed; it says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        job_file, arrays_file = Path(folder) / "job.json", Path(folder) / "out.npz"
        job_file.write_text(json.dumps(job))
        # The path is not resolved: a link belongs to the environment, its target does not.
        command = [str(python.absolute()), "-m", module, str(job_file), str(arrays_file)]
        try:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            raise InputError(f"{python} cannot be started: {error.strerror or error}.") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}."]
            raise InputError(f"{module} failed: {lines[-1]}")
        with np.load(arrays_file) as arrays:
            return dict(arrays)
