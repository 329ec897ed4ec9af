"""The field's few-shot protocol on miniatures of MVTec AD and VisA, through the command."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.field import MVTEC_AD, VISA, mvtec_ad, visa
from benchmarks.rendered_parts import write_set

CHEAP = ("--systems", "colour")


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in the layout of MVTec AD, and files that its archive has beside them."""
    folder = tmp_path_factory.mktemp("mvtec") / "mvtec_anomaly_detection"
    for name, part in (("wood", "wood"), ("bottle", "bracket")):
        write_set(folder / name, part, seed=0, train=4, good=3, bad=1, size=96)
    (folder / "license.txt").write_text("a licence")
    return folder


@pytest.fixture(scope="module")
def visa_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in the layout of VisA: numbered masks, and the split in a file of its own."""
    folder = tmp_path_factory.mktemp("visa") / "VisA"
    lines: list[tuple[str, ...]] = [("object", "split", "label", "image", "mask")]
    for name, part in (("candle", "bracket"), ("pcb1", "print")):
        made = folder / "made"
        write_set(made, part, seed=1, train=4, good=3, bad=1, size=96)
        data = folder / name / "Data"
        for place in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
            (data / place).mkdir(parents=True)
        # As in VisA, the test images are not the last of the normal ones by name.
        normal = [*sorted(made.glob("test/good/*")), *sorted(made.glob("train/good/*"))]
        for index, image in enumerate(normal):
            target = data / f"Images/Normal/{index:04d}.JPG"
            image.rename(target)
            split = "test" if image.parent.parent.name == "test" else "train"
            lines.append((name, split, "normal", f"{target.relative_to(folder).as_posix()}", ""))
        defective = sorted(path for path in made.glob("test/*/*") if path.is_file())
        for index, image in enumerate(defective):
            target = data / f"Images/Anomaly/{index:03d}.JPG"
            mask = data / f"Masks/Anomaly/{index:03d}.png"
            drawn = made / f"ground_truth/{image.parent.name}/{image.stem}_mask.png"
            numbers = np.where(np.asarray(Image.open(drawn)) > 0, 1 + index, 0).astype(np.uint8)
            Image.fromarray(numbers).save(mask)
            image.rename(target)
            paths = [path.relative_to(folder).as_posix() for path in (target, mask)]
            lines.append((name, "test", "anomaly", *paths))
        (folder / name / "image_anno.csv").write_text("image,label,mask\n")
        shutil.rmtree(made)
    (folder / "split_csv").mkdir()
    write_split(folder, lines)
    return folder


def write_split(folder: Path, lines: list[Any]) -> None:
    with (folder / "split_csv/1cls.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def table_lines(folder: Path) -> list[str]:
    return (folder / "table.md").read_text().splitlines()


def test_shots_are_taken_in_the_order_of_their_names(mvtec: Path) -> None:
    data = {one.name: one for one in mvtec_ad(mvtec, [])}
    assert list(data) == ["MVTec AD/bottle", "MVTec AD/wood"]
    wood = data["MVTec AD/wood"]
    names = [[path.name for path in wood.draw(2, number)] for number in (0, 1)]
    assert names == [["000.jpg", "001.jpg"], ["002.jpg", "003.jpg"]]
    assert [path.name for path in wood.draw(1, 2)] == ["002.jpg"]


def test_visa_is_read_by_its_split(visa_set: Path, tmp_path: Path) -> None:
    candle, board = visa(visa_set, [], tmp_path)
    assert (candle.name, board.name) == ("VisA/candle", "VisA/pcb1")
    assert [path.name for path in candle.draw(2, 1)] == ["0005.JPG", "0006.JPG"]
    good = [sample.path.name for sample in candle.samples if sample.defect is None]
    assert good == ["0000.JPG", "0001.JPG", "0002.JPG"]
    defective = [sample for sample in candle.samples if sample.defect is not None]
    assert [sample.path.name for sample in defective] == [f"{index:03d}.JPG" for index in range(5)]
    for sample in defective:
        assert sample.mask is not None
        assert 0 < sample.mask.read().mean() < 0.5


def test_mvtec_in_one_command(
    mvtec: Path, backbones: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = f"keep_outliers=true image_size=64 rotations=1 backbone={backbones['conv']}"
    asked = ("--mvtec", mvtec, "--classes", "wood", "--options", options)
    run(*asked, "--shots", 2, "--seeds", 0, 1)
    folder = tmp_path / "accuracy_runs"
    rows = rows_of(folder)
    assert [(row["shots"], row["seed"]) for row in rows] == [(2, 0), (2, 1)]
    for row in rows:
        assert row["dataset"] == "MVTec AD/wood"
        assert 0 <= row["image_auroc"] <= 1
        assert 0 < row["pixel_auroc"] <= 1
        assert 0 <= row["aupro"] <= 1
        assert row["n_good"] == 3
        assert row["n_defective"] == 5
        assert row["missed"] + row["not_judged_defective"] <= 5
    lines = table_lines(folder)
    found = [row["image_auroc"] for row in rows]
    shown = f"| 2 | ours | {100 * np.mean(found):.1f}% ({100 * np.std(found, ddof=1):.1f}) |"
    (mean,) = [line for line in lines if line.startswith(shown)]
    assert mean.endswith("| 2 | 1 of 15 | measured here |")
    (peer,) = [line for line in lines if line.startswith("| 2 | PatchCore | 86.3% |")]
    assert peer.endswith("| 15 of 15 | WinCLIP, arXiv 2303.14814 |")
    assert not any(line.startswith("| 4 |") for line in lines)  # no such shots were run
    assert "**Not every class was run: a mean over some is no mean of the set.**" in lines


def test_visa_in_one_command(visa_set: Path, backbones: dict[str, str], tmp_path: Path) -> None:
    options = f"keep_outliers=true image_size=64 rotations=1 backbone={backbones['conv']}"
    asked = ("--visa", visa_set, "--options", options, "--shots", 1, "--seeds", 1)
    run(tmp_path, *asked)
    rows = rows_of(tmp_path)
    assert [row["dataset"] for row in rows] == ["VisA/candle", "VisA/pcb1"]
    assert all(row["pixel_auroc"] > 0 and row["aupro"] is not None for row in rows)
    lines = table_lines(tmp_path)
    assert any(line.endswith("| 1 | 2 of 12 | measured here |") for line in lines)
    assert any("no published figures of VisA" in line for line in lines)


def test_a_restart_goes_on(mvtec: Path, visa_set: Path, tmp_path: Path) -> None:
    asked = (tmp_path, "--mvtec", mvtec, "--visa", visa_set, *CHEAP, "--shots", 1, "--seeds", 0, 1)
    run(*asked)
    file = tmp_path / "runs.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    assert len(whole) == 2 * 4
    marked = [json.dumps({**json.loads(line), "mark": 1}).encode() + b"\n" for line in whole[:3]]
    file.write_bytes(b"".join(marked) + whole[3][:50])
    run(*asked)
    rows = rows_of(tmp_path)
    assert [row.get("mark") for row in rows] == [1, 1, 1, *[None] * 5]
    before = [json.loads(line) for line in whole]
    assert [row["image_auroc"] for row in rows] == [row["image_auroc"] for row in before]


def test_a_class_that_cannot_be_run_is_named_and_left_out_of_the_mean(
    mvtec: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mvtec, copy)
    (copy / "bottle/train/good/001.jpg").write_bytes(b"no image")
    run(tmp_path / "runs", "--mvtec", copy, *CHEAP, "--shots", 1, "--seeds", 0, 1)
    lines = table_lines(tmp_path / "runs")
    (mean,) = [line for line in lines if line.startswith("| 1 | colour |")]
    assert mean.endswith("| 2 | 1 of 15 | measured here |")
    (reason,) = [line for line in lines if line.startswith("- colour, bottle, 1 shots, set 1: ")]
    assert "001.jpg" in reason
    (bottle,) = [line for line in lines if line.startswith("| bottle | 1 | colour |")]
    assert bottle.endswith("| 1 |")


def test_all_classes_of_both_sets_are_known() -> None:
    assert (len(set(MVTEC_AD.classes)), len(set(VISA.classes))) == (15, 12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--mvtec", "{mvtec}/wood"], "no folder of any class of MVTec AD"),
        (["--mvtec", "{visa}"], "no folder of any class of MVTec AD"),
        (["--mvtec", "{mvtec}", "--classes", "candle"], "there is no class 'candle'"),
        (["--mvtec", "{mvtec}", "--classes", "screw"], "no folder of the class screw"),
        (["--mvtec", "{mvtec}"], "too few for set 2 of 2 shots"),  # the protocol's own numbers
        (["--mvtec", "{mvtec}", "--data", "{mvtec}/wood"], "leave out the other sets"),
        (["--mvtec", "{bare}"], "has no folder ground_truth/scratch"),
        (["--visa", "{mvtec}"], "has no split_csv/1cls.csv"),
    ],
)
def test_other_layouts_are_refused_in_one_sentence(
    mvtec: Path,
    visa_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    for place in ("train/good", "test/good", "test/scratch"):
        (tmp_path / "bare/tile" / place).mkdir(parents=True)
    places = {"{mvtec}": mvtec, "{visa}": visa_set, "{bare}": tmp_path / "bare"}
    for name, folder in places.items():
        arguments = [argument.replace(name, str(folder)) for argument in arguments]
    assert main([str(tmp_path / "out"), *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([("image", "label")], "has no column 'object'"),
        ([("candle", "test", "broken", "candle/a.JPG", "")], "line 2"),
        ([("candle", "test", "anomaly", "candle/a.JPG", "")], "line 2"),
        ([("candle", "train", "normal", "candle/a.JPG", "")], "a.JPG, which split_csv/1cls.csv"),
        ([("pcb1", "train", "normal", "pcb1/a.JPG", "")], "names no image of candle"),
    ],
)
def test_a_damaged_copy_of_visa_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[Any], sentence: str
) -> None:
    head = ("object", "split", "label", "image", "mask")
    (tmp_path / "candle/Data").mkdir(parents=True)
    (tmp_path / "split_csv").mkdir()
    write_split(tmp_path, lines if len(lines[0]) == 2 else [head, *lines])
    assert main([str(tmp_path / "out"), "--visa", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
