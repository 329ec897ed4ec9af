"""Files and folders are written whole or not at all, and replaced without a moment of loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsad_edge.errors import ImageError, InputError
from fsad_edge.runtime.directories import new_directory
from fsad_edge.runtime.files import check_output, read_bytes, write_bytes


def fail(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


def test_reading_names_the_file_the_reason_and_the_cure(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError, match=r"missing cannot be read: No such file or directory\.$"):
        read_bytes(missing)
    with pytest.raises(
        ImageError, match=r"missing cannot be read \(No such .*\): copy it again\.$"
    ):
        read_bytes(missing, ImageError, "copy it again")


def test_only_regular_files_up_to_a_size_are_read(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(2**40)  # a sparse file takes no room
    for path, why in (
        (pipe, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "Is a directory"),
        (large, "it has 1,099,511,627,776 bytes, and at most 2,147,483,647 are read"),
    ):
        with pytest.raises(InputError, match=rf"cannot be read: {why}\.$"):
            read_bytes(path)
    write_bytes(large, b"abc")
    with pytest.raises(InputError, match="it has 3 bytes, and at most 2 are read"):
        read_bytes(large, most=2)
    assert read_bytes(large, most=3) == b"abc"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=r"file cannot be written: No space left on device\.$"):
        write_bytes(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"old")]
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / "no folder/file", b"new")


def test_written_files_can_be_read_by_whoever_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"")
        with new_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_an_output_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "file"
    check_output(path, force=False)
    path.touch()
    check_output(path, force=True)
    with pytest.raises(InputError, match="add --force"):
        check_output(path, force=False)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"):
        check_output(link, force=True)
    with pytest.raises(InputError, match="make it first"):
        check_output(tmp_path / "no folder/file", force=True)
