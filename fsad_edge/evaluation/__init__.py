"""How good a model is on a labelled set of images: figures, and a picture of them."""

from fsad_edge.evaluation.dataset import Dataset, Sample, read_dataset
from fsad_edge.evaluation.figures import DefectFigures, Evaluation, evaluate_results
from fsad_edge.evaluation.masks import Mask

__all__ = [
    "Dataset",
    "DefectFigures",
    "Evaluation",
    "Mask",
    "Sample",
    "evaluate_results",
    "read_dataset",
]
