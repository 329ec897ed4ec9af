"""A graph brought to another precision, and what that does to its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsad_edge.errors import ExportError, InputError

if TYPE_CHECKING:
    import onnx

    from fsad_edge.calibration.calibrate import CalibrationSettings
    from fsad_edge.pipeline.precision_report import PrecisionReport
    from fsad_edge.synthesis import Shot
    from fsad_edge.training.encoder import EncoderSpec
    from fsad_edge.training.model_directory import Manifest

PRECISIONS = ("fp32", "fp16", "int8")


def check_precision(precision: str, target: str) -> None:
    """Refuse a precision or target there is not."""
    from fsad_edge.graph.quantize import TARGETS

    if precision not in PRECISIONS:
        raise InputError(f"--precision is one of {', '.join(PRECISIONS)}, not '{precision}'.")
    if target not in TARGETS:
        raise InputError(f"--target is one of {', '.join(TARGETS)}, not '{target}'.")


def check_ranges_of(file: Path, precision: str, target: str, manifest: Manifest) -> None:
    """Refuse a file whose int8 graph is no graph for this part.

    Raises:
        InputError: it is of another precision or encoder, or one of the two was fine-tuned.
    """
    from fsad_edge.runtime.model import Model

    if precision != "int8":
        raise InputError(
            "--ranges-of is for  --precision int8: graphs of one encoder in fp32 and fp16 are the "
            "same without it."
        )
    other, spec = Model.load(file, "cpu", golden=False).metadata, manifest.encoder
    if manifest.training["synthetic_auroc"]["kept"] or other.backbone.epochs:
        raise InputError(
            f"--ranges-of {file}: an encoder that was fine-tuned is one part's own; run  fsad-edge "
            "finetune  with --epochs 0 for both."
        )
    has = (other.precision, other.backbone.sha256, other.height, other.width, other.score)
    if has != (
        *(f"int8 ({target})", spec.sha256, spec.height, spec.width),
        manifest.calibration["score"],
    ):
        raise InputError(
            f"--ranges-of {file}: it is {other.precision}, {other.height}x{other.width}, encoder "
            f"{other.backbone['sha256'][:8]}; this part is to be int8 ({target}), "
            f"{spec.height}x{spec.width}, encoder {spec.sha256[:8]}: both must be alike."
        )


def rewritten(
    model: onnx.ModelProto,
    precision: str,
    target: str,
    spec: EncoderSpec,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
    ranges_of: Path | None,
) -> onnx.ModelProto:
    """A copy of an fp32 graph in another precision; its normal parts are to be made anew.

    Args:
        ranges_of: an int8 file that :func:`check_ranges_of` let pass, whose graph is taken.

    Raises:
        InputError: that file's bank or patch grid is another.
        ExportError: int8 was asked for, for an encoder that has no use for it; or TensorRT, which
            the graph is for, cannot build it.
    """
    from fsad_edge.calibration.ranges import activation_ranges
    from fsad_edge.graph.fp16 import to_fp16
    from fsad_edge.graph.quantize import expose, quantised_names, quantize
    from fsad_edge.graph.tensorrt_operators import check_tensorrt
    from fsad_edge.runtime.backends.onnxruntime import OnnxSession

    if precision == "fp16":
        half = to_fp16(model)
        check_tensorrt(half)
        return half
    if ranges_of is not None:
        return _graph_of(ranges_of, model)
    names = quantised_names(model, target)
    exposed = OnnxSession(expose(model, names).SerializeToString(), "the graph", "cpu")
    ranges = activation_ranges(exposed, names, shots, settings)
    quantised = quantize(model, ranges, spec.mean, spec.std, target)
    if target == "tensorrt":
        check_tensorrt(quantised)
    return quantised


def _graph_of(file: Path, like: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    def shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
        values = [*model.graph.input, *model.graph.output]
        return {
            value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
            for value in values
        }

    model = onnx.load(file)
    if shapes(model) != shapes(like):
        raise InputError(
            f"--ranges-of {file}: its memory bank or patch grid is of another size: give both the "
            "same --bank-size and --strides."
        )
    return model


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
