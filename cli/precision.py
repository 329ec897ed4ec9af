"""A graph brought to another precision, and what that does to its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsad_edge.errors import ExportError, InputError

if TYPE_CHECKING:
    import onnx

    from fsad_edge.calibration.calibrate import CalibrationSettings
    from fsad_edge.calibration.precision import PrecisionReport
    from fsad_edge.synthesis import Shot
    from fsad_edge.training.encoder import EncoderSpec

PRECISIONS = ("fp32", "fp16", "int8")


def check_precision(precision: str, target: str) -> None:
    """Refuse a precision or target there is not."""
    from fsad_edge.export.quantize import TARGETS

    if precision not in PRECISIONS:
        raise InputError(f"--precision is one of {', '.join(PRECISIONS)}, not '{precision}'.")
    if target not in TARGETS:
        raise InputError(f"--target is one of {', '.join(TARGETS)}, not '{target}'.")


def rewritten(
    model: onnx.ModelProto,
    precision: str,
    target: str,
    spec: EncoderSpec,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
) -> onnx.ModelProto:
    """A copy of an fp32 graph in another precision; no normal parts in it yet.

    Raises:
        ExportError: int8 was asked for, for an encoder that has no use for it; or TensorRT, which
            the graph is for, cannot build it.
    """
    from fsad_edge.calibration.ranges import activation_ranges
    from fsad_edge.export.half import to_half
    from fsad_edge.export.quantize import expose, quantised_names, quantize
    from fsad_edge.export.tensorrt_operators import check_tensorrt
    from fsad_edge.runtime.session import OnnxSession

    if precision == "fp16":
        half = to_half(model)
        check_tensorrt(half)
        return half
    names = quantised_names(model, target)
    exposed = OnnxSession(expose(model, names).SerializeToString(), "the graph", "cpu")
    ranges = activation_ranges(exposed, names, shots, settings)
    quantised = quantize(model, ranges, spec.mean, spec.std, target)
    if target == "tensorrt":
        check_tensorrt(quantised)
    return quantised


def check_drift(report: PrecisionReport, precision: str, allowed: float) -> None:
    """Refuse a graph that decides otherwise than the one it was made from.

    Raises:
        ExportError: more is lost than is allowed.
    """
    if not report.holds(allowed):
        raise ExportError(
            f"{precision} changes too much: {report.flips} of {report.images} decisions flip, "
            f"AUROC {report.auroc_after:.4f} on synthesised defects where fp32 has "
            f"{report.auroc_before:.4f} ({allowed:.0%}, {allowed / 2:g} allowed): no file was "
            "written: take another --precision, or a larger --allow-drift."
        )


def facts(report: PrecisionReport, precision: str, target: str) -> dict[str, str]:
    """The report as lines for people."""
    name = precision if precision == "fp16" else f"{precision} for {target}"
    return {
        "precision": f"{name}; against fp32, on {report.images} views of the shots, with and "
        "without a synthesised defect:",
        "  score drift": f"{report.normal_drift:.3f} of the threshold at most without a defect, "
        f"{report.defect_drift:.3f} with one",
        "  decisions": f"{report.flips} of {report.images} flip",
        "  AUROC": f"{report.auroc_before:.4f} before, {report.auroc_after:.4f} after",
        "  time": f"{report.ms_before:.2f} ms before, {report.ms_after:.2f} ms after, on this CPU"
        + ("; fp16 is for GPUs, processors compute it as fp32" if precision == "fp16" else ""),
    }
