"""Inputs are files: what would be waited for, or read without an end, is refused at once."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.commands import ENTRY, assert_refused, run_process
from tests.conftest import Cli, Job

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these")


@pytest.fixture
def endless(tmp_path: Path) -> list[Path]:
    """A pipe that nobody writes into, a device without an end and a file of 10 GB of nothing."""
    pipe, sparse = tmp_path / "pipe", tmp_path / "sparse"
    os.mkfifo(pipe)
    with sparse.open("wb") as file:
        file.truncate(10 << 30)
    return [pipe, Path("/dev/zero"), sparse]


@pytest.mark.parametrize(
    "command",
    [
        "score {0} {good}", "score {model} {0}", "info {0}", "eval {0} {dataset}",
        "eval {model} {0}", "export {0}", "export {part} -o {new} --precision int8 --ranges-of {0}",
        "finetune {0} -o {new}", "finetune {shots} -o {new} --weights {0}",
        "finetune {shots} -o {new} --backbone local-dir:{folder}", "build {0}",
        "threshold {model} --good {0}", "threshold {model} --bad {0} --dry-run",
        "bank add {model} {0}", "bank reject {model} {0}", "bench {0} --runs 1",
        "bench {model} --runs 1 --images {0}", "bench {model} --runs 1 --compare {0}",
        "triton {0} {new}", "serve {0} --port 0", "serve {model} --port 0 --token-file {0}",
        "serve {model} --port 0 --tls-cert {0} --tls-key {0}",
    ],
)  # fmt: skip
def test_what_never_ends_is_refused_at_once(
    cli: Cli, job: Job, endless: list[Path], tmp_path: Path, command: str
) -> None:
    model = tmp_path / "part.onnx"
    shutil.copy(job.file, model)
    for number, one in enumerate(endless):
        folder = tmp_path / f"net{number}"
        folder.mkdir()
        (folder / "config.json").symlink_to(one)
        names = {
            "model": model, "good": job.shots / "0.png", "dataset": job.dataset, "part": job.part,
            "shots": job.shots, "new": tmp_path / "new", "folder": folder,
        }  # fmt: skip
        done = cli(*(part.format(one, **names) for part in command.split()))
        named = "net" if "{folder}" in command else one.name
        assert_refused(done, "10240 MiB" if "threshold" in command and number == 2 else named)
    assert not (tmp_path / "new").exists()


def test_a_file_of_ten_gigabytes_is_refused_with_little_memory(
    job: Job, endless: list[Path]
) -> None:
    limited = (
        f"import resource\nresource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n{ENTRY}"
    )
    commands: list[list[str | Path]] = [
        ["info", endless[2]],
        ["bench", job.file, "--compare", endless[2]],
    ]
    for command in commands:
        done = run_process(*command, script=limited, environment={"OMP_NUM_THREADS": "1"})
        assert_refused(done, "10,737,418,240 bytes")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "{model}", ""], "an argument is empty"),
        (["score", "", "{good}"], "an argument is empty"),
        (
            ["score", "{model}", "{good}", "--heatmaps", ""],
            "the argument after --heatmaps is empty",
        ),
        (["score", "{model}", "{good}", "--heatmaps="], "the value of --heatmaps is empty"),
        (["export", "{part}", "-o", ""], "the argument after -o is empty"),
        (["bank", "add", "{model}", ""], "an argument is empty"),
        (["score", "{model}", "a\0b"], "null byte"),
        (["score", "{model}", "n" * 300], "File name too long"),
        (["score", "{model}", "/n" * 5000], "File name too long"),
        (["export", "{part}", "-o", "n" * 300], "File name too long"),
    ],
)
def test_arguments_that_are_no_paths(cli: Cli, job: Job, arguments: list[str], words: str) -> None:
    names = {"model": job.file, "good": job.shots / "0.png", "part": job.part}
    assert_refused(cli(*(one.format(**names) for one in arguments)), words)


def test_many_images_of_one_name_have_heat_maps_of_their_own(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    """Their number must not cost its square: it took 8 s for 2,000 of them before the first row."""
    from fsad_edge.pipeline.score import collect_images

    folders = [tmp_path / str(number) / "same" for number in range(3000)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "a.png").touch()
    found = collect_images(folders)
    assert len(set(found.images.values())) == len(found.images) == 3000
