"""The JSON documents of the service, which its OpenAPI document describes too.

The fields of a dataclass are the members of its JSON object, in their order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from fsad_edge.options import Choice, Decision, Doubt
from fsad_edge.runtime.provenance import utc_now

#: Members that are left out where they are None. All others are null then.
OPTIONAL = frozenset(
    {"area_mm2", "box_mm", "centroid_mm", "data", "heatmap", "id", "models", "parameters"}
)


def to_json(document: Any) -> str:
    """The JSON text of a dataclass of this module."""
    return json.dumps(document, default=_members)


def _members(document: Any) -> dict[str, Any]:
    found = vars(document).items()
    return {name: value for name, value in found if value is not None or name not in OPTIONAL}


def doc(text: str) -> Any:
    """The description of a member in the OpenAPI document."""
    return Field(description=text)


def timestamp() -> str:
    """The time as the documents have it: UTC, ISO 8601, milliseconds, ``Z``."""
    return utc_now("milliseconds").replace("+00:00", "Z")


class Source(Choice):
    """How an image came to the service."""

    HTTP = "http"
    WATCH = "watch"
    CAMERA = "camera"


EXAMPLE_RESULT: dict[str, Any] = {
    "id": 1764000000123456,
    "time": "2026-11-24T15:04:05.123Z",
    "model": "part",
    "version": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "source": "http",
    "name": "one.jpg",
    "width": 640,
    "height": 480,
    "score": 0.1234,
    "threshold": 0.1,
    "ratio": 1.234,
    "decision": "anomaly",
    "good": False,
    "doubts": [],
    "reasons": [],
    "image_score": 11.2,
    "p_value": 0.0021,
    "flags": [],
    "timings": {
        "read": 0.4, "decode": 2.1, "resize": 0.6, "queue": 0.2, "infer": 8.0, "total": 11.3,
    },
    "learned": 0,
    "zones": 0,
    "zones_key": "",
    "place_score": None,
    "place_ratio": None,
    "out_of_place": None,
    "mm_per_px": None,
    "regions": [
        {
            "number": 1, "box": [296.1, 203.8, 329.4, 238.0], "area": 871.52,
            "centroid": [312.4, 220.3],
            "polygon": [[312.6, 203.8], [329.4, 221.0], [311.8, 238.0], [296.1, 220.0]],
            "peak": 0.1234, "mean": 0.112, "ratio": 1.234,
        },
    ],
    "more_regions": 0,
}  # fmt: skip


@dataclass(frozen=True)
class RegionRecord:
    """A connected part of the image's anomaly map above the map's threshold.

    Lengths are in pixels of the image as it is seen: turned upright as its EXIF says. What ends in
    ``_mm`` or ``_mm2`` is there where the scale is known.
    """

    number: Annotated[int, doc("1 is the region with the highest peak.")]
    box: Annotated[list[float], doc("Left, top, right and bottom.")]
    area: Annotated[float, doc("Square pixels, without holes.")]
    centroid: Annotated[list[float], doc("x and y.")]
    polygon: Annotated[list[list[float]], doc("Its outline, x and y of each point, clockwise.")]
    peak: Annotated[float, doc("The highest value of the map in it.")]
    mean: Annotated[float, doc("The mean value of the map in it.")]
    ratio: Annotated[float, doc("Peak over the threshold of the map.")]
    area_mm2: Annotated[float | None, doc("Square millimetres.")] = None
    box_mm: Annotated[list[float] | None, doc("The box in millimetres.")] = None
    centroid_mm: Annotated[list[float] | None, doc("The centroid in millimetres.")] = None


@dataclass(frozen=True)
class ResultRecord:
    """The result of one image."""

    __pydantic_config__ = ConfigDict(json_schema_extra={"examples": [EXAMPLE_RESULT]})

    id: Annotated[int, doc("Grows with time, also over restarts.")]
    time: Annotated[str, doc("UTC, ISO 8601.")]
    model: str
    version: Annotated[str, doc("SHA-256 of the model file.")]
    source: Source
    name: Annotated[str | None, doc("The image's name, as its sender gave it.")]
    width: Annotated[int, doc("Of the image as it is seen, turned upright as its EXIF says.")]
    height: int
    score: float
    threshold: float
    ratio: Annotated[float, doc("Score over threshold: 1.0 is the boundary; never clamped.")]
    decision: Decision
    good: Annotated[bool, doc("Whether the part may pass: true where the decision is good.")]
    doubts: Annotated[list[Doubt], doc("Why the image is not judged; empty where it is.")]
    reasons: Annotated[list[str], doc("The same in sentences, without a full stop.")]
    image_score: Annotated[float, doc("Distance of the whole image from the shots.")]
    p_value: Annotated[
        float | None,
        doc("The probability that a good part scores this high; null if it is not judged."),
    ]
    flags: Annotated[list[str], doc("What is wrong with the photograph itself.")]
    timings: Annotated[dict[str, float], doc("Milliseconds by stage.")]
    learned: Annotated[int, doc("Images learned on this device that count.")]
    # Earlier versions wrote results without what follows.
    zones: Annotated[int, doc("Zones set on this device that count.")] = field(
        default=0, kw_only=True
    )
    zones_key: Annotated[
        str,
        doc(
            "Scores of one version of a file with the same key were measured under the same zones; "
            "empty where none were set here."
        ),
    ] = field(default="", kw_only=True)
    place_score: Annotated[
        float | None,
        doc("Distance from the shots place by place; null where places are not compared."),
    ] = field(default=None, kw_only=True)
    place_ratio: Annotated[float | None, doc("Place score over threshold.")] = field(
        default=None, kw_only=True
    )
    out_of_place: Annotated[
        str | None, doc("What the place score says of an anomaly; null where it says nothing.")
    ] = field(default=None, kw_only=True)
    mm_per_px: Annotated[
        float | None, doc("Millimetres that a pixel shows; null where it is not known.")
    ] = field(default=None, kw_only=True)
    regions: Annotated[
        list[RegionRecord],
        doc("Where the map is above its threshold, highest peak first; empty where nowhere."),
    ] = field(default_factory=list, kw_only=True)
    more_regions: Annotated[int, doc("How many regions there are that are not listed.")] = field(
        default=0, kw_only=True
    )


@dataclass(frozen=True)
class ResultWithHeatmap(ResultRecord):
    """The result of one image, with its heat map where that was asked for."""

    heatmap: Annotated[str | None, doc("``data:`` URL of a PNG.")] = None


@dataclass(frozen=True)
class WatchedResult(ResultRecord):
    """The result of a file of a watched folder."""

    folder: str
    size: int
    mtime_ns: int
    sha256: Annotated[str, doc("Of the file's content.")]
    overlay: Annotated[
        str | None, doc("Its heat map, a file below the folder ``overlays``; null if it is good.")
    ]


@dataclass(frozen=True)
class WatchedError:
    """A line of the results file for a file that could not be read, decoded or scored.

    Size and time are 0 where it is no regular file.
    """

    time: str
    model: str
    name: str
    folder: str
    size: int
    mtime_ns: int
    sha256: Annotated[str | None, doc("Of the file's content; null if it could not be read.")]
    error: str
    source: Source = Source.WATCH
    decision: Decision = Decision.ERROR
    good: bool = False


@dataclass(frozen=True)
class Scores:
    """One result for each image, in the order sent."""

    results: list[ResultWithHeatmap]


@dataclass(frozen=True)
class RecentResults:
    """The newest results, oldest first."""

    results: list[ResultRecord]
    last: Annotated[int, doc("The newest id: ask for what comes after it.")]


@dataclass(frozen=True)
class DriftStatus:
    """Whether the scores are still distributed as they were."""

    images: Annotated[int, doc("Judged since the model was loaded or reset.")]
    drifted: Literal["higher", "lower"] | None
    evidence: Annotated[float, doc("0 and up; 1 raises the alarm.")]
    unlike_shots: Annotated[bool, doc("The first images score higher than the shots did.")]
    ratio_to_shots: float | None


@dataclass(frozen=True)
class RejectionStatus:
    """What was rejected of the newest images since the model, its threshold or examples changed."""

    images: Annotated[int, doc("The newest images that were judged, at most 200.")]
    rejected: int
    many: Annotated[bool, doc("Clearly more than the share of good parts that was asked for.")]


@dataclass(frozen=True)
class ModelInfo:
    """A model in service."""

    name: str
    version: Annotated[str, doc("SHA-256 of the model file.")]
    loaded: str
    title: str
    created: str
    width: int
    height: int
    provider: str
    precision: str
    graph: Annotated[str, doc("SHA-256 of the graph: models of one graph share a session.")]
    shots: int
    bank_rows: int
    bank_rotations: Annotated[
        int, doc("Turns at which the bank holds each shot; above 1, turned parts count as good.")
    ]
    bank_flip: Annotated[bool, doc("Whether it holds them mirrored, too.")]
    located: Annotated[
        bool, doc("Whether the part is found in each photograph and looked at alone.")
    ]
    turned_upright: Annotated[
        bool, doc("Whether it is turned upright then: turned parts count as good.")
    ]
    threshold: float
    file_threshold: float
    false_alarm_rate: float
    rate_promised: Annotated[bool, doc("Whether the shots can bear that rate.")]
    reliability: str
    golden: Annotated[int, doc("Golden images that scored as they must.")]
    error: Annotated[
        str | None, doc("Why a newer file was not taken, else what learning_error says.")
    ]
    learning_error: Annotated[
        str | None,
        doc("Why what was taught does not count, or not all of it, and what to do; else null."),
    ]
    learned: Annotated[int, doc("Images learned as normal here that count.")]
    rejected: Annotated[int, doc("Images called bad here that count.")]
    zones: Annotated[int, doc("Zones set here that count.")]
    zones_key: Annotated[str, doc("That of results from now on.")]
    drift: DriftStatus
    rejections: RejectionStatus


@dataclass(frozen=True)
class ModelFault:
    """A model file of a folder that is not served."""

    name: str
    file: str
    error: Annotated[str, doc("Why, as a sentence.")]


@dataclass(frozen=True)
class ModelList:
    """All models in service, and the files of folders that are not."""

    models: list[ModelInfo]
    not_served: list[ModelFault]


@dataclass(frozen=True)
class QueueStatus:
    """Images in the service, and the most there may be."""

    length: int
    limit: int


@dataclass(frozen=True)
class Counts:
    """Images by decision, and requests that this run of the service refused."""

    good: int
    anomaly: int
    not_judged: int
    refused: int
    since: Annotated[
        str, doc("The time of the first that counts: what is in results files counts, too.")
    ]


@dataclass(frozen=True)
class Latency:
    """Percentiles of the total time of the last ``count`` results, milliseconds."""

    p50: float | None
    p95: float | None
    p99: float | None
    count: int


@dataclass(frozen=True)
class CameraStatus:
    """Whether the camera delivers frames."""

    connected: bool
    frame_age_s: float | None
    frames_dropped: int
    frames_failed: Annotated[int, doc("Frames whose scoring ended with an error.")]


class WaitReason(Choice):
    """Why a file of a watched folder has no result yet."""

    SETTLING = "settling"
    OPEN = "open"
    UNREADABLE = "unreadable"
    UNDECODABLE = "undecodable"
    FAILED = "failed"
    QUEUED = "queued"


class WatchState(Choice):
    """What the thread of a watched folder does."""

    READING = "reading"
    WATCHING = "watching"
    STANDBY = "standby"


@dataclass(frozen=True)
class WatchedFolder:
    """The state of one watched folder."""

    folder: str
    model: str
    results: Annotated[str, doc("The file that gets a line for each image.")]
    state: Annotated[
        WatchState,
        doc(
            "reading: what was scored earlier is read; standby: another process watches the folder."
        ),
    ]
    fault: Annotated[str | None, doc("Why it makes no progress; null where it does.")]
    waiting: Annotated[int, doc("Images that have no result yet.")]
    waiting_since: Annotated[str | None, doc("When the one that waits longest was seen first.")]
    waiting_longest: Annotated[str | None, doc("The name of that one.")]
    waiting_for: Annotated[dict[str, int], doc("How many wait, by reason.")]
    comparing: Annotated[int, doc("Scored files that seem unchanged; only their content can tell.")]
    scored: int
    errors: Annotated[int, doc("Files that could not be read, decoded or scored.")]
    heat_maps_lost: Annotated[int, doc("Those that could not be written beside the results.")]
    skipped: Annotated[dict[str, int], doc("Entries that are not images, by reason.")]


@dataclass(frozen=True)
class WatchStatus:
    """The watched folders: sums over all of them, and each by itself."""

    waiting: int
    waiting_since: str | None
    scored: int
    errors: int
    skipped: int
    folders: list[WatchedFolder]

    @classmethod
    def of(cls, folders: list[WatchedFolder]) -> WatchStatus:
        """The status of several folders."""
        since = [one.waiting_since for one in folders if one.waiting_since is not None]
        return cls(
            waiting=sum(one.waiting for one in folders),
            waiting_since=min(since, default=None),
            scored=sum(one.scored for one in folders),
            errors=sum(one.errors for one in folders),
            skipped=sum(sum(one.skipped.values()) for one in folders),
            folders=folders,
        )


@dataclass(frozen=True)
class ServiceStatus:
    """The state of the service."""

    version: str
    started: str
    ready: bool
    draining: bool
    queue: QueueStatus
    counts: Counts
    latency_ms: Latency
    camera: CameraStatus | None
    watch: WatchStatus | None


@dataclass(frozen=True)
class Health:
    """The process answers."""

    status: Literal["ok"] = "ok"


@dataclass(frozen=True)
class ModelReadiness:
    """What a load balancer or an installer asks of one model."""

    version: str
    graph: str
    golden: int
    error: str | None


@dataclass(frozen=True)
class Ready:
    """Images may be sent here."""

    ready: Literal[True] = True


@dataclass(frozen=True)
class Readiness(Ready):
    """Images may be sent here; the models by name, for requests with a token."""

    models: dict[str, ModelReadiness] | None = None


@dataclass(frozen=True)
class Live:
    """The process answers."""

    live: Literal[True] = True


@dataclass(frozen=True)
class ServerMetadata:
    """The server, in the terms of the Open Inference Protocol."""

    name: str
    version: str
    extensions: list[str]


@dataclass(frozen=True)
class ModelReady:
    """A model may be asked."""

    name: str
    ready: Literal[True] = True


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output; -1 is any size."""

    name: str
    datatype: Literal["UINT8", "FP32", "BOOL", "BYTES"]
    shape: list[int]


@dataclass(frozen=True)
class ModelMetadata:
    """Inputs and outputs of a model."""

    name: str
    versions: Annotated[list[str], doc("SHA-256 of the model file, the only version.")]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


@dataclass(frozen=True)
class ConfigTensor:
    """An input or output in Triton's configuration."""

    name: str
    data_type: str
    dims: list[int]


@dataclass(frozen=True)
class TritonConfig:
    """Triton's configuration of a model; ``threshold_VERSION`` is the threshold that decides."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    parameters: dict[str, dict[str, str]]


@dataclass(frozen=True)
class InferOutput(TensorMetadata):
    """An output: its values in ``data``, or as bytes after the document."""

    data: list[float] | list[bool] | list[str] | None = None
    parameters: dict[str, int] | None = None


@dataclass(frozen=True)
class InferResponse:
    """The outputs of an inference request."""

    model_name: str
    model_version: str
    id: str | None
    parameters: dict[str, float]
    outputs: list[InferOutput]


@dataclass(frozen=True)
class ProblemDocument:
    """An error (RFC 9457)."""

    __pydantic_config__ = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that can answer with these errors."""
    schema = TypeAdapter(ProblemDocument).json_schema()
    meanings = {
        400: "The request is malformed.",
        401: "The token is missing or wrong.",
        403: "A page of another origin sent the request.",
        404: "Nothing has this name or id.",
        408: "The body did not arrive in time.",
        409: "The request cannot be carried out now.",
        413: "The body is too large.",
        415: "The body is neither an image nor multipart.",
        421: "The service has another host name.",
        422: "An image cannot be decoded, or a parameter is out of range.",
        429: "The queue is full: nothing was done.",
        503: "The service is not ready.",
    }
    return {
        status: {
            "description": meanings[status],
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status in (*statuses, 401, 421)
    }
