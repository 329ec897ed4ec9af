"""How good a model is on a labelled set of images: figures, and a report of them."""

from fsad_edge.evaluation.dataset import Dataset, Sample, read_dataset
from fsad_edge.evaluation.figures import DefectFigures, Evaluation, evaluate_results
from fsad_edge.evaluation.masks import Mask
from fsad_edge.evaluation.rate import Rate
from fsad_edge.evaluation.region_figures import RegionFigures

__all__ = [
    "Dataset",
    "DefectFigures",
    "Evaluation",
    "Mask",
    "Rate",
    "RegionFigures",
    "Sample",
    "evaluate_results",
    "read_dataset",
]
