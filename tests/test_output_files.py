"""Files and folders that are written: whole or not at all, and nothing of others is replaced."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

import fsad_edge
from fsad_edge import ExportOptions, FinetuneOptions, InputError, Model
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.runtime.directories import new_directory
from fsad_edge.runtime.files import write_bytes
from tests.commands import all_files, assert_refused
from tests.conftest import SIZE, Cli, Job


@pytest.fixture
def shots(job: Job, tmp_path: Path) -> Path:
    """Two shots to spoil."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(job.shots / name, folder)
    return folder


@pytest.fixture
def part(job: Job, tmp_path: Path) -> Path:
    """A model directory to replace."""
    copy = tmp_path / "older"
    shutil.copytree(job.part, copy)
    return copy


def test_the_commands_replace_nothing_without_force(
    cli: Cli, job: Job, shots: Path, part: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.png"
    report.write_bytes(b"mine")
    before = all_files(tmp_path)
    assert_refused(cli("finetune", shots, "-o", part), "exists", "--force")
    assert_refused(cli("export", job.part), "exists", "--force")
    assert_refused(cli("eval", job.file, job.dataset, "--report", report), "exists", "--force")
    assert all_files(tmp_path) == before


def test_force_replaces_a_model_directory_and_a_file(
    backbones: dict[str, str], shots: Path, part: Path, tmp_path: Path
) -> None:
    options = FinetuneOptions(
        backbones["conv"], image_size=SIZE, rotations=1, align=False, force=True
    )
    assert fsad_edge.finetune(shots, part, options).shots == 2
    assert len(read_manifest(part).shots) == 2
    file = tmp_path / "a.onnx"
    file.write_bytes(b"older")
    fsad_edge.export(part, file, ExportOptions(force=True))
    with Model.load(file) as model:
        assert model.metadata.shots.count == 2


def test_force_writes_a_model_file_in_place_of_no_other_kind(
    cli: Cli, job: Job, shots: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    assert cli("bank", "add", file, shots / "0.png", "--force").code == 0
    (tmp_path / "notes").write_text("mine")
    before = all_files(tmp_path)
    for foreign in (shots / "1.png", tmp_path / "notes"):
        for done in (
            cli("export", job.part, "-o", foreign, "--force"),
            cli("bank", "export", file, "-o", foreign, "--force"),
        ):
            assert_refused(done, "exists and is not a model file: it is left alone", ".onnx")
    assert all_files(tmp_path) == before
    other = Path(shutil.copy(job.file, tmp_path / "model"))
    (tmp_path / "new").touch()
    for replaced in (other, tmp_path / "new"):
        assert cli("bank", "export", file, "-o", replaced, "--force").code == 0
        assert Model.load(replaced, "cpu").metadata.shots.count > 5


@pytest.mark.parametrize("name", ["photo.png", "manifest.json", ".git/config"])
def test_force_never_replaces_a_foreign_folder(
    cli: Cli, job: Job, shots: Path, tmp_path: Path, name: str
) -> None:
    foreign = tmp_path / "foreign"
    (foreign / name).parent.mkdir(parents=True)
    (foreign / name).write_text('{"name": "somebody\'s app", "version": 3}')
    before = all_files(tmp_path)
    with pytest.raises(InputError, match=r"is not a model directory: it is left alone"):
        fsad_edge.finetune(shots, foreign, FinetuneOptions(force=True))
    assert_refused(cli("export", job.part, "-o", foreign, "--force"), "foreign")
    done = cli("eval", job.file, job.dataset, "--report", foreign, "--force")
    assert_refused(done, "foreign")
    assert all_files(tmp_path) == before


def test_force_deletes_no_file_that_finetune_did_not_write(
    shots: Path, part: Path, tmp_path: Path
) -> None:
    (part / "notes.txt").write_text("mine")
    before = all_files(tmp_path)
    with pytest.raises(InputError, match=r"notes\.txt"):
        fsad_edge.finetune(shots, part, FinetuneOptions(force=True))
    assert all_files(tmp_path) == before


def test_a_folder_that_cannot_be_written(cli: Cli, job: Job, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert_refused(cli("score", job.file, job.shots, "--heatmaps", blocked), "file")
    assert blocked.read_text() == "in the way"


def half_written(place: Path) -> None:
    with new_directory(place) as folder:
        (folder / "new").write_text("half")
        raise ZeroDivisionError


def test_a_block_that_fails_leaves_the_older_folder(tmp_path: Path) -> None:
    place = tmp_path / "part"
    with pytest.raises(ZeroDivisionError):
        half_written(place)
    assert all_files(tmp_path) == {}
    with new_directory(place) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ZeroDivisionError):
        half_written(place)
    assert all_files(tmp_path) == {"part": b"", "part/old": b"old"}


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"one")
    write_bytes(tmp_path / "a", b"two")
    assert all_files(tmp_path) == {"a": b"two"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / "b", b"data")
    assert all_files(tmp_path) == {"a": b"two", "b": b"", "b/c": b""}


@pytest.fixture
def specials(tmp_path: Path) -> dict[str, Path]:
    """What is never written or replaced."""
    folder = tmp_path / "special"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.png"))
    os.mkfifo(folder / "pipe.png")
    (folder / "file").write_text("mine")
    (folder / "link.png").symlink_to(folder / "file")
    (folder / "nowhere.png").symlink_to(folder / "missing")
    names = ("socket.png", "pipe.png", "link.png", "nowhere.png")
    return {name: folder / name for name in names} | {"device": Path("/dev/null")}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")
def test_no_command_writes_through_a_device_a_pipe_a_socket_or_a_link(
    cli: Cli, job: Job, shots: Path, specials: dict[str, Path]
) -> None:
    before = {name: path.lstat() for name, path in specials.items()}
    for path in specials.values():
        for command in (
            ("export", job.part, "-o", path, "--force"),
            ("finetune", shots, "-o", path, "--force"),
            ("eval", job.file, job.dataset, "--report", path, "--force"),
            ("bench", job.file, "--plot", path, "--force", "--runs", 1),
            ("bank", "export", job.file, "-o", path, "--force"),
            ("threshold", job.file, "--picture", path),
        ):
            assert_refused(cli(*command), path.name)
    for name, path in specials.items():
        assert (path.lstat().st_ino, path.lstat().st_mode) == (
            before[name].st_ino, before[name].st_mode,
        )  # fmt: skip
    assert (specials["link.png"].parent / "file").read_text() == "mine"
    assert not (specials["link.png"].parent / "missing").exists()


def test_no_output_replaces_what_is_read(cli: Cli, job: Job, part: Path, tmp_path: Path) -> None:
    dataset, image = tmp_path / "dataset", tmp_path / "image.png"
    shutil.copytree(job.dataset, dataset)
    shutil.copy(job.shots / "0.png", image)
    good = next((dataset / "test/good").iterdir())
    (tmp_path / "other.png").hardlink_to(good)
    encoder = next(path for path in part.iterdir() if path.name.startswith("encoder"))
    before = all_files(tmp_path)
    for command in (
        ("eval", job.file, dataset, "--report", good, "--force"),
        ("eval", job.file, dataset, "--report", tmp_path / "other.png", "--force"),
        ("bench", job.file, "--images", image, "--plot", image, "--force", "--runs", 1),
        ("export", part, "-o", encoder, "--force"),
    ):
        assert_refused(cli(*command), "is read here")
    assert_refused(cli("threshold", job.file, "--picture", image), "no picture that fsad-edge drew")
    assert all_files(tmp_path) == before


def test_a_heat_map_that_cannot_be_written_loses_no_row(cli: Cli, job: Job, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    mine = maps / "1.png.heatmap.png"
    shutil.copy(job.shots / "0.png", mine)
    before = mine.read_bytes()
    done = cli("score", job.file, job.shots, "--heatmaps", maps)
    images = len(list(job.shots.iterdir()))
    assert done.code == 2
    assert sum(str(job.shots) in line for line in done.out.splitlines()) == images
    assert "1.png.heatmap.png exists and is no picture that fsad-edge drew" in done.err
    assert f"error: 1 of {images} heat maps could not be written." in done.err
    assert mine.read_bytes() == before
    assert len(list(maps.iterdir())) == images
    mine.unlink()
    for _ in range(2):  # its own pictures are replaced
        assert cli("score", job.file, job.shots, "--heatmaps", maps).code == 0


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    longest = tmp_path / ("n" * 255)
    write_bytes(longest, b"one")
    write_bytes(longest, b"two")
    assert all_files(tmp_path) == {longest.name: b"two"}
