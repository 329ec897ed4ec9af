"""Score an archive with Ray Data: ours is the function that it maps over the images."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from fsad_edge.distributed.archive import RESULT, Archive, Counts, counts_of
from fsad_edge.distributed.cluster import sentences
from fsad_edge.distributed.source import Source, images_of
from fsad_edge.errors import FsadEdgeError, ImageError, InputError
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.model import Model

#: Images of a part at most: so many are scored again where a worker is killed.
MOST_ROWS = 500
#: Parts for each worker at least, where there are images for it: the last to finish waits less.
CHUNKS_PER_WORKER = 8


@dataclass(frozen=True)
class LoadedModel:
    """What a worker scores with: it needs no file.

    Attributes:
        graph: the bytes of the model file.
        name: for error sentences.
        provider: as ``Model.load`` takes it.
        strict: likewise.
        threads: for one image.
        learned: normal parts and threshold learned on a device, in place of the file's own.
    """

    graph: bytes
    name: str
    provider: str
    strict: bool
    threads: int
    learned: tuple[ReferenceModel, float] | None

    @property
    def sha256(self) -> str:
        """Of all that the scores follow from."""
        parts = [self.graph]
        if self.learned is not None:
            reference, threshold = self.learned
            parts += [array.tobytes() for array in reference.as_inputs().values()]
            parts.append(repr(threshold).encode())
        return sha256(b"".join(parts))

    def load(self) -> Model:
        """A session of its own, its golden images scored. Raises as ``Model.load`` does."""
        model = Model.from_bytes(self.graph, self.name, self.provider, self.threads, self.strict)
        model.check_golden()
        if self.learned is not None:
            reference, threshold = self.learned
            model.set_reference(reference, threshold, threshold)
        return model


@dataclass(frozen=True)
class Batch:
    """What a worker says of a part that it wrote.

    Attributes:
        counts: of its images.
        begun, ended: when it was scored, seconds of the worker's clock.
    """

    counts: Counts
    begun: float
    ended: float


class ScoreImages:
    """A worker: one session, loaded once; it scores batches and writes them as parts.

    Args:
        model: to score with.
        archive: to write into.
        column: of the images, where they are in tables.
    """

    def __init__(self, model: LoadedModel, archive: Archive, column: str) -> None:
        try:
            self._model = model.load()
        except FsadEdgeError as error:
            raise InputError(f"on {socket.gethostname()}: {error}") from None
        self._archive, self._column = archive, column

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score a batch: rows of a ``Source`` to a table of one row, a :class:`Batch`.

        An image that cannot be read gets a row with the reason; none stops the others.
        """
        begun = time.time()
        known = batch.select([name for name in ("id", "path") if name in batch.column_names])
        part = self._archive.begin(known)
        rows = [self._score(image) for image in images_of(batch, self._column)]
        table = pa.Table.from_pylist(rows, RESULT)
        for place, name in enumerate(known.column_names):
            table = table.add_column(place, name, known[name])
        self._archive.write(part, table)
        row = {**vars(counts_of(table)), "begun": begun, "ended": time.time()}
        return pa.table({name: [value] for name, value in row.items()})

    def _score(self, image: Path | bytes | None) -> dict[str, Any]:
        try:
            if image is None:
                raise ImageError("the row holds no image.")
            result = self._model.score(image)
        except ImageError as error:
            # It names the file, whose name need not be text.
            reason = str(error).encode("utf-8", "backslashreplace").decode()
            return {"decision": "error", "error": reason}
        return {
            "score": result.score,
            "threshold": result.threshold,
            "ratio": result.ratio,
            "decision": "anomaly" if result.anomalous else "good",
        }


def plan_workers(ray: Any, workers: int, threads: int, gpu: bool) -> int:
    """How many workers there may be at a time.

    Args:
        ray: as :func:`~fsad_edge.distributed.cluster.cluster` gives it.
        workers: asked for; 0: as many as there are cores or GPUs for.
        threads: of each.
        gpu: a worker has a GPU for itself.

    Raises:
        InputError: there are not so many.
    """
    there = ray.cluster_resources()
    have = int(there.get("GPU", 0)) if gpu else int(there.get("CPU", 0)) // threads
    if have < max(workers, 1):
        what = "GPUs" if gpu else "cores"
        raise InputError(
            f"Ray has {what} for {have} workers of {threads} threads, and {max(workers, 1)} are "
            "asked for: take fewer --workers or --threads, or another --provider."
        )
    return workers or have


def score_archive(
    ray: Any,
    source: Source,
    archive: Archive,
    done: pa.ChunkedArray,
    model: LoadedModel,
    workers: int,
    gpu: bool = False,
) -> Iterator[Batch]:
    """Score what has no row yet, as many batches at a time as there are workers.

    Ray is given where the images are; workers read them, be it out of tables: tasks that read
    beside workers that hold every core are never started.

    Args:
        ray: as :func:`~fsad_edge.distributed.cluster.cluster` gives it.
        source: the images.
        archive: where the rows go.
        done: keys that have one.
        model: to score with.
        workers: at a time, each with a session of ``model.threads`` threads.
        gpu: each worker has a GPU for itself.

    Yields:
        what each part holds, once it is written.

    Raises:
        FsadEdgeError: the model cannot be loaded or a part cannot be written on a worker.
    """
    rows = source.missing(done)
    size = min(MOST_ROWS, max(1, -(-rows.num_rows // (workers * CHUNKS_PER_WORKER))))
    blocks = [rows.slice(start, size).combine_chunks() for start in range(0, rows.num_rows, size)]
    mapped = ray.data.from_arrow(blocks).map_batches(
        ScoreImages,
        batch_size=None,  # a block as it is
        batch_format="pyarrow",
        fn_constructor_args=(model, archive, source.column),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=model.threads,
        num_gpus=1 if gpu else None,
    )
    with sentences():
        for table in mapped.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for row in table.to_pylist():
                begun, ended = row.pop("begun"), row.pop("ended")
                yield Batch(Counts(**row), begun, ended)
