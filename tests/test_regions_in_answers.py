"""Regions in every answer: the command line, the service and its receivers; pixels, millimetres."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from fsad_edge import Model
from tests.commands import assert_refused
from tests.conftest import Cli, Job, photograph
from tests.serving import Server, encoded, serving, wait_until
from tests.test_serve_sources import Receiver, lines

JPEG = {"Content-Type": "image/jpeg"}

#: Of the photograph below.
WIDTH, HEIGHT = 1152, 1008

#: How a picture is turned that was turned by these degrees before, by the number of EXIF.
TURNED = {1: 0, 3: 180, 6: 90, 8: 270}


@pytest.fixture(scope="module")
def wide(bundled_file: Path) -> Image.Image:
    """A photograph with a defect, so large that a JPEG of it is decoded at a fraction."""
    small = photograph(np.random.default_rng(6), defect=True)
    found = small.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    with Model.load(bundled_file) as model:
        regions = model.score(np.asarray(found)).regions
    assert regions
    assert regions[0].box[1] > 0.1 * HEIGHT  # not symmetrical: a turn would show
    return found


@pytest.fixture(scope="module")
def server(bundled_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("regions")
    file = Path(shutil.copy(bundled_file, folder / "part.onnx"))
    other = shutil.copy(bundled_file, folder / "other.onnx")
    with serving(file, f"other={other}", "--mm-per-px", "other=0.05") as started:
        yield started


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver([])
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


def score(client: httpx.Client, data: bytes, **query: str) -> Any:
    answer = client.post("/v1/score", params={"model": "part", **query}, content=data, headers=JPEG)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]


def assert_near(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], pixels: float) -> None:
    """Regions of two files of one photograph: JPEG changes it a little."""
    assert len(ours) >= 1
    assert ours[0]["box"] == pytest.approx(theirs[0]["box"], abs=pixels)
    assert ours[0]["centroid"] == pytest.approx(theirs[0]["centroid"], abs=pixels)
    assert ours[0]["area"] == pytest.approx(theirs[0]["area"], rel=0.1)


def test_a_good_part_has_no_region_and_a_rejected_one_has(cli: Cli, job: Job) -> None:
    done = cli("score", job.file, job.shots, job.scratched, "--json")
    rows = done.json["images"]
    assert {row["decision"] for row in rows} == {"good", "anomaly"}
    for row in rows:
        assert (row["width"], row["height"], row["mm_per_px"]) == (96, 96, None)
        assert bool(row["regions"]) == (row["decision"] == "anomaly")
        assert row["more_regions"] == 0
        for region in row["regions"]:
            assert region.keys() == {
                "number", "box", "area", "centroid", "polygon", "peak", "mean", "ratio",
            }  # fmt: skip
    first = next(row for row in rows if row["regions"])
    assert first["regions"][0]["ratio"] == pytest.approx(first["ratio"], abs=1e-3)
    table = cli("score", job.file, job.scratched)
    x, y = first["regions"][0]["centroid"]
    assert f" px) at {x:.0f}, {y:.0f}" in table.out
    printed = list(csv.DictReader(io.StringIO(cli("score", job.file, job.scratched, "--csv").out)))
    assert all("px² (" in row["regions"] for row in printed)


def test_an_image_that_is_not_judged_has_its_regions(
    cli: Cli, careful_file: Path, foreign: Path
) -> None:
    (row,) = cli("score", careful_file, foreign, "--json").json["images"]
    assert row["decision"] == "not_judged"
    assert row["regions"]


def test_a_scale_adds_millimetres(cli: Cli, job: Job) -> None:
    done = cli("score", job.file, job.scratched, "--json", "--mm-per-px", "0.05")
    for row in done.json["images"]:
        assert row["mm_per_px"] == 0.05
        for region in row["regions"]:
            assert region["area_mm2"] == pytest.approx(region["area"] * 0.0025, rel=5e-4)
            assert region["box_mm"] == pytest.approx([0.05 * x for x in region["box"]], rel=5e-4)
            centroid = [0.05 * x for x in region["centroid"]]
            assert region["centroid_mm"] == pytest.approx(centroid, rel=5e-4)
    assert "mm² (" in cli("score", job.file, job.scratched, "--mm-per-px", "0.05").out


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1e-7", "1001"])
def test_a_scale_out_of_bounds_is_refused(cli: Cli, job: Job, given: str) -> None:
    done = cli("score", job.file, job.scratched, f"--mm-per-px={given}")
    assert_refused(done, "from 1e-06 to 1000: give the millimetres that one pixel")


@pytest.mark.parametrize("orientation", TURNED)
def test_pixels_are_those_of_the_photograph_as_it_is_seen(
    cli: Cli,
    bundled_file: Path,
    client: httpx.Client,
    wide: Image.Image,
    tmp_path: Path,
    orientation: int,
) -> None:
    """Whatever the EXIF says, and although a JPEG is decoded at an eighth of its size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = wide.rotate(TURNED[orientation], expand=True)
    data = encoded(stored, exif=exif, quality=95)
    (tmp_path / "one.jpg").write_bytes(data)
    wide.save(tmp_path / "whole.png")
    done = cli("score", bundled_file, tmp_path / "one.jpg", tmp_path / "whole.png", "--json")
    one, whole = done.json["images"]
    assert (one["width"], one["height"]) == (whole["width"], whole["height"]) == (WIDTH, HEIGHT)
    assert_near(one["regions"], whole["regions"], pixels=0.05 * WIDTH)
    told = score(client, data)
    assert (told["width"], told["height"]) == (WIDTH, HEIGHT)
    assert_near(told["regions"], one["regions"], pixels=0.2)


def test_odd_sizes_are_whole_again(
    cli: Cli, bundled_file: Path, wide: Image.Image, tmp_path: Path
) -> None:
    """A fraction of them is rounded up, so that it cannot be multiplied back."""
    for index, size in enumerate([(1201, 807), (1207, 801), (515, 999)]):
        wide.resize(size).save(tmp_path / f"{index}.jpg")
        (row,) = cli("score", bundled_file, tmp_path / f"{index}.jpg", "--json").json["images"]
        assert (row["width"], row["height"]) == size
        assert row["regions"][0]["box"][2] <= size[0]


def test_a_crop_of_a_decoded_image_is_a_photograph_of_its_own(
    bundled_file: Path, wide: Image.Image
) -> None:
    with Model.load(bundled_file) as model:
        image = model.decode(encoded(wide))
        assert isinstance(image, Image.Image)
        assert max(image.size) < WIDTH
        assert model.prepared(image).full_size == (WIDTH, HEIGHT)
        cropped = image.crop((10, 10, 110, 90))
        assert model.prepared(cropped).full_size == (100, 80)
        assert model.prepared(np.asarray(image)).full_size == image.size


def test_the_service_gives_regions_wherever_it_gives_results(
    client: httpx.Client, wide: Image.Image
) -> None:
    data = encoded(wide)
    told = score(client, data)
    assert told["mm_per_px"] is None
    assert told["regions"]
    assert "area_mm2" not in told["regions"][0]
    drawn = score(client, data, heatmap="png")
    assert drawn["regions"] == told["regions"]
    picture = base64.b64decode(drawn["heatmap"].partition(",")[2])
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.size == (800, 700)
    kept = client.get(f"/v1/results/{told['id']}").json()
    assert kept["regions"] == told["regions"]
    recent = client.get("/v1/recent", params={"decision": told["decision"]}).json()["results"]
    assert next(one for one in recent if one["id"] == told["id"])["regions"] == told["regions"]


def test_each_model_has_its_own_scale(client: httpx.Client, wide: Image.Image) -> None:
    told = score(client, encoded(wide), model="other")
    assert told["mm_per_px"] == 0.05
    for region in told["regions"]:
        assert region["area_mm2"] == pytest.approx(region["area"] * 0.0025, rel=5e-4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["0.05"], "several models are served: name one"),
        (["part=0"], "from 1e-06 to 1000"),
        (["part=wide"], "is neither a number nor the name of a model"),
        (["part=0.1", "part=0.2"], "given twice for the model part"),
    ],
)
def test_scales_of_the_service_that_cannot_be_are_refused(
    cli: Cli, job: Job, tmp_path: Path, given: list[str], sentence: str
) -> None:
    other = shutil.copy(job.file, tmp_path / "other.onnx")
    options = [f"--mm-per-px={one}" for one in given]
    done = cli("serve", f"part={job.file}", other, "--port", "0", *options)
    assert_refused(done, sentence)


def test_watched_folders_and_receivers_get_regions(
    bundled_file: Path, tmp_path: Path, wide: Image.Image, receiver: Receiver
) -> None:
    file = shutil.copy(bundled_file, tmp_path / "part.onnx")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "reject.jpg").write_bytes(encoded(wide))
    results = folder / "fsad-edge/results.jsonl"
    options = ("--watch", folder, "--webhook", receiver.url, "--mm-per-px", "0.05")
    with serving(file, *options):
        wait_until(lambda: lines(results) and receiver.got)
    (line,) = lines(results)
    assert line["regions"]
    assert line["regions"][0]["area_mm2"] > 0
    assert receiver.got[0]["regions"] == line["regions"]
    # A service that starts anew still has them, and takes lines of a version without them.
    older = {
        key: value
        for key, value in line.items()
        if key not in {"regions", "more_regions", "mm_per_px"}
    }
    with results.open("a") as opened:
        opened.write(json.dumps({**older, "id": line["id"] + 1}) + "\n")
    with serving(file, "--watch", folder) as server, server.client() as client:
        recent = client.get("/v1/recent").json()["results"]
    assert [one["regions"] for one in recent] == [line["regions"], []]
