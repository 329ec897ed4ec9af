"""What is chosen for a part from its shots: image size, strides, and whether the bank is turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fsad_edge
import fsad_edge.pipeline.candidates as candidates
from fsad_edge import FinetuneOptions, FinetuneResult
from fsad_edge.calibration.calibrate import CalibrationSettings, bank_size_for, threshold_of
from fsad_edge.calibration.prediction import PRIOR_STD
from fsad_edge.calibration.selection import Trial, best_trial, can_win
from fsad_edge.options import BundledEncoder, Locate, ScoreKind, Turning
from fsad_edge.pipeline.candidates import Shape, shapes_to_try, sizes_to_try
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.synthesis import rotate
from tests.conftest import SIZE

SIDE = 96


@pytest.fixture(autouse=True)
def few_drawn_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are chosen without them, and of sizes it matters here which are tried."""
    monkeypatch.setattr("fsad_edge.calibration.synthetic_task.NORMAL_IMAGES", 20)
    monkeypatch.setattr("fsad_edge.calibration.synthetic_task.DEFECTIVE_IMAGES", 20)


def save_arrows(folder: Path, angles: Sequence[float], side: int = SIDE) -> Path:
    """Shots of a part with a clear upright position, photographed at these angles."""
    folder.mkdir()
    for index, angle in enumerate(angles):
        rng = np.random.default_rng(index)
        pixels = np.full((SIDE, SIDE, 3), 200, np.float32)
        pixels[20:76, 40:56] = (40, 60, 90)
        pixels[20:36, 28:68] = (150, 40, 40)
        pixels += rng.normal(0, 3, pixels.shape)
        part = rotate(pixels.clip(0, 255).astype(np.uint8), angle)
        Image.fromarray(part).resize((side, side)).save(folder / f"{index}.png")
    return folder


def finetune(shots: Path, backbone: str = "fsad_edge", **options: object) -> FinetuneResult:
    """Fine-tune beside the shots, with a small bank and without what is no choice."""
    plain = FinetuneOptions(backbone, epochs=0, bank_size=200, align=False, locate=Locate.OFF)
    asked = replace(plain, **options)  # type: ignore[arg-type]
    return fsad_edge.finetune(shots, shots.with_name("part"), asked)


@pytest.mark.parametrize("count", [3, 5])
def test_parts_at_any_angle_get_a_turned_bank(tmp_path: Path, count: int) -> None:
    shots = save_arrows(tmp_path / "shots", [0, 60, 150, 210, 300][:count])
    made = finetune(shots, image_size=SIDE)
    assert (made.chosen.rotations, made.turning) == (12, Turning.NEARER)
    assert {trial.rotations for trial in made.trials} == {12}
    assert read_manifest(made.path).calibration.bank_rotations == 12


@pytest.mark.parametrize(
    "angles", [(0, 25, -20, 40, 10), (0, 180, 0, 180, 180), (90, 0, 0, 270, 0)]
)
def test_a_few_angles_or_quarter_turns_are_enough(
    tmp_path: Path, angles: tuple[float, ...]
) -> None:
    made = finetune(save_arrows(tmp_path / "shots", angles), image_size=SIDE)
    assert (made.chosen.rotations, made.turning) == (12, Turning.NEARER)


@pytest.mark.parametrize(("turned", "rotations"), [(0, 1), (8, 12)])
def test_many_shots_are_looked_at_from_the_first_to_the_last(
    tmp_path: Path, turned: int, rotations: int
) -> None:
    shots = save_arrows(tmp_path / "shots", [0] * (20 - turned) + [120] * turned)
    made = finetune(shots, image_size=SIDE, strides=(16,))
    assert made.chosen.rotations == rotations


@pytest.mark.parametrize("count", [2, 3, 5])
def test_upright_parts_do_not(tmp_path: Path, count: int) -> None:
    """The play of a fixture is no reason to accept a part upside down."""
    shots = save_arrows(tmp_path / "shots", [0, 8, -8, 4, -5][:count])
    made = finetune(shots, image_size=SIDE)
    assert (made.chosen.rotations, made.turning) == (1, Turning.NO_NEARER)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_surface_without_a_direction_does_not(tmp_path: Path, count: int) -> None:
    """More of a texture brings every shot nearer, turned or not: a tie."""
    (tmp_path / "shots").mkdir()
    for index in range(count):
        rng = np.random.default_rng(index)
        grain = Image.fromarray(rng.integers(60, 190, (60, 60), np.uint8)).resize((224, 224))
        pixels = np.asarray(grain, np.float32) + rng.normal(0, 3, (224, 224))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"shots/{index}.png")
    made = finetune(tmp_path / "shots", image_size=224)
    assert (made.chosen.rotations, made.turning) == (1, Turning.NO_NEARER)


def test_what_is_asked_for_is_not_chosen_again(backbones: dict[str, str], tmp_path: Path) -> None:
    shots = save_arrows(tmp_path / "shots", [0, 60])
    # 128 pixels are more than the photographs have.
    options = {"image_size": 128, "rotations": 1, "strides": (16,)}
    made = finetune(shots, backbones["conv"], **options)
    (trial,) = made.trials
    assert trial == made.chosen
    assert (trial.rotations, trial.image_size, trial.strides) == (1, 128, (16,))
    assert made.turning is Turning.ASKED


def test_maps_foretell_the_spread_of_patch_scores_and_not_of_image_scores() -> None:
    scores, rng = np.array([0.1, 0.12], np.float32), np.random.default_rng(0)
    tails = rng.exponential(size=(2, 14, 14))
    by_image, alike, unlike = (
        threshold_of(
            scores, np.exp(steep * tails).astype(np.float32), 2, CalibrationSettings(score=kind)
        )
        for kind, steep in ((ScoreKind.IMAGE, 0.1), (ScoreKind.PATCH, 0.1), (ScoreKind.PATCH, 0.4))
    )
    assert by_image.prior_std == PRIOR_STD
    assert alike.prior_std < PRIOR_STD < unlike.prior_std
    assert alike.value < by_image.value < unlike.value


@pytest.mark.parametrize(("rotations", "chosen"), [(None, 1), (12, 12)])
def test_one_shot_is_not_turned_unless_the_user_says_so(
    backbones: dict[str, str], tmp_path: Path, rotations: int | None, chosen: int
) -> None:
    shots = save_arrows(tmp_path / "shots", [0])
    made = finetune(shots, backbones["conv"], image_size=SIZE, rotations=rotations)
    assert made.chosen.rotations == chosen
    assert made.turning is (Turning.ASKED if rotations else Turning.ONE_SHOT)


def test_larger_sizes_are_tried_within_the_photographs_and_the_budget(
    backbones: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first size is taken however long it takes, and a warning says so."""
    monkeypatch.setattr(candidates, "SIZES", (32, 64, 128))
    shots = save_arrows(tmp_path / "shots", [0, 60])
    options = {"rotations": 1, "strides": (16,)}
    within = finetune(shots, backbones["conv"], budget_ms=1e6, **options)
    assert [trial.image_size for trial in within.trials] == [32, 64]
    assert within.warnings == ()
    beyond = finetune(shots, backbones["conv"], budget_ms=0.001, force=True, **options)
    assert [trial.image_size for trial in beyond.trials] == [32]
    first, others = beyond.warnings
    assert "takes more than the 0.001 ms of --budget-ms" in first
    assert "not tried" in others
    assert "at 64 px" in others


@pytest.mark.parametrize(("gain", "taken"), [(0.03, "fast"), (0.05, "accurate")])
def test_a_slower_encoder_must_gain_more_than_a_larger_size(gain: float, taken: str) -> None:
    fast, accurate = (
        replace(trial(224, 0.5 + more, 1.0 + more), encoder=kind)
        for kind, more in zip(BundledEncoder, (0.0, gain), strict=True)
    )
    assert str(best_trial([fast, accurate]).encoder) == taken


def trial(size: int, auroc: float, milliseconds: float) -> Trial:
    return Trial(size, (16,), 1, auroc, auroc, milliseconds)


def test_the_faster_is_preferred_unless_the_slower_is_clearly_better() -> None:
    small, same, better = trial(224, 0.8, 2), trial(320, 0.809, 4), trial(448, 0.83, 8)
    assert best_trial([small, same]) == small
    assert best_trial([small, same, better]) == better
    assert best_trial([better, small]) == better


def test_nothing_slower_is_tried_where_it_cannot_win() -> None:
    assert can_win(BundledEncoder.FAST, replace(trial(224, 0.985, 2), encoder=BundledEncoder.FAST))
    good = replace(trial(224, 0.995, 2), encoder=BundledEncoder.FAST)
    assert not can_win(BundledEncoder.FAST, good)
    good = replace(trial(224, 0.97, 2), encoder=BundledEncoder.FAST)
    assert not can_win(BundledEncoder.ACCURATE, good)  # another encoder must gain more


def test_what_finds_nothing_is_not_chosen_for_its_auroc() -> None:
    assert best_trial([trial(224, 0.8, 2), Trial(448, (16,), 1, 0.93, 0.05, 8)]).image_size == 224


@pytest.mark.parametrize(("must_gain", "sizes"), [(-1.0, [32, 64, 128]), (2.0, [32, 64])])
def test_a_size_that_takes_minutes_is_tried_where_the_one_before_it_is_best(
    backbones: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    must_gain: float,
    sizes: list[int],
) -> None:
    monkeypatch.setattr(candidates, "SIZES", (32, 64, 128))
    monkeypatch.setattr("fsad_edge.calibration.selection.SLOW_SIZE", 128)
    monkeypatch.setattr("fsad_edge.calibration.selection.SLOWER_MUST_GAIN", must_gain)
    monkeypatch.setattr("fsad_edge.pipeline.choosing.can_win", lambda encoder, best: True)
    monkeypatch.setattr("fsad_edge.pipeline.first_model.FIRST_SIZE", 32)
    shots = save_arrows(tmp_path / "shots", [0, 60], side=224)
    made = finetune(shots, backbones["conv"], rotations=1, strides=(16,))
    assert [trial.image_size for trial in made.trials] == sizes


def test_sizes_beyond_the_photographs_are_not_tried() -> None:
    assert sizes_to_try(None, [(640, 480), (640, 480), (200, 200)]) == [224, 320, 448]
    assert sizes_to_try(None, [(96, 96)]) == [224]  # one must be tried
    assert sizes_to_try(288, [(96, 96)]) == [288]
    assert sizes_to_try(None, [(2048, 2048)])[-2:] == [1024, 2048]
    assert sizes_to_try(None, [(1000, 1000)], enlarged=3.0)[-1] == 1024  # nothing for tiles


def test_stride_eight_is_tried_where_it_costs_less_than_more_pixels() -> None:
    assert shapes_to_try([224, 320, 448, 640], None, [8, 16, 32]) == [
        Shape(224, (16,)),
        Shape(320, (16,)),
        Shape(448, (16,)),
        Shape(448, (8, 16)),
        Shape(640, (16,)),
    ]
    assert shapes_to_try([224, 640], [8, 16], [8, 16]) == [Shape(224, (8, 16))]
    assert shapes_to_try([640], [8, 16], [8, 16]) == [Shape(640, (8, 16))]  # asked for
    assert shapes_to_try([224], None, [8, 16, 32]) == [Shape(224, (16,))]
    assert shapes_to_try([224, 320], None, [16]) == [Shape(224, (16,)), Shape(320, (16,))]


@pytest.mark.parametrize(("shots", "rows"), [(1, 1000), (5, 1000), (8, 1600), (50, 2000)])
def test_more_shots_get_a_larger_bank(shots: int, rows: int) -> None:
    assert bank_size_for(shots) == rows
