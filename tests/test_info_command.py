"""``fsad-edge info`` and ``fsad-edge doctor``: what a model and a machine say of themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch

from fsad_edge.pipeline.model_directory import read_manifest
from tests.commands import BLOCKED, run_process
from tests.conftest import MEAN, SIZE, STD, Cli, Job


def test_info_of_a_file(cli: Cli, job: Job) -> None:
    document = cli("info", job.file, "--json").json
    assert document["schema"] == 3
    assert (document["height"], document["width"]) == (SIZE, SIZE)
    assert document["threshold"]["value"] == job.export.threshold.value
    assert document["shots"]["count"] == 5
    assert document["bank_rows"] == job.finetune.bank_rows
    assert document["precision"] == "fp32"
    assert [golden["name"] for golden in document["golden"]] == ["000_0.png", "001_1.png"]
    assert document["backbone"]["sha256"] == read_manifest(job.part).encoder.sha256
    assert "antialiasing" in document["resize"]
    text = cli("info", job.file)
    assert text.code == 0, text.err
    assert str(job.file) in text.out
    assert job.finetune.threshold.reliability in text.out


def test_info_says_what_was_taught_here_and_what_is_not_judged(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    file, new = Path(shutil.copy(job.file, tmp_path)), tmp_path / "new.onnx"
    assert "taught" not in cli("info", file, "--json").json
    assert "smaller than 32 x 32 pixels" in cli("info", file).out
    for image in job.scratched.iterdir():
        assert cli("bank", "reject", file, image).code == 0
    assert cli("threshold", file, "--value", 0.05, "--who", "anna").code == 0
    told = cli("info", file).out
    assert f"2 images called bad, threshold 0.05 set by anna, in {file.with_suffix('')}" in told
    assert cli("bank", "export", file, "-o", new).code == 0
    document = cli("info", new, "--json").json
    assert (document["threshold"]["set_by_hand"], len(document["rejected"])) == (True, 2)
    assert document["taught"]["bad_examples"] == 2
    told = cli("info", new).out
    assert "set by hand" in told
    assert "set by anna" in told
    assert "2 images before the export" in told


def test_info_of_a_model_directory(cli: Cli, job: Job) -> None:
    document = cli("info", job.part, "--json").json
    assert document["score"] == "patch"
    assert document["encoder"]["mean"] == MEAN
    assert document["encoder"]["std"] == STD
    text = cli("info", job.part)
    assert text.code == 0, text.err
    assert job.finetune.threshold.reliability in text.out


def test_doctor_names_the_versions(cli: Cli) -> None:
    found = cli("doctor", "--json").json["found"]
    assert found["torch"].startswith(torch.__version__.split("+")[0])
    assert "CPU" in found["onnxruntime"]
    text = cli("doctor")
    assert text.code == 0, text.err
    assert found["onnxruntime"] in text.out


def test_doctor_says_what_a_gpu_keeps_in_its_memory(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "batches on a GPU"
    assert told not in cli("doctor", "--json").json["found"]
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    found = cli("doctor", "--json").json["found"]
    assert "1, 2, 4, 8 images in one run" in found[told]


@pytest.mark.parametrize("as_json", [True, False])
def test_doctor_says_how_to_install_what_is_missing(as_json: bool) -> None:
    script = BLOCKED.format(module="onnxruntime")
    done = run_process("doctor", *(["--json"] if as_json else []), script=script)
    assert done.code == 0, done.err
    if as_json:
        missing = json.loads(done.out)["missing"]
        assert "fsad-edge[cpu]" in missing["onnxruntime"]
        assert all("pip" in line for line in missing.values())
    else:
        assert "missing: onnxruntime\n  pip install 'fsad-edge[cpu]'" in done.out
