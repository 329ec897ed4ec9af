"""How good a model is on a labelled set of images: figures, and a picture of them."""

from fsad_edge.evaluation.dataset import Sample, read_dataset
from fsad_edge.evaluation.figures import DefectFigures, Evaluation, evaluate_results

__all__ = ["DefectFigures", "Evaluation", "Sample", "evaluate_results", "read_dataset"]
