"""A model that finds the part: made, exported, scored with, taught and served."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import fsad_edge
from fsad_edge import FinetuneOptions, FinetuneResult, Model
from fsad_edge.calibration.left_out import threshold_under
from fsad_edge.deploy.triton import add_model
from fsad_edge.errors import GoldenImageError, InputError
from fsad_edge.learning.learner import Learner
from fsad_edge.options import BundledEncoder, Decision, Doubt, Turning
from fsad_edge.runtime.arrays import Float64Array
from fsad_edge.runtime.heatmap import overlay
from fsad_edge.runtime.images import load_image
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_metadata, replace
from tests.commands import assert_refused
from tests.conftest import SIZE, Cli
from tests.loose_parts import HEIGHT, MARK, WIDTH, at, bolt, places, save_bolts
from tests.serving import serving

SIDE = 96


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set of loose parts, half of them with a mark."""
    folder = tmp_path_factory.mktemp("bolts")
    save_bolts(folder / "train/good", 5, 1)
    save_bolts(folder / "test/good", 6, 2)
    save_bolts(folder / "test/mark", 6, 3, defect=True)
    (folder / "ground_truth/mark").mkdir(parents=True)
    for index, place in enumerate(places(6, 3)):
        with_mark, without = (
            bolt(*place, 300 + index, defect=defect).astype(int) for defect in (True, False)
        )
        mask = np.abs(with_mark - without).max(axis=2) > 30
        Image.fromarray(mask).convert("L").point(lambda value: 255 * (value > 0)).save(
            folder / f"ground_truth/mark/{index}_mask.png"
        )
    return folder


@pytest.fixture(scope="module")
def part(data: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    options = FinetuneOptions(encoder=BundledEncoder.FAST, epochs=0, image_size=SIDE, bank_size=400)
    folder = tmp_path_factory.mktemp("model")
    return fsad_edge.finetune(data / "train/good", folder / "part", options)


@pytest.fixture(scope="module")
def file(part: FinetuneResult) -> Path:
    return fsad_edge.export(part).path


@pytest.fixture(scope="module")
def model(file: Path) -> Model:
    return Model.load(file, "cpu")


def test_what_shows_the_part_in_no_shot_never_counts(model: Model) -> None:
    locator, kept, own = model.metadata.locator, model.metadata.left_out, model.reference.weights
    assert locator is not None
    assert kept is not None
    assert own is not None
    cells = locator.cells(kept.rows, kept.columns).ravel()
    np.testing.assert_array_equal(own, cells)
    assert 0 < cells.sum() < len(cells)
    assert (kept.maps[:, cells] > 0).any()
    assert not kept.maps[:, ~cells].any()
    # Whatever the weights beside it are, the threshold is that of the part.
    found, _ = threshold_under(model.metadata, own, np.full(len(own), 2, np.float32))
    assert found.value == pytest.approx(2 * model.metadata.threshold.value)
    with pytest.raises(InputError, match="no place of the part would count"):
        threshold_under(model.metadata, own, np.float32(~cells))


def test_the_input_has_the_shape_of_the_part(part: FinetuneResult, model: Model) -> None:
    assert part.turning is Turning.UPRIGHT
    assert part.chosen.rotations == 1  # a turned bank would say the same again
    assert "turned upright" in part.located
    metadata = model.metadata
    assert part.chosen.sides == (metadata.width, metadata.height)
    assert metadata.width >= 2 * metadata.height
    assert metadata.width * metadata.height == pytest.approx(SIDE * SIDE, rel=0.4)
    assert metadata.locator is not None


def test_marks_are_told_from_good_parts_and_their_place_is_in_the_photograph(
    file: Path, data: Path
) -> None:
    figures = fsad_edge.evaluate(file, data).figures
    assert figures.image_auroc == 1
    assert figures.pixel_auroc is not None
    assert figures.pixel_auroc > 0.97


def test_a_zone_follows_the_part_however_it_lies(
    cli: Cli, file: Path, data: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copy(file, tmp_path / "bolt.onnx"))
    marked = sorted((data / "test/mark").iterdir())

    def ratios() -> Float64Array:
        found = cli("score", copied, *marked, "--json").json["images"]
        return np.array([one["ratio"] for one in found])

    before = ratios()
    middles = []
    for index in (0, 1):  # the same place, on photographs in which the part lies elsewhere
        mask = Image.fromarray(load_image(data / f"ground_truth/mark/{index}_mask.png"))
        mask.filter(ImageFilter.MaxFilter(35)).save(tmp_path / "painted.png")
        place = "--ignore", tmp_path / "painted.png", "--on", marked[index]
        done = cli("region", copied, *place, "--json")
        assert done.code == 0, done.err
        corners = np.array(done.json["zone"]["zone"]["polygon"])
        middles.append((corners.min(axis=0) + corners.max(axis=0)) / 2)
        assert (ratios() < 0.6 * before).all()
        assert cli("region", copied, "--undo", done.json["zone"]["id"]).code == 0
    assert middles[0] == pytest.approx(middles[1], abs=0.05)
    nothing = Image.new("L", (WIDTH, HEIGHT), 150)
    nothing.save(tmp_path / "nothing.png")
    refused = cli("region", copied, "--ignore", "1,1 20,1 20,20", "--on", tmp_path / "nothing.png")
    assert_refused(refused, "no single whole part is found")


def test_the_heat_map_is_highest_at_the_mark_and_zero_beside_the_part(model: Model) -> None:
    for index, place in enumerate(places(4, 8)):
        image = bolt(*place, index, defect=True)
        result = model.score(image)
        assert result.decision is Decision.ANOMALY
        rows, columns = result.anomaly_map.shape
        top, left = np.unravel_index(result.anomaly_map.argmax(), (rows, columns))
        x, y = at(*place, *MARK)
        assert np.hypot((left + 0.5) / columns * WIDTH - x, (top + 0.5) / rows * HEIGHT - y) < 20
        assert result.anomaly_map.max() > result.map_threshold
        assert result.regions[0].centroid == pytest.approx((x, y), abs=20)
        drawn = overlay(image, result.anomaly_map, result.map_threshold)
        changed = (drawn != image).any(axis=2)
        assert changed.any()
        down, across = np.nonzero(changed)
        assert np.hypot(across - place[0], down - place[1]).max() < 75  # on the part alone


def test_regions_and_the_place_are_told_at_the_full_size_of_the_file(model: Model) -> None:
    """A JPEG eight times as large is decoded at an eighth of its size."""
    for index, place in enumerate(places(2, 8)):
        image = Image.fromarray(bolt(*place, index, defect=True))
        buffer = io.BytesIO()
        image.resize((8 * WIDTH, 8 * HEIGHT)).save(buffer, "JPEG", quality=95)
        large, small = model.score(buffer.getvalue()), model.score(np.asarray(image))
        assert large.size == (8 * WIDTH, 8 * HEIGHT)
        assert large.place is not None
        assert small.place is not None
        assert (large.place.x, large.place.y) == pytest.approx(
            (8 * small.place.x, 8 * small.place.y), abs=16
        )
        assert large.place.width == pytest.approx(8 * small.place.width, rel=0.03)
        x, y = at(*place, *MARK)
        assert large.regions[0].centroid == pytest.approx((8 * x, 8 * y), abs=160)


def test_what_lies_far_from_the_part_does_not_change_a_score(model: Model) -> None:
    image = bolt(220, 120, 40, 3)
    dusty = image.copy()
    dusty[30:35, 40:46] = 15
    clean, with_dust = model.score(image), model.score(dusty)
    assert with_dust.score == pytest.approx(clean.score, rel=0.05)
    assert with_dust.decision is clean.decision


def test_dirt_beside_the_part_does_not_change_a_score_but_does_where_it_is_not_painted_over(
    file: Path, model: Model
) -> None:
    image = bolt(160, 120, 0, 3)
    dirty = image.copy()
    dirty[132:138, 146:152] = 15  # 5 pixels beside the shank
    clean = model.score(image)
    assert model.score(dirty).score == pytest.approx(clean.score, rel=0.25)
    assert model.score(dirty).decision is clean.decision
    before = without_painting(file)
    assert before.score(image).score == pytest.approx(clean.score, rel=1e-5)
    assert before.score(dirty).score > 1.5 * clean.score


def without_painting(file: Path) -> Model:
    """The same model as a file that says nothing of painting."""
    data = file.read_bytes()
    document = json.loads(read_metadata(data)[KEY])
    assert document["locator"].pop("painted") is True
    return Model.from_bytes(replace(data, {}, {KEY: json.dumps(document)}), "part.onnx", "cpu")


def test_cells_that_show_the_part_in_no_shot_have_no_score(model: Model) -> None:
    """A speck in a corner of the rectangle, beside the part."""
    prepared = model.prepare(bolt(160, 120, 0, 4))
    assert model.metadata.locator is not None
    [plain] = model.score_prepared(prepared[None])
    cells = model.metadata.locator.cells(*plain.patch_map.shape)
    assert not cells.all()
    assert (plain.patch_map[~cells] == 0).all()
    assert (plain.patch_map[cells] > 0).any()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (bolt(-500, 0, 0), "nothing differs from the ground"),
        (bolt(30, 120, 0), "cut off at the border"),
        (bolt(80, 60, 20, others=((220, 170, 100),)), "more than one is in view"),
    ],
    ids=["empty", "cut off", "two"],
)
def test_a_part_that_is_not_found_is_not_judged(model: Model, image: Any, words: str) -> None:
    result = model.score(image)
    assert result.decision is Decision.NOT_JUDGED
    assert not result.good
    assert Doubt.NOT_FOUND in result.doubts
    assert words in result.reasons[-1].text
    assert np.isfinite(result.score)


def test_golden_images_go_through_the_locator(file: Path, model: Model) -> None:
    model.check_golden()
    assert model.metadata.locator is not None
    data = file.read_bytes()
    metadata = Metadata.from_json(read_metadata(data)[KEY], "part.onnx")
    assert metadata.locator is not None
    document = metadata.to_json().replace('"turned": true', '"turned": false')
    template = Metadata.from_json(metadata.to_json(), "part.onnx").to_json()
    assert template == metadata.to_json()
    start = document.index('"template": "') + len('"template": "')
    document = document[:start] + document[document.index('"', start) :]
    wrong = Model.from_bytes(replace(data, {}, {KEY: document}), "part.onnx", "cpu")
    with pytest.raises(GoldenImageError):
        wrong.check_golden()


def test_a_bad_place_is_taught_in_pixels_of_the_photograph(
    file: Path, data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "part.onnx"
    copy.write_bytes(file.read_bytes())
    image = data / "test/mark/0.png"
    place = places(6, 3)[0]
    x, y = (round(value) for value in at(*place, *MARK))
    with Model.load(copy, "cpu") as model, Learner.open(copy, model) as learner:
        before = model.score(image)
        with pytest.raises(InputError, match="nothing of the image that the model looks at"):
            learner.reject(image.read_bytes(), "Anna", box=(0, 0, 12, 12), force=True)
        learner.reject(image.read_bytes(), "Anna", box=(x - 6, y - 6, x + 6, y + 6), force=True)
        assert learner.rejection is not None
        state = learner.state
        assert state is not None
        model.set_state(state)
        after = model.score(image)
    assert after.score > before.score
    row, column = np.unravel_index(after.anomaly_map.argmax(), after.anomaly_map.shape)
    rows, columns = after.anomaly_map.shape
    assert np.hypot((column + 0.5) / columns * WIDTH - x, (row + 0.5) / rows * HEIGHT - y) < 20


def test_a_good_image_is_learned_as_it_is_scored(file: Path, data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "part.onnx"
    copy.write_bytes(file.read_bytes())
    image = (data / "test/mark/1.png").read_bytes()
    with Model.load(copy, "cpu") as model, Learner.open(copy, model) as learner:
        before = model.score(image).score
        learner.add(image, "Anna", force=True)
        state = learner.state
        assert state is not None
        model.set_state(state)
        assert model.score(image).score < 0.7 * before


def test_the_commands_say_it(file: Path, part: FinetuneResult, data: Path, cli: Cli) -> None:
    told = cli("info", file).out
    assert "turned upright and cropped" in " ".join(told.split())
    assert cli("info", part.path).out.count("the part") == 1
    about = cli("info", file, "--json").json
    assert about["locator"]["turned"] is True
    assert "template" not in about["locator"]
    empty = file.with_name("empty.png")
    Image.fromarray(bolt(-500, 0, 0)).save(empty)
    scored = cli("score", file, empty)
    assert scored.code == 3
    assert "no single whole part is found" in " ".join(scored.out.split())


def test_parts_are_not_turned_upright_where_mirrored_ones_are_good(
    data: Path, tmp_path: Path, backbones: dict[str, str]
) -> None:
    """A mirrored part agrees with no angle of the template: the bank is turned instead."""
    options = FinetuneOptions(
        backbones["conv"], image_size=SIDE, strides=(16,), flip=True, align=False, epochs=0
    )
    made = fsad_edge.finetune(data / "train/good", tmp_path / "part", options)
    assert made.locator is not None
    assert not made.locator.turned
    assert made.turning is not Turning.UPRIGHT


def test_a_box_is_heard(data: Path, tmp_path: Path, cli: Cli, backbones: dict[str, str]) -> None:
    small = ("--image-size", SIZE, "--backbone", backbones["conv"], "--rotations", 1, "--no-align")
    made = cli(
        *("finetune", data / "train/good", "-o", tmp_path / "box", "--locate", "box"),
        *(*small, "--epochs", 0, "--json"),
    ).json
    assert made["input"] == [SIZE, SIZE]  # a square has room for a part at any angle
    assert not made["turned_upright"]
    assert "--locate box" in made["located"]


def test_a_shot_without_a_part_is_named(data: Path, tmp_path: Path, cli: Cli) -> None:
    shots = tmp_path / "shots"
    shots.mkdir()
    for shot in sorted((data / "train/good").iterdir()):
        (shots / shot.name).write_bytes(shot.read_bytes())
    Image.fromarray(bolt(25, 120, 0, 9)).save(shots / "edge.png")
    done = cli(*("finetune", shots, "-o", tmp_path / "part", "--locate", "box", "--keep-outliers"))
    assert done.code == 2
    assert "edge.png" in done.err
    assert "border of the photograph" in " ".join(done.err.split())


def test_who_runs_the_graph_alone_is_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="finds the part in each photograph"):
        add_model(file, tmp_path / "models", "part")


def test_the_service_says_why_and_takes_no_tensors(file: Path, data: Path) -> None:
    empty = Image.fromarray(bolt(-500, 0, 0))
    with serving(file) as server, server.client() as client:
        about = client.get("/v1/models/part").json()
        assert (about["located"], about["turned_upright"]) == (True, True)
        photograph = (data / "test/mark/0.png").read_bytes()
        headers = {"Content-Type": "image/png"}
        [scored] = client.post("/v1/score", content=photograph, headers=headers).json()["results"]
        with Model.load(file, "cpu") as model:
            assert scored["score"] == pytest.approx(model.score(photograph).score, rel=1e-5)
        blank = file.with_name("blank.png")
        empty.save(blank)
        content = blank.read_bytes()
        [scored] = client.post("/v1/score", content=content, headers=headers).json()["results"]
        assert scored["doubts"][-1] == "not_found"
        assert load_image(content).shape == (HEIGHT, WIDTH, 3)
        shape = [1, about["height"], about["width"], 3]
        tensor = {"name": "image", "shape": shape, "datatype": "UINT8", "data": [0]}
        answer = client.post("/v2/models/part/infer", json={"inputs": [tensor]})
        assert answer.status_code == 400
        assert "/v1/score" in answer.text
