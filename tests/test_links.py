"""What is written in place: never through a link, and never into a device or a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fsad_edge import InputError, Model
from fsad_edge.learning.learner import Learner, store_path
from tests.commands import all_files
from tests.conftest import Cli, Job
from tests.serving import wait_until
from tests.test_learner import bent, encoded
from tests.test_watched_folders import names, state, watching

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes as in POSIX")

#: Puts something that is no regular file at a path; the other path is of a file of somebody's.
Odd = Callable[[Path, Path], object]
ODD: dict[str, Odd] = {
    "link": lambda path, other: path.symlink_to(other),
    "link to nothing": lambda path, other: path.symlink_to(other.with_name("nothing")),
    "link to a device": lambda path, other: path.symlink_to("/dev/null"),
    "pipe": lambda path, other: os.mkfifo(path),
    "folder": lambda path, other: path.mkdir(),
}
LEFT_ALONE = r"cannot be written: it is a (link|device|folder)"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "others").mkdir()
    path = tmp_path / "others" / "document.txt"
    path.write_text("precious\n")
    return path


def test_teaching_writes_through_no_link_and_leaves_nothing(
    job: Job, tmp_path: Path, victim: Path
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    image = encoded(bent(0))
    with Model.load(file, "cpu", threads=1) as model:
        for name in ("lock", "turn", "journal.jsonl"):
            for put in ODD.values():
                store_path(file).mkdir()
                put(store_path(file) / name, victim)
                said = rf"{name}.*{LEFT_ALONE}"
                if name == "journal.jsonl":  # it may be read in vain before that
                    said += "|no line of .* can be read|not a regular file|Is a directory"
                with (
                    Learner.open(file, model) as learner,
                    pytest.raises(InputError, match=said),
                ):
                    learner.add(image, "anna", force=True)
                assert all_files(victim.parent) == {victim.name: b"precious\n"}
                assert not list(store_path(file).glob("images/*"))
                shutil.rmtree(store_path(file))
        # What is only made again goes on without it.
        (store_path(file) / "images").mkdir(parents=True)
        for name in ("images/0001.npz", "images/.0001.npz.new"):
            (store_path(file) / name).symlink_to(victim)
        with Learner.open(file, model) as learner:
            assert learner.add(image, "anna", force=True).id == 1
    assert victim.read_text() == "precious\n"


def test_a_lock_that_holds_what_no_lock_does_keeps_it(
    cli: Cli, job: Job, tmp_path: Path, victim: Path
) -> None:
    file = Path(shutil.copy(job.file, tmp_path / "part.onnx"))
    store_path(file).mkdir()
    os.link(victim, store_path(file) / "lock")  # cannot be told from a file of its own
    assert cli("bank", "add", file, min(job.shots.iterdir()), "--force").code == 0
    assert victim.read_text() == "precious\n"


@pytest.mark.parametrize("name", ["watch.lock", "watch.sqlite", "watch.sqlite-journal"])
def test_a_watched_folder_is_at_fault_until_the_link_is_removed(
    job: Job, tmp_path: Path, victim: Path, name: str
) -> None:
    folder = tmp_path / "in"
    (folder / "fsad-edge").mkdir(parents=True)
    shutil.copy(min(job.shots.iterdir()), folder / "a.png")
    victim.write_bytes(b"")  # an index could be made in it
    (folder / "fsad-edge" / name).symlink_to(victim)
    with watching(job, folder) as client:
        wait_until(
            lambda: f"{name} cannot be written: it is a link" in (state(client)["fault"] or "")
        )
        (folder / "fsad-edge" / name).unlink()
        wait_until(lambda: names(folder))
    assert names(folder) == ["a.png"]
    assert victim.read_bytes() == b""


def test_a_service_does_not_start_with_results_behind_a_link(
    cli: Cli, job: Job, tmp_path: Path, victim: Path
) -> None:
    (tmp_path / "in" / "fsad-edge").mkdir(parents=True)
    results = tmp_path / "in" / "fsad-edge" / "results.jsonl"
    for put in ODD.values():
        put(results, victim)
        done = cli("serve", job.file, "--watch", tmp_path / "in", "--port", "0")
        assert done.code == 2
        assert "results.jsonl cannot be written (it is a" in done.err
        results.rmdir() if results.is_dir() else results.unlink()
    assert victim.read_text() == "precious\n"
    assert not victim.with_name("nothing").exists()


def test_folders_of_devices_are_not_watched(cli: Cli, job: Job) -> None:
    if not os.path.ismount("/proc"):
        pytest.skip("there is no such folder")
    done = cli("serve", job.file, "--watch", "/proc", "--port", "0")
    assert done.code == 2
    assert "--watch /proc holds devices" in done.err
