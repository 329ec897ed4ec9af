"""Latency: how times are taken and judged, and the bench command with its report and plot."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsad_edge import Model
from fsad_edge.bench.benchmark import Configuration, make_labels, run_benchmark, step_times
from fsad_edge.bench.images import default_images
from fsad_edge.bench.latency import (
    BLOCKS,
    NOISE_LIMIT,
    block_medians,
    difference,
    interleave,
    is_noisy,
    noise,
    percentiles,
)
from fsad_edge.bench.machine import busy_seconds, describe_machine, peak_memory
from fsad_edge.bench.plot import write_plot
from fsad_edge.bench.power import power_mode, read_clocks, read_power
from fsad_edge.bench.report import MedianAndMax, read_report
from tests.commands import BLOCKED, ENTRY
from tests.commands import assert_refused as refused
from tests.conftest import Cli, Job, Outcome, photograph

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's system files")
TIMES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=200)


# Percentiles, noise and differences


@given(TIMES, st.floats(0.1, 10))
def test_percentiles_rise_and_scale(times: list[float], factor: float) -> None:
    found = percentiles(times)
    assert found.p50 <= found.p90 <= found.p99 <= found.max == max(times)
    assert found == percentiles(sorted(times))
    scaled = dataclasses.astuple(percentiles(np.array(times) * factor))
    np.testing.assert_allclose(scaled, np.array(dataclasses.astuple(found)) * factor)


def test_noise_is_movement_between_blocks_and_ignores_outliers() -> None:
    steady = np.full(160, 10.0)
    steady[::9] = 100  # outliers all over the run show in p99, not here
    assert noise(steady) == 0
    assert not is_noisy(steady)
    moved = np.full(160, 10.0)
    moved[80:] *= 1 + 2 * NOISE_LIMIT
    assert noise(moved) == pytest.approx(2 / 1.1 * NOISE_LIMIT)
    assert is_noisy(moved)


def test_too_few_times_have_no_noise_and_no_certain_difference() -> None:
    few = np.full(BLOCKS - 1, 10.0)
    assert noise(few) is None
    assert is_noisy(few)
    assert not len(block_medians(few))
    assert not difference(few, few * 2).certain


@given(st.integers(0, 1000))
@settings(max_examples=30)
def test_a_shared_drift_does_not_hide_a_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drift = np.linspace(10, 20, 160)
    base = drift * rng.normal(1, 0.02, 160)
    other = drift * rng.normal(1, 0.02, 160) * 1.15
    assert is_noisy(base)
    found = difference(base, other)
    assert found.certain
    assert found.low <= found.ratio <= found.high
    assert found.ratio == pytest.approx(1.15, abs=0.06)
    back = difference(other, base)
    assert back.certain
    assert back.ratio == pytest.approx(1 / found.ratio, rel=0.01)


def test_equal_distributions_are_seldom_called_different() -> None:
    claims = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        claims += difference(rng.lognormal(2, 0.5, 80), rng.lognormal(2, 0.5, 80)).certain
    assert claims <= 300 * 0.03  # the rule allows 0.8 %


# Interleaving


def test_every_callable_has_a_turn_in_every_round() -> None:
    seen: list[tuple[str, int]] = []

    def call(name: str) -> Any:
        def record(repetition: int) -> Mapping[str, float]:
            seen.append((name, repetition))
            time.sleep(0.005)
            return {"step": 1.0}

        return record

    names = ["a", "b", "c"]
    run = interleave({name: call(name) for name in names}, seconds=None, runs=16, warm_up=2)
    assert run.calls_per_turn in {1, 2}  # two unless a call is delayed
    timed = seen[len(names) * 2 :]
    turn = 1 + run.calls_per_turn  # one untimed call before
    rounds = [timed[i : i + 3 * turn : turn] for i in range(0, len(timed), 3 * turn)]
    assert len(rounds) == 16 // run.calls_per_turn
    for each in rounds:
        assert sorted(name for name, _ in each) == names
        assert len({repetition for _, repetition in each}) == 1  # all score the same images
    assert len({tuple(name for name, _ in each) for each in rounds}) > 1  # shuffled
    for samples in run.samples.values():
        assert len(samples.total) == len(samples.steps["step"]) == 16
        assert samples.total.min() >= 5
    assert len(run.reference.total) == 16


@pytest.mark.parametrize("runs", [1, 9, 83])
def test_the_number_of_runs_is_exact(runs: int) -> None:
    run = interleave({"a": lambda repetition: {}}, seconds=None, runs=runs)
    assert len(run.samples["a"].total) == len(run.reference.total) == runs


def test_the_time_limit_is_kept() -> None:
    def call(repetition: int) -> Mapping[str, float]:
        time.sleep(0.001)
        return {}

    fractions: list[float] = []
    start = time.perf_counter()
    run = interleave({"a": call, "b": call}, seconds=0.4, on_progress=fractions.append)
    assert time.perf_counter() - start >= 0.8
    assert fractions == sorted(fractions)
    assert fractions[-2] < 1 == fractions[-1]  # it ends with the first round beyond the limit
    assert len(run.samples["a"].total) >= BLOCKS


def test_a_slower_callable_is_recognised() -> None:
    def sleeping(seconds: float) -> Any:
        def call(repetition: int) -> Mapping[str, float]:
            time.sleep(seconds)
            return {}

        return call

    calls = {"fast": sleeping(0.004), "slow": sleeping(0.008), "fast again": sleeping(0.004)}
    run = interleave(calls, seconds=None, runs=48)
    fast = run.samples["fast"].total
    slow = difference(fast, run.samples["slow"].total)
    assert slow.certain
    assert slow.ratio > 1.2  # 2 on a machine that does nothing else


@LINUX
def test_spinning_threads_stop_before_the_next_turn() -> None:
    spinning = threading.Event()
    spinning_at_call = []

    def spin() -> None:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        spinning.clear()

    def engine(repetition: int) -> Mapping[str, float]:
        spinning.set()
        threading.Thread(target=spin).start()
        return {}

    def other(repetition: int) -> Mapping[str, float]:
        spinning_at_call.append(spinning.is_set())
        return {}

    run = interleave({"engine": engine, "other": other}, seconds=None, runs=8, warm_up=1)
    assert len(spinning_at_call) == 1 + 16
    assert not any(spinning_at_call[1:])
    assert run.restless_turns == 0


@LINUX
def test_a_constant_load_of_other_processes_is_noise() -> None:
    """It moves no p50 and still slows everything that is measured."""
    cores = os.cpu_count() or 1
    script = "while True: pass"
    loads = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(cores)]
    try:
        run = interleave({"a": lambda repetition: {}}, seconds=1.0)
    finally:
        for load in loads:
            load.kill()
            load.wait()
    assert run.other_load is not None
    assert run.other_load > 0.4
    assert run.noisy


@LINUX
def test_own_work_does_not_count_as_other_load() -> None:
    def work(repetition: int) -> Mapping[str, float]:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        return {}

    before = busy_seconds()
    run = interleave({"a": work}, seconds=1.0)
    after = busy_seconds()
    assert before is not None
    assert after is not None
    assert run.other_load is not None
    own = run.samples["a"].total.size * 0.01
    assert run.other_load * (os.cpu_count() or 1) * 1.0 < after - before - own + 0.2


def test_an_error_switches_the_garbage_collector_on_again() -> None:
    def stop(fraction: float) -> None:
        assert not gc.isenabled()
        raise KeyboardInterrupt

    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        interleave({"a": lambda repetition: {}}, runs=8, on_progress=stop)
    assert gc.isenabled()
    with pytest.raises(ValueError, match="seconds or runs"):
        interleave({"a": lambda repetition: {}}, seconds=None)


# The command


@pytest.fixture(scope="module")
def measured(cli: Cli, job: Job) -> dict[str, Any]:
    done = cli("bench", job.file, "--batch", "1,3", "--runs", "24", "--json")
    assert done.code == 0, done.err
    document: dict[str, Any] = done.json
    return document


def test_the_json_report_is_consistent(measured: dict[str, Any], job: Job) -> None:
    one, three = measured["configurations"]
    assert (one["label"], three["label"]) == ("part.onnx, batch 1", "part.onnx, batch 3")
    assert measured["repetitions"] == 24
    for row in (one, three):
        assert row["sha256"] == hashlib.sha256(job.file.read_bytes()).hexdigest()
        assert row["provider"] == "CPUExecutionProvider"
        assert len(row["times"]) == 24
        assert row["total"]["max"] == pytest.approx(max(row["times"]), abs=1e-3)
        assert row["total"]["p50"] == pytest.approx(np.median(row["times"]), abs=1e-3)
        assert set(row["steps"]) == {"decode", "resize", "infer", "post"}
        for step in row["steps"].values():  # a step is part of the call
            assert all(0 <= step[name] <= row["total"][name] for name in step)
        assert row["steps"]["infer"]["p50"] > 0
        images = row["batch"] * 24 / sum(row["times"]) * 1e3
        assert row["images_per_second"] == pytest.approx(images, rel=1e-3)
        assert row["ms_per_image"]["p50"] == pytest.approx(
            row["total"]["p50"] / row["batch"], abs=1e-3
        )
        assert len(row["block_p50"]) == measured["noise"]["blocks"]
        assert 0 < row["load_ms"]["p50"] < row["first_score_ms"]["p50"]
    (found,) = measured["differences"]
    blocks = np.array(three["block_p50"]) / 3 / np.array(one["block_p50"])  # per image
    assert found["ratio"] == pytest.approx(np.median(blocks), rel=1e-3)
    assert found["low"] == pytest.approx(blocks.min(), rel=1e-3)
    with Model.load(job.file) as model:
        golden = [image.image for image in model.metadata.golden]
    assert measured["images"]["count"] == len(golden)
    assert measured["images"]["sha256"] == hashlib.sha256(b"".join(golden)).hexdigest()
    assert measured["machine"]["engine"].startswith("onnxruntime ")
    assert measured["power"] is None


@LINUX
def test_peak_memory_is_that_of_a_process_of_its_own(measured: dict[str, Any]) -> None:
    own = peak_memory()
    assert own is not None
    for row in measured["configurations"]:
        # This process holds torch, so its own peak would be larger.
        assert 20e6 < row["peak_bytes"]["max"] < 0.8 * own


def test_the_printed_report_is_complete(cli: Cli, job: Job, tmp_path: Path) -> None:
    second = tmp_path / "other [red].onnx"
    second.write_bytes(job.file.read_bytes())
    done = cli("bench", job.file, second, "--images", job.shots, "--runs", "8")
    assert done.code == 0, done.err
    for word in (
        *("p50", "p90", "p99", "max", "images/s", "noise", "decode", "resize", "infer", "post"),
        *("load", "first score", "peak memory", "CPU", "cores", "memory", "onnxruntime"),
        *("part.onnx", "other [red].onnx", "5 of 96x96", "Rule: Noise is", "8 repetitions"),
    ):
        assert word in done.out, word
    assert not re.search(r"\b(mean|average)\b", done.out)
    assert "other [red].onnx against part.onnx: " in done.out
    assert ("steady" in done.out) != ("too noisy to tell" in done.err)
    if "the machine was too noisy" in done.err:
        assert "against part.onnx: too noisy to tell" in done.out


def test_too_few_runs_are_reported(cli: Cli, job: Job) -> None:
    done = cli("bench", job.file, "--runs", "3")
    assert done.code == 0, done.err
    assert "too few repetitions to tell the noise" in done.err
    assert "steady" not in done.out


def test_a_file_without_golden_images_is_measured_on_noise(job: Job) -> None:
    with Model.load(job.file) as model:
        metadata = dataclasses.replace(model.metadata, golden=[])
        images = default_images([metadata, model.metadata])
        assert images.source.startswith("golden images of ")  # the first that has any
        images = default_images([metadata])
        assert images.source.startswith("noise")
        assert images.sizes == [(1280, 960)]
        assert all(data.startswith(b"\xff\xd8") for data in images.encoded)  # JPEG
        assert not model.score(images.encoded[0]).good


def test_a_batch_is_timed_as_a_whole(job: Job) -> None:
    images = [(job.shots / f"{i}.png").read_bytes() for i in range(3)]
    with Model.load(job.file) as model:
        start = time.perf_counter()
        results = model.score_batch(images)
        taken = (time.perf_counter() - start) * 1e3
    steps = step_times(results)
    assert steps["infer"] == results[0].timings["infer"]
    assert steps["decode"] == pytest.approx(sum(each.timings["decode"] for each in results))
    assert steps["post"] == max(each.timings["post"] for each in results)
    assert sum(steps.values()) <= taken


def test_labels_are_unique() -> None:
    a, b = Path("x/part.onnx"), Path("y/part.onnx")
    assert make_labels([Configuration(a)]) == ["part.onnx"]
    assert make_labels([Configuration(a), Configuration(b)]) == ["x/part.onnx", "y/part.onnx"]
    assert make_labels([Configuration(a), Configuration(a)]) == ["part.onnx", "part.onnx (2)"]
    assert make_labels([Configuration(a, threads=1), Configuration(a, threads=2)]) == [
        "part.onnx, threads 1",
        "part.onnx, threads 2",
    ]


# Comparison, plot and bad input


def test_compare(cli: Cli, job: Job, measured: dict[str, Any], tmp_path: Path) -> None:
    base = json.loads(json.dumps(measured))
    for row in base["configurations"]:
        row["total"]["p50"] *= 100  # as if it had been much slower
        row["block_p50"] = [value * 100 for value in row["block_p50"]]
    base["machine"]["cpu"] = "an abacus"
    file = tmp_path / "base.json"
    file.write_text(json.dumps(base))
    done = cli("bench", job.file, "--batch", "3,5", "--runs", "8", "--compare", file)
    assert done.code == 0, done.err
    assert "Ratios between two runs are not certain" in done.out
    assert "the cpu differs: it was an abacus in the base" in done.err
    assert "not in the base: part.onnx, batch 5" in done.err
    section = done.out[done.out.index("Against the base") :]
    (line,) = (line for line in section.splitlines() if line.startswith("  part.onnx, batch 3: "))
    assert 0 < float(line.split(": ")[1].split()[0]) < 0.2
    assert "the fixed computation: " in section


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "not a benchmark"),
        ("[1]", "not a benchmark"),
        ("p50: 3", "is not JSON"),
        ('{"fsad_edge_bench": 2}', "has schema 2 and this fsad-edge reads schema 1"),
        ('{"fsad_edge_bench": 1, "configurations": [{}]}', "is damaged"),
        ('{"fsad_edge_bench": 1}', "has no field 'calls_per_turn'"),
    ],
)
def test_a_base_that_is_no_report_is_refused(
    cli: Cli, job: Job, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "base.json"
    file.write_text(text)
    refused(cli("bench", job.file, "--runs", "8", "--compare", file), words, "base.json")


def test_a_base_of_other_configurations_is_refused(
    cli: Cli, job: Job, measured: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "base.json"
    file.write_text(json.dumps(measured))
    done = cli("bench", job.file, "--threads", "1,2", "--runs", "1", "--compare", file)
    refused(done, "holds none of the configurations measured here")
    refused(cli("bench", job.file, "--compare", tmp_path / "none.json"), "none.json cannot be read")


def test_plot(cli: Cli, job: Job, measured: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "latency.png"
    done = cli("bench", job.file, "--runs", "1", "--plot", file)
    assert done.code == 0, done.err
    assert f"The plot is {file}." in done.out
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(measured))
    write_plot(read_report(saved), file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width >= 1000
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours  # a curve for each
    refused(cli("bench", job.file, "--plot", file), "exists: add --force")
    refused(cli("bench", job.file, "--plot", tmp_path / "latency.pdf"), "must name a .png")


def test_without_matplotlib(job: Job, tmp_path: Path) -> None:
    script = BLOCKED.format(module="matplotlib")
    for options, code in ((["--plot", str(tmp_path / "p.png")], 2), (["--runs", "1"], 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, "bench", str(job.file), *options],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        if code:
            outcome = Outcome(done.returncode, done.stdout, done.stderr)
            refused(outcome, "matplotlib", "pip install 'fsad-edge[eval]'")
    assert not list(tmp_path.iterdir())


def test_bad_input(cli: Cli, job: Job, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    photograph(np.random.default_rng(0)).save(tmp_path / "good.png")
    refused(cli("bench", tmp_path / "none.onnx"), "none.onnx", "no such file")
    refused(cli("bench", job.file, "--images", tmp_path), "broken.jpg", "not an image")
    refused(cli("bench", job.file, "--images", tmp_path / "none"), "does not exist")
    unknown = cli("bench", job.file, "--provider", "tpu")
    assert unknown.code == 2
    assert "'tpu' is not one of 'auto', 'cpu', 'cuda', 'tensorrt'" in unknown.err
    refused(cli("bench", job.file, "--batch", "0"), "--batch takes whole numbers from 1")
    refused(cli("bench", job.file, "--threads", "many"), "--threads takes whole numbers from 0")
    refused(cli("bench", job.file, "--seconds", "0"), "--seconds takes a number above 0")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT as a terminal does")
def test_ctrl_c(job: Job, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "bench", str(job.file), "--seconds", "100000",
         "--plot", str(tmp_path / "latency.png")],
        stderr=subprocess.PIPE, bufsize=0, env={**os.environ, "FORCE_COLOR": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            shown = b""
            while b"measuring" not in shown:
                ready, _, _ = select.select([process.stderr], [], [], 60)
                assert ready
                more = os.read(process.stderr.fileno(), 65536)
                assert more, shown
                shown += more
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"stopped before it was done" in rest
    assert b"Traceback" not in rest
    assert not list(tmp_path.iterdir())


# A Jetson, described by a tree of system files like its own


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    monitor = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"
    gpu = "sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu"
    core = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_"
    files = {
        f"{monitor}in1_label": "VDD_IN",
        f"{monitor}in1_input": "4960",
        f"{monitor}curr1_input": "1250",
        f"{monitor}in2_label": "VDD_CPU_GPU_CV",
        f"{monitor}in2_input": "4952",
        f"{monitor}curr2_input": "500",
        f"{monitor}in3_label": "NC",
        f"{monitor}in3_input": "0",
        f"{monitor}curr3_input": "0",
        f"{monitor}in7_label": "sum of shunt voltages",
        f"{monitor}in7_input": "12",
        f"{gpu}/cur_freq": "624750000",
        core.format(0) + "cur_freq": "1510400",
        core.format(0) + "governor": "schedutil",
        core.format(1) + "cur_freq": "1510400",
        core.format(1) + "governor": "schedutil",
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
        "proc/meminfo": "MemTotal:        7802912 kB\nMemFree: 1 kB\n",
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw",
        "sys/fs/cgroup/cpu.max": "150000 100000",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    links = tmp_path / "sys/class/devfreq"  # as the kernel shows them
    links.mkdir(parents=True)
    (links / "17000000.gpu").symlink_to(tmp_path / gpu)
    return tmp_path


def test_power_and_clocks(jetson: Path) -> None:
    assert read_power(jetson) == pytest.approx({"VDD_IN": 6.2, "VDD_CPU_GPU_CV": 2.476})
    clocks = {"17000000.gpu": 624.75, "cpu0": 1510.4, "cpu1": 1510.4}
    assert read_clocks(jetson) == pytest.approx(clocks)
    assert power_mode(jetson) == "2 (MAXN_SUPER)"


def test_facts_that_cannot_be_read_are_left_out(jetson: Path, tmp_path: Path) -> None:
    (jetson / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/curr1_input").unlink()
    assert list(read_power(jetson)) == ["VDD_CPU_GPU_CV"]
    (jetson / "etc/nvpmodel.conf").unlink()
    assert power_mode(jetson) == "2"
    nothing = tmp_path / "nothing"
    assert read_power(nothing) == read_clocks(nothing) == {}
    assert power_mode(nothing) is None
    assert busy_seconds(nothing) is None
    assert set(describe_machine(nothing)) == {"cpu", "cores", "system", "python"}


def test_the_machine_is_described(jetson: Path) -> None:
    facts = describe_machine(jetson)
    assert facts["board"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit"
    assert facts["cpu"] == "ARMv8 Processor rev 1 (v8l)"
    assert facts["governor"] == "schedutil"
    assert facts["memory"] == "8.0 GB"
    assert facts["system"].startswith("Ubuntu 22.04.4 LTS, ")
    assert facts["cores"].endswith(", limited to the time of 1.5")


@LINUX
def test_this_machine_is_described() -> None:
    facts = describe_machine()
    assert facts["cores"].startswith(f"{len(os.sched_getaffinity(0))} of ")
    assert facts["memory"].endswith(" GB")
    assert facts["cpu"]


def test_a_jetson_adds_power(job: Job, jetson: Path) -> None:
    report = run_benchmark([Configuration(job.file)], seconds=None, runs=8, root=jetson)
    assert report.power is not None
    assert report.power.mode == "2 (MAXN_SUPER)"
    for sample in (report.power.idle, report.power.configurations["part.onnx"]):
        assert sample.watts["VDD_IN"] == MedianAndMax(6.2, 6.2)
        assert sample.mhz["17000000.gpu"] == MedianAndMax(624.75, 624.75)
    assert report.machine["board"].startswith("NVIDIA Jetson")
