"""What a file holds besides its pixels keeps no decoder busy; what programs write is still read."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, PpmImagePlugin, features

from fsad_edge import load_image
from fsad_edge.errors import ImageError
from fsad_edge.runtime.decode_gate import GATE
from tests.conftest import photograph
from tests.serving import encoded

#: Bytes of a hostile file: enough to be refused early, and far more work for Pillow than that.
MANY = 200_000

PHOTOGRAPH = photograph(np.random.default_rng(7), 96)
JPEG = encoded(PHOTOGRAPH)
PIXELS = np.asarray(PHOTOGRAPH.convert("RGB"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: bytes = b"", behind: bytes = b"", piece: int = 1 << 16) -> bytes:
    """A PNG of the photograph, whose pixels come in pieces of some bytes."""
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    packed = zlib.compress(rows)
    header = struct.pack(">IIBBBBB", PIXELS.shape[1], PIXELS.shape[0], 8, 2, 0, 0, 0)
    pieces = (packed[at : at + piece] for at in range(0, len(packed), piece))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before
        + b"".join(chunk(b"IDAT", one) for one in pieces) + behind + chunk(b"IEND", b"")
    )  # fmt: skip


def segment(kind: int, data: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*more: bytes) -> bytes:
    return JPEG[:2] + b"".join(more) + JPEG[2:]


def gif(before: bytes) -> bytes:
    data = encoded(PHOTOGRAPH, "GIF")
    at = data.index(b",", 13 + (3 << (data[10] & 7) + 1))
    return data[:at] + before + data[at:]


def tiff(**tags: tuple[int, int, int]) -> bytes:
    """A grey TIFF of 64x64 pixels, with more tags of a type, a number of values and a place."""
    entries = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 512, 277: 1, 278: 64, 279: 4096}
    all_tags = {tag: (4, 1, value) for tag, value in entries.items()}
    all_tags |= {int(name[1:]): value for name, value in tags.items()}
    data = b"II*\0" + struct.pack("<IH", 8, len(all_tags))
    data += b"".join(struct.pack("<HHII", tag, *all_tags[tag]) for tag in sorted(all_tags))
    return data.ljust(512, b"\0") + bytes(range(256)) * 16


def bmp_runs(side: int) -> bytes:
    """A BMP in run lengths, of one pixel in each row."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return (
        b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header
        + b"".join(bytes([one, 0, one, 0]) for one in range(256)) + b"\1\7\0\0" * side
    )  # fmt: skip


def riff(data: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(data) + 4) + b"WEBP" + data


PACKED = zlib.compress(bytes(1 << 20), 9)

#: Files of up to a few megabytes, and what the sentence says there is too much of.
TOO_MUCH: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg segments": (lambda: jpeg(segment(0xE2, b"MPF\0") * MANY), "4,096 segments"),
    "jpeg comments": (lambda: jpeg(segment(0xFE, b"") * MANY), "4,096 segments"),
    "jpeg tables": (lambda: jpeg(segment(0xDB, b"") * MANY), "4,096 segments"),
    "jpeg markers": (lambda: jpeg(b"\xff\xd0" * MANY), "4,096 segments"),
    "jpeg large tables": (lambda: jpeg(segment(0xC4, bytes(60_000)) * 20), "1 MB of tables"),
    "jpeg frames": (lambda: jpeg(segment(0xC0, b"\x08\0\x20\0\x20\1" + bytes(60_000))), "frames"),
    "jpeg fill": (lambda: jpeg(b"\xff" * MANY), "65,536 bytes between its segments"),
    "jpeg zeros": (lambda: jpeg(b"\xff\0" * MANY), "65,536 bytes between its segments"),
    "jpeg fill in pixels": (lambda: JPEG[:-2] + b"\xff" * MANY + JPEG[-2:], "among its pixels"),
    "jpeg exif": (lambda: jpeg(segment(0xE1, b"Exif\0\0A") * 1000), "64 segments of EXIF"),
    "jpeg metadata": (lambda: jpeg(segment(0xE3, bytes(65_000)) * 270), "16 MB besides"),
    "jpeg tags": (
        lambda: jpeg(segment(0xE1, b"Exif\0\0" + tiff(t40000=(5, 1 << 28, 0)))),
        "more than the whole file",
    ),
    "png chunks": (lambda: png(chunk(b"aaAa", b"") * MANY), "1,000 chunks"),
    "png chunks behind": (lambda: png(behind=chunk(b"aaAa", b"") * MANY), "1,000 chunks"),
    "png empty pixels": (lambda: png(chunk(b"IDAT", b"") * MANY), "chunks of fewer than 256"),
    "png pixels behind": (lambda: png(behind=chunk(b"IDAT", b"") * MANY), "chunks of fewer"),
    "png tiny pieces": (lambda: png(piece=1), "chunks of fewer than 256 bytes"),
    "png profiles": (lambda: png(chunk(b"iCCP", b"a\0\0" + PACKED) * 100), "16 compressed"),
    "png texts": (lambda: png(chunk(b"zTXt", b"\0\0" + PACKED) * 100), "16 compressed"),
    "png exif as text": (
        lambda: png(chunk(b"tEXt", b"Raw profile type exif\0" + b"\n" * (1 << 20))),
        "EXIF as text",
    ),
    "gif comments": (lambda: gif(b"!\xfe\1a\0" * MANY), "blocks of fewer than 32 bytes"),
    "gif nothing": (lambda: gif(bytes(MANY)), "blocks of fewer than 32 bytes"),
    "gif pieces": (lambda: encoded(PHOTOGRAPH, "GIF")[:-2] + b"\1a" * MANY + b"\0;", "blocks"),
    "tiff tags": (lambda: tiff(**{f"t{tag}": (3, 1, 0) for tag in range(1000, 4000)}), "2,000"),
    "tiff numbers": (lambda: tiff(t320=(3, 500_000, 8)) + bytes(1 << 20), "400,000 numbers"),
    "tiff fractions": (lambda: tiff(t282=(5, 50_000, 8)) + bytes(1 << 20), "400,000 numbers"),
    "tiff strips": (lambda: tiff(t273=(4, 500_000, 8)) + bytes(1 << 21), "400,000 numbers"),
    "tiff shared strips": (
        lambda: tiff(t259=(4, 1, 8), t278=(4, 1, 1), t279=(4, 64, 512)).replace(
            bytes(range(256)), struct.pack("<I", 1 << 30) * 64, 1
        ),
        "strips that say they hold more",
    ),
    "bmp runs": (lambda: bmp_runs(2500), "4,000,000 pixels"),
    "webp chunks": (
        lambda: riff(encoded(PHOTOGRAPH, "WEBP")[12:] + b"abcd\0\0\0\0" * MANY), "than 64 bytes"
    ),
    "jpeg 2000 boxes": (
        lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * MANY, "1,000 boxes"
    ),
    "jpeg 2000 tiles": (
        lambda: b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8I", 9000, 9000, 0, 0, 16, 16, 0, 0)
        + b"\0\1\7\1\1",
        "316,969 tiles",
    ),
    "pbm comments": (lambda: b"P1\n" + b"#\n" * MANY + b"96 96\n", "65,536 bytes of header"),
    "ppm blanks": (lambda: b"P6\n" + b" " * MANY + b"9 9 255\n", "65,536 bytes of header"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_file_of_many_parts_is_refused_before_they_are_read(kind: str) -> None:
    make, what = TOO_MUCH[kind]
    data = make()
    begin = time.process_time()
    with pytest.raises(ImageError, match=what) as error:
        load_image(data)
    assert "save it again as a PNG or JPEG" in str(error.value)
    assert time.process_time() - begin < 2  # the slowest takes a twentieth of that


def usual() -> dict[str, bytes]:
    """Files with as much besides their pixels as cameras and programs write."""
    profile = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([one + 1, 60]) + bytes(65_000)) for one in range(60)
    )
    described = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 65_000)
    extended = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"x" * 65_000) * 120
    exif = Image.Exif()
    exif[271], exif[274], exif[37500] = "a camera", 1, bytes(40_000)
    pictures = io.BytesIO()
    PHOTOGRAPH.save(pictures, "MPO", save_all=True, append_images=[PHOTOGRAPH])
    text = PngImagePlugin.PngInfo()
    for number in range(200):
        text.add_text(f"key {number}", "value" * 100)
    text.add_itxt("XML:com.adobe.xmp", "x" * 3_000_000)
    large = io.BytesIO()
    PHOTOGRAPH.save(large, "PNG", pnginfo=text, icc_profile=bytes(900_000), exif=exif)
    return {
        "profile of 4 MB": jpeg(profile),
        "XMP of 8 MB": jpeg(described, extended),
        "exif": encoded(PHOTOGRAPH, "JPEG", exif=exif),
        "fill bytes": jpeg(b"\xff" * 1000) + b"\xff" * MANY,
        "progressive": encoded(PHOTOGRAPH, "JPEG", progressive=True),
        "mpo": pictures.getvalue(),
        "png texts": large.getvalue(),
        "png pieces of 1 kB": png(piece=1024),
        "png pieces of 256 bytes": png(piece=256),
        "tiff strips of a row": encoded(PHOTOGRAPH, "TIFF", compression="tiff_lzw", strip_size=1),
        "bmp runs": bmp_runs(600),
        "gif comments": gif(b"!\xfe" + (b"\xff" + b"c" * 255) * 40 + b"\0"),
        "ppm comments": b"P6\n" + b"# a comment\n" * 100 + b"16 16\n255\n" + bytes(768),
        "pgm of blanks": b"P5 400 400 255\n" + b" " * 160_000,
    }


@pytest.mark.parametrize("kind", usual())
def test_what_cameras_and_programs_write_is_read(kind: str) -> None:
    data = usual()[kind]
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(load_image(data), expected)


@given(
    magic=st.sampled_from([b"P1", b"P2", b"P3"]),
    most=st.sampled_from([1, 7, 100, 255, 256, 4095, 65534]),
    seed=st.integers(0, 1 << 30),
    blanks=st.sampled_from([b" ", b"\n", b"  \r\n", b"\n# a comment\n", b"\n#\n# two\r\t"]),
)
def test_samples_as_text_are_those_that_pillow_reads(
    magic: bytes, most: int, seed: int, blanks: bytes
) -> None:
    rng = np.random.default_rng(seed)
    most = 1 if magic == b"P1" else most
    values = rng.integers(0, most + 1, (20, 17 * (3 if magic == b"P3" else 1)))
    text = blanks.join(b"%d" % value for value in values.ravel())
    head = magic + b"\n17 20\n" + (b"" if magic == b"P1" else b"%d\n" % most)
    same_as_pillow(head + text + b"\n")


@given(
    magic=st.sampled_from([b"P5", b"P6"]),
    most=st.sampled_from([1, 7, 100, 256, 4095, 65534]),
    seed=st.integers(0, 1 << 30),
)
def test_binary_samples_of_other_ranges_are_those_that_pillow_reads(
    magic: bytes, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, most + 1, (20, 17, 3 if magic == b"P6" else 1))
    data = values.astype(">u2" if most > 255 else "u1").tobytes()
    same_as_pillow(magic + b"\n17 20\n%d\n" % most + data)


def same_as_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        assert isinstance(image, PpmImagePlugin.PpmImageFile)
        deep = image.mode == "I"  # 16 bits, of which the upper 8 are taken
        expected = np.asarray(image) // 256 if deep else np.asarray(image.convert("RGB"))
    found = load_image(data)
    assert np.array_equal(found[..., 0] if deep else found, expected)


@pytest.mark.parametrize(
    "text",
    [b"1 2 x 4", b"1 2 -3 4", b"1 2 12345678901 4", b"1 2 256 4", b"1 2 3", b"1 # 2 3 4"],
)
def test_text_that_is_no_samples_is_refused(text: bytes) -> None:
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_image(b"P2 16 16 255\n" + b"9 " * 252 + text)


def test_long_text_is_read_whole() -> None:
    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, 300 * 400)
    data = b"P2 400 300 255\n" + b"\n".join(b"%d # %d" % (one, one) for one in values)
    assert np.array_equal(load_image(data)[..., 0].ravel(), values)
    with pytest.raises(ImageError, match="several images"):
        load_image(data + b"\nP2 16 16 255\n")


def test_memory_besides_the_pixels_is_counted() -> None:
    before, GATE.memory = GATE.memory, 20 << 20
    try:
        load_image(JPEG)
        with pytest.raises(ImageError, match="takes up to"):
            load_image(jpeg(segment(0xE3, bytes(65_000)) * 200))
    finally:
        GATE.memory = before


def test_pillows_warnings_are_not_printed() -> None:
    code = (
        "import io; from PIL import Image; from fsad_edge import load_image; "
        "file = io.BytesIO(); Image.effect_noise((64, 64), 50).save(file, 'PNG', "
        "exif=b'MM\\0*\\0\\0\\0\\x08\\0\\x05\\x01\\x12\\0\\x02'); load_image(file.getvalue())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without JPEG 2000")
def test_a_jpeg_2000_in_tiles_is_read() -> None:
    data = encoded(PHOTOGRAPH, "JPEG2000", tile_size=(32, 32))
    assert np.array_equal(load_image(data), PIXELS)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="Pillow without JPEG 2000")
def test_the_blocks_of_a_jpeg_2000_are_counted() -> None:
    data = bytearray(encoded(Image.new("L", (2000, 2000)), "JPEG2000", no_jp2=True))
    load_image(bytes(data))
    at = data.index(b"\xff\x52") + 10
    data[at : at + 2] = b"\0\0"  # blocks of 4x4, of which each takes some hundred bytes
    before, GATE.memory = GATE.memory, 100 << 20
    try:
        with pytest.raises(ImageError, match="takes up to"):
            load_image(bytes(data))
    finally:
        GATE.memory = before
