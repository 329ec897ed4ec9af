"""The JSON documents of twins: the regions of a result beside the good places most like them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated

from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.serve.result_store import encode_image
from fsad_edge.serve.schemas import doc
from fsad_edge.twin import Part, Quantity, Twin, figures_document


@dataclass(frozen=True)
class TwinFigures:
    """One measure of a region and of the place in each shot that is most like it."""

    quantity: Annotated[
        Quantity,
        doc(
            "brightness; red: red minus green; blue: blue minus the mean of both; detail: fine "
            "detail. All are in grey levels of 0 to 255."
        ),
    ]
    part: Annotated[
        Part, doc("mean: of all its pixels; most, least: of the twentieth that has most or least.")
    ]
    value: Annotated[float, doc("Of the region.")]
    mean: Annotated[float, doc("Of the shots.")]
    spread: Annotated[float | None, doc("Standard deviation of the shots; null for one shot.")]
    shots: Annotated[list[float], doc("Of each shot.")]
    times: Annotated[float, doc("The difference over the spread, with what few shots leave open.")]
    clear: Annotated[bool, doc("Whether the region differs clearly from the shots.")]


@dataclass(frozen=True)
class TwinRecord:
    """A region beside the good place of the shots that is most like it."""

    region: Annotated[int, doc("The number of the region.")]
    shot: Annotated[int, doc("Which shot the place is in, counted from 0.")]
    name: Annotated[str | None, doc("The shot's file name.")]
    sentence: Annotated[str, doc("How both differ, for people.")]
    figures: list[TwinFigures]
    crop: Annotated[str, doc("``data:`` URL of a JPEG: the region and what is around it.")]
    twin: Annotated[str, doc("The place in the shot, as large, and turned as the region is.")]
    difference: Annotated[
        str, doc("The crop minus the place: grey where they are equal, lighter where it is.")
    ]

    @classmethod
    def of(cls, twin: Twin) -> TwinRecord:
        """A twin with its pictures."""
        return cls(
            region=twin.region.number,
            shot=twin.shot,
            name=twin.name or None,
            sentence=twin.sentence,
            figures=[TwinFigures(**figures_document(one)) for one in twin.compared.figures],
            crop=_data_url(twin.crop),
            twin=_data_url(twin.good),
            difference=_data_url(twin.difference),
        )


@dataclass(frozen=True)
class TwinList:
    """The twins of a result's first regions; empty where it has no region."""

    twins: list[TwinRecord]


def _data_url(pixels: UInt8Array) -> str:
    encoded = base64.b64encode(encode_image(pixels, "JPEG", drawn=True)).decode()
    return f"data:image/jpeg;base64,{encoded}"
