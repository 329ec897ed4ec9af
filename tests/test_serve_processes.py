"""Images that are decoded in processes of their own: the same pixels, bounds, and ends."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsad_edge.errors import ImageError, ImageTooLargeError
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.model import Model
from fsad_edge.serve.image_preparation import Recipe, prepare_image
from fsad_edge.serve.preparing_processes import PreparingProcesses
from tests.conftest import Job, photograph
from tests.serving import Server, encoded

PIXELS = 10**7

IMAGE = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def recipe(job: Job) -> Recipe:
    with Model.load(job.file) as model:
        return Recipe.of(model.metadata)


@pytest.fixture
def processes() -> Iterator[PreparingProcesses]:
    made = PreparingProcesses(1)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def memory() -> Iterator[int]:
    before = GATE.memory
    yield before
    GATE.memory = before


def picture(seed: int = 0, kind: str = "JPEG") -> bytes:
    return encoded(photograph(np.random.default_rng(seed)), kind)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_prepared_as_in_a_thread(
    processes: PreparingProcesses, recipe: Recipe, kind: str
) -> None:
    data = picture(kind=kind)
    here = prepare_image(recipe, data, PIXELS)
    there = processes.prepare(pickle.dumps(recipe), data, PIXELS)
    assert there is not None
    np.testing.assert_array_equal(there.prepared.pixels, here.prepared.pixels)
    assert there.prepared.size == here.prepared.size
    assert there.prepared.full_size == here.prepared.full_size
    assert (there.flags, there.look) == (here.flags, here.look)


def test_errors_are_those_of_a_thread_and_the_process_goes_on(
    processes: PreparingProcesses, recipe: Recipe
) -> None:
    text = pickle.dumps(recipe)
    for data, most in ((b"no image", PIXELS), (picture()[:200], PIXELS), (picture(), 100)):
        with pytest.raises(ImageError) as here:
            prepare_image(recipe, data, most)
        with pytest.raises(ImageError) as there:
            processes.prepare(text, data, most)
        assert str(there.value) == str(here.value)
    assert processes.prepare(text, picture(), PIXELS) is not None


def test_memory_is_lent_by_the_gate_of_the_service_and_given_back(
    processes: PreparingProcesses, recipe: Recipe, memory: int
) -> None:
    text = pickle.dumps(recipe)
    GATE.memory = 1000
    with pytest.raises(ImageTooLargeError, match="--decode-memory-mb"):
        processes.prepare(text, picture(), PIXELS)
    GATE.memory = memory
    found: list[object] = []
    waiting = threading.Thread(
        target=lambda: found.append(processes.prepare(text, picture(), PIXELS))
    )
    with GATE.working(), GATE.admit(memory, "all of it"):
        waiting.start()
        waiting.join(0.5)
        assert not found
        assert waiting.is_alive()
    waiting.join(30)
    assert len(found) == 1
    assert GATE.free == GATE.memory


def test_a_process_that_was_killed_is_replaced_and_the_image_is_not_lost(
    processes: PreparingProcesses, recipe: Recipe
) -> None:
    text = pickle.dumps(recipe)
    processes.prepare(text, picture(), PIXELS)
    [process] = processes._idle
    os.kill(process._process.pid, signal.SIGKILL)
    assert processes.prepare(text, picture(), PIXELS) is not None
    [other] = processes._idle
    assert other is not process


def test_without_a_free_process_the_caller_prepares_the_image(recipe: Recipe) -> None:
    assert PreparingProcesses(0).prepare(pickle.dumps(recipe), picture(), PIXELS) is None


def test_processes_that_cannot_be_started_leave_the_images_to_the_caller(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("/no/such/program", "/bin/false"):
        monkeypatch.setattr("sys.executable", program)
        processes = PreparingProcesses(2)
        processes.start()
        assert processes.prepare(pickle.dumps(recipe), picture(), PIXELS) is None
        processes.stop()


def test_a_service_with_processes_answers_and_takes_them_with_it(job: Job) -> None:
    options = ("--decode-processes", "2", "--decoders", "2")
    server = Server(job.file, *options)
    try:
        with server.client() as client:
            answers = [
                client.post("/v1/score", content=picture(seed), headers=IMAGE) for seed in range(6)
            ]
            assert all(answer.status_code == 200 for answer in answers)
            assert client.post("/v1/score", content=b"no image", headers=IMAGE).status_code == 422
        children = _children(server.process.pid)
        assert len(children) == 2
        for child in children:  # systemd sends it to all processes of a service
            os.kill(child, signal.SIGTERM)
    finally:
        assert server.terminate() == 0
    assert not any(os.path.exists(f"/proc/{child}") for child in children)


def _children(parent: int) -> list[int]:
    tasks = os.listdir(f"/proc/{parent}/task")
    texts = (Path(f"/proc/{parent}/task/{task}/children").read_text() for task in tasks)
    return [int(child) for text in texts for child in text.split()]
