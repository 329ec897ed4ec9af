"""A bounded number of attacks, the same at every run; ``make fuzz`` has others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Cases of each area, which take about a minute of one core together, and their seed. Where cases
#: are few, it is one that has the telling ones: large images side by side; long names.
RUNS = {
    "model-bytes": (60, 1),
    "model-documents": (120, 1),
    "learned": (24, 1),
    "images": (40, 67),
    "http": (40, 1),
    "watched": (2, 1),
    "commands": (30, 1),
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc as in Linux")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the areas keep what they attack."""
    return tmp_path_factory.mktemp("attacked") / "subject"


@pytest.mark.parametrize("area", RUNS)
def test_an_attack_ends_in_a_refusal_or_changes_nothing(
    area: str, subject: Path, tmp_path: Path
) -> None:
    count, seed = RUNS[area]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--area", area, "--count", str(count),
         "--seed", str(seed), "--subject", subject, "--failures", tmp_path],
        capture_output=True, text=True, timeout=600, check=False,
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {area} | " in done.stdout
