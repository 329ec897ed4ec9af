"""Rendered parts: equal seeds give equal files, in the right folders, with correct masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import rendered_parts
from benchmarks.rendered_parts import PARTS, main, render

SIZE = 96
DEFECTS = [(part, defect) for part, (_, defects) in PARTS.items() for defect in defects]


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by relative path."""
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def arguments(out: Path, *more: str) -> list[str]:
    return [str(out), "--train", "2", "--good", "1", "--bad", "1", "--size", str(SIZE), *more]


@pytest.mark.parametrize("part", sorted(PARTS))
def test_the_layout_is_right_and_the_seed_decides_the_files(tmp_path: Path, part: str) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(arguments(tmp_path / name, "--part", part, "--seed", seed)) == 0
    first = files(tmp_path / "a")
    expected = {"train/good/000.jpg", "train/good/001.jpg", "test/good/000.jpg"}
    for defect in PARTS[part][1]:
        expected |= {f"test/{defect}/000.jpg", f"ground_truth/{defect}/000_mask.png"}
    assert set(first) == expected
    assert files(tmp_path / "b") == first
    other = files(tmp_path / "c")
    assert all(other[name] != data for name, data in first.items())
    for name in first:
        with Image.open(tmp_path / "a" / name) as image:
            assert image.size == (SIZE, SIZE)
            assert image.mode == ("L" if name.startswith("ground_truth") else "RGB")
            if image.mode == "L":
                assert {value for _, value in image.getcolors() or []} == {0, 255}


@pytest.mark.parametrize(("part", "defect"), DEFECTS)
def test_the_mask_covers_the_defect(part: str, defect: str) -> None:
    for i in range(3):
        shot = render(part, (0, 1, i), defect, SIZE)
        again = render(part, (0, 1, i), "", SIZE)
        assert np.array_equal(shot.clean, again.seen)
        difference = np.abs(shot.seen - shot.clean).max(axis=-1)
        assert shot.mask.any()
        assert shot.mask.mean() < 0.5
        assert difference.max() > 0.07
        assert difference[~shot.mask].max() <= 0.04
        assert np.median(difference[shot.mask]) > 0.01


@pytest.mark.parametrize("part", sorted(PARTS))
def test_good_parts_differ(part: str) -> None:
    shots = [render(part, (0, 0, i), size=SIZE) for i in range(4)]
    assert not any(shot.mask.any() for shot in shots)
    for i, shot in enumerate(shots):
        assert shot.image.shape == (SIZE, SIZE, 3)
        assert shot.image.dtype == np.uint8
        for other in shots[:i]:
            apart = np.abs(shot.image.astype(float) - other.image.astype(float))
            assert apart.mean() > 2.0


def test_a_folder_with_files_is_replaced_only_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "notes.txt"
    keep.write_text("mine")
    stale = tmp_path / "test" / "old" / "000.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    assert main(arguments(tmp_path)) == 2
    assert "not empty" in capsys.readouterr().err
    assert stale.exists()
    assert main(arguments(tmp_path, "--force")) == 0
    assert keep.read_text() == "mine"
    assert not stale.exists()
    assert (tmp_path / "train" / "good" / "001.jpg").is_file()


def test_a_file_as_output_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.write_text("")
    assert main(arguments(out)) == 2
    assert "is a file" in capsys.readouterr().err


def test_a_size_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        rendered_parts.main([str(tmp_path / "out"), "--size", "8"])
    assert stop.value.code == 2
    assert not (tmp_path / "out").exists()
