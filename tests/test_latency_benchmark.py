"""The benchmarks of latency and of graph nodes on a tiny model: real runs, without peers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.latency.__main__ import main as latency
from benchmarks.latency.systems import PeerModel, camera_jpeg, load_peer
from benchmarks.profile.__main__ import main as profile
from benchmarks.profile.nodes import convolutions
from fsad_edge.runtime.images import load_image
from tests.conftest import Job


def test_latency_is_measured_and_written(job: Job, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    again.write_bytes(job.file.read_bytes())
    assert latency([str(tmp_path), "--models", str(job.file), str(again), "--minutes", "0.02"]) == 0
    found = json.loads((tmp_path / "latency.json").read_text())
    assert [system["name"] for system in found["systems"]] == ["part", "again"]
    for system in found["systems"]:
        for way in ("alone", "whole"):
            total = system[way]["total"]
            assert 0 < total["p50"] <= total["p90"] <= total["p99"]
            assert len(system[way]["times"]) == found["repetitions"] >= 8
        steps = system["whole"]["steps"]
        assert list(steps) == ["decode", "resize", "infer", "post"]
        assert system["alone"]["total"]["p50"] < system["whole"]["total"]["p50"]
        assert steps["decode"]["p50"] > 0.5  # of a camera's image, at the smallest scale
    assert found["systems"][1]["alone"]["faster_than"]["part"]["times"] > 0
    text = (tmp_path / "latency.md").read_text()
    assert "1280x960" in text
    assert text.count("\n| again | ") == 2
    with Image.open(tmp_path / "latency.png") as image:
        assert image.width > 800


def test_the_rendered_image_is_like_a_camera_image() -> None:
    jpeg = camera_jpeg()
    assert load_image(jpeg).shape == (960, 1280, 3)
    assert 100_000 < len(jpeg) < 1_000_000  # a uniform grey would be 10 kB and quick to decode


def test_a_peer_gets_normalised_channels(tmp_path: Path) -> None:
    """An image of one colour, through a graph that takes the mean of each channel."""
    mean = helper.make_node("ReduceMean", ["image"], ["anomaly_map"], axes=[2, 3], keepdims=0)
    first = helper.make_node("Identity", ["anomaly_map"], ["score"])
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, 8, 8]), ("score", [1, 3]), ("anomaly_map", [1, 3]))
    ]
    graph = helper.make_graph([mean, first], "mean", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    file = tmp_path / "mean.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    image = tmp_path / "grey.png"
    Image.new("RGB", (32, 24), (124, 116, 104)).save(image)  # ImageNet's mean, rounded
    system = load_peer(file, PeerModel("mean", "mean", 8, True), image.read_bytes(), 1)
    assert list(system.whole(0)) == ["decode", "resize", "infer", "post"]
    assert np.abs(system.pixels.mean(axis=(0, 2, 3))).max() < 0.02
    assert system.pixels.shape == (1, 3, 8, 8)


def test_every_node_is_measured(job: Job, tmp_path: Path) -> None:
    assert profile([str(job.file), str(tmp_path / "out"), "--seconds", "2"]) == 0
    found = json.loads((tmp_path / "out/profile.json").read_text())
    assert sum(node["share"] for node in found["nodes"]) == pytest.approx(1)
    groups = {group["name"]: group for group in found["groups"]}
    assert {"encoder", "bank product", "neighbours"} <= set(groups)
    written = convolutions(onnx.load(job.file))
    assert groups["encoder"]["operations"] == sum(operations for _, operations in written) > 0
    assert found["uncounted"] == []
    assert found["peaks"]["fp32"] > 1
    floor = sum(group["floor_ms"] for group in found["groups"])
    assert 0 < found["floor"] == pytest.approx(floor)
    assert "bank product" in (tmp_path / "out/profile.md").read_text()


def test_operations_are_counted() -> None:
    """8 filters of 3x3x4 over a map of 5x6, a multiplication and an addition for each weight."""
    weight = numpy_helper.from_array(np.zeros((8, 4, 3, 3), np.float32), "weight")
    conv = helper.make_node("Conv", ["image", "weight"], ["out"], pads=[1, 1, 1, 1])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4, 5, 6])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([conv], "conv", [image], [out], [weight]))
    assert convolutions(model) == [([1, 8, 5, 6], 2 * 8 * 5 * 6 * 4 * 9)]


def test_a_missing_file_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "no.onnx")
    assert latency([str(tmp_path / "a"), "--models", missing]) == 2
    assert profile([missing, str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err.count("no such file") == 2


def test_a_missing_peers_environment_is_reported(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path), "--models", str(job.file), "--peers-python"]
    assert latency([*arguments, str(tmp_path / "python")]) == 2
    assert "cannot be started" in capsys.readouterr().err
