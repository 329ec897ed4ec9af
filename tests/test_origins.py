"""Where the rows of the memory bank come from: places of the shots that are like them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsad_edge
from fsad_edge import Learner, Model
from fsad_edge.calibration.calibrate import CalibrationSettings, bank_views, calibrate
from fsad_edge.calibration.row_origins import view_of
from fsad_edge.errors import InputError
from fsad_edge.learning.export import export_learned
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.runtime.origins import MOST_EACH, MOST_IN_ALL, SIDE, TAUGHT, Origins, small_picture
from fsad_edge.synthesis import Views, load_shot
from tests.conftest import Job, photograph, run_cli


@pytest.mark.parametrize(("rotations", "flip"), [(1, False), (1, True), (4, True), (6, False)])
def test_the_named_cell_of_the_named_view_of_the_named_shot_is_like_the_row(
    job: Job, bundled_file: Path, rotations: int, flip: bool
) -> None:
    session = OnnxSession(bundled_file.read_bytes(), "a graph", "cpu")
    shots = [load_shot(path, 96, 96) for path in sorted(job.shots.iterdir())[:3]]
    settings = CalibrationSettings(
        Views(flip=flip), bank_size=1000, bank_rotations=rotations, align=False, gaussian_views=1
    )
    found = calibrate(session, shots, settings)
    origins = found.origins
    assert origins is not None
    assert origins.count == 3
    inputs = {"projection": found.reference.projection}
    seen = np.stack(
        [
            session.run(["patches"], {"image": np.stack(bank_views(shot.image, rotations, flip)),
                                      **inputs})[0].reshape(-1, found.reference.bank.shape[1] + 1)
            for shot in shots
        ]
    )[..., :-1]  # fmt: skip
    rows = found.reference.patches[:, :-1]
    assert len(origins.row_shots) == len(rows)
    places = origins.row_places
    similar = np.einsum("skd,rd->srk", seen, rows)  # of each row to each patch of each shot
    named = np.stack([similar[shot, np.arange(len(rows)), places[:, shot]] for shot in range(3)])
    # The places are looked for among many of the patches, if not all.
    best = similar.max(axis=2)
    assert (named >= best - 0.08).all()
    assert np.mean(named >= best - 1e-5) > 0.6
    assert (origins.row_shots == named.argmax(axis=0)).all()
    assert np.median(named.max(axis=0)) > 0.95


@pytest.mark.parametrize("size", [(24, 24), (16, 24)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotations", [1, 4, 6, 12])
def test_one_view_is_the_one_of_its_number(
    size: tuple[int, int], flip: bool, rotations: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    views = bank_views(image, rotations, flip)
    for number, view in enumerate(views):
        picture, shown = view_of(image, number, rotations, flip, size[0] == size[1])
        np.testing.assert_array_equal(picture, view)
        assert shown.shape == view.shape[:2]
        assert shown[size[0] // 2, size[1] // 2]


@given(st.data())
def test_rows_in_another_order_keep_their_places(data: st.DataObject) -> None:
    count, shots = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    most = data.draw(st.sampled_from([100, 1 << 20]))
    numbers = st.integers(0, most - 1)
    places = np.array(data.draw(st.lists(st.lists(numbers, min_size=shots, max_size=shots),
                                         min_size=count, max_size=count)))  # fmt: skip
    nearest = np.array(data.draw(st.lists(st.integers(0, shots - 1), min_size=count,
                                          max_size=count)))  # fmt: skip
    origins = Origins.of(nearest, places, (10, 10), most)
    np.testing.assert_array_equal(origins.row_places, places)
    np.testing.assert_array_equal(origins.row_shots, nearest)
    order = np.array(data.draw(st.lists(st.integers(-1, count - 1), min_size=1, max_size=12)))
    after = origins.in_order(order)
    known = order >= 0
    np.testing.assert_array_equal(after.row_places[known], places[order[known]])
    np.testing.assert_array_equal(after.row_shots[known], nearest[order[known]])
    assert (after.row_shots[~known] == TAUGHT).all()


@pytest.mark.parametrize(
    "change",
    [{"nearest": b"\0"}, {"places": b"\0" * 7}, {"nearest": b"\5\0\0\0"}, {"names": ["a"]},
     {"pictures": [b"", b"", b""]}],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(change: dict[str, object]) -> None:
    origins = Origins(2, 4, 4, b"\0\0\1\0", b"\0" * 8)
    with pytest.raises(InputError):
        dataclasses.replace(origins, **change)  # type: ignore[arg-type]


def test_the_pictures_are_small() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (448, 320, 3), np.uint8)
    for most in (MOST_EACH, 5000, 1000):
        assert len(small_picture(noise, most)) <= most
    origins = Origins.of(np.zeros(3, np.intp), np.zeros((3, 60), np.intp), (4, 4), 16)
    filled = origins.with_pictures(["a"] * 60, [noise] * 60)
    assert sum(map(len, filled.pictures)) <= MOST_IN_ALL
    assert max(filled.picture(0).shape) <= SIDE


def test_a_file_holds_its_shots_unless_they_are_secret(job: Job, tmp_path: Path) -> None:
    with Model.load(job.file) as model:
        origins = model.metadata.origins
        assert origins is not None
        assert origins.names == [f"{number}.png" for number in range(5)]
        shown = model.metadata.summary()["origins"]
        assert shown["pictures"][0].endswith(" bytes")
        for number, path in enumerate(sorted(job.shots.iterdir())):
            picture = origins.picture(number)
            shot = model.prepare(model.decode(path))
            assert np.abs(picture.astype(int) - shot).mean() < 6
    secret = fsad_edge.export(job.part, tmp_path / "s.onnx", fsad_edge.ExportOptions(golden=False))
    with Model.load(secret) as model:
        origins = model.metadata.origins
        assert origins is not None
        assert (origins.names, origins.pictures) == ([], [])
        assert len(origins.row_shots) == model.reference.rows


def test_what_a_device_has_learned_comes_from_no_shot(job: Job, tmp_path: Path) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    image = tmp_path / "other.png"
    photograph(np.random.default_rng(8), defect=True).save(image)
    with Model.load(file) as model, Learner.open(file, model) as learner:
        before = model.metadata.origins
        learner.add(image.read_bytes(), who="anna", force=True)
        data = export_learned(file, model, learner)
        rows, file_rows = learner.reference.patches, model.reference.patches
    with Model.from_bytes(data, "new.onnx") as new:
        origins = new.metadata.origins
    assert origins is not None
    assert before is not None
    assert origins.pictures == before.pictures
    assert len(origins.row_shots) == len(rows)
    taught = origins.row_shots == TAUGHT
    assert 0 < taught.sum() < len(rows)
    known = {row.tobytes(): place for place, row in enumerate(file_rows[:, :-1])}
    for place, row in enumerate(rows[:, :-1]):
        was = known.get(row.tobytes())
        assert taught[place] == (was is None)
        if was is not None:
            assert (origins.row_places[place] == before.row_places[was]).all()


def test_files_of_earlier_versions_are_read(job: Job, tmp_path: Path) -> None:
    file = tmp_path / "old.onnx"
    data = job.file.read_bytes()
    metadata = Metadata.from_json(read_metadata(data)[KEY], "part.onnx")
    old = dataclasses.replace(metadata, origins=None).to_json()
    file.write_bytes(replace(data, {}, {KEY: old.replace(', "origins": null', "")}))
    assert "origins" not in read_metadata(file.read_bytes())[KEY]
    done = run_cli("score", file, job.shots)
    assert done.code == 0, done.err
    refused = run_cli("score", file, job.shots, "--why", tmp_path / "why")
    assert refused.code == 2
    assert "fsad-edge export" in refused.err
    assert not (tmp_path / "why").exists()
