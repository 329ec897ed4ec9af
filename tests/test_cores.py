"""The cores that a process may use: affinity, and the quotas of control groups."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsad_edge.runtime.cores import cpu_quota, usable_cores
from tests.commands import run_process
from tests.conftest import Job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")

V2 = "30 23 0:26 {root} /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
SPACE = r"33 31 0:29 / /my\040groups rw - cgroup cgroup rw,cpu"


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "quota"),
    [
        ("0::/", [V2.format(root="/")], {"sys/fs/cgroup/cpu.max": "20000 100000"}, 0.2),
        ("0::/", [V2.format(root="/")], {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ("0::/", [V2.format(root="/")], {}, None),
        (  # the smallest on the way up counts, not the nearest
            "0::/a/b/c",
            [V2.format(root="/")],
            {
                "sys/fs/cgroup/a/cpu.max": "150000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "50000 50000",
                "sys/fs/cgroup/a/b/c/cpu.max": "max 100000",
                "sys/fs/cgroup/other/cpu.max": "1000 100000",
            },
            1.0,
        ),
        (  # version 1, and a container that sees its own group alone
            "4:memory:/docker/1\n1:cpu,cpuacct:/docker/1/x\n0::/",
            [MEMORY, V1.format(root="/docker/1")],
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (  # the group is outside of what is mounted
            "1:cpu:/elsewhere",
            [V1.format(root="/docker/1")],
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "10000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            0.1,
        ),
        (
            "1:cpu:/",
            [SPACE],
            {"my groups/cpu.cfs_quota_us": "30000", "my groups/cpu.cfs_period_us": "10000"},
            3.0,
        ),
    ],
)
def test_the_smallest_quota_on_the_way_up_is_found(
    tmp_path: Path, groups: str, mounts: list[str], files: dict[str, str], quota: float | None
) -> None:
    tables = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts)}
    for name, text in {**tables, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert cpu_quota(tmp_path) == quota
    most = len(os.sched_getaffinity(0))
    expected = most if quota is None else min(most, {0.1: 1, 0.2: 1, 1.0: 1, 2.5: 3, 3.0: 3}[quota])
    assert usable_cores(tmp_path) == expected


def test_a_machine_without_these_files_sets_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.fixture
def narrow_group(tmp_path: Path) -> Iterator[Path]:
    """A control group of this machine with less than a core, one level below the limit."""
    for top, files in {
        "/sys/fs/cgroup/cpu": {"cpu.cfs_quota_us": "90000"},
        "/sys/fs/cgroup": {"cpu.max": "90000 100000"},
    }.items():
        group = Path(top) / f"fsad-edge-{tmp_path.name}-{os.getpid()}"
        try:
            (group / "deep").mkdir(parents=True)
            for name, text in files.items():
                (group / name).write_text(text)
            if not (group / "deep/cgroup.procs").exists():
                raise OSError
        except OSError:
            continue
        try:
            yield group / "deep"
        finally:
            (group / "deep").rmdir()
            group.rmdir()
        return
    pytest.skip("no control group can be made here")


#: Scores in the control group or on the core that is given, and counts the threads of the engine.
COUNT = """
import os, sys
from pathlib import Path
limit, file, image, threads = sys.argv[1:]
if limit.isdigit():
    os.sched_setaffinity(0, {int(limit)})
else:
    (Path(limit) / "cgroup.procs").write_text(str(os.getpid()))
from fsad_edge import Model, load_image
pixels = load_image(image)
before = len(os.listdir("/proc/self/task"))
with Model.load(file, "cpu", int(threads)) as model:
    model.score(pixels)
    print(len(os.listdir("/proc/self/task")) - before)
"""


def engine_threads(job: Job, limit: str | Path, threads: int = 0) -> int:
    """Threads that the engine starts besides the calling one."""
    done = run_process(limit, job.file, job.shots / "0.png", str(threads), script=COUNT)
    assert done.code == 0, done.err
    return int(done.out)


def test_the_engine_takes_the_cores_of_the_affinity(job: Job) -> None:
    core = str(min(os.sched_getaffinity(0)))
    assert engine_threads(job, core) == 0
    assert engine_threads(job, core, threads=3) == 2  # what the user asks for is given


def test_the_engine_takes_the_time_of_the_control_group(job: Job, narrow_group: Path) -> None:
    assert engine_threads(job, narrow_group) == 0


def test_doctor_tells_the_cores_and_training_takes_no_more(narrow_group: Path) -> None:
    script = (
        "import os, sys\n"
        f"open('{narrow_group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "from fsad_edge.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        "    from fsad_edge.training.devices import limit_threads\n"
        "    import torch, threadpoolctl, numpy\n"
        "    limit_threads(0)\n"
        "    pools = threadpoolctl.threadpool_info()\n"
        "    print('threads', torch.get_num_threads(), {pool['num_threads'] for pool in pools})\n"
    )
    done = run_process("doctor", script=script)
    assert ", limited to the time of 0.9\n" in done.out
    assert done.out.splitlines()[-1] == "threads 1 {1}"
