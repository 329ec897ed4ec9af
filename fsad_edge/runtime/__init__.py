"""Score images with an exported file: numpy, Pillow and one engine."""

from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.metadata import Metadata, Threshold
from fsad_edge.runtime.model import Model, Result

__all__ = ["Metadata", "Model", "Result", "Threshold", "load_image"]
