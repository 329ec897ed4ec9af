"""Names of files on a terminal, in CSV and in a log: one line in which no character acts."""

from __future__ import annotations

import csv
import io
import logging
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsad_edge.runtime.plain_text import PlainFormatter, printable
from tests.conftest import Cli, Job

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")

#: A line feed with a forged line, colours, markup, a bidirectional override and a byte of no text.
EVIL = "a\nerror: forged \x1b[31m[red]\u202e\udcff.png"
SHOWN = "a\\nerror: forged \\x1b[31m[red]\\u202e\\udcff.png"


@pytest.fixture
def folder(job: Job, tmp_path: Path) -> Path:
    """One photograph and one broken file, both of evil names."""
    shutil.copy(job.shots / "0.png", tmp_path / EVIL)
    (tmp_path / f"broken{EVIL}").write_text("no image")
    return tmp_path


@given(st.text())
def test_a_printable_text_is_one_line_and_acts_on_nothing(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


def test_no_name_reaches_a_terminal_as_it_is(cli: Cli, job: Job, folder: Path) -> None:
    done = cli("score", job.file, folder, "--heatmaps", folder / "maps")
    assert f"{folder}/{SHOWN}" in done.out
    assert f"error: {folder}/broken{SHOWN} is not an image but text." in done.err.splitlines()
    for text in (done.out, done.err, cli("score", job.file, folder / f"none{EVIL}").err):
        assert not any(line.startswith("error: forged") for line in text.splitlines())
        assert not {"\x1b", "\u202e", "\udcff"} & set(text)


def test_csv_is_escaped_and_json_is_exact(cli: Cli, job: Job, folder: Path) -> None:
    [row, _] = csv.DictReader(io.StringIO(cli("score", job.file, folder, "--csv").out))
    assert row["image"] == f"{folder}/{SHOWN}"
    done = cli("score", job.file, folder, "--json")
    assert done.out.isascii()
    assert {Path(one["image"]).name for one in done.json["images"]} == {EVIL, f"broken{EVIL}"}


def test_arguments_are_shown_as_names_are(cli: Cli) -> None:
    for arguments in (["score", f"--{EVIL}"], ["info", EVIL], ["export", "x", "--target", EVIL]):
        done = cli(*arguments)
        assert done.code == 2
        assert len(done.err.splitlines()) == 1
        assert "\x1b" not in done.err


def test_no_line_of_a_log_can_be_forged() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise ValueError(f"\nINFO {EVIL}")
    except ValueError:
        logger.exception("%s is scored", EVIL)
    first, *below = stream.getvalue().splitlines()
    assert first == f"ERROR {SHOWN} is scored"
    assert below[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in below)
    assert "\x1b" not in stream.getvalue()


def test_pictures_take_every_name(cli: Cli, job: Job, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    for kind, name in (("good", f"$x^_{EVIL}"), (f"$\\frac{{$\n\x1b{EVIL}", "a$^.png")):
        folder = dataset / "test" / kind
        folder.mkdir(parents=True)
        source = "good" if kind == "good" else "scratch"
        shutil.copy(next((job.dataset / "test" / source).iterdir()), folder / name)
    model = tmp_path / "$^_\n\x1b\udcff.onnx"
    shutil.copy(job.file, model)
    done = cli("eval", model, dataset, "--report", tmp_path / "report.png")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out + done.err
    done = cli("bench", model, "--runs", 1, "--plot", tmp_path / "plot.png")
    assert done.code == 0, done.err
    assert cli("threshold", model, "--picture", tmp_path / "threshold.png").code == 0
