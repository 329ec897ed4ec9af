"""The scoring queue beside an engine that leaves the cores alone: batches, overlap, the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from fsad_edge.errors import ImageError
from fsad_edge.serve import create_app
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.scoring_queue import ScoredImage, ScoringQueue
from fsad_edge.serve.served_model import ServedModel
from tests.conftest import Job, photograph
from tests.serving import encoded

#: Images of each test, more than a batch takes.
IMAGES = 60

MOST = 4


@pytest.fixture(scope="module")
def served(job: Job) -> ServedModel:
    return create_app(job.file).service.models["part"]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(params=[0, 2], ids=["threads", "processes"])
def queue(metrics: Metrics, request: pytest.FixtureRequest) -> Iterator[ScoringQueue]:
    made = ScoringQueue(
        limit=IMAGES,
        max_batch=MOST,
        decoders=4,
        processes=request.param,
        overlap=True,
        max_pixels=10**7,
        metrics=metrics,
    )
    made.start()
    yield made
    made.stop()


def submit(
    queue: ScoringQueue, served: ServedModel
) -> tuple[list[bytes], list[Future[ScoredImage]]]:
    images = [encoded(photograph(np.random.default_rng(seed))) for seed in range(6)]
    sent = [images[place % len(images)] for place in range(IMAGES)]
    return sent, [
        queue.submit(served, data, client=str(place % 3)) for place, data in enumerate(sent)
    ]


def test_each_image_gets_its_own_result_from_runs_that_overlap(
    queue: ScoringQueue, served: ServedModel, metrics: Metrics
) -> None:
    sent, futures = submit(queue, served)
    alone = {data: served.model.score(data) for data in set(sent)}
    for data, future in zip(sent, futures, strict=True):
        scored = future.result(timeout=60)
        assert scored.result.score == pytest.approx(alone[data].score, rel=1e-4)
        assert scored.result.reasons == alone[data].reasons
        assert scored.timings["total"] >= scored.timings["infer"] > 0
    found = {
        sample.labels.get("le", sample.name): sample.value
        for metric in metrics.batches.collect()
        for sample in metric.samples
    }
    assert found["fsad_edge_batch_images_sum"] == IMAGES
    assert found["4.0"] == found["fsad_edge_batch_images_count"]  # no run has more than MOST


def test_what_was_submitted_is_finished_when_the_queue_stops(
    queue: ScoringQueue, served: ServedModel
) -> None:
    _, futures = submit(queue, served)
    queue.stop()
    assert all(future.result(timeout=0).width > 0 for future in futures)


def test_an_image_that_cannot_be_decoded_or_was_cancelled_delays_no_other(
    queue: ScoringQueue, served: ServedModel
) -> None:
    _, before = submit(queue, served)
    broken = queue.submit(served, b"no image")
    cancelled = queue.submit(served, encoded(photograph(np.random.default_rng(1))))
    has_cancelled = cancelled.cancel()
    _, after = submit(queue, served)
    with pytest.raises(ImageError):
        broken.result(timeout=60)
    assert cancelled.cancelled() == has_cancelled
    assert all(future.result(timeout=60).result.score > 0 for future in (*before, *after))


def test_a_model_that_was_closed_ends_its_own_images_only(
    queue: ScoringQueue, served: ServedModel, job: Job
) -> None:
    gone = create_app(job.file).service.models["part"]
    gone.model.close()
    _, lost = submit(queue, gone)
    _, kept = submit(queue, served)
    for future in lost:
        with pytest.raises(Exception, match="is closed"):
            future.result(timeout=60)
    assert all(future.result(timeout=60).result.score > 0 for future in kept)
