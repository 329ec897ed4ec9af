"""Few-shot visual anomaly detection for edge devices.

import fsad_edge

part = fsad_edge.finetune("shots/", "part/")
file = fsad_edge.export(part, "part.onnx")
report = fsad_edge.evaluate(file, "dataset/")
with fsad_edge.Model.load(file) as model:
    result = model.score("photo.jpg")
    print(result.decision, result.good, result.score, result.ratio)

Names are imported when they are first used: a device that only scores imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fsad_edge._version import __version__ as __version__
from fsad_edge.errors import (
    ExamplesLostError,
    ExportError,
    FsadEdgeError,
    GoldenImageError,
    ImageError,
    InputError,
    MissingExtraError,
    ModelFileError,
    NotNormalError,
    WeightsError,
    needs_extra,
)

if TYPE_CHECKING:
    from fsad_edge.learning.learner import Learner
    from fsad_edge.pipeline.evaluate import EvaluationReport, evaluate
    from fsad_edge.pipeline.events import Progress
    from fsad_edge.pipeline.export import ExportResult, export
    from fsad_edge.pipeline.finetune import FinetuneResult, finetune
    from fsad_edge.pipeline.options import ExportOptions, FinetuneOptions
    from fsad_edge.runtime.image_scale import ImageScale
    from fsad_edge.runtime.images import load_image
    from fsad_edge.runtime.metadata import Metadata, Threshold
    from fsad_edge.runtime.model import Model, Result

__all__ = [
    "EvaluationReport",
    "ExamplesLostError",
    "ExportError",
    "ExportOptions",
    "ExportResult",
    "FinetuneOptions",
    "FinetuneResult",
    "FsadEdgeError",
    "GoldenImageError",
    "ImageError",
    "ImageScale",
    "InputError",
    "Learner",
    "Metadata",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "NotNormalError",
    "Progress",
    "Result",
    "Threshold",
    "WeightsError",
    "__version__",
    "evaluate",
    "export",
    "finetune",
    "load_image",
]

#: Where each name is, and the extra that brings the packages it needs.
_LAZY = {
    "EvaluationReport": ("pipeline.evaluate", "cpu"),
    "ExportOptions": ("pipeline.options", "cpu"),
    "ExportResult": ("pipeline.export", "cpu"),
    "FinetuneOptions": ("pipeline.options", "cpu"),
    "FinetuneResult": ("pipeline.finetune", "cpu"),
    "ImageScale": ("runtime.image_scale", "cpu"),
    "Learner": ("learning.learner", "cpu"),
    "Metadata": ("runtime.metadata", "cpu"),
    "Model": ("runtime.model", "cpu"),
    "Progress": ("pipeline.events", "cpu"),
    "Result": ("runtime.model", "cpu"),
    "Threshold": ("runtime.metadata", "cpu"),
    "evaluate": ("pipeline.evaluate", "cpu"),
    "export": ("pipeline.export", "cpu"),
    "finetune": ("pipeline.finetune", "cpu"),
    "load_image": ("runtime.images", "cpu"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fsad_edge' has no attribute '{name}'")
    module, extra = _LAZY[name]
    with needs_extra(extra):
        value = getattr(importlib.import_module(f"fsad_edge.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
