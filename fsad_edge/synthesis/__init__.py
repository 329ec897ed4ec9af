"""Views of normal images, drawn defects and other pictures. This needs numpy and Pillow only."""

from fsad_edge.synthesis.defects import DEFECTS, add_defect
from fsad_edge.synthesis.drawn import DrawnDefect, draw_defects
from fsad_edge.synthesis.illumination import relight
from fsad_edge.synthesis.pictures import other_pictures
from fsad_edge.synthesis.shots import Shot, load_shot
from fsad_edge.synthesis.views import Views, exposed_again, generators, random_view, rotate

__all__ = [
    "DEFECTS",
    "DrawnDefect",
    "Shot",
    "Views",
    "add_defect",
    "draw_defects",
    "exposed_again",
    "generators",
    "load_shot",
    "other_pictures",
    "random_view",
    "relight",
    "rotate",
]
