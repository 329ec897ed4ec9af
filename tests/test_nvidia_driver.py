"""What is said of NVIDIA's driver: that there is none, that it is too old, which one it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsad_edge.runtime.backends import driver
from fsad_edge.runtime.backends.driver import describe_driver, driver_problem, driver_version
from tests.conftest import Cli, Job

without_driver = pytest.mark.skipif(
    driver.has_driver_library(), reason="there is a driver here, and this is about none"
)

#: What the kernel tells of NVIDIA's own module and of the open one.
TOLD = {
    "535.183.01": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12\n",
    "580.82.07": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release\n",
    "540.4.0": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n",
}


def machine(folder: Path, text: str) -> Path:
    """A machine whose kernel tells this of the driver."""
    file = folder / "proc/driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text(f"{text}GCC version:  gcc version 13.3.0\n")
    return folder


@pytest.mark.parametrize(("version", "text"), TOLD.items())
def test_the_version_is_what_the_kernel_tells(tmp_path: Path, version: str, text: str) -> None:
    assert driver_version(machine(tmp_path, text)) == version


def test_a_driver_that_is_too_old_names_the_lowest(tmp_path: Path) -> None:
    root = machine(tmp_path, TOLD["535.183.01"])
    problem = driver_problem(13, root)
    assert problem == "NVIDIA's driver 535.183.01 is too old (CUDA 13 needs version 580 or later)"
    assert "too old" not in (driver_problem(12, root) or "")


@without_driver
def test_a_container_may_have_the_driver_without_its_library(tmp_path: Path) -> None:
    root = machine(tmp_path, TOLD["580.82.07"])
    assert "--gpus all" in (driver_problem(13, root) or "")
    assert describe_driver(root).startswith("580.82.07, without its library")


@without_driver
def test_a_machine_without_a_driver_is_told_so_first(cli: Cli, job: Job, tmp_path: Path) -> None:
    assert driver_problem(13) == (
        "there is no NVIDIA driver here (CUDA 13 needs version 580 or later)"
    )
    done = cli("finetune", job.shots, "-o", tmp_path / "part", "--device", "cuda")
    assert done.code == 2
    assert "needs a GPU, and there is no NVIDIA driver here: take --device cpu" in done.err
    assert "torch" not in done.err
    found = cli("doctor", "--json").json["found"]
    assert found["NVIDIA driver"].startswith("none (CUDA 12 needs 525 or later, CUDA 13 needs 580")
    assert "version is insufficient" not in str(found)
