"""Many parts, each worked on in a process of its own, with Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fsad_edge.errors import InputError

#: Bytes that one part may take: what Ray reckons with, and so how many run at a time.
MEMORY = 3 << 30


def run_parts(
    ray: Any,
    make: Callable[..., dict[str, Any]],
    calls: Mapping[str, tuple[Any, ...]],
    threads: int,
    workers: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Call ``make`` for every part, as many at a time as cores and memory bear.

    Args:
        ray: as :func:`~fsad_edge.distributed.cluster.cluster` gives it.
        make: called in a process of Ray's, with ``threads`` cores.
        calls: its arguments, by the part's name.
        threads: cores of each.
        workers: parts at a time at most; 0: no other limit.

    Yields:
        the part's name and what ``make`` returned, in the order in which they are done; where its
        process died or raised, ``state`` ``failed`` and ``error``, a sentence.

    Raises:
        InputError: Ray has not enough cores or memory for a single part.
    """
    there = ray.cluster_resources()
    if there.get("CPU", 0) < threads or there.get("memory", 0) < MEMORY:
        raise InputError(
            f"a part takes {threads} cores and {MEMORY >> 30} GB of memory, more than Ray has: ask "
            "for fewer --threads, or take a larger machine."
        )
    task = ray.remote(num_cpus=threads, memory=MEMORY, max_retries=1)(make)
    most = workers or len(calls)
    left = iter(calls.items())
    running: dict[Any, str] = {}
    while True:
        while len(running) < most and (call := next(left, None)) is not None:
            name, arguments = call
            running[task.remote(*arguments)] = name
        if not running:
            return
        for ready in ray.wait(list(running), num_returns=1)[0]:
            yield running.pop(ready), _result(ray, ready)


def _result(ray: Any, ready: Any) -> dict[str, Any]:
    try:
        result: dict[str, Any] = ray.get(ready)
        return result
    except ray.exceptions.RayTaskError as error:
        reason = f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        reason = f"its process died, as where memory is short ({type(error).__name__})"
    return {"state": "failed", "error": f"{reason.splitlines()[0]}: run the same command again."}
