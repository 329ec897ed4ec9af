"""Power and clocks of a Jetson, from its system files.

Every reader takes the root of the file system, so that tests can describe another device.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from fsad_edge.bench.latency import Call
from fsad_edge.bench.machine import ROOT
from fsad_edge.bench.report import MedianAndMax, PowerReport, PowerSample, median_and_max

_PERIOD_SECONDS = 0.02  # between two readings


def read_power(root: Path = ROOT) -> dict[str, float]:
    """Watts by power rail, from the INA3221 monitors; empty if there are no monitors.

    Rails overlap and must not be added: on most boards ``VDD_IN`` includes all others.
    """
    watts: dict[str, float] = {}
    for label in sorted((root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*/in?_label")):
        channel, name = label.name[2], _text(label)
        if channel not in "123" or name in {"", "NC"}:  # channels above 3 sum shunt voltages
            continue
        millivolts = _number(label.with_name(f"in{channel}_input"))
        milliamperes = _number(label.with_name(f"curr{channel}_input"))
        if millivolts is not None and milliamperes is not None:
            watts[name] = millivolts * milliamperes / 1e6
    return watts


def read_clocks(root: Path = ROOT) -> dict[str, float]:
    """MHz by device: those that devfreq controls (the GPU and others), and each CPU core."""
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
    """Number and name of the mode that ``nvpmodel`` has set; None if there is no such mode."""
    number = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
    if number is None:
        return None
    name = re.search(
        rf"<\s*POWER_MODEL\s+ID={number[1]}\s+NAME=(\S+)\s*>", _text(root / "etc/nvpmodel.conf")
    )
    return number[1] + (f" ({name[1]})" if name else "")


def measure_power(
    calls: Mapping[str, Call], root: Path = ROOT, seconds: float = 1.0
) -> PowerReport | None:
    """Watts and MHz at rest and while each callable runs without a pause.

    This is separate from the timing, because a monitor averages over longer than one call takes.

    Returns:
        The report, or None if no power rail can be read.
    """
    if not read_power(root):
        return None
    return PowerReport(
        mode=power_mode(root),
        seconds=seconds,
        idle=_sample(_rest, root, seconds),
        configurations={name: _sample(call, root, seconds) for name, call in calls.items()},
    )


def _rest(repetition: int) -> Mapping[str, float]:
    time.sleep(0.01)
    return {}


def _sample(call: Call, root: Path, seconds: float) -> PowerSample:
    watts: list[dict[str, float]] = []
    mhz: list[dict[str, float]] = []
    done = threading.Event()

    def read() -> None:
        while True:
            watts.append(read_power(root))
            mhz.append(read_clocks(root))
            if done.wait(_PERIOD_SECONDS):
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
    return PowerSample(_summarise(watts), _summarise(mhz))


def _summarise(readings: list[dict[str, float]]) -> dict[str, MedianAndMax]:
    values: dict[str, list[float]] = {}
    for reading in readings:
        for name, value in reading.items():
            values.setdefault(name, []).append(value)
    return {name: median_and_max(found, 3) for name, found in values.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if re.fullmatch(r"-?\d+", text) else None
