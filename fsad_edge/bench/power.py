"""Power and clocks of a Jetson, from its system files.

Every reader takes the root of the file system, so that a made tree can stand in for a device.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.bench.latency import Call
from fsad_edge.bench.machine import ROOT

_PERIOD = 0.02  # seconds between two readings


def read_power(root: Path = ROOT) -> dict[str, float]:
    """Watts by power rail, from the INA3221 monitors; empty where there are none.

    Rails overlap: on most boards ``VDD_IN`` holds all others, so they do not add up.
    """
    watts: dict[str, float] = {}
    for label in sorted((root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*/in?_label")):
        channel = label.name[2]
        # Channels above 3 are sums of shunt voltages.
        name = _text(label)
        volts = _number(label.with_name(f"in{channel}_input"))
        amperes = _number(label.with_name(f"curr{channel}_input"))
        if (
            channel in "123"
            and name not in {"", "NC"}
            and volts is not None
            and amperes is not None
        ):
            watts[name] = volts * amperes / 1e6  # the files hold millivolts and milliamperes
    return watts


def read_clocks(root: Path = ROOT) -> dict[str, float]:
    """MHz by device: what devfreq governs (the GPU and others), and each CPU core."""
    clocks: dict[str, float] = {}
    for file in sorted((root / "sys/class/devfreq").glob("*/cur_freq")):
        hertz = _number(file)
        if hertz is not None:
            clocks[file.parent.name] = hertz / 1e6
    for file in sorted(
        (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    ):
        kilohertz = _number(file)
        if kilohertz is not None:
            clocks[file.parent.parent.name] = kilohertz / 1e3
    return clocks


def power_mode(root: Path = ROOT) -> str | None:
    """The mode that ``nvpmodel`` has set, by number and name; None where there is none."""
    number = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if number is None:
        return None
    name = re.search(
        rf"<\s*POWER_MODEL\s+ID={number[1]}\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf")
    )
    return number[1] + (f" ({name[1]})" if name else "")


def measure_power(
    calls: Mapping[str, Call], root: Path = ROOT, seconds: float = 1.0
) -> dict[str, Any] | None:
    """Watts and MHz at rest and while each callable runs without a pause.

    This is apart from the timing: a monitor averages over longer than one call takes.

    Returns:
        ``mode``, ``idle`` and ``configurations`` by name, the latter two with ``watts`` and
        ``mhz`` by rail and clock, each ``p50`` and ``max``; None where no rail can be read.
    """
    if not read_power(root):
        return None
    document: dict[str, Any] = {"mode": power_mode(root), "seconds": seconds}
    document["idle"] = _sample(_rest, root, seconds)
    document["configurations"] = {
        name: _sample(call, root, seconds) for name, call in calls.items()
    }
    return document


def _rest(repetition: int) -> Mapping[str, float]:
    time.sleep(0.01)
    return {}


def _sample(call: Call, root: Path, seconds: float) -> dict[str, Any]:
    watts: list[dict[str, float]] = []
    mhz: list[dict[str, float]] = []
    done = threading.Event()

    def read() -> None:
        while True:
            watts.append(read_power(root))
            mhz.append(read_clocks(root))
            if done.wait(_PERIOD):
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        end, repetition = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            call(repetition)
            repetition += 1
    finally:
        done.set()
        reader.join()
    return {"watts": _middle_and_most(watts), "mhz": _middle_and_most(mhz)}


def _middle_and_most(readings: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    values: dict[str, list[float]] = {}
    for reading in readings:
        for name, value in reading.items():
            values.setdefault(name, []).append(value)
    return {
        name: {"p50": round(float(np.median(found)), 3), "max": round(max(found), 3)}
        for name, found in values.items()
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if re.fullmatch(r"-?\d+", text) else None
