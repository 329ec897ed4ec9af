"""The scoring graph that is put together in ONNX: it scores as PyTorch does, at every size."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsad_edge.errors import ModelFileError
from fsad_edge.graph.encoder_graph import encoder_graph, trace
from fsad_edge.graph.fp16 import to_fp16
from fsad_edge.graph.scoring_graph import ScoringGraph
from fsad_edge.options import BundledEncoder, ScoreKind, Target
from fsad_edge.runtime.arrays import AnyArray, Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.bank import ReferenceModel, fit_reference
from fsad_edge.runtime.encoder_names import WHOLE_ENCODER, bundled_name
from fsad_edge.runtime.locator import OUTLINE, Locator
from fsad_edge.runtime.places import (
    on_the_map,
    place_distances,
    place_features,
    unit,
    worst_places,
)
from fsad_edge.scoring import tiles
from fsad_edge.scoring.bundled import FILES, bundled_encoder
from fsad_edge.scoring.encoder_file import HALF, encoder_file
from fsad_edge.scoring.encoder_graph import EncoderGraph
from fsad_edge.scoring.onnx_graph import Attribute, Graph, Node, Value, read_graph
from fsad_edge.scoring.quantize import quantised_names, quantize
from fsad_edge.scoring.scoring_graph import (
    OUTPUTS,
    PLACE_OUTPUTS,
    build_scoring_graph,
    with_empty_places,
)
from fsad_edge.training.encoder import BUNDLED, Encoder, pretrained_encoder

FLOAT = np.dtype("float32")
BANK_SIZE = 50

#: The largest difference that is allowed, relative to the largest value of an output.
TOLERANCE = 1e-6


def reference(encoder: EncoderGraph, cells: int, seed: int) -> ReferenceModel:
    """A reference model of random patches and embeddings, with a projection and rejected rows.

    Some of the cells do not count, the others up to four times.
    """
    rng = np.random.default_rng(seed)

    def units(count: int, length: int) -> Float32Array:
        vectors: Float32Array = rng.normal(size=(count, length)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    rarity = rng.random((60, 1), np.float32)
    patches = np.concatenate([units(60, encoder.channels), rarity], axis=1)
    fitted = fit_reference(patches, units(8, encoder.embedding_channels), BANK_SIZE)
    turn = np.linalg.qr(rng.normal(size=(encoder.channels,) * 2))[0].astype(np.float32)
    weights = (rng.uniform(0, 4, cells) * (rng.random(cells) < 0.8)).astype(np.float32)
    fitted = dataclasses.replace(fitted, projection=turn, weights=weights)
    return fitted.with_rejected_patches(patches[:3])


def with_places(model: ReferenceModel, rows: int, columns: int, seed: int) -> ReferenceModel:
    """The same reference model with random rows of places, some of which are farther than others.

    Their scale lets the place score be the larger one in some images and not in all.
    """
    rng = np.random.default_rng(seed)
    empty = with_empty_places(model, rows, columns)
    assert empty.place_bank is not None
    return dataclasses.replace(
        empty,
        place_bank=unit(rng.normal(size=empty.place_bank.shape).astype(np.float32)),
        place_projection=rng.normal(size=(model.bank.shape[1],) * 2).astype(np.float32),
        place_scale=rng.uniform(0, 1.5, len(empty.place_bank)).astype(np.float32),
    )


def assert_same(
    encoder: Encoder,
    score: ScoreKind,
    locator: Locator | None,
    images: UInt8Array,
    seed: int,
    places: bool = False,
) -> None:
    """All outputs of the graph are those of PyTorch."""
    part = encoder_graph(encoder.eval())
    _, height, width, _ = images.shape
    graph = build_scoring_graph(part, height, width, score, locator, BANK_SIZE, places)
    onnx.checker.check_model(onnx.load_from_string(graph.to_bytes()), full_check=True)
    rows, columns = height // part.stride, width // part.stride
    model = reference(part, rows * columns, seed)
    if places:
        model = with_places(model, rows, columns, seed)
    graph.constants |= model.as_inputs()
    names = [value.name for value in graph.outputs]
    got = OnnxSession(graph.to_bytes(), "the graph", "cpu").run(names, {"image": images})
    inputs = [torch.from_numpy(value) for value in model.as_inputs().values()]
    with torch.inference_mode():
        wanted = ScoringGraph(encoder, score, locator)(torch.from_numpy(images), *inputs)
    for name, ours, theirs in zip(names, got, wanted, strict=True):
        limit = TOLERANCE * max(1.0, float(theirs.abs().max()))
        assert np.abs(ours - theirs.numpy()).max() <= 3 * limit, name
        if name.endswith("score"):
            assert np.abs(ours - theirs.numpy()).max() <= limit, name


sides = st.integers(2, 20).map(lambda cells: 16 * cells)


@settings(max_examples=20)
@given(
    st.sampled_from(BundledEncoder),
    sides,
    sides,
    st.sampled_from(ScoreKind),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_it_scores_as_pytorch_does_at_every_size(
    kind: BundledEncoder, height: int, width: int, score: ScoreKind, masked: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    encoder = pretrained_encoder(bundled_name(kind), None, height, width, [16])
    assert_same(encoder, score, located(seed) if masked else None, images, seed)


@settings(max_examples=15)
@given(st.sampled_from(BundledEncoder), sides, sides, st.booleans(), st.integers(0, 2**16))
def test_places_are_compared_as_pytorch_and_numpy_do_at_every_size(
    kind: BundledEncoder, height: int, width: int, masked: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, height, width, 3), np.uint8)
    encoder = pretrained_encoder(bundled_name(kind), None, height, width, [16])
    locator = located(seed) if masked else None
    assert_same(encoder, ScoreKind.PATCH, locator, images, seed, places=True)
    part, grid = encoder_graph(encoder.eval()), (height // 16, width // 16)
    graph = build_scoring_graph(part, height, width, ScoreKind.PATCH, locator, BANK_SIZE, True)
    model = with_places(reference(part, math.prod(grid), seed), *grid, seed)
    graph.constants |= model.as_inputs()
    names = ["score", "patch_score", "patches", *PLACE_OUTPUTS]
    session = OnnxSession(graph.to_bytes(), "the graph", "cpu")
    score, patch_score, patches, place_score, place_map = session.run(names, {"image": images})
    assert model.place_bank is not None
    assert model.place_projection is not None
    assert model.weights is not None
    assert model.place_scale is not None
    features = place_features(patches, *grid, model.place_projection)
    distances = place_distances(features, model.place_bank) * model.place_scale
    expected = on_the_map(distances, *grid) * model.weights
    assert np.allclose(place_score, worst_places(expected, *grid), atol=1e-4)
    limited = np.minimum(expected, place_score[:, None]).reshape(place_map.shape)
    assert np.allclose(place_map, limited, atol=1e-4)
    assert np.array_equal(score, np.maximum(patch_score, place_score))


def located(seed: int) -> Locator:
    """A locator whose part has a random outline."""
    bits = np.random.default_rng(seed).random((OUTLINE, OUTLINE)) < 0.3
    return Locator(
        whitening=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        limit=1.0,
        extent=(0.1, 0.2),
        length=(0.1, 0.2),
        breadth=(0.1, 0.2),
        width=0.5,
        height=0.5,
        shift=(0.0, 0.0),
        turned=False,
        reach=0.5,
        template=b"",
        outline=np.packbits(bits).tobytes(),
    )


def test_large_images_are_looked_at_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LARGEST_WHOLE": 96, "TILE": 96, "OVERLAP": 32}.items():
        monkeypatch.setattr(tiles, name, value)
    images = np.random.default_rng(0).integers(0, 256, (2, 208, 112, 3), np.uint8)
    encoder = pretrained_encoder(BUNDLED, None, 208, 112, [16])
    assert_same(encoder, ScoreKind.PATCH, None, images, 0)


def test_full_depth_gives_an_embedding_of_its_own() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    encoder = pretrained_encoder(BUNDLED, None, 96, 96, [16], full_depth=True)
    assert encoder.spec.architecture == WHOLE_ENCODER
    assert_same(encoder, ScoreKind.IMAGE, None, images, 0)


@pytest.mark.parametrize(("kind", "strides"), [("conv", [8, 16]), ("vit", [16])])
def test_an_encoder_that_is_not_bundled_is_traced(
    kind: str, strides: list[int], backbones: dict[str, str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    encoder = pretrained_encoder(backbones[kind], None, 64, 64, strides)
    assert_same(encoder, ScoreKind.PATCH, None, images, 0)


@pytest.mark.parametrize("kind", list(BundledEncoder))
def test_the_file_of_a_bundled_encoder_is_its_trace(kind: BundledEncoder) -> None:
    encoder = pretrained_encoder(bundled_name(kind), None, 64, 48, [16])
    traced, stored = trace(encoder, 64, 48), bundled_encoder(bundled_name(kind))
    assert stored is not None
    assert [node.operator for node in traced.graph.nodes] == [
        node.operator for node in stored.graph.nodes
    ]
    file = onnx.load(FILES[bundled_name(kind)])
    onnx.checker.check_model(file, full_check=True)
    again = read_graph(encoder_file(stored, HALF))
    assert again.nodes == stored.graph.nodes
    for name, value in stored.graph.constants.items():
        assert np.array_equal(again.constants[name], value), name


@pytest.mark.parametrize("kind", list(BundledEncoder))
@pytest.mark.parametrize("precision", ["int8 (cpu)", "int8 (tensorrt)", "fp16"])
def test_other_precisions_score_as_those_of_a_trace(kind: BundledEncoder, precision: str) -> None:
    stored = bundled_encoder(bundled_name(kind))
    assert stored is not None
    traced = trace(pretrained_encoder(bundled_name(kind), None, 64, 96, [16]), 64, 96)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    model = reference(stored, 24, 0).as_inputs()

    def scores(encoder: EncoderGraph) -> list[Float32Array]:
        graph = build_scoring_graph(encoder, 64, 96, ScoreKind.PATCH, None, BANK_SIZE)
        graph.constants |= model
        data = rewritten(graph, encoder, precision)
        return OnnxSession(data, "the graph", "cpu").run(list(OUTPUTS), {"image": images})

    for name, ours, theirs in zip(OUTPUTS, scores(stored), scores(traced), strict=True):
        assert np.abs(ours - theirs).max() <= TOLERANCE * max(1.0, np.abs(theirs).max()), name


def rewritten(graph: Graph, encoder: EncoderGraph, precision: str) -> bytes:
    """The file of a graph in another precision."""
    if precision == "fp16":
        return bytes(to_fp16(onnx.load_from_string(graph.to_bytes())).SerializeToString())
    target = Target.CPU if precision == "int8 (cpu)" else Target.TENSORRT
    ranges = dict.fromkeys(quantised_names(graph, target), (-4.0, 4.0))
    return quantize(graph, ranges, encoder.mean, encoder.std, target).to_bytes()


names = st.text("abcxyz/._0", min_size=1, max_size=6)
sizes = names | st.integers(0, 99)
reals = st.floats(width=32, allow_nan=False)
numbers = st.integers(-(2**63), 2**63 - 1)
attributes: st.SearchStrategy[Attribute] = st.one_of(
    reals, numbers, st.text(max_size=4), st.lists(numbers, min_size=1), st.lists(reals, min_size=1)
)


@given(
    st.lists(
        st.builds(
            Node,
            names,
            st.lists(names | st.just(""), max_size=3).map(tuple),
            st.lists(names, min_size=1, max_size=2).map(tuple),
            st.dictionaries(names, attributes, max_size=3),
        ),
        max_size=4,
    ),
    st.dictionaries(names, st.lists(numbers).map(lambda row: np.array(row, np.int64)), max_size=3),
    st.lists(
        st.builds(
            Value,
            names,
            st.just(FLOAT),
            st.none() | st.lists(names | st.integers(0, 99)).map(tuple),
        )
    ),
    st.dictionaries(names, st.text(max_size=4), max_size=2),
)
def test_a_graph_is_read_as_it_was_written(
    nodes: list[Node], constants: dict[str, AnyArray], values: list[Value], texts: dict[str, str]
) -> None:
    graph = Graph(values, values[:1], nodes, dict(constants), texts)
    again = read_graph(graph.to_bytes())
    assert (again.inputs, again.outputs, again.nodes) == (graph.inputs, graph.outputs, graph.nodes)
    assert again.metadata == graph.metadata
    assert again.constants.keys() == constants.keys()
    assert all(np.array_equal(again.constants[name], constants[name]) for name in constants)


@given(st.binary(max_size=40), st.integers(0, 400))
def test_damaged_bytes_are_refused_or_read(noise: bytes, place: int) -> None:
    whole = FILES[BUNDLED].read_bytes()
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    with contextlib.suppress(ModelFileError):  # any other error would be one that nobody expects
        read_graph(damaged)
