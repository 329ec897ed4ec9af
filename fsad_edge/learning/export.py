"""A model file that contains what was taught, for other devices or to continue from."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fsad_edge.errors import ExportError, FsadEdgeError, InputError
from fsad_edge.learning.examples import ExampleState, distinct
from fsad_edge.learning.journal import Entry, Role
from fsad_edge.learning.places import JOURNAL
from fsad_edge.learning.store import DECISIONS, LearningStore
from fsad_edge.learning.taught_model import TaughtModel
from fsad_edge.options import Provider
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.files import read_bytes, sha256, write_bytes
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.model_file import read_model_file, write_model_file
from fsad_edge.runtime.onnx_file import replace
from fsad_edge.runtime.origins import Origins
from fsad_edge.runtime.photograph import fingerprint
from fsad_edge.runtime.provenance import utc_now

#: Learned images whose scores are compared, in addition to the golden images.
CHECKED_IMAGES = 8


def export_learned(path: str | os.PathLike[str], model: Model, learner: TaughtModel) -> bytes:
    """The bytes of a self-contained file with the learned and the rejected rows, the zones and the
    threshold.

    Its golden images get new scores. They and images that were taught must score the same with the
    file.

    Args:
        path: the file that ``model`` was loaded from.
        model: the model that ``learner`` is applied to.
        learner: what was taught next to that file.

    Raises:
        ExportError: an image scores differently with the new file.
        InputError: the file is an engine, or cannot be read.
        ModelFileError: the file is damaged.

    Example:
        >>> from fsad_edge.learning.learner import Learner
        >>> with Model.load(part_file) as model, Learner.open(part_file, model) as learner:
        ...     data = export_learned(part_file, model, learner)
        >>> with Model.from_bytes(data, "new.onnx") as new:
        ...     new.check_golden()
    """
    path = Path(path)
    graph = read_bytes(path)
    if is_engine(graph):
        raise InputError(
            f"{path} is an engine: name the ONNX file next to it, which shares what was learned."
        )
    graph = replace(graph, learner.reference.as_inputs(), {})
    metadata = _describe(model, learner)
    with _load(graph, metadata, path) as new:
        _check_scores(model, new, learner)
        golden = [
            dataclasses.replace(golden, score=new.score(golden.image).score)
            for golden in metadata.golden
        ]
    metadata = dataclasses.replace(metadata, golden=golden)
    with _load(graph, metadata, path) as new:
        new.check_golden()
    return write_model_file(graph, metadata)


def write_learned(output: Path, data: bytes, learner: TaughtModel, provider: str) -> Path | None:
    """Write such a file and, before it, the folder with the examples that belongs to it.

    Where one of them cannot be written, the folder is taken back, and nothing is left. What was
    learned or rejected is in the file now, so that its images are only examples there: of good
    parts or of bad ones.

    Args:
        output: the file to write; it is replaced.
        data: what :func:`export_learned` made.
        learner: what it was made of.
        provider: what runs the model of that.

    Returns:
        the folder; None where there is no example.

    Raises:
        ModelFileError: a folder beside the output holds what another file of that name was taught.
        InputError: the file or the folder cannot be written.
    """
    metadata = read_model_file(data, str(output)).metadata
    store = LearningStore(output, sha256(data), metadata.contained)
    states = learner.examples()
    if not states:
        write_bytes(output, data)
        return None
    with _taken_back(store):
        with store.lock():
            store.read()
            held = {entry.sha256 for entry in store.active}  # by an earlier export
            kept = []
            for state in distinct(states):
                if state.entry.sha256 not in held:
                    entry = _as_example(state, store.next_id)
                    entry = store.add(entry, learner.image(state.entry))
                    kept.append(dataclasses.replace(state, entry=entry))
            if not held:
                store.write_decisions(kept, provider)
        write_bytes(output, data)
    return store.path


@contextlib.contextmanager
def _taken_back(store: LearningStore) -> Iterator[None]:
    """Remove what the block has taught, where it fails and nothing was taught before.

    Raises:
        InputError: the block failed, and what it taught cannot be removed; the sentence says so.
    """
    store.read()  # finds the folder
    journal, was_there = store.path / JOURNAL, os.path.lexists(store.path)
    was_taught = os.path.lexists(journal)
    try:
        yield
    except BaseException as error:
        if was_taught:
            raise
        if was_there:  # what else is in the folder is left alone
            _remove(journal, store.path / DECISIONS)
            for entry in store.entries.values():
                store.images.delete(entry)
            with contextlib.suppress(OSError):
                store.images.path.rmdir()
        else:
            shutil.rmtree(store.path, ignore_errors=True)
        if isinstance(error, FsadEdgeError) and os.path.lexists(journal):
            raise InputError(
                f"{error} The folder {store.path} was begun for it and cannot be removed: delete "
                "it."
            ) from error
        raise


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _as_example(state: ExampleState, number: int) -> Entry:
    entry = state.entry
    return dataclasses.replace(
        entry,
        id=number,
        file=f"{number:04d}{Path(entry.file).suffix}",
        score=state.score,
        threshold=state.threshold,
        rows=0,
        forced=False,
        role=Role.GOOD if entry.role.is_good else Role.BAD,
    )


def _load(graph: bytes, metadata: Metadata, path: Path) -> Model:
    return Model.from_bytes(write_model_file(graph, metadata), str(path), Provider.CPU)


def _check_scores(model: Model, new: Model, learner: TaughtModel) -> None:
    """Score golden and taught images with both models, and refuse a difference."""
    images = [golden.image for golden in new.metadata.golden]
    images += [learner.image(one) for one in learner.active[:CHECKED_IMAGES]]
    tolerance = max(new.metadata.golden_tolerance, 1e-5)
    for image in images:
        here, there = model.score(image).score, new.score(image).score
        if not abs(here - there) <= tolerance * max(here, learner.threshold.value):
            raise ExportError(
                f"an image scores {there:.6g} with the new file and {here:.6g} with what was "
                "learned: nothing was written; report this."
            )


def _describe(model: Model, learner: TaughtModel) -> Metadata:
    """The metadata of the file with what was taught."""
    metadata = model.metadata
    shots, threshold = metadata.shots, learner.threshold
    learned = [
        fingerprint(metadata.preparation.load(learner.image(entry)).pixels).tobytes()
        for entry in learner.normals
    ]
    taught: dict[Role, list[str]] = {role: [] for role in Role}
    for entry in learner.active:
        taught[entry.role].append(entry.sha256)
    held = metadata.in_banks | {*taught[Role.NORMAL], *taught[Role.REJECTED]}
    tried = [one for one in (*taught[Role.GOOD], *taught[Role.BAD]) if one not in held]
    # A single shot's scores are not left-out scores: as long as they decide, its count stays one.
    recomputed = learner.learned_threshold is not learner.in_effect.threshold
    reference, state = learner.reference, learner.state
    return dataclasses.replace(
        metadata,
        created=utc_now(),
        shots=dataclasses.replace(
            shots,
            count=shots.count + (learner.score_count if recomputed else 0),
            sha256=[*shots.sha256, *taught[Role.NORMAL]],
        ),
        appearance=dataclasses.replace(
            metadata.appearance, fingerprints=[*metadata.appearance.fingerprints, *learned]
        ),
        threshold=threshold,
        map_threshold=metadata.map_threshold if state is None else state.map_threshold,
        bank_rows=reference.rows,
        origins=_origins(metadata.origins, model.reference, reference),
        rejected=[*metadata.rejected, *taught[Role.REJECTED]],
        zones=[*metadata.zones, *learner.in_effect.here],
        examples=[*metadata.examples, *(one for one in tried if one not in metadata.examples)],
    )


def _origins(
    origins: Origins | None, before: ReferenceModel, after: ReferenceModel
) -> Origins | None:
    """Where the rows of a bank come from that has other rows than before, in another order."""
    if origins is None:
        return None
    known = {row.tobytes(): place for place, row in enumerate(before.patches[:, :-1])}
    rows = [known.get(row.tobytes(), -1) for row in after.patches[:, :-1]]
    return origins.in_order(np.array(rows))
