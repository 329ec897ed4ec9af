"""Facts about the machine, without which a latency says nothing.

Every reader takes the root of the file system, so that tests can describe another device.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from fsad_edge.runtime.backends.driver import driver_problem
from fsad_edge.runtime.cores import describe_cores

ROOT = Path("/")


def describe_machine(root: Path = ROOT) -> dict[str, str]:
    """Facts by name: CPU, cores this process may use, governor, memory, system and load.

    Facts that cannot be read are left out.
    """
    facts = {
        "board": _text(root / "proc/device-tree/model"),
        "cpu": _cpu(root),
        "cores": describe_cores(root),
        "governor": _governor(root),
        "memory": _memory(root),
        "system": _system(root),
        "python": platform.python_version(),
        "load": _load(root),
    }
    return {name: fact for name, fact in facts.items() if fact}


def describe_gpu() -> str:
    """GPU, driver and memory as nvidia-smi reports them, or why they are unknown."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return driver_problem() or "unknown (no nvidia-smi)"
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer ({error})"
    return answer.stdout.strip().replace("\n", "; ") or "nvidia-smi finds no GPU"


def busy_seconds(root: Path = ROOT) -> float | None:
    """Core seconds that all processes and a hypervisor have used since the system started.

    None if the system does not tell.
    """
    fields = _text(root / "proc/stat").partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def peak_memory() -> int | None:
    """The largest resident memory of this process so far, in bytes; None if unknown."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", _text(ROOT / "proc/self/status"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").replace("\0", "").strip()
    except OSError:
        return ""


def _cpu(root: Path) -> str:
    text = _text(root / "proc/cpuinfo")
    for key in ("model name", "Model", "Hardware"):  # x86, Raspberry Pi, older ARM kernels
        found = re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found[1].strip()
    part = re.search(r"^CPU part\s*:\s*(\S+)$", text, re.MULTILINE)
    return platform.machine() + (f", CPU part {part[1]}" if part else "")


def _governor(root: Path) -> str:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({_text(file) for file in files} - {""}))


def _memory(root: Path) -> str:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return f"{int(found[1]) * 1024 / 1e9:.1f} GB" if found else ""


def _system(root: Path) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', _text(root / "etc/os-release"), re.MULTILINE)
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{found[1]}, {kernel}" if found else kernel


def _load(root: Path) -> str:
    first = _text(root / "proc/loadavg").partition(" ")[0]
    return f"{first} in the last minute" if first else ""
