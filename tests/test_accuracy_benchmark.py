"""The accuracy benchmark: a stopped run continues, and tables and baselines are correct."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.datasets import one_against_rest, rendered
from benchmarks.accuracy.ours import parse_options
from benchmarks.accuracy.rows import read_rows
from benchmarks.accuracy.table import markdown
from benchmarks.report import FIGURES, RESULTS, ROWS, TABLES, fill
from fsad_edge import ExportOptions, FinetuneOptions, load_image
from fsad_edge.options import Precision
from tests.conftest import photograph

BASELINES = ("--systems", "colour", "pixels")


def write(folder: Path, images: list[Any]) -> None:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).save(
            folder / f"{index}.png"
        )


def plates(seed: int, count: int, tint: tuple[int, int, int] = (0, 0, 0)) -> list[Any]:
    """Grey plates with a bright block at the left, float ``[48, 48, 3]`` each."""
    rng = np.random.default_rng(seed)
    images = rng.normal(100, 5, (count, 48, 48, 3)) + np.array(tint)
    images[:, 10:30, 4:16] += 60
    return list(images)


@pytest.fixture(scope="module")
def plate_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Defects: another colour, and a block on the other side in the same colours."""
    folder = tmp_path_factory.mktemp("sets") / "plates"
    write(folder / "train/good", plates(0, 6))
    good = plates(1, 8)
    write(folder / "test/good", good)
    write(folder / "test/moved", [image[:, ::-1] for image in good])
    write(folder / "test/tinted", plates(2, 4, (12, 0, 0)))
    return folder


@pytest.fixture(scope="module")
def masked_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, scratched ones with masks."""
    folder = tmp_path_factory.mktemp("sets") / "scratched"
    rng = np.random.default_rng(0)
    write(folder / "train/good", [photograph(rng) for _ in range(3)])
    write(folder / "test/good", [photograph(rng) for _ in range(3)])
    write(folder / "test/scratch", [photograph(rng, defect=True) for _ in range(3)])
    mask = np.zeros((96, 96))
    mask[8:88, 8:60] = 255
    write(folder / "ground_truth/scratch", [mask] * 3)
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_each_baseline_finds_the_defects_it_can_see(plate_set: Path, tmp_path: Path) -> None:
    run(tmp_path, "--data", plate_set, *BASELINES, "--shots", 1, 5, "--seeds", 0, 1)
    rows = rows_of(tmp_path)
    assert len(rows) == 8
    for row in rows:
        assert row["pixel_auroc"] is None
        if row["system"] == "colour":
            assert row["by_defect"]["tinted"] == 1
            assert row["by_defect"]["moved"] == pytest.approx(0.5, abs=0.1)  # the same colours
        else:
            assert row["by_defect"]["moved"] == 1
    table = (tmp_path / "table.md").read_text()
    assert "| 5 | colour |" in table  # a row and not a column, as there is no other system
    assert load_image(tmp_path / "accuracy.png").shape[1] > 500


def test_a_stopped_run_continues(plate_set: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    asked = (tmp_path, "--data", plate_set, *BASELINES, "--shots", 2, "--seeds", 0, 1)
    run(*asked)
    whole = file.read_bytes().splitlines(keepends=True)
    marked = [{**json.loads(line), "mark": True} for line in whole[:3]]
    start = b"".join(json.dumps(row).encode() + b"\n" for row in marked)
    file.write_bytes(start + whole[3][:40])
    run(tmp_path, "--report-only")
    assert file.read_bytes() == start + whole[3][:40]
    run(*asked)
    rows = rows_of(tmp_path)
    assert rows[:3] == marked
    again, before = rows[3], json.loads(whole[3])
    assert {**again, "seconds": 0} == {**before, "seconds": 0}
    run(*asked)
    assert rows_of(tmp_path) == rows


def test_a_line_that_is_not_a_row_is_named_in_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.jsonl").write_text('{"dataset": "a"}\n')
    assert main([str(tmp_path), "--report-only"]) == 2
    assert "line 1" in capsys.readouterr().err


def test_the_table_and_the_plot_come_from_rows(tmp_path: Path) -> None:
    def row(data: str, system: str, seed: int, **figures: Any) -> dict[str, Any]:
        settings = "" if system == "colour" else "w"
        key = {"dataset": data, "system": system, "settings": settings, "shots": 5, "seed": seed}
        return key | figures

    aurocs = {0: (0.7, 0.9), 1: (0.8, 1.0)}
    rows = [row("nuts", "padim", 0, skipped="It needs more shots.")]
    for seed, (one, other) in aurocs.items():
        rows += [
            row("set/one", "ours", seed, image_auroc=one, false_alarm_rate=0.02, miss_rate=0.5),
            row("set/other", "ours", seed, image_auroc=other, false_alarm_rate=0.04, miss_rate=0.5),
            row("set/one", "colour", seed, image_auroc=0.6),
            row("nuts", "ours", seed, image_auroc=one, pixel_auroc=0.75, aupro=0.5),
        ]
    # The baselines are averaged over the seeds that the system has.
    rows.append(row("set/one", "colour", 2, image_auroc=0.0))
    rows.append(
        row("nuts", "ours", 0, image_auroc=0.9, pixel_auroc=0.75, aupro=0.5)
    )  # a later row replaces one
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(tmp_path, "--report-only")
    table = (tmp_path / "table.md").read_text()
    wanted = (
        "| 5 | ours | 0.850 (0.071) | 0.600 (0.000) | – | – | – | 3.0% (0.0) | 50.0% (0.0) | 4 |"
    )
    assert wanted in table
    assert "Mean over 2 tasks" in table
    assert "| 5 | ours | 0.850 (0.071) | – | – | 0.750 (0.000) | 0.500 (0.000) |" in table
    assert "| 5 | padim | skipped |" in table
    assert "- padim: It needs more shots." in table
    plot = load_image(tmp_path / "accuracy.png")
    assert plot.std() > 5


def test_the_published_figures_are_those_of_the_stored_rows() -> None:
    text = RESULTS.read_text()
    assert fill(text) == text, "run  python -m benchmarks.report"
    assert fill(text.replace("0.9", "0.8")) != text.replace("0.9", "0.8")
    assert {name for name in (*TABLES, *FIGURES) if f"<!-- {name} -->" not in text} == set()
    for folder in ("accuracy", "ablation"):
        rows = read_rows(ROWS / folder / "runs.jsonl")
        assert (ROWS / folder / "table.md").read_text() == markdown(rows)


def test_each_class_is_the_normal_one_of_a_task(plate_set: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    for seed, name in enumerate(("ant", "bee", "cow")):
        for part, count in (("train", 3), ("test", 4)):
            write(folder / part / name, plates(seed, count, (0, 0, 25 * seed)))
    (tmp_path / "links").mkdir()
    tasks = one_against_rest(folder, ["cow", "ant"], tmp_path / "links")
    assert [task.name for task in tasks] == ["kinds/ant", "kinds/cow"]
    ant = tasks[0]
    assert {path.resolve().parent.name for path in ant.normal_images} == {"ant"}
    assert [sample.defect for sample in ant.samples] == [None] * 4 + ["bee"] * 4 + ["cow"] * 4
    assert {path.resolve() for path in ant.draw(3, 0)} == set((folder / "train/ant").iterdir())
    run(tmp_path / "out", "--one-class", folder, *BASELINES, "--shots", 2, "--seeds", 0)
    rows = rows_of(tmp_path / "out")
    assert [row["dataset"] for row in rows[:3]] == ["kinds/ant", "kinds/bee", "kinds/cow"]
    assert all(row["image_auroc"] == 1 for row in rows if row["system"] == "colour")
    assert "| 2 | colour | 1.000 |" in (tmp_path / "out/table.md").read_text()


def test_a_part_of_the_demo_is_rendered_once(tmp_path: Path) -> None:
    data = rendered("wood", tmp_path / "parts", train=2, good=1, bad=1)
    assert (len(data.normal_images), len(data.samples)) == (2, 6)
    assert sum(sample.mask is not None for sample in data.samples) == 5
    before = data.normal_images[0].stat().st_mtime_ns
    again = rendered("wood", tmp_path / "parts")
    assert again.normal_images[0].stat().st_mtime_ns == before


def test_the_library_and_the_plain_bank(
    masked_set: Path, backbones: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"backbone={backbones['conv']} image_size=64"
    asked = [tmp_path, "--data", masked_set, "--shots", "2", "--seeds", "0", "--size", "64"]
    asked += ["--weights", backbones["conv"], "--systems", "plain-bank"]
    run(*asked, "--variant", f"conv: {options}")
    bank, own = rows_of(tmp_path)
    assert own["system"] == "ours:conv"
    assert own["settings"] == "backbone=local-dir:conv image_size=64"
    assert own["flips"] == 0
    assert own["parity"] < 1e-4
    assert own["weights_kept"] is False
    assert own["auroc_finetuned"] is None
    assert own["threshold"] > 0
    for row in (bank, own):
        assert row["image_auroc"] == 1
        assert 0.5 < row["pixel_auroc"] <= 1
        assert 0 < row["aupro"] <= 1
    table = (tmp_path / "table.md").read_text()
    assert f"{100 * own['false_alarm_rate']:.1f}%" in table
    assert "## The exported models" in table
    assert main([*map(str, asked), "--variant", "bad: nonsense=3"]) == 2
    assert "nonsense=3" in capsys.readouterr().err


def test_options_are_read_by_the_type_of_their_field() -> None:
    text = "image_size=224 strides=8,16 align=false learning_rate=1e-4 precision=int8 allow_drift=0"
    assert parse_options(text) == (
        FinetuneOptions(image_size=224, strides=(8, 16), align=False, learning_rate=1e-4),
        ExportOptions(precision=Precision.INT8, allow_drift=0.0),
    )


def test_peers_run_in_their_own_environment(
    masked_set: Path, plate_set: Path, tmp_path: Path
) -> None:
    peer = tmp_path / "python"
    peer.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "import numpy as np\n"
        "assert sys.argv[1:3] == ['-m', 'benchmarks.peers']\n"
        "job = json.load(open(sys.argv[3]))\n"
        "if job['system'] == 'padim':\n    sys.exit('loading\\nIt needs more shots.')\n"
        "assert len(job['shots']) == 2 and job['seed'] == 1 and job['size'] == 64\n"
        "scores = np.float32(['good' not in path for path in job['test']])\n"
        "maps = {'maps': np.float16(scores)[:, None, None]} if job['maps'] else {}\n"
        "np.savez(sys.argv[4], scores=scores, seconds=3.5, **maps)\n"
    )
    peer.chmod(0o755)
    asked = [tmp_path / "out", "--data", masked_set, plate_set, "--shots", 2, "--seeds", 1]
    asked += ["--size", 64, "--weights", "local-dir:some/net", "--peers-python", peer]
    run(*asked, "--systems", "patchcore", "padim")
    found = {(row["dataset"], row["system"]): row for row in rows_of(tmp_path / "out")}
    with_masks, without = found[masked_set.name, "patchcore"], found["plates", "patchcore"]
    assert with_masks["settings"] == "local-dir:net, 64 px"
    assert with_masks["image_auroc"] == without["image_auroc"] == 1
    assert with_masks["peer_seconds"] == 3.5
    assert with_masks["pixel_auroc"] > 0.5
    assert without["pixel_auroc"] is None
    assert found["plates", "padim"]["skipped"].endswith("It needs more shots.")
    rows = rows_of(tmp_path / "out")
    run(*asked, "--systems", "padim")
    assert rows_of(tmp_path / "out") == rows
    run(*asked, "--systems", "padim", "--again")
    assert len(rows_of(tmp_path / "out")) == len(rows) + 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is no data set"),
        (["--report-only"], "has no rows yet"),
        (["--data", "{set}", "--shots", "7"], "7 shots cannot be drawn"),
        (["--data", "{set}", "--shots", "0"], "0 shots cannot be drawn"),
        (["--data", "{set}/nowhere"], "does not exist"),
        (["--data", "{set}", "{set}"], "two data sets are called plates"),
        (["--data", "{set}", "--shots", "1", "--systems", "padim"], "--peers-python"),
        (["--data", "{set}", "--shots", "1", "--variant", "epochs=0"], "--variant takes"),
        (["--data", "{set}", "--shots", "1", "--options", "epochs=many"], "epochs=many"),
        (["--one-class", "{set}"], "rename the class"),
        (["--one-class", "{set}/train"], "has no folder test"),
    ],
)
def test_bad_input_is_one_sentence(
    plate_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    given = [argument.replace("{set}", str(plate_set)) for argument in arguments]
    assert main([str(tmp_path / "out"), *given]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
