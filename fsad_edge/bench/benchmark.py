"""The benchmark of exported files: configurations in turns, one document of what came out."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsad_edge.bench.latency import (
    BLOCKS,
    NOISE_LIMIT,
    NOISE_RULE,
    OTHERS_LIMIT,
    Call,
    Run,
    Samples,
    block_medians,
    difference,
    interleave,
    is_noisy,
    noise,
    percentiles,
)
from fsad_edge.bench.machine import ROOT, describe_machine, gpu
from fsad_edge.bench.pictures import Pictures, default_pictures, read_pictures
from fsad_edge.bench.power import measure_power
from fsad_edge.bench.start import Start, start
from fsad_edge.errors import FsadEdgeError, InputError
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime
from fsad_edge.runtime.backends.tensorrt import import_tensorrt
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.model import Model, Result

#: Raised when a reader of the older document would misread the newer one.
SCHEMA = 1

#: Starts of a process for each configuration, for load time and peak memory.
STARTS = 3

#: Told what is being done and the fraction of it that is done.
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Configuration:
    """What is measured: a file, and how it is run.

    Attributes:
        file: that export wrote.
        provider: ``auto``, ``cpu``, ``cuda`` or ``tensorrt``.
        threads: for one image; 0 leaves the choice to the engine.
        batch: images scored in one call.
        strict: as ``Model.load`` takes it.
    """

    file: Path
    provider: str = "auto"
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
    progress: Progress = lambda doing, fraction: None,
    root: Path = ROOT,
) -> dict[str, Any]:
    """Measure configurations in one run, from encoded pictures to decisions.

    Args:
        configurations: at least one; each gets a session of its own.
        images: files and folders; none: golden images, or noise.
        seconds: as :func:`~fsad_edge.bench.latency.interleave` takes it.
        runs: likewise.
        seed: of the order in which they take turns.
        progress: is told what is done; what it raises ends the run.
        root: of the file system, for what describes the machine.

    Returns:
        A document for ``json``: ``configurations`` with times in milliseconds, their raw ``times``,
        ``machine``, ``noise``, ``differences`` and, on a Jetson, ``power``.

    Raises:
        FsadEdgeError: a file, picture or provider cannot be used.
    """
    labels = labels_of(configurations)
    machine = describe_machine(root)  # the load before this adds to it
    with contextlib.ExitStack() as stack:
        models = []
        for place, each in enumerate(configurations):
            progress("loading", place / len(configurations))
            model = Model.load(each.file, each.provider, each.threads, strict=each.strict)
            models.append(stack.enter_context(model))
        pictures = (
            read_pictures(images) if images else default_pictures([m.metadata for m in models])
        )
        calls = {
            label: scoring_call(model, pictures.encoded, each.batch)
            for label, model, each in zip(labels, models, configurations, strict=True)
        }
        for label, call in calls.items():
            _try(label, call)
        starts = _starts(dict(zip(labels, configurations, strict=True)), pictures, seed, progress)
        run = interleave(
            calls,
            seconds=seconds,
            runs=runs,
            seed=seed,
            progress=lambda fraction: progress("measuring", fraction),
        )
        power = measure_power(calls, root)
    machine["gpu"] = gpu()
    machine["engine"] = ", ".join(sorted({_engine(model) for model in models}))
    rows = [
        {
            "label": label,
            **_describe(each, model),
            **_measured(run.samples[label], each.batch),
            **_started(starts[label]),
        }
        for label, each, model in zip(labels, configurations, models, strict=True)
    ]
    return {
        "fsad_edge_bench": SCHEMA,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "pictures": {
            "source": pictures.source,
            "count": len(pictures.encoded),
            "sizes": [f"{width}x{height}" for width, height in pictures.sizes],
            "sha256": pictures.sha256,
        },
        "repetitions": len(run.reference.total),
        "calls_per_turn": run.calls_per_turn,
        "noise": _noise(run),
        "configurations": rows,
        "differences": _differences(
            {
                label: run.samples[label].total / each.batch
                for label, each in zip(labels, configurations, strict=True)
            },
            run.noisy,
        ),
        "power": power,
    }


def scoring_call(model: Model, pictures: Sequence[bytes], batch: int) -> Call:
    """What :func:`~fsad_edge.bench.latency.interleave` times for a model.

    Args:
        model: to score with.
        pictures: encoded; a repetition takes the next ``batch`` of them, beginning again at the
            end.
        batch: images scored in one call.
    """

    def call(repetition: int) -> Mapping[str, float]:
        first = repetition * batch
        chosen = [pictures[(first + place) % len(pictures)] for place in range(batch)]
        return step_times(model.score_batch(chosen))

    return call


def step_times(results: Sequence[Result]) -> dict[str, float]:
    """Milliseconds by step of a whole batch.

    Decoding and resizing are timed for each image; the engine's time, and the time since it ended,
    are those of the batch.
    """
    names = results[0].timings
    return {
        name: (max if name in {"infer", "post"} else sum)(r.timings[name] for r in results)
        for name in names
    }


def labels_of(configurations: Sequence[Configuration]) -> list[str]:
    """A name for each: its file's, and the options in which they differ."""
    files = {each.file for each in configurations}
    plain = len({file.name for file in files}) == len(files)
    labels: list[str] = []
    for each in configurations:
        parts = [each.file.name if plain else str(each.file)]
        for option in ("provider", "threads", "batch"):
            if len({getattr(other, option) for other in configurations}) > 1:
                parts.append(f"{option} {getattr(each, option)}")
        label, again = ", ".join(parts), 1
        while label in labels:
            again += 1
            label = f"{', '.join(parts)} ({again})"
        labels.append(label)
    return labels


def _try(label: str, call: Call) -> None:
    try:
        call(0)
    except FsadEdgeError:
        raise
    except Exception as error:  # an engine's own types; it may have no room for the batch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{label} cannot be scored ({reason}): try a smaller --batch.") from error


def _starts(
    configurations: Mapping[str, Configuration], pictures: Pictures, seed: int, progress: Progress
) -> dict[str, list[Start]]:
    found: dict[str, list[Start]] = {label: [] for label in configurations}
    order = list(configurations)
    for turn in range(STARTS):
        random.Random(seed + turn).shuffle(order)
        for place, label in enumerate(order):
            progress("starting", (turn * len(order) + place) / (STARTS * len(order)))
            each = configurations[label]
            picture = pictures.encoded[0]
            one = start(each.file, each.provider, each.threads, each.batch, picture)
            if one is not None:
                found[label].append(one)
    return found


def _engine(model: Model) -> str:
    if model.provider == "TensorRT":
        return f"tensorrt {import_tensorrt().__version__}"
    return f"onnxruntime {import_onnxruntime().__version__}"


def _describe(configuration: Configuration, model: Model) -> dict[str, Any]:
    metadata = model.metadata
    return {
        "file": str(configuration.file),
        "sha256": sha256(configuration.file.read_bytes()),
        "bytes": configuration.file.stat().st_size,
        "name": metadata.name,
        "precision": metadata.precision,
        "input": f"{metadata.width}x{metadata.height}",
        "provider": model.provider,
        "notice": model.notice,
        "threads": configuration.threads,
        "batch": configuration.batch,
    }


def _measured(samples: Samples, batch: int) -> dict[str, Any]:
    total = samples.total
    return {
        "total": _rounded(percentiles(total)),
        "steps": {name: _rounded(percentiles(taken)) for name, taken in samples.steps.items()},
        "ms_per_image": _rounded(percentiles(total / batch)),
        "images_per_second": round(len(total) * batch / float(total.sum()) * 1e3, 2),
        "noise": noise(total),
        "noisy": is_noisy(total),
        "block_p50": np.round(block_medians(total), 4).tolist(),
        "times": np.round(total, 4).tolist(),
    }


def _started(starts: Sequence[Start]) -> dict[str, Any]:
    """Median and most of few starts: no more can be said of them."""
    document: dict[str, Any] = {}
    for field in dataclasses.fields(Start):
        values = [getattr(one, field.name) for one in starts]
        known = [value for value in values if value is not None]
        document[field.name] = (
            {"p50": round(float(np.median(known)), 1), "max": round(max(known), 1)}
            if known
            else None
        )
    return document


def _noise(run: Run) -> dict[str, Any]:
    reference = run.reference.total
    return {
        "rule": NOISE_RULE,
        "limit": NOISE_LIMIT,
        "blocks": BLOCKS,
        "reference": _rounded(percentiles(reference)),
        "reference_noise": noise(reference),
        "others": run.others,
        "others_limit": OTHERS_LIMIT,
        "noisy": run.noisy,
        "restless_turns": run.restless,
    }


def _differences(images: Mapping[str, Float64Array], noisy: bool) -> list[dict[str, Any]]:
    """Each configuration against the first, by milliseconds an image; none certain in noise."""
    (first, base), *others = images.items()
    rows = []
    for label, times in others:
        found = difference(base, times)
        found = dataclasses.replace(found, certain=found.certain and not noisy)
        rows.append({"base": first, "label": label, **dataclasses.asdict(found)})
    return rows


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
