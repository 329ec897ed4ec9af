"""Masks: every way of writing one is read as the same defect, or is refused before the scoring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import fsad_edge
from fsad_edge import InputError
from fsad_edge.evaluation import Mask, read_dataset
from fsad_edge.evaluation.mask_pixels import read_defect
from fsad_edge.options import MaskMeaning
from tests.conftest import Cli, Job, photograph

Pixels = NDArray[np.bool_]
SHAPE = (40, 48)


def spot() -> Pixels:
    """A defect that is neither in the middle nor symmetric."""
    defect = np.zeros(SHAPE, dtype=bool)
    defect[5:25, 9:32] = True
    return defect


def palette(defect: Pixels, *colours: tuple[int, int, int]) -> Image.Image:
    """A palette image of the background's colour and the defect's."""
    image = Image.frombytes("P", defect.shape[::-1], defect.astype(np.uint8).tobytes())
    image.putpalette([value for colour in colours for value in colour])
    return image


def painted(defect: Pixels, background: tuple[int, ...], colour: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(defect[..., None], colour, background).astype(np.uint8))


def classes(defect: Pixels, low: int, high: int, kind: type[np.generic]) -> Image.Image:
    """The upper half of the defect has another number than the lower half."""
    numbers = defect.astype(kind) * np.asarray(low, dtype=kind)
    numbers[SHAPE[0] // 2 :] = defect[SHAPE[0] // 2 :] * np.asarray(high, dtype=kind)
    return Image.fromarray(numbers)


#: How a mask is written, by the suffix of the file and what it is.
WRITTEN: dict[str, Callable[[Pixels], Image.Image]] = {
    "1.png": lambda m: Image.fromarray(m),
    "1.bmp": lambda m: Image.fromarray(m),
    "0_1.png": lambda m: Image.fromarray(m.astype(np.uint8)),
    "0_255.PNG": lambda m: Image.fromarray(m.astype(np.uint8) * np.uint8(255)),
    "0_1_16_bit.png": lambda m: Image.fromarray(m.astype(np.uint16)),
    "0_255_16_bit.tif": lambda m: Image.fromarray(m.astype(np.uint16) * np.uint16(255)),
    "0_65535.png": lambda m: Image.fromarray(m.astype(np.uint16) * np.uint16(65535)),
    "int32.tif": lambda m: Image.fromarray(m.astype(np.int32)),
    "float.tiff": lambda m: Image.fromarray(m.astype(np.float32)),
    "classes.png": lambda m: classes(m, 1, 4, np.uint8),
    "classes_16_bit.png": lambda m: classes(m, 1, 4, np.uint16),
    "grey_rgb.bmp": lambda m: painted(m, (0, 0, 0), (200, 200, 200)),
    "red_on_black.png": lambda m: painted(m, (0, 0, 0), (128, 0, 0)),
    "red_on_white.bmp": lambda m: painted(m, (255, 255, 255), (200, 0, 0)),
    "palette.png": lambda m: palette(m, (0, 0, 0), (128, 0, 0)),
    "palette_white.gif": lambda m: palette(m, (255, 255, 255), (255, 0, 0)),
    "palette_green.png": lambda m: palette(m, (0, 200, 0), (200, 0, 0)),
    "palette_unset.png": lambda m: palette(m, (0, 0, 0), (0, 0, 0)),
    "rgba.png": lambda m: painted(m, (0, 0, 0, 0), (255, 255, 255, 255)),
    "rgba_black_paint.png": lambda m: painted(m, (255, 255, 255, 0), (0, 0, 0, 255)),
    "rgba_opaque.png": lambda m: painted(m, (0, 0, 0, 255), (255, 0, 0, 255)),
    "la.png": lambda m: painted(m, (0, 0), (255, 255)),
    "rgba_alpha_0.png": lambda m: painted(m, (0, 0, 0, 0), (255, 255, 255, 0)),
}
#: The same with a black defect on white.
INVERTED: dict[str, Callable[[Pixels], Image.Image]] = {
    "1.png": lambda m: Image.fromarray(~m),
    "grey.png": lambda m: Image.fromarray((~m).astype(np.uint8) * np.uint8(255)),
    "0_1_16_bit.png": lambda m: Image.fromarray((~m).astype(np.uint16)),
    "palette.png": lambda m: palette(m, (255, 255, 255), (0, 0, 0)),
    "rgba.png": lambda m: painted(m, (255, 255, 255, 255), (0, 0, 0, 255)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of the size of the masks."""
    folder = tmp_path_factory.mktemp("masks")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(90, 130, (*SHAPE, 3), dtype=np.uint8)).save(folder / "image.png")
    return folder


def saved(place: Path, name: str, pixels: NDArray[Any]) -> Path:
    Image.fromarray(pixels).save(place / name)
    return place / name


def read(place: Path, name: str, image: Image.Image, *meanings: MaskMeaning) -> Pixels:
    path = place / name
    image.save(path)
    return Mask((path,), place / "image.png", frozenset(meanings)).read()


@given(hnp.arrays(np.bool_, SHAPE))
@settings(deadline=None, max_examples=10)
def test_the_way_a_mask_is_written_does_not_change_what_it_marks(
    place: Path, defect: Pixels
) -> None:
    defect[0, 0], defect[-1, -1] = False, True
    for name, write in WRITTEN.items():
        found = read(place, name, write(defect))
        np.testing.assert_array_equal(found, defect, err_msg=name)
    for name, write in INVERTED.items():
        found = read(place, name, write(defect), MaskMeaning.INVERTED)
        np.testing.assert_array_equal(found, defect, err_msg=f"inverted {name}")


@given(
    st.lists(st.integers(1, 255), min_size=2, max_size=6, unique=True),
    st.sampled_from([np.uint8, np.uint16]),
)
@settings(deadline=None, max_examples=20)
def test_every_class_is_a_defect(
    place: Path, numbers: list[int], kind: type[np.unsignedinteger[Any]]
) -> None:
    marks = np.zeros(SHAPE, dtype=kind)
    for index, number in enumerate(numbers):
        marks[2 + 6 * index : 4 + 6 * index, 5:20] = number
    np.testing.assert_array_equal(read(place, "c.png", Image.fromarray(marks)), marks > 0)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("stored", ["as it is", "as PNG later", "in colour", "inverted"])
def test_the_noise_of_jpeg_is_no_defect(place: Path, quality: int, stored: str) -> None:
    defect = spot()
    image = Image.fromarray((defect ^ (stored == "inverted")).astype(np.uint8) * np.uint8(255))
    if stored == "in colour":
        image = painted(defect, (0, 0, 0), (255, 0, 0))
    image.save(place / "noise.jpg", quality=quality)
    meanings = [MaskMeaning.INVERTED] if stored == "inverted" else []
    with Image.open(place / "noise.jpg") as noisy:
        name = "noise.png" if stored == "as PNG later" else "again.jpg"
        found = read(place, name, noisy.copy(), *meanings)
    assert found[8:22, 12:29].all()
    grown = Image.fromarray(defect).convert("L").filter(ImageFilter.MaxFilter(5))
    assert not found[np.asarray(grown) == 0].any()


def test_soft_edges_end_where_they_are_half_as_bright(place: Path) -> None:
    hard = Image.fromarray(spot().astype(np.uint8) * np.uint8(255))
    soft = np.asarray(hard.filter(ImageFilter.GaussianBlur(1.5)))
    found = read(place, "soft.png", Image.fromarray(soft))
    np.testing.assert_array_equal(found, soft >= 128)
    few = np.asarray(hard).copy()
    few[25, 9:32] = 60
    np.testing.assert_array_equal(read(place, "few.png", Image.fromarray(few)), spot())


@pytest.mark.parametrize("step", [1, 4, 1000])
def test_every_instance_is_a_defect_however_many_there_are(place: Path, step: int) -> None:
    marks = np.zeros(SHAPE, dtype=np.uint16 if step > 4 else np.uint8)
    for index in range(60):
        row, column = divmod(index, 10)
        marks[6 * row + 1 : 6 * row + 4, 4 * column + 1 : 4 * column + 4] = (index + 1) * step
    np.testing.assert_array_equal(read(place, "n.png", Image.fromarray(marks)), marks > 0)


@pytest.mark.parametrize("value", [1, 20, 100])
@pytest.mark.parametrize("place_of_faint", ["apart", "near", "touching"])
def test_a_faint_region_of_its_own_is_no_soft_edge(
    place: Path, value: int, place_of_faint: str
) -> None:
    marks = np.zeros((200, 200), dtype=np.uint8)
    marks[20:80, 20:80] = 255
    marks = np.array(Image.fromarray(marks).filter(ImageFilter.GaussianBlur(1.5)))
    top = {"apart": 150, "near": 92, "touching": 80}[place_of_faint]
    faint = marks.copy()
    faint[top : top + 20, 20:70] = value
    found = read_defect(saved(place, "soft.png", faint))
    if (value, place_of_faint) != (1, "touching"):
        assert found[top + 4 : top + 20, 24:66].all()
    assert (found & (faint == marks) == (marks >= 128) & (faint == marks)).mean() > 0.999
    for suffix in ("jpg", "webp"):
        if value > 1:
            with pytest.raises(InputError, match="shades that are neither"):
                read_defect(saved(place, f"soft.{suffix}", faint))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("classes as JPEG", "almost black"),
        ("grey and white as JPEG", "shades that are neither"),
        ("shades", "shades that are neither"),
        ("colours", "no black or white background, like a photograph"),
    ],
)
def test_what_can_be_misread_is_refused(place: Path, kind: str, said: str) -> None:
    two = np.zeros(SHAPE, dtype=np.uint8)
    two[5:15, 5:15], two[25:35, 25:35] = 80, 255
    ramp = np.tile(np.linspace(0, 255, SHAPE[1]).astype(np.uint8), (SHAPE[0], 1))
    image = {
        "classes as JPEG": classes(spot(), 1, 4, np.uint8),
        "grey and white as JPEG": Image.fromarray(two),
        "shades": Image.fromarray(ramp),
        "colours": photograph(np.random.default_rng(0)).resize(SHAPE[::-1]),
    }[kind]
    with pytest.raises(InputError, match=said):
        read(place, "odd.jpg", image)


def test_what_pillow_reads_in_part_is_refused(place: Path) -> None:
    first = painted(spot(), (0, 0, 0), (255, 0, 0))
    first.save(place / "pages.tif", save_all=True, append_images=[first])
    (place / "broken.png").write_bytes(b"no image")
    opaque = painted(spot(), (0, 0, 0, 255), (255, 255, 255, 255))
    opaque.putpixel((0, 0), (0, 0, 0, 0))
    opaque.save(place / "both.png")
    image = place / "image.png"
    for name, said in (("pages", "2 pages"), ("broken", "cannot be read"), ("both", "two ways")):
        file = next(place.glob(f"{name}.*"))
        with pytest.raises(InputError, match=said):
            Mask((file,), image).read()


def dataset(folder: Path, mask: Image.Image, image: Image.Image | None = None, **save: Any) -> Path:
    """A dataset of a good image and a scratched one with a mask."""
    for kind in ("test/good", "test/scratch", "ground_truth/scratch"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    photograph(rng).save(folder / "test/good/0.jpg")
    (image or photograph(rng, defect=True)).save(folder / "test/scratch/7.jpg", **save)
    mask.save(folder / "ground_truth/scratch/7_mask.png")
    return folder


def block(height: int, width: int, *box: int) -> Image.Image:
    marks = np.zeros((height, width), dtype=np.uint8)
    top, bottom, left, right = box or (4, 20, 6, 40)
    marks[top:bottom, left:right] = 255
    return Image.fromarray(marks)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((80, 120), "80x120 pixels and its image .*120x80: height and width are exchanged"),
        ((130, 90), "120x80: it was padded, cropped or stretched"),
        ((60, 40), "120x80: .*--masks scaled"),
        ((240, 160), "--masks scaled"),
    ],
)
def test_a_mask_of_another_size_is_refused_before_the_model_is_loaded(
    tmp_path: Path, size: tuple[int, int], said: str
) -> None:
    image = photograph(np.random.default_rng(0)).resize((120, 80))
    width, height = size
    folder = dataset(tmp_path / "set", block(height, width), image)
    (tmp_path / "no_model.onnx").touch()
    with pytest.raises(InputError, match=f"7_mask.png has .*7.jpg has {said}|{said}") as refused:
        fsad_edge.evaluate(tmp_path / "no_model.onnx", folder)
    assert "7_mask.png" in str(refused.value)
    assert "7.jpg" in str(refused.value)


def test_a_mask_fits_the_image_as_exif_turns_it(tmp_path: Path) -> None:
    image = photograph(np.random.default_rng(0)).resize((120, 80))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = dataset(tmp_path / "stored", block(80, 120), image, exif=exif)
    with pytest.raises(InputError, match="fits the image as stored"):
        read_dataset(stored)
    turned = read_dataset(dataset(tmp_path / "turned", block(120, 80), image, exif=exif))
    assert turned.turned_masks == (turned.samples[1].path,)
    assert turned.samples[1].mask is not None
    assert turned.samples[1].mask.read().shape == (120, 80)


def test_a_smaller_mask_is_resized_if_that_is_meant(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", block(48, 48, 4, 20, 6, 40))
    found = read_dataset(folder, masks=["scaled"])
    assert found.scaled_masks == (folder / "test/scratch/7.jpg",)
    assert found.samples[1].mask is not None
    expected = np.asarray(block(96, 96, 8, 40, 12, 80)) > 0
    np.testing.assert_array_equal(found.samples[1].mask.read(), expected)


def test_a_mask_of_most_of_the_image_is_asked_for(cli: Cli, job: Job, tmp_path: Path) -> None:
    inverted = Image.fromarray(255 - np.asarray(block(96, 96)))
    folder = dataset(tmp_path / "set", inverted)
    command = ["eval", job.file, folder, "--report", tmp_path / "report.png", "--json", "--force"]
    refused = cli(*command)
    assert refused.code == 2
    assert "marks 94% of its image" in refused.err
    assert "--masks inverted" in refused.err
    for meaning in ("inverted", "large"):
        meant = cli(*command, "--masks", meaning)
        assert meant.code == 0, meant.err
        assert meant.json["n_masked"] == 1


def test_several_refused_masks_are_counted(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "set", block(50, 96))
    photograph(np.random.default_rng(1)).save(folder / "test/scratch/8.jpg")
    block(40, 96).save(folder / "ground_truth/scratch/8.png")
    with pytest.raises(InputError, match=r"2 of 2 masks cannot be used; the first: .*7_mask"):
        read_dataset(folder)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_photograph_itself_is_no_mask(tmp_path: Path, mode: str) -> None:
    image = photograph(np.random.default_rng(5), defect=True)
    folder = dataset(tmp_path / "set", image.convert(mode), image, quality=95)
    with pytest.raises(InputError, match=r"7_mask.png .*(photograph|shows the same)"):
        read_dataset(folder)


@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_photograph_of_few_shades_is_no_mask(tmp_path: Path, levels: int, inverted: bool) -> None:
    rng = np.random.default_rng(5)
    shade = np.clip(np.hypot(*np.mgrid[-48:48, -48:48]) * 4 + rng.normal(0, 20, (96, 96)), 0, 255)
    image = Image.fromarray(shade.astype(np.uint8))
    few = (255 - shade if inverted else shade * 0.9).astype(np.uint8) // (256 // levels)
    mask = Image.fromarray(few * np.uint8(255 // (levels - 1)))
    with pytest.raises(InputError, match="shows the same as its image"):
        read_dataset(dataset(tmp_path / "set", mask, image), masks=["large"])


def test_a_mask_may_look_like_a_bright_defect_on_black(tmp_path: Path) -> None:
    mask = block(96, 96)
    noise = np.random.default_rng(0).integers(0, 12, (96, 96), dtype=np.uint8)
    image = Image.fromarray(np.maximum(noise, np.asarray(mask) // 2 + noise))
    folder = dataset(tmp_path / "set", mask, image)
    Image.fromarray(noise).save(folder / "test/good/0.jpg")
    assert read_dataset(folder).samples[1].mask is not None
