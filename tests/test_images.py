"""Decoding and resizing: every mode becomes RGB of its own size, by one function."""

from __future__ import annotations

import io
import json
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fsad_edge import Model, load_image
from fsad_edge.errors import ImageError, ModelFileError
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.images import (
    MAX_PIXELS,
    MIN_SIDE,
    decode,
    load_resized,
    resize,
)
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.onnx_file import read_metadata
from fsad_edge.synthesis import load_shot
from tests.conftest import Job
from tests.seals import described

UInt8 = NDArray[np.uint8]
#: Modes as Pillow writes them, each with a format that keeps it.
MODES = {
    "1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "PNG", "RGBA": "PNG", "I;16": "PNG",
    "CMYK": "JPEG", "YCbCr": "JPEG", "I": "TIFF", "F": "TIFF", "I;16B": "TIFF",
}  # fmt: skip


#: Black and white in the files of :func:`in_mode`.
SCALES = {"I": ImageScale(range=(0, 65535)), "F": ImageScale(range=(0, 255))}
SIXTEEN = ImageScale(bits=16)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def arrays(low: int = MIN_SIDE, high: int = 40) -> st.SearchStrategy[UInt8]:
    sides = st.tuples(st.integers(low, high), st.integers(low, high), st.just(3))
    return hnp.arrays(np.uint8, sides, elements=st.integers(0, 255))


def in_mode(pixels: UInt8, mode: str) -> Image.Image:
    if mode.startswith("I"):
        kind = {"I": "i4", "I;16": "u2", "I;16B": ">u2"}[mode]
        return Image.fromarray((pixels[..., 0].astype(np.int64) * 257).astype(kind))
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32))
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", sorted(MODES))
@given(arrays())
@settings(max_examples=15, deadline=None)
def test_every_mode_becomes_rgb_of_the_same_size(mode: str, pixels: UInt8) -> None:
    image = in_mode(pixels, mode)
    data = encoded(image, MODES[mode])
    with Image.open(io.BytesIO(data)) as opened:
        stored = opened.mode
    assert stored == {"YCbCr": "RGB"}.get(mode, mode)
    loaded = load_image(data, SCALES.get(mode, SIXTEEN))
    assert loaded.dtype == np.uint8
    assert loaded.shape == pixels.shape
    if mode in {"1", "L", "RGB", "P"}:
        with Image.open(io.BytesIO(data)) as opened:
            np.testing.assert_array_equal(loaded, np.asarray(opened.convert("RGB")))
    if mode.startswith("I") or mode == "F":
        np.testing.assert_array_equal(loaded, np.repeat(pixels[..., :1], 3, axis=2))


@given(hnp.arrays(np.uint16, (20, 24), elements=st.integers(0, 65535)))
@settings(max_examples=30, deadline=None)
def test_16_bit_grey_keeps_its_upper_byte(grey: NDArray[np.uint16]) -> None:
    loaded = load_image(encoded(Image.fromarray(grey)), SIXTEEN)
    np.testing.assert_array_equal(loaded, np.repeat((grey >> 8)[..., None], 3, axis=2))


@given(
    hnp.arrays(
        np.float32, (16, 16), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
    )
)
@settings(max_examples=60, deadline=None)
def test_any_float_grey_is_read(values: NDArray[np.float32]) -> None:
    data = encoded(Image.fromarray(values), "TIFF")
    loaded = load_image(data, SCALES["F"])
    assert loaded.shape == (16, 16, 3)
    finite = np.isfinite(values)
    expected = values[finite].clip(0, 255).round()
    np.testing.assert_array_equal(loaded[..., 0][finite], expected)


@given(st.integers(-(2**31), 2**31 - 1))
def test_any_integer_grey_is_clipped_to_its_range(value: int) -> None:
    data = encoded(Image.fromarray(np.full((16, 16), value, np.int32)), "TIFF")
    expected = min(max(value, 0), 65535) / 257
    assert int(load_image(data, SCALES["I"])[0, 0, 0]) == round(expected)


@given(arrays(), st.integers(1, 255))
@settings(max_examples=25, deadline=None)
def test_transparency_becomes_black(pixels: UInt8, alpha: int) -> None:
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], alpha, np.uint8)])
    expected = pixels * (alpha / 255)
    for image in (Image.fromarray(rgba), Image.fromarray(rgba[..., [0, 3]])):
        want = expected if image.mode == "RGBA" else np.repeat(expected[..., :1], 3, axis=2)
        assert np.abs(load_image(encoded(image)) - want).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_transparent_colour_is_black(mode: str) -> None:
    image = Image.new("RGB", (20, 20), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 10, 20))
    image = image.convert(mode)
    white = image.getpixel((15, 5))
    loaded = load_image(encoded(image, transparency=white))
    assert loaded.max() == 0
    assert load_image(encoded(image)).max() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_exif_rotation_is_applied(orientation: int, mode: str) -> None:
    upright = np.zeros((24, 36, 3), np.uint8)
    upright[:6, :9] = 200
    upright[-6:, :9] = 90
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(in_mode(upright, mode), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(
        Image.fromarray(upright), exif=exif
    ))))  # fmt: skip
    np.testing.assert_array_equal(load_image(data), np.asarray(expected))
    rotated = orientation >= 5
    assert load_image(data).shape == ((36, 24, 3) if rotated else (24, 36, 3))
    assert (orientation == 1) == np.array_equal(load_image(data), upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "F"])
def test_a_turned_tiff_is_the_same_as_a_file_and_as_bytes(
    orientation: int, mode: str, tmp_path: Path
) -> None:
    """Pillow maps an uncompressed file into memory, at the size that it has when it is turned."""
    upright = np.zeros((24, 36, 3), np.uint8)
    upright[:6, :9] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(in_mode(upright, mode), "TIFF", exif=exif)
    (tmp_path / "turned.tif").write_bytes(data)
    scale = SCALES.get(mode, SIXTEEN)
    loaded = load_image(tmp_path / "turned.tif", scale)
    np.testing.assert_array_equal(loaded, load_image(data, scale))
    kept = ImageOps.exif_transpose(
        Image.open(io.BytesIO(encoded(Image.fromarray(upright), exif=exif)))
    )
    assert ((loaded > 0) == (np.asarray(kept) > 0)).all()


@given(arrays(), st.integers(16, 70), st.integers(16, 70))
@settings(max_examples=40, deadline=None)
def test_resize_keeps_range_and_constants(pixels: UInt8, height: int, width: int) -> None:
    resized = resize(pixels, height, width)
    assert resized.shape == (height, width, 3)
    assert resized.dtype == np.uint8
    assert pixels.min() <= resized.min() <= resized.max() <= pixels.max()
    flat = np.full_like(pixels, pixels[0, 0, 0])
    assert (resize(flat, height, width) == pixels[0, 0, 0]).all()
    assert resize(pixels, *pixels.shape[:2]) is pixels


def test_resize_antialiases() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 64, 64).astype(int)
    assert np.ptp(small[:, 1:-1]) <= 20  # what the eye sees: grey
    sampled = Image.fromarray(stripes).transform(
        (64, 64), Image.Transform.AFFINE, (4, 0, 0.5, 0, 4, 0), Image.Resampling.BILINEAR
    )
    assert np.abs(small - np.asarray(sampled).astype(int)).mean() > 50


@pytest.mark.parametrize("side", [48, 64, 96, 301, 700])
@pytest.mark.parametrize("kind", ["png", "jpg", "rotated.jpg"])
def test_training_and_runtime_see_the_same_pixels(
    job: Job, tmp_path: Path, side: int, kind: str
) -> None:
    rng = np.random.default_rng(side)
    path = tmp_path / f"photo.{kind}"
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "rotated.jpg" else 1
    Image.fromarray(rng.integers(0, 256, (side, side + 20, 3), np.uint8)).save(path, exif=exif)
    with Model.load(job.file) as model:
        height, width = model.metadata.height, model.metadata.width
        served = model.prepare(model.decode(path))
        shot = load_shot(path, height, width)
        np.testing.assert_array_equal(shot.image, served)
        np.testing.assert_array_equal(shot.image, load_resized(path.read_bytes(), height, width))
        assert shot.size == ((side, side + 20) if kind == "rotated.jpg" else (side + 20, side))
        assert model.score(path).score == model.score(shot.image).score
        assert model.score_batch([shot.image, path])[1].score == model.score(path).score
        assert model.metadata.resize.startswith("stretch to height x width, bilinear with anti")


def photo(width: int, height: int) -> Image.Image:
    """Soft shapes and an upright bar at the left, as a photograph might show."""
    coarse = np.random.default_rng(width).integers(40, 200, (5, 7, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.paste((250, 20, 10), (0, 0, width // 8, height // 2))
    return image


@given(
    *(st.integers(16, 900) for _ in range(2)),
    *(st.integers(16, 300) for _ in range(2)),
    st.sampled_from(range(1, 9)),
)
@settings(max_examples=60, deadline=None)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_enough(
    width: int, height: int, model_height: int, model_width: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(width, height), "JPEG", quality=95, exif=exif)
    whole = decode(data)
    image = decode(data, at_least=(model_height, model_width))
    upright_width, upright_height = whole.size
    fits = [
        scale
        for scale in (1, 2, 4, 8)
        if upright_width // scale >= model_width and upright_height // scale >= model_height
    ]
    scale = max(fits, default=1)
    assert image.size == (-(-upright_width // scale), -(-upright_height // scale))
    # Filters differ a little. A wrong rotation or mirroring would differ by tens.
    small, full = (
        resize(each, model_height, model_width).astype(np.float64) for each in (image, whole)
    )
    assert np.abs(small - full).mean() < 8
    assert np.abs(small.mean() - full.mean()) < 1


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_decoded_smaller(mode: str, progressive: bool) -> None:
    data = encoded(photo(640, 480).convert(mode), "JPEG", quality=95, progressive=progressive)
    image = decode(data, at_least=(100, 150))
    assert image.size == (160, 120)
    assert image.mode == ("L" if mode == "L" else "RGB")
    small = load_resized(data, 100, 150)
    assert small.shape == (100, 150, 3)
    assert np.abs(small.astype(float) - resize(load_image(data), 100, 150)).mean() < 2


@pytest.mark.parametrize("mode", sorted(set(MODES) - {"CMYK", "YCbCr"}))
def test_other_files_are_decoded_whole(mode: str) -> None:
    data = encoded(in_mode(np.asarray(photo(200, 160)), mode), MODES[mode])
    scale = SCALES.get(mode, SIXTEEN)
    whole = resize(load_image(data, scale), 20, 30)
    np.testing.assert_array_equal(load_resized(data, 20, 30, scale), whole)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_cut_short_is_refused(progressive: bool) -> None:
    data = encoded(photo(900, 700), "JPEG", progressive=progressive)
    with pytest.raises(ImageError, match="cut short"):
        load_resized(data[: len(data) * 2 // 3], 64, 64)


def test_limits_hold_for_the_size_before_decoding() -> None:
    narrow = encoded(Image.new("RGB", (2000, MIN_SIDE - 1)), "JPEG")
    with pytest.raises(ImageError, match=f"2000x{MIN_SIDE - 1} pixels, smaller than one patch"):
        load_resized(narrow, 16, 16)
    huge = bytearray(encoded(Image.new("L", (32, 32)), "JPEG"))
    start = huge.index(b"\xff\xc0") + 5  # the frame header: height, width
    huge[start : start + 4] = (20_000).to_bytes(2, "big") * 2
    with pytest.raises(ImageError, match="more than the"):
        load_resized(bytes(huge), 16, 16)


def test_a_file_made_for_another_resize_rule_is_refused(job: Job) -> None:
    data = job.file.read_bytes()
    document = json.loads(read_metadata(data)[KEY])
    altered = described(data, {**document, "resize": "centre crop"})
    with pytest.raises(
        ModelFileError, match=r"another resize rule than this version has: export it again"
    ):
        Model.from_bytes(altered, "part.onnx")


def test_too_small_and_too_large() -> None:
    edge = Image.new("L", (MIN_SIDE, MIN_SIDE))
    assert load_image(encoded(edge)).shape == (MIN_SIDE, MIN_SIDE, 3)
    with pytest.raises(ImageError, match=f"{MIN_SIDE - 1}x200 pixels, smaller than one patch"):
        load_image(encoded(Image.new("L", (MIN_SIDE - 1, 200))))
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ImageError, match="more than the"):
        load_image(encoded(Image.new("1", (side, side))))


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_an_image_error(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"not an image|cannot be decoded|is empty"):
        load_image(data)


@given(st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"])
def test_damaged_files_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    whole = bytearray(encoded(Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert load_image(bytes(whole)).shape[2] == 3
    except ImageError:
        return
