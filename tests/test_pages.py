"""Files of several pages: scored page by page, or refused by name, never in part."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fsad_edge import Model, evaluate, load_image
from fsad_edge.errors import ImageError
from tests.commands import assert_refused
from tests.conftest import SIZE, Cli, Job, photograph
from tests.picture_files import tiff

RNG = np.random.default_rng(8)
#: A good part, and one with a defect that only the second page shows.
PAGES = [photograph(RNG), photograph(RNG, defect=True)]


def several(kind: str) -> bytes:
    buffer = io.BytesIO()
    PAGES[0].save(buffer, kind, save_all=True, append_images=PAGES[1:])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["tif", "gif", "webp", "png"])
def test_every_page_is_scored_as_an_image_of_its_own(
    cli: Cli, job: Job, tmp_path: Path, kind: str
) -> None:
    name = f"stack.{kind}"
    (tmp_path / name).write_bytes(several({"tif": "TIFF"}.get(kind, kind.upper())))
    done = cli("score", job.file, tmp_path, "--json", "--heatmaps", tmp_path / "maps")
    rows = {Path(row["image"]).name: row for row in done.json["images"]}
    assert list(rows) == [f"{name}#1", f"{name}#2"]
    alone = []
    with Model.load(job.file) as model:
        for page in PAGES:
            alone.append(model.score(np.asarray(page)).score)
    scores = [row["score"] for row in rows.values()]
    near = 0.1 if kind in {"gif", "webp"} else 1e-5  # of few colours, or lossy
    assert scores == pytest.approx(alone, rel=near)
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {
        f"{name}#1.heatmap.png", f"{name}#2.heatmap.png",
    }  # fmt: skip


def test_one_page_needs_no_number(cli: Cli, job: Job, tmp_path: Path) -> None:
    for kind in ("gif", "webp", "tiff"):
        PAGES[0].save(tmp_path / f"one.{kind}")
    named = tmp_path / "x.tif#2"  # a file of that name, and no page
    named.write_bytes(tiff(np.asarray(PAGES[0])))
    preview = np.asarray(PAGES[0].resize((24, 24)))
    main = np.asarray(PAGES[0])
    (tmp_path / "preview.tif").write_bytes(tiff(preview, main, per_page=[{254: 1}, {254: 0}]))
    (tmp_path / "mask.tif").write_bytes(tiff(main, preview[:, :, 0], per_page=[{}, {254: 4}]))
    PAGES[0].save(  # a camera's photograph with a second view
        tmp_path / "views.jpg", "MPO", save_all=True, append_images=[PAGES[1]], quality=95
    )
    done = cli("score", job.file, tmp_path, named, "--json")
    rows = {Path(row["image"]).name: row["score"] for row in done.json["images"]}
    assert set(rows) == {
        "one.gif", "one.webp", "one.tiff", "x.tif#2", "preview.tif", "mask.tif", "views.jpg",
    }  # fmt: skip
    assert rows["preview.tif"] == rows["mask.tif"] == rows["x.tif#2"] == rows["one.tiff"]


PLATE = np.asarray(PAGES[0])[:, :, 1].copy()
ROWS, COLUMNS = PLATE.shape
SHAPED = f'{{"shape": [3, {ROWS}, {COLUMNS}]}}'
IMAGEJ = "ImageJ=1.53t\nimages=3\nslices=3\n"
PPM = b"P6 %d %d 255\n" % (COLUMNS, ROWS) + np.asarray(PAGES[0]).tobytes()
PLAIN = b"P2 %d %d 255\n" % (COLUMNS, ROWS) + b" ".join(b"%d" % value for value in PLATE.flat)

LEFT_OUT = {
    "two.ppm": (PPM + PPM, "several images one after the other"),
    "two.pgm": (PLAIN + b"\n" + PLAIN, "several images one after the other"),
    "volume.tif": (tiff(PLATE, t32997=3, behind=2 * PLATE.tobytes()), "a volume of 3 planes"),
    "shaped.tif": (
        tiff(PLATE, description=SHAPED, behind=2 * PLATE.tobytes()), "says that it holds 3 images",
    ),
    "imagej.tif": (
        tiff(PLATE, description=IMAGEJ, behind=2 * PLATE.tobytes()), "says that it holds 3 images",
    ),
}  # fmt: skip


def test_images_that_are_no_pages_are_not_left_out_in_silence(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    for name, (data, words) in LEFT_OUT.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=words):
            load_image(data)
    done = cli("score", job.file, tmp_path, "--json")
    assert {row["decision"] for row in done.json["images"]} == {"error"}
    previews = tiff(PLATE, PLATE, PLATE, per_page=[{254: 1}] * 3)
    (tmp_path / "previews.tif").write_bytes(previews)
    scored = cli("score", job.file, tmp_path / "previews.tif", "--json")
    assert len(scored.json["images"]) == 3
    # a page that was saved with the description of its stack is one page
    assert load_image(tiff(PLATE, description=IMAGEJ)).shape == (ROWS, COLUMNS, 3)
    assert load_image(PPM + b"\n").shape == load_image(PLAIN).shape == (ROWS, COLUMNS, 3)


def test_only_files_are_waited_for(cli: Cli, job: Job, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for place in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        assert_refused(cli("score", job.file, place), str(place), "a pipe, a socket or a device")
        with pytest.raises(ImageError, match="not an image file"):
            load_image(place)


def test_a_damaged_page_is_named_and_the_others_are_scored(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    whole = tiff(*(np.asarray(page) for page in PAGES))
    clear = np.zeros((96, 96, 4), np.uint8)
    pages = tiff(np.asarray(PAGES[0]), clear, photometric=2, per_page=[{}, {338: 2}])
    (tmp_path / "s.tif").write_bytes(pages)
    done = cli("score", job.file, tmp_path / "s.tif", "--json")
    assert_refused(done, "s.tif#2 shows nothing")
    assert [row["decision"] == "error" for row in done.json["images"]] == [False, True]
    with pytest.raises(ImageError, match="holds several pages or frames"):
        load_image(whole)


def test_where_one_image_is_wanted_several_pages_are_refused_by_name(
    cli: Cli, job: Job, backbones: dict[str, str], tmp_path: Path
) -> None:
    shots = tmp_path / "set/test/good"
    shutil.copytree(job.shots, shots)
    stack = shots / "stack.gif"
    stack.write_bytes(several("GIF"))
    words = (str(stack), "holds several pages or frames")
    start = ("finetune", shots, "-o", tmp_path / "part", "--backbone", backbones["conv"])
    assert_refused(cli(*start, "--image-size", SIZE, "--rotations", 1), *words)
    part = shutil.copy(job.file, tmp_path / "part.onnx")
    assert_refused(cli("bank", "add", part, stack), *words)
    photograph(np.random.default_rng(77)).save(shots / "no shot.png")
    (left_out,) = evaluate(job.file, tmp_path / "set").not_scored
    assert words[1] in left_out.error
