"""``fsad-edge score``: rows, heat maps and exit codes, and the library's scores behind them."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fsad_edge import Model, load_image
from tests.commands import ENTRY, assert_refused, run_process
from tests.conftest import SIZE, Cli, Job


def test_good_parts_pass(cli: Cli, job: Job) -> None:
    done = cli("score", job.file, job.shots, "--json")
    assert done.code == 0, done.err
    rows = done.json["images"]
    assert [Path(row["image"]).name for row in rows] == [f"{i}.png" for i in range(5)]
    for row in rows:
        assert row["decision"] == "good"
        threshold = job.export.threshold.value
        assert row["ratio"] == pytest.approx(row["score"] / threshold, abs=1e-3)
        assert row["ms"] > 0
        assert row["error"] is None


def test_a_defect_is_found(cli: Cli, job: Job, tmp_path: Path) -> None:
    maps = tmp_path / "maps/deep"
    done = cli("score", job.file, job.scratched, job.shots / "0.png", "--csv", "--heatmaps", maps)
    assert done.code == 1, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["decision"] for row in rows] == ["anomaly", "anomaly", "good"]
    assert [float(row["ratio"]) > 1 for row in rows] == [True, True, False]
    pictures = sorted(maps.rglob("*.png"))
    assert len(pictures) == 3
    for picture in pictures:
        assert load_image(picture).std() > 5


def test_an_image_that_is_not_judged_is_neither_good_nor_an_anomaly(
    cli: Cli, job: Job, careful_file: Path, foreign: Path, tmp_path: Path
) -> None:
    done = cli("score", careful_file, job.shots / "0.png", foreign, "--json")
    assert done.code == 3, done.err
    good, strange = done.json["images"]
    assert (good["decision"], good["good"], good["doubts"]) == ("good", True, [])
    assert (strange["decision"], strange["good"], strange["doubts"]) == (
        "not_judged", False, ["unlike"],
    )  # fmt: skip
    assert strange["image_score"] > 2 * good["image_score"]
    with Model.load(careful_file) as model:
        result = model.score(foreign)
        assert strange["image_score"] == pytest.approx(result.image_score, abs=1e-3)
        assert not result.good
        assert not result.anomalous

    rows = cli("score", careful_file, job.shots / "0.png", foreign, "--csv")
    assert rows.code == 3
    first, second = csv.DictReader(io.StringIO(rows.out))
    assert (first["decision"], first["good"], first["doubts"]) == ("good", "true", "")
    assert (second["decision"], second["good"], second["doubts"]) == (
        "not_judged", "false", "unlike",
    )  # fmt: skip
    assert "2 images scored: 1 good, 0 anomalies, 1 not judged" in rows.err
    table = cli("score", careful_file, foreign)
    assert table.code == 3
    row, counts = table.out.splitlines()[1:]
    assert "not judged" in row
    (reason,) = strange["reasons"]
    assert reason.startswith("it is unlike the shots")
    assert row.endswith(f"{foreign}  ({reason})")
    assert second["reasons"] == reason
    assert counts == "1 image scored: 0 good, 0 anomalies, 1 not judged"


def test_an_anomaly_goes_before_what_is_not_judged_and_an_error_before_both(
    cli: Cli, job: Job, careful_file: Path, foreign: Path, tmp_path: Path
) -> None:
    bad, missing = job.scratched / "0.png", tmp_path / "missing.png"
    assert cli("score", careful_file, foreign, bad).code == 1
    assert cli("score", careful_file, foreign, missing).code == 2
    assert cli("score", careful_file, foreign, missing, "--skip-unreadable").code == 3
    assert cli("score", careful_file, bad, missing, "--skip-unreadable").code == 1
    assert cli("score", careful_file, foreign, bad, missing).code == 2


def test_heat_maps_say_what_was_decided(
    cli: Cli, job: Job, careful_file: Path, foreign: Path, tmp_path: Path
) -> None:
    images = [job.shots / "0.png", job.scratched / "1.png", foreign]
    cli("score", careful_file, *images, "--heatmaps", tmp_path)
    colours = {}
    for image in images:
        drawn = load_image(tmp_path / f"{image.name}.heatmap.png")
        colours[image.name] = drawn[-56, 18].tolist()  # inside the badge's left end
    red, green, blue = colours["0.png"]
    assert green > max(red, blue) + 30
    red, green, blue = colours["1.png"]
    assert red > max(green, blue) + 30
    assert np.ptp(colours[foreign.name]) < 30


def test_the_second_scale_shows_what_lies_below_the_threshold(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    image = job.dataset / "test/good/1.png"
    for scale in ("threshold", "near"):
        done = cli("score", job.file, image, "--heatmaps", tmp_path / scale, "--scale", scale)
        assert done.code == 0, done.err
    plain, near = (
        load_image(tmp_path / scale / "1.png.heatmap.png").astype(int)
        for scale in ("threshold", "near")
    )
    photo, drawn = near[8:528, 8:528], near[8:528, 536:1056]
    assert (plain[8:528, 536:1056] == photo).all()
    assert np.abs(drawn - photo).max() > 30
    bluer = (drawn[..., 2] - drawn[..., 0]) - (photo[..., 2] - photo[..., 0])
    assert bluer.min() >= -2  # nothing that could be taken for a place above the threshold


def test_every_image_keeps_its_own_heat_map(cli: Cli, job: Job, tmp_path: Path) -> None:
    same_name = [job.dataset / f"test/{kind}/0.png" for kind in ("good", "scratch", "[red]dent")]
    done = cli("score", job.file, *same_name, job.scratched, "--heatmaps", tmp_path)
    assert done.code == 1
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    assert names == {  # scratch/0.png is given twice
        "good/0.png.heatmap.png", "scratch/0.png.heatmap.png", "[red]dent/0.png.heatmap.png",
        "1.png.heatmap.png",
    }  # fmt: skip
    folders = [job.dataset / "test/good", job.dataset / "test/scratch"]
    assert cli("score", job.file, *folders, "--heatmaps", tmp_path / "folders").code == 1
    assert len(list(tmp_path.glob("folders/good/*.png"))) == 2  # 2.png has its name for itself


def test_a_heat_map_names_the_folder_of_its_image(
    cli: Cli, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []

    def describe(name: str, *facts: object) -> str:
        captions.append(name)
        return name

    monkeypatch.setattr("fsad_edge.runtime.heatmap.describe", describe)
    cli("score", job.file, job.dataset / "test/good", "--heatmaps", tmp_path)
    assert captions == ["good/0.png", "good/1.png", "good/2.png"]


def test_people_get_a_table(cli: Cli, job: Job) -> None:
    done = cli("score", job.file, job.scratched)
    assert done.code == 1
    header, *rows, counts = done.out.splitlines()
    assert header.split() == ["score", "ratio", "decision", "ms", "image"]
    assert [row.split()[2] for row in rows] == ["anomaly", "anomaly"]
    assert all(str(job.scratched) in row for row in rows)
    assert counts == "2 images scored: 0 good, 2 anomalies"


def test_the_library_scores_as_the_command_does(cli: Cli, job: Job) -> None:
    image = job.scratched / "0.png"
    row = cli("score", job.file, image, "--json").json["images"][0]
    with Model.load(job.file) as model:
        for source in (image, str(image), image.read_bytes(), load_image(image)):
            result = model.score(source)
            assert result.score == pytest.approx(row["score"], abs=1e-6)
            assert result.anomalous
            assert result.patch_map.shape == (SIZE // 16, SIZE // 16)
            assert set(result.timings) == {"decode", "resize", "infer", "post"}


def test_what_was_not_looked_at_is_counted_and_an_error(cli: Cli, job: Job, tmp_path: Path) -> None:
    shutil.copy(job.shots / "0.png", tmp_path / "0.png")
    (tmp_path / "phone.heic").touch()
    (tmp_path / "notes.txt").touch()
    done = cli("score", job.file, tmp_path)
    assert done.code == 2
    counts = done.out.splitlines()[-1]
    skipped = "2 skipped: 1 .heic is not read, 1 .txt is not an image"
    assert counts == f"1 image scored: 1 good, 0 anomalies; {skipped}"
    assert "error: some files were not looked at (1 skipped: 1 .heic is not read)" in done.err
    assert cli("score", job.file, tmp_path, "--skip-unreadable").code == 0
    rows = cli("score", job.file, tmp_path, "--csv")
    assert rows.code == 2
    assert counts in rows.err
    done = cli("score", job.file, tmp_path, "--json")
    assert done.code == 2
    unseen = {Path(one["path"]).name: one["unseen"] for one in done.json["skipped"]}
    assert unseen == {"phone.heic": True, "notes.txt": False}


def test_other_files_beside_the_images_are_no_error(cli: Cli, job: Job, tmp_path: Path) -> None:
    shutil.copy(job.shots / "0.png", tmp_path / "0.png")
    (tmp_path / "notes.txt").touch()
    assert cli("score", job.file, tmp_path).code == 0


def test_own_heat_maps_are_not_scored(cli: Cli, job: Job, tmp_path: Path) -> None:
    shutil.copy(job.shots / "0.png", tmp_path / "0.png")
    for _ in range(2):
        done = cli("score", job.file, tmp_path, "--heatmaps", tmp_path / "maps")
        assert done.code == 0
        assert "1 image scored: 1 good" in done.out
    drawn = tmp_path / "maps/0.png.heatmap.png"
    drawn.rename(tmp_path / "renamed.png")
    done = cli("score", job.file, tmp_path, tmp_path, tmp_path / "renamed.png")
    assert done.code == 0
    assert "1 image scored: 1 good" in done.out
    assert "; 1 skipped: 1 was made by fsad-edge" in done.out


def test_a_name_that_is_too_long_is_one_sentence(cli: Cli, job: Job, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300) / "part.png"
    done = cli("score", job.file, long)
    assert done.code == 2
    assert "error: " in done.err
    assert "Traceback" not in done.err


def test_pictures_of_an_image_with_a_long_name_are_written(
    cli: Cli, job: Job, tmp_path: Path
) -> None:
    images, maps, why = tmp_path / "images", tmp_path / "maps", tmp_path / "why"
    images.mkdir()
    for end in "ab":
        shutil.copy(job.scratched / "0.png", images / f"{'ä' * 125}{end}.png")
    done = cli("score", job.file, images, "--heatmaps", maps, "--why", why)
    assert done.code == 1, done.err
    assert len(list(maps.iterdir())) == len(list(why.iterdir())) == 2


def test_a_folder_in_place_of_the_model_gets_the_cure_of_its_kind(cli: Cli, job: Job) -> None:
    assert_refused(cli("score", job.shots, job.file), "the model file comes first")
    assert_refused(cli("score", job.part, job.shots), f"run  fsad-edge export {job.part}")


def test_json_and_csv_exclude_each_other(cli: Cli, job: Job) -> None:
    assert_refused(cli("score", job.file, job.shots, "--json", "--csv"), "--json and --csv")


def test_scoring_imports_no_training_framework(job: Job) -> None:
    script = (
        "import sys\n"
        "from fsad_edge.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    print({'torch', 'timm', 'onnx', 'scipy', 'matplotlib'} & set(sys.modules))"
    )
    done = run_process("score", job.file, job.shots / "0.png", script=script)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "set()"


def test_scoring_writes_nothing_into_the_home_folder(job: Job, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry would leave an identity and a database there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run(
        [sys.executable, "-c", ENTRY, "score", str(job.file), str(job.shots / "0.png")],
        check=True, capture_output=True, env=environment | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("options", [[], ["--json"], ["--csv"], ["--heatmaps"]])
def test_a_name_that_cannot_be_printed_is_scored(
    job: Job, tmp_path: Path, encoding: str, options: list[str]
) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    try:
        shutil.copy(job.shots / "0.png", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    more = [*options, tmp_path / "maps"] if options == ["--heatmaps"] else options
    done = run_process("score", job.file, name, *more, environment={"PYTHONIOENCODING": encoding})
    assert done.code == 0, done.err
    assert ".png" in done.out
