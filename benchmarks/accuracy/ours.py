"""The project's own method as a system: fine-tune, export, evaluate, through the library."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsad_edge
from benchmarks.accuracy.systems import Figures, Run, SkipError, System, without_folders
from fsad_edge import ExportOptions, ExportResult, FinetuneOptions, FinetuneResult
from fsad_edge.errors import ExportError, InputError
from fsad_edge.evaluation import RegionFigures
from fsad_edge.pipeline.model_directory import TrainingRecord

#: Figures of the evaluation that become columns of a row.
EVALUATION = (
    *("image_auroc", "pixel_auroc", "aupro", "threshold", "false_alarm_rate"),
    *("miss_rate", "false_alarms", "missed", "n_good", "n_defective"),
    *("not_judged_good", "not_judged_defective"),
)


def ours(text: str) -> System:
    """The system with these options, as :func:`parse_options` reads them.

    Raises:
        InputError: there is no such option or value.
    """
    options, export_options = parse_options(text)

    def figures(run: Run) -> Figures:
        with tempfile.TemporaryDirectory() as folder:
            try:
                part, file = make_part(run, Path(folder), options, export_options)
            except ExportError as error:
                raise SkipError(str(error)) from error
            report = fsad_edge.evaluate(file, run.data.folder, masks=run.data.masks)
        found, training = report.figures, part.training
        return {
            **{name: getattr(found, name) for name in EVALUATION},
            **_of_regions(found.regions),
            "false_alarm_rate_asked": report.false_alarm_rate_asked,
            "training_seconds": training.seconds,
            "weights_kept": training.weights_kept,
            "auroc_pretrained": training.drawn_pretrained,
            "auroc_finetuned": training.drawn_finetuned,
            "auroc_aligned": training.drawn_aligned,
            "aligned": training.aligned,
            **_of_features(training),
            "encoder": part.chosen.encoder,
            "bank_rows": part.bank_rows,
            "image_size": part.chosen.image_size,
            "strides": list(part.chosen.strides),
            "rotations": part.chosen.rotations,
            **_of_parity(file),
            "bytes": file.size,
            "model_ms": file.latency_ms,
            "by_defect": {row.defect: round(row.image_auroc, 4) for row in found.by_defect},
        }

    return System(without_folders(text), figures)


def _of_regions(regions: RegionFigures) -> Figures:
    """How well the regions found are the defects that masks mark."""
    return {
        "region_recall": regions.recall.share,
        "region_precision": regions.precision.share,
        "defect_regions": regions.recall.of,
        "found_regions": regions.precision.of,
        "area_on_defects": regions.area_on_defects,
        "false_regions_per_good": regions.false_regions_per_good,
    }


def _of_parity(file: ExportResult) -> dict[str, float]:
    """How far the graph is from torch, where torch made it."""
    if file.parity is None:
        return {}
    return {"parity": file.parity.largest_difference, "flips": file.parity.flips}


def _of_features(training: TrainingRecord) -> Figures:
    """What the training of a projection did, where there was one."""
    if training.features is None:
        return {}
    return {
        "features_kept": training.features.kept,
        "features_seconds": training.features.seconds,
        "held_out_before": training.features.held_out_before,
        "held_out_after": training.features.held_out_after,
    }


def make_part(
    run: Run,
    folder: Path,
    options: FinetuneOptions,
    export_options: ExportOptions | None = None,
) -> tuple[FinetuneResult, ExportResult]:
    """Make the model of a run: ``folder/part`` and ``folder/part.onnx``.

    Raises:
        FsadEdgeError: as :func:`fsad_edge.finetune` and :func:`fsad_edge.export` do.
    """
    shots = folder / "shots"
    shots.mkdir()
    # Files of two folders can have the same name, so they are numbered.
    for index, file in enumerate(sorted(run.shots)):
        os.symlink(file.resolve(), shots / f"{index:03d}{file.suffix}")
    part = fsad_edge.finetune(shots, folder / "part", replace(options, seed=run.seed))
    return part, fsad_edge.export(part, folder / "part.onnx", export_options)


def parse_options(text: str) -> tuple[FinetuneOptions, ExportOptions]:
    """Read options from words such as ``image_size=224 strides=8,16 precision=int8``.

    Raises:
        InputError: a word is not NAME=VALUE, or there is no such option or value.
    """
    words = shlex.split(text)
    kinds = (FinetuneOptions, ExportOptions)
    fields = [{field.name for field in dataclasses.fields(kind)} for kind in kinds]
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals or not any(name in names for names in fields):
            known = ", ".join(sorted(set().union(*fields)))
            raise InputError(f"'{word}' is not an option NAME=VALUE: the names are {known}.")
    return FinetuneOptions(**_values(FinetuneOptions, words)), ExportOptions(
        **_values(ExportOptions, words)
    )


def _values(kind: type, words: Sequence[str]) -> dict[str, Any]:
    """The words that name a field of a dataclass, each value as the field's type."""
    types_of = typing.get_type_hints(kind)
    values = {}
    for name, _, value in (word.partition("=") for word in words):
        if name in types_of:
            try:
                values[name] = _value(types_of[name], value)
            except ValueError as error:
                raise InputError(f"'{name}={value}' has a value that cannot be read.") from error
    return values


def _value(kind: Any, text: str) -> Any:
    if isinstance(kind, types.UnionType):  # X | None
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is tuple:
        return tuple(int(number) for number in text.split(","))
    if kind is bool:
        return ("false", "true").index(text) == 1
    return kind(text)
