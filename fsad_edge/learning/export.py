"""A model file with what was learned in it: for other devices, and to begin from anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fsad_edge.errors import ExportError, InputError
from fsad_edge.learning.learner import Learner
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.metadata import KEY, Metadata, ShotsRecord
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.onnx_file import replace
from fsad_edge.runtime.provenance import utc_now

#: Learned images that are scored as a proof, beside the golden ones.
PROOFS = 8


def export_learned(path: Path, model: Model, learned: Learner) -> bytes:
    """The bytes of a self-contained file with the learned memory bank and threshold.

    Its golden images get new scores; they and learned images must score there as they do here.

    Args:
        path: of the file that ``model`` was loaded from.
        model: with ``learned`` in force.
        learned: what was learned beside that file.

    Raises:
        ExportError: an image scores otherwise with the new file.
        InputError: the file is an engine.
        ModelFileError: the file is damaged.
    """
    graph = path.read_bytes()
    if is_engine(graph):
        raise InputError(
            f"{path} is an engine: name the ONNX file beside it, which has learned too."
        )
    data = replace(graph, learned.reference.as_inputs(), {})
    described = _describe(model.metadata, learned)
    data = replace(data, {}, {KEY: described.to_json()})
    with Model.from_bytes(data, str(path), "cpu") as new:
        proofs = [golden.image for golden in described.golden]
        proofs += [learned.image_path(entry).read_bytes() for entry in learned.active[:PROOFS]]
        for image in proofs:
            here, there = model.score(image).score, new.score(image).score
            difference = abs(here - there) / max(here, learned.threshold.value)
            if not difference <= max(described.golden_tolerance, 1e-5):
                raise ExportError(
                    f"an image scores {there:.6g} with the new file and {here:.6g} with what was "
                    "learned: nothing was written; report this."
                )
        golden = [
            dataclasses.replace(golden, score=new.score(golden.image).score)
            for golden in described.golden
        ]
    described = dataclasses.replace(described, golden=golden)
    data = replace(data, {}, {KEY: described.to_json()})
    with Model.from_bytes(data, str(path), "cpu") as new:
        new.check_golden()
    return data


def _describe(metadata: Metadata, learned: Learner) -> Metadata:
    active, shots = learned.active, metadata.shots
    # A rule of thumb's scores are not of left-out shots: then the count must stay at one.
    anew = learned.threshold is not metadata.threshold
    return dataclasses.replace(
        metadata,
        created=utc_now(),
        shots=ShotsRecord(
            count=shots.count + (learned.counted if anew else 0),
            sha256=[*shots.sha256, *(entry.sha256 for entry in active)],
        ),
        threshold=learned.threshold,
        map_threshold=learned.threshold.value,
        bank_rows=learned.reference.rows,
    )
