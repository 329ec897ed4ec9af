"""What ``export`` finds out about the graph that it writes, where PyTorch and onnx are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fsad_edge.calibration.calibrate import Calibration, CalibrationSettings, score_images
from fsad_edge.errors import ExportError, needs_extra
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.environment import has_modules
from fsad_edge.synthesis import Shot

if TYPE_CHECKING:
    from fsad_edge.graph.parity import Parity
    from fsad_edge.training.encoder import Encoder

#: Below this, rounding changes a score by more than the parity with torch allows.
ROUNDING = 1e-3


def prove_parity(
    network: Encoder,
    session: OnnxSession,
    fitted: Calibration,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
) -> Parity:
    """The graph compared with torch, on the shots and on noise.

    Args:
        network: the encoder in torch.
        session: the graph, with its reference model.
        fitted: that reference model and the threshold.
        shots: the shots at the encoder's size.
        settings: of the calibration.

    Raises:
        ExportError: they differ.
    """
    from fsad_edge.graph.parity import TOLERANCE, compare, random_images, torch_scores
    from fsad_edge.graph.scoring_graph import ScoringGraph
    from fsad_edge.training.devices import limit_threads

    limit_threads(0)
    graph = ScoringGraph(network, settings.score, settings.locator).eval()
    images = [shot.image for shot in shots]
    images += random_images(network.spec.height, network.spec.width, settings.seed)
    parity = compare(
        torch_scores(graph, images, fitted.reference),
        score_images(session, images),
        fitted.threshold.value,
    )
    if not parity.holds:
        raise ExportError(
            f"the exported graph differs from the trained model by {parity.largest_difference:.2g} "
            f"of the score ({TOLERANCE:g} is allowed) and {parity.flips} of {parity.images} "
            f"decisions flip: no file was written; {_cure_of_difference(fitted)}."
        )
    return parity


def _cure_of_difference(fitted: Calibration) -> str:
    """What to do where torch and the graph differ."""
    if fitted.threshold.value < ROUNDING:
        return (
            f"the threshold of {fitted.threshold.value:.2g} is as small as rounding, because the "
            "shots are too much alike: run  fsad-edge finetune  with photographs of several parts"
        )
    return "take another --backbone, or report this"


def check_portable(data: bytes) -> None:
    """Refuse a graph whose encoder came from elsewhere and has operators that no device has.

    Raises:
        ExportError: names them.
        MissingExtraError: onnx is not installed.
    """
    with needs_extra("train"):
        import onnx

        from fsad_edge.graph.operators import check_operators

    check_operators(onnx.load_from_string(data))


def describe_tensorrt(data: bytes) -> str | None:
    """Whether TensorRT can build the graph, in words; None where onnx is not installed."""
    if not has_modules("onnx"):
        return None
    import onnx

    from fsad_edge.graph.tensorrt_operators import describe_support

    return describe_support(onnx.load_from_string(data))
