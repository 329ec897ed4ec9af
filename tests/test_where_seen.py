"""Maps and regions lie where the fault is, and not where the cells of the graph's map are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fsad_edge
from fsad_edge.calibration import cell_shift as measuring
from fsad_edge.learning.rejected import shares_of_box
from fsad_edge.options import BundledEncoder, ComparePlaces, Locate, ScoreKind
from fsad_edge.pipeline.part_encoder import pretrained
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.encoder_names import bundled_name
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.model import Model
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.runtime.placement import Placement
from fsad_edge.runtime.upsampling import where_seen

SIDE, STAIN = 160, 18

shifts = st.floats(-1, 1)


def plate(rng: np.random.Generator) -> UInt8Array:
    """A plain rough surface."""
    pixels = 128 + rng.normal(0, 8, (SIDE, SIDE, 1))
    return np.broadcast_to(pixels, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of rough surfaces with the bundled encoder."""
    folder, rng = tmp_path_factory.mktemp("surface"), np.random.default_rng(0)
    (folder / "good").mkdir()
    for index in range(4):
        Image.fromarray(plate(rng)).save(folder / f"good/{index}.png")
    part = fsad_edge.finetune(
        folder / "good",
        folder / "part",
        fsad_edge.FinetuneOptions(
            encoder=BundledEncoder.FAST,
            epochs=0,
            image_size=SIDE,
            rotations=1,
            locate=Locate.OFF,
            place=ComparePlaces.OFF,
        ),
    )
    return fsad_edge.export(part).path


def stained(rng: np.random.Generator) -> tuple[UInt8Array, tuple[float, float]]:
    """A surface with a dark stain, and the middle of it in pixels."""
    image, (x, y) = plate(rng).copy(), rng.integers(32, SIDE - 32 - STAIN, 2)
    image[y : y + STAIN, x : x + STAIN] //= 2
    return image, (x + STAIN / 2, y + STAIN / 2)


def test_regions_lie_on_stains_on_the_mean(surface: Path) -> None:
    rng, apart = np.random.default_rng(1), []
    with Model.load(surface) as model:
        for _ in range(24):
            image, middle = stained(rng)
            region = model.score(image).regions[0]
            apart.append(np.subtract(region.centroid, middle))
    assert np.abs(np.mean(apart, axis=0)).max() < 2


def test_a_file_that_says_nothing_of_it_shows_its_map_as_it_is(surface: Path) -> None:
    data = surface.read_bytes()
    document = json.loads(read_metadata(data)[KEY])
    assert document.pop("cell_shift") != [0, 0]
    earlier = replace(data, {}, {KEY: json.dumps(document)})
    image, _ = stained(np.random.default_rng(2))
    with Model.from_bytes(earlier, "part.onnx", "cpu") as old, Model.load(surface) as new:
        before, now = old.score(image), new.score(image)
    assert before.score == now.score
    np.testing.assert_array_equal(before.anomaly_map, before.patch_map)
    np.testing.assert_array_equal(now.patch_map, before.patch_map)
    assert now.anomaly_map.shape == (20, 20)
    assert now.anomaly_map.max() == before.anomaly_map.max()


@pytest.mark.parametrize("encoder", list(BundledEncoder))
def test_what_is_measured_is_what_the_package_says(encoder: BundledEncoder) -> None:
    built = pretrained(bundled_name(encoder), None, SIDE, SIDE, [16])
    graph = built.scoring_graph(ScoreKind.PATCH, None, 64)
    session = OnnxSession(graph.to_bytes(), "an encoder", "cpu")
    rng = np.random.default_rng(3)
    images = [plate(rng) for _ in range(4)]
    found = measuring.cell_shift(session, images, "another one")
    assert found == pytest.approx(measuring.BUNDLED, abs=0.15)
    assert measuring.cell_shift(session, images, built.spec.architecture) == measuring.BUNDLED


@given(x=shifts, y=shifts, row=st.integers(1, 5), column=st.integers(1, 8))
def test_a_peak_is_drawn_where_it_was_seen(x: float, y: float, row: int, column: int) -> None:
    field = np.zeros((7, 10), np.float32)
    field[row, column] = 0.7
    whole = Placement(50, 35, 0, 100, 70, (100, 70))
    for seen in (where_seen(field, (x, y)), whole.in_photograph(field, (x, y))):
        assert seen.shape == (14, 20)
        assert seen.max() == np.float32(0.7)
        assert seen.min() == 0
        down, across = np.nonzero(seen == seen.max())
        assert (across.mean() + 0.5) / 2 == pytest.approx(column + 0.5 + x, abs=0.26)
        assert (down.mean() + 0.5) / 2 == pytest.approx(row + 0.5 + y, abs=0.26)


@given(x=shifts, y=shifts, left=st.floats(0, 0.9), top=st.floats(0, 0.9))
def test_a_box_anywhere_holds_as_much_of_the_cells_as_it_is_large(
    x: float, y: float, left: float, top: float
) -> None:
    box = (left, top, left + 0.1, top + 0.1)
    shares = shares_of_box((7, 10), box, (x, y))
    assert shares.sum() == pytest.approx(0.7)
    whole = Placement(50, 35, 0, 100, 70, (100, 70))
    by_points = whole.cells_in_box(box, 7, 10, (x, y))
    assert by_points.max() > 0
    inside = 0.2 < left < 0.7 and 0.2 < top < 0.7
    if inside:
        np.testing.assert_allclose(by_points, shares, atol=0.45)
