"""A graph rewritten to another precision, and what that changes in its decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fsad_edge.bench.latency import Call, interleave
from fsad_edge.calibration.calibrate import Calibration, CalibrationSettings
from fsad_edge.calibration.ranges import activation_ranges
from fsad_edge.calibration.synthetic_task import SyntheticTask
from fsad_edge.errors import ExportError, InputError, ModelFileError, needs_extra
from fsad_edge.options import Precision, Target
from fsad_edge.pipeline.model_directory import Manifest
from fsad_edge.pipeline.options import ExportOptions
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.environment import has_modules
from fsad_edge.runtime.files import read_bytes
from fsad_edge.runtime.model import Model
from fsad_edge.scoring.encoder_spec import EncoderSpec
from fsad_edge.scoring.onnx_graph import Graph, read_graph
from fsad_edge.scoring.quantize import quantised_names, quantize, with_outputs
from fsad_edge.scoring.tiles import LARGEST_WHOLE, is_tiled
from fsad_edge.synthesis import Shot

#: Runs of each graph behind the milliseconds.
TIMED_RUNS = 40


def precision_name(precision: Precision, target: Target) -> str:
    """A precision as an exported file names it, such as ``fp32`` or ``int8 (cpu)``."""
    return f"{precision} ({target})" if precision == Precision.INT8 else str(precision)


def check_ranges_file(file: Path, options: ExportOptions, manifest: Manifest) -> None:
    """Refuse a file whose int8 graph cannot be this part's.

    Args:
        file: the int8 file whose activation ranges are to be taken.
        options: of the export.
        manifest: of the part's model directory.

    Raises:
        InputError: it is of another precision or encoder, or one of the two was fine-tuned.
    """
    if options.precision != Precision.INT8:
        raise InputError(
            "--ranges-of is for  --precision int8: graphs of one encoder in fp32 and fp16 are the "
            "same without it."
        )
    other, spec = Model.load(file, "cpu", golden=False).metadata, manifest.encoder
    if manifest.training.weights_kept or other.backbone.epochs:
        raise InputError(
            f"--ranges-of {file}: a fine-tuned encoder belongs to one part alone; run  fsad-edge "
            "finetune  with --epochs 0 for both."
        )
    wanted = precision_name(options.precision, options.target)
    found = (other.precision, other.backbone.sha256, other.height, other.width, other.score)
    if found != (wanted, spec.sha256, spec.height, spec.width, manifest.calibration.score):
        raise InputError(
            f"--ranges-of {file}: it is {other.precision}, {other.height}x{other.width}, encoder "
            f"{other.backbone.sha256[:8]}; this part is to be {wanted}, "
            f"{spec.height}x{spec.width}, encoder {spec.sha256[:8]}: both must be the same."
        )


def refuse_tiles(height: int, width: int) -> None:
    """Refuse int8 for an input that the encoder sees in tiles: each would need ranges of its own.

    Raises:
        ExportError: the input, in pixels, is one.
    """
    if is_tiled(height, width):
        raise ExportError(
            f"int8 is for models of at most {LARGEST_WHOLE}x{LARGEST_WHOLE} pixels, and this one "
            f"has {width}x{height}, which its encoder sees in tiles: leave --precision out, take "
            f"fp16 for a GPU, or run  fsad-edge finetune  with --image-size {LARGEST_WHOLE}."
        )


def rewrite_graph(
    data: bytes,
    options: ExportOptions,
    spec: EncoderSpec,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
) -> bytes:
    """An fp32 graph in another precision; its reference model has to be computed again.

    Args:
        data: the fp32 graph.
        options: precision, target and, for int8, the file whose ranges are taken; that file has
            passed :func:`check_ranges_file`.
        spec: of the encoder.
        shots: at least one.
        settings: of the calibration.

    Raises:
        InputError: the memory bank or the patch grid of that file is of another size.
        ExportError: int8 gains nothing for this encoder, or TensorRT cannot build the graph that is
            written for it.
        MissingExtraError: it is fp16, and onnx is not installed.
    """
    if options.precision == Precision.FP16:
        return _to_fp16(data)
    graph = read_graph(data)
    if options.ranges_of is not None:
        rewritten = _graph_of(options.ranges_of, graph)
    else:
        names = quantised_names(graph, options.target)
        shown = with_outputs(graph, names).to_bytes()
        ranges = activation_ranges(OnnxSession(shown, "the graph", "cpu"), names, shots, settings)
        rewritten = quantize(graph, ranges, spec.mean, spec.std, options.target)
    written = rewritten.to_bytes()
    if has_modules("onnx"):
        _check_operators(written, options.target)
    return written


def _to_fp16(data: bytes) -> bytes:
    with needs_extra("fp16"):
        import onnx

        from fsad_edge.graph.fp16 import to_fp16
    written = bytes(to_fp16(onnx.load_from_string(data)).SerializeToString())
    _check_operators(written, Target.TENSORRT)
    return written


def _check_operators(data: bytes, target: Target) -> None:
    """Refuse what no device has, or what TensorRT cannot build where the graph is for it.

    Raises:
        ExportError: names the operators.
    """
    import onnx

    from fsad_edge.graph.operators import check_operators
    from fsad_edge.graph.tensorrt_operators import check_tensorrt

    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    if target == Target.TENSORRT:
        check_tensorrt(model)
    check_operators(model)


def _graph_of(file: Path, same_shapes_as: Graph) -> Graph:
    def shapes(graph: Graph) -> dict[str, object]:
        return {value.name: value.shape for value in (*graph.inputs, *graph.outputs)}

    graph = read_graph(read_bytes(file, ModelFileError))
    if shapes(same_shapes_as).keys() - shapes(graph).keys():
        raise InputError(
            f"--ranges-of {file}: it was exported by an earlier version, whose graph has fewer "
            "inputs: export it again with this version first."
        )
    if shapes(graph) != shapes(same_shapes_as):
        raise InputError(
            f"--ranges-of {file}: its memory bank or patch grid is of another size, or one of the "
            "parts is compared place by place and the other is not: give both parts the same "
            "--bank-size, --strides and --place."
        )
    return replace(graph, metadata={})


@dataclass(frozen=True)
class CalibratedGraph:
    """A graph, a session of it, and what calibration derived through it."""

    data: bytes
    session: OnnxSession
    fitted: Calibration

    def ratios(
        self, task: SyntheticTask, settings: CalibrationSettings
    ) -> tuple[Float64Array, Float64Array]:
        """Scores over the threshold of a task's normal and defective views, float64 ``[n]``."""
        scores = task.scores(self.session, settings, self.fitted.reference.as_inputs())
        good, bad = (one.astype(np.float64) / self.fitted.threshold.value for one in scores)
        return good, bad


@dataclass(frozen=True)
class PrecisionReport:
    """A rewritten graph compared with the fp32 graph that it was made from.

    Each has its own memory bank and threshold, so scores are compared as ratios to the threshold.

    Attributes:
        images: how many were compared: views of the shots, with and without a synthesised defect.
        normal_drift: largest change of a normal view's ratio.
        defect_drift: largest change of the ratio of a view with a defect.
        flips: images that changed to the other side of the threshold.
        auroc_before: on the synthetic task, of the fp32 graph.
        auroc_after: on the synthetic task, of the rewritten graph.
        ms_before: milliseconds of the fp32 graph alone, median, batch 1, interleaved with:
        ms_after: milliseconds of the rewritten graph.
    """

    images: int
    normal_drift: float
    defect_drift: float
    flips: int
    auroc_before: float
    auroc_after: float
    ms_before: float
    ms_after: float

    def holds(self, allowed: float) -> bool:
        """Whether the change is small enough.

        Args:
            allowed: the share of decisions that may flip; of AUROC half as much may be lost.
        """
        flipped, lost = self.flips / self.images, self.auroc_before - self.auroc_after
        return flipped <= allowed and lost <= allowed / 2

    def check(self, precision: Precision, allowed: float) -> None:
        """Refuse a graph that decides otherwise than the one it was made from.

        Raises:
            ExportError: more is lost than is allowed.
        """
        if not self.holds(allowed):
            raise ExportError(
                f"{precision} changes too much: {self.flips} of {self.images} decisions flip, "
                f"AUROC {self.auroc_after:.4f} on synthesised defects where fp32 has "
                f"{self.auroc_before:.4f} ({allowed:.0%} of decisions and {allowed / 2:g} of AUROC "
                "are allowed): no file was written; take another --precision, or a larger "
                "--allow-drift."
            )


def compare_precisions(
    before: CalibratedGraph,
    after: CalibratedGraph,
    task: SyntheticTask,
    settings: CalibrationSettings,
) -> PrecisionReport:
    """Compare a graph with the fp32 graph that it was made from, on a part's synthetic task."""
    (good_before, bad_before), (good_after, bad_after) = (
        graph.ratios(task, settings) for graph in (before, after)
    )
    flips = np.concatenate(
        [(good_before > 1) != (good_after > 1), (bad_before > 1) != (bad_after > 1)]
    )
    image = {"image": task.shots[0].image[None]}

    def timed(graph: CalibratedGraph) -> Call:
        session = OnnxSession(graph.data, "the graph", "cpu")  # with all threads for one image

        def call(repetition: int) -> dict[str, float]:
            session.run(["score", "anomaly_map"], image)
            return {}

        return call

    run = interleave({"before": timed(before), "after": timed(after)}, runs=TIMED_RUNS)
    return PrecisionReport(
        images=len(flips),
        normal_drift=float(np.abs(good_after - good_before).max()),
        defect_drift=float(np.abs(bad_after - bad_before).max()),
        flips=int(flips.sum()),
        auroc_before=task.solve(before.session, settings).auroc,
        auroc_after=task.solve(after.session, settings).auroc,
        ms_before=float(np.median(run.samples["before"].total)),
        ms_after=float(np.median(run.samples["after"].total)),
    )
