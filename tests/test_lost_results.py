"""Results that are lost from the files of a watched folder: each is told, and made again."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Job
from tests.serving import encoded, wait_until
from tests.test_watched_folders import names, state, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases as in Linux")

#: Results that are there before.
COUNT = 6


@pytest.fixture
def scored(job: Job, tmp_path: Path) -> Path:
    """A folder whose images were scored by a service that has ended."""
    folder = tmp_path / "in"
    folder.mkdir()
    image = encoded(Image.open(min(job.shots.iterdir())))
    for number in range(COUNT):
        (folder / f"{number}.jpg").write_bytes(image)
    with watching(job, folder):
        wait_until(lambda: len(names(folder)) == COUNT)
    return folder


def results(folder: Path) -> Path:
    return folder / "fsad-edge" / "results.jsonl"


def again(job: Job, folder: Path) -> int:
    """Run the service again until no image waits; returns how many images it scored."""
    with watching(job, folder) as client:
        wait_until(lambda: state(client)["state"] == "watching" and not state(client)["waiting"])
        wait_until(lambda: {*names(folder)} >= {one.name for one in folder.glob("*.jpg")})
        found: int = state(client)["scored"]
    return found


def said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("damage", "lost"),
    [("deleted", 6), ("emptied", 6), ("cut", 1), ("last", 3), ("middle", 1), ("zeroed", 1)],
)
def test_each_image_whose_line_is_lost_is_told_and_scored_again(
    job: Job, scored: Path, caplog: pytest.LogCaptureFixture, damage: str, lost: int
) -> None:
    file = results(scored)
    lines = file.read_bytes().splitlines(keepends=True)
    zeroed = [bytes(len(lines[2]) - 1) + b"\n"]
    left = {
        "emptied": [], "cut": [*lines[:-1], lines[-1][:40]], "last": lines[:3],
        "middle": lines[:2] + lines[3:], "zeroed": lines[:2] + zeroed + lines[3:],
    }  # fmt: skip
    if damage == "deleted":
        file.unlink()
    else:
        file.write_bytes(b"".join(left[damage]))
    (scored / "5.jpg").rename(scored.parent / "5.jpg")  # it cannot be scored again
    here = lost - (damage in {"deleted", "emptied", "cut", "last"})
    caplog.set_level("INFO")
    assert again(job, scored) == here
    assert re.search(
        rf"{lost} results? of .* (is|are) not in .*results\.jsonl any more", said(caplog)
    )
    assert f"Of their images {here} are in the folder, and are scored again" in said(caplog)
    assert f"{COUNT - 1 - here} images in it have a result, {here} have none yet" in said(caplog)
    assert sorted(names(scored)) == sorted({*names(scored)})  # none has two lines
    caplog.clear()
    assert again(job, scored) == 0
    assert "any more" not in said(caplog)


def test_what_is_only_moved_or_put_aside_is_not_lost(
    job: Job, scored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results(scored).rename(results(scored).with_name("results.3.jsonl"))
    assert again(job, scored) == 0
    image = (scored / "0.jpg").read_bytes()
    (scored / "6.jpg").write_bytes(image)
    assert again(job, scored) == 1
    results(scored).with_name("results.3.jsonl").unlink()  # to make room
    (scored / "7.jpg").write_bytes(image)
    with watching(job, scored) as client:
        wait_until(lambda: state(client)["scored"] == 1 and not state(client)["waiting"])
    # A remark in the file, as by an editor.
    results(scored).write_bytes(b"\n" + results(scored).read_bytes())
    assert "any more" not in said(caplog)
    with watching(job, scored) as client:
        wait_until(lambda: state(client)["state"] == "watching" and not state(client)["waiting"])


def test_a_file_that_is_taken_away_while_the_service_runs_is_told(
    job: Job, scored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = (scored / "0.jpg").read_bytes()
    with watching(job, scored) as client:
        wait_until(lambda: state(client)["state"] == "watching")
        for number, damage in enumerate(("taken away", "cut or emptied"), COUNT):
            if damage == "taken away":
                results(scored).rename(scored.parent / "elsewhere.jsonl")
            else:
                results(scored).write_bytes(b"")
            (scored / f"{number}.jpg").write_bytes(image)
            wait_until(lambda number=number: names(scored) == [f"{number}.jpg"])  # type: ignore[misc]
            assert damage in said(caplog)
    with watching(job, scored) as client:  # what was taken from a running service may be archived
        wait_until(lambda: state(client)["state"] == "watching" and not state(client)["waiting"])
        assert state(client)["scored"] == 0
