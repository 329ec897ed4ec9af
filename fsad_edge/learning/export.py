"""A model file that contains what was learned, for other devices or to continue from."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from fsad_edge.errors import ExportError, InputError
from fsad_edge.learning.learner import Learner
from fsad_edge.options import Provider
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.files import read_bytes
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.onnx_file import replace
from fsad_edge.runtime.photograph import fingerprint
from fsad_edge.runtime.provenance import utc_now

#: Learned images whose scores are compared, in addition to the golden images.
CHECKED_IMAGES = 8


def export_learned(path: str | os.PathLike[str], model: Model, learner: Learner) -> bytes:
    """The bytes of a self-contained file with the learned memory bank and threshold.

    Its golden images get new scores. They and learned images must score the same with the file.

    Args:
        path: the file that ``model`` was loaded from.
        model: the model that ``learner`` is applied to.
        learner: what was learned next to that file.

    Raises:
        ExportError: an image scores differently with the new file.
        InputError: the file is an engine, or cannot be read.
        ModelFileError: the file is damaged.

    Example:
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
    metadata = _describe(model.metadata, learner)
    with _load(graph, metadata, path) as new:
        _check_scores(model, new, learner)
        golden = [
            dataclasses.replace(golden, score=new.score(golden.image).score)
            for golden in metadata.golden
        ]
    metadata = dataclasses.replace(metadata, golden=golden)
    with _load(graph, metadata, path) as new:
        new.check_golden()
    return replace(graph, {}, {KEY: metadata.to_json()})


def _load(graph: bytes, metadata: Metadata, path: Path) -> Model:
    data = replace(graph, {}, {KEY: metadata.to_json()})
    return Model.from_bytes(data, str(path), Provider.CPU)


def _check_scores(model: Model, new: Model, learner: Learner) -> None:
    """Score golden and learned images with both models, and refuse a difference."""
    images = [golden.image for golden in new.metadata.golden]
    images += [read_bytes(learner.image_path(one)) for one in learner.active[:CHECKED_IMAGES]]
    tolerance = max(new.metadata.golden_tolerance, 1e-5)
    for image in images:
        here, there = model.score(image).score, new.score(image).score
        if not abs(here - there) <= tolerance * max(here, learner.threshold.value):
            raise ExportError(
                f"an image scores {there:.6g} with the new file and {here:.6g} with what was "
                "learned: nothing was written; report this."
            )


def _describe(metadata: Metadata, learner: Learner) -> Metadata:
    """The metadata of the file with what was learned."""
    shots, threshold = metadata.shots, learner.threshold
    images = [read_bytes(learner.image_path(entry)) for entry in learner.active]
    learned = [
        fingerprint(load_resized(image, metadata.height, metadata.width, metadata.scale)).tobytes()
        for image in images
    ]
    # A single shot's scores are not left-out scores: as long as they decide, its count stays one.
    recomputed = threshold is not metadata.threshold
    return dataclasses.replace(
        metadata,
        created=utc_now(),
        shots=dataclasses.replace(
            shots,
            count=shots.count + (learner.score_count if recomputed else 0),
            sha256=[*shots.sha256, *(entry.sha256 for entry in learner.active)],
        ),
        appearance=dataclasses.replace(
            metadata.appearance, fingerprints=[*metadata.appearance.fingerprints, *learned]
        ),
        threshold=threshold,
        map_threshold=threshold.value,
        bank_rows=learner.reference.rows,
    )
