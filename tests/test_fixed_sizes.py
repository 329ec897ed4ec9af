"""A graph that is run in a few batch sizes, as on a GPU, by the real engine on the CPU."""

from __future__ import annotations

import functools
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from fsad_edge import Model
from fsad_edge.errors import InputError
from fsad_edge.runtime.backends.batch_sizes import LARGEST_MOST, batch_sizes, pieces
from fsad_edge.runtime.backends.fixed_sizes import FixedSizes
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import empty_reference
from fsad_edge.runtime.model import OUTPUTS, ScoringState
from fsad_edge.serve import ServeOptions, create_app
from tests.conftest import SIZE, Job, photograph, set_bound
from tests.serving import encoded, wait_until

#: The service answers to this machine's own name only.
HOME = "http://localhost"


@given(st.integers(1, LARGEST_MOST), st.integers(1, 600))
def test_every_image_is_in_one_run_of_a_known_size(most: int, count: int) -> None:
    sizes = batch_sizes(most)
    spread = list(pieces(count, sizes))
    assert [index for part, _ in spread for index in range(count)[part]] == list(range(count))
    assert len(spread) == -(-count // most)
    for part, size in spread:
        taken = len(range(count)[part])
        assert taken <= size
        assert size in sizes
        assert size < 2 * taken or size == most  # at most half of a run is padding
    assert sizes[-1] == most


@pytest.mark.parametrize("most", [0, -1, LARGEST_MOST + 1, "8"])
def test_other_numbers_of_images_are_refused(most: Any) -> None:
    with pytest.raises(InputError, match="images in one run are 1 to 256"):
        batch_sizes(most)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.stack([np.asarray(photograph(rng, SIZE, index % 3 == 2)) for index in range(11)])


@pytest.fixture(scope="module")
def any_size(job: Job) -> OnnxSession:
    return OnnxSession(job.file.read_bytes(), "the model", "cpu")


@pytest.fixture(scope="module")
def fixed(job: Job) -> OnnxSession:
    """With sizes 1, 2, 4 and 5."""
    return OnnxSession(job.file.read_bytes(), "the model", "cpu", max_batch=5, fixed_sizes=True)


def test_any_number_of_images_gets_the_scores_of_a_session_of_any_size(
    any_size: OnnxSession, fixed: OnnxSession, images: np.ndarray
) -> None:
    assert fixed.sizes == (1, 2, 4, 5)
    assert any_size.sizes is None
    for count in range(1, 12):
        feeds = {"image": images[:count]}
        for name, one, other in zip(
            OUTPUTS, any_size.run([*OUTPUTS], feeds), fixed.run([*OUTPUTS], feeds), strict=True
        ):
            assert len(other) == count
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=name)


def test_an_image_gets_the_same_score_whoever_is_in_its_run(
    fixed: OnnxSession, images: np.ndarray
) -> None:
    [alone] = fixed.run(["score"], {"image": images[:3]})  # and one that is padding
    [among] = fixed.run(["score"], {"image": images[[0, 1, 2, 9]]})
    np.testing.assert_array_equal(alone, among[:3])


def test_what_was_given_back_is_no_longer_changed(fixed: OnnxSession, images: np.ndarray) -> None:
    [first] = fixed.run(["anomaly_map"], {"image": images[:2]})
    kept = first.copy()
    fixed.run(["anomaly_map"], {"image": images[2:4]})
    np.testing.assert_array_equal(first, kept)


def test_another_reference_model_counts_for_its_run_alone(
    fixed: OnnxSession, any_size: OnnxSession, images: np.ndarray, job: Job
) -> None:
    with Model.load(job.file, "cpu") as model:
        empty = empty_reference(*model.reference.bank.shape).as_inputs()
        projected = {"projection": model.reference.projection * np.float32(0.5)}
    for feeds in (empty, {}, projected, empty, {}):
        for count in (1, 3, 7):
            given_feeds = {"image": images[:count], **feeds}
            [one], [other] = (each.run(["score"], given_feeds) for each in (any_size, fixed))
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_threads_do_not_mix_up_their_images(fixed: OnnxSession, images: np.ndarray) -> None:
    [expected] = fixed.run(["score"], {"image": images[:1]})
    expected = np.concatenate(
        [fixed.run(["score"], {"image": images[index : index + 1]})[0] for index in range(8)]
    )

    def score(index: int) -> float:
        return float(fixed.run(["score"], {"image": images[index : index + 1]})[0][0])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score, list(range(8)) * 5))
    np.testing.assert_array_equal(found, np.tile(expected, 5))


def opener(data: bytes, most: int | None = None) -> Callable[[bool], Any]:
    """Opens sessions, at most so many; on the CPU, no run can be captured."""
    opened: list[Any] = []

    def open_session(capture: bool) -> Any:
        if capture:
            raise RuntimeError("a node is not on the GPU.\nand more")
        if most is not None and len(opened) == most:
            raise RuntimeError("out of memory")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        providers = ["CPUExecutionProvider"]
        opened.append(onnxruntime.InferenceSession(data, options, providers=providers))
        return opened[-1]

    return open_session


def test_where_runs_cannot_be_captured_a_sentence_says_so(
    job: Job, any_size: OnnxSession, images: np.ndarray
) -> None:
    data = job.file.read_bytes()
    found = FixedSizes(onnxruntime, data, opener(data), (1, 2), "cpu", capture=True)
    found.prepare()
    assert found.notice == (
        "the GPU runs this model without CUDA graphs, which takes longer: a node is not on the GPU."
    )
    [one], [other] = (each.run(["score"], {"image": images[:5]}) for each in (any_size, found))
    np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("first", [True, False], ids=["prepared", "when needed"])
def test_sizes_for_which_there_is_no_room_are_left_out(
    job: Job, any_size: OnnxSession, images: np.ndarray, first: bool
) -> None:
    data = job.file.read_bytes()
    found = FixedSizes(onnxruntime, data, opener(data, 2), (1, 2, 4, 8), "cpu", capture=False)
    if first:
        found.prepare()
        assert found.sizes == (1, 2)
    [one], [other] = (each.run(["score"], {"image": images}) for each in (any_size, found))
    np.testing.assert_allclose(one, other, rtol=1e-3)
    assert found.sizes[-1] < 8
    assert found.notice is not None
    assert "out of memory" in found.notice


Shapes = dict[int, list[int]]


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Shapes:
    """The batch sizes that each session of ONNX Runtime has seen, by a number of the session.

    The models of the test run in fixed sizes, as they do on a GPU.
    """
    seen: Shapes = defaultdict(list)

    class Counting(onnxruntime.InferenceSession):  # type: ignore[misc]
        def run(self, names: Any, feeds: Any, options: Any = None) -> Any:
            seen[id(self)].append(len(feeds["image"]))
            return super().run(names, feeds, options)

        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            seen[id(self)].append(binding.get_outputs()[0].shape()[0])
            super().run_with_iobinding(binding, options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counting)
    as_on_gpu = functools.partial(OnnxSession, fixed_sizes=True)
    monkeypatch.setattr("fsad_edge.runtime.model.OnnxSession", as_on_gpu)
    return seen


def known(shapes: Shapes) -> dict[int, set[int]]:
    return {session: set(sizes) for session, sizes in shapes.items()}


def test_after_readiness_no_session_sees_another_shape(
    job: Job, tmp_path: Path, shapes: Shapes
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    rng = np.random.default_rng(8)
    photographs = [encoded(photograph(rng), "PNG") for _ in range(7)]
    app = create_app(file, ServeOptions(max_batch=6, queue=64))
    with TestClient(app, base_url=HOME) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, 30)
        ready, runs = known(shapes), sum(map(len, shapes.values()))
        assert sorted(next(iter(sizes)) for sizes in ready.values()) == [1, 2, 4, 6]
        assert all(len(sizes) == 1 for sizes in ready.values())

        def post(count: int) -> object:
            files = [("file", (f"{index}.png", photographs[index])) for index in range(count)]
            return client.post("/v1/score", files=files).status_code

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(post, [1, 2, 3, 4, 5, 6, 7, 1, 7])) == {200}
        path = "/v1/models/part/normals?who=anna&force=true"
        assert client.post(path, content=photographs[0]).status_code == 201
        assert post(3) == 200
        assert sum(map(len, shapes.values())) > runs
        assert known(shapes) == ready


def test_a_file_that_changes_is_prepared_before_it_is_in_service(
    job: Job, tmp_path: Path, shapes: Shapes
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    app = create_app(file, ServeOptions(max_batch=2))
    slot = app.service.models.slots["part"]
    try:
        first = known(shapes)
        job_file = Path(shutil.copy(job.file, tmp_path / "new"))
        set_bound(job_file, 1e6)
        job_file.replace(file)
        assert slot.refresh()
        assert slot.error is None
        # The graph is the same one, and so is the session.
        assert known(shapes) == first
        assert slot.current.model.score_batch([np.zeros((SIZE, SIZE, 3), np.uint8)] * 5)
        assert known(shapes) == first
    finally:
        app.service.stop()


def test_the_library_prepares_all_sizes_where_it_is_asked_to(job: Job, shapes: Shapes) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    with Model.load(job.file, "cpu", max_batch=4) as model:
        assert set.union(*known(shapes).values()) == {1, 2, 4}
        before = known(shapes)
        model.score_batch([image] * 7)
        assert known(shapes) == before
    shapes.clear()
    with Model.load(job.file, "cpu") as model:
        assert set.union(*known(shapes).values()) == {1}
        model.score_batch([image] * 7)
        assert set.union(*known(shapes).values()) == {1, 8}


def test_models_that_share_a_session_keep_their_own_banks(job: Job, shapes: Shapes) -> None:
    images = np.stack([np.asarray(photograph(np.random.default_rng(2), SIZE))] * 3)

    def scores(model: Model) -> list[float]:
        return [result.score for result in model.score_prepared(images)]

    with (
        Model.load(job.file, "cpu", max_batch=2) as one,
        Model.load(job.file, "cpu", max_batch=2, share_with=one) as other,
        Model.load(job.file, "cpu", max_batch=1, share_with=one) as third,
    ):
        assert one.shares_with(other)
        assert not one.shares_with(third)  # its sizes are others
        expected = scores(one)
        another = empty_reference(*one.reference.bank.shape).as_inputs()
        one.set_state(ScoringState(1.0, 1.0, another))
        assert abs(scores(one)[0] - expected[0]) > 0.1
        assert scores(other) == expected
        threads = [threading.Thread(target=scores, args=(each,)) for each in (one, other) * 3]
        for thread in threads:
            thread.start()
        assert scores(other) == expected
        for thread in threads:
            thread.join()
