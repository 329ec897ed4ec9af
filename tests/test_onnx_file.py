"""The reader and writer of ONNX files, compared with the onnx package."""

from __future__ import annotations

import contextlib

import hypothesis.extra.numpy as hnp
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.model import REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import read_initializers, read_metadata, replace
from tests.conftest import Job

TYPES = {np.dtype("f4"): TensorProto.FLOAT, np.dtype("f2"): TensorProto.FLOAT16}
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


def floats(dtype: type[np.floating]) -> st.SearchStrategy[NDArray[np.floating]]:
    width = 8 * np.dtype(dtype).itemsize
    return hnp.arrays(dtype, shapes, elements=st.floats(width=width, allow_nan=False))  # type: ignore[arg-type]


arrays = st.one_of(floats(np.float32), floats(np.float16))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """A model with tensors in every form that floats are stored in, and one of whole numbers."""
    tensors = []
    for name, array in draw(st.dictionaries(texts, arrays, max_size=4)).items():
        if draw(st.booleans()):
            tensors.append(numpy_helper.from_array(array, name))
        else:
            kind = TYPES[array.dtype]
            tensors.append(helper.make_tensor(name, kind, array.shape, array.ravel()))
    tensors.append(numpy_helper.from_array(np.arange(3), "whole numbers"))
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "g", [], [], tensors)
    model = helper.make_model(graph, doc_string=draw(texts))
    helper.set_model_props(model, draw(st.dictionaries(texts, texts, max_size=3)))
    return model


@given(models())
@settings(deadline=None)
def test_reads_what_onnx_reads(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    assert read_metadata(data) == {prop.key: prop.value for prop in model.metadata_props}
    found = read_initializers(data)
    expected = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type in TYPES.values()
    }
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array.astype(np.float32))
        assert found[name].shape == array.shape


@given(models(), st.data())
@settings(deadline=None)
def test_replaces_what_is_named_and_nothing_else(
    model: onnx.ModelProto, data: st.DataObject
) -> None:
    present = read_initializers(model.SerializeToString())
    names = data.draw(
        st.lists(st.sampled_from(sorted(present)), unique=True) if present else st.just([])
    )
    new = {name: np.full(present[name].shape, 0.5, np.float32) for name in names}
    metadata = data.draw(st.dictionaries(texts, texts, max_size=3))
    got = onnx.load_from_string(replace(model.SerializeToString(), new, metadata))

    assert {prop.key: prop.value for prop in got.metadata_props} == {
        **{prop.key: prop.value for prop in model.metadata_props},
        **metadata,
    }
    for before, after in zip(model.graph.initializer, got.graph.initializer, strict=True):
        assert (after.name, after.data_type) == (before.name, before.data_type)
        value = numpy_helper.to_array(before)
        expected = new.get(before.name, value)
        np.testing.assert_array_equal(numpy_helper.to_array(after), expected.astype(value.dtype))
    for either in (model, got):
        del either.metadata_props[:]
        del either.graph.initializer[:]
    assert got == model


@given(models(), st.data())
@settings(deadline=None)
def test_damaged_bytes_are_refused_or_read_but_never_crash(
    model: onnx.ModelProto, data: st.DataObject
) -> None:
    whole = bytearray(model.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for damaged in (bytes(whole), cut):
        for read in (read_metadata, read_initializers, lambda data: replace(data, {}, {"a": "b"})):
            with contextlib.suppress(ModelFileError):
                read(damaged)


def test_a_tensor_that_is_not_there_is_refused(job: Job) -> None:
    data = job.file.read_bytes()
    with pytest.raises(ModelFileError, match="no tensor 'bonk'"):
        replace(data, {"bonk": np.zeros(3, np.float32)}, {})
    with pytest.raises(ModelFileError, match="'bank' is of another type or shape"):
        replace(data, {"bank": np.zeros(3, np.float32)}, {})


def test_an_exported_file_survives(job: Job) -> None:
    data = job.file.read_bytes()
    known = onnx.load_from_string(data)
    found = read_initializers(data)
    for tensor in known.graph.initializer:
        if tensor.name in REFERENCE_INPUTS:
            np.testing.assert_array_equal(found[tensor.name], numpy_helper.to_array(tensor))
    bank = found["bank"][::-1].copy()
    changed = onnx.load_from_string(replace(data, {"bank": bank}, {KEY: "{}"}))
    onnx.checker.check_model(changed)
    by_name = {tensor.name: tensor for tensor in changed.graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(by_name["bank"]), bank)
    assert read_metadata(replace(data, {}, {}))[KEY] == read_metadata(data)[KEY]
