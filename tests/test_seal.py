"""A damaged file never decides: model files, model directories and what is written from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsad_edge import FinetuneResult, Model
from fsad_edge.errors import FsadEdgeError, GoldenImageError, ModelFileError
from fsad_edge.pipeline.model_directory import check_directory, read_manifest
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.model_file import REFERENCE_INPUTS, read_model_file
from fsad_edge.runtime.onnx_file import read_metadata, replace
from fsad_edge.runtime.seal import check_seal, sealed
from tests.commands import assert_refused
from tests.conftest import Cli, Job
from tests.seals import as_before_seals, described, write_manifest

UNSEALED = "cannot be checked for damage"


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def assert_damaged(data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"^part\.onnx is .*damaged.* export it again\.$"):
        read_model_file(data, "part.onnx")


def test_the_seal_is_the_sha_256_of_all_bytes_before_it(job: Job) -> None:
    data = job.file.read_bytes()
    assert hashlib.sha256(data[:-64]).hexdigest().encode() == data[-64:]
    assert read_metadata(data)["fsad_edge_seal"].encode() == data[-64:]


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_file_with_any_bit_flipped_is_refused(job: Job, data: st.DataObject) -> None:
    """Also where the bit is one of the seal, of its key or of the remark about it."""
    whole = job.file.read_bytes()
    area = data.draw(st.sampled_from([(0, 120), (len(whole) - 200, len(whole)), (0, len(whole))]))
    assert_damaged(flipped(whole, data.draw(st.integers(8 * area[0], 8 * area[1] - 1))))


@given(st.data())
@settings(deadline=None)
def test_a_file_that_is_cut_grown_or_mixed_is_refused(job: Job, data: st.DataObject) -> None:
    whole = job.file.read_bytes()
    place = data.draw(st.integers(1, len(whole) - 1))
    more = data.draw(st.binary(min_size=1, max_size=200))
    other = described(whole, {**json.loads(read_metadata(whole)[KEY]), "name": "another"})
    before = as_before_seals(whole)
    for damaged in (
        whole[:place],
        whole + more,
        whole[:place] + more + whole[place:],
        whole[:-64] + other[-64:],
        whole[:place] + other[place:],
        whole[: len(whole) // 2] + before[len(before) // 2 :],
    ):
        if damaged not in (whole, other):
            assert_damaged(damaged)


def test_every_command_refuses_a_damaged_file(cli: Cli, job: Job, tmp_path: Path) -> None:
    """A threshold of 0.28 with one bit flipped is one of 8.28, and every part is good."""
    file, whole = tmp_path / "part.onnx", job.file.read_bytes()
    place = whole.index(b'"value": ') + len(b'"value": ')
    file.write_bytes(flipped(whole, 8 * place))
    image = job.shots / "0.png"
    for command in (
        ("score", file, image), ("info", file), ("bench", file, "--runs", 5, image),
        ("eval", file, job.dataset), ("threshold", file), ("bank", "list", file),
        ("bank", "add", file, image), ("bank", "export", file, "-o", tmp_path / "new.onnx"),
        ("triton", file, tmp_path / "repository"), ("build", file), ("serve", file, "--port", 0),
    ):  # fmt: skip
        assert_refused(cli(*command), "part.onnx is damaged", "its SHA-256 differs")
    assert [path.name for path in tmp_path.iterdir()] == ["part.onnx"]
    with pytest.raises(ModelFileError, match="is damaged"):
        Model.load(file)


def test_a_file_of_before_the_seal_is_used_and_said_to_be_unchecked(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file = tmp_path / "part.onnx"
    file.write_bytes(as_before_seals(job.file.read_bytes()))
    done = cli("score", file, job.shots)
    assert done.code in (0, 1)
    assert done.err.count(UNSEALED) == 1
    assert "export it again" in done.err
    assert UNSEALED in cli("info", file).out
    assert cli("info", file, "--json").json["sealed"] is False
    assert cli("info", job.file, "--json").json["sealed"] is True
    assert UNSEALED in cli("triton", file, tmp_path / "repository").err
    with Model.load(file) as old, Model.load(job.file) as new:
        assert old.unsealed is not None
        assert new.unsealed is None
        image = job.shots / "0.png"
        assert old.score(image).score == new.score(image).score


def test_what_was_taught_to_a_file_is_exported_with_a_seal(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file, new = tmp_path / "part.onnx", tmp_path / "new.onnx"
    file.write_bytes(as_before_seals(job.file.read_bytes()))
    assert cli("bank", "add", file, job.dataset / "test/good/0.png", "--force").code == 0
    assert cli("bank", "export", file, "-o", new).code == 0
    assert check_seal(new.read_bytes(), "new.onnx")


def test_what_is_changed_is_sealed_anew_unless_it_was_damaged(job: Job) -> None:
    data = job.file.read_bytes()
    changed = replace(data, {}, {"note": "another"})
    assert check_seal(changed, "it")
    assert list(read_metadata(changed)).count("fsad_edge_seal") == 1
    assert sealed(changed) == changed
    before = as_before_seals(data)
    assert not check_seal(replace(before, {}, {"note": "another"}), "it")
    assert check_seal(sealed(before), "it")
    for rewrite in (sealed, lambda data: replace(data, {}, {"note": "another"})):
        with pytest.raises(ModelFileError, match="is damaged"):
            rewrite(flipped(data, 8 * 5000))


@pytest.mark.parametrize("name", REFERENCE_INPUTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reference_model_of_other_things_than_numbers_is_refused(
    job: Job, name: str, value: float
) -> None:
    with Model.load(job.file, golden=False) as model:
        array = model.reference.as_inputs()[name].copy()
    array.flat[-1] = value
    data = replace(job.file.read_bytes(), {name: array}, {})
    with pytest.raises(ModelFileError, match=rf"part\.onnx is damaged \('{name}' holds values"):
        Model.from_bytes(data, "part.onnx")


def test_a_bank_of_another_size_than_said_is_refused(job: Job) -> None:
    document = json.loads(read_metadata(job.file.read_bytes())[KEY])
    rows = document["bank_rows"]
    data = described(job.file.read_bytes(), {**document, "bank_rows": rows + 1})
    with pytest.raises(ModelFileError, match=rf"bank_rows is {rows + 1}, and 'bank' holds {rows}"):
        Model.from_bytes(data, "part.onnx")


def test_a_higher_threshold_does_not_loosen_the_golden_images(job: Job) -> None:
    document = json.loads(read_metadata(job.file.read_bytes())[KEY])
    document["threshold"]["value"] *= 1000
    for golden in document["golden"]:
        golden["score"] += 2.5 * document["golden_tolerance"] * document["threshold"]["scores"][-1]
    data = described(job.file.read_bytes(), document)
    with (
        pytest.raises(GoldenImageError),
        Model.from_bytes(data, "part.onnx") as model,
    ):
        model.check_golden()


@pytest.fixture
def part(job: Job, tmp_path: Path) -> Path:
    return Path(shutil.copytree(job.part, tmp_path / "part"))


@given(st.data())
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_directory_with_any_bit_flipped_is_refused(
    job: Job, part: Path, data: st.DataObject
) -> None:
    names = sorted(str(path.relative_to(job.part)) for path in job.part.rglob("*.*"))
    # Most of its bits are not in the manifest, which is the one that decides.
    name = data.draw(st.sampled_from([*names, *["manifest.json"] * len(names)]))
    whole = (job.part / name).read_bytes()
    (part / name).write_bytes(flipped(whole, data.draw(st.integers(0, 8 * len(whole) - 1))))
    try:
        with pytest.raises(FsadEdgeError):
            check_directory(part, read_manifest(part))
    finally:
        (part / name).write_bytes(whole)


def test_files_of_two_directories_are_not_exchanged(
    cli: Cli, job: Job, part: Path, bundled_part: FinetuneResult, tmp_path: Path
) -> None:
    other = bundled_part.path
    for name in ("manifest.json", "encoder.onnx", "reference.npz"):
        (part / name).write_bytes((other / name).read_bytes())
        assert_refused(cli("info", part))
        assert_refused(cli("export", part, "-o", tmp_path / "part.onnx"))
        (part / name).write_bytes((job.part / name).read_bytes())
    assert cli("info", part, "--json").json["sealed"] is True


def test_a_directory_without_a_seal_is_exported_and_said_to_be_unchecked(
    cli: Cli, job: Job, part: Path, tmp_path: Path
) -> None:
    """As an earlier version wrote it; what only lost its seal is refused."""
    manifest: dict[str, Any] = json.loads((part / "manifest.json").read_text())
    del manifest["files"]["manifest.json"]
    (part / "manifest.json").write_text(json.dumps(manifest))
    assert_refused(cli("info", part), "manifest.json is damaged (it has no SHA-256)")
    encoder = as_before_seals((part / "encoder.onnx").read_bytes())
    (part / "encoder.onnx").write_bytes(encoder)
    manifest["files"]["encoder.onnx"] = hashlib.sha256(encoder).hexdigest()
    (part / "manifest.json").write_text(json.dumps(manifest))
    assert UNSEALED in cli("info", part).out
    done = cli("export", part, "-o", tmp_path / "part.onnx")
    assert done.code == 0
    assert UNSEALED in done.err
    assert Model.load(tmp_path / "part.onnx").unsealed is None


def test_a_directory_s_manifest_is_refused_with_a_sentence(part: Path) -> None:
    manifest = json.loads((part / "manifest.json").read_text())
    spec = manifest["encoder"]
    for change, words in (
        ({"bank_rows": 1}, "do not belong together"),
        ({"encoder": {**spec, "arguments": {"a": "\ud800"}}}, "half of a character"),
        ({"encoder": {**spec, "std": [0, 1, 1]}}, "encoder.std[0] is 0.0 and not above 0"),
        ({"calibration": {**manifest["calibration"], "bank_size": 0}}, "outside 1 to 100000"),
        ({"files": {**manifest["files"], "more.npz": "0" * 64}}, "files names 'more.npz'"),
        ({"shots": [{"file": "../0.png", "sha256": "0" * 64}]}, "not the name of a shot"),
    ):
        write_manifest(part, {**manifest, **change})
        with pytest.raises(ModelFileError) as refused:
            check_directory(part, read_manifest(part))
        assert words in str(refused.value)


def test_the_score_of_a_broken_engine_is_not_good(job: Job) -> None:
    with Model.load(job.file) as model:
        result = model.score(job.shots / "0.png")
    broken = dataclasses.replace(result, score=float("nan"), reasons=())
    assert not broken.good
    assert broken.anomalous
