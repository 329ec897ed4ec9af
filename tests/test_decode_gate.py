"""The memory for decoding: lent in order, never more than there is, and given back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsad_edge import load_image
from fsad_edge.errors import BusyError, ImageTooLargeError
from fsad_edge.runtime.decode_gate import GATE, DecodeGate
from tests.picture_files import png
from tests.serving import encoded, wait_until


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30))
@settings(max_examples=30)
def test_no_more_is_lent_than_there_is(needs: list[int]) -> None:
    gate, least, guard = DecodeGate(100), [100], threading.Lock()

    def work(need: int) -> None:
        with gate.working(), gate.admit(need, "a.png"):
            with guard:
                least[0] = min(least[0], gate.free)
            # Less within the same work costs nothing, so that nobody waits for himself.
            with gate.admit(need, "a.png"):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, needs))
    assert least[0] >= 0
    assert gate.free == 100


def test_who_waits_too_long_is_told_so_and_nothing_is_kept() -> None:
    gate, stop = DecodeGate(100), threading.Event()

    def hold() -> None:
        with gate.admit(80, "a.png"):
            stop.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    wait_until(lambda: gate.free == 20)
    with pytest.raises(BusyError, match="try again"), gate.working(0.01), gate.admit(30, "b.png"):
        pass
    with gate.admit(20, "c.png"):
        assert gate.free == 0
    stop.set()
    holder.join()
    assert gate.free == 100
    sentence = r"d\.png takes up to .*make it smaller"
    with pytest.raises(ImageTooLargeError, match=sentence), gate.admit(101, "d.png"):
        pass


def test_an_image_that_is_too_large_for_the_memory_is_refused(tmp_path: Path) -> None:
    before = GATE.memory
    image = encoded(Image.new("RGB", (2000, 2000)), "PNG")
    (tmp_path / "large.png").write_bytes(image)
    GATE.memory = 30 << 20
    try:
        for source in (image, tmp_path / "large.png"):
            with pytest.raises(ImageTooLargeError, match="make it smaller"):
                load_image(source)
        load_image(png(np.tile(np.arange(1000, dtype=np.uint16) * 65, (1000, 1))))
    finally:
        GATE.memory = before
    assert GATE.free == GATE.memory


def test_a_small_image_passes_those_that_wait_for_much() -> None:
    gate, stop = DecodeGate(160), threading.Event()

    def hold(need: int) -> None:
        with gate.admit(need, "a.png"):
            stop.wait(30)

    threads = [threading.Thread(target=hold, args=(need,)) for need in (100, 140)]
    for thread in threads:
        thread.start()
        wait_until(lambda: gate.free == 60)
    with gate.working(5.0), gate.admit(10, "small.png"):
        assert gate.free == 50
    with pytest.raises(BusyError), gate.working(0.01), gate.admit(50, "large.png"):
        pass
    stop.set()
    for thread in threads:
        thread.join()
    assert gate.free == 160
