"""How many cores this process may use: its affinity and the quota of its control groups.

Engines and libraries start a thread for each core of the machine. Where a container may use the
time of fewer, those threads wait for one another.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

#: The root of the file system; tests describe another machine below another one.
ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """The number of threads of this process that can run at the same time, 1 or more.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    quota = cpu_quota(root)
    cores = _cores_by_affinity()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def default_threads(root: Path = ROOT) -> int:
    """The threads of an engine where the user asks for no number.

    0 leaves the choice to the engine: this process may use all cores, and the engine knows better
    which of them share an arithmetic unit.
    """
    cores = usable_cores(root)
    return 0 if cores >= (os.cpu_count() or 1) else cores


def describe_cores(root: Path = ROOT) -> str:
    """The cores that this process may use, in words."""
    text = f"{_cores_by_affinity()} of {os.cpu_count() or 1}"
    quota = cpu_quota(root)
    if quota is not None:
        text += f", limited to the time of {quota:.3g}"
    return text


def cpu_quota(root: Path = ROOT) -> float | None:
    """The time that the control groups of this process grant, in cores; None if they set no limit.

    A group cannot use more than any group above it, so that the smallest quota counts.

    References:
        https://docs.kernel.org/admin-guide/cgroup-v2.html, ``cpu.max``;
        https://docs.kernel.org/scheduler/sched-bwc.html for version 1.
    """
    quotas = [
        quota
        for folder, top in _cpu_groups(root)
        for group in (folder, *folder.parents)
        if group.is_relative_to(top) and (quota := _quota_of(group)) is not None
    ]
    return min(quotas, default=None)


def _cores_by_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_groups(root: Path) -> Iterator[tuple[Path, Path]]:
    """The folder of this process's group in each mounted hierarchy that can have a quota.

    Yields:
        the group's folder and the folder of the highest group that can be seen from here.
    """
    groups: dict[str, str] = {}  # by controller; version 2 has one hierarchy, without a name
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        groups.update(dict.fromkeys(controllers.split(","), group))
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mount, _, system = line.partition(" - ")
        kind, *_, options = system.split(" ") or [""]
        controller = "" if kind == "cgroup2" else "cpu"
        if kind not in ("cgroup", "cgroup2") or controller not in ["", *options.split(",")]:
            continue
        if controller not in groups:
            continue
        mounted, place = map(_unescape, mount.split(" ")[3:5])
        top = root / place.lstrip("/")
        group = os.path.relpath(groups[controller], mounted)
        # A group outside of what is mounted cannot be seen from here.
        yield top if group.startswith("..") else top / group, top


def _quota_of(group: Path) -> float | None:
    """The quota that one group sets, in cores."""
    quota, _, period = _text(group / "cpu.max").partition(" ")
    if not quota:
        quota = _text(group / "cpu.cfs_quota_us")  # -1 where there is none
        period = _text(group / "cpu.cfs_period_us")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None
    return int(quota) / int(period)


def _unescape(path: str) -> str:
    """A path of the mount table, which writes a space as ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
