"""The description that an exported file carries: one JSON document under the key ``fsad_edge``.

It holds everything that a loader must know and the graph does not contain: input size, threshold
and the scores behind it, the origin of the weights, and golden images with the scores that they
must get. ``docs/format.md`` lists its fields for readers that do not use this package.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.options import Choice, ScoreKind
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.documents import (
    SCHEMA,
    STATED,
    Above,
    Ascending,
    Matches,
    Range,
    Sha256,
    read_document,
    to_document,
    write_document,
)
from fsad_edge.runtime.golden_images import GoldenImage as GoldenImage
from fsad_edge.runtime.image_scale import UNASKED, ImageScale
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.origins import Origins
from fsad_edge.runtime.preparation import Preparation
from fsad_edge.runtime.zones import ZoneEntry

#: Key of the document in the file's metadata.
KEY = "fsad_edge"

#: Names of models that can be used in a folder, an address and a label.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: Number formats of a graph, and for what an int8 graph is.
PRECISION = r"fp32|fp16|int8 \((cpu|tensorrt)\)"

#: Scores below this are taken for it: those of blank parts are zero.
LEAST_SCORE = 1e-4

#: Side of the small grey image in :class:`Appearance` in pixels.
SMALL = 32

#: The most bytes of :class:`LeftOutMaps` as they are unpacked: 2,000 shots of a map of 64 x 64.
MOST_LEFT_OUT = 1 << 24

#: The only resize rule, in words, for readers that do not use this package.
RESIZE_RULE = (
    "stretch to height x width, bilinear with antialiasing (Pillow, reducing_gap 2), of a JPEG "
    "decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is not below that (libjpeg)"
)

#: Scores, thresholds and what they are compared with. What leaves these bounds is no distance, and
#: its quotient with another one could be infinite.
Positive = Annotated[float, Above(0), Range(1e-12, 1e12)]

#: How far from the middle of a cell the middle of what it sees may be, in cells.
CellShift = Annotated[float, Range(-1, 1)]
Score = Annotated[float, Range(0, 1e12)]
Count = Annotated[int, Range(0)]
Pixels = Annotated[int, Range(16, 16384)]


@dataclass(frozen=True)
class Threshold:
    """A threshold and the scores behind it.

    Attributes:
        value: an image is anomalous where its score is above this.
        false_alarm_rate: the requested share of good parts that may be rejected.
        method: how the normal scores were obtained, in words.
        scores: the normal scores behind the value, ascending.
        reliability: how far so few scores can be relied on, in one sentence.
        prior_std: the standard deviation of the logarithms of normal scores where nothing else is
            known. The scores' own is pooled with it, here and where a device computes the value
            again.
        rate_promised: whether the false alarm rate is expected to hold. It is not where the
            distinct shots are too few, or where a shot unlike the rest was kept.
        set_by_hand: whether a person set the value. The scores do not lead to it then, and a device
            that learns leaves it.
    """

    value: Positive
    false_alarm_rate: Annotated[float, Range(1e-9, 0.999999)]
    method: str
    scores: Annotated[list[Score], Range(1, 1_000_000), Ascending()]
    reliability: str
    prior_std: Annotated[float, Range(0.001, 10)]
    rate_promised: bool
    set_by_hand: bool = field(default=False, metadata=STATED)

    @property
    def usual_score(self) -> float:
        """A score as good parts have it, at most twice the highest known: golden scores may differ
        by a fraction of it. A threshold that was set higher does not make it higher."""
        return min(self.value, max(2 * self.scores[-1], LEAST_SCORE)) if self.scores else self.value


@dataclass(frozen=True)
class Backbone:
    """The origin of the encoder.

    Attributes:
        name: timm's name of the network.
        source: the origin of the pretrained weights, in words.
        sha256: SHA-256 of those weights before any fine-tuning.
        epochs: passes of contrastive training whose weights were kept; 0 for none.
        fine_tuned: whether the projection of its features was trained contrastively.
    """

    name: str
    source: str
    sha256: str
    epochs: Count
    fine_tuned: bool


class ShotProblem(Choice):
    """What can be wrong with shots, each or as a set."""

    MANY = "many"
    SHAPE = "shape"
    SIZE = "size"
    DARK = "dark"
    BRIGHT = "bright"
    FLAT = "flat"
    BLURRED = "blurred"
    DUPLICATE = "duplicate"
    NEAR_IDENTICAL = "near-identical"
    FEW_DISTINCT = "few distinct"
    OUTLIER = "outlier"
    UNUSUAL = "unusual"
    HIGH_SCORE = "high score"


@dataclass(frozen=True)
class ShotFinding:
    """Something that was found out about the shots.

    Attributes:
        problem: what it is.
        files: names of the files; empty where it is about all of them.
        text: the finding in one sentence.
    """

    problem: ShotProblem
    files: list[str]
    text: str


@dataclass(frozen=True)
class ShotsRecord:
    """The normal images that a model was made from.

    Attributes:
        count: the number of them behind the threshold's scores.
        sha256: SHA-256 of each file.
        left_out: how many more there were, near-identical to one of these or copies of it.
        findings: what was found when they were looked at as a set.
    """

    count: Annotated[int, Range(1)]
    sha256: list[Sha256]
    left_out: Count
    findings: list[ShotFinding]

    def __post_init__(self) -> None:
        """Refuse a count that is higher than the number of images.

        Raises:
            InputError: it is.
        """
        if self.count > len(self.sha256):
            raise InputError(f"count is {self.count}, and sha256 holds {len(self.sha256)}")


@dataclass(frozen=True)
class Appearance:
    """How the shots look as photographs: one number for each shot and measure.

    Measured and used by :mod:`fsad_edge.runtime.photograph`.

    Attributes:
        brightness: mean grey level, 0 to 255.
        contrast: standard deviation of the grey levels over their mean.
        sharpness: energy of the Laplacian over that of the gradient.
        mean_image: the mean of the shots as small grey images: uint8 ``[SMALL, SMALL]``, raw bytes.
        fingerprints: each shot as a very small grey image: uint8 ``[8, 8]``, raw bytes.
        similarity: the least phase correlation, 0 to 1, at which an image counts as shifted against
            ``mean_image``; None where the position of the part varies among the shots, or where
            they are too few to show that it does not.
    """

    brightness: Annotated[list[Annotated[float, Range(0, 255)]], Range(1)]
    contrast: Annotated[list[Score], Range(1)]
    sharpness: Annotated[list[Score], Range(1)]
    mean_image: Annotated[bytes, Range(SMALL * SMALL, SMALL * SMALL)]
    fingerprints: list[Annotated[bytes, Range(64, 64)]]
    similarity: Annotated[float, Range(-1, 1)] | None

    def __post_init__(self) -> None:
        """Refuse measures of other shots than each other's.

        Raises:
            InputError: the lists differ in length, or there are fewer fingerprints.
        """
        lengths = [len(one) for one in (self.brightness, self.contrast, self.sharpness)]
        if len(set(lengths)) > 1 or len(self.fingerprints) < lengths[0]:
            raise InputError(
                "brightness, contrast and sharpness hold "
                f"{', '.join(map(str, lengths))} numbers for {len(self.fingerprints)} fingerprints"
            )


@dataclass(frozen=True)
class Judgement:
    """The bounds beyond which an image is not judged.

    Measured by :mod:`fsad_edge.runtime.judgement`. A pixel counts with its highest channel.

    Attributes:
        unlikeness: the highest unlikeness of an image that is judged; None sets no bound.
        offset: added to the distance of the nearest patches in it.
        highlight: the least value that one pixel in a hundred is above, 0 to 255.
        saturated: the highest share of overexposed pixels.
        contrast: the least standard deviation of the values.
        detail: the least root mean square of the Laplacian, in values.
        edges: the least root mean square of the gradient, over the contrast.
        plain: the least contrast of the plainest part, over the contrast.
        sharpness: the highest energy of the Laplacian over that of the gradient.
        shape: the lowest and highest width of the photograph over its height; None sets no bound.
        side: the least square root of the number of the photograph's pixels.
    """

    unlikeness: Positive | None
    offset: Positive
    highlight: Annotated[float, Range(0, 255)]
    saturated: Annotated[float, Range(0, 1)]
    contrast: Annotated[float, Range(0, 255)]
    detail: Annotated[float, Range(0, 2048)]
    edges: Annotated[float, Range(0, 2048)]
    plain: Annotated[float, Range(0, 2048)]
    sharpness: Positive
    shape: tuple[Positive, Positive] | None
    side: Annotated[float, Range(0, 1e6)]

    def __post_init__(self) -> None:
        """Refuse bounds of the shape that nothing is within.

        Raises:
            InputError: they are in the wrong order.
        """
        if self.shape is not None and self.shape[0] > self.shape[1]:
            raise InputError("the bounds of the shape are in the wrong order")


@dataclass(frozen=True)
class ByPlace:
    """Whether images are compared with the shots place by place.

    Attributes:
        on: whether they are.
        why: why, or why not, in words, one sentence without a full stop.
        scores: of each shot without itself the larger of patch and place score, over the threshold,
            ascending: what good parts score. Empty where places are not compared.
        place_scores: likewise of the place score alone.
    """

    on: bool
    why: str
    scores: Annotated[list[Score], Ascending()] = field(default_factory=list, hash=False)
    place_scores: Annotated[list[Score], Ascending()] = field(default_factory=list, hash=False)


@dataclass(frozen=True)
class LeftOutMaps:
    """How far images of good parts are from a memory bank that they are not in, place by place.

    From this a device computes the threshold again where a place is to count more or less
    (:mod:`fsad_edge.calibration.left_out`).

    Attributes:
        rows: rows of the map.
        columns: columns of the map.
        shots: the number of shots; where it is 1, the images are moved views of it.
        outliers: how many of them were kept although they are unlike the rest.
        distances: float16, little-endian, ``[N, rows * columns]``, zlib: the distance of each patch
            before it is weighted or limited; 0 for cells that show the part in no shot.
    """

    rows: Annotated[int, Range(1, 4096)]
    columns: Annotated[int, Range(1, 4096)]
    shots: Annotated[int, Range(1)]
    outliers: Count
    distances: Annotated[bytes, Range(1)]

    def __post_init__(self) -> None:
        """Refuse distances that are not whole maps of numbers from 0 on.

        Raises:
            InputError: they are not.
        """
        values = self._values
        cells = self.rows * self.columns
        if not len(values) or len(values) % cells:
            raise InputError(f"distances holds {len(values)} values, and a map has {cells}")
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise InputError("distances holds a value that is no number from 0 on")

    @classmethod
    def of(
        cls, distances: Float32Array, grid: tuple[int, int], shots: int, outliers: int
    ) -> LeftOutMaps | None:
        """Keep distances, float32 ``[N, P]``; None where they would take too much of a file.

        Other arguments are as the attributes; ``grid`` is rows and columns.
        """
        if 2 * distances.size > MOST_LEFT_OUT:
            return None
        packed = zlib.compress(distances.astype("<f2").tobytes(), 9)
        return cls(*grid, shots, outliers, packed)

    @property
    def maps(self) -> Float32Array:
        """The distances, float32 ``[N, rows * columns]``."""
        return self._values.astype(np.float32).reshape(-1, self.rows * self.columns)

    @property
    def _values(self) -> npt.NDArray[np.float16]:
        reader = zlib.decompressobj()
        try:
            data = reader.decompress(self.distances, MOST_LEFT_OUT + 1)
        except zlib.error:
            raise InputError("distances cannot be unpacked") from None
        whole = reader.eof and not reader.unused_data and len(data) <= MOST_LEFT_OUT
        if not whole or len(data) % 2:
            raise InputError("distances is cut off, or longer than it may be")
        return np.frombuffer(data, "<f2")


@dataclass(frozen=True)
class Metadata:
    """What an exported file says of itself.

    Attributes:
        name: name of the model.
        created: UTC time of the export, ISO 8601.
        height: height of the input image in pixels.
        width: width of the input image in pixels.
        backbone: the origin of the encoder.
        shots: the normal images that the model was made from.
        score: the score that decides.
        threshold: the threshold of that score.
        map_threshold: the threshold of ``anomaly_map``, for drawing it.
        bank_rows: memory bank rows in use; the graph's capacity may be larger.
        precision: number format of the graph, such as ``fp32`` or ``int8 (cpu)``.
        golden_tolerance: the largest difference from a golden score, relative to the larger of that
            score and :attr:`Threshold.usual_score`.
        golden: the golden images; empty where the parts are secret.
        versions: versions of the packages that made the file.
        bank_rotations: the memory bank holds the shots rotated in this many steps of a full turn; 1
            leaves them as photographed.
        bank_flip: the memory bank also holds the shots' mirror images.
        appearance: how the shots look as photographs.
        judgement: the bounds beyond which an image is not judged.
        resize: the rule by which an image is brought to ``height`` x ``width``.
        scale: black and white in files of more than 8 bits, as the user or the shots said.
        rejected: SHA-256 of each image that a person called bad and whose patches the second bank
            holds.
        examples: SHA-256 of each image on which a person tried the threshold of this file.
        locator: how the part is found in a photograph, before it is brought to ``height`` x
            ``width``; None where the model looks at the whole photograph.
        left_out: how far the shots are from one another, place by place; None in files of earlier
            versions, and where it would be larger than ``MOST_LEFT_OUT``.
        zones: the zones that a person set before this file was exported, oldest first. They are in
            the weights of its reference model.
        by_place: whether images are compared with the shots place by place; None in files of
            earlier versions, which are not.
        cell_shift: how far the middle of what a cell of the map sees lies right of and below the
            middle of the cell, in cells; 0 and 0 in files of earlier versions, whose maps are shown
            as they are.
    """

    name: str
    created: str
    height: Pixels
    width: Pixels
    backbone: Backbone
    shots: ShotsRecord
    score: ScoreKind
    threshold: Threshold
    map_threshold: Positive
    bank_rows: Annotated[int, Range(1)]
    precision: Annotated[str, Matches(PRECISION, "the name of a number format")]
    golden_tolerance: Annotated[float, Range(0, 0.1)]
    golden: Annotated[list[GoldenImage], Range(0, 100)]
    versions: dict[str, str]
    bank_rotations: Annotated[int, Range(1, 360)]
    bank_flip: bool
    appearance: Appearance
    judgement: Judgement
    resize: str = RESIZE_RULE
    scale: ImageScale = field(default=UNASKED, metadata=STATED)
    rejected: list[Sha256] = field(default_factory=list, metadata=STATED)
    examples: list[Sha256] = field(default_factory=list, metadata=STATED)
    locator: Locator | None = None
    left_out: LeftOutMaps | None = None
    origins: Origins | None = None
    zones: list[ZoneEntry] = field(default_factory=list)
    by_place: ByPlace | None = None
    cell_shift: tuple[CellShift, CellShift] = (0.0, 0.0)

    def normal_scores(self, threshold: Threshold) -> list[float]:
        """What the shots score without themselves, ascending, places included.

        Args:
            threshold: the file's own, or what zones make of it.
        """
        if self.by_place is None or not self.by_place.scores:
            return threshold.scores
        return [threshold.value * ratio for ratio in self.by_place.scores]

    @property
    def preparation(self) -> Preparation:
        """How photographs are brought to the model's size."""
        return Preparation(self.height, self.width, self.scale, self.locator)

    @property
    def in_banks(self) -> frozenset[str]:
        """SHA-256 of the images that the banks hold, which score as they do because of that."""
        return frozenset((*self.shots.sha256, *self.rejected))

    @property
    def known_images(self) -> frozenset[str]:
        """SHA-256 of all images that the file was made from or tried on."""
        return self.in_banks | frozenset(self.examples)

    @property
    def contained(self) -> frozenset[str]:
        """SHA-256 of all that the file was made from, tried on or set to: images and zones."""
        return self.known_images | {entry.digest for entry in self.zones}

    def to_json(self) -> str:
        """The document, one JSON object."""
        return write_document(self)

    def summary(self) -> dict[str, Any]:
        """The document for people: of images and maps it gives the sizes in bytes."""
        document: dict[str, Any] = {"schema": SCHEMA, **to_document(self)}
        for shown, golden in zip(document["golden"], self.golden, strict=True):
            shown["image"] = f"{len(golden.image)} bytes"
        del document["appearance"]["mean_image"]
        if self.left_out is not None:
            document["left_out"]["distances"] = f"{len(self.left_out.distances)} bytes"
        if self.origins is not None:
            shown = document["origins"]
            del shown["nearest"], shown["places"]
            shown["pictures"] = [f"{len(one)} bytes" for one in self.origins.pictures]
        if document["locator"] is not None:
            del document["locator"]["template"], document["locator"]["outline"]
        return document

    @classmethod
    def from_json(cls, text: str, source: str) -> Metadata:
        """Read a document.

        Args:
            text: the JSON object.
            source: the file that it describes, for the error's sentence.

        Raises:
            ModelFileError: it is newer than this package, made for another resize rule, or damaged.
        """
        metadata = read_document(cls, text, f"the description in {source}", "export it again")
        if metadata.resize != RESIZE_RULE:
            raise ModelFileError(
                f"{source} was made for another resize rule than this version has: export it "
                "again with this version."
            )
        return metadata
