"""The benchmark of exported files: configurations are interleaved, and one report says it all."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsad_edge.bench.images import ImageSet, default_images, read_images
from fsad_edge.bench.latency import (
    BLOCKS,
    NOISE_LIMIT,
    NOISE_RULE,
    OTHER_LOAD_LIMIT,
    Call,
    Percentiles,
    Run,
    Samples,
    block_medians,
    difference,
    interleave,
    is_noisy,
    noise,
    percentiles,
)
from fsad_edge.bench.machine import ROOT, describe_gpu, describe_machine
from fsad_edge.bench.power import measure_power
from fsad_edge.bench.report import (
    BenchmarkReport,
    ConfigurationReport,
    DifferenceReport,
    ImagesReport,
    MedianAndMax,
    NoiseReport,
    median_and_max,
)
from fsad_edge.bench.start import Start, largest_run, measure_start
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.options import Provider
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.backends.tensorrt_module import import_tensorrt
from fsad_edge.runtime.engine_file import Flavour
from fsad_edge.runtime.files import read_bytes, sha256
from fsad_edge.runtime.model import Model, Result
from fsad_edge.runtime.provenance import utc_now

#: Processes started for each configuration, for load time and peak memory.
STARTS = 3

#: Is called with the stage and the fraction of it that is done.
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Configuration:
    """What is measured: a file, and how it is run.

    Attributes:
        file: a file that export wrote.
        provider: what runs it.
        threads: threads for one image; 0 takes as many as this process may use.
        batch: images scored in one call.
        strict: refuse to run on the CPU in place of the GPU.
    """

    file: Path
    provider: Provider = Provider.AUTO
    threads: int = 0
    batch: int = 1
    strict: bool = False


def run_benchmark(
    configurations: Sequence[Configuration],
    images: Sequence[Path] = (),
    *,
    seconds: float | None = 10.0,
    runs: int | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda stage, fraction: None,
    root: Path = ROOT,
) -> BenchmarkReport:
    """Measure configurations in one run, from encoded images to decisions.

    Args:
        configurations: at least one; each gets a session of its own.
        images: image files and folders; if empty, golden images or noise are scored.
        seconds: as :func:`~fsad_edge.bench.latency.interleave` takes it.
        runs: as :func:`~fsad_edge.bench.latency.interleave` takes it.
        seed: random seed of the order.
        on_progress: is called with the stage and the fraction of it that is done; an exception that
            it raises ends the run.
        root: root of the file system that describes the machine.

    Raises:
        FsadEdgeError: a file, image or provider cannot be used.
    """
    labelled = dict(zip(make_labels(configurations), configurations, strict=True))
    machine = describe_machine(root)  # now, because the benchmark itself adds to the load
    with contextlib.ExitStack() as stack:
        models = _load(labelled, stack, on_progress)
        image_set = _images_for(images, list(models.values()))
        calls = {
            label: scoring_call(model, image_set.encoded, labelled[label].batch)
            for label, model in models.items()
        }
        for label, call in calls.items():
            _check_call(label, call)
        starts = _measure_starts(labelled, image_set.encoded[0], seed, on_progress)
        run = interleave(
            calls,
            seconds=seconds,
            runs=runs,
            seed=seed,
            on_progress=lambda fraction: on_progress("measuring", fraction),
        )
        power = measure_power(calls, root)
    engines = sorted({_describe_engine(model) for model in models.values()})
    return BenchmarkReport(
        created=utc_now(),
        machine={**machine, "gpu": describe_gpu(), "engine": ", ".join(engines)},
        images=_report_images(image_set),
        repetitions=len(run.reference.total),
        calls_per_turn=run.calls_per_turn,
        noise=report_noise(run),
        configurations=[
            _report_configuration(label, each, models[label], run.samples[label], starts[label])
            for label, each in labelled.items()
        ],
        differences=_report_differences(labelled, run),
        power=power,
    )


def _load(
    labelled: Mapping[str, Configuration], stack: contextlib.ExitStack, on_progress: OnProgress
) -> dict[str, Model]:
    """A model for each configuration; the stack closes them."""
    models: dict[str, Model] = {}
    for index, (label, each) in enumerate(labelled.items()):
        on_progress("loading", index / len(labelled))
        model = Model.load(
            each.file,
            each.provider,
            each.threads,
            strict=each.strict,
            max_batch=largest_run(each.batch),
        )
        models[label] = stack.enter_context(model)
    return models


def _images_for(images: Sequence[Path], models: Sequence[Model]) -> ImageSet:
    """The user's images, or else the golden images of the models or noise."""
    if images:
        return read_images(images, models[0].metadata.scale)
    return default_images([model.metadata for model in models])


def scoring_call(model: Model, images: Sequence[bytes], batch: int) -> Call:
    """What :func:`~fsad_edge.bench.latency.interleave` times for a model.

    Args:
        model: the model to score with.
        images: encoded images; each repetition takes the next ``batch`` of them and begins again at
            the end.
        batch: images scored in one call.
    """

    def call(repetition: int) -> Mapping[str, float]:
        first = repetition * batch
        chosen = [images[(first + offset) % len(images)] for offset in range(batch)]
        return step_times(model.score_batch(chosen))

    return call


def step_times(results: Sequence[Result]) -> dict[str, float]:
    """Milliseconds of each step for a whole batch.

    Decoding and resizing are timed for each image. The engine's time and the time after it are
    those of the batch.
    """
    names = results[0].timings
    return {
        name: (max if name in {"infer", "post"} else sum)(r.timings[name] for r in results)
        for name in names
    }


def report_noise(run: Run) -> NoiseReport:
    """How steady the machine was during a run."""
    reference = run.reference.total
    return NoiseReport(
        rule=NOISE_RULE,
        limit=NOISE_LIMIT,
        blocks=BLOCKS,
        reference=_percentiles(reference),
        reference_noise=noise(reference),
        other_load=run.other_load,
        other_load_limit=OTHER_LOAD_LIMIT,
        noisy=run.noisy,
        restless_turns=run.restless_turns,
    )


def make_labels(configurations: Sequence[Configuration]) -> list[str]:
    """A unique label for each configuration: its file and the options in which they differ."""
    files = {each.file for each in configurations}
    names_differ = len({file.name for file in files}) == len(files)
    labels: list[str] = []
    for each in configurations:
        parts = [each.file.name if names_differ else str(each.file)]
        for option in ("provider", "threads", "batch"):
            if len({getattr(other, option) for other in configurations}) > 1:
                parts.append(f"{option} {getattr(each, option)}")
        label, number = ", ".join(parts), 1
        while label in labels:
            number += 1
            label = f"{', '.join(parts)} ({number})"
        labels.append(label)
    return labels


def _check_call(label: str, call: Call) -> None:
    try:
        call(0)
    except FsadEdgeError:
        raise
    except Exception as error:  # of the engine's own types; it may have no room for the batch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{label} cannot be scored ({reason}): try a smaller --batch.") from error


def _measure_starts(
    labelled: Mapping[str, Configuration], image: bytes, seed: int, on_progress: OnProgress
) -> dict[str, list[Start]]:
    starts: dict[str, list[Start]] = {label: [] for label in labelled}
    order = list(labelled)
    for number in range(STARTS):
        random.Random(seed + number).shuffle(order)
        for index, label in enumerate(order):
            on_progress("starting", (number * len(order) + index) / (STARTS * len(order)))
            each = labelled[label]
            start = measure_start(each.file, each.provider, each.threads, each.batch, image)
            if start is not None:
                starts[label].append(start)
    return starts


def _describe_engine(model: Model) -> str:
    for flavour in Flavour:
        if model.provider == flavour.words:
            return f"{flavour} {import_tensorrt(flavour).__version__}"
    return f"onnxruntime {import_onnxruntime().__version__}"


def _report_images(images: ImageSet) -> ImagesReport:
    sizes = [f"{width}x{height}" for width, height in images.sizes]
    return ImagesReport(images.source, len(images.encoded), sizes, images.sha256)


def _report_configuration(
    label: str,
    configuration: Configuration,
    model: Model,
    samples: Samples,
    starts: Sequence[Start],
) -> ConfigurationReport:
    metadata, total, batch = model.metadata, samples.total, configuration.batch
    data = read_bytes(configuration.file)
    return ConfigurationReport(
        label=label,
        file=str(configuration.file),
        sha256=sha256(data),
        bytes=len(data),
        name=metadata.name,
        precision=metadata.precision,
        input=f"{metadata.width}x{metadata.height}",
        provider=model.provider,
        notice=" ".join(model.notices) or None,
        threads=configuration.threads,
        batch=batch,
        total=_percentiles(total),
        steps={name: _percentiles(taken) for name, taken in samples.steps.items()},
        ms_per_image=_percentiles(total / batch),
        images_per_second=round(len(total) * batch / float(total.sum()) * 1e3, 2),
        noise=noise(total),
        noisy=is_noisy(total),
        block_p50=np.round(block_medians(total), 4).tolist(),
        times=np.round(total, 4).tolist(),
        load_ms=_median_and_max([start.load_ms for start in starts]),
        first_score_ms=_median_and_max([start.first_score_ms for start in starts]),
        peak_bytes=_median_and_max([start.peak_bytes for start in starts]),
    )


def _report_differences(labelled: Mapping[str, Configuration], run: Run) -> list[DifferenceReport]:
    """Each configuration against the first, by milliseconds an image."""
    times = {label: run.samples[label].total / each.batch for label, each in labelled.items()}
    first, *others = times
    reports = []
    for label in others:
        found = difference(times[first], times[label])
        certain = found.certain and not run.noisy
        reports.append(DifferenceReport(first, label, found.ratio, found.low, found.high, certain))
    return reports


def _percentiles(times: Float64Array) -> Percentiles:
    exact = percentiles(times)
    return Percentiles(*(round(value, 4) for value in dataclasses.astuple(exact)))


def _median_and_max(values: Sequence[float | None]) -> MedianAndMax | None:
    known = [value for value in values if value is not None]
    return median_and_max(known, 1) if known else None
