"""The exported graph computes what torch computes, and a file that was altered says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fsad_edge import Model
from fsad_edge.errors import ExportError, GoldenImageError
from fsad_edge.graph.operators import check_operators
from fsad_edge.graph.parity import TOLERANCE, compare, random_images, torch_scores
from fsad_edge.graph.scoring_graph import ScoringGraph
from fsad_edge.options import ScoreKind
from fsad_edge.pipeline.model_directory import read_manifest, read_network, read_reference
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import (
    REJECTED_ROWS,
    ReferenceModel,
    fit_reference,
    patch_distances,
    patch_scores,
)
from fsad_edge.runtime.onnx_file import replace as replace_in_file
from fsad_edge.runtime.seal import sealed
from fsad_edge.scoring.scoring_graph import INPUTS, OUTPUTS
from tests.commands import assert_refused
from tests.conftest import BANK_SIZE, SIZE, Cli, Job
from tests.seals import as_before_seals

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """One model, by torch and by the exported file."""

    graph: ScoringGraph
    session: OnnxSession
    reference: ReferenceModel
    threshold: float
    file: onnx.ModelProto

    def torch(self, images: UInt8, reference: ReferenceModel | None = None) -> dict[str, Float32]:
        inputs = [torch.from_numpy(v) for v in (reference or self.reference).as_inputs().values()]
        with torch.inference_mode():
            values = self.graph(torch.from_numpy(images), *inputs)
        return {name: value.numpy() for name, value in zip(OUTPUTS, values, strict=True)}

    def onnx(self, images: UInt8, reference: ReferenceModel | None = None) -> dict[str, Float32]:
        feeds = reference.as_inputs() if reference else {}
        values = self.session.run(list(OUTPUTS), {"image": images, **feeds})
        return dict(zip(OUTPUTS, values, strict=True))


@pytest.fixture(scope="module")
def pair(job: Job) -> Pair:
    manifest = read_manifest(job.part)
    network = read_network(job.part, manifest)
    assert network is not None
    reference = read_reference(job.part, manifest)
    assert reference.weights is not None
    return Pair(
        graph=ScoringGraph(network, ScoreKind.PATCH).eval(),
        session=OnnxSession(job.file.read_bytes(), "the model", "cpu"),
        reference=reference,
        threshold=manifest.threshold.value,
        file=onnx.load(job.file),
    )


def drawn(seed: int, count: int, cell: int) -> UInt8:
    """Noise at a scale, with a brightness and contrast of its own."""
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.integers(0, 257, 2))
    grid = rng.integers(low, high + 1, (count, SIZE // cell, SIZE // cell, 3)).clip(0, 255)
    return grid.astype(np.uint8).repeat(cell, axis=1).repeat(cell, axis=2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([1, 2, 8, 32, 64]))
@settings(max_examples=30, deadline=None)
def test_torch_and_the_file_agree(pair: Pair, seed: int, count: int, cell: int) -> None:
    images = drawn(seed, count, cell)
    expected, got = pair.torch(images), pair.onnx(images)
    scale = np.maximum(expected["score"], pair.threshold)
    assert (np.abs(expected["score"] - got["score"]) / scale).max() <= TOLERANCE
    np.testing.assert_allclose(got["anomaly_map"], expected["anomaly_map"], atol=1e-5)
    np.testing.assert_allclose(got["patches"], expected["patches"], atol=1e-4)
    np.testing.assert_allclose(got["embedding"], expected["embedding"], atol=1e-4)
    np.testing.assert_allclose(got["image_score"], expected["image_score"], rtol=1e-3, atol=1e-3)
    assert ((expected["score"] > pair.threshold) == (got["score"] > pair.threshold)).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
@settings(max_examples=10, deadline=None)
def test_a_batch_is_its_images_one_by_one(pair: Pair, seed: int, count: int) -> None:
    images = drawn(seed, count, 4)
    together = pair.onnx(images)
    for index in range(count):
        alone = pair.onnx(images[index : index + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][index], value[0], rtol=1e-4, atol=2e-5)


def test_the_outputs_are_what_they_are_called(pair: Pair) -> None:
    images = drawn(0, 3, 8)
    got = pair.onnx(images)
    distances = patch_distances(got["patches"], pair.reference)
    worst = np.sort(distances, axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(got["patch_score"], worst, rtol=1e-4)
    # The map crosses a threshold exactly where the score does.
    limited = np.minimum(distances, worst[:, None])
    np.testing.assert_allclose(got["anomaly_map"].reshape(3, -1), limited, atol=1e-5)
    np.testing.assert_array_equal(got["anomaly_map"].max(axis=(1, 2)), got["patch_score"])
    np.testing.assert_array_equal(got["score"], got["patch_score"])
    np.testing.assert_allclose(np.linalg.norm(got["patches"][..., :-1], axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got["embedding"], axis=1), 1, atol=1e-5)
    white = (got["embedding"] - pair.reference.gaussian_mean) @ pair.reference.gaussian_whitening
    np.testing.assert_allclose(got["image_score"], np.linalg.norm(white, axis=1), rtol=1e-4)
    assert (got["anomaly_map"] >= 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(max_examples=8, deadline=None)
def test_a_bank_by_the_inputs_is_a_bank_in_the_file(pair: Pair, seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    seen = pair.onnx(drawn(seed, 4, 2))
    patches = seen["patches"].reshape(-1, seen["patches"].shape[-1])
    reference = fit_reference(rng.permutation(patches)[:rows], seen["embedding"], BANK_SIZE)
    images = drawn(seed + 1, 2, 4)
    swapped = pair.onnx(images, reference)
    whole = as_before_seals(pair.file.SerializeToString())
    stored = replace_in_file(whole, reference.as_inputs(), {})
    exported = OnnxSession(stored, "the model", "cpu").run(list(OUTPUTS), {"image": images})
    for name, value in zip(OUTPUTS, exported, strict=True):
        np.testing.assert_allclose(swapped[name], value, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(swapped["score"], pair.onnx(images)["score"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 16), st.floats(0.1, 100))
@settings(max_examples=10, deadline=None)
def test_a_cell_counts_as_much_as_it_weighs(
    pair: Pair, seed: int, ignored: int, weight: float
) -> None:
    rng, images = np.random.default_rng(seed), drawn(seed, 3, 4)
    plain = pair.onnx(images)
    weights = (weight * rng.random(16)).astype(np.float32)
    weights[rng.permutation(16)[: ignored - 1]] = 0
    weighted = pair.reference.with_weights(weights)
    by_file, by_torch = pair.onnx(images, weighted), pair.torch(images, weighted)
    distances = weights * patch_distances(plain["patches"], pair.reference)
    expected = patch_scores(plain["patches"], weighted)
    np.testing.assert_allclose(by_file["score"], expected, rtol=1e-4, atol=1e-5 * weight)
    limited = np.minimum(distances, expected[:, None])
    np.testing.assert_allclose(
        by_file["anomaly_map"].reshape(3, -1), limited, rtol=1e-4, atol=1e-5 * weight
    )
    for name in OUTPUTS:
        np.testing.assert_allclose(by_file[name], by_torch[name], rtol=1e-3, atol=1e-4 * weight)
    for name in ("patches", "image_score", "embedding"):
        np.testing.assert_array_equal(by_file[name], plain[name])


@given(st.integers(0, 2**32 - 1), st.integers(1, REJECTED_ROWS))
@settings(max_examples=10, deadline=None)
def test_what_resembles_rejected_patches_scores_higher(pair: Pair, seed: int, rows: int) -> None:
    images = drawn(seed, 4, 4)
    plain = pair.onnx(images)
    patches = np.random.default_rng(seed).permutation(plain["patches"][0])[:rows]
    taught = pair.reference.with_rejected_patches(patches)
    np.testing.assert_allclose(taught.rejected_patches, patches, atol=1e-5)
    by_file, by_torch = pair.onnx(images, taught), pair.torch(images, taught)
    expected = patch_scores(plain["patches"], taught)
    np.testing.assert_allclose(by_file["score"], expected, rtol=1e-4, atol=1e-5)
    for name in OUTPUTS:
        np.testing.assert_allclose(by_file[name], by_torch[name], rtol=1e-3, atol=1e-4)
    for name in ("patches", "image_score", "embedding"):
        np.testing.assert_array_equal(by_file[name], plain[name])
    assert (by_file["score"] >= plain["score"]).all()
    assert (by_file["score"] <= 2.001 * plain["score"]).all()
    if rows >= len(plain["patches"][0]):  # each patch of the first image is a row: all are doubled
        np.testing.assert_allclose(by_file["score"][0], 2 * plain["score"][0], rtol=1e-3, atol=1e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_slots_that_hold_nothing_change_no_bit(pair: Pair, seed: int) -> None:
    images, rng = drawn(seed, 2, 4), np.random.default_rng(seed)
    noise = rng.normal(size=pair.reference.rejected.shape).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    filled = replace(pair.reference, rejected=noise)  # their bias says that they hold nothing
    for name, value in pair.onnx(images, filled).items():
        np.testing.assert_array_equal(value, pair.onnx(images)[name])


def test_the_file_holds_the_contract(pair: Pair) -> None:
    inputs = {value.name: value for value in pair.file.graph.input}
    assert tuple(inputs) == INPUTS
    image = inputs["image"].type.tensor_type
    assert image.elem_type == TensorProto.UINT8
    assert [d.dim_value for d in image.shape.dim][1:] == [SIZE, SIZE, 3]
    assert image.shape.dim[0].dim_param
    defaults = {tensor.name for tensor in pair.file.graph.initializer}
    assert defaults >= set(INPUTS[1:])
    assert {value.name for value in pair.file.graph.output} == set(OUTPUTS)
    assert not any(
        tensor.data_location == TensorProto.EXTERNAL for tensor in pair.file.graph.initializer
    )
    onnx.checker.check_model(pair.file, full_check=True)
    check_operators(pair.file)


def altered(pair: Pair, folder: Path, name: str, change: float) -> Path:
    """The file with one tensor multiplied and a fitting seal; golden images as they were."""
    model = onnx.ModelProto()
    model.CopyFrom(pair.file)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    value = numpy_helper.to_array(tensor) * np.float32(change)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    path = folder / "altered.onnx"
    path.write_bytes(sealed(as_before_seals(model.SerializeToString())))
    return path


def initializer(pair: Pair, dims: int, size: int | None = None) -> str:
    """The largest tensor of so many dimensions, or the first of a size."""
    of_kind = [tensor for tensor in pair.file.graph.initializer if len(tensor.dims) == dims]
    if size is not None:
        return str(next(t.name for t in of_kind if int(np.prod(t.dims)) == size))
    inner = [tensor for tensor in of_kind if tensor.name not in INPUTS]
    return str(max(inner, key=lambda tensor: int(np.prod(tensor.dims))).name)


@pytest.mark.parametrize("what", ["weights", "mean", "bank"])
def test_an_altered_file_fails_its_golden_images(pair: Pair, tmp_path: Path, what: str) -> None:
    name = {
        "weights": initializer(pair, 4),
        "mean": initializer(pair, 1, size=3),
        "bank": "bank",
    }[what]
    same = altered(pair, tmp_path, name, 1.0)
    Model.load(same)
    path = altered(pair, tmp_path, name, -1.0)
    with pytest.raises(GoldenImageError, match=r"golden image 00\d_\d\.png scores"):
        Model.load(path)
    with Model.load(path, golden=False) as model:
        assert model.metadata.golden


def test_an_altered_file_is_an_error_of_the_command(
    pair: Pair, job: Job, tmp_path: Path, cli: Cli
) -> None:
    path = altered(pair, tmp_path, "bank", 0.5)
    assert_refused(cli("score", path, job.shots), "do not trust this model")


@pytest.mark.parametrize("operator", ["NonZero", "Loop", "Where", "NonMaxSuppression", "Einsum"])
def test_other_operators_are_refused(pair: Pair, operator: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(pair.file)
    model.graph.node.append(helper.make_node(operator, ["score"], ["more"]))
    with pytest.raises(ExportError, match=operator):
        check_operators(model)


def test_operators_of_another_domain_are_refused(pair: Pair) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(pair.file)
    node = helper.make_node("Add", ["score", "score"], ["more"], domain="com.microsoft")
    model.graph.node.append(node)
    with pytest.raises(ExportError, match=r"com\.microsoft\.Add"):
        check_operators(model)


def test_operators_hidden_in_functions_are_refused(pair: Pair) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(pair.file)
    inner = helper.make_node("NonZero", ["a"], ["b"])
    function = helper.make_function("mine", "f", ["a"], ["b"], [inner], [])
    model.functions.append(function)
    with pytest.raises(ExportError):
        check_operators(model)


@given(st.integers(0, 100), st.sampled_from([2e-4, -2e-4, 0.1, np.nan]))
def test_parity_fails_where_a_score_differs(seed: int, change: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 0.5, 12).astype(np.float32)
    assert compare(scores, scores, 0.2).holds
    other = scores.copy()
    other[seed % 12] += np.float32(change) * max(other[seed % 12], np.float32(0.2)) * 1.1
    assert not compare(scores, other, 0.2).holds


def test_parity_fails_where_a_decision_flips() -> None:
    scores = np.array([0.1, 0.2], np.float32)
    other = np.array([0.1, np.nextafter(np.float32(0.2), np.float32(1))], np.float32)
    result = compare(scores, other, float(scores[1]))
    assert result.flips == 1
    assert not result.holds


def test_random_images_look_like_nothing_and_differ() -> None:
    images = random_images(40, 56, 3)
    assert all(image.shape == (40, 56, 3) and image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == len(images)
    again = random_images(40, 56, 3)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))


def test_torch_scores_are_those_of_the_graph(pair: Pair) -> None:
    images = random_images(SIZE, SIZE, 0)
    got = torch_scores(pair.graph, images, pair.reference)
    np.testing.assert_allclose(got, pair.torch(np.stack(images))["score"], rtol=1e-4, atol=1e-6)
