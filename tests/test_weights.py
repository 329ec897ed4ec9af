"""How much each place of a part counts: scores, thresholds and files under weights."""

from __future__ import annotations

import dataclasses
import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fsad_edge import FinetuneResult, Model
from fsad_edge.calibration.calibrate import Calibration, CalibrationSettings, calibrate
from fsad_edge.calibration.left_out import threshold_under
from fsad_edge.deploy.engine_source import read_source
from fsad_edge.errors import InputError, ModelFileError
from fsad_edge.learning.learner import Learner
from fsad_edge.learning.weighed import weighed_again
from fsad_edge.options import Decision, Doubt, ScoreKind
from fsad_edge.pipeline.model_directory import read_encoder, read_manifest, shot_paths
from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import MOST_WEIGHT
from fsad_edge.runtime.metadata import KEY, LeftOutMaps, Metadata
from fsad_edge.runtime.model import ScoringState
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.runtime.seal import sealed
from fsad_edge.synthesis import Shot, load_shot
from tests.conftest import Cli, photograph

#: Rows and columns of the map of 96 pixels.
GRID = (6, 6)


def plate(side: int, seed: int = 11) -> NDArray[np.uint8]:
    """A plate with a red spot at its left edge (0) or its right edge (1); without one (2)."""
    pixels = np.array(photograph(np.random.default_rng(seed)))
    if side < 2:
        pixels[44:54, 4 + 78 * side : 14 + 78 * side] = (160, 100, 100)
    return pixels


def halves(left: float, right: float) -> Float32Array:
    """Weights of both halves of the map."""
    weights = np.full(GRID, left, np.float32)
    weights[:, GRID[1] // 2 :] = right
    return weights.ravel()


def metadata_of(data: bytes) -> Metadata:
    return Metadata.from_json(read_metadata(data)[KEY], "the file")


def weighted(file: Path, weights: Float32Array, to: Path) -> Path:
    """A file whose cells count as much as ``weights`` say, with the thresholds that belong to it.

    Its golden images are left out: they would score otherwise.
    """
    data = file.read_bytes()
    metadata = metadata_of(data)
    own = np.ones_like(weights)
    threshold, map_threshold = threshold_under(metadata, own, weights)
    metadata = dataclasses.replace(
        metadata, threshold=threshold, map_threshold=map_threshold, golden=[]
    )
    to.write_bytes(replace(data, {"weights": weights}, {KEY: metadata.to_json()}))
    return to


def as_before_weights(data: bytes) -> bytes:
    """A file as the versions wrote it that had no weights: no such input, and of schema 2."""
    model = onnx.load_from_string(data)
    graph = model.graph
    [node] = [node for node in graph.node if "weights" in node.input]
    [distance] = [name for name in node.input if name != "weights"]
    for other in graph.node:
        for place, name in enumerate(other.input):
            other.input[place] = distance if name == node.output[0] else name
    graph.node.remove(node)
    for values in (graph.input, graph.initializer):
        values.remove(next(value for value in values if value.name == "weights"))
    document = json.loads(read_metadata(data)[KEY])
    del document["left_out"]
    document["schema"] = 2
    model.doc_string = ""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: json.dumps(document)})
    return sealed(model.SerializeToString())


def test_a_defect_passes_where_nothing_counts_and_is_found_elsewhere(
    cli: Cli, bundled_file: Path, tmp_path: Path
) -> None:
    for side in (0, 1):
        with Model.load(bundled_file, "cpu") as model:
            assert model.score(plate(side)).decision is Decision.ANOMALY
        ignored = halves(side != 0, side != 1)
        file = weighted(bundled_file, ignored, tmp_path / f"{side}.onnx")
        photographs = []
        for place in range(3):
            path = tmp_path / f"{place}.png"
            save(plate(place), path)
            photographs.append(path)
        done = cli("score", file, *photographs, "--json")
        found = [one["decision"] == "anomaly" for one in done.json["images"]]
        assert found == [side == 1, side == 0, False]
        with Model.load(file, "cpu") as model:
            result = model.score(plate(side))
        shown = result.patch_map.ravel()
        assert (shown[ignored == 0] == 0).all()
        assert (shown[ignored > 0] > 0).all()
        assert shown.max() <= result.map_threshold


def save(pixels: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(pixels).save(path)


def test_a_place_that_counts_twice_has_twice_the_ratio(bundled_file: Path) -> None:
    with Model.load(bundled_file, "cpu") as model:
        plain = model.score(plate(1))
        reference = model.reference.with_weights(halves(1, 2))
        metadata = model.metadata
        inputs = reference.as_inputs()
        model.set_state(ScoringState(metadata.threshold.value, metadata.map_threshold, inputs))
        twice = model.score(plate(1))
        assert twice.ratio == 2 * plain.ratio
        assert twice.image_score == plain.image_score
        np.testing.assert_array_equal(twice.patch_map[:, 3:], 2 * plain.patch_map[:, 3:])
        np.testing.assert_array_equal(twice.patch_map[:, :3], plain.patch_map[:, :3])
        # The file's own golden images are scored as the file says.
        model.check_golden()


def test_what_is_unlike_the_shots_does_not_depend_on_how_much_a_place_counts(
    bundled_file: Path, foreign: Path
) -> None:
    with Model.load(bundled_file, "cpu") as model:
        plain, part = model.score(foreign), model.score(plate(2))
        assert plain.decision is Decision.NOT_JUDGED
        assert part.decision is Decision.GOOD
        for weights in (halves(3, 3), halves(0.25, 8), halves(0, 1), halves(5, 0)):
            reference = model.reference.with_weights(weights)
            model.set_state(ScoringState(1e9, 1e9, reference.as_inputs()))
            assert model.score(plate(2)).decision is Decision.GOOD
            result = model.score(foreign)
            assert [one.doubt for one in result.reasons] == [Doubt.UNLIKE]
            if weights.all():
                assert result.reasons == plain.reasons


def test_models_of_one_graph_share_a_session_with_their_own_weights(
    bundled_file: Path, tmp_path: Path
) -> None:
    files = [
        weighted(bundled_file, halves(*pair), tmp_path / f"{index}.onnx")
        for index, pair in enumerate([(0, 1), (1, 0), (1, 1)])
    ]
    images = [plate(side) for side in range(3)]

    def scores(model: Model) -> list[float]:
        return [model.score(image).score for image in images]

    alone = []
    for file in files:
        with Model.load(file, "cpu") as model:
            alone.append(scores(model))
    assert alone[0] != alone[1] != alone[2]
    with Model.load(files[0], "cpu") as first:
        others = [Model.load(file, "cpu", share_with=first) for file in files[1:]]
        assert all(one.shares_with(first) for one in others)
        assert [scores(one) for one in (first, *others)] == alone
        [again] = {one.graph for one in (first, *others)}
        assert again == first.graph


class TestFilesOfBefore:
    """Files without weights score as they did, and say what to do where weights are asked for."""

    @pytest.fixture
    def file(self, bundled_file: Path, tmp_path: Path) -> Path:
        path = tmp_path / "before.onnx"
        path.write_bytes(as_before_weights(bundled_file.read_bytes()))
        return path

    def test_they_score_as_before(self, file: Path, bundled_file: Path, foreign: Path) -> None:
        with Model.load(bundled_file, "cpu") as new, Model.load(file, "cpu") as before:
            assert before.reference.weights is None
            assert "weights" not in before.reference.as_inputs()
            for image in (plate(0), plate(1), plate(2), foreign):
                one, other = new.score(image), before.score(image)
                assert (one.score, one.decision) == (other.score, other.decision)
                assert one.reasons == other.reasons
                np.testing.assert_array_equal(one.patch_map, other.patch_map)
            assert not Model.load(file, "cpu", share_with=new).shares_with(new)
            with pytest.raises(InputError, match="export it again"):
                before.reference.with_weights(halves(1, 1))
            with pytest.raises(InputError, match="export it again"):
                threshold_under(before.metadata, halves(1, 1), halves(0, 1))
        assert "weights" not in read_source(file).reference

    def test_they_are_taught_and_exported(self, cli: Cli, file: Path, tmp_path: Path) -> None:
        image, new = tmp_path / "good.png", tmp_path / "new.onnx"
        save(plate(2, seed=5), image)
        assert cli("bank", "add", file, image, "--force").code == 0
        assert cli("bank", "export", file, "-o", new).code == 0
        assert cli("score", new, image).code == 0
        with Model.load(new, "cpu") as model:
            assert model.reference.weights is None
            assert model.metadata.left_out is None


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (halves(0, 0), "all weights are 0, so that no place of the part would count"),
        (halves(-1, 1), "a weight is no number from 0 to 1,000,000"),
        (halves(1, 2 * MOST_WEIGHT), "a weight is no number from 0 to 1,000,000"),
    ],
)
def test_weights_with_which_nothing_can_be_scored_are_refused(
    bundled_file: Path, weights: Float32Array, words: str
) -> None:
    data = bundled_file.read_bytes()
    with pytest.raises(ModelFileError, match=rf"part\.onnx is damaged \({words}\): export it"):
        Model.from_bytes(replace(data, {"weights": weights}, {}), "part.onnx")
    with Model.load(bundled_file, "cpu") as model:
        with pytest.raises(InputError, match=words):
            model.reference.with_weights(weights)
        with pytest.raises(InputError, match=words):
            threshold_under(model.metadata, halves(1, 1), weights)
        with pytest.raises(InputError, match="the map has 36 cells"):
            model.reference.with_weights(weights[1:])
        with pytest.raises(InputError, match="the map has 6 x 6 cells"):
            threshold_under(model.metadata, halves(1, 1), np.ones(35, np.float32))


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A graph without a reference model, and what it was calibrated to."""

    session: OnnxSession
    shots: Sequence[Shot]
    settings: CalibrationSettings
    metadata: Metadata

    def under(self, weights: Float32Array) -> Calibration:
        return calibrate(self.session, self.shots, self.settings, weights=weights)


@pytest.fixture(scope="module", params=[5, 1])
def calibrated(
    request: pytest.FixtureRequest, bundled_part: FinetuneResult, bundled_file: Path
) -> Calibrated:
    manifest = read_manifest(bundled_part.path)
    encoder = read_encoder(bundled_part.path, manifest)
    graph = encoder.scoring_graph(ScoreKind.PATCH, None, 100)
    session = OnnxSession(graph.to_bytes(), "the graph", "cpu")
    paths = shot_paths(bundled_part.path, manifest)[: request.param]
    shots = [load_shot(path, 96, 96) for path in paths]
    chosen = CalibrationSettings(
        bank_size=100, align=False, gaussian_views=1, outliers=int(request.param == 5)
    )
    found = calibrate(session, shots, chosen)
    metadata = dataclasses.replace(
        metadata_of(bundled_file.read_bytes()),
        threshold=found.threshold,
        map_threshold=found.map_threshold,
        left_out=found.left_out,
    )
    return Calibrated(session, shots, chosen, metadata)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9), st.sampled_from([0.01, 1.0, 300.0]))
def test_the_threshold_under_weights_is_that_of_a_calibration_with_them(
    calibrated: Calibrated, seed: int, ignored: float, most: float
) -> None:
    rng = np.random.default_rng(seed)
    weights = (most * rng.uniform(0.1, 1, 36) * (rng.random(36) >= ignored)).astype(np.float32)
    weights[rng.integers(36)] = most
    wanted = calibrated.under(weights)
    own, metadata = np.ones(36, np.float32), calibrated.metadata
    threshold, map_threshold = threshold_under(metadata, own, weights)
    assert threshold.value == pytest.approx(wanted.threshold.value, rel=5e-3)
    assert map_threshold == pytest.approx(wanted.map_threshold, rel=5e-3)
    assert threshold.scores == pytest.approx(wanted.threshold.scores, rel=1e-3, abs=2e-6)
    assert threshold.prior_std == pytest.approx(wanted.threshold.prior_std, abs=2e-3)
    for name in ("method", "reliability", "rate_promised", "false_alarm_rate"):
        assert getattr(threshold, name) == getattr(wanted.threshold, name)
    # What is kept does not depend on the weights that it was measured with.
    assert wanted.left_out is not None
    assert metadata.left_out is not None
    np.testing.assert_allclose(wanted.left_out.maps, metadata.left_out.maps, rtol=2e-3, atol=1e-5)
    assert threshold_under(metadata, own, own) == (metadata.threshold, metadata.map_threshold)
    assert threshold_under(metadata, weights, weights)[0] is metadata.threshold


def test_what_moved_a_threshold_moves_it_under_weights(bundled_file: Path) -> None:
    metadata, own = metadata_of(bundled_file.read_bytes()), halves(1, 1)
    before, _ = threshold_under(metadata, own, halves(0, 1))
    raised = dataclasses.replace(metadata.threshold, value=1.25 * metadata.threshold.value)
    after, _ = threshold_under(dataclasses.replace(metadata, threshold=raised), own, halves(0, 1))
    assert after.value == pytest.approx(1.25 * before.value)
    by_hand = dataclasses.replace(raised, set_by_hand=True)
    kept, _ = threshold_under(dataclasses.replace(metadata, threshold=by_hand), own, halves(0, 1))
    assert (kept.value, kept.set_by_hand) == (raised.value, True)
    assert kept.scores == before.scores
    whole = dataclasses.replace(metadata, score=ScoreKind.IMAGE)
    threshold, map_threshold = threshold_under(whole, own, halves(0, 2))
    assert threshold is metadata.threshold
    assert map_threshold == pytest.approx(2 * before.value)


def test_a_threshold_from_examples_follows_their_scores(bundled_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "part.onnx"
    file.write_bytes(bundled_file.read_bytes())

    def image(side: int) -> bytes:
        save(plate(side), tmp_path / "image.png")
        return (tmp_path / "image.png").read_bytes()

    with Model.load(file, "cpu") as model, Learner.open(file, model) as learner:
        setting = learner.set_threshold_from_examples(
            [("good.png", image(2))], [("bad.png", image(0))], "anna", force=True
        )
        states = learner.examples()
        learned = learner.learned_threshold
        assert weighed_again(setting, learned, True, states).value == pytest.approx(setting.value)
        # Where all places count four times, all scores are four times as high.
        more = [dataclasses.replace(one, score=4 * one.score) for one in states]
        own = halves(1, 1)
        higher, _ = threshold_under(model.metadata, own, 4 * own)
        again = weighed_again(setting, higher, True, more)
        assert again.value == pytest.approx(4 * setting.value, rel=5e-3)
        assert (again.id, again.who) == (setting.id, setting.who)
        by_hand = dataclasses.replace(setting, method="as a value")
        assert weighed_again(by_hand, higher, True, more) is by_hand
        assert weighed_again(setting, higher, True, []) is setting


def packed(values: Any, kind: str = "<f2") -> bytes:
    return zlib.compress(np.asarray(values).astype(kind).tobytes())


@pytest.mark.parametrize(
    ("distances", "words"),
    [
        (b"no zlib", "distances cannot be unpacked"),
        (packed(np.ones(36))[:-1], "distances is cut off, or longer than it may be"),
        (packed(np.ones(36)) + b"more", "distances is cut off, or longer than it may be"),
        (packed(np.zeros(1 << 24)), "distances is cut off, or longer than it may be"),
        (packed(np.ones(35)), "distances holds 35 values, and a map has 36"),
        (packed([]), "distances holds 0 values, and a map has 36"),
        (packed([*np.ones(35), np.nan]), "distances holds a value that is no number from 0 on"),
        (packed([*np.ones(35), -1]), "distances holds a value that is no number from 0 on"),
    ],
)
def test_damaged_distances_are_refused(bundled_file: Path, distances: bytes, words: str) -> None:
    document = json.loads(read_metadata(bundled_file.read_bytes())[KEY])
    document["left_out"]["distances"] = b64encode(distances).decode()
    with pytest.raises(ModelFileError, match=rf"left_out cannot be: {words}"):
        Metadata.from_json(json.dumps(document), "part.onnx")


def test_distances_of_another_map_are_refused(bundled_file: Path) -> None:
    data = bundled_file.read_bytes()
    metadata = metadata_of(data)
    assert metadata.left_out is not None
    other = LeftOutMaps.of(np.ones((1, 35), np.float32), (5, 7), 1, 0)
    changed = dataclasses.replace(metadata, left_out=other).to_json()
    with pytest.raises(ModelFileError, match="of maps of 5 x 7 cells, and 'weights' holds 36"):
        Model.from_bytes(replace(data, {}, {KEY: changed}), "part.onnx")


def test_as_many_distances_as_a_file_may_keep_are_read_again() -> None:
    most = np.ones((32, 512 * 512), np.float32)
    kept = LeftOutMaps.of(most, (512, 512), 32, 0)
    assert kept is not None
    assert kept.maps.shape == most.shape
    assert LeftOutMaps.of(np.ones((33, 512 * 512), np.float32), (512, 512), 33, 0) is None


def test_info_tells_how_large_the_distances_are(cli: Cli, bundled_file: Path) -> None:
    about = cli("info", bundled_file, "--json").json
    metadata = metadata_of(bundled_file.read_bytes())
    assert metadata.left_out is not None
    size = len(metadata.left_out.distances)
    assert f'"distances": "{size} bytes"' in json.dumps(about)
