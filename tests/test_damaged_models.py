"""Model directories and files that are damaged, foreign or newer are refused with a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import fsad_edge
from fsad_edge import Model
from fsad_edge.errors import FsadEdgeError, ModelFileError
from fsad_edge.options import BundledEncoder
from fsad_edge.pipeline.model_directory import read_encoder, read_manifest, read_reference
from fsad_edge.runtime.encoder_names import bundled_name
from fsad_edge.runtime.files import sha256
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import read_metadata
from fsad_edge.scoring.bundled import FILES
from tests.commands import assert_refused
from tests.conftest import SIZE, Cli, Job, photograph
from tests.seals import as_before_seals, described, write_manifest


@pytest.fixture
def part(job: Job, tmp_path: Path) -> Path:
    """A model directory to spoil."""
    copy = tmp_path / "damaged"
    shutil.copytree(job.part, copy)
    return copy


def change_manifest(part: Path, **changes: Any) -> None:
    document = json.loads((part / "manifest.json").read_text())
    write_manifest(part, {**document, **changes})


def assert_not_exported(part: Path, *words: str) -> None:
    """Export refuses a model directory with a sentence that holds these words."""
    with pytest.raises(ModelFileError) as refused:
        fsad_edge.export(part)
    assert all(word in str(refused.value) for word in words), refused.value
    assert not part.with_name("damaged.onnx").exists()


def test_a_directory_of_a_newer_version(cli: Cli, part: Path) -> None:
    change_manifest(part, schema=99, unheard_of=True)
    assert_not_exported(part, "newer fsad-edge", "update")
    for command in ("export", "info"):
        assert_refused(cli(command, part), "newer fsad-edge", "update")


def test_shots_that_are_changed_or_missing(part: Path) -> None:
    photograph(np.random.default_rng(9)).save(part / "shots/000_0.png")
    assert_not_exported(part, "000_0.png", "changed since training")
    (part / "shots/000_0.png").unlink()
    assert_not_exported(part, "000_0.png", "missing")


@pytest.mark.parametrize("name", ["encoder.onnx", "encoder.safetensors", "reference.npz"])
def test_weights_that_are_changed_or_missing(part: Path, name: str) -> None:
    whole = (part / name).read_bytes()
    for data in (whole[:100], whole[:-1] + b"\x00" + whole[-1:], b""):
        (part / name).write_bytes(data)
        assert_not_exported(part, name, "SHA-256")
    (part / name).unlink()
    assert_not_exported(part, name, "missing")


@pytest.mark.parametrize("name", ["encoder.onnx", "learned.npz"])
def test_finetune_makes_again_what_it_is_said_to_repair(part: Path, job: Job, name: str) -> None:
    if name.startswith("learned"):  # as of a part whose projection was kept
        change_manifest(
            part,
            files={**json.loads((part / "manifest.json").read_text())["files"], name: "0" * 64},
        )
    else:
        (part / name).unlink()
    assert_not_exported(part, name, "missing", "fsad-edge finetune  again")
    options = fsad_edge.FinetuneOptions(
        encoder=BundledEncoder.FAST, image_size=SIZE, rotations=1, align=False, epochs=0, force=True
    )
    fsad_edge.finetune(job.shots, part, options)
    read_manifest(part)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("encoder.onnx", "encoder.onnx"),
        ("encoder.safetensors", "does not hold"),
        ("reference.npz", "damaged"),
    ],
)
def test_weights_that_are_corrupt_with_a_matching_hash(part: Path, name: str, word: str) -> None:
    files = json.loads((part / "manifest.json").read_text())["files"]
    whole = (part / name).read_bytes()
    for data in (b"", whole[:100], b"\xff" * 64, whole[:-40]):
        (part / name).write_bytes(data)
        change_manifest(part, files={**files, name: sha256(data)})
        assert_not_exported(part, name, word)


QUICK = fsad_edge.FinetuneOptions(
    encoder=BundledEncoder.FAST, image_size=SIZE, rotations=1, align=False, epochs=0, force=True
)


def test_another_encoder_in_the_place_of_a_bundled_one(job: Job, tmp_path: Path) -> None:
    made = fsad_edge.finetune(job.shots, tmp_path / "damaged", QUICK)
    other = FILES[bundled_name(BundledEncoder.ACCURATE)].read_bytes()
    files = json.loads((made.path / "manifest.json").read_text())["files"]
    (made.path / "encoder.onnx").write_bytes(other)
    change_manifest(made.path, files={**files, "encoder.onnx": sha256(other)})
    assert_not_exported(made.path, "is not the encoder fsad_edge of this version")


def test_a_directory_of_an_earlier_version_is_named_and_replaced(job: Job, part: Path) -> None:
    (part / "encoder.onnx").unlink()
    (part / "reference.npz").rename(part / "reference.safetensors")
    names = ["encoder.safetensors", "reference.safetensors"]
    change_manifest(part, files={name: sha256((part / name).read_bytes()) for name in names})
    assert_not_exported(part, "made by another version", "finetune  again")
    made = fsad_edge.finetune(job.shots, part, QUICK)
    assert {path.name for path in made.path.iterdir()} == {
        "manifest.json", "encoder.onnx", "reference.npz", "shots",
    }  # fmt: skip


WRONG = st.sampled_from([None, "", "x", -1, 10**9, 0.5, [], [1], {}, {"a": 1}])


@given(st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_manifest_with_any_value_wrong_is_read_or_refused(
    job: Job, part: Path, data: st.DataObject
) -> None:
    document = json.loads((job.part / "manifest.json").read_text())
    spoil(document, data)
    if isinstance(document.get("files"), dict):
        write_manifest(part, document)
    else:
        (part / "manifest.json").write_text(json.dumps(document))
    try:
        manifest = read_manifest(part)
        read_encoder(part, manifest)
        read_reference(part, manifest)
    except FsadEdgeError:
        return
    assert min(manifest.encoder.height, manifest.encoder.width) >= 16


def spoil(document: dict[str, Any], data: st.DataObject) -> None:
    """Put a wrong value anywhere, or take one out."""
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and data.draw(st.booleans()):
            place = inner
            continue
        break
    if data.draw(st.booleans()):
        place[key] = data.draw(WRONG)
    else:
        del place[key]


def test_files_that_hold_no_model(cli: Cli, job: Job, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])],
    )
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert_refused(
        cli("score", tmp_path / "foreign.onnx", job.shots), "not one that  fsad-edge export"
    )
    described = onnx.load_from_string(as_before_seals(job.file.read_bytes()))
    foreign.graph.initializer.extend(described.graph.initializer)
    foreign.metadata_props.extend(described.metadata_props)
    (tmp_path / "disguised.onnx").write_bytes(foreign.SerializeToString())
    assert_refused(cli("info", tmp_path / "disguised.onnx"), "does not have the inputs")
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, fault in (("text.onnx", "not a model"), ("empty.onnx", "is empty")):
        for command in ("info", "score", "eval"):
            more = () if command == "info" else (job.dataset,)
            assert_refused(cli(command, tmp_path / name, *more), name, fault)


@given(fraction=st.floats(0, 1, exclude_max=True))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_model_cut_anywhere_is_refused(job: Job, fraction: float) -> None:
    whole = job.file.read_bytes()
    with pytest.raises(ModelFileError):
        Model.from_bytes(whole[: int(len(whole) * fraction)], "part.onnx")


def test_a_model_of_a_newer_version(cli: Cli, job: Job, tmp_path: Path) -> None:
    data = job.file.read_bytes()
    newer = described(data, {**json.loads(read_metadata(data)[KEY]), "schema": 99})
    (tmp_path / "newer.onnx").write_bytes(newer)
    assert_refused(cli("score", tmp_path / "newer.onnx", job.shots), "newer fsad-edge (schema 99")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_description_with_any_value_wrong_is_read_or_refused(
    job: Job, data: st.DataObject
) -> None:
    document = json.loads(read_metadata(job.file.read_bytes())[KEY])
    spoil(document, data)
    try:
        metadata = Metadata.from_json(json.dumps(document), "part.onnx")
    except ModelFileError as error:
        told = ("damaged", "newer", "another resize rule")
        assert any(word in str(error) for word in told)  # noqa: PT017
        return
    json.dumps(metadata.summary())
    assert metadata.threshold.value > 0
    assert 0.001 <= metadata.threshold.prior_std <= 10


@given(st.text(max_size=50))
def test_a_description_of_any_text_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError):
        Metadata.from_json(text, "part.onnx")
