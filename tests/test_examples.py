"""The examples in other languages: built, run and compared with Python."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from fsad_edge import Model
from fsad_edge.calibration.locating import find_locator
from fsad_edge.options import Locate
from fsad_edge.runtime import onnx_file
from fsad_edge.runtime.images import load_resized
from fsad_edge.runtime.metadata import KEY, Metadata
from tests.conftest import SIZE, Job, photograph
from tests.loose_parts import bolt, places

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
#: A lossless format that each example reads.
SUFFIX = {"cpp": ".ppm", "javascript": ".png"}

Example = tuple[str, list[str]]


def run(*command: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], input=stdin, capture_output=True, text=True, timeout=300
    )


def onnxruntime_root(folder: Path) -> Path:
    """A folder with ONNX Runtime's headers and library, laid out as in its releases.

    ``ONNXRUNTIME_ROOT`` names it. If that holds no library, the Python package's is used.
    """
    given = os.environ.get("ONNXRUNTIME_ROOT")
    if given and Path(given, "lib").is_dir():
        return Path(given)
    libraries = list(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("the onnxruntime package has no libonnxruntime.so: set ONNXRUNTIME_ROOT")
    (folder / "lib").mkdir(parents=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / "lib" / name).symlink_to(libraries[0])
    if given:
        (folder / "include").symlink_to(Path(given, "include").resolve())
    return folder


@pytest.fixture(scope="session")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if not (shutil.which("cmake") and shutil.which("c++")):
        pytest.skip("no cmake or no C++ compiler")
    folder = tmp_path_factory.mktemp("cpp")
    root, build = onnxruntime_root(folder / "onnxruntime"), folder / "build"
    made = run("cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DONNXRUNTIME_ROOT={root}")
    if made.returncode and "ONNXRUNTIME_INCLUDE" in made.stderr:
        pytest.skip("no ONNX Runtime headers: install libonnxruntime-dev or set ONNXRUNTIME_ROOT")
    assert made.returncode == 0, made.stderr
    built = run("cmake", "--build", build)
    assert built.returncode == 0, built.stdout + built.stderr
    return [str(build / "score")]


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node or no npm")
    version = run("node", "--version").stdout
    if int(version.removeprefix("v").split(".")[0]) < 20:
        pytest.skip(f"node is {version.strip()}: the example needs 20 or later")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "score.mjs"):
        shutil.copy(EXAMPLES / "javascript" / name, folder)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline")
    installed = run("npm", "install", "--prefix", folder, *quiet, "--fetch-retries=1")
    if installed.returncode:
        pytest.skip(f"npm could not install the packages: {installed.stderr.strip()[:200]}")
    return ["node", str(folder / "score.mjs")]


@pytest.fixture(params=["cpp", "javascript"])
def example(request: pytest.FixtureRequest) -> Example:
    """The suffix of the images that an example reads, and the command that runs it."""
    return SUFFIX[request.param], request.getfixturevalue(request.param)


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[[str, int], list[Path]]:
    """A function that writes two good parts and two defects as files of a suffix and a size."""

    def make(suffix: str, side: int) -> list[Path]:
        rng = np.random.default_rng(5)
        paths = [tmp_path / f"{side} px ö {index}{suffix}" for index in range(4)]
        for index, path in enumerate(paths):
            photograph(rng, side=side, defect=index >= 2).save(path)
        return paths

    return make


def rows(output: str) -> dict[str, tuple[float, float, str]]:
    """The printed score, threshold and decision of each image."""
    found = {}
    for line in output.splitlines():
        path, score, threshold, decision = line.split("  ")
        found[path] = (
            float(score.removeprefix("score ")),
            float(threshold.removeprefix("threshold ")),
            decision,
        )
    return found


def test_an_example_prints_the_scores_of_python(
    example: Example, job: Job, photographs: Callable[[str, int], list[Path]]
) -> None:
    suffix, command = example
    paths = photographs(suffix, SIZE)
    outcome = run(*command, job.file, *paths)
    found = rows(outcome.stdout)
    assert found.keys() == set(map(str, paths)), outcome.stderr
    with Model.load(job.file) as model:
        results = [model.score(path) for path in paths]
    for path, result in zip(paths, results, strict=True):
        score, threshold, decision = found[str(path)]
        assert abs(score - result.score) <= 1e-5 * result.threshold
        assert threshold == pytest.approx(result.threshold, rel=1e-8)
        assert decision == result.decision
    assert len({score for score, _, _ in found.values()}) == len(paths)
    assert outcome.returncode == int(any(result.anomalous for result in results))


def test_an_image_that_is_not_judged_is_neither_good_nor_an_anomaly(
    example: Example, job: Job, careful_file: Path, foreign: Path, tmp_path: Path
) -> None:
    suffix, command = example
    noise = np.random.default_rng(0).integers(0, 3, (SIZE, SIZE, 3), dtype=np.uint8)
    sources = {
        "good": load_resized(job.shots / "0.png", SIZE, SIZE),
        "bad": load_resized(job.scratched / "0.png", SIZE, SIZE),
        "strange": load_resized(foreign, SIZE, SIZE),
        "black": noise,
        "plain": noise + np.uint8(120),
    }
    paths = {name: tmp_path / f"{name}{suffix}" for name in sources}
    for name, path in paths.items():
        Image.fromarray(sources[name]).save(path)
    with Model.load(careful_file) as model:
        decisions = [model.score(path).decision for path in paths.values()]
    assert decisions == ["good", "anomaly", "not_judged", "not_judged", "not_judged"]
    outcome = run(*command, careful_file, *paths.values())
    assert [row[2] for row in rows(outcome.stdout).values()] == decisions
    assert outcome.returncode == 1
    for names, code in ((("good", "strange"), 3), (("black", "plain"), 3), (("good",), 0)):
        asked = [paths[name] for name in names]
        assert run(*command, careful_file, *asked).returncode == code


def test_an_image_of_another_size_is_refused(
    example: Example, job: Job, photographs: Callable[[str, int], list[Path]]
) -> None:
    suffix, command = example
    [path, *_] = photographs(suffix, 96)
    outcome = run(*command, job.file, path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(f"error: {path}")
    assert f"is 96x96 pixels, not {SIZE}x{SIZE}" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "missing", "without metadata"])
def test_a_file_that_is_no_model_is_refused(
    kind: str,
    example: Example,
    job: Job,
    tmp_path: Path,
    photographs: Callable[[str, int], list[Path]],
) -> None:
    suffix, command = example
    file = tmp_path / "other.onnx"
    if kind == "without metadata":
        model = onnx.load(job.file)
        del model.metadata_props[:]
        onnx.save(model, file)
    elif kind != "missing":
        data = job.file.read_bytes()
        file.write_bytes({"text": b"not a model", "empty": b"", "truncated": data[:-9999]}[kind])
    outcome = run(*command, file, *photographs(suffix, SIZE))
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: ")
    assert ("export" if kind == "without metadata" else "other.onnx") in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["text", "truncated", "missing"])
def test_a_file_that_is_no_image_is_refused(
    kind: str,
    example: Example,
    job: Job,
    tmp_path: Path,
    photographs: Callable[[str, int], list[Path]],
) -> None:
    suffix, command = example
    path = tmp_path / f"photo{suffix}"
    if kind != "missing":
        data = photographs(suffix, SIZE)[0].read_bytes()
        path.write_bytes(b"not an image" if kind == "text" else data[: len(data) // 2])
    outcome = run(*command, job.file, path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(f"error: {path}")


def test_a_prepared_photograph_gets_the_score_of_the_photograph(
    example: Example, job: Job, tmp_path: Path, photographs: Callable[[str, int], list[Path]]
) -> None:
    suffix, command = example
    [source, *_] = photographs(".jpg", 300)
    target = tmp_path / f"prepared{suffix}"
    prepared = run(sys.executable, EXAMPLES / "prepare.py", job.file, source, target)
    assert prepared.returncode == 0, prepared.stderr
    [(score, threshold, _)] = rows(run(*command, job.file, target).stdout).values()
    with Model.load(job.file) as model:
        assert abs(score - model.score(source).score) <= 1e-5 * threshold


def test_compare_shows_what_another_resizer_changes(
    javascript: list[str], job: Job, photographs: Callable[[str, int], list[Path]]
) -> None:
    def compare(suffix: str, side: int) -> str:
        paths = photographs(suffix, side)
        printed = run(*javascript, job.file, *paths, "--resize").stdout
        outcome = run(sys.executable, EXAMPLES / "compare.py", job.file, stdin=printed)
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout.splitlines()[-1]

    assert " 0.00000 % at most; 0 decisions differ." in compare(".png", SIZE)
    resized = compare(".jpg", 300)
    assert resized.startswith("4 images")
    assert " 0.00000 % at most" not in resized


@pytest.mark.parametrize("script", ["prepare.py", "compare.py"])
def test_the_scripts_report_errors(script: str, job: Job, tmp_path: Path) -> None:
    assert run(sys.executable, EXAMPLES / script).stderr.startswith("usage: ")
    nothing = tmp_path / "nothing"
    for arguments in ([job.file, nothing, tmp_path / "a.ppm"], [nothing, nothing, nothing]):
        given = arguments if script == "prepare.py" else arguments[:1]
        outcome = run(sys.executable, EXAMPLES / script, *given, stdin="")
        assert outcome.returncode == 2
        assert outcome.stderr.startswith("error: ")
        assert outcome.stderr.count("\n") == 1


def test_a_file_that_finds_the_part_is_refused(
    example: Example, job: Job, photographs: Callable[[str, int], list[Path]], tmp_path: Path
) -> None:
    suffix, command = example
    shots = [bolt(*place, index) for index, place in enumerate(places(3, 1))]
    locator = find_locator(shots, ["0", "1", "2"], Locate.AUTO).locator
    assert locator is not None
    data = job.file.read_bytes()
    metadata = Metadata.from_json(onnx_file.read_metadata(data)[KEY], "part.onnx")
    document = dataclasses.replace(metadata, locator=locator).to_json()
    file = tmp_path / "located.onnx"
    file.write_bytes(onnx_file.replace(data, {}, {KEY: document}))
    outcome = run(*command, file, *photographs(suffix, SIZE))
    assert outcome.returncode == 2
    assert "finds the part in each photograph" in outcome.stderr
    assert outcome.stdout == ""
