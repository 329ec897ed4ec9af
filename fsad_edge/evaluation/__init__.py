"""How good a model is on a labelled set of images: figures, and a picture of them."""

from fsad_edge.evaluation.dataset import Sample, read_dataset
from fsad_edge.evaluation.evaluate import DefectRow, Evaluation, evaluate

__all__ = ["DefectRow", "Evaluation", "Sample", "evaluate", "read_dataset"]
