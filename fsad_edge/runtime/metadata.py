"""The JSON document that an exported file carries under the key ``fsad_edge``.

Everything a loader must know that is not in the graph: input size, threshold and what it rests on,
where the weights came from, and golden images with the scores they must get.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from fsad_edge.errors import ModelFileError

#: Key of the document in the file's metadata.
KEY = "fsad_edge"

#: Raised when a reader of the older form would misread the newer one.
SCHEMA = 1

#: Names of models that are fit for a folder, an address and a label.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

#: Fields of :class:`Metadata` that the first files of this schema lack.
ADDED = frozenset({"bank_rotations", "bank_flip", "appearance"})

#: The one resize rule there is, by name, for readers that do not use this package.
RESIZE_RULE = (
    "stretch to height x width, bilinear with antialiasing (Pillow, reducing_gap 2), of a JPEG "
    "decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is not below that (libjpeg)"
)


@dataclass(frozen=True)
class Threshold:
    """A decision boundary and what it rests on.

    Attributes:
        value: an image is anomalous where its score is above this.
        false_alarm_rate: what was asked for, as a fraction.
        method: how the normal scores were had, in words.
        scores: the normal scores behind the value, ascending.
        promise: what so few scores can promise, in one sentence.
        prior_std: of the logarithms of normal scores where nothing else is known, which the
            scores' own is pooled with, here and where a device sets the value anew.
    """

    value: float
    false_alarm_rate: float
    method: str
    scores: list[float]
    reliability: str
    prior_std: float = 0.13  # of the first files of this schema


@dataclass(frozen=True)
class GoldenImage:
    """An encoded image and the score that every load must get for it.

    Attributes:
        name: of the shot it was made from.
        image: encoded bytes, at a size that is not the model's.
        score: what the exporting runtime got.
    """

    name: str
    image: bytes
    score: float


@dataclass(frozen=True)
class Metadata:
    """What an exported file says of itself.

    Attributes:
        name: of the model.
        created: UTC time of the export, ISO 8601.
        height: of the input image, pixels.
        width: of the input image, pixels.
        backbone: ``name``, ``source``, ``sha256`` of the weights and how they were fine-tuned.
        shots: ``count`` and ``sha256`` of the files the model was made from.
        score: which score decides, ``patch`` or ``image``.
        threshold: on that score.
        map_threshold: what to hold ``anomaly_map`` against when it is drawn.
        bank_rows: memory bank rows in use; the graph's capacity may be larger.
        precision: of the graph: ``fp32``.
        golden_tolerance: largest difference from a golden score, relative to the larger of that
            score and the threshold.
        golden: golden images; empty where the parts are secret.
        versions: of the packages that made the file.
        resize: the rule by which an image comes to ``height`` x ``width``.
        bank_rotations: steps of a full turn in which shots went into the memory bank; 1 is as is.
        bank_flip: their mirror images went in too.
        appearance: how bright, sharp and well placed the shots are (:mod:`..drift`); empty in
            files older than it.
    """

    name: str
    created: str
    height: int
    width: int
    backbone: dict[str, Any]
    shots: dict[str, Any]
    score: str
    threshold: Threshold
    map_threshold: float
    bank_rows: int
    precision: str
    golden_tolerance: float
    golden: list[GoldenImage]
    versions: dict[str, str]
    resize: str = RESIZE_RULE
    bank_rotations: int = 1
    bank_flip: bool = False
    appearance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """The document, one JSON object."""
        document: dict[str, Any] = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for golden in document["golden"]:
            golden["image"] = base64.b64encode(golden["image"]).decode("ascii")
        return json.dumps(document)

    def summary(self) -> dict[str, Any]:
        """The document for people: golden images by size, scores counted."""
        document: dict[str, Any] = {"schema": SCHEMA, **dataclasses.asdict(self)}
        for golden in document["golden"]:
            golden["image"] = f"{len(golden['image'])} bytes"
        document["appearance"].pop("mean_image", None)
        return document

    def _check(self) -> None:
        """Raise KeyError, TypeError or ValueError where a value would fail its user later on."""
        for value, kind in (
            *((text, str) for text in (self.name, self.created, self.precision, self.resize)),
            *((text, str) for text in (self.threshold.method, self.threshold.reliability)),
            *((number, int) for number in (self.height, self.width, self.bank_rows)),
            *((table, dict) for table in (self.versions, self.appearance)),
            *(
                (number, int)
                for number in (self.shots["count"], self.bank_rotations, self.bank_flip)
            ),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{value!r} is not of type {kind.__name__}")
        for key in ("name", "source", "sha256"):
            self.backbone[key][:1]  # that it is there, and a text
        sides_are_sane = 16 <= self.height <= 4096 and 16 <= self.width <= 4096
        state = (self.threshold.value, self.map_threshold)
        if not (
            sides_are_sane
            and all(math.isfinite(value) and value > 0 for value in state)
            and 0 < self.threshold.false_alarm_rate < 1
            and 0.001 <= self.threshold.prior_std <= 10
            and 0 <= self.golden_tolerance < 1
            and self.score in {"patch", "image"}
            and 1 <= self.bank_rotations <= 360
        ):
            raise ValueError("a value is out of range")

    @classmethod
    def from_json(cls, text: str, source: str) -> Metadata:
        """Read a document.

        Args:
            text: the JSON object.
            source: of the document, for the error's sentence.

        Raises:
            ModelFileError: it is newer than this package, made for another resize rule, or not
                what it should be.
        """
        try:
            document = json.loads(text)
            check_schema(document, source)
            if document["resize"] != RESIZE_RULE:
                raise ModelFileError(
                    f"{source} was made where images are brought to its size by another rule "
                    "than here: export it again with this version."
                )
            threshold = Threshold(**document["threshold"])
            golden = [
                GoldenImage(
                    name=str(entry["name"]),
                    image=base64.b64decode(entry["image"], validate=True),
                    score=float(entry["score"]),
                )
                for entry in document["golden"]
            ]
            fields = {
                field.name: document[field.name]
                for field in dataclasses.fields(cls)
                # an older file lacks what was added since, and means its default
                if field.name not in {"threshold", "golden"}
                and (field.name in document or field.name not in ADDED)
            }
            metadata = cls(threshold=threshold, golden=golden, **fields)
            metadata._check()
            return metadata
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise ModelFileError(
                f"{source} has a damaged description ({error!r}): export it again."
            ) from error


def check_schema(document: dict[str, Any], source: str) -> None:
    """Refuse what a newer version wrote.

    Raises:
        ModelFileError: the document's schema is newer than this package knows.
        KeyError: the document names no schema.
    """
    if int(document["schema"]) > SCHEMA:
        raise ModelFileError(
            f"{source} was written by a newer fsad-edge (schema {document['schema']}, this one "
            f"reads up to {SCHEMA}): update fsad-edge here, or export again with this version."
        )
