"""What of ``finetune`` runs on a GPU, and what that brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsad_edge.options import Device, Provider
from fsad_edge.pipeline.options import FinetuneOptions
from fsad_edge.runtime.backends.onnxruntime import OnnxSession, import_onnxruntime
from fsad_edge.runtime.backends.providers import PROVIDERS, reason_unavailable

if TYPE_CHECKING:
    from fsad_edge.pipeline.model_directory import TrainingRecord


def provider_for(device: Device) -> Provider:
    """Where ONNX Runtime computes features, where torch trains on a device.

    It takes the GPU where it can, and is never a reason to refuse one that torch can train on.
    """
    return Provider.CPU if device is Device.CPU else Provider.AUTO


def where_it_ran(options: FinetuneOptions, session: OnnxSession, record: TrainingRecord) -> str:
    """What ran on the GPU and what it brings: one sentence without a full stop.

    Args:
        options: the user's choices.
        session: the graph that computed the features.
        record: what was trained, and on which device.

    Returns:
        An empty text where nothing ran on a GPU and none was asked for.
    """
    features = session.provider == PROVIDERS[Provider.CUDA]
    trained = record.device == Device.CUDA
    if not (features or trained):
        if options.device is not Device.CUDA:
            return ""
        return (
            f"nothing ran on it, because nothing was trained and {_no_features()}: "
            "--device cpu takes as long"
        )
    if features and trained:
        what = "features and training ran on it"
    elif features:
        what = "features were computed on it, and nothing was trained on it"
    else:
        what = f"training alone ran on it, because {_no_features()}"
    if options.epochs:
        return what
    return (
        f"{what}; without a number of --epochs most of the work stays on the CPU, so that "
        "--device cpu may be as fast"
    )


def _no_features() -> str:
    """Why the features are computed on the CPU."""
    reason = reason_unavailable(import_onnxruntime(), Provider.CUDA)
    return f"features need ONNX Runtime with CUDA ({reason})"
