"""Work on many images with all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from fsad_edge.runtime.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def fraction_of(on_progress: Callable[[float], None], count: int) -> Callable[[int], None]:
    """What tells a fraction where it is told how many of ``count`` items are done."""
    return lambda done: on_progress(done / count)


def side_by_side(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int = 0,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Result]:
    """Do the same to each item, several at a time.

    They are threads: numpy, Pillow and engines let others run while they compute.

    Args:
        work: what is done to one item. It is called from several threads.
        items: the items.
        workers: how many at a time; 0 takes as many as this process has cores.
        on_done: called with how many are done, after each one, in the caller's thread.

    Returns:
        what came out for each, in the order of the items.

    Raises:
        Exception: whatever ``work`` raises; what was not begun by then is not done.

    Example:
        >>> side_by_side(len, ["a", "bcd", "ef"])
        [1, 3, 2]
    """
    results: list[Result] = []
    if workers == 1:
        for item in items:
            results.append(work(item))
            on_done(len(results))
        return results
    pool = ThreadPoolExecutor(workers or usable_cores())
    try:
        for result in pool.map(work, items):
            results.append(result)
            on_done(len(results))
        return results
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0
) -> Generator[Result, None, None]:
    """What comes out for each item, in order, some items ahead of whoever takes it.

    Args:
        work: what is done to one item. It is called from several threads.
        items: the items, as many as there may be: few are looked at before they are needed.
        workers: how many at a time; 0 takes as many as this process has cores.

    Raises:
        Exception: whatever ``work`` raises.

    Example:
        >>> list(ahead(len, ["a", "bcd", "ef"]))
        [1, 3, 2]
    """
    workers = workers or usable_cores()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
