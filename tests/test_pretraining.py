"""The encoder is distilled from several teachers, and every step continues where it was cut off."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fsad_edge.training.encoder import pretrained_encoder

FOLDER = Path(__file__).parents[1] / "pretraining"

#: Two networks with TensorFlow's padding, as the real teachers have, and their arguments.
TEACHERS: dict[str, dict[str, Any]] = {
    "mobilenetv2_035": {"pad_type": "same"},
    "tf_efficientnet_lite0": {},
}


@pytest.fixture(scope="module", autouse=True)
def import_path() -> Iterator[None]:
    """The scripts of the folder import one another by their plain names."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def load(name: str) -> Any:
    """A module of the folder."""
    return importlib.import_module(name)


def features(name: str, level: int, **arguments: Any) -> Any:
    """A network with random weights, cut after a feature level."""
    return timm.create_model(name, features_only=True, out_indices=(level,), **arguments)


class First(torch.nn.Module):
    """The only map of a network."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x)[0]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("mobilenetv2_035", {"pad_type": "same"}), ("tf_efficientnet_lite2", {})],
)
@pytest.mark.parametrize(("level", "stride"), [(2, 8), (3, 16)])
def test_tensorflow_padding_centres_a_cell_on_its_far_corner(
    name: str, arguments: dict[str, Any], level: int, stride: int
) -> None:
    net = First(features(name, level, **arguments))
    assert load("teachers").cell_centre(net, stride) == pytest.approx(stride - 1, abs=0.01)


def test_symmetric_padding_centres_a_cell_on_its_near_corner() -> None:
    net = First(features("mobilenetv2_035", 3))
    assert load("teachers").cell_centre(net, 16) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("name", ["fast", "accurate"])
def test_the_student_centres_a_cell_on_its_middle(name: str) -> None:
    nets = {
        "fast": load("networks").CANDIDATES["fast"],
        "accurate": lambda: load("inverted_net").InvertedEncoder(frozen=0),
    }
    net = nets[name]()
    assert load("teachers").cell_centre(net, 16) == pytest.approx(7.5, abs=0.01)


@given(centre=st.floats(0, 15), stride=st.sampled_from([8, 16]))
def test_a_teacher_looks_where_its_cells_lie_on_those_of_the_student(
    centre: float, stride: int
) -> None:
    centre = centre * (stride - 1) / 15
    found = load("teachers").window(centre, stride, 160, 8)
    teacher = found.start + stride * found.first + centre
    student = 8 + (stride - 1) / 2
    assert abs(teacher - student) <= 1
    assert found.start + found.side <= 176
    assert found.side % stride == 0
    assert found.first + found.cells <= found.side // stride
    assert found.cells * stride == 160


def test_a_margin_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too small for cells of 32 pixels"):
        load("teachers").window(31, 32, 160, 8)


def test_a_teacher_without_a_level_is_refused() -> None:
    source = load("teachers").Source
    assert source.parse("local-dir:/folder/net:3") == source("local-dir:/folder/net", 3)
    with pytest.raises(ValueError, match="write NETWORK:LEVEL"):
        source.parse("local-dir:/folder/net")


def test_fewer_channels_keep_all_lengths_and_angles() -> None:
    torch.manual_seed(0)
    wide = torch.nn.Conv2d(6, 20, 1)
    small = load("student").compact(wide)
    assert small.out_channels == 7
    x = torch.randn(2, 6, 3, 3)
    a, b = (conv(x).permute(0, 2, 3, 1).flatten(0, 2) for conv in (wide, small))
    torch.testing.assert_close(a @ a.T, b @ b.T, rtol=1e-4, atol=1e-5)


def test_each_part_is_a_unit_vector_of_its_own() -> None:
    x = torch.cat([torch.randn(1, 4, 5, 5), 100 * torch.randn(1, 6, 5, 5)], 1)
    unit = load("distil").unit
    joined = unit(x, [4, 6])
    torch.testing.assert_close(joined[:, :4] * 2**0.5, unit(x[:, :4]))
    torch.testing.assert_close(joined[:, 4:] * 2**0.5, unit(x[:, 4:]))
    torch.testing.assert_close(joined.square().sum(1), torch.ones(1, 5, 5))


def test_a_student_begins_with_exported_weights(tmp_path: Path) -> None:
    """Its first features are those of the weights, and its heads the best linear ones."""
    student = load("student")
    first = student.Student("fast", [5]).eval()
    first.trunk.fold()
    encoder, _ = student.encoder_of(first, student.Form.TRUNK)
    save_file(encoder.state_dict(), tmp_path / "trunk.safetensors")
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = encoder(x)
        targets = [features[:, :5] * 2 + 1, features[:, 5:8]]
    again = student.Student("fast", [5, 3])
    again.start_from(tmp_path / "trunk.safetensors", x, targets)
    again.train()
    with torch.no_grad():
        near: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-3 * float(features.abs().max())}
        torch.testing.assert_close(again.trunk(x), features, **near)
        for head, target in zip(again(x), targets, strict=True):
            torch.testing.assert_close(head, target, rtol=0.01, atol=0.01)


def lite2_folder(folder: Path) -> tuple[Any, str]:
    """EfficientNet-Lite2 with random weights and measured batch norms, and timm's name for it."""
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite2").train()
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(4, 3, 64, 64))
    save_file(net.state_dict(), folder / "model.safetensors")
    config = {"architecture": "tf_efficientnet_lite2", "pretrained_cfg": net.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config, default=str))
    return net.eval(), f"local-dir:{folder}"


def test_the_accurate_student_begins_as_its_teacher(tmp_path: Path) -> None:
    """With all blocks and kernels in the late corner it would be the same network."""
    teacher, name = lite2_folder(tmp_path)
    student = load("inverted_net").InvertedEncoder((3, 3, 4, 4))
    student.start_from(name)
    student.eval()
    strided = student.blocks[7].body[1].conv.weight
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        strided.copy_(strided.roll((1, 1), (2, 3)))
        [wanted] = teacher.forward_intermediates(x, indices=[3], intermediates_only=True)
        found = student.blocks(student.stem(x))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_the_accurate_encoder_is_the_student_that_was_trained(tmp_path: Path) -> None:
    student = load("student")
    torch.manual_seed(0)
    trained = student.Student("accurate", [5, 3]).train()
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        trained(x)  # measures its batch norms
        trained.eval()
        heads = [head / n**0.5 for head, n in zip(trained(x), (5, 3), strict=True)]
        trained.trunk.fold()
        encoder, config = student.encoder_of(trained, student.Form.COMPACT)
        assert type(encoder)(**config).load_state_dict(encoder.state_dict())
        a, b = (y.permute(0, 2, 3, 1).flatten(0, 2) for y in (torch.cat(heads, 1), encoder(x)))
    torch.testing.assert_close(a @ a.T, b @ b.T, rtol=1e-3, atol=1e-3)


def test_the_loss_counts_every_teacher_alike() -> None:
    sums = load("distil").Sums({"raw": 0.5, "unit": 2.0})
    first = {"raw": torch.tensor(1.0), "unit": torch.tensor(2.0)}
    second = {"raw": torch.tensor(3.0), "unit": torch.tensor(5.0)}
    assert sums.add([first, second]).item() == 0.5 * (1 + 3) + 2 * (2 + 5)
    assert sums.take() == "0 raw 1.0000, 0 unit 2.0000, 1 raw 3.0000, 1 unit 5.0000"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, and teachers with random weights in timm's folder layout."""
    root = tmp_path_factory.mktemp("material")
    torch.manual_seed(0)
    for name, arguments in TEACHERS.items():
        net = timm.create_model(name, num_classes=2, **arguments)
        folder = root / name
        folder.mkdir()
        save_file(net.state_dict(), folder / "model.safetensors")
        half = [0.5, 0.5, 0.5]
        config = {"architecture": name, "num_classes": 2, "model_args": arguments}
        config["pretrained_cfg"] = {"mean": half, "std": half, "num_classes": 2}
        (folder / "config.json").write_text(json.dumps(config))
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
        photo = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
        photo.save(root / "photos" / f"{k}.png")
    return root


def command(*arguments: object) -> list[str]:
    """The command line of a step."""
    return [sys.executable, str(FOLDER / "distil.py"), *map(str, arguments)]


def run(*arguments: object, processes: bool = False) -> str:
    """Run a step in this process and return what it printed.

    Its workers are threads of this process, unless it is to start ``processes`` as users' runs do:
    each takes seconds to import torch.
    """
    out, threads, state = io.StringIO(), torch.get_num_threads(), torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", command(*arguments)[1:])
        if not processes:
            pools = SimpleNamespace(Pool=ThreadPool)
            patch.setattr(load("pool").multiprocessing, "get_context", lambda _: pools)
            patch.setattr(load("distil"), "spawn", lambda run, given, _: run(0, *given))
        try:
            load("distil").main()
        finally:
            torch.set_flush_denormal(False)
            torch.set_num_threads(threads)
            torch.set_rng_state(state)
    return out.getvalue()


def fill(material: Path, pool: Path, *more: object, processes: bool = False) -> str:
    """Make a pool of 24 crops in three shards."""
    teachers = [f"local-dir:{material / name}:3" for name in TEACHERS]
    options = ["--crops", 24, "--shard", 8, "--workers", 1, *more]
    return run(
        *("pool", "--teacher", *teachers, "--images", material / "photos", "--pool", pool),
        *options,
        processes=processes,
    )


@pytest.fixture(scope="module")
def pool(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool that was interrupted and continued."""
    folder = tmp_path_factory.mktemp("pool")
    assert "3 shards" in fill(material, folder, processes=True)
    shard = folder / "00001"
    before = {path.name: path.read_bytes() for path in shard.iterdir()}
    untouched = (folder / "00000" / "images.bin").stat().st_mtime_ns
    shard.rename(folder / "00001.part")  # as an interruption leaves it
    (folder / "00001.part" / "images.bin").write_bytes(b"half")
    assert "1 shards" in fill(material, folder)
    assert {path.name: path.read_bytes() for path in shard.iterdir()} == before
    assert (folder / "00000" / "images.bin").stat().st_mtime_ns == untouched
    return folder


def training(pool: Path, folder: Path) -> list[object]:
    """The options of a short run with many checkpoints."""
    options = ["--net", "fast", "--steps", 40, "--batch", 4, "--workers", 1, "--every", 2]
    return ["train", "--pool", pool, "--run", folder, *options]


@pytest.fixture(scope="module")
def trained(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(*training(pool, folder))
    return folder


@pytest.mark.slow
def test_a_pool_holds_what_each_teacher_sees(material: Path, pool: Path) -> None:
    found = load("pool").Pool(pool)
    assert [teacher["name"] for teacher in found.about["teachers"]] == list(TEACHERS)
    x, targets = found.batch(np.array([3, 9, 20]))
    assert x.shape == (3, 3, 160, 160)
    assert float(x.abs().max()) <= 1
    channels = [teacher["channels"] for teacher in found.about["teachers"]]
    assert [t.shape for t in targets] == [(3, c, 10, 10) for c in channels]
    source = load("teachers").Source(f"local-dir:{material / 'tf_efficientnet_lite0'}", 3)
    teacher = load("teachers").Teacher(source, 160, 8)
    shard, ends = pool / "00001", np.load(pool / "00001" / "ends.npy")
    crop = load("pool").decode_jpeg((shard / "images.bin").read_bytes()[ends[0] : ends[1]])
    with torch.no_grad():
        cells = teacher.net(load("pool").normalise(crop[None], teacher.mean, teacher.std))[0]
    stored = np.load(shard / "teacher1.npy")[1].astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_allclose(stored, cells[:, :10, :10], rtol=0.01, atol=0.01 * cells.abs().max())
    torch.testing.assert_close(
        targets[1][1] * found.scales[1], torch.from_numpy(stored), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_a_pool_of_other_options_is_not_mixed_in(material: Path, pool: Path) -> None:
    with pytest.raises(SystemExit, match="was made with other options: take another folder"):
        fill(material, pool, "--seed", 1)


@pytest.mark.slow
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    pool: Path, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cut"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(*training(pool, folder)), start_new_session=True, env=environment
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < reached < 40
    assert f"continuing at step {reached}" in run(*training(pool, folder))
    whole, cut = (
        torch.load(path / "checkpoint.pt", weights_only=True) for path in (trained, folder)
    )
    assert whole["step"] == cut["step"] == 40
    for name, value in whole["average"].items():
        torch.testing.assert_close(cut["average"][name], value)


@pytest.mark.slow
def test_a_student_is_exported_with_its_heads_or_without(trained: Path, tmp_path: Path) -> None:
    student, _ = load("student").load_student(trained)
    images = torch.rand(1, 3, 64, 96) * 255
    x = images / 127.5 - 1
    with torch.no_grad():
        heads = student(x)
        trunk = student.trunk(x)
    maps = {}
    for form in ("trunk", "compact"):
        file = tmp_path / f"{form}.safetensors"
        run("export", "--run", trained, "--form", form, "--out", file)
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
        net = timm.create_model("fsad_edge", **json.loads(about["config"]))
        net.load_state_dict({k: v.float() for k, v in load_file(file).items()})
        with torch.no_grad():
            maps[form] = net(x)
    joined = torch.cat([head / head.shape[1] ** 0.5 for head in heads], 1)
    a, b = (features.flatten(2)[0].T for features in (joined, maps["compact"]))
    assert b.shape[1] < a.shape[1]
    torch.testing.assert_close(a @ a.T, b @ b.T, rtol=0.02, atol=0.02 * float((a @ a.T).max()))
    encoder = pretrained_encoder("fsad_edge", tmp_path / "trunk.safetensors", 64, 96, [16])
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(images), trunk, rtol=0.02, atol=0.02 * float(trunk.abs().max())
        )


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Photographs of two kinds: stripes and a ramp."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        ramp = np.linspace(0, 255, 96) if index % 2 else 255.0 * (np.arange(96) // 8 % 2)
        pixels = np.broadcast_to(ramp[:, None], (96, 96, 3)) + rng.normal(0, 9, (96, 96, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{index}.png")
    return folder


def test_a_tail_learns_what_the_teacher_says(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load("whole")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = timm.create_model("test_efficientnet", pretrained=False)
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    config = {
        "architecture": "test_efficientnet",
        "num_classes": 1000,
        "pretrained_cfg": {"tag": "random", "input_size": [3, 160, 160], "num_classes": 1000},
    }
    (teacher / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), teacher / "model.safetensors")
    views, out = tmp_path / "views", tmp_path / "whole.safetensors"
    words = ["views", "--teacher", f"local-dir:{teacher}", "--images", photographs]
    run_whole(whole, monkeypatch, *words, "--views", views, "--passes", "2")
    made = {file: file.stat().st_mtime_ns for file in views.glob("pass*")}
    assert len(made) == 2
    run_whole(whole, monkeypatch, *words, "--views", views, "--passes", "2")
    assert {file: file.stat().st_mtime_ns for file in views.glob("pass*")} == made
    run_whole(whole, monkeypatch, "train", "--views", views, "--out", out, "--epochs", "40")
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["recipe"])["passes"] == 2
    # The written network, folded and in fewer channels, tells the two kinds apart as it learned to.
    encoder = whole.WholeEdgeEncoder()
    encoder.load_state_dict(load_file(out))
    found = np.load(views / "pass0.npz")
    with torch.inference_mode():
        maps = torch.from_numpy(found["maps"]).float()
        learned = torch.nn.functional.normalize(encoder.eval().forward_head(maps), dim=1)
    wanted = torch.from_numpy(found["directions"][:, 0]).float()
    alike, expected = (rows @ rows.T for rows in (learned, wanted))
    pairs = np.triu_indices(len(maps), 1)
    assert np.corrcoef(alike.numpy()[pairs], expected.numpy()[pairs])[0, 1] > 0.8


def test_a_tail_needs_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no views"):
        run_whole(
            load("whole"), monkeypatch, "train", "--views", tmp_path, "--out", tmp_path / "out"
        )


def run_whole(whole: Any, monkeypatch: pytest.MonkeyPatch, *words: Any) -> None:
    """Run the script's command line in this process."""
    monkeypatch.setattr(sys, "argv", ["whole.py", *map(str, words)])
    whole.main()
