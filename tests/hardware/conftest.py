"""The report at the end of ``make hardware``, one JSON document to send back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fsad_edge.bench.machine import describe_gpu, describe_machine
from fsad_edge.bench.power import power_mode

REPORT: dict[str, Any] = {}


@pytest.fixture(scope="session")
def model_file() -> Path:
    """An ONNX file that ``fsad-edge export`` wrote."""
    path = os.environ.get("FSAD_EDGE_MODEL")
    if not path:
        pytest.skip("needs FSAD_EDGE_MODEL=part.onnx: run  make hardware MODEL=part.onnx")
    return Path(path)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A dictionary for what a test measures."""
    found: dict[str, Any] = REPORT.setdefault(request.node.name, {})
    return found


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not os.environ.get("FSAD_EDGE_MODEL"):
        return
    document = {
        "machine": {**describe_machine(), "gpu": describe_gpu()},
        "power_mode": power_mode(),
        "outcomes": {
            outcome: [each.nodeid for each in terminalreporter.stats.get(outcome, [])]
            for outcome in ("passed", "failed", "error", "skipped")
        },
        "measured": REPORT,
    }
    terminalreporter.write_sep(
        "=", "send this report back, with the failures above if there are any"
    )
    terminalreporter.write_line(json.dumps(document, indent=1, default=str))
