"""``finetune`` trains a projection of the features, and keeps it where unseen shots confirm it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from fsad_edge.calibration.batches import run_batches, unit_patches
from fsad_edge.calibration.calibrate import CalibrationSettings, Embedded, embed_shot, projection_of
from fsad_edge.calibration.selection import Share
from fsad_edge.calibration.synthetic_task import SyntheticTask, affordable_share
from fsad_edge.options import Device
from fsad_edge.runtime.arrays import BoolArray, Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.documents import Range
from fsad_edge.runtime.side_by_side import side_by_side
from fsad_edge.runtime.steps import Steps
from fsad_edge.synthesis import DEFECTS, Shot, add_defect, exposed_again, generators, random_view
from fsad_edge.training.settings import LossWeights, ShotPatches

#: Views of each shot: under another exposure, and moved as well.
EXPOSED, MOVED = 6, 5

#: Defects drawn onto all shots together, and the most onto one.
DRAWN, DRAWN_PER_SHOT = 300, 60

#: The most patches of a view that are trained on.
PATCHES = 400

#: How much AUROC on held-out shots must rise: random maps that change as much move it by up to
#: 0.0025 either way.
MUST_GAIN = 0.005

#: The fractions of the work, roughly: to look at the patches, to train, and to score drawn defects
#: on held-out shots. Training comes three times, scoring four times.
LOOKING, TRAINING, SCORING = 0.4, 0.12, 0.06

#: The share of a patch's pixels that a defect must change.
CHANGED = 0.15


@dataclass(frozen=True)
class FeatureTraining:
    """What the training of a projection did.

    ``held_out_`` figures are AUROCs, 0 to 1, of drawn defects on shots that the training had not
    seen. They compare features with features and say nothing of real defects.

    Attributes:
        seconds: how long it took.
        held_out_before: with the features as they were.
        held_out_after: with the projection.
    """

    seconds: Annotated[float, Range(0)]
    held_out_before: Share
    held_out_after: Share

    @property
    def kept(self) -> bool:
        """Whether the projection is used."""
        return self.held_out_after > self.held_out_before + MUST_GAIN


def fine_tuned(
    session: OnnxSession,
    task: SyntheticTask,
    settings: CalibrationSettings,
    weights: LossWeights,
    on_progress: Callable[[float], None],
    device: Device = Device.CPU,
) -> tuple[CalibrationSettings, FeatureTraining]:
    """Train a projection of the features on all shots, and test the training on held-out ones.

    The test trains on each half of the shots and looks at drawn defects on the other half. Kept is
    what gains ``MUST_GAIN`` there.

    Args:
        session: the graph.
        task: four shots or more, as each half must hold a pair, and the defects of the test. Those
            that are trained on are others.
        settings: of the calibration.
        weights: of the losses.
        on_progress: called with the fraction that is done.
        device: what torch trains on.

    Returns:
        The settings, with the projection where the test confirms it, and what was found.
    """
    started = time.perf_counter()
    shots = task.shots
    progress = Steps(on_progress)
    with ThreadPoolExecutor(1) as pool:  # PyTorch takes seconds to import
        imported = pool.submit(importlib.import_module, "fsad_edge.training.patch_contrast")
        embedded, patches = _patches(session, shots, settings, progress.next(LOOKING))
        imported.result()
    halves = [list(range(start, len(shots), 2)) for start in (0, 1)]
    before, after = [], []
    for half in halves:
        others = [index for index in range(len(shots)) if index not in half]
        known = [embedded[index] for index in half]
        seen = [patches[index] for index in half]
        learned = _trained(known, seen, weights, settings, progress.next(TRAINING), device)
        before.append(task.solve_others(session, known, others, settings))
        progress.next(SCORING)(1.0)
        known = [replace(one, learned=learned) for one in known]
        after.append(task.solve_others(session, known, others, settings))
        progress.next(SCORING)(1.0)
    learned = _trained(embedded, patches, weights, settings, progress.next(TRAINING), device)
    on_progress(1.0)
    seconds = round(time.perf_counter() - started, 1)
    record = FeatureTraining(seconds, float(np.mean(before)), float(np.mean(after)))
    return replace(settings, learned=learned.tobytes()) if record.kept else settings, record


def _trained(
    embedded: Sequence[Embedded],
    patches: Sequence[ShotPatches],
    weights: LossWeights,
    settings: CalibrationSettings,
    on_progress: Callable[[float], None],
    device: Device,
) -> Float32Array:
    """A projection that is trained on some shots, float32 ``[D, D]``."""
    from fsad_edge.training.devices import pick_device  # PyTorch is large
    from fsad_edge.training.patch_contrast import train_projection

    first = projection_of(embedded)
    shots = patches if first is None else [_projected(shot, first) for shot in patches]
    return train_projection(shots, weights, settings.seed, on_progress, pick_device(device))


def _projected(shot: ShotPatches, projection: Float32Array) -> ShotPatches:
    def apply(rows: Float32Array) -> Float32Array:
        rows = rows @ projection
        unit: Float32Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True).clip(1e-6)
        return unit

    return ShotPatches(apply(shot.bank), apply(shot.normal), [apply(one) for one in shot.defective])


def _patches(
    session: OnnxSession,
    shots: Sequence[Shot],
    settings: CalibrationSettings,
    on_progress: Callable[[float], None],
) -> tuple[list[Embedded], list[ShotPatches]]:
    """Each shot as the bank takes it, and the patches of its views with and without defects."""
    rng = np.random.default_rng([settings.seed, 4])
    plain = replace(settings, gaussian_views=0)
    cells = _cells(session, shots[0], settings)
    drawn = affordable_share(*shots[0].image.shape[:2]) * min(DRAWN_PER_SHOT, DRAWN // len(shots))
    of_each_kind = max(1, int(drawn) // len(DEFECTS))
    embedded, patches, steps = [], [], Steps(on_progress)
    for shot in shots:
        one = Steps(steps.next(1 / len(shots)))
        embedded.append(embed_shot(session, shot, plain, len(shots), rng, one.next(0.3)))
        normal = _normal_patches(session, shot, settings, cells, rng)
        one.next(0.1)(1.0)
        defective = _defective_patches(
            session, shot, settings, cells, of_each_kind, rng, one.next(0.6)
        )
        patches.append(ShotPatches(embedded[-1].patches[:, :-1], normal, defective))
    return embedded, patches


def _normal_patches(
    session: OnnxSession,
    shot: Shot,
    settings: CalibrationSettings,
    cells: BoolArray,
    rng: np.random.Generator,
) -> Float32Array:
    """Up to ``PATCHES`` patches of views of a shot, float32 ``[V, P, D]``."""
    height, width = shot.image.shape[:2]
    exposed = side_by_side(
        lambda own: exposed_again(shot.image, settings.views, own),
        generators(rng, EXPOSED),
        session.workers,
    )
    moved = side_by_side(
        lambda own: random_view(shot.canvas, height, width, settings.views, own),
        generators(rng, MOVED),
        session.workers,
    )
    features = unit_patches(session, [shot.image, *exposed, *moved])
    chosen = np.sort(rng.permutation(np.flatnonzero(cells))[:PATCHES])
    found: Float32Array = features[:, chosen]
    return found


def _defective_patches(
    session: OnnxSession,
    shot: Shot,
    settings: CalibrationSettings,
    cells: BoolArray,
    count: int,
    rng: np.random.Generator,
    on_progress: Callable[[float], None],
) -> list[Float32Array]:
    """For ``count`` defects of each kind, drawn onto views, the patches that change, ``[M, D]``."""
    rows, columns = cells.shape
    asked = [kind for kind in sorted(DEFECTS) for _ in range(count)]

    def draw(one: tuple[str, np.random.Generator]) -> tuple[UInt8Array, BoolArray]:
        kind, own = one
        view, mask = add_defect(exposed_again(shot.image, settings.views, own), own, kind)
        height, width = mask.shape[0] // rows, mask.shape[1] // columns
        changed = mask.reshape(rows, height, columns, width).mean(axis=(1, 3)) > CHANGED
        return view, (changed & cells).flatten()

    own = zip(asked, generators(rng, len(asked)), strict=True)
    views, masks = zip(*side_by_side(draw, own, session.workers), strict=True)
    features = unit_patches(session, views, on_progress)
    pairs = zip(features, masks, strict=True)
    return [patches[mask] for patches, mask in pairs if mask.any()]


def _cells(session: OnnxSession, shot: Shot, settings: CalibrationSettings) -> BoolArray:
    """Which cells of the map count, bool ``[rows, columns]``: those that show the part."""
    rows, columns = run_batches(session, [shot.image], ["anomaly_map"])[0].shape[1:]
    if settings.locator is None:
        return np.ones((rows, columns), np.bool_)
    return settings.locator.cells(rows, columns)
