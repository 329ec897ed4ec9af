"""Datasets in the folder layout of MVTec AD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fsad_edge.errors import InputError
from fsad_edge.evaluation.dataset import Sample, image_size, load_mask, read_dataset


def put(path: Path, pixels: NDArray[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((20, 24), dtype=np.uint8) if pixels is None else pixels).save(path)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "part"
    for name in ("test/good/000.png", "test/good/001.PNG", "test/dent/000.png"):
        put(root / name)
    for name in ("000.jpg", "001.jpg", "002.jpg"):
        put(root / "test/scratch" / name)
    put(root / "ground_truth/scratch/000_mask.png")
    put(root / "ground_truth/scratch/001.png")
    put(root / "train/good/000.png")
    return root


@pytest.mark.parametrize("inside", ["", "test"])
def test_the_dataset_or_its_test_folder_is_read(dataset: Path, inside: str) -> None:
    test, masks = dataset / "test", dataset / "ground_truth/scratch"
    assert read_dataset(dataset / inside) == [
        Sample(test / "good/000.png", None),
        Sample(test / "good/001.PNG", None),
        Sample(test / "dent/000.png", "dent", None),
        Sample(test / "scratch/000.jpg", "scratch", masks / "000_mask.png"),
        Sample(test / "scratch/001.jpg", "scratch", masks / "001.png"),
        Sample(test / "scratch/002.jpg", "scratch", None),
    ]


def test_a_test_folder_of_another_name_can_hold_its_own_masks(tmp_path: Path) -> None:
    put(tmp_path / "good/0.png")
    put(tmp_path / "hole/0.png")
    mask = put(tmp_path / "ground_truth/hole/0_mask.png")
    assert [s.defect for s in read_dataset(tmp_path)] == [None, "hole"]
    assert read_dataset(tmp_path)[1].mask == mask


def test_other_and_hidden_files_are_ignored(dataset: Path) -> None:
    before = read_dataset(dataset)
    (dataset / "test/readme.txt").write_text("no image")
    (dataset / "test/.cache").mkdir()
    put(dataset / "test/good/.thumb.png")
    assert read_dataset(dataset) == before


def test_a_dataset_without_defects_is_accepted(tmp_path: Path) -> None:
    put(tmp_path / "test/good/0.png")
    assert len(read_dataset(tmp_path)) == 1


def test_errors_name_the_folder_and_the_cause(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a folder"):
        read_dataset(dataset / "test/good/000.png")
    with pytest.raises(InputError, match="no folder test/good"):
        read_dataset(dataset / "ground_truth")
    (dataset / "test/bent").mkdir()
    with pytest.raises(InputError, match=r"bent holds no image"):
        read_dataset(dataset)
    (tmp_path / "empty/test/good").mkdir(parents=True)
    with pytest.raises(InputError, match=r"good holds no image"):
        read_dataset(tmp_path / "empty")


@pytest.mark.parametrize("high", [1, 100, 255])
def test_masks_of_any_brightness_are_read(tmp_path: Path, high: int) -> None:
    expected = np.zeros((20, 24), dtype=bool)
    expected[3:8, 4:20] = True
    path = put(tmp_path / "mask.png", expected.astype(np.uint8) * np.uint8(high))
    np.testing.assert_array_equal(load_mask(path), expected)


def test_masks_of_one_bit_with_soft_edges_and_without_a_defect_are_read(tmp_path: Path) -> None:
    expected = np.zeros((20, 24), dtype=bool)
    expected[3:8, 4:20] = True
    np.testing.assert_array_equal(load_mask(put(tmp_path / "bits.png", expected)), expected)
    soft = expected.astype(np.uint8) * np.uint8(255)
    soft[8, 4:20] = 60
    np.testing.assert_array_equal(load_mask(put(tmp_path / "soft.png", soft)), expected)
    assert not load_mask(put(tmp_path / "empty.png")).any()


def test_sizes_follow_exif_rotation(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 30))
    image.save(tmp_path / "flat.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "rotated.jpg", exif=exif)
    assert image_size(tmp_path / "flat.jpg") == (30, 40)
    assert image_size(tmp_path / "rotated.jpg") == (40, 30)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        image_size(tmp_path / "broken.jpg")
