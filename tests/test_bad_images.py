"""Images and folders that cannot be used: one clear sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fsad_edge import Model, load_image
from fsad_edge.errors import ImageError
from fsad_edge.options import Decision, Doubt
from fsad_edge.runtime.images import check_content, load_resized
from tests.commands import all_files, assert_refused, run_process
from tests.conftest import SIZE, Cli, Job, Outcome, photograph
from tests.picture_files import tiff
from tests.serving import encoded

JPEG = encoded(photograph(np.random.default_rng(5), 64))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "is empty"),
    "text.jpg": (b"this is no picture", "is not an image"),
    "cut.jpg": (JPEG[:700], "cannot be decoded"),
    "bomb.png": (bomb(60_000, 60_000), "pixels"),
    "big.png": (bomb(10_000, 9_500), "pixels"),
    "none.png": (bomb(0, 10), "image"),
    "tiny.png": (encoded(Image.new("RGB", (15, 400)), "PNG"), "smaller than one patch"),
}


GREYS = np.random.default_rng(1).integers(127, 130, (80, 80, 3)).astype(np.uint8)
#: Images that show nothing; all but the transparent one are scored, and not judged.
BLANK: dict[str, bytes] = {
    "black.jpg": encoded(Image.new("RGB", (80, 80))),
    "cap.png": encoded(Image.fromarray((GREYS - 120).astype(np.uint8)), "PNG"),  # a lens cap, noise
    "white.bmp": encoded(Image.new("L", (80, 80), 255), "BMP"),
    "flat.png": encoded(Image.new("RGB", (80, 80), (12, 180, 90)), "PNG"),
    "noise.png": encoded(Image.fromarray(GREYS), "PNG"),
    "clear.png": encoded(Image.new("RGBA", (80, 80), (9, 9, 9, 0)), "PNG"),
    "few_bits.png": encoded(Image.fromarray(np.asarray(photograph(np.random.default_rng(5))) >> 4),
                            "PNG"),
}  # fmt: skip


@pytest.fixture
def start(cli: Cli, backbones: dict[str, str]) -> Callable[..., Outcome]:
    """The command finetune with options that keep it short."""

    def run(shots: Path, part: Path, *more: str) -> Outcome:
        return cli(
            *("finetune", shots, "-o", part, "--backbone", backbones["conv"]),
            *("--image-size", SIZE, "--rotations", "1", "--epochs", "0", *more),
        )

    return run


@pytest.fixture
def shots(job: Job, tmp_path: Path) -> Path:
    """Two shots to spoil."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(job.shots / name, folder)
    return folder


@pytest.mark.parametrize("name", sorted(BAD_IMAGES))
def test_a_bad_image_is_refused_everywhere(
    start: Callable[..., Outcome], cli: Cli, job: Job, shots: Path, tmp_path: Path, name: str
) -> None:
    data, words = BAD_IMAGES[name]
    with pytest.raises(ImageError, match=words):
        load_image(data)
    (shots / name).write_bytes(data)
    before = all_files(tmp_path)
    assert_refused(start(shots, tmp_path / "part"), str(shots / name), words)
    assert_refused(cli("score", job.file, shots / name), str(shots / name), words)
    dataset = tmp_path / "set"
    shutil.copytree(shots, dataset / "test/good")
    photograph(np.random.default_rng(77)).save(dataset / "test/good/no shot.png")
    done = cli("eval", job.file, dataset, "--report", tmp_path / "report.png")
    assert done.code == 2, done
    (line,) = (line for line in done.out.splitlines() if line.startswith("Not scored: "))
    assert str(dataset / "test/good" / name) in line
    assert words in line
    (tmp_path / "report.png").unlink()  # of the other images
    shutil.rmtree(dataset)
    assert all_files(tmp_path) == before


@pytest.mark.parametrize("name", sorted(BLANK))
def test_an_image_that_shows_nothing_is_neither_learned_nor_judged(
    start: Callable[..., Outcome], cli: Cli, job: Job, shots: Path, tmp_path: Path, name: str
) -> None:
    (shots / name).write_bytes(BLANK[name])
    assert_refused(start(shots, tmp_path / "part"), str(shots / name), "shows nothing")
    part = shutil.copy(job.file, tmp_path / "part.onnx")
    assert_refused(cli("bank", "add", part, shots / name), name, "shows nothing")
    with Model.load(job.file) as model:
        if name == "clear.png":
            with pytest.raises(ImageError, match="shows nothing"):
                model.score(shots / name)
        else:
            result = model.score(shots / name)
            assert result.decision is Decision.NOT_JUDGED
            assert {*result.doubts} & {Doubt.BLACK, Doubt.WHITE, Doubt.FLAT, Doubt.DARK}


def test_the_darkest_and_palest_photographs_still_show_something() -> None:
    for image in (photograph(np.random.default_rng(7)), photograph(np.random.default_rng(8), 200)):
        for low, high in ((0, 40), (215, 255), (100, 110)):
            pale = image.point(lambda level, low=low, high=high: low + level * (high - low) // 255)
            check_content(load_resized(encoded(pale, "PNG"), 64, 64))


WHY: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "is empty (0 bytes)"),
    "pointer.png": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git LFS pointer to one: run  git lfs pull",
    ),
    "phone.jpg": (
        b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEmiafheic",
        "HEIC photograph, which is not read",
    ),
    "camera.jpg": (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "a camera's RAW file"),
    "digital.tif": (tiff(np.zeros((32, 32), np.uint8), t50706=1), "a camera's RAW file"),
    "page.jpg": (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page saved under"),
    "note.png": ("Prüfplan für Teil 7".encode(), "not an image but text"),
    "double.tif": (tiff(np.ones((32, 32))), "64-bit float samples, grey, which are not read"),
    "half.tif": (tiff(np.ones((32, 32), np.float16)), "16-bit float samples, grey, which"),
    "float.tif": (tiff(np.ones((32, 32, 3), np.float32)), "32-bit float samples, RGB, which"),
    "big.tif": (
        tiff(np.ones((32, 32), np.uint32), order=">"),
        "big-endian 32-bit unsigned samples",
    ),
    "alpha.tif": (
        tiff(np.ones((32, 32, 2), np.uint16), t338=2, t262=1),
        "16-bit unsigned samples, grey with alpha, which are not read",
    ),
    "packed.tif": (tiff(np.ones((32, 32), np.uint8), t259=34712), "compressed as JPEG 2000"),
    "no_width.tif": (tiff(np.ones((32, 32), np.uint8), t256=0), "damaged"),
    "broken.png": (encoded(Image.new("L", (64, 64)), "PNG").replace(b"IHDR", b"IHDX"), "damaged"),
    "noise.png": (bytes(range(128, 256)) * 3, "not an image of a kind that is read"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], "it is cut short"),
    "cut.png": (encoded(Image.fromarray(GREYS), "PNG")[:4000], "it is cut short"),
    "cut.webp": (encoded(photograph(np.random.default_rng(5)), "WEBP")[:700], "cut short"),
    "cut.avif": (encoded(photograph(np.random.default_rng(5)), "AVIF")[:700], "cut short"),
    "cut.tif": (encoded(Image.fromarray(GREYS), "TIFF")[:9000], "cut short"),
    "cut_tags.tif": (
        encoded(Image.fromarray(GREYS), "TIFF", compression="tiff_lzw")[:900],
        "cut short",
    ),
}


@pytest.mark.parametrize("name", sorted(WHY))
def test_only_what_is_cut_short_is_called_so(cli: Cli, job: Job, tmp_path: Path, name: str) -> None:
    data, words = WHY[name]
    (tmp_path / name).write_bytes(data)
    done = cli("score", job.file, tmp_path / name)
    assert_refused(done, str(tmp_path / name), words)
    assert ("cut short" in done.err) == name.startswith(("cut", "broken"))


LOAD = """
import sys
from fsad_edge import ImageError, load_image
for path in sys.argv[1:]:
    try:
        load_image(path)
    except ImageError as error:
        print(error)
"""


def test_a_path_that_may_not_be_opened_is_one_sentence(job: Job, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    for place in (tmp_path / "own.png", closed / "in.png"):
        shutil.copy(job.shots / "0.png", place)
        place.chmod(0)
    closed.chmod(0)
    long = tmp_path / f"{'x' * 300}.png"
    paths = [tmp_path / "own.png", closed / "in.png", long, closed / "in.png/in.png"]
    try:
        done = run_process(*paths, script=LOAD, privileged=False)
    finally:
        closed.chmod(0o755)
    said = done.out.splitlines()
    assert [line.startswith(str(path)) for path, line in zip(paths, said, strict=True)] == [
        True
    ] * 4
    assert ["permission denied" in line for line in said] == [True, True, False, True]
    assert "cannot be read: File name too long." in said[2]


@given(st.integers(0, len(JPEG) - 1))
@settings(max_examples=150, deadline=None)
def test_a_jpeg_cut_anywhere_is_refused_or_whole(offset: int) -> None:
    try:
        image = load_image(JPEG[:offset])
    except ImageError:
        return
    assert offset > 0.9 * len(JPEG)
    np.testing.assert_array_equal(image, load_image(JPEG))


def test_one_bad_image_among_good_ones_is_named_and_the_rest_scored(
    cli: Cli, job: Job, shots: Path, tmp_path: Path
) -> None:
    (shots / "0cut.jpg").write_bytes(JPEG[:700])
    done = cli("score", job.file, shots, "--json", "--heatmaps", tmp_path / "maps")
    assert_refused(done, "0cut.jpg")
    rows = {Path(row["image"]).name: row for row in done.json["images"]}
    assert {name: row["decision"] for name, row in rows.items()} == {
        "0.png": "good", "0cut.jpg": "error", "1.png": "good",
    }  # fmt: skip
    assert rows["0cut.jpg"]["score"] is None
    assert "cannot be decoded" in rows["0cut.jpg"]["error"]
    assert len(list((tmp_path / "maps").iterdir())) == 2
    plain = cli("score", job.file, shots)
    assert_refused(plain, "0cut.jpg")
    assert "2 images scored: 2 good, 0 anomalies; 1 could not be read" in plain.out
    assert cli("score", job.file, shots, "--csv").out.count("\n") == 4


@pytest.mark.parametrize(
    ("layout", "meant"),
    [
        (["train/good", "test/good", "test/bent", "ground_truth/bent"], "train/good"),
        (["good", "masks"], "good"),
        (["Train/OK", "Test/NG"], "Train/OK"),
        (["train", "test"], "train"),
        (["test/bent", "masks"], None),
        (["nut/train/good", "nut/test/bent"], "nut/train/good"),
        (["nominal", "crack"], "nominal"),
        (["images", "labels"], "images"),
        (["Data/Images/Normal", "Data/Masks/Anomaly"], "Data/Images/Normal"),
    ],
)
def test_a_data_set_is_not_learned_as_good(
    start: Callable[..., Outcome], job: Job, tmp_path: Path, layout: list[str], meant: str | None
) -> None:
    place = tmp_path / "set"
    for name in layout:
        (place / name).mkdir(parents=True)
        shutil.copy(job.shots / "0.png", place / name)
    for options in ([], ["--recursive"]):
        done = start(place, tmp_path / "part", *options)
        assert_refused(done, "looks like a data set", str(place / meant) if meant else "name the")


def test_subfolders_are_learned_where_that_is_asked(
    start: Callable[..., Outcome], job: Job, tmp_path: Path
) -> None:
    place = tmp_path / "days"
    for day in ("monday", "tuesday"):
        shutil.copytree(job.shots, place / day)
        for file in (place / day).iterdir():
            if (file.name > "1.png") == (day == "monday"):
                file.unlink()
    assert_refused(start(place, tmp_path / "part"), "holds no image, only the folders monday")
    made = start(place, tmp_path / "part", "--recursive")
    assert made.code == 0, made.err
    assert "from 5 normal images" in made.out
    shutil.copy(job.shots / "0.png", place)
    (place / "phone.heic").touch()
    made = start(place, tmp_path / "other")
    assert made.code == 0, made.err
    assert "from 1 normal image; 3 skipped: 1 .heic is not read, 2 subfolders" in made.out
    assert "phone" not in made.out
    assert "warning: some files" in made.err


def test_missing_and_empty_folders(
    start: Callable[..., Outcome], cli: Cli, job: Job, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    nowhere = tmp_path / "nowhere"
    assert_refused(start(nowhere, tmp_path / "part"), "nowhere", "does not exist")
    assert_refused(start(empty, tmp_path / "part"), "holds no image")
    assert_refused(start(empty / "notes.txt", tmp_path / "part"), "is not a folder")
    assert_refused(cli("score", job.file, empty), "holds no image")
    assert_refused(cli("score", job.file, nowhere / "a.png"), "does not exist")
    assert_refused(cli("eval", job.file, nowhere), "does not exist")
    assert_refused(cli("eval", job.file, empty), "test/good")
    assert_refused(cli("score", nowhere, empty / "notes.txt"), "no such file")
    assert_refused(cli("export", nowhere), "is not a model directory")
    assert_refused(cli("export", empty), "manifest.json")
    assert_refused(cli("info", nowhere), "no such file")
    assert_refused(cli("info", empty), "manifest.json")
    assert_refused(cli("score", job.part, job.shots), "fsad-edge export")
    assert_refused(start(job.shots, nowhere / "part"), "does not exist")
    assert sorted(all_files(tmp_path)) == ["empty", "empty/notes.txt"]


def test_a_shot_that_cannot_be_read_is_named_with_what_to_do(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    shots = shutil.copytree(job.shots, tmp_path / "shots")
    (shots / "note.jpg").write_text("no photograph")
    done = cli("finetune", shots, "-o", tmp_path / "part")
    assert_refused(done, "note.jpg is not an image but text", "take it out of the folder")
