"""Few-shot visual anomaly detection for edge devices.

from fsad_edge import Model

with Model.load("part.onnx") as model:
    result = model.score("photo.jpg")
    print(result.score, result.ratio, result.anomalous)
"""

from fsad_edge._version import __version__
from fsad_edge.runtime import Metadata, Model, Result, Threshold, load_image

__all__ = ["Metadata", "Model", "Result", "Threshold", "__version__", "load_image"]
