"""The shapes of answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    "p_value": 0.0021,
    "flags": [],
    "timings": {
        "read": 0.4, "decode": 2.1, "resize": 0.6, "queue": 0.2, "infer": 8.0, "total": 11.3,
    },
    "learned": 0,
}  # fmt: skip


class Result(BaseModel):
    """What one image got."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_RESULT]})
    id: int = Field(description="Grows with time, also over restarts.")
    time: str = Field(description="UTC, ISO 8601.")
    model: str
    version: str = Field(description="SHA-256 of the model file.")
    source: Literal["http", "watch", "camera"]
    name: str | None = Field(description="What the sender called it.")
    width: int
    height: int
    score: float
    threshold: float
    ratio: float = Field(description="Score over threshold: 1.0 is the boundary; never clamped.")
    decision: Literal["good", "anomaly"]
    p_value: float | None = Field(description="How often a good part scores this high.")
    flags: list[str] = Field(description="Doubts about the image itself.")
    timings: dict[str, float] = Field(description="Milliseconds by stage.")
    learned: int = Field(description="Normals learned on this device and in force.")
    heatmap: str | None = Field(None, description="data: URL of a PNG, where it was asked for.")


class Scores(BaseModel):
    """One result for each image, in the order sent."""

    results: list[Result]


class Recent(BaseModel):
    """The newest results, oldest first."""

    results: list[Result]
    last: int = Field(description="The newest id there is: ask for what comes after it.")


class Drift(BaseModel):
    """Whether the scores are still distributed as they were."""

    images: int = Field(description="Scored since the model came into service or was reset.")
    drifted: Literal["higher", "lower"] | None
    evidence: float = Field(description="0 and up; 1 raises the alarm.")
    unlike_shots: bool = Field(description="The first images score higher than the shots did.")
    ratio_to_shots: float | None


class ModelInfo(BaseModel):
    """A model in service."""

    name: str
    version: str
    loaded: str
    title: str
    created: str
    width: int
    height: int
    provider: str
    precision: str
    graph: str = Field(description="SHA-256 of what it computes: models of one share a session.")
    shots: int
    bank_rows: int
    threshold: float
    file_threshold: float
    false_alarm_rate: float
    reliability: str
    golden: int = Field(description="Golden images that scored as they must.")
    error: str | None = Field(description="Why a newer file was not taken.")
    learned: int
    drift: Drift


class ModelList(BaseModel):
    """All models in service."""

    models: list[ModelInfo]


class LearnedEntry(BaseModel):
    """One learned image."""

    id: int
    when: str
    who: str
    sha256: str
    file: str
    score: float = Field(description="Before it was learned.")
    threshold: float = Field(description="In force then.")
    rows: int = Field(description="Memory bank rows that it added.")
    forced: bool
    undone: str | None
    undone_by: str | None
    threshold_after: float | None = Field(None, description="In force now.")


class LearnedList(BaseModel):
    """All that was ever learned, oldest first, undone ones too."""

    entries: list[LearnedEntry]
    threshold: float


class Status(BaseModel):
    """How the service does."""

    version: str
    started: str
    ready: bool
    draining: bool
    queue: dict[str, int]
    counts: dict[str, int]
    latency_ms: dict[str, float | None]
    camera: dict[str, Any] | None
    watch: dict[str, int] | None


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether images should be sent here."""

    ready: bool
    models: dict[str, Any] | None = None


class TensorServer(BaseModel):
    """Who serves, by the Open Inference Protocol."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The process answers."""

    live: Literal[True]


class Ready(BaseModel):
    """Images should be sent here."""

    ready: Literal[True]


class ModelReady(BaseModel):
    """A model may be asked."""

    name: str
    ready: Literal[True]


class TensorInfo(BaseModel):
    """An input or output; -1 is any size."""

    name: str
    datatype: Literal["UINT8", "FP32"]
    shape: list[int]


class TensorModel(BaseModel):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str] = Field(description="SHA-256 of the model file: there is one.")
    platform: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


class TritonConfig(BaseModel):
    """Triton's configuration of a model, as far as it means something here."""

    model_config = ConfigDict(extra="allow")
    name: str
    max_batch_size: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    parameters: dict[str, dict[str, str]] = Field(
        description="``threshold_VERSION`` is the boundary in force."
    )


class InferOutput(TensorInfo):
    """An output: its values in ``data``, or behind the document."""

    data: list[float] | None = None
    parameters: dict[str, int] | None = None


class InferResponse(BaseModel):
    """What the images got."""

    model_config = ConfigDict(protected_namespaces=())
    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, float]
    outputs: list[InferOutput]


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")
    type: str
    title: str
    status: int
    detail: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that can answer with these errors."""
    content = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
    }
    meanings = {
        400: "The request is malformed.",
        401: "The token is missing or wrong.",
        403: "A page of another origin asked.",
        404: "There is no such thing.",
        408: "The body did not arrive in time.",
        409: "This cannot be done now.",
        413: "The body is too large.",
        415: "The body is neither an image nor multipart.",
        421: "The service is not called so.",
        422: "An image cannot be decoded, or a parameter is out of range.",
        429: "The queue is full: nothing was done.",
        503: "It is not ready.",
    }
    return {
        status: {"description": meanings[status], "content": content}
        for status in (*statuses, 401, 421)
    }
