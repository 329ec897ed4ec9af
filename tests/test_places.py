"""Images compared with the shots place by place: what is missing, extra or somewhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import fsad_edge
from fsad_edge import ExportOptions, Model
from fsad_edge.calibration.placing import (
    PLACE_RATE,
    SAME_PLACE,
    fit_places,
    place_prediction,
    same_place_share,
)
from fsad_edge.errors import ModelFileError
from fsad_edge.learning.export import export_learned
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.zones_asked import AskedZone
from fsad_edge.options import Precision
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.metadata import ByPlace
from fsad_edge.runtime.model_file import PLACES
from fsad_edge.runtime.onnx_file import replace as replace_in_file
from fsad_edge.runtime.places import place_distances, unit
from fsad_edge.runtime.result import OUT_OF_PLACE
from fsad_edge.runtime.zones import ZoneKind
from tests.conftest import Cli

SIDE = 224

#: Where the label is in good photographs, and where the hole is: left and top, pixels.
LABEL, HOLE = (130, 40), (50, 140)

FAST = ["--encoder", "fast", "--image-size", SIDE, "--epochs", 0, "--budget-s", 0]


def plate(seed: int, label: tuple[int, int] | None = LABEL, holes: int = 1) -> Image.Image:
    """A brushed plate with a printed label, and with holes of which the first is as in all."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 3, (SIDE, 1, 1)) + rng.normal(0, 3, (SIDE, SIDE, 1))
    pixels = np.array([118.0, 122.0, 130.0]) + rng.normal(0, 2) + grain
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    moved = rng.integers(-1, 2, 2)
    for hole in range(holes):
        x, y = HOLE[0] + moved[0] + 80 * hole, HOLE[1] + moved[1]
        draw.ellipse((x, y, x + 40, y + 40), (40, 42, 46))
    if label is not None:
        x, y = label[0] + moved[0], label[1] + moved[1]
        draw.rectangle((x, y, x + 60, y + 36), (230, 225, 200))
        for line in range(4):
            draw.line((x + 6, y + 6 + 8 * line, x + 54, y + 6 + 8 * line), (40, 60, 120), 3)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shots; and good parts, one without its label, one with it elsewhere, one with a hole too
    many."""
    folder = tmp_path_factory.mktemp("plates")
    pictures = {f"shots/{index}.png": plate(index) for index in range(6)}
    pictures |= {f"good/{index}.png": plate(100 + index) for index in range(4)}
    pictures |= {
        "bad/missing.png": plate(200, label=None),
        "bad/moved.png": plate(201, label=(20, 30)),
        "bad/extra.png": plate(202, holes=2),
    }
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(exist_ok=True)
        picture.save(folder / name)
    return folder


@pytest.fixture(scope="module")
def file(cli: Cli, folder: Path) -> Path:
    """The model of the plates, made by the command line."""
    made = cli("finetune", folder / "shots", "-o", folder / "part", *FAST, "--json").json
    assert made["places_compared"] is True
    assert "look most like the same places of the others" in made["by_place"]
    assert cli("export", folder / "part").code == 0
    return folder / "part.onnx"


def test_what_is_missing_extra_or_elsewhere_is_said(cli: Cli, file: Path, folder: Path) -> None:
    found = cli("score", file, folder / "bad", "--json").json["images"]
    assert {Path(row["image"]).stem for row in found} == {"missing", "moved", "extra"}
    for row in found:
        assert row["out_of_place"] == OUT_OF_PLACE
        assert row["place_ratio"] > 1
        assert row["ratio"] >= row["place_ratio"]
    said = cli("score", file, folder / "bad").out
    assert said.count(f"({OUT_OF_PLACE}; ") == 3
    for row in cli("score", file, folder / "good", "--json").json["images"]:
        assert row["out_of_place"] is None
        assert row["place_ratio"] < 1


def test_the_map_shows_the_place(file: Path, folder: Path) -> None:
    with Model.load(file) as model:
        result = model.score(folder / "bad/missing.png")
        assert result.anomaly_map.shape == (28, 28)
        y, x = np.unravel_index(result.anomaly_map.argmax(), (28, 28))
        assert result.anomaly_map.max() == pytest.approx(result.score, rel=1e-5)
        # The label, and the half of a patch around it that its features reach.
        assert LABEL[0] - 16 <= 8 * x + 4 <= LABEL[0] + 76
        assert LABEL[1] - 16 <= 8 * y + 4 <= LABEL[1] + 52


def test_info_says_whether_and_why(cli: Cli, file: Path) -> None:
    document = cli("info", file, "--json").json
    assert document["by_place"]["on"] is True
    assert len(document["by_place"]["scores"]) == 6
    assert max(document["by_place"]["scores"]) < 1
    for path in (file, file.with_suffix("")):
        assert "places" in cli("info", path).out


def test_what_comparing_places_assumes_and_costs_is_said(
    cli: Cli, file: Path, folder: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    made = cli("finetune", folder / "shots", "-o", part, *FAST)
    for said in (made.out, cli("info", file).out):
        words = " ".join(said.split())
        assert "every kind of good part must be among the shots" in words
        assert "may reject half as many in addition" in words
    assert "each shot has a place score of" in " ".join(made.out.split())
    off = tmp_path / "off"
    made = cli("finetune", folder / "shots", "-o", off, *FAST, "--place", "off")
    assert "among the shots" not in made.out
    assert "in addition" not in made.out


def test_the_place_score_counts_in_the_expected_false_alarms(
    cli: Cli, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "part.onnx"
    copy.write_bytes(file.read_bytes())
    before = cli("threshold", copy, "--json").json["expected_false_alarms"]
    assert before == pytest.approx(0.01 * (1 + PLACE_RATE), rel=0.01)
    assert "0.5 % of them because places are compared" in cli("threshold", copy).out
    cli("threshold", copy, "--ratio", 2, "--force")
    assert cli("threshold", copy, "--json").json["expected_false_alarms"] < before / 3


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.2])
def test_at_the_threshold_places_reject_their_share(rate: float) -> None:
    by_place = ByPlace(True, "compared", [0.4, 0.6], [0.2, 0.3, 0.4, 0.5, 0.6])
    known = place_prediction(by_place, rate)
    assert known is not None
    assert known.share_above(1.0) == pytest.approx(PLACE_RATE * rate, rel=0.01)
    assert known.share_above(1.2) < known.share_above(1.0) < known.share_above(0.8)
    assert place_prediction(None, rate) is None
    assert place_prediction(ByPlace(False, "not compared"), rate) is None


def test_it_can_be_left_out(cli: Cli, file: Path, folder: Path, tmp_path: Path) -> None:
    part = tmp_path / "off"
    made = cli("finetune", folder / "shots", "-o", part, *FAST, "--place", "off", "--json").json
    assert made["places_compared"] is False
    assert made["by_place"] == "not compared, --place off"
    cli("export", part)
    off = part.with_suffix(".onnx")
    with Model.load(off) as without, Model.load(file) as model:
        assert without.reference.place_bank is None
        assert off.stat().st_size < file.stat().st_size
        photograph = folder / "bad/moved.png"
        one, other = without.score(photograph), model.score(photograph)
        assert one.place_score is None
        assert one.place_ratio is None
        assert one.out_of_place is None
        assert one.threshold == pytest.approx(other.threshold)
        assert one.score < other.score


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--rotations", 12], "turned or mirrored parts are good"),
        (["--flip"], "turned or mirrored parts are good"),
        (["--score", "image"], "the score of the whole image decides"),
    ],
)
def test_what_cannot_be_compared_is_refused_where_it_is_asked_for(
    cli: Cli, folder: Path, tmp_path: Path, options: list[str], why: str
) -> None:
    words = ["finetune", folder / "shots", "-o", tmp_path / "part", *FAST, *options]
    assert why in cli(*words, "--place", "on").err


def test_few_shots_are_not_compared(cli: Cli, folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for index in range(2):
        plate(index).save(few / f"{index}.png")
    words = ["finetune", few, "-o", tmp_path / "part", *FAST]
    assert cli(*words, "--json").json["by_place"] == "not compared, because that takes 5 shots"
    assert "that takes 3 shots" in cli(*words, "--force", "--place", "on").err


def test_shots_that_show_the_same_elsewhere_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 196, 17)).astype(np.float32)
    same = one + rng.normal(0, 0.1, (5, 196, 17)).astype(np.float32)
    everywhere = np.stack([rng.permuted(shot, axis=0) for shot in same])
    counted = np.ones(196, np.float32)
    assert same_place_share(same, (14, 14), counted) > SAME_PLACE
    assert same_place_share(everywhere, (14, 14), counted) < SAME_PLACE / 2
    # What does not count may be anything.
    half = np.where(np.arange(196) < 98, 1, 0).astype(np.float32)
    mixed = np.where(half[:, None] > 0, same, everywhere)
    assert same_place_share(mixed, (14, 14), half) > SAME_PLACE


def test_another_colour_at_a_place_weighs_less_than_something_else() -> None:
    """What a change of colours does to the features is shrunk, also where no shot shows it."""
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 196, 17)).astype(np.float32)
    shots = one + rng.normal(0, 0.1, (5, 196, 17)).astype(np.float32)
    colour, thing = np.zeros((2, 17), np.float32)
    colour[0], thing[1] = 2, 2
    made = fit_places(shots, (14, 14), np.ones(196, np.float32), 1.0, 0.01, shots + colour)
    rows = [unit(unit(part[..., :-1]) @ made.projection) for part in (one + colour, one + thing)]
    coloured, other = (place_distances(row, made.bank)[0].mean() for row in rows)
    assert coloured < other / 5


def test_a_part_that_is_taught_as_good_is_good(file: Path, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "part.onnx"
    copy.write_bytes(file.read_bytes())
    moved = (folder / "bad/moved.png").read_bytes()
    with Model.load(copy) as model, Learner.open(copy, model) as learner:
        entry = learner.add(moved, "someone", force=True)
        taught = model.score(moved)
        assert taught.place_score == pytest.approx(0, abs=1e-4)
        assert taught.good
        assert model.score(folder / "bad/missing.png").out_of_place == OUT_OF_PLACE
        data = export_learned(copy, model, learner)
        learner.undo(entry.id, "someone")
        assert model.score(moved).out_of_place == OUT_OF_PLACE
    with Model.from_bytes(data, "new.onnx") as new:
        assert new.score(moved).score == pytest.approx(taught.score, rel=1e-4)


def test_what_a_place_may_differ_by_does_not_depend_on_zones_elsewhere(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "part.onnx"
    copy.write_bytes(file.read_bytes())
    missing = folder / "bad/missing.png"
    corner = AskedZone(ZoneKind.IGNORE, ((0.0, 0.6), (0.5, 0.6), (0.5, 1.0), (0.0, 1.0)))
    label = AskedZone(ZoneKind.IGNORE, ((0.3, 0.0), (1.0, 0.0), (1.0, 0.6), (0.3, 0.6)))
    with Model.load(copy) as model, Learner.open(copy, model) as learner:
        before, threshold = model.score(missing).place_ratio, model.threshold
        learner.add_zone(corner, "someone", force=True)
        assert model.threshold != pytest.approx(threshold, rel=1e-3)
        assert model.score(missing).place_ratio == pytest.approx(before, rel=1e-3)
        learner.add_zone(label, "someone", force=True)
        assert model.score(missing).good


def test_half_of_the_arrays_is_damage(file: Path) -> None:
    data = file.read_bytes()
    with Model.load(file, golden=False) as model:
        reference: ReferenceModel = model.reference
    for name in PLACES:
        array = reference.as_inputs()[name].copy()
        array.flat[0] = np.nan
        with pytest.raises(ModelFileError, match=f"'{name}' holds values"):
            Model.from_bytes(replace_in_file(data, {name: array}, {}), "part.onnx")


def test_in_other_precisions_the_same_is_found(folder: Path, file: Path, tmp_path: Path) -> None:
    assert file.exists()
    made = fsad_edge.export(
        folder / "part",
        tmp_path / "int8.onnx",
        ExportOptions(precision=Precision.INT8, allow_drift=1.0),
    )
    with Model.load(made.path) as model:
        for name in ("missing", "moved", "extra"):
            assert model.score(folder / f"bad/{name}.png").out_of_place == OUT_OF_PLACE
        assert all(model.score(path).good for path in (folder / "good").iterdir())
