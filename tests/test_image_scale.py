"""Black and white in files of more than 8 bits: by the file or the user, never by one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fsad_edge
from fsad_edge import FinetuneOptions, Model, load_image
from fsad_edge.errors import ImageError, InputError
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.runtime.image_scale import ImageScale
from tests.commands import assert_refused
from tests.conftest import SIZE, Cli, Job, photograph
from tests.picture_files import JPEG2000_OF_12_BITS, Array, bmp, png, tiff
from tests.serving import encoded

PLATE = np.asarray(photograph(np.random.default_rng(1), 48))
GREY = PLATE[:, :, 1].copy()
TWELVE = GREY.astype(np.uint16) << 4 | 9
SIXTEEN = GREY.astype(np.uint16) << 8 | 77


def grey(data: bytes, scale: ImageScale | None = None) -> Array:
    """The green channel, as signed numbers."""
    loaded = load_image(data) if scale is None else load_image(data, scale)
    return loaded[:, :, 1].astype(int)


def coloured(values: Array, *more: int) -> Array:
    """Grey as three channels, with further ones of one value."""
    rest = [np.full_like(values, value) for value in more]
    return np.stack([values, values, values, *rest], axis=2)


KNOWN = {
    "16 bits": png(SIXTEEN),
    "16 bits, big-endian TIFF": tiff(SIXTEEN, order=">"),
    "16 bits, compressed TIFF": tiff(SIXTEEN, deflate=True, order=">"),
    "16 bits where 0 is white": tiff(65535 - SIXTEEN, photometric=0),
    "8 bits where 0 is white": tiff(255 - GREY, photometric=0),
    "16-bit RGB PNG": png(coloured(SIXTEEN)),
    "16-bit RGBA PNG": png(coloured(SIXTEEN, 65535)),
    "16-bit RGB TIFF": tiff(coloured(SIXTEEN), order=">"),
    "16-bit RGB in a compressed TIFF": tiff(coloured(SIXTEEN), deflate=True, order=">"),
    "16-bit RGB TIFF in planes": tiff(coloured(SIXTEEN), planes=True),
    "12 bits that the TIFF names": tiff(TWELVE, t281=4095),
    "12-bit RGB that the TIFF names": tiff(coloured(TWELVE), t281=4095),
    "16-bit RGB TIFF in compressed planes": tiff(coloured(SIXTEEN), planes=True, deflate=True),
    "16-bit colour PPM": b"P6 48 48 65535\n" + coloured(SIXTEEN).astype(">u2").tobytes(),
    "16-bit CMYK": tiff(np.dstack([65535 - coloured(SIXTEEN), 0 * SIXTEEN]), photometric=5),
    "12 bits that the PGM names": b"P5 48 48 4095\n" + TWELVE.astype(">u2").tobytes(),
    "float from 0 to 1": tiff((GREY / 255).astype(np.float32)),
    "float where 0 is white": tiff((1 - GREY / 255).astype(np.float32), photometric=0),
    "float whose range the TIFF names": tiff(GREY.astype(np.float32), t340=0, t341=255),
    "8 bits where 0 is white, in one plane": tiff(255 - GREY, photometric=0, t284=2),
    "16 bits where 0 is white, in one plane": tiff(65535 - SIXTEEN, photometric=0, t284=2),
    "16 bits in one plane, big-endian": tiff(SIXTEEN, order=">", t284=2),
    "float in one plane, big-endian": tiff((GREY / 255).astype(np.float32), order=">", t284=2),
    "compressed big-endian float": tiff((GREY / 255).astype(np.float32), order=">", deflate=True),
    "compressed big-endian int16": tiff(
        GREY.astype(np.int16) * 128, order=">", deflate=True, t340=0, t341=32767
    ),
    "compressed big-endian int32": tiff(
        GREY.astype(np.int32) << 23, order=">", deflate=True, t340=0, t341=2**31 - 1
    ),
    "a BMP whose mask of alpha is 0": bmp(np.dstack([GREY] * 3), 0, mask=0),
    "a BMP whose fourth byte is 0": bmp(np.dstack([GREY] * 3), 0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_scale_that_the_file_says_is_taken(name: str) -> None:
    assert np.abs(grey(KNOWN[name]) - GREY).max() <= 1


ASKED: dict[str, tuple[bytes, ImageScale, str]] = {
    "12 bits in 16": (png(TWELVE), ImageScale(bits=12), "--bits 12"),
    "10 bits in 16": (tiff(TWELVE >> 2), ImageScale(bits=10), "--bits 10"),
    "12 bits in 16-bit RGB": (png(coloured(TWELVE)), ImageScale(bits=12), "--bits 12"),
    "12 bits in 16-bit RGBA": (png(coloured(TWELVE, 65535)), ImageScale(bits=12), "--bits 12"),
    "12 bits in 16-bit grey with alpha": (
        png(np.dstack([TWELVE, np.full_like(TWELVE, 65535)])), ImageScale(bits=12), "--bits 12",
    ),
    "12 bits in a 16-bit RGB TIFF": (tiff(coloured(TWELVE)), ImageScale(bits=12), "--bits 12"),
    "12 bits in a 16-bit RGB TIFF in planes": (
        tiff(coloured(TWELVE), planes=True, order=">"), ImageScale(bits=12), "--bits 12",
    ),
    "12 bits in a compressed 16-bit RGB TIFF": (
        tiff(coloured(TWELVE), deflate=True), ImageScale(bits=12), "--bits 12",
    ),
    "12 bits in a colour PPM": (
        b"P6 48 48 65535\n" + coloured(TWELVE).astype(">u2").tobytes(), ImageScale(bits=12),
        "--bits 12",
    ),
    "12 bits of which 0 is white": (
        tiff(4095 - TWELVE, photometric=0), ImageScale(bits=12), "--bits 12",
    ),
    "its own highest value, which is no scale": (
        tiff(TWELVE, t281=int(TWELVE.max())), ImageScale(bits=12), "--bits 12",
    ),
    "uint32": (tiff(SIXTEEN.astype(np.uint32)), ImageScale(range=(0, 65535)), "--range 0 65535"),
    "all of uint32": (
        tiff(SIXTEEN.astype(np.uint32) << 16), ImageScale(range=(0, 2**32 - 1)), "--range 0",
    ),
    "int16 to its end": (
        tiff(GREY.astype(np.int16) * 128 + 5), ImageScale(range=(0, 32767)), "--range 0 32767",
    ),
    "int16": (tiff(TWELVE.astype(np.int16)), ImageScale(range=(0, 4095)), "--range 0 4095"),
    "int8": (
        tiff((GREY.astype(int) - 128).astype(np.int8)), ImageScale(range=(-128, 127)),
        "--range -128 127",
    ),
    "float a little over 1": (
        tiff((GREY / GREY.max() * 1.03).astype(np.float32)),
        ImageScale(range=(0, 1.03 / GREY.max() * 255)), "--range 0 1 ",
    ),
    "float from -1 to 1": (
        tiff((GREY / 127.5 - 1).astype(np.float32)), ImageScale(range=(-1, 1)), "--range -1 1 ",
    ),
    "float up to 65535": (
        tiff((GREY * 257.0).astype(np.float32)), ImageScale(range=(0, 65535)), "--range 0 65535",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_a_scale_that_cannot_be_known_is_asked_for(name: str) -> None:
    data, scale, option = ASKED[name]
    with pytest.raises(ImageError, match=option):
        load_image(data)
    assert np.abs(grey(data, scale) - GREY).max() <= 1


def signed(jpeg2000: bytes) -> bytes:
    """The same codestream, with the sign bit of each component."""
    data = bytearray(jpeg2000)
    for component in range(3):
        data[42 + 3 * component] |= 0x80
    return bytes(data)


def unequal(jpeg2000: bytes) -> bytes:
    """The same codestream, whose last component has a bit less."""
    data = bytearray(jpeg2000)
    data[48] -= 1
    return bytes(data)


def in_colours(number: int) -> bytes:
    """A JPEG 2000 whose colours are those of a number: CMYK, Lab, e-sRGB, …"""
    data = encoded(Image.fromarray(PLATE), "JPEG2000")
    return data.replace(b"colr\1\0\0\0\0\0\x10", b"colr\1\0\0\0\0\0" + bytes([number]))


def without_adobe(jpeg: bytes) -> bytes:
    """A JPEG without the segment that says what its channels are."""
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


UNREADABLE = {
    "only the upper 8 bits are read.*PNG": [
        JPEG2000_OF_12_BITS,
        tiff(np.dstack([4095 - coloured(TWELVE), 0 * TWELVE]), photometric=5),
        tiff(coloured(TWELVE), planes=True, deflate=True),
        tiff(coloured(TWELVE), planes=True, deflate=True, order=">"),
        tiff(np.dstack([coloured(TWELVE), 0 * TWELVE + 4095]), t338=1),
    ],
    "signed 16-bit": [signed(JPEG2000_OF_12_BITS)],
    "in planes.*PNG": [
        tiff(np.dstack([65535 - coloured(SIXTEEN), 0 * SIXTEEN]), photometric=5, planes=True),
        tiff(GREY.astype(np.int16), t284=2),
    ],
    "0 is black or white": [tiff(GREY).replace(b"\x06\x01\x03", b"\x07\x01\x03", 1)],
    "fewer samples of colour": [tiff(PLATE, photometric=6)],
    "CMYK JPEG.*RGB": [without_adobe(encoded(Image.fromarray(PLATE).convert("CMYK")))],
    "of 12 bits": [
        encoded(Image.fromarray(PLATE)).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c")
    ],
    "other colours than grey": [in_colours(12), in_colours(14), in_colours(24)],
    "different numbers of bits": [unequal(JPEG2000_OF_12_BITS)],
    "16-bit colours as text.*PNG": [
        b"P3 48 48 65535\n" + " ".join(map(str, coloured(TWELVE).ravel())).encode()
    ],
}


@pytest.mark.parametrize("words", UNREADABLE)
def test_bits_that_cannot_be_read_are_refused(words: str) -> None:
    for data in UNREADABLE[words]:
        for scale in (ImageScale(), ImageScale(bits=12)):
            with pytest.raises(ImageError, match=words):
                load_image(data, scale)


def test_a_few_bits_reach_white() -> None:
    """Pillow shifts the samples of a JPEG 2000 up: of one bit, to 128."""
    data = encoded(Image.fromarray(GREY >> 4), "JPEG2000")
    place = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[place] == 7
    # The same codestream as one of 4 bits, without loss: no value is above 15.
    few = bytearray(data)
    few[place] = 3
    loaded = grey(bytes(few))
    assert loaded.max() <= 255
    assert set(np.unique(loaded)) <= {17 * level for level in range(16)}


def marked(values: Array, kind: str) -> Array:
    """A photograph with bright pixels that its camera did not see."""
    values = values.copy()
    if kind == "hot pixel":
        values[30, 20] = 65535
    elif kind == "label":
        values[40:46, 2:40] = 65535  # a tenth
    else:
        values[44:47, 2:40] = 60000
    return values


@pytest.mark.parametrize("kind", ["hot pixel", "label", "grey label"])
def test_a_label_or_a_hot_pixel_does_not_decide(kind: str) -> None:
    colours = coloured(TWELVE)
    for data in (marked(TWELVE, kind), marked(colours, kind)):
        for file in (png(data), tiff(data, t281=65535)):
            with pytest.raises(ImageError, match=r"12 bits; say so once with .*--bits 12"):
                load_image(file)
        expected = np.where(data > 4095, 255, data >> 4)
        assert np.array_equal(
            load_image(png(data), ImageScale(bits=12)).T, expected.T + 0 * colours.T
        )
    assert np.abs(grey(png(marked(SIXTEEN, "label")))[:40] - GREY[:40]).max() <= 1


def test_a_camera_of_more_bits_is_refused_by_few_values_too() -> None:
    """Values that go on above 12 bits are no label."""
    fourteen = TWELVE.copy()
    fourteen[:, :3] = np.arange(5000, 16000, 11000 / 144).reshape(48, 3)
    with pytest.raises(ImageError, match="which 12 bits do not hold"):
        load_image(png(fourteen), ImageScale(bits=12))


@pytest.mark.parametrize("light", [1.0, 0.5, 0.1])
def test_an_answer_does_not_depend_on_the_image(light: float) -> None:
    """A darker exposure stays darker, whatever its brightest pixel is."""
    bits, ends = ImageScale(bits=16), ImageScale(range=(0, 1))
    dark = (SIXTEEN * light).astype(np.uint16)
    assert np.abs(grey(png(dark), bits) - GREY * light).max() <= 1
    floats = (GREY / 255 * light * 1.2).astype(np.float32)
    assert np.abs(grey(tiff(floats), ends) - (GREY * light * 1.2).clip(0, 255)).max() <= 1


def test_values_that_no_answer_allows_are_refused() -> None:
    with pytest.raises(ImageError, match="which 12 bits do not hold"):
        load_image(png(SIXTEEN), ImageScale(bits=12))
    with pytest.raises(InputError, match="8 to 16, not 20"):
        ImageScale(bits=20)
    with pytest.raises(InputError, match="black and a higher one of white"):
        ImageScale(range=(1, 1))
    with pytest.raises(ImageError, match="wholly transparent"):
        load_image(png(coloured(SIXTEEN, 0)))
    hole = (GREY / 255).astype(np.float32)
    hole[3, 4] = np.nan
    assert grey(tiff(hole))[3, 4] == 0


def save(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_the_answer_is_stored_and_used_by_all_that_scores(
    cli: Cli, backbones: dict[str, str], tmp_path: Path
) -> None:
    plates = [np.asarray(photograph(np.random.default_rng(seed), 96))[:, :, 1] for seed in (1, 2)]
    twelve = [plate.astype(np.uint16) << 4 for plate in plates]
    floats = [(plate / 127.5 - 1).astype(np.float32) for plate in plates]
    shots = save(tmp_path / "shots", {
        "a.png": png(twelve[0]), "b.png": png(twelve[1] // 2), "c.tif": tiff(*floats[:1]),
    })  # fmt: skip
    small = ("--backbone", backbones["conv"], "--image-size", SIZE, "--rotations", "1")
    start = ("finetune", shots, "-o", tmp_path / "part", *small)
    first = cli(*start)
    assert_refused(first, str(shots / "a.png"), "over all shots is", "--bits 12", "--bits 16")
    second = cli(*start, "--bits", 12)
    assert_refused(second, str(shots / "c.tif"), "float", "--range -1 1")
    assert_refused(cli(*start, "--bits", 10), "which 10 bits do not hold")
    done = cli(*start, "--bits", 12, "--range", -1, 1)
    assert done.code == 0, done.err
    scale = ImageScale(12, (-1, 1))
    assert read_manifest(tmp_path / "part").scale == scale
    file = fsad_edge.export(tmp_path / "part").path
    with Model.load(file) as model:
        assert model.metadata.scale == scale
        eight = model.score(np.dstack([plates[0]] * 3)).score
        assert model.score(png(twelve[0])).score == pytest.approx(eight, rel=1e-3)
        assert model.score(tiff(floats[0])).score == pytest.approx(eight, rel=1e-3)
        assert model.score(png(twelve[0] // 4)).score != pytest.approx(eight, rel=1e-2)
        with pytest.raises(ImageError, match="12 bits do not hold"):
            model.score(png(plates[0].astype(np.uint16) << 8))
    scored = cli("score", file, shots, "--json", "--heatmaps", tmp_path / "maps")
    assert scored.code in {0, 1}, scored.err
    drawn = load_image(tmp_path / "maps/a.png.heatmap.png")
    assert drawn.mean() > 40  # the photograph beside its map is not black


def test_shots_that_need_all_their_bits_are_not_asked_about(
    backbones: dict[str, str], tmp_path: Path
) -> None:
    plate = np.asarray(photograph(np.random.default_rng(1), 96))[:, :, 1].astype(np.uint16)
    bright, dark = png(plate << 8), png(plate << 6)
    hot = plate << 4
    hot[:8, :90] = 65535
    labels = {f"{place}.png": png(hot) for place in range(3)} | {"brighter.png": bright}
    with pytest.raises(InputError, match=r"--bits 12 .*or with  --bits 16"):
        fsad_edge.finetune(save(tmp_path / "labels", labels), tmp_path / "no")
    shots = save(tmp_path / "shots", {"a.png": bright, "b.png": dark})
    options = FinetuneOptions(backbone=backbones["conv"], image_size=SIZE, rotations=1)
    part = fsad_edge.finetune(shots, tmp_path / "part", options)
    assert read_manifest(part.path).scale == ImageScale(bits=16)
    (shots / "a.png").unlink()
    with pytest.raises(InputError, match="--bits 14"):
        fsad_edge.finetune(shots, tmp_path / "other", options)


def test_a_model_of_8_bit_shots_refuses_what_it_cannot_know(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    (tmp_path / "twelve.png").write_bytes(png(marked(TWELVE, "hot pixel")))
    assert_refused(cli("score", job.file, tmp_path / "twelve.png"), "twelve.png", "--bits 12")
