"""Images that a model has no business deciding are not judged; parts, good and bad, are."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

import fsad_edge
from benchmarks.decisions.foreign import ALTERATIONS, altered, plain_pictures
from benchmarks.rendered_parts import PARTS, write_set
from fsad_edge import FinetuneOptions, ImageError, Model
from fsad_edge.calibration.judgement import find_judgement
from fsad_edge.learning.learner import Learner
from fsad_edge.options import Decision, Doubt
from fsad_edge.runtime.arrays import UInt8Array
from fsad_edge.runtime.images import check_content, load_image
from fsad_edge.runtime.judgement import look_at, reasons_of, unlikeness
from fsad_edge.runtime.metadata import Judgement
from fsad_edge.synthesis import other_pictures
from tests.conftest import photograph

SIZES = [(640, 480)] * 5


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rendered parts, by name."""
    folder = tmp_path_factory.mktemp("parts")
    for name in PARTS:
        write_set(folder / name, name, seed=3, train=5, good=4, bad=1, size=200)
    return folder


@pytest.fixture(scope="module")
def model_file(parts: Path) -> Path:
    """A model of the bracket, a part on a plain ground."""
    options = FinetuneOptions("fsad_edge", epochs=0, image_size=96, rotations=1)
    part = fsad_edge.finetune(parts / "bracket/train/good", parts / "model", options)
    return fsad_edge.export(part).path


@pytest.fixture(scope="module")
def model(model_file: Path) -> Iterator[Model]:
    with Model.load(model_file) as model:
        yield model


def files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*.jpg") if path.is_file())
    assert found
    return found


def doubts(model: Model, image: UInt8Array) -> tuple[Doubt, ...]:
    return model.score(image).doubts


def test_parts_with_and_without_defects_are_judged(model: Model, parts: Path) -> None:
    for path in files(parts / "bracket/test"):
        result = model.score(path)
        assert result.decision in {Decision.GOOD, Decision.ANOMALY}, (path, result.reasons)
        assert result.doubts == ()


@pytest.mark.parametrize("other", sorted(set(PARTS) - {"bracket"}))
def test_other_parts_are_not_judged(model: Model, parts: Path, other: str) -> None:
    for path in files(parts / other / "test"):
        result = model.score(path)
        assert Doubt.UNLIKE in result.doubts, path
        assert result.decision is Decision.NOT_JUDGED
        assert not result.good
        assert not result.anomalous
        text = next(one.text for one in result.reasons if one.doubt is Doubt.UNLIKE)
        assert text.startswith("it is unlike the shots: ")
        times = float(text.split()[5])
        assert times > 1


def test_photographs_that_show_no_part_are_not_judged(model: Model, parts: Path) -> None:
    part = load_image(files(parts / "bracket/test/good")[0])
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 210, 200).astype(np.uint8)
    noise = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
    cases: dict[Doubt, list[UInt8Array]] = {
        Doubt.BLACK: [np.zeros_like(part), rng.integers(0, 8, part.shape).astype(np.uint8)],
        Doubt.WHITE: [np.full_like(part, 255), 255 - part // 128],
        Doubt.FLAT: [np.full_like(part, 128), 120 + part // 64, moved_out_of_view(part)],
        Doubt.DARK: [part // 10],
        Doubt.BRIGHT: [(part.astype(np.uint16) * 4).clip(0, 255).astype(np.uint8)],
        Doubt.BLURRED: [blurred(part), np.broadcast_to(ramp[:, None], (200, 200, 3))],
        Doubt.NOISY: [noise],
    }
    for doubt, images in cases.items():
        for place, image in enumerate(images):
            assert doubt in doubts(model, np.ascontiguousarray(image)), (doubt, place)


def moved_out_of_view(part: UInt8Array) -> UInt8Array:
    """The right half shows the left half of the part, and the left half its plain ground."""
    half = part.shape[1] // 2
    moved = np.broadcast_to(part[:4, :4].mean(axis=(0, 1)), part.shape).astype(np.uint8)
    moved[:, half:] = part[:, :half]
    return moved


def blurred(part: UInt8Array) -> UInt8Array:
    return np.asarray(Image.fromarray(part).filter(ImageFilter.GaussianBlur(8)))


def test_altered_photographs_are_not_judged(model: Model, parts: Path) -> None:
    """What the benchmark of decisions counts."""
    path = files(parts / "bracket/test/good")[1]
    kinds = dict(altered(load_image(path)))
    assert set(kinds) == set(ALTERATIONS)
    for kind, image in kinds.items():
        assert doubts(model, np.ascontiguousarray(image)), kind
    for kind, images in plain_pictures(96).items():
        assert all(doubts(model, image) for image in images), kind


def test_another_shape_and_a_thumbnail_are_not_judged(model: Model, parts: Path) -> None:
    part = Image.open(files(parts / "bracket/test/good")[0]).convert("RGB")
    stretched, small = part.resize((300, 200)), part.resize((48, 48))
    larger = part.resize((1200, 1180))
    assert Doubt.SHAPE in doubts(model, np.asarray(stretched))
    assert Doubt.SHAPE in doubts(model, np.asarray(stretched.rotate(90, expand=True)))
    assert Doubt.SIZE in doubts(model, np.asarray(small))
    assert doubts(model, np.asarray(larger)) == ()


def test_every_door_gives_the_same_reasons(model: Model, parts: Path) -> None:
    strange = files(parts / "wood/test/good")[0]
    wide = io.BytesIO()
    Image.open(strange).resize((400, 200)).save(wide, "JPEG")
    reasons = model.score(wide.getvalue()).reasons
    assert [reason.doubt for reason in reasons][:1] == [Doubt.SHAPE]
    decoded = model.decode(wide.getvalue())
    prepared = model.prepare(decoded)[None]
    pixels = np.asarray(Image.open(wide).convert("RGB"))
    sizes = [(pixels.shape[1], pixels.shape[0])]
    assert model.score_batch([wide.getvalue(), strange])[0].reasons == reasons
    assert model.score_prepared(prepared, sizes=sizes)[0].reasons == reasons
    # Without the photograph's size, all the same but for its shape and size.
    assert model.score_prepared(prepared)[0].reasons == reasons[1:]
    assert model.score(pixels).doubts == tuple(reason.doubt for reason in reasons)


def test_what_a_person_called_good_is_judged_from_then_on(
    model_file: Path, parts: Path, tmp_path: Path
) -> None:
    """The memory bank then holds the image, whatever the Gaussian says of it."""
    file = Path(shutil.copy(model_file, tmp_path))
    first = files(parts / "print/test/good")[0]
    with Model.load(file) as model, Learner.open(file, model) as learner:
        assert Doubt.UNLIKE in model.score(first).doubts
        learner.add(first.read_bytes(), "Ada", force=True)
        taught = model.score_prepared(model.prepare(model.decode(first))[None], state=learner.state)
        assert Doubt.UNLIKE not in taught[0].doubts


def judgement_of(*shots: UInt8Array, sizes: list[tuple[int, int]] | None = None) -> Judgement:
    ones = np.ones(len(shots))
    return find_judgement(ones, np.full(9, 9.0), 1.0, shots, sizes or SIZES[: len(shots)])


def plate(seed: int) -> UInt8Array:
    return np.asarray(photograph(np.random.default_rng(seed)))


@given(st.integers(0, 255), st.integers(0, 1), st.integers(0, 99))
def test_what_may_not_be_learned_is_not_judged(level: int, spread: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = (level + rng.integers(-spread, spread + 1, (96, 96, 3))).clip(0, 255).astype(np.uint8)
    with pytest.raises(ImageError):
        check_content(image)
    judgement = judgement_of(*(plate(shot) for shot in range(5)))
    found = reasons_of(judgement, image, 0.0, np.zeros((4, 4), np.float32))
    assert {reason.doubt for reason in found} & {Doubt.BLACK, Doubt.WHITE, Doubt.FLAT, Doubt.DARK}


@given(st.floats(0.3, 2.0), st.floats(0.3, 1.0), st.integers(0, 99))
def test_a_shot_is_within_its_own_bounds(gain: float, contrast: float, seed: int) -> None:
    pixels = plate(seed).astype(np.float64)
    shot = ((pixels.mean() + contrast * (pixels - pixels.mean())) * gain).clip(0, 255)
    shot = shot.astype(np.uint8)
    assert reasons_of(judgement_of(shot), shot, 0.5, np.zeros((4, 4), np.float32), SIZES[0]) == ()


distances = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9).map(np.array)


@given(distances, distances, st.floats(1e-2, 1e2))
def test_the_bound_does_not_depend_on_the_unit(
    left_out: np.ndarray, pictures: np.ndarray, unit: float
) -> None:
    shots = [plate(0)] * len(left_out)
    sizes = [(640, 480)] * len(left_out)
    one, other = (
        find_judgement(scale * left_out, scale * pictures, 1.0, shots, sizes).unlikeness
        for scale in (1.0, unit)
    )
    assert one is not None
    assert other == pytest.approx(unit * one)
    usual = math.exp(np.log(left_out).mean())
    if len(left_out) > 3:
        assert one >= 2 * usual * (1 - 1e-9)
    else:
        assert one <= 0.6 * np.quantile(pictures, 0.25) * (1 + 1e-9)


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 10))
def test_an_image_farther_away_is_no_less_unlike(one: float, more: float, offset: float) -> None:
    nearest = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    here = unlikeness(one, nearest, offset)
    assert unlikeness(one + more, nearest, offset) >= here
    assert unlikeness(one, nearest + np.float32(more), offset) >= here
    # A defect, be it ever so far away, does not reach the nearest tenth.
    defect = nearest.copy()
    defect.ravel()[-8:] = 100
    assert unlikeness(one, defect, offset) == pytest.approx(here)


shapes = st.tuples(st.integers(16, 4000), st.integers(16, 4000))


@given(st.lists(shapes, min_size=1, max_size=6))
def test_a_photograph_of_the_size_of_a_shot_is_judged(sizes: list[tuple[int, int]]) -> None:
    shots = [plate(0)] * len(sizes)
    judgement = judgement_of(*shots, sizes=sizes)
    for size in sizes:
        assert reasons_of(judgement, shots[0], 0.5, np.zeros((4, 4), np.float32), size) == ()


def test_the_grid_hardly_changes_what_is_measured() -> None:
    small = np.asarray(photograph(np.random.default_rng(1), side=112))
    large = np.asarray(Image.fromarray(small).resize((1120, 1120), Image.Resampling.NEAREST))
    here, there = look_at(small), look_at(large)
    assert there.mean == pytest.approx(here.mean, rel=0.02)
    assert there.contrast == pytest.approx(here.contrast, rel=0.05)
    assert there.highest == here.highest


def test_other_pictures_are_the_same_each_time_and_unlike_one_another() -> None:
    one, other = other_pictures(64, 80), other_pictures(64, 80)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({picture.tobytes() for picture in one}) == len(one)
    for picture in one:
        check_content(picture)
