"""Labelled images in the layouts of MVTec AD, LOCO and VisA, and in a folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fsad_edge.errors import InputError
from fsad_edge.evaluation import read_dataset
from fsad_edge.evaluation.masks import image_size
from fsad_edge.runtime.own_pictures import marked


def put(path: Path, pixels: NDArray[Any] | None = None) -> Path:
    """An image that is no mask: it has many shades."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = np.arange(480, dtype=np.uint16).reshape(20, 24)
    Image.fromarray((shades % 200).astype(np.uint8) if pixels is None else pixels).save(path)
    return path


def put_mask(path: Path, left: int = 4) -> Path:
    marks = np.zeros((20, 24), dtype=np.uint8)
    marks[3:8, left : left + 4] = 255
    return put(path, marks)


def masks_of(folder: Path) -> dict[str, str | None]:
    """The mask of each image with a defect, by names below the folder."""
    return {
        str(sample.path.relative_to(folder)): (
            "+".join(str(file.relative_to(folder)) for file in sample.mask.files)
            if sample.mask
            else None
        )
        for sample in read_dataset(folder).samples
        if sample.defect
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "part"
    for name in ("test/good/000.png", "test/good/001.PNG", "test/dent/000.png"):
        put(root / name)
    for name in ("000.jpg", "001.jpg", "002.jpg"):
        put(root / "test/scratch" / name)
    put_mask(root / "ground_truth/scratch/000_mask.png")
    put_mask(root / "ground_truth/scratch/001.png")
    put(root / "train/good/000.png")
    return root


@pytest.mark.parametrize("inside", ["", "test"])
def test_the_dataset_or_its_test_folder_is_read(dataset: Path, inside: str) -> None:
    found = read_dataset(dataset / inside)
    assert [
        (str(sample.path.relative_to(dataset / "test")), sample.defect) for sample in found.samples
    ] == [
        ("good/000.png", None),
        ("good/001.PNG", None),
        ("dent/000.png", "dent"),
        ("scratch/000.jpg", "scratch"),
        ("scratch/001.jpg", "scratch"),
        ("scratch/002.jpg", "scratch"),
    ]
    assert masks_of(dataset)["test/scratch/000.jpg"] == "ground_truth/scratch/000_mask.png"
    assert masks_of(dataset)["test/scratch/001.jpg"] == "ground_truth/scratch/001.png"
    assert masks_of(dataset)["test/scratch/002.jpg"] is None
    assert "2 of 4 images with a defect had a mask." in found.notes()


@pytest.mark.parametrize(
    "mask",
    [
        *("7.png", "7_mask.png", "7_gt.png", "7_groundtruth.bmp", "7-ground_truth.png"),
        *("7_MASK.PNG", "7_label.tif", "7.bmp", "7_mask.tiff", "7.gif"),
        *("7_segmentation.png", "mask_7.png", "7.jpg.png", "7_bw.png", "7_annotation_m.png"),
    ],
)
@pytest.mark.parametrize("folder", ["ground_truth/scratch", "masks/Scratch", "mask", "GT/scratch"])
def test_masks_are_found_under_the_names_that_are_used(
    tmp_path: Path, folder: str, mask: str
) -> None:
    put(tmp_path / "test/good/7.jpg")
    put(tmp_path / "test/scratch/7.JPG")
    put_mask(tmp_path / folder / mask)
    assert masks_of(tmp_path) == {"test/scratch/7.JPG": f"{folder}/{mask}"}


@pytest.mark.parametrize(
    "mask",
    [
        *("7_mask.png", "masks/7.png", "ground_truth/7_gt.bmp", "labels/7.png"),
        *("Label/7_m.png", "annotations/7.jpg.png", "masks_png/7.png", "7_labels.png"),
        *("7.jpg.png", "7-drawn.bmp", "mask_7.png", "7_m.jpg"),
    ],
)
def test_masks_beside_their_images_are_no_images(tmp_path: Path, mask: str) -> None:
    put(tmp_path / "good/7.jpg")
    put(tmp_path / "scratch/7.jpg")
    put_mask(tmp_path / "scratch" / mask)
    assert masks_of(tmp_path) == {"scratch/7.jpg": f"scratch/{mask}"}


@pytest.mark.parametrize("folder", ["labels", "annotations", "Segmentation", "masks_png", "gt_bw"])
def test_a_folder_named_nearly_as_one_of_masks_is_known_by_its_images(
    tmp_path: Path, folder: str
) -> None:
    put(tmp_path / "good/6.jpg")
    put(tmp_path / "scratch/7.jpg")
    put_mask(tmp_path / folder / "scratch/7.png")
    put(tmp_path / folder / "good/6.png", np.zeros((20, 24), dtype=np.uint8))
    assert masks_of(tmp_path) == {"scratch/7.jpg": f"{folder}/scratch/7.png"}
    put(tmp_path / "label_torn/7.jpg")
    put(tmp_path / "scratch/label_front/8.jpg")
    kinds = ["label_torn", "scratch", "scratch"]
    assert [sample.defect for sample in read_dataset(tmp_path).samples[1:]] == kinds


@pytest.mark.parametrize("odd", ["scratch/m07.png", "scratch/drawn/7.png", "drawn/7.jpg"])
def test_a_mask_among_photographs_is_refused_unless_photographs_look_like_it(
    tmp_path: Path, odd: str
) -> None:
    put(tmp_path / "good/6.jpg")
    put(tmp_path / "scratch/7.jpg")
    put_mask(tmp_path / odd)
    with pytest.raises(InputError, match=f"{odd} looks like a mask, and not like the photographs"):
        read_dataset(tmp_path)
    put_mask(tmp_path / "good/6.jpg", left=9)  # a part before a lamp, for example
    assert tmp_path / odd in [sample.path for sample in read_dataset(tmp_path).samples]


def test_a_folder_of_own_pictures_is_counted_and_no_kind(dataset: Path) -> None:
    for name in ("scratch/000.heatmap.png", "001.heatmap.png"):
        path = dataset / "test/maps" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20)).save(path, **marked("PNG"))
    assert "2 skipped: 2 were made by fsad-edge." in read_dataset(dataset).notes()
    put(dataset / "test/maps/000.png")
    assert "maps" in {sample.defect for sample in read_dataset(dataset).samples}


def test_the_layout_of_mvtec_ad_2_is_read(tmp_path: Path) -> None:
    for name in ("good/000_regular.png", "bad/000_regular.png"):
        put(tmp_path / "test_public" / name)
    (tmp_path / "test_private").mkdir()
    mask = put_mask(tmp_path / "test_public/ground_truth/bad/000_regular_mask.png")
    expected = {"test_public/bad/000_regular.png": str(mask.relative_to(tmp_path))}
    assert masks_of(tmp_path) == expected
    assert len(read_dataset(tmp_path / "test_public").samples) == 2


def test_the_masks_of_loco_are_joined(tmp_path: Path) -> None:
    put(tmp_path / "test/good/000.png")
    put(tmp_path / "test/logical_anomalies/000.png")
    nested = tmp_path / "ground_truth/logical_anomalies/000"
    for index in range(2):
        put_mask(nested / f"00{index}.png", left=4 + 10 * index)
    mask = read_dataset(tmp_path).samples[1].mask
    assert mask is not None
    assert [file.name for file in mask.files] == ["000.png", "001.png"]
    expected = np.zeros((20, 24), dtype=bool)
    expected[3:8, 4:8] = expected[3:8, 14:18] = True
    np.testing.assert_array_equal(mask.read(), expected)


@pytest.mark.parametrize("given", ["", "Data"])
def test_the_layout_of_visa_is_read(tmp_path: Path, given: str) -> None:
    put(tmp_path / "Data/Images/Normal/0000.JPG")
    put(tmp_path / "Data/Images/Anomaly/000.JPG")
    mask = put_mask(tmp_path / "Data/Masks/Anomaly/000.png")
    (tmp_path / "image_anno.csv").write_text("image,label,mask\n")
    found = read_dataset(tmp_path / given)
    assert [sample.defect for sample in found.samples] == [None, "Anomaly"]
    assert found.samples[1].mask is not None
    assert found.samples[1].mask.files == (mask,)


@pytest.mark.parametrize("good", ["good", "OK", "normal", "Normal", "defect_free"])
@pytest.mark.parametrize("test", ["", "test", "Test"])
def test_a_folder_for_each_class_is_read(tmp_path: Path, test: str, good: str) -> None:
    put(tmp_path / test / good / "0.png")
    put(tmp_path / test / "NG/0.png")
    put(tmp_path / "train" / good / "0.png")
    if not test:
        put(tmp_path / "test/unsorted.png")  # without good images, it is no kind of defect either
    mask = put_mask(tmp_path / "ground_truth/ng/0.bmp")
    found = read_dataset(tmp_path)
    assert [sample.defect for sample in found.samples] == [None, "NG"]
    assert found.samples[1].mask is not None
    assert found.samples[1].mask.files == (mask,)
    where = f"{test}/" if test else ""
    assert f"Read as: good images from {where}{good}, defects from {where}NG, " in found.notes()[0]


def test_what_is_not_used_is_named(dataset: Path) -> None:
    put(dataset / "test/overview.png")
    put(dataset / "test/scratch/003.jpg", np.full((20, 24), 90, dtype=np.uint8))
    put(dataset / "ground_truth/scratch/003.png", np.zeros((20, 24), dtype=np.uint8))
    put_mask(dataset / "ground_truth/scratch/044.png")
    put_mask(dataset / "ground_truth/stain/000.png")
    (dataset / "test/good/x.heic").write_bytes(b"")
    put(dataset / "test/good/.thumb.png")
    (dataset / "test/readme.txt").write_text("no image")
    found = read_dataset(dataset)
    assert len(found.samples) == 7
    assert found.samples[-1].mask is None
    text = " ".join(found.notes())
    assert "2 of 5 images with a defect had a mask." in text
    assert "mask is empty, which counts as none: 1 (test/scratch/003.jpg)" in text
    unmatched = "(ground_truth/scratch/044.png, ground_truth/stain/000.png)"
    assert f"Masks that belong to no image: 2 {unmatched}" in text
    assert "not scored: 1 (test/overview.png)" in text
    assert "3 skipped: 1 .heic is not read, 1 is hidden, 1 .txt is not an image" in text


def test_masks_and_labels_that_are_not_clear_are_refused(dataset: Path) -> None:
    second = put_mask(dataset / "ground_truth/scratch/001_mask.png")
    with pytest.raises(InputError, match=r"001.jpg has two masks, .*001.png and .*001_mask.png"):
        read_dataset(dataset)
    second.unlink()
    twin = put(dataset / "test/scratch/001.bmp")
    with pytest.raises(InputError, match=r"001.png could belong to .*001.bmp or to .*001.jpg"):
        read_dataset(dataset)
    twin.unlink()
    good = put_mask(dataset / "ground_truth/good/000.png")
    with pytest.raises(InputError, match=r"good/000.png is among the good images, but its mask"):
        read_dataset(dataset)
    put(good, np.zeros((20, 24), dtype=np.uint8))
    beside = put_mask(dataset / "test/dent/000.bmp")
    with pytest.raises(InputError, match=r"000.bmp looks like the mask of 000.png beside it"):
        read_dataset(dataset)
    beside.unlink()
    put(dataset / "test/ok/0.png")
    with pytest.raises(InputError, match=r"has the folders good and ok, of which one"):
        read_dataset(dataset)


def test_a_dataset_without_defects_is_accepted(tmp_path: Path) -> None:
    put(tmp_path / "test/good/0.png")
    assert len(read_dataset(tmp_path).samples) == 1


def test_errors_name_the_folder_and_the_cause(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is not a folder"):
        read_dataset(dataset / "test/good/000.png")
    with pytest.raises(InputError, match="no folder test/good"):
        read_dataset(dataset / "ground_truth")
    with pytest.raises(InputError, match="holds the datasets part: give one of them"):
        read_dataset(tmp_path)
    (dataset / "test/bent").mkdir()
    with pytest.raises(InputError, match=r"bent holds no image"):
        read_dataset(dataset)
    (tmp_path / "empty/test/good").mkdir(parents=True)
    with pytest.raises(InputError, match=r"good holds no image"):
        read_dataset(tmp_path / "empty")


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
