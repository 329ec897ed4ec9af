"""What a benchmark found, as dataclasses; ``fsad-edge bench --json`` prints them as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.bench.latency import Percentiles
from fsad_edge.errors import InputError
from fsad_edge.runtime.documents import (
    DocumentError,
    from_document,
    parse_json,
    shorten,
    to_document,
)
from fsad_edge.runtime.files import read_bytes

#: The field that tells a benchmark's JSON from other JSON; its value is the schema.
SCHEMA_KEY = "fsad_edge_bench"
#: The most bytes of a report that are read; one of an hour has a few MB.
LARGEST = 256 << 20
#: The version of the report, which is not that of the model files: a report of an older model stays
#: comparable.
SCHEMA = 1

#: The shortest time that is compared with another one, milliseconds.
_SHORTEST = 1e-6


@dataclass(frozen=True)
class MedianAndMax:
    """Median and maximum of values that are too few for other percentiles."""

    p50: float
    max: float


@dataclass(frozen=True)
class ImagesReport:
    """The images that were scored: where they came from, their sizes such as ``1280x960``."""

    source: str
    count: int
    sizes: list[str]
    sha256: str


@dataclass(frozen=True)
class NoiseReport:
    """How steady the machine was.

    Attributes:
        rule: the rule by which times are called noisy, in words.
        limit: the largest noise that is not too noisy, a fraction.
        blocks: the number of blocks that the run is cut into.
        reference: milliseconds of the fixed computation.
        reference_noise: how far its p50 moved between the blocks, a fraction; None if unknown.
        other_load: fraction of all cores that other processes used; None if unknown.
        other_load_limit: the largest ``other_load`` that is not too noisy.
        noisy: whether the machine was too noisy to tell anything.
        restless_turns: turns that began while another thread of the process was still running.
    """

    rule: str
    limit: float
    blocks: int
    reference: Percentiles
    reference_noise: float | None
    other_load: float | None
    other_load_limit: float
    noisy: bool
    restless_turns: int


@dataclass(frozen=True)
class ConfigurationReport:
    """What was measured of one file, run in one way. Times are milliseconds.

    Attributes:
        label: a name that no other configuration of the run has.
        file: path of the file.
        sha256: SHA-256 of the file.
        bytes: size of the file.
        name: name of the model.
        precision: number format of the graph.
        input: width and height of the model's input, such as ``224x224``.
        provider: the execution provider that ran it.
        notice: what the user should know of that choice; None if nothing.
        threads: threads for one image, as they were asked for.
        batch: images in one call.
        total: times of a call.
        steps: times of its steps.
        ms_per_image: times of a call over ``batch``.
        images_per_second: throughput over the whole run.
        noise: how far the p50 of ``total`` moved between the blocks, a fraction; None if unknown.
        noisy: whether the p50 cannot be trusted.
        block_p50: p50 of ``total`` in each block.
        times: the time of each call.
        load_ms: time to load the file in a process of its own; None if no process started.
        first_score_ms: time from the start of that process to its first score.
        peak_bytes: the largest resident memory of that process.
    """

    label: str
    file: str
    sha256: str
    bytes: int
    name: str
    precision: str
    input: str
    provider: str
    notice: str | None
    threads: int
    batch: int
    total: Percentiles
    steps: dict[str, Percentiles]
    ms_per_image: Percentiles
    images_per_second: float
    noise: float | None
    noisy: bool
    block_p50: list[float]
    times: list[float]
    load_ms: MedianAndMax | None
    first_score_ms: MedianAndMax | None
    peak_bytes: MedianAndMax | None


@dataclass(frozen=True)
class DifferenceReport:
    """A :class:`~fsad_edge.bench.latency.Difference` from the first configuration, ``base``.

    It compares milliseconds an image and is never certain in a noisy run.
    """

    base: str
    label: str
    ratio: float
    low: float
    high: float
    certain: bool


@dataclass(frozen=True)
class PowerSample:
    """Power by rail and clocks by device during one activity."""

    watts: dict[str, MedianAndMax]
    mhz: dict[str, MedianAndMax]


@dataclass(frozen=True)
class PowerReport:
    """Power and clocks of a Jetson.

    Attributes:
        mode: the power mode; None if unknown.
        seconds: how long each activity was watched.
        idle: the device at rest.
        configurations: each configuration, running without a pause, by label.
    """

    mode: str | None
    seconds: float
    idle: PowerSample
    configurations: dict[str, PowerSample]


@dataclass(frozen=True)
class RatioReport:
    """The p50 of one configuration over that of an earlier one, ``base``.

    ``low`` and ``high`` are over the blocks of both runs, and None if a run was too short.
    """

    label: str
    base: str
    ratio: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ComparisonReport:
    """A benchmark against an earlier one.

    Attributes:
        rows: one for each configuration that both have.
        reference: ratio of the fixed computation, which the machine alone explains.
        notes: what else differs, each without a full stop.
        caveat: how far the ratios can be trusted.
    """

    rows: list[RatioReport]
    reference: float
    notes: list[str]
    caveat: str


@dataclass(frozen=True)
class BenchmarkReport:
    """What :func:`~fsad_edge.bench.benchmark.run_benchmark` found.

    Attributes:
        created: UTC time at the end of the run, ISO 8601.
        machine: facts about the machine by name.
        images: the images that were scored.
        repetitions: timed calls of each configuration.
        calls_per_turn: timed calls in a row in one turn.
        noise: how steady the machine was.
        configurations: one for each configuration, in the order given.
        differences: each configuration but the first against the first.
        power: power and clocks; None except on a Jetson.
        comparison: ratios against an earlier run; None if none was given.
    """

    created: str
    machine: dict[str, str]
    images: ImagesReport
    repetitions: int
    calls_per_turn: int
    noise: NoiseReport
    configurations: list[ConfigurationReport]
    differences: list[DifferenceReport]
    power: PowerReport | None
    comparison: ComparisonReport | None = None

    def to_document(self) -> dict[str, Any]:
        """The report for ``json.dumps``; :func:`read_report` reads it."""
        return {SCHEMA_KEY: SCHEMA, **to_document(self)}


def median_and_max(values: Sequence[float], digits: int) -> MedianAndMax:
    """Median and maximum of at least one value, rounded."""
    return MedianAndMax(round(float(np.median(values)), digits), round(float(max(values)), digits))


def read_report(file: Path) -> BenchmarkReport:
    """Read what ``fsad-edge bench --json`` printed.

    Raises:
        InputError: the file cannot be read, is not a benchmark's, is of another schema or damaged.
    """
    cure = "give a file that  fsad-edge bench --json  wrote"
    try:
        document = parse_json(read_bytes(file, cure=cure, most=LARGEST))
    except DocumentError as error:
        raise InputError(f"{file} is not JSON ({error}): {cure}.") from error
    if not isinstance(document, dict) or SCHEMA_KEY not in document:
        raise InputError(f"{file} is not a benchmark: {cure}.")
    schema = document.pop(SCHEMA_KEY)
    if schema != SCHEMA:
        raise InputError(
            f"{file} has schema {shorten(repr(schema))} and this fsad-edge reads schema {SCHEMA}: "
            "measure again with this version."
        )
    try:
        report = from_document(BenchmarkReport, document)
    except DocumentError as error:
        raise InputError(f"{file} is damaged ({error}): measure again.") from error
    rows = report.configurations
    compared = [time for row in rows for time in (row.total.p50, *row.block_p50)]
    if not rows or min(report.noise.reference.p50, *compared) < _SHORTEST:
        raise InputError(f"{file} is damaged (a call took no time): measure again.")
    return report
