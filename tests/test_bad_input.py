"""Whatever is given: one clear sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

from fsad_edge import Model, load_image
from fsad_edge.errors import FsadEdgeError, ImageError, InputError, ModelFileError
from fsad_edge.runtime.files import new_directory, write_bytes
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.training.model_directory import read_encoder, read_manifest, read_reference
from tests.conftest import SIZE, Cli, Job, Outcome, photograph

ENTRY = "from fsad_edge.cli.main import main; main()"


def refused(done: Outcome, *words: str) -> None:
    """One sentence that holds these words, and exit code 2."""
    assert done.code == 2, done
    assert "Traceback" not in done.err
    sentence = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def jpeg(side: int = 64) -> bytes:
    buffer = io.BytesIO()
    photograph(np.random.default_rng(5), side).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    )


BAD_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "is not an image"),
    "text.jpg": (b"this is no picture", "is not an image"),
    "cut.jpg": (jpeg()[:700], "cannot be decoded"),
    "bomb.png": (bomb(60_000, 60_000), "pixels"),
    "big.png": (bomb(10_000, 9_500), "pixels"),
    "none.png": (bomb(0, 10), "image"),
    "tiny.png": (b"", "smaller than one patch"),
}
tiny = io.BytesIO()
Image.new("RGB", (15, 400)).save(tiny, "PNG")
BAD_IMAGES["tiny.png"] = (tiny.getvalue(), "smaller than one patch")


@pytest.fixture
def start(cli: Cli, backbones: dict[str, str]) -> Callable[..., Outcome]:
    """finetune, short."""

    def run(shots: Path, part: Path, *more: str) -> Outcome:
        return cli(
            *("finetune", shots, "-o", part, "--backbone", backbones["conv"]),
            *("--image-size", str(SIZE), "--epochs", "0", *more),
        )

    return run


@pytest.fixture
def shots(job: Job, tmp_path: Path) -> Path:
    """Two shots to spoil."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for name in ("0.png", "1.png"):
        shutil.copy(job.shots / name, folder)
    return folder


@pytest.mark.parametrize("name", sorted(BAD_IMAGES))
def test_a_bad_image_is_refused_everywhere(
    start: Callable[..., Outcome], cli: Cli, job: Job, shots: Path, tmp_path: Path, name: str
) -> None:
    data, words = BAD_IMAGES[name]
    with pytest.raises(ImageError, match=words):
        load_image(data)
    (shots / name).write_bytes(data)
    before = everything(tmp_path)
    refused(start(shots, tmp_path / "part"), str(shots / name), words)
    refused(cli("score", job.file, shots / name), str(shots / name), words)
    dataset = tmp_path / "set"
    shutil.copytree(shots, dataset / "test/good")
    done = cli("eval", job.file, dataset, "--report", tmp_path / "report.png")
    refused(done, str(dataset / "test/good" / name), words)
    shutil.rmtree(dataset)
    assert everything(tmp_path) == before


@given(st.integers(0, len(jpeg()) - 1))
@settings(max_examples=150, deadline=None)
def test_a_jpeg_cut_anywhere_is_refused_or_whole(offset: int) -> None:
    data = jpeg()
    try:
        image = load_image(data[:offset])
    except ImageError:
        return
    assert offset > 0.9 * len(data)
    np.testing.assert_array_equal(image, load_image(data))


def test_one_bad_image_among_good_ones_is_named_and_the_rest_scored(
    cli: Cli, job: Job, shots: Path, tmp_path: Path
) -> None:
    (shots / "0cut.jpg").write_bytes(jpeg()[:700])
    done = cli("score", job.file, shots, "--json", "--heatmaps", tmp_path / "maps")
    refused(done, "0cut.jpg")
    rows = {Path(row["image"]).name: row for row in done.json["images"]}
    assert {name: row["decision"] for name, row in rows.items()} == {
        "0.png": "good", "0cut.jpg": "error", "1.png": "good",
    }  # fmt: skip
    assert rows["0cut.jpg"]["score"] is None
    assert "cannot be decoded" in rows["0cut.jpg"]["error"]
    assert len(list((tmp_path / "maps").iterdir())) == 2
    plain = cli("score", job.file, shots)
    refused(plain, "0cut.jpg")
    assert "3 images: 2 good, 0 anomalies, 1 could not be read" in plain.out
    assert cli("score", job.file, shots, "--csv").out.count("\n") == 4


def test_missing_and_empty_folders(
    start: Callable[..., Outcome], cli: Cli, job: Job, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    nowhere = tmp_path / "nowhere"
    refused(start(nowhere, tmp_path / "part"), "nowhere", "does not exist")
    refused(start(empty, tmp_path / "part"), "holds no image")
    refused(start(empty / "notes.txt", tmp_path / "part"), "is not a folder")
    refused(cli("score", job.file, empty), "holds no image")
    refused(cli("score", job.file, nowhere / "a.png"), "does not exist")
    refused(cli("eval", job.file, nowhere), "does not exist")
    refused(cli("eval", job.file, empty), "test/good")
    refused(cli("score", nowhere, empty / "notes.txt"), "no such file")
    refused(cli("export", nowhere), "is not a model directory")
    refused(cli("export", empty), "manifest.json")
    refused(cli("info", nowhere), "no such file")
    refused(cli("info", empty), "manifest.json")
    refused(cli("score", job.part, job.shots), "fsad-edge export")
    refused(start(job.shots, nowhere / "part"), "does not exist")
    assert sorted(everything(tmp_path)) == ["empty", "empty/notes.txt"]


def test_shots_of_wildly_different_sizes_are_warned_of(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path
) -> None:
    photograph(np.random.default_rng(1), 400).save(shots / "large.png")
    done = start(shots, tmp_path / "part")
    assert done.code == 0
    assert "warning: the shots differ much in size" in done.err
    assert "large.png is 400x400" in done.err


def test_shots_alike_are_not_warned_of_and_twins_are(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path
) -> None:
    assert "warning" not in start(shots, tmp_path / "part").err
    shutil.copy(shots / "0.png", shots / "again.png")
    assert "same file twice" in start(shots, tmp_path / "twins").err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--score", "both"], "patch or image"),
        (["--strides", "many"], "--strides"),
        (["--strides", "3"], "no feature map at stride 3"),
        (["--strides", ""], "--strides"),
        (["--strides", "16,16"], "--strides"),
        (["--strides", "32", "--image-size", "32"], "patches of stride 32"),
        (["--image-size", "72"], "multiple of 16"),
        (["--device", "tpu"], "no device 'tpu'"),
        (["--lambda-con", "inf"], "finite"),
        (["--learning-rate", "inf"], "finite"),
        (["--backbone", "no_such_net"], "no_such_net"),
        (["--backbone", "local-dir:/nowhere"], "not a timm model folder"),
        (["--weights", "/nowhere.pth"], "does not exist"),
    ],
)
def test_options_that_cannot_be(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    before = everything(tmp_path)
    refused(start(shots, tmp_path / "part", *options), word)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "-1"],
        ["--epochs", "-1"],
        ["--budget-ms", "0"],
        ["--image-size", "9"],
        ["--false-alarm-rate", "nan"],
    ],
)
def test_numbers_out_of_range_are_usage_errors(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path, options: list[str]
) -> None:
    done = start(shots, tmp_path / "part", *options)
    assert done.code == 2
    assert options[0] in done.err
    assert not (tmp_path / "part").exists()


def test_training_that_diverges_is_not_written(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path
) -> None:
    before = everything(tmp_path)
    done = start(shots, tmp_path / "part", "--epochs", "3", "--learning-rate", "1e30")
    refused(done, "--learning-rate")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", bytes(range(256)) * 9])
def test_checkpoints_that_are_none(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path, suffix: str, content: bytes
) -> None:
    weights = tmp_path / f"weights{suffix}"
    weights.write_bytes(content)
    refused(start(shots, tmp_path / "part", "--weights", str(weights)), weights.name, "not fit")
    assert not (tmp_path / "part").exists()


def test_weights_of_another_network(
    start: Callable[..., Outcome], backbones: dict[str, str], shots: Path, tmp_path: Path
) -> None:
    other = Path(backbones["vit"].removeprefix("local-dir:")) / "model.safetensors"
    refused(start(shots, tmp_path / "part", "--weights", str(other)), "does not fit")


def test_a_pickle_is_not_run(start: Callable[..., Outcome], shots: Path, tmp_path: Path) -> None:
    import pickle

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    weights = tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps({"state_dict": Payload()}))
    refused(start(shots, tmp_path / "part", "--weights", str(weights)), "does not fit")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"architecture": 7}', '{"model_args": 3}'])
def test_backbone_folders_that_are_none(
    start: Callable[..., Outcome], shots: Path, tmp_path: Path, config: str
) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    done = start(shots, tmp_path / "part", "--backbone", f"local-dir:{folder}")
    refused(done, "not a timm model folder")


def test_the_hub_out_of_reach(job: Job, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_ENDPOINT": "https://hub.invalid",
        "HF_HOME": str(tmp_path / "cache"),
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "finetune", str(job.shots), "-o", str(tmp_path / "part"),
         "--backbone", "mobilenetv2_100", "--image-size", "64"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    refused(
        Outcome(done.returncode, done.stdout, done.stderr),
        "cannot be had", "--weights", "local-dir:",
    )  # fmt: skip
    assert not (tmp_path / "part").exists()


@pytest.fixture
def part(job: Job, tmp_path: Path) -> Path:
    """A model directory to spoil."""
    copy = tmp_path / "spoilt"
    shutil.copytree(job.part, copy)
    return copy


def change_manifest(part: Path, **changes: Any) -> None:
    file = part / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_directory_of_a_newer_version(cli: Cli, part: Path) -> None:
    change_manifest(part, schema=2, unheard_of=True)
    for command in ("export", "info"):
        refused(cli(command, part), "newer fsad-edge", "update")
    assert not part.with_name("spoilt.onnx").exists()


def test_directories_that_are_damaged(cli: Cli, part: Path) -> None:
    before = (part / "shots/000_0.png").read_bytes()
    photograph(np.random.default_rng(9)).save(part / "shots/000_0.png")
    refused(cli("export", part), "000_0.png", "changed since training")
    (part / "shots/000_0.png").unlink()
    refused(cli("export", part), "000_0.png", "missing")
    (part / "shots/000_0.png").write_bytes(before)
    for name in ("encoder.safetensors", "reference.safetensors"):
        whole = (part / name).read_bytes()
        for data in (whole[:100], whole[:-1] + b"\x00" + whole[-1:], b""):
            (part / name).write_bytes(data)
            refused(cli("export", part), name, "SHA-256")
        (part / name).unlink()
        refused(cli("export", part), name, "missing")
        (part / name).write_bytes(whole)
    assert not part.with_name("spoilt.onnx").exists()


def test_safetensors_that_are_corrupt_but_vouched_for(cli: Cli, part: Path) -> None:
    from fsad_edge.runtime.files import sha256

    files = json.loads((part / "manifest.json").read_text())["files"]
    for name, word in (
        ("encoder.safetensors", "does not hold"),
        ("reference.safetensors", "damaged"),
    ):
        whole = (part / name).read_bytes()
        for data in (b"", whole[:100], b"\xff" * 64, whole[:-40]):
            (part / name).write_bytes(data)
            change_manifest(part, files={**files, name: sha256(data)})
            refused(cli("export", part), name, word)
        (part / name).write_bytes(whole)
        change_manifest(part, files=files)


WRONG = st.sampled_from([None, "", "x", -1, 10**9, 0.5, [], [1], {}, {"a": 1}])


@given(st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_manifest_with_any_value_wrong_is_read_or_refused(
    job: Job, part: Path, data: st.DataObject
) -> None:
    document = json.loads((job.part / "manifest.json").read_text())
    spoil(document, data)
    (part / "manifest.json").write_text(json.dumps(document))
    try:
        manifest = read_manifest(part)
        read_encoder(part, manifest)
        read_reference(part, manifest)
    except FsadEdgeError:
        return
    assert manifest.encoder.height >= 16


def spoil(document: dict[str, Any], data: st.DataObject) -> None:
    """Put a wrong value anywhere, or take one out."""
    place: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and data.draw(st.booleans()):
            place = inner
            continue
        break
    if data.draw(st.booleans()):
        place[key] = data.draw(WRONG)
    else:
        del place[key]


def test_files_that_are_no_model(cli: Cli, job: Job, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1])],
    )
    foreign = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    refused(cli("score", tmp_path / "foreign.onnx", job.shots), "not one that  fsad-edge export")
    described = onnx.load(job.file)
    foreign.metadata_props.extend(described.metadata_props)
    onnx.save(foreign, tmp_path / "disguised.onnx")
    refused(cli("info", tmp_path / "disguised.onnx"), "does not have the inputs")
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx"):
        for command in ("info", "score", "eval"):
            more = [] if command == "info" else [job.dataset]
            refused(cli(command, tmp_path / name, *more), name, "not a model")


@given(fraction=st.floats(0, 1, exclude_max=True))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_model_cut_anywhere_is_refused(job: Job, fraction: float) -> None:
    whole = job.file.read_bytes()
    with pytest.raises(ModelFileError):
        Model.from_bytes(whole[: int(len(whole) * fraction)], "part.onnx")


def test_a_model_of_a_newer_version(cli: Cli, job: Job, tmp_path: Path) -> None:
    model = onnx.load(job.file)
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    entry.value = json.dumps({**json.loads(entry.value), "schema": 99})
    onnx.save(model, tmp_path / "newer.onnx")
    refused(cli("score", tmp_path / "newer.onnx", job.shots), "newer fsad-edge (schema 99")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_description_with_any_value_wrong_is_read_or_refused(
    job: Job, data: st.DataObject
) -> None:
    (entry,) = (entry for entry in onnx.load(job.file).metadata_props if entry.key == KEY)
    document = json.loads(entry.value)
    spoil(document, data)
    try:
        metadata = Metadata.from_json(json.dumps(document), "part.onnx")
    except ModelFileError as error:
        told = ("damaged", "newer", "another rule")
        assert any(word in str(error) for word in told)  # noqa: PT017
        return
    json.dumps(metadata.summary())
    assert metadata.threshold.value > 0
    assert 0.001 <= metadata.threshold.prior_std <= 10


@given(st.text(max_size=50))
def test_a_description_of_any_text_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError):
        Metadata.from_json(text, "part.onnx")


def test_output_that_exists_asks_for_force(
    start: Callable[..., Outcome], cli: Cli, job: Job, shots: Path, part: Path, tmp_path: Path
) -> None:
    before = everything(part)
    refused(start(shots, part), "exists", "--force")
    refused(cli("export", job.part), "exists", "--force")
    report = tmp_path / "report.png"
    report.write_bytes(b"mine")
    refused(cli("eval", job.file, job.dataset, "--report", report), "exists", "--force")
    assert everything(part) == before
    assert report.read_bytes() == b"mine"
    assert start(shots, part, "--force").code == 0
    assert len(read_manifest(part).shots) == 2
    assert cli("export", part, "-o", tmp_path / "a.onnx").code == 0
    assert cli("export", part, "-o", tmp_path / "a.onnx", "--force").code == 0


@pytest.mark.parametrize("name", ["photo.png", "manifest.json", ".git/config"])
def test_force_never_replaces_a_foreign_folder(
    start: Callable[..., Outcome], cli: Cli, job: Job, shots: Path, tmp_path: Path, name: str
) -> None:
    foreign = tmp_path / "foreign"
    (foreign / name).parent.mkdir(parents=True)
    (foreign / name).write_text('{"name": "somebody\'s app", "version": 3}')
    before = everything(tmp_path)
    refused(start(shots, foreign, "--force"), "is not a model directory", "left alone")
    refused(cli("export", job.part, "-o", foreign, "--force"), "foreign")
    done = cli("eval", job.file, job.dataset, "--report", foreign, "--force")
    refused(done, "foreign")
    assert everything(tmp_path) == before


def test_force_keeps_what_others_put_beside_a_model(
    start: Callable[..., Outcome], shots: Path, part: Path
) -> None:
    (part / "notes.txt").write_text("mine")
    refused(start(shots, part, "--force"), "notes.txt")
    assert (part / "notes.txt").read_text() == "mine"
    (part / "notes.txt").unlink()
    assert start(shots, part, "--force").code == 0


def test_a_folder_that_cannot_be_written(cli: Cli, job: Job, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    refused(cli("score", job.file, job.shots, "--heatmaps", blocked), "file")
    assert blocked.read_text() == "in the way"


def half_written(place: Path) -> None:
    with new_directory(place) as folder:
        (folder / "new").write_text("half")
        raise ZeroDivisionError


def test_a_block_that_fails_leaves_the_older_folder(tmp_path: Path) -> None:
    place = tmp_path / "part"
    with pytest.raises(ZeroDivisionError):
        half_written(place)
    assert everything(tmp_path) == {}
    with new_directory(place) as folder:
        (folder / "old").write_text("old")
    with pytest.raises(ZeroDivisionError):
        half_written(place)
    assert everything(tmp_path) == {"part": b"", "part/old": b"old"}


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"one")
    write_bytes(tmp_path / "a", b"two")
    assert everything(tmp_path) == {"a": b"two"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        write_bytes(tmp_path / "b", b"data")
    assert everything(tmp_path) == {"a": b"two", "b": b"", "b/c": b""}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT as a terminal does")
def test_ctrl_c_during_training(job: Job, backbones: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "finetune", str(job.shots), "-o", str(tmp_path / "part"),
         "--backbone", backbones["conv"], "--image-size", "64", "--epochs", "100000"],
        stderr=subprocess.PIPE, bufsize=0, env={**os.environ, "FORCE_COLOR": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            shown = b""
            while b"loss" not in shown:  # the bar: training has begun
                ready, _, _ = select.select([process.stderr], [], [], 120)
                assert ready
                more = os.read(process.stderr.fileno(), 65536)
                assert more, shown
                shown += more
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert b"stopped before it was done" in rest
    assert b"Traceback" not in rest
    assert everything(tmp_path) == {}


BLOCKED = (
    "import sys; sys.modules[{module!r}] = None; "  # what is None there cannot be imported
    "from fsad_edge.cli.main import main; main()"
)


@pytest.mark.parametrize(
    ("module", "command", "extra"),
    [
        ("onnxruntime", "score", "cpu"),
        ("onnxruntime", "info", "cpu"),
        ("onnxruntime", "finetune", "cpu"),
        ("torch", "finetune", "train"),
        ("onnx", "export", "train"),
        ("sklearn", "eval", "train"),
    ],
)
def test_a_missing_extra_is_named(
    job: Job, backbones: dict[str, str], tmp_path: Path, module: str, command: str, extra: str
) -> None:
    arguments = {
        "score": [job.file, job.shots],
        "info": [job.file],
        "finetune": [job.shots, "-o", tmp_path / "part", "--backbone", backbones["conv"]],
        "export": [job.part, "-o", tmp_path / "part.onnx"],
        "eval": [job.file, job.dataset, "--report", tmp_path / "report.png"],
    }[command]
    script = BLOCKED.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", script, command, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    refused(Outcome(done.returncode, done.stdout, done.stderr), f"pip install 'fsad-edge[{extra}]'")
    assert everything(tmp_path) == {}


def test_doctor_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(module="onnxruntime"), "doctor", "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    missing = json.loads(done.stdout)["missing"]
    assert "fsad-edge[cpu]" in missing["onnxruntime"]


def test_json_and_csv_at_once(cli: Cli, job: Job) -> None:
    refused(cli("score", job.file, job.shots, "--json", "--csv"), "one of --json and --csv")


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
    more = [*options, str(tmp_path / "maps")] if options == ["--heatmaps"] else options
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "score", str(job.file), name, *more],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b".png" in done.stdout
