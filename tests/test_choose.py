"""What is chosen for a part from its shots, through the command that chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsad_edge.calibration.calibrate import bank_size_for
from fsad_edge.calibration.selection import Trial, best_rotations, best_trial
from fsad_edge.calibration.threshold import PRIOR_STD, ROTATED_STD
from fsad_edge.pipeline.candidates import candidates, sizes_held
from fsad_edge.synthesis import rotate
from fsad_edge.training.model_directory import read_manifest
from tests.conftest import Cli, Job

SIDE = 96


def arrows(folder: Path, angles: list[float], side: int = SIDE) -> Path:
    """Shots of a part with a clear upright, lying at these angles."""
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


def chosen(cli: Cli, shots: Path, out: Path, *options: str) -> dict[str, object]:
    done = cli("finetune", shots, "-o", out, "--epochs", "0", "--json", *options)
    assert done.code == 0, done.err
    return dict(done.json)


def test_parts_at_any_angle_get_a_turned_bank(cli: Cli, tmp_path: Path) -> None:
    shots = arrows(tmp_path / "shots", [0, 60, 150, 210, 300])
    found = chosen(cli, shots, tmp_path / "part", "--image-size", "96")
    assert found["rotations"] == 12
    manifest = read_manifest(tmp_path / "part")
    assert manifest.calibration["bank_rotations"] == 12
    assert manifest.threshold.prior_std == ROTATED_STD


def test_what_is_asked_for_is_not_chosen_again(cli: Cli, tmp_path: Path) -> None:
    shots = arrows(tmp_path / "shots", [0, 60, 150])
    found = chosen(
        cli, shots, tmp_path / "part", "--image-size", "96", "--rotations", "1", "--strides", "16"
    )
    assert (found["rotations"], found["image_size"], found["strides"]) == (1, 96, [16])
    assert len(found["trials"]) == 1  # type: ignore[arg-type]
    assert read_manifest(tmp_path / "part").threshold.prior_std == PRIOR_STD


def test_one_shot_is_turned_unless_told_otherwise(cli: Cli, tmp_path: Path) -> None:
    shots = arrows(tmp_path / "shots", [0])
    assert chosen(cli, shots, tmp_path / "a", "--image-size", "96")["rotations"] == 12
    fixed = chosen(cli, shots, tmp_path / "b", "--image-size", "96", "--rotations", "1")
    assert fixed["rotations"] == 1
    # A device that learns more of it goes by what the bank is.
    spreads = [read_manifest(tmp_path / name).threshold.prior_std for name in "ab"]
    assert spreads == [ROTATED_STD, PRIOR_STD]


def test_a_budget_that_cannot_be_met_is_said(cli: Cli, job: Job, tmp_path: Path) -> None:
    done = cli(
        *("finetune", job.shots, "-o", tmp_path / "part", "--epochs", "0"),
        *("--image-size", "64", "--rotations", "1", "--budget-ms", "0.01"),
    )
    assert done.code == 0
    assert "--budget-ms" in done.err


def test_what_is_beyond_the_budget_is_not_tried(cli: Cli, tmp_path: Path) -> None:
    shots = arrows(tmp_path / "shots", [0, 60], side=330)
    tried = {}
    for name, budget in (("any", ()), ("none", ("--budget-ms", "0.01"))):
        found = chosen(cli, shots, tmp_path / name, "--rotations", "1", *budget)
        tried[name] = [one["image_size"] for one in found["trials"]]  # type: ignore[attr-defined]
    # The cheapest stands whatever it takes.
    assert tried == {"any": [224, 320], "none": [224]}


def trial(size: int, auroc: float, milliseconds: float, rotations: int = 1) -> Trial:
    return Trial(size, (16,), rotations, auroc, auroc, milliseconds)


def test_the_cheaper_is_preferred_unless_the_dearer_is_clearly_better() -> None:
    small, same, better = trial(224, 0.8, 2), trial(320, 0.809, 4), trial(448, 0.83, 8)
    assert best_trial([small, same]) == small
    assert best_trial([small, same, better]) == better
    assert best_trial([better, small]) == better


@pytest.mark.parametrize(
    ("shots", "auroc", "turned"),
    [(1, 0.7, 12), (3, 0.7, 12), (5, 0.79, 12), (5, 0.8, 12), (5, 0.77, 1), (5, 0.9, 12)],
)
def test_turning_may_lose_little_where_shots_can_show_it(
    shots: int, auroc: float, rotated: int
) -> None:
    trials = [trial(224, 0.8, 2), trial(224, auroc, 2, rotations=12)]
    assert best_rotations(trials, shots).rotations == rotated


@pytest.mark.parametrize(
    ("small", "large", "size"),
    [((0.8, 0.785), (0.8, 0.77), 224), ((0.8, 0.765), (0.82, 0.805), 320)],
)
def test_a_larger_size_must_gain_with_its_bank_as_with_the_other(
    small: tuple[float, float], large: tuple[float, float], size: int
) -> None:
    """Worth as photographed and turned: neither bank may hide what the size is worth."""
    best = [
        best_rotations([trial(side, plain, 2), trial(side, rotated, 2, rotations=12)], 5)
        for side, (plain, rotated) in ((224, small), (320, large))
    ]
    assert best_trial(best).image_size == size


def test_what_finds_nothing_is_not_chosen_for_its_auroc() -> None:
    blind, rotated = Trial(448, (16,), 1, 0.93, 0.05, 8), Trial(448, (16,), 12, 0.92, 0.7, 8)
    assert best_rotations([blind, rotated], 5) == rotated
    assert best_trial([trial(224, 0.8, 2), blind]).image_size == 224


def test_sizes_beyond_the_photographs_are_not_tried(cli: Cli, tmp_path: Path) -> None:
    shots = arrows(tmp_path / "shots", [0, 60])
    found = chosen(cli, shots, tmp_path / "part", "--rotations", "1")
    sizes = [one["image_size"] for one in found["trials"]]  # type: ignore[attr-defined]
    assert sizes == [224]  # more already than the shots' 96, but one must be
    assert sizes_held([224, 320, 448, 640], [(640, 480), (640, 480), (200, 200)]) == [224, 320, 448]


@pytest.mark.parametrize(
    ("score", "spread"), [("patch", PRIOR_STD * (224 / 288) ** 0.5), ("image", PRIOR_STD)]
)
def test_a_size_that_is_asked_for_is_taken_whatever_the_photographs(
    cli: Cli, tmp_path: Path, score: str, std: float
) -> None:
    shots = arrows(tmp_path / "shots", [0, 60])
    asked = ("--rotations", "1", "--image-size", "288", "--score", score)
    assert chosen(cli, shots, tmp_path / "part", *asked)["image_size"] == 288
    # Patch scores of so many patches differ less from one part to the next.
    assert read_manifest(tmp_path / "part").threshold.prior_std == pytest.approx(std)


def test_stride_eight_comes_where_it_costs_less_than_more_pixels() -> None:
    assert candidates([224, 320, 448, 640], None, [8, 16, 32]) == [
        (224, 224, [16]),
        (320, 320, [16]),
        (448, 448, [16]),
        (448, 448, [8, 16]),
        (640, 640, [16]),
    ]
    assert candidates([224, 640], [8, 16], [8, 16]) == [(224, 224, [8, 16])]
    assert candidates([640], [8, 16], [8, 16]) == [(640, 640, [8, 16])]  # asked for
    assert candidates([224], None, [8, 16, 32]) == [(224, 224, [16])]
    assert candidates([224, 320], None, [16]) == [(224, 224, [16]), (320, 320, [16])]


@pytest.mark.parametrize(("shots", "rows"), [(1, 1000), (5, 1000), (8, 1600), (50, 2000)])
def test_more_shots_get_a_larger_bank(shots: int, rows: int) -> None:
    assert bank_size_for(shots) == rows
