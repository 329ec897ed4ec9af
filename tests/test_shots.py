"""Shots are looked at as a set: copies, exposures of one part, an odd one, bad photographs."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFilter

import fsad_edge
from benchmarks.rendered_parts import render
from fsad_edge import FinetuneOptions, InputError
from fsad_edge.distributed.parts import PartJob, PartState, make_part
from fsad_edge.pipeline.check_shots import CheckedShots, check_shots
from fsad_edge.runtime.metadata import ShotProblem
from tests.commands import all_files, assert_refused
from tests.conftest import SIZE, Cli, Outcome, photograph

Start = Callable[..., Outcome]


@functools.cache
def rendered(part: str, number: int) -> Image.Image:
    """A good part; the same number is the same part."""
    return Image.fromarray(render(part, (0, number), size=240).image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five different brackets."""
    place = tmp_path / "shots"
    place.mkdir()
    for number in range(5):
        rendered("bracket", number).save(place / f"{number}.png")
    return place


@pytest.fixture
def start(cli: Cli, backbones: dict[str, str], tmp_path: Path) -> Start:
    """Fine-tune a folder with the smallest model."""

    def run(folder: Path, *options: str) -> Outcome:
        small = ("--image-size", SIZE, "--rotations", 1, "--epochs", 0)
        asked = ("-o", tmp_path / "part", "--backbone", backbones["conv"], *small, *options)
        return cli("finetune", folder, *asked)

    return run


def checked(folder: Path, **options: bool) -> CheckedShots:
    return check_shots(sorted(folder.iterdir()), FinetuneOptions(**options))  # type: ignore[arg-type]


def found(shots: CheckedShots, problem: ShotProblem) -> list[str]:
    """The files of the findings of one kind."""
    return [name for one in shots.findings if one.problem is problem for name in one.files]


def exposures(image: Image.Image, folder: Path, count: int = 5) -> None:
    """Photographs of one part in one place: moved, relit, noisy, compressed."""
    rng = np.random.default_rng(4)
    pixels = np.asarray(image).astype(np.float32)
    for number in range(count):
        moved = np.roll(pixels, rng.integers(-2, 3, 2), (0, 1))
        again = moved * rng.uniform(0.97, 1.03) + rng.normal(0, 2, pixels.shape)
        exposed = Image.fromarray(again.clip(0, 255).astype(np.uint8))
        exposed.save(folder / f"exposure{number}.jpg", quality=int(rng.integers(80, 95)))


def test_exposures_of_one_part_are_one_shot_and_promise_no_rate(
    start: Start, cli: Cli, tmp_path: Path
) -> None:
    shots, part = tmp_path / "shots", tmp_path / "part"
    shots.mkdir()
    exposures(rendered("bracket", 0), shots)
    done = start(shots, "--json")
    assert done.code == 0, done.err
    made = done.json
    assert (made["shots"], made["left_out"], made["rate_promised"]) == (1, 4, False)
    assert "near-identical" in done.err
    assert "only 1 of 5 shots is distinct" in done.err
    assert cli("export", part).code == 0
    for place in (part, tmp_path / "part.onnx"):
        text = cli("info", place).out
        assert "asked for, not promised" in text
        assert "1, and 4 left out that show the same" in text
        assert "near-identical, as photographs of one part" in " ".join(text.split())
    assert cli("info", tmp_path / "part.onnx", "--json").json["threshold"]["rate_promised"] is False


def test_copies_in_other_formats_are_named_and_do_not_count(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    photo = Image.open(folder / "0.png")
    photo.save(folder / "encoded.jpg", quality=85)
    photo.resize((180, 180)).save(folder / "smaller.webp")
    photo.rotate(90, expand=True).save(folder / "turned.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo.rotate(90, expand=True).save(folder / "rotated.jpg", exif=exif, quality=95)
    shutil.copy(folder / "1.png", folder / "same.png")
    done = start(folder, "--json")
    assert done.code == 0, done.err
    assert (done.json["shots"], done.json["rate_promised"]) == (5, True)
    duplicates = [one for one in done.json["findings"] if one["problem"] == "duplicate"]
    assert duplicates[0]["files"] == ["encoded.jpg", "rotated.jpg", "smaller.webp", "turned.png"]
    assert "the same photograph as 0.png" in done.err
    assert "same.png is the same file as 1.png" in done.err


def test_another_part_and_a_broken_one_are_refused_by_name_with_both_cures(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    rendered("wood", 1).save(folder / "wood.png")
    before = all_files(tmp_path)
    done = cli("finetune", folder, "-o", tmp_path / "part")
    assert_refused(done, "--keep-outliers")
    text = " ".join(done.err.split())
    assert "wood.png (distance 0." in text
    assert "of the others at most 0." in text
    assert "take it out of the folder" in text
    assert all_files(tmp_path) == before
    (folder / "wood.png").unlink()
    assert not found(checked(folder), ShotProblem.OUTLIER)

    plates = tmp_path / "plates"
    plates.mkdir()
    rng = np.random.default_rng(9)
    for name in ("0", "1", "2", "3", "broken"):
        photograph(rng, defect=name == "broken").save(plates / f"{name}.png")
    with pytest.raises(InputError, match=r"broken\.png"):
        fsad_edge.finetune(plates, tmp_path / "part")
    row, _ = make_part(PartJob(plates, tmp_path / "part", FinetuneOptions(), False))
    assert row.state is PartState.FAILED
    assert "broken.png" in (row.error or "")


def test_two_of_another_part_among_five_are_both_refused(folder: Path) -> None:
    for number in (3, 4):
        (folder / f"{number}.png").unlink()
        rendered("print", number).save(folder / f"p{number}.png")
    with pytest.raises(InputError, match=r"p3\.png .* and p4\.png .* unlike .* take them out"):
        checked(folder)


def test_an_outlier_that_is_kept_takes_the_promise_with_it(
    start: Start, cli: Cli, folder: Path, tmp_path: Path
) -> None:
    rendered("wood", 1).save(folder / "wood.png")
    done = start(folder, "--keep-outliers", "--json")
    assert done.code == 0, done.err
    assert done.json["shots"] == 6
    assert (done.json["rate_promised"], done.json["findings"][0]["files"]) == (False, ["wood.png"])
    text = " ".join(cli("info", tmp_path / "part").out.split())
    assert "because a shot unlike the rest was kept" in text
    assert "wood.png" in text


@pytest.mark.parametrize("part", ["bracket", "wood", "print"])
def test_different_good_parts_are_neither_refused_nor_alike(part: str, tmp_path: Path) -> None:
    for number in range(5):
        rendered(part, number).save(tmp_path / f"{number}.png")
    shots = checked(tmp_path)
    assert (len(shots.kept), shots.left_out) == (5, ())


def test_two_shots_cannot_show_the_odd_one_and_that_is_said(tmp_path: Path) -> None:
    rendered("bracket", 0).save(tmp_path / "a.png")
    assert checked(tmp_path).findings == ()  # a single one is compared with nothing
    rendered("wood", 1).save(tmp_path / "b.png")
    (finding,) = [one for one in checked(tmp_path).findings if one.problem is ShotProblem.UNUSUAL]
    assert "two shots cannot show which is the odd one" in finding.text


def test_bad_photographs_and_other_sizes_are_named(folder: Path) -> None:
    with Image.open(folder / "0.png") as sharp:
        sharp.filter(ImageFilter.GaussianBlur(2)).save(folder / "0.png")
    with Image.open(folder / "1.png") as light:
        light.point(lambda level: level * 0.6).save(folder / "1.png")
    with Image.open(folder / "2.png") as square:
        square.resize((300, 240)).save(folder / "2.png")
    with Image.open(folder / "3.png") as small:
        small.resize((200, 200)).save(folder / "3.png")
    shots = checked(folder, keep_outliers=True)
    named = {problem: found(shots, problem) for problem in ShotProblem}
    assert "0.png" in named[ShotProblem.BLURRED]
    assert named[ShotProblem.DARK] == ["1.png"]
    assert named[ShotProblem.SHAPE] == ["2.png"]
    assert named[ShotProblem.SIZE] == ["3.png"]


def test_shots_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        photograph(rng).save(tmp_path / folder / "0.png")
    photograph(rng).save(tmp_path / "right/1.png")
    with Image.open(tmp_path / "right/0.png") as small:
        small.resize((48, 48)).save(tmp_path / "right/0.png")
    files = sorted(tmp_path.rglob("*.png"))
    shots = check_shots(files, FinetuneOptions(keep_outliers=True))
    assert found(shots, ShotProblem.SIZE) == ["right/0.png"]


def test_shots_that_are_all_dark_or_all_blurred_are_named(tmp_path: Path) -> None:
    for number in range(3):
        blurred = rendered("bracket", number).filter(ImageFilter.GaussianBlur(4))
        blurred.save(tmp_path / f"{number}.png")
    assert len(found(checked(tmp_path), ShotProblem.BLURRED)) == 3
    for number in range(3):
        dark = rendered("bracket", number).point(lambda level: level // 12)
        dark.save(tmp_path / f"{number}.png")
    assert len(found(checked(tmp_path), ShotProblem.DARK)) == 3


@pytest.mark.parametrize("kind", ["background", "gradient", "vignette"])
def test_an_empty_photograph_is_the_outlier_and_takes_no_part_with_it(
    kind: str, folder: Path
) -> None:
    down, across = np.mgrid[-1:1:400j, -1:1:400j]
    light = {"gradient": 60 * across + 20 * down, "vignette": -80 * np.hypot(across, down) / 2}
    if kind == "background":
        empty = rendered("bracket", 0).crop((0, 0, 24, 24)).resize((400, 400))
    else:
        empty = Image.fromarray((140 + light[kind]).astype(np.uint8))
    empty.save(folder / "empty.png")
    shots = checked(folder, keep_outliers=True)
    assert (len(shots.kept), shots.left_out) == (6, ())
    assert found(shots, ShotProblem.OUTLIER) == ["empty.png"]


def test_a_label_that_all_dark_frames_bear_does_not_make_them_one(folder: Path) -> None:
    for file in folder.iterdir():
        with Image.open(file) as photo:
            dark = photo.point(lambda level: level // 16)
        dark.paste((255, 255, 255), (10, 200, 150, 230))
        dark.save(file)
    assert len(checked(folder, keep_outliers=True).kept) == 5


def test_shots_of_one_group_are_all_near_identical_to_one_another(tmp_path: Path) -> None:
    for step in range(3):  # the first and the last are too far apart to be compared
        moved = np.roll(np.asarray(rendered("bracket", 0)), 8 * step, 1)
        Image.fromarray(moved).save(tmp_path / f"{step}.png")
    assert len(checked(tmp_path, keep_outliers=True).left_out) == 1


def test_a_shot_that_alone_raises_the_threshold_is_named_with_the_scores(
    start: Start, cli: Cli, tmp_path: Path
) -> None:
    shots, rng = tmp_path / "shots", np.random.default_rng(9)
    shots.mkdir()
    for name in ("0", "1", "2", "3", "broken"):
        photograph(rng, defect=name == "broken").save(shots / f"{name}.png")
    done = start(shots, "--keep-outliers", "--json")
    assert done.code == 0, done.err
    (high,) = [one for one in done.json["findings"] if one["problem"] == "high score"]
    info = cli("info", tmp_path / "part", "--json").json
    *others, top = info["threshold"]["scores"]
    assert high["files"] == ["broken.png"]
    assert f"broken.png scores {top:.3g} without itself" in high["text"]
    assert f"the others {others[0]:.3g} to {others[-1]:.3g}" in high["text"]
    assert "it alone raises the threshold from" in " ".join(done.err.split())
    assert high["text"] in done.json["warnings"]
    assert high in info["findings"]
    (shots / "broken.png").unlink()
    rest = start(shots, "--force", "--json").json
    assert not [one for one in rest["findings"] if one["problem"] == "high score"]


def test_more_memory_is_reserved_where_photographs_are_large(tmp_path: Path) -> None:
    folders = {}
    for side in (200, 2048):
        folders[side] = tmp_path / str(side)
        folders[side].mkdir()
        Image.new("L", (side, side)).save(folders[side] / "1.png")

    def memory(side: int, image_size: int | None = None) -> int:
        options = FinetuneOptions(image_size=image_size)
        return PartJob(folders[side], tmp_path / "part", options, False).memory

    assert memory(2048) > memory(200) == memory(2048, image_size=224)
    assert memory(200, image_size=2048) == memory(2048)


def test_many_shots_are_compared_in_part_and_the_same_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs of thousands would take hours; what is alike or odd is found all the same."""
    rendered("bracket", 0).save(folder / "copy.jpg", quality=95)
    rendered("bracket", 1).rotate(90).save(folder / "turned.png")
    for number in range(5, 8):
        rendered("bracket", number).save(folder / f"{number}.png")
    rendered("wood", 1).save(folder / "other.png")
    whole = checked(folder, keep_outliers=True)
    monkeypatch.setattr("fsad_edge.pipeline.same_photograph.MOST_PAIRED", 3)
    monkeypatch.setattr("fsad_edge.pipeline.same_photograph.LIKELY", 2)
    monkeypatch.setattr("fsad_edge.pipeline.shot_outliers.MOST_TOGETHER", 5)
    part = checked(folder, keep_outliers=True)
    for problem in (ShotProblem.DUPLICATE, ShotProblem.NEAR_IDENTICAL, ShotProblem.OUTLIER):
        assert found(part, problem) == found(whole, problem)
    assert len(found(whole, ShotProblem.DUPLICATE)) == 2
    assert found(whole, ShotProblem.OUTLIER) == ["other.png"]
