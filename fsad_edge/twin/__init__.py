"""The twin: the good place of the shots that is most like a region, and how the two differ."""

from fsad_edge.twin.comparison import Difference as Difference
from fsad_edge.twin.comparison import Figures as Figures
from fsad_edge.twin.documents import figures_document as figures_document
from fsad_edge.twin.documents import twin_document as twin_document
from fsad_edge.twin.find import Twin as Twin
from fsad_edge.twin.find import check_has_twins as check_has_twins
from fsad_edge.twin.find import find_twins as find_twins
from fsad_edge.twin.measures import Part as Part
from fsad_edge.twin.measures import Quantity as Quantity
