"""The result of one image."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fsad_edge.options import Decision, Doubt
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.found_regions import Region
from fsad_edge.runtime.judgement import Reason
from fsad_edge.runtime.placement import Placement

#: What is said of an image that the place score rejects.
OUT_OF_PLACE = "something is missing, extra or in another place"


def _no_map() -> Float32Array:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Result:
    """The result of one image.

    Whether a part may pass is :attr:`good`: an image that is not judged is neither good nor
    anomalous.

    Attributes:
        score: distance from normal parts, 0 and up, without an upper limit.
        threshold: an image that is judged is anomalous where its score is above this.
        image_score: distance of the whole image from the shots, 0 and up (COFT-AD's Gaussian).
        reasons: why the image is not judged, with a sentence each; empty where it is.
        anomaly_map: float32 ``[h, w]``, a map of the whole photograph: each patch's mean distance
            from the nearest memory bank rows, limited to the patch score, or that of its place from
            the shots there, where that is larger. Each distance is where the patch was seen. The
            grid is twice as fine as that of the patches, or, where the part was looked for, one of
            the photograph, and the map is 0 where the model did not look. Of files of earlier
            versions, which do not say where patches are seen, it is the patch grid.
        map_threshold: the threshold of the map, for drawing it.
        timings: milliseconds by step: ``decode``, ``resize``, ``infer``, ``post``. In a batch
            ``infer`` is the time of the whole batch.
        place: what the model looked at, in pixels of the photograph; None where that is the whole
            photograph.
        size: width and height of the photograph in pixels, as it is seen: turned upright as its
            EXIF says, at the full resolution of its file.
        regions: the connected parts of the map that are above its threshold, in pixels of the
            photograph, highest peak first. There is none where the score is not above the
            threshold. Also those of an image that is not judged are given.
        more_regions: how many others there are: at most ``found_regions.MOST_REGIONS`` are listed.
        place_score: distance from the shots place by place, in the units of ``score``, which it is
            the largest part of where something is missing, extra or in another place; None where
            the model does not compare places.
        patch_map: float32 ``[h, w]``, the same distances on the patch grid of what the model looks
            at, as the graph gives them.
    """

    score: float
    threshold: float
    image_score: float
    reasons: tuple[Reason, ...]
    anomaly_map: Float32Array
    map_threshold: float
    timings: dict[str, float]
    place: Placement | None = None
    size: tuple[int, int] = (0, 0)
    regions: tuple[Region, ...] = ()
    more_regions: int = 0
    place_score: float | None = None
    patch_map: Float32Array = field(default_factory=_no_map)

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why the image is not judged; empty where it is."""
        return tuple(reason.doubt for reason in self.reasons)

    @property
    def decision(self) -> Decision:
        """Good, anomalous, or not judged."""
        if self.reasons:
            return Decision.NOT_JUDGED
        # What is no number is not below the threshold, and not good.
        return Decision.GOOD if self.score <= self.threshold else Decision.ANOMALY

    @property
    def good(self) -> bool:
        """Whether the part may pass: the image is judged, and its score not above the threshold."""
        return self.decision is Decision.GOOD

    @property
    def anomalous(self) -> bool:
        """Whether the image is judged, and its score above the threshold."""
        return self.decision is Decision.ANOMALY

    @property
    def ratio(self) -> float:
        """Score divided by threshold: an image that is judged is anomalous above 1.0."""
        return self.score / self.threshold

    @property
    def place_ratio(self) -> float | None:
        """Place score divided by threshold; None where the model does not compare places."""
        return None if self.place_score is None else self.place_score / self.threshold

    @property
    def out_of_place(self) -> str | None:
        """What the place score says of an anomalous image, in words; None where it says nothing."""
        told = self.place_score is not None and self.place_score > self.threshold
        return OUT_OF_PLACE if self.anomalous and told else None
