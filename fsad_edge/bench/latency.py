"""Latency by interleaving: raw times, percentiles, and whether they can be trusted.

Times of two runs cannot be compared on a machine that does other things too. Here everything that
is to be compared takes turns in one run, so that what slows the machine slows all of it alike; and
a fixed computation takes turns with it, which shows how steady the machine was. Takes any callable;
needs numpy only.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fsad_edge.bench.machine import busy_seconds, usable_cores
from fsad_edge.runtime.arrays import Float64Array

#: What is timed: called with the number of the repetition (the same for all in one turn), gives the
#: milliseconds of its own steps by name; an empty mapping where it has none.
Call = Callable[[int], Mapping[str, float]]

#: A run is cut into this many parts of equal length. Two configurations that are alike would agree
#: on the faster one in all eight with a probability of 2 x 0.5^8, 0.8 %.
BLOCKS = 8

#: A p50 that moves by more than this fraction between the blocks is too noisy to tell.
NOISE_LIMIT = 0.10

#: Where others use more than this fraction of all cores, it is too noisy to tell: a load that never
#: changes slows everything without moving any p50.
OTHERS_LIMIT = 0.10

#: Differences below this fraction are not told apart: the same file loaded twice can differ by as
#: much, by where its arrays came to lie.
LEAST_DIFFERENCE = 0.03

NOISE_RULE = (
    f"noise is how far the p50 moves between {BLOCKS} blocks of the run, as a fraction of the p50; "
    f"above {NOISE_LIMIT:.0%}, or where other processes use more than {OTHERS_LIMIT:.0%} of all "
    f"cores meanwhile, it is too noisy to tell. A difference counts where it is above "
    f"{LEAST_DIFFERENCE:.0%} and has the same sign in every block."
)

_REFERENCE = "\0reference"  # no name of a configuration
_SETTLE_SECONDS = 0.5  # the longest wait for other threads to come to rest
_TURN_SECONDS = 0.05  # what the calls of one turn may take, so that waiting does not outweigh them
_MOST_CALLS = 10  # in one turn
_MOST_CORES = 16  # of the fixed computation


@dataclass(frozen=True)
class Samples:
    """Raw times of one configuration, in the order they were taken.

    Attributes:
        total: float64 ``[R]``, milliseconds of wall time of each call.
        steps: float64 ``[R]`` by step, milliseconds, as the callable gave them.
    """

    total: Float64Array
    steps: dict[str, Float64Array]


@dataclass(frozen=True)
class Run:
    """What :func:`interleave` measured.

    Attributes:
        samples: by the names of the callables; all with the same number of repetitions.
        reference: of the fixed computation that took turns with them.
        calls_per_turn: timed calls in a row before it was the next one's turn.
        restless: turns that began while a thread of this process was still busy.
        others: fraction of all cores that other processes used meanwhile; None where the system
            does not tell.
    """

    samples: dict[str, Samples]
    reference: Samples
    calls_per_turn: int
    restless: int
    others: float | None

    @property
    def noisy(self) -> bool:
        """Whether the machine was too noisy to tell anything."""
        busy = self.others is not None and self.others > OTHERS_LIMIT
        return busy or is_noisy(self.reference.total)


@dataclass(frozen=True)
class Difference:
    """One configuration against another of the same run.

    Attributes:
        ratio: of the p50s, other over base, below 1 where the other is faster: the median of the
            blocks' ratios, in which drift cancels, or of the whole run where there are no blocks.
        low: the lowest of the blocks' ratios.
        high: the highest of them.
        certain: the blocks agree and the difference is above ``LEAST_DIFFERENCE``.
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
    progress: Callable[[float], None] | None = None,
) -> Run:
    """Time callables in turns, after a warm-up; the order is shuffled in every round.

    Before each turn it waits until the threads of the one before have come to rest (engines let
    them spin, which takes a core from whoever comes next), then calls once untimed, so that caches
    hold what this callable needs, and then takes the times. Python's garbage collector is off
    meanwhile.

    Args:
        calls: by name.
        seconds: for each callable, waiting and untimed calls included; None: no limit.
        runs: timed calls of each callable at most; None: no limit.
        warm_up: untimed calls of each before the first round.
        seed: of the shuffling.
        progress: is told the fraction done, 0 to 1; what it raises ends the run.

    Raises:
        ValueError: neither ``seconds`` nor ``runs`` is given, or there is nothing to call.
    """
    if (seconds is None and runs is None) or not calls:
        raise ValueError("give something to call, and seconds or runs")
    timed = {**calls, _REFERENCE: _reference_call()}
    takes = {name: _warm_up(call, warm_up) for name, call in timed.items()}
    slowest = max(takes[name] for name in calls)
    per_turn = max(1, min(_MOST_CALLS, int(_TURN_SECONDS / slowest)))
    if runs is not None:
        per_turn = max(1, min(per_turn, runs // BLOCKS))
    totals: dict[str, list[float]] = {name: [] for name in timed}
    steps: dict[str, list[Mapping[str, float]]] = {name: [] for name in timed}
    order, shuffle = list(timed), random.Random(seed).shuffle
    done, rounds, restless = 0, 0, 0
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        others = _others()
        start = time.perf_counter()
        while True:
            spent = time.perf_counter() - start
            parts = [0.0]
            if runs is not None:
                parts.append(done / runs)
            if seconds is not None:  # a few rounds at least, or nothing could be said of noise
                parts.append(min(spent / (seconds * len(calls)), rounds / BLOCKS))
            if progress is not None:
                progress(min(1.0, max(parts)))
            if max(parts) >= 1:
                break
            count = per_turn if runs is None else min(per_turn, runs - done)
            shuffle(order)
            for name in order:
                restless += not _settle()
                call = timed[name]
                call(done)
                for repetition in range(done, done + count):
                    before = time.perf_counter()
                    taken = call(repetition)
                    totals[name].append((time.perf_counter() - before) * 1e3)
                    steps[name].append(taken)
            done, rounds = done + count, rounds + 1
        used = others()
    finally:
        if collected:
            gc.enable()
    samples = {name: _samples(totals[name], steps[name]) for name in timed}
    reference = samples.pop(_REFERENCE)
    return Run(samples, reference, per_turn, restless, used)


def percentiles(values: npt.ArrayLike) -> dict[str, float]:
    """``p50``, ``p90``, ``p99`` and ``max`` of some times; never a mean, which hides the tail."""
    array = np.asarray(values, np.float64)
    p50, p90, p99 = np.percentile(array, [50, 90, 99]).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "max": float(array.max())}


def block_medians(values: Float64Array) -> Float64Array:
    """The p50 of each of ``BLOCKS`` equal parts of a run; empty where there are fewer times."""
    if len(values) < BLOCKS:
        return np.empty(0)
    return np.array([np.median(block) for block in np.array_split(values, BLOCKS)])


def noise(values: Float64Array) -> float | None:
    """How far the p50 moves between the blocks, as a fraction of the p50.

    None where there are fewer than ``BLOCKS`` times: nothing can be said of so few.
    """
    medians = block_medians(values)
    return float(np.ptp(medians) / np.median(values)) if len(medians) else None


def is_noisy(values: Float64Array) -> bool:
    """Whether the p50 cannot be trusted: it moves too far, or there are too few times to see."""
    moved = noise(values)
    return moved is None or moved > NOISE_LIMIT


def difference(base: Float64Array, other: Float64Array) -> Difference:
    """Whether one configuration is faster than another of the same run.

    Args:
        base: float64 ``[R]``, milliseconds.
        other: float64 ``[R]``, taken in turns with ``base``.
    """
    blocks = block_medians(other) / block_medians(base)
    if not len(blocks):
        ratio = float(np.median(other) / np.median(base))
        return Difference(ratio, ratio, ratio, False)
    ratio, low, high = float(np.median(blocks)), float(blocks.min()), float(blocks.max())
    agreed = high < 1 or low > 1
    return Difference(ratio, low, high, agreed and abs(ratio - 1) > LEAST_DIFFERENCE)


def _samples(totals: list[float], steps: list[Mapping[str, float]]) -> Samples:
    names = steps[0].keys() if steps else ()
    return Samples(
        np.array(totals), {name: np.array([taken[name] for taken in steps]) for name in names}
    )


def _warm_up(call: Call, times: int) -> float:
    """Seconds that one call takes, once warm."""
    taken = []
    for repetition in range(max(1, times)):
        start = time.perf_counter()
        call(repetition)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[len(taken) // 2 :]))


def _reference_call() -> Call:
    """A fixed computation on every core, a millisecond or a few, that touches no engine.

    Engines use all cores and end with the slowest: work of others on one core must show here too.
    """
    values = np.random.default_rng(0).random(100_000)
    cores = min(_MOST_CORES, usable_cores())
    pool = ThreadPoolExecutor(cores)  # its threads sleep between calls; NumPy sorts without the GIL

    def call(repetition: int) -> Mapping[str, float]:
        for _ in pool.map(np.sort, [values] * cores):
            pass
        return {}

    return call


def _others() -> Callable[[], float | None]:
    """Start a clock on other processes: the fraction of all cores they have used since."""

    def now() -> tuple[float, float | None, float]:
        return time.perf_counter(), busy_seconds(), time.process_time()

    wall, busy, own = now()

    def used() -> float | None:
        ended, busy_now, own_now = now()
        if busy is None or busy_now is None:
            return None
        cores = os.cpu_count() or 1
        return max(0.0, (busy_now - busy - (own_now - own)) / ((ended - wall) * cores))

    return used


def _settle() -> bool:
    """Wait until no other thread of this process runs; False if one does not come to rest."""
    end = time.perf_counter() + _SETTLE_SECONDS
    while (busy := _other_threads_run()) and time.perf_counter() < end:
        time.sleep(0.001)
    return not busy


def _other_threads_run() -> bool:
    """Whether a thread of this process other than the calling one is running or waits for a core.

    CPU time would not show it: a thread that spins behind others' work gets little of it.
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
        except OSError:  # it has ended
            continue
        if state == b"R":
            return True
    return False
