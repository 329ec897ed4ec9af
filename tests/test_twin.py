"""The twin of a region: a good place of the shots, and a true sentence about the difference."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

import fsad_edge
from fsad_edge import Model
from fsad_edge.runtime.folders import Reason, classify
from fsad_edge.runtime.found_regions import Region
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.serve import create_app
from fsad_edge.twin import find_twins
from fsad_edge.twin.comparison import CLEAR, compare
from fsad_edge.twin.measures import MEASURES, Part, Quantity
from tests.conftest import Cli, Job, photograph

Draw = Callable[[ImageDraw.ImageDraw], None]

#: Left, top, right and bottom of the place that defects are drawn at: beside the hole of the plate.
PLACE = (12, 12, 36, 36)


def region_at(box: tuple[float, float, float, float], ratio: float = 3.4) -> Region:
    left, top, right, bottom = box
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    area = (right - left) * (bottom - top)
    middle = ((left + right) / 2, (top + bottom) / 2)
    return Region(1, box, area, middle, corners, peak=0.34, mean=0.2, ratio=ratio)


def drawn(draw: Draw, side: int = 96) -> NDArray[np.uint8]:
    image = photograph(np.random.default_rng(11), side)
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def spot(colour: tuple[int, int, int], radius: int) -> Draw:
    def draw(canvas: ImageDraw.ImageDraw) -> None:
        x, y = (PLACE[0] + PLACE[2]) // 2, (PLACE[1] + PLACE[3]) // 2
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    return draw


def scratch(colour: tuple[int, int, int]) -> Draw:
    return lambda canvas: canvas.line((14, 15, 34, 33), colour, 2)


def nothing(canvas: ImageDraw.ImageDraw) -> None: ...


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (spot((225, 229, 236), 10), "Brighter than in any of five shots: "),
        (spot((225, 229, 236), 3), "Has brighter spots than in any of five shots: "),
        (spot((20, 22, 26), 10), "Darker than in any of five shots: "),
        (spot((20, 22, 26), 3), "Has darker spots than in any of five shots: "),
        (spot((180, 105, 60), 10), "Yellower than in any of five shots: yellow over blue "),
        (spot((190, 92, 128), 10), "Redder than in any of five shots: red over green "),
        (spot((70, 148, 120), 10), "Greener than in any of five shots: green over red "),
        (spot((105, 110, 215), 10), "Bluer than in any of five shots: blue over yellow "),
        (scratch((245, 245, 245)), "Has brighter spots than in any of five shots: "),
        (scratch((10, 10, 10)), "Has darker spots than in any of five shots: "),
        (nothing, "Differs in its pattern, not clearly in brightness, colour or fine detail: "),
    ],
)
def test_the_sentence_says_what_a_defect_is(bundled_file: Path, draw: Draw, words: str) -> None:
    with Model.load(bundled_file) as model:
        (twin,) = find_twins(model, drawn(draw), [region_at(PLACE)])
    assert twin.sentence.startswith(words)
    assert twin.sentence.endswith(
        "; up to 3.4 times the threshold, over 576 px² (24 × 24 px) at 24, 24."
    )
    assert re.search(r" -?[\d.]+ against -?[\d.]+ ± [\d.]+", twin.sentence)


def test_a_missing_piece_shows_what_should_be_there(bundled_file: Path) -> None:
    box = (30.0, 30.0, 66.0, 66.0)
    plate = Image.fromarray(drawn(nothing))
    plate.paste(plate.crop((0, 0, 96, 24)), (0, 24))
    plate.paste(plate.crop((0, 0, 96, 48)), (0, 48))  # the hole is gone
    with Model.load(bundled_file) as model:
        (twin,) = find_twins(model, np.asarray(plate), [region_at(box)])
    assert twin.sentence.startswith("Brighter than in any of five shots: ")
    main = twin.compared.main
    assert main is not None
    assert main.value == pytest.approx(121, abs=15)
    assert main.mean == pytest.approx(60, abs=15)  # the hole, and corners of the box
    # The twin is the hole, where it lies in the shot; the difference is bright there.
    middle = tuple(side // 2 for side in twin.good.shape[:2])
    assert twin.good[middle].mean() < 60 < twin.crop[middle].mean() - 40
    assert twin.difference[middle].mean() > 180
    assert twin.crop.shape == twin.good.shape == twin.difference.shape


def test_figures_are_those_of_the_pixels(bundled_file: Path) -> None:
    with Model.load(bundled_file) as model:
        (twin,) = find_twins(model, drawn(spot((225, 229, 236), 40)), [region_at(PLACE)])
    brightness = twin.compared.figures[0]
    assert (brightness.quantity, brightness.part) == (Quantity.BRIGHTNESS, Part.MEAN)
    assert brightness.value == pytest.approx(0.299 * 225 + 0.587 * 229 + 0.114 * 236, abs=1.5)
    assert len(brightness.shots) == 5
    assert brightness.mean == pytest.approx(np.mean(brightness.shots))
    assert brightness.spread == pytest.approx(np.std(brightness.shots, ddof=1))
    assert brightness.beyond == 5


def test_lengths_are_told_in_millimetres_where_the_scale_is_known(bundled_file: Path) -> None:
    with Model.load(bundled_file) as model:
        (twin,) = find_twins(model, drawn(nothing), [region_at(PLACE)], mm_per_px=0.05)
    assert twin.sentence.endswith(", over 1.44 mm² (1.2 × 1.2 mm) at 1.2, 1.2 mm.")


def test_a_photograph_of_another_size_has_the_same_twin(bundled_file: Path) -> None:
    image = drawn(spot((225, 229, 236), 10))
    large = np.asarray(Image.fromarray(image).resize((288, 288), Image.Resampling.BICUBIC))
    with Model.load(bundled_file) as model:
        (one,) = find_twins(model, image, [region_at(PLACE)])
        box = tuple(3.0 * side for side in PLACE)
        (other,) = find_twins(model, large, [region_at((box[0], box[1], box[2], box[3]))])
    values = [twin.compared.figures[0].value for twin in (one, other)]
    assert values[0] == pytest.approx(values[1], abs=2)
    assert one.shot == other.shot


def test_the_graph_scores_as_before(bundled_file: Path) -> None:
    image = drawn(spot((225, 229, 236), 10))
    with Model.load(bundled_file) as model:
        before = model.score(image)
        find_twins(model, image, [region_at(PLACE)])
        after = model.score(image)
    assert before.score == after.score
    np.testing.assert_array_equal(before.anomaly_map, after.anomaly_map)


numbers = st.floats(0, 255)


@given(st.data())
def test_a_sentence_claims_only_what_was_measured(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    region = np.array(data.draw(st.lists(numbers, min_size=10, max_size=10)))
    one = st.lists(numbers, min_size=10, max_size=10)
    shots = np.array(data.draw(st.lists(one, min_size=count, max_size=count)))
    found = compare(region, shots)
    assert len(found.figures) == len(MEASURES) == 10
    assert ("±" in found.words) == (count > 1)
    main = found.main
    if main is None:
        assert not any(figures.clear for figures in found.figures)
        large = [figures for figures in found.figures if figures.large]
        assert found.words.startswith("Differs in its pattern") == (not large)
        # A large difference is unclear only because the shots differ, too, and that is said.
        assert ("but not clearly" in found.words) == bool(large)
        assert all((figures.spread or 0) > 0 for figures in large)
        return
    assert abs(main.times) >= CLEAR
    values = np.array(main.shots)
    beyond = int((main.value > values).sum() if main.value > main.mean else
                 (main.value < values).sum())  # fmt: skip
    assert main.beyond == beyond >= 0.95 * count
    if beyond < count:
        assert f"{beyond} of {count} shots" in found.words
    more = main.value > main.mean
    # The measures are not below zero here, so that no colour is told by its opposite.
    if main.quantity is Quantity.BRIGHTNESS and main.part is Part.MEAN:
        assert found.words.startswith("Brighter than" if more else "Darker than")
    if main.quantity is Quantity.DETAIL:
        assert found.words.startswith("Rougher than" if more else "Smoother than")
    assert f"{main.value:.{int(main.quantity is Quantity.DETAIL)}f} against " in found.words


@pytest.mark.parametrize(
    ("place", "value", "others", "words"),
    [
        (1, 100, 200, "Its brightest parts are darker than"),
        (2, 200, 100, "Its darkest parts are brighter than"),
        (4, -10, 40, "Its reddest parts are less red than"),
        (5, 40, 0, "Its least red parts are redder than"),
        (7, -40, -10, "Its least yellow parts are yellower than"),
        (8, -10, -40, "Its yellowest parts are less yellow than"),
        (8, -40, -10, "Has yellower spots than"),
    ],
)
def test_the_words_for_a_part_of_the_pixels_are_read_once(
    place: int, value: float, others: float, words: str
) -> None:
    shots = np.zeros((5, len(MEASURES)))
    shots[:, place] = others
    region = shots[0].copy()
    region[place] = value
    assert compare(region, shots).words.startswith(f"{words} in any of five shots: ")


def test_a_large_difference_among_shots_that_differ_is_told() -> None:
    shots = np.full((5, len(MEASURES)), 90.0)
    shots[:, 0] = 65, 75, 90, 105, 115
    region = shots[0].copy()
    region[0] = 40
    assert compare(region, shots).words == (
        "Darker than the mean of five shots, but not clearly, because these differ much from one "
        "another there: 40 against 90 ± 21"
    )


def test_one_shot_has_no_spread() -> None:
    shots = np.full((1, len(MEASURES)), 140.0)
    region = shots[0].copy()
    region[0] = 212
    assert compare(region, shots).words == "Brighter than in the one shot: 212 against 140"
    assert compare(shots[0], shots).words.endswith("brightness 140 against 140 in the one shot")
    two = compare(region, np.concatenate([shots, shots + 1]))
    assert two.words == "Brighter than in either of two shots: 212 against 140 ± 0.7"


def test_the_command_draws_anomalies_and_says_why(cli: Cli, job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "why"
    images = [job.shots / "3.png", job.scratched]
    done = cli("score", job.file, *images, "--why", folder, "--json")
    assert done.code == 1, done.err
    good, *bad = done.json["images"]
    assert good["twins"] == []
    pictures = sorted(folder.rglob("*"))
    assert [path.name for path in pictures] == ["0.png.why.png", "1.png.why.png"]
    for row, picture in zip(bad, pictures, strict=True):
        assert row["why_error"] is None
        assert [one["region"] for one in row["twins"]] == [
            region["number"] for region in row["regions"][:3]
        ]
        for one in row["twins"]:
            assert one["name"] == f"{one['shot']}.png"
            assert "times the threshold" in one["sentence"]
            assert len(one["figures"][0]["shots"]) == 5
        assert classify(picture) is Reason.OWN
        with Image.open(picture) as drawn:
            assert drawn.width > 700
    table = cli("score", job.file, *images, "--why", folder)
    assert table.code == 1
    assert bad[0]["twins"][0]["sentence"] in table.out
    assert str(folder) in table.out
    scaled = cli("score", job.file, job.scratched, "--why", folder, "--mm-per-px", "0.1")
    assert " mm² (" in scaled.out


def test_pictures_that_cannot_be_written_are_told(cli: Cli, job: Job, tmp_path: Path) -> None:
    (tmp_path / "0.png.why.png").write_text("mine")
    done = cli("score", job.file, job.scratched, "--why", tmp_path)
    assert done.code == 2
    assert "1 picture of anomalies could not be made" in done.err
    assert (tmp_path / "0.png.why.png").read_text() == "mine"
    assert (tmp_path / "1.png.why.png").exists()


@pytest.fixture(scope="module")
def secret_file(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job's file, as ``--no-golden`` writes it."""
    path = tmp_path_factory.mktemp("secret") / "part.onnx"
    return fsad_edge.export(job.part, path, fsad_edge.ExportOptions(golden=False)).path


def test_a_file_without_pictures_says_how_to_get_them(
    cli: Cli, job: Job, secret_file: Path, tmp_path: Path
) -> None:
    done = cli("score", secret_file, job.scratched, "--why", tmp_path / "why")
    assert done.code == 2
    assert "--no-golden" in done.err
    assert not (tmp_path / "why").exists()


def served(file: Path) -> TestClient:
    return TestClient(create_app(file), base_url="http://localhost")


def scored(client: httpx.Client, image: Path) -> dict[str, object]:
    headers = {"Content-Type": "image/png"}
    answer = client.post("/v1/score", content=image.read_bytes(), headers=headers)
    result: dict[str, object] = answer.json()["results"][0]
    return result


def test_the_service_gives_shots_and_twins(job: Job) -> None:
    with served(job.file) as client:
        for number in range(5):
            answer = client.get(f"/v1/models/part/shots/{number}")
            assert answer.headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
        beyond = client.get("/v1/models/part/shots/5")
        assert (beyond.status_code, "5 shots" in beyond.json()["detail"]) == (404, True)
        assert client.get("/v1/models/part/shots/-1").status_code == 422
        assert client.get("/v1/models/other/shots/0").status_code == 404
        bad = scored(client, job.scratched / "0.png")
        regions = bad["regions"]
        assert isinstance(regions, list)
        twins = client.get(f"/v1/results/{bad['id']}/twin").json()["twins"]
        assert [one["region"] for one in twins] == [one["number"] for one in regions[:3]]
        for one in twins:
            sizes = {picture_size(one[name]) for name in ("crop", "twin", "difference")}
            assert len(sizes) == 1
            assert one["sentence"].endswith(".")
            assert len(one["figures"]) == 10
        only = client.get(f"/v1/results/{bad['id']}/twin?region=1").json()["twins"]
        assert only == twins[:1]
        assert client.get(f"/v1/results/{bad['id']}/twin?region=99").status_code == 404
        good = scored(client, job.shots / "0.png")
        assert client.get(f"/v1/results/{good['id']}/twin").json() == {"twins": []}
        assert client.get("/v1/results/1/twin").status_code == 404


def picture_size(url: str) -> tuple[int, int]:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).size


def test_the_service_says_why_there_is_no_twin(job: Job, secret_file: Path, tmp_path: Path) -> None:
    with served(secret_file) as client:
        bad = scored(client, job.scratched / "0.png")
        for path in (f"/v1/results/{bad['id']}/twin", "/v1/models/part/shots/0"):
            refused = client.get(path)
            assert refused.status_code == 409
            assert "--no-golden" in refused.json()["detail"]
    old = tmp_path / "part.onnx"
    metadata = Metadata.from_json(read_metadata(job.file.read_bytes())[KEY], "part.onnx")
    text = dataclasses.replace(metadata, origins=None).to_json()
    old.write_bytes(replace(job.file.read_bytes(), {}, {KEY: text}))
    with served(old) as client:
        refused = client.get("/v1/models/part/shots/0")
        assert refused.status_code == 409
        assert "fsad-edge export" in refused.json()["detail"]
    app = create_app(job.file, fsad_edge.serve.ServeOptions(keep_mb=0))
    with TestClient(app, base_url="http://localhost") as client:
        bad = scored(client, job.scratched / "0.png")
        refused = client.get(f"/v1/results/{bad['id']}/twin")
        assert refused.status_code == 404
        assert "no longer kept" in refused.json()["detail"]


def test_a_result_of_another_version_of_the_file_is_refused(job: Job, tmp_path: Path) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    app = create_app(file)
    with TestClient(app, base_url="http://localhost") as client:
        bad = scored(client, job.scratched / "0.png")
        served = app.service.models["part"]
        served.version = "0" * 64
        refused = client.get(f"/v1/results/{bad['id']}/twin")
        assert refused.status_code == 409
        assert "another version" in refused.json()["detail"]
