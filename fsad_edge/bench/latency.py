"""Interleaved latency: raw times, percentiles, and whether they can be trusted.

Times of two runs cannot be compared on a machine that does other things too. Here everything that
is to be compared takes turns in one run, so that what slows the machine slows all of it equally. A
fixed computation takes turns too and shows how steady the machine was. This module times any
callable and needs numpy only.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fsad_edge.bench.machine import busy_seconds
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.cores import usable_cores

#: What is timed. It is called with the number of the repetition, which is the same for all in one
#: turn, and returns the milliseconds of its own steps by name, or an empty mapping.
Call = Callable[[int], Mapping[str, float]]

#: A run is cut into this many blocks of equal length. Two equally fast configurations agree on the
#: faster one in all eight with a probability of 2 x 0.5^8, 0.8 %.
BLOCKS = 8

#: A p50 that moves by more than this fraction between the blocks is too noisy to tell.
NOISE_LIMIT = 0.10

#: A run during which other processes use more than this fraction of all cores is too noisy to tell:
#: a constant load slows everything without moving any p50.
OTHER_LOAD_LIMIT = 0.10

#: Differences below this fraction are not told apart. The same file loaded twice can differ by as
#: much, depending on where its arrays are in memory.
MIN_DIFFERENCE = 0.03

NOISE_RULE = (
    f"Noise is how far the p50 moves between {BLOCKS} blocks of the run, as a fraction of the p50. "
    f"A time is too noisy to tell above {NOISE_LIMIT:.0%}, or if other processes use more than "
    f"{OTHER_LOAD_LIMIT:.0%} of all cores. A difference counts if it is above {MIN_DIFFERENCE:.0%} "
    "and has the same sign in every block."
)

_REFERENCE = "\0reference"  # cannot be the name of a configuration
_MAX_WAIT_SECONDS = 0.5  # for other threads to stop running
_TURN_SECONDS = 0.05  # for the timed calls of one turn, so that waiting does not outweigh them
_MAX_CALLS_PER_TURN = 10
_MAX_REFERENCE_CORES = 16


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of some times; never a mean, which hides the tail."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class Samples:
    """Raw times of one configuration, in the order in which they were taken.

    Attributes:
        total: float64 ``[R]``, milliseconds of wall time of each call.
        steps: float64 ``[R]`` by step, milliseconds, as the callable returned them.
    """

    total: Float64Array
    steps: dict[str, Float64Array]


@dataclass(frozen=True)
class Run:
    """What :func:`interleave` measured.

    Attributes:
        samples: samples by the name of the callable, all with the same number of repetitions.
        reference: samples of the fixed computation that took turns with the callables.
        calls_per_turn: timed calls in a row in one turn.
        restless_turns: turns that began while another thread of this process was still running.
        other_load: fraction of all cores that other processes used during the run; None if the
            system does not tell.
    """

    samples: dict[str, Samples]
    reference: Samples
    calls_per_turn: int
    restless_turns: int
    other_load: float | None

    @property
    def noisy(self) -> bool:
        """Whether the machine was too noisy to tell anything."""
        busy = self.other_load is not None and self.other_load > OTHER_LOAD_LIMIT
        return busy or is_noisy(self.reference.total)


@dataclass(frozen=True)
class Difference:
    """One configuration against another of the same run.

    Attributes:
        ratio: ratio of the p50s, below 1 if the other is faster than the base. It is the median of
            the blocks' ratios, in which drift cancels; in a run too short for blocks, that of the
            whole run.
        low: the lowest of the blocks' ratios.
        high: the highest of the blocks' ratios.
        certain: whether the blocks agree and the difference is above ``MIN_DIFFERENCE``.
    """

    ratio: float
    low: float
    high: float
    certain: bool


def interleave(
    calls: Mapping[str, Call],
    *,
    seconds: float | None = 10.0,
    runs: int | None = None,
    warm_up: int = 5,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> Run:
    """Time callables in turns after a warm-up, in a new random order in every round.

    Each turn first waits until no other thread of this process runs: engines let their threads
    spin, which takes a core from the next callable. It then calls once untimed, to fill the caches,
    and takes the times. Python's garbage collector is off during the run.

    Args:
        calls: the callables by name.
        seconds: time for each callable, waiting and untimed calls included; None sets no limit.
        runs: the largest number of timed calls of each callable; None sets no limit.
        warm_up: untimed calls of each callable before the first round.
        seed: random seed of the order.
        on_progress: is called with the fraction done, 0 to 1; an exception that it raises ends the
            run.

    Raises:
        ValueError: neither ``seconds`` nor ``runs`` is given, or ``calls`` is empty.
    """
    if (seconds is None and runs is None) or not calls:
        raise ValueError("give something to call, and seconds or runs")
    timed = {name: _Timed(call) for name, call in calls.items()}
    timed[_REFERENCE] = _Timed(_reference_call())
    warm_seconds = {name: each.warm_up(warm_up) for name, each in timed.items()}
    per_turn = _calls_per_turn(max(warm_seconds[name] for name in calls), runs)
    order, shuffle = list(timed), random.Random(seed).shuffle
    done, rounds, restless_turns = 0, 0, 0
    with _garbage_collector_off():
        other_load = _start_load_meter()
        start = time.perf_counter()
        while True:
            parts = [0.0]
            if runs is not None:
                parts.append(done / runs)
            if seconds is not None:  # at least BLOCKS rounds, or the noise would be unknown
                spent = time.perf_counter() - start
                parts.append(min(spent / (seconds * len(calls)), rounds / BLOCKS))
            if on_progress is not None:
                on_progress(min(1.0, max(parts)))
            if max(parts) >= 1:
                break
            count = per_turn if runs is None else min(per_turn, runs - done)
            shuffle(order)
            for name in order:
                restless_turns += not _wait_for_threads()
                timed[name].take_turn(done, count)
            done, rounds = done + count, rounds + 1
        load = other_load()
    samples = {name: each.samples() for name, each in timed.items()}
    reference = samples.pop(_REFERENCE)
    return Run(samples, reference, per_turn, restless_turns, load)


def percentiles(values: npt.ArrayLike) -> Percentiles:
    """The percentiles of some times."""
    array = np.asarray(values, np.float64)
    p50, p90, p99 = np.percentile(array, [50, 90, 99]).tolist()
    return Percentiles(p50, p90, p99, float(array.max()))


def block_medians(values: Float64Array) -> Float64Array:
    """The p50 of each of ``BLOCKS`` equal parts of a run; empty if there are fewer times."""
    if len(values) < BLOCKS:
        return np.empty(0)
    return np.array([np.median(block) for block in np.array_split(values, BLOCKS)])


def noise(values: Float64Array) -> float | None:
    """How far the p50 moves between the blocks, as a fraction of the p50.

    It is None if there are fewer than ``BLOCKS`` times, which say nothing about it.
    """
    medians = block_medians(values)
    return float(np.ptp(medians) / np.median(values)) if len(medians) else None


def is_noisy(values: Float64Array) -> bool:
    """Whether the p50 cannot be trusted: it moves too far, or there are too few times to see."""
    moved = noise(values)
    return moved is None or moved > NOISE_LIMIT


def difference(base: Float64Array, other: Float64Array) -> Difference:
    """Compare two configurations of the same run.

    Args:
        base: float64 ``[R]``, milliseconds.
        other: float64 ``[R]``, milliseconds, interleaved with ``base``.
    """
    blocks = block_medians(other) / block_medians(base)
    if not len(blocks):
        ratio = float(np.median(other) / np.median(base))
        return Difference(ratio, ratio, ratio, False)
    ratio, low, high = float(np.median(blocks)), float(blocks.min()), float(blocks.max())
    agreed = high < 1 or low > 1
    return Difference(ratio, low, high, agreed and abs(ratio - 1) > MIN_DIFFERENCE)


@dataclass
class _Timed:
    """A callable and the times that were taken of it so far, in milliseconds."""

    call: Call
    totals: list[float] = field(default_factory=list)
    steps: list[Mapping[str, float]] = field(default_factory=list)

    def warm_up(self, times: int) -> float:
        """Call untimed; returns the seconds that one call takes once it is warm."""
        taken = []
        for repetition in range(max(1, times)):
            start = time.perf_counter()
            self.call(repetition)
            taken.append(time.perf_counter() - start)
        return float(np.median(taken[len(taken) // 2 :]))

    def take_turn(self, first: int, count: int) -> None:
        """Call once untimed, then time ``count`` repetitions from ``first`` on."""
        call = self.call
        call(first)
        for repetition in range(first, first + count):
            before = time.perf_counter()
            steps = call(repetition)
            self.totals.append((time.perf_counter() - before) * 1e3)
            self.steps.append(steps)

    def samples(self) -> Samples:
        names = self.steps[0].keys() if self.steps else ()
        steps = {name: np.array([taken[name] for taken in self.steps]) for name in names}
        return Samples(np.array(self.totals), steps)


def _calls_per_turn(slowest_seconds: float, runs: int | None) -> int:
    calls = max(1, min(_MAX_CALLS_PER_TURN, int(_TURN_SECONDS / slowest_seconds)))
    return calls if runs is None else max(1, min(calls, runs // BLOCKS))


@contextlib.contextmanager
def _garbage_collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reference_call() -> Call:
    """A fixed computation of a few milliseconds on every core, without an engine.

    Engines use all cores and end with the slowest, so other work on one core must show here too.
    """
    values = np.random.default_rng(0).random(100_000)
    cores = min(_MAX_REFERENCE_CORES, usable_cores())
    pool = ThreadPoolExecutor(cores)  # its threads sleep between calls; NumPy sorts without the GIL

    def call(repetition: int) -> Mapping[str, float]:
        for _ in pool.map(np.sort, [values] * cores):
            pass
        return {}

    return call


def _start_load_meter() -> Callable[[], float | None]:
    """Start to watch other processes; the result returns the fraction of all cores they used."""

    def clocks() -> tuple[float, float | None, float]:
        return time.perf_counter(), busy_seconds(), time.process_time()

    start, busy_before, own_before = clocks()

    def load() -> float | None:
        end, busy, own = clocks()
        if busy_before is None or busy is None:
            return None
        cores = os.cpu_count() or 1
        return max(0.0, (busy - busy_before - (own - own_before)) / ((end - start) * cores))

    return load


def _wait_for_threads() -> bool:
    """Wait until no other thread of this process runs; False if one does not stop in time."""
    end = time.perf_counter() + _MAX_WAIT_SECONDS
    while (busy := _other_threads_run()) and time.perf_counter() < end:
        time.sleep(0.001)
    return not busy


def _other_threads_run() -> bool:
    """Whether a thread of this process other than the calling one is running or waits for a core.

    CPU time would not show it: a thread that spins while others work gets little of it.
    """
    own = str(threading.get_native_id())
    try:
        threads = [thread for thread in os.listdir("/proc/self/task") if thread != own]
    except OSError:  # not Linux: ONNX Runtime's threads spin for some 50 ms
        time.sleep(0.1)
        return False
    for thread in threads:
        try:
            with open(f"/proc/self/task/{thread}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]  # a name may hold anything
        except OSError:  # the thread has ended
            continue
        if state == b"R":
            return True
    return False
