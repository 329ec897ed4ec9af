"""The worker that Ray Data runs on chunks of an archive, and how it is run."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fsad_edge.distributed.cluster import worker_errors
from fsad_edge.distributed.score_folder import RESULT_SCHEMA, DecisionCounts, ScoreFolder
from fsad_edge.distributed.source import Source, images_of
from fsad_edge.errors import FsadEdgeError, ImageError, InputError
from fsad_edge.options import Decision, Provider
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.found_regions import region_document
from fsad_edge.runtime.model import Model, ScoringState

#: Largest number of images in a chunk. They are scored again if their worker is killed.
MAX_ROWS = 500
#: With enough images, each worker gets at least this many chunks, so that all finish at about the
#: same time.
CHUNKS_PER_WORKER = 8


@dataclass(frozen=True)
class PortableModel:
    """A model as it is sent to workers, which need no file of it.

    Attributes:
        data: bytes of the model file.
        name: name of the file, for errors.
        provider: what runs it, as :meth:`Model.load` takes it.
        strict: refuse to run on the CPU instead of the GPU.
        threads: threads for one image.
        learned: what it scores with after it was taught on a device; None if it was not.
    """

    data: bytes
    name: str
    provider: Provider
    strict: bool
    threads: int
    learned: ScoringState | None

    @property
    def sha256(self) -> str:
        """SHA-256 of everything that the scores depend on."""
        pieces = [self.data]
        if self.learned is not None:
            pieces += [array.tobytes() for array in self.learned.inputs.values()]
            pieces.append(repr(self.learned.threshold).encode())
        return sha256(b"".join(pieces))

    def load(self) -> Model:
        """Open a session and check the golden images; raises as :meth:`Model.load` does."""
        model = Model.from_bytes(self.data, self.name, self.provider, self.threads, self.strict)
        model.check_golden()
        if self.learned is not None:
            model.set_state(self.learned)
        return model


@dataclass(frozen=True)
class ScoredChunk:
    """A chunk that a worker has written.

    Attributes:
        counts: the decisions on its images.
        started: when the worker began it, in seconds of the worker's clock.
        ended: when the worker had written it, likewise.
    """

    counts: DecisionCounts
    started: float
    ended: float


@dataclass(frozen=True)
class ScoreRow:
    """The columns of ``RESULT_SCHEMA``; numbers are None if the image cannot be read."""

    decision: str
    good: bool = False
    doubts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    score: float | None = None
    threshold: float | None = None
    ratio: float | None = None
    image_score: float | None = None
    width: int | None = None
    height: int | None = None
    regions: tuple[dict[str, Any], ...] = ()
    more_regions: int = 0
    error: str | None = None


class ScoreImages:
    """A worker: it loads the model once, then scores images and writes them in chunks.

    Args:
        model: the model.
        scores: the folder to write into.
        column: name of the column with the images, if they are in tables.
        mm_per_px: millimetres that a pixel of the photographs shows; None where it is not known.
    """

    def __init__(
        self,
        model: PortableModel,
        scores: ScoreFolder,
        column: str,
        mm_per_px: float | None = None,
    ) -> None:
        try:
            self._model = model.load()
        except FsadEdgeError as error:
            raise InputError(f"on {socket.gethostname()}: {error}") from None
        self._scores, self._column, self._mm_per_px = scores, column, mm_per_px

    def __call__(self, images: pa.Table) -> pa.Table:
        """Score images and write them as a chunk.

        An image that cannot be read gets a row with the reason, and the others are still scored.

        Args:
            images: rows of a :class:`Source`.

        Returns:
            a :class:`ScoredChunk` as a table of one row.
        """
        started = time.time()
        keys = images.select([name for name in ("id", "path") if name in images.column_names])
        path = self._scores.start_chunk(keys)
        rows = [vars(self._score(image)) for image in images_of(images, self._column)]
        table = pa.Table.from_pylist(rows, RESULT_SCHEMA)
        for index, name in enumerate(keys.column_names):
            table = table.add_column(index, name, keys[name])
        self._scores.write_chunk(path, table)
        row = {**vars(DecisionCounts.of(table)), "started": started, "ended": time.time()}
        return pa.table({name: [value] for name, value in row.items()})

    def _score(self, image: Path | bytes | None) -> ScoreRow:
        try:
            if image is None:
                raise ImageError("the row holds no image.")
            result = self._model.score(image)
        except ImageError as error:
            # The message names the file, and a file name need not be valid text.
            reason = str(error).encode("utf-8", "backslashreplace").decode()
            return ScoreRow(Decision.ERROR.value, error=reason)
        return ScoreRow(
            decision=result.decision.value,
            good=result.good,
            doubts=tuple(doubt.value for doubt in result.doubts),
            reasons=tuple(reason.text for reason in result.reasons),
            score=result.score,
            threshold=result.threshold,
            ratio=result.ratio,
            image_score=result.image_score,
            width=result.size[0],
            height=result.size[1],
            regions=tuple(region_document(one, self._mm_per_px) for one in result.regions),
            more_regions=result.more_regions,
        )


def plan_workers(ray: Any, workers: int, threads: int, gpu: bool) -> int:
    """How many workers run at a time.

    Args:
        ray: the module that :func:`~fsad_edge.distributed.cluster.cluster` yields.
        workers: the number that was asked for; 0 takes as many as cores or GPUs allow.
        threads: threads of each worker.
        gpu: each worker needs a GPU of its own.

    Raises:
        InputError: Ray has too few cores or GPUs.
    """
    resources = ray.cluster_resources()
    most = int(resources.get("GPU", 0)) if gpu else int(resources.get("CPU", 0)) // threads
    if most < max(workers, 1):
        kind = "GPUs" if gpu else "cores"
        raise InputError(
            f"Ray has {kind} for {most} workers of {threads} threads, but {max(workers, 1)} are "
            "asked for: use fewer --workers or --threads, or another --provider."
        )
    return workers or most


def score_chunks(
    ray: Any,
    source: Source,
    scores: ScoreFolder,
    model: PortableModel,
    workers: int,
    gpu: bool,
    mm_per_px: float | None = None,
) -> Iterator[ScoredChunk]:
    """Score images, as many chunks at a time as there are workers.

    Ray gets only the locations of the images, and the workers read the images themselves, out of
    tables too. Ray's own readers would be separate tasks, which never start while the workers hold
    every core.

    Args:
        ray: the module that :func:`~fsad_edge.distributed.cluster.cluster` yields.
        source: the images.
        scores: the folder to write into.
        model: the model.
        workers: number of workers at a time, each with ``model.threads`` threads.
        gpu: each worker needs a GPU of its own.
        mm_per_px: millimetres that a pixel of the photographs shows; None where it is not known.

    Yields:
        each chunk once it is written.

    Raises:
        FsadEdgeError: a worker cannot load the model or write a chunk.
    """
    rows = source.rows
    size = min(MAX_ROWS, max(1, -(-rows.num_rows // (workers * CHUNKS_PER_WORKER))))
    blocks = [rows.slice(start, size).combine_chunks() for start in range(0, rows.num_rows, size)]
    mapped = ray.data.from_arrow(blocks).map_batches(
        ScoreImages,
        batch_size=None,  # a batch is a block
        batch_format="pyarrow",
        fn_constructor_args=(model, scores, source.column, mm_per_px),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=model.threads,
        num_gpus=1 if gpu else None,
    )
    with worker_errors():
        for table in mapped.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for row in table.to_pylist():
                started, ended = row.pop("started"), row.pop("ended")
                yield ScoredChunk(DecisionCounts(**row), started, ended)
