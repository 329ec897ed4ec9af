"""Augmented views of normal images, and defects put into them. Needs numpy and Pillow only."""

from fsad_edge.synthesis.defects import DEFECTS, add_defect
from fsad_edge.synthesis.light import relit
from fsad_edge.synthesis.shots import Shot, load_shot
from fsad_edge.synthesis.views import Views, random_view, rotated

__all__ = ["DEFECTS", "Shot", "Views", "add_defect", "load_shot", "random_view", "relit", "rotated"]
