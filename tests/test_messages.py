"""Errors whose cure fits their cause, and leads on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from tests.commands import ENTRY, all_files, assert_refused, run_process
from tests.conftest import SIZE, Cli, Job, save_backbone

#: A start where onnxruntime is there, but a library that it needs is not.
BROKEN = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            raise ImportError("libstdc++.so.6: cannot open shared object file", name=name)
sys.meta_path.insert(0, Broken())
"""


def blank(index: int) -> Image.Image:
    """Grey with one pixel that is another grey."""
    pixels = np.full((96, 96, 3), 128, np.uint8)
    pixels[40 + index, 40] = 129
    return Image.fromarray(pixels)


def test_shots_that_teach_nothing_are_not_blamed_on_the_backbone(
    cli: Cli, backbones: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "shots").mkdir()
    for index in range(5):
        blank(index).save(tmp_path / f"shots/{index}.png")
    before = all_files(tmp_path)
    done = cli(
        *("finetune", tmp_path / "shots", "-o", tmp_path / "part", "--image-size", SIZE),
        *("--backbone", backbones["conv"], "--rotations", "1"),
    )
    assert_refused(done)
    assert "--backbone" not in done.err
    assert all_files(tmp_path) == before


def test_an_encoder_that_sees_nothing_is_blamed(cli: Cli, job: Job, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "zero", "conv")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    nothing = {name: value * ("running" in name) for name, value in weights.items()}
    safetensors.torch.save_file(nothing, folder / "model.safetensors")
    done = cli(
        *("finetune", job.shots, "-o", tmp_path / "part", "--image-size", SIZE),
        *("--backbone", f"local-dir:{folder}", "--rotations", "1"),
    )
    assert_refused(done, "learned nothing", "same features for every picture", "--backbone")
    assert not (tmp_path / "part").exists()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("vit", ["--strides", "8"], "no feature map at stride 8: --strides takes 16 alone"),
        ("conv", ["--strides", "64"], "takes one or several of 2, 4, 8, 16, 32"),
        ("conv", ["--strides", "32", "--image-size", "33"], "take 64"),
        ("conv", ["--strides", "32", "--image-size", "32"], "take 64"),
    ],
)
def test_what_is_offered_can_be_taken(
    cli: Cli,
    job: Job,
    backbones: dict[str, str],
    tmp_path: Path,
    kind: str,
    options: list[str],
    words: str,
) -> None:
    size = [] if "--image-size" in options else ["--image-size", str(SIZE)]
    asked = ("finetune", job.shots, "-o", tmp_path / "part", "--backbone", backbones[kind])
    assert_refused(cli(*asked, *options, *size), words)


def test_export_names_the_model_directory_that_it_cannot_read(
    cli: Cli, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(job.part, tmp_path / "part")
    manifest = tmp_path / "part/manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))
    assert_refused(cli("export"), "part/manifest.json was written by a newer fsad-edge", "update")
    manifest.write_text(manifest.read_text()[:-20])
    assert_refused(cli("export"), "part/manifest.json is damaged")
    done = cli("finetune", job.shots, "-o", tmp_path / "part", "--force")
    assert_refused(done, "manifest.json cannot be read", "move it away")


def test_force_keeps_photographs_that_were_put_among_the_shots(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    shutil.copytree(job.part, part)
    shutil.copy(job.scratched / "0.png", part / "shots/mine.png")
    before = all_files(tmp_path)
    assert_refused(cli("finetune", job.shots, "-o", part, "--force"), "mine.png", "move it away")
    assert all_files(tmp_path) == before


def test_a_package_that_is_broken_is_not_called_missing(job: Job) -> None:
    done = run_process("score", job.file, job.shots, script=BROKEN + ENTRY)
    assert_refused(done, "onnxruntime is installed and cannot be imported", "libstdc++.so.6")
