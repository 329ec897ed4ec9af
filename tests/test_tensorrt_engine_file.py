"""The .engine file, its key, and the refusal of engines of other machines."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.backends.tensorrt import find_mismatch
from fsad_edge.runtime.engine_file import (
    MAGIC,
    BuildOptions,
    EngineHeader,
    Flavour,
    is_engine,
    read_engine,
    write_engine,
)
from fsad_edge.runtime.files import sha256

ORIN = Gpu("Orin", "8.7", 16)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text("abcdefg_-é", min_size=1, max_size=12)
numbers = st.integers(1, 256)


@st.composite
def headers(draw: st.DrawFn) -> EngineHeader:
    low, usual, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    flavour = draw(st.sampled_from(Flavour))
    gpus = draw(st.lists(st.sampled_from(["8.6", "8.9", "12.0"]), unique=True))
    options = BuildOptions(
        *((low, usual, high), draw(numbers), draw(st.booleans()), draw(st.booleans())),
        tuple(gpus) if flavour == Flavour.RTX else (),
    )
    return EngineHeader(
        metadata=draw(texts),
        source_name=draw(names),
        source_sha256=sha256(draw(st.binary(max_size=4))),
        tensorrt=draw(texts),
        gpu=None if flavour == Flavour.RTX else Gpu(draw(texts), draw(texts), draw(numbers)),
        precision=draw(texts),
        options=options,
        reference={},
        graph=sha256(draw(st.binary(max_size=4))),
        flavour=flavour,
    )


tensors = st.dictionaries(
    texts,
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
        elements=st.floats(width=32, allow_nan=False),
    ),
    max_size=4,
)


@given(headers(), tensors, st.binary(max_size=100))
@settings(deadline=None)
def test_a_file_is_read_as_it_was_written(
    header: EngineHeader, reference: dict[str, NDArray[np.float32]], plan: bytes
) -> None:
    data = write_engine(header, reference, plan)
    assert is_engine(data)
    file = read_engine(data, "part.engine")
    assert file.plan == plan
    assert list(file.reference) == list(reference)
    for name, values in reference.items():
        np.testing.assert_array_equal(file.reference[name], values)
    assert dataclasses.replace(file.header, reference={}) == header
    assert file.header.key == header.key


def example() -> bytes:
    header = EngineHeader(
        *("{}", "part.onnx", sha256(b"onnx"), "10.3.0", ORIN, "fp16", BuildOptions(), {}),
        sha256(b"graph"),
    )
    bank = np.arange(12, dtype=np.float32).reshape(3, 4)
    return write_engine(header, {"bank": bank}, b"plan" * 9)


@given(st.data())
@settings(deadline=None)
def test_every_damaged_byte_is_found(data: st.DataObject) -> None:
    bad = bytearray(example())
    place = data.draw(st.integers(0, len(bad) - 1))
    if data.draw(st.booleans()):
        del bad[place:]
    else:
        bad[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(
        ModelFileError, match=r"^part\.engine is a damaged engine file .*--force\.$"
    ):
        read_engine(bytes(bad), "part.engine")


def sealed(rest: bytes) -> bytes:
    """A file whose hash is right, whatever it holds."""
    return MAGIC + hashlib.sha256(rest).digest() + rest


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 99}, "newer fsad-edge"),
        ({"source_name": "../part.onnx"}, "source_name is '../part.onnx' and not a file name"),
        ({"reference": {"bank": [99, 9]}}, "values of a tensor do not fit its shape"),
        ({"reference": {"bank": [1 << 40, 4]}}, "outside 0 to"),
        ({"reference": {"bank": [-3, -4]}}, "outside 0 to"),
        ({"source_sha256": "0"}, "source_sha256 is '0' and not a SHA-256"),
        ({"options": {**dataclasses.asdict(BuildOptions()), "batch": [2, 1, 1]}}, "ascending"),
        ({"gpu": 7}, "gpu is 7 and not an object"),
        ({"gpu": None}, "it names no GPU, and is of TensorRT"),
        ({"flavour": "tensorrt_rtx"}, "it names a GPU, and is of TensorRT for RTX"),
        ({"flavour": "openvino"}, "not one of tensorrt, tensorrt_rtx"),
        (
            {"options": {"gpus": ["8.9", "Ada"]}},
            "gpus\\[1\\] is 'Ada' and not a compute capability",
        ),
        ({"tensorrt": 10}, "tensorrt is 10 and not a text"),
    ],
)
def test_a_wrong_header_is_refused(change: dict[str, object], sentence: str) -> None:
    good = example()
    length = int.from_bytes(good[40:48], "little")
    document = {**json.loads(good[48 : 48 + length]), **change}
    text = json.dumps(document).encode()
    bad = sealed(len(text).to_bytes(8, "little") + text + good[48 + length :])
    with pytest.raises(ModelFileError, match=sentence):
        read_engine(bad, "part.engine")


def test_an_engine_of_before_there_was_a_choice_is_read_and_is_not_built_again() -> None:
    good = example()
    length = int.from_bytes(good[40:48], "little")
    document = json.loads(good[48 : 48 + length])
    del document["flavour"], document["options"]["gpus"]
    text = json.dumps(document).encode()
    older = sealed(len(text).to_bytes(8, "little") + text + good[48 + length :])
    header = read_engine(older, "part.engine").header
    assert header == read_engine(good, "part.engine").header
    assert header.flavour == Flavour.TENSORRT
    # The key that the version before it computed.
    assert header.key == "756c4d1f0879217418ee4ea4bd718ba7cc9e4da7f10270b1a853ce33d329fc5c"


def test_the_key_tells_the_cards_of_an_engine_for_rtx() -> None:
    header = dataclasses.replace(header_with(), flavour=Flavour.RTX, gpu=None)
    ada = dataclasses.replace(header, options=BuildOptions(gpus=("8.9",)))
    assert len({header_with().key, header.key, ada.key}) == 3
    assert "8.0, 8.6, 8.9, 12.0 and later" in header.builder
    assert ada.builder.endswith("for GPUs of compute capability 8.9")
    read = read_engine(write_engine(ada, {}, b"plan"), "part.engine").header
    assert (read.key, read.gpu) == (ada.key, None)


def test_an_engine_for_rtx_needs_its_own_version_and_the_library_judges_the_card() -> None:
    header = dataclasses.replace(header_with(), flavour=Flavour.RTX, gpu=None)
    assert find_mismatch(header, "10.3.0", Gpu("any", "12.0", 70)) is None
    assert "built by TensorRT for RTX 10.3.0" in str(find_mismatch(header, "10.3.1", ORIN))


def test_a_header_that_is_longer_than_the_file_is_refused() -> None:
    with pytest.raises(ModelFileError, match="longer than the file"):
        read_engine(sealed((1 << 62).to_bytes(8, "little") + b"{}"), "part.engine")


@pytest.mark.parametrize(
    "other",
    [
        {"source_sha256": sha256(b"other")},
        {"tensorrt": "10.3.1"},
        {"gpu": Gpu("Orin", "8.7", 8)},
        {"gpu": Gpu("Orin", "8.6", 16)},
        {"gpu": Gpu("Thor", "8.7", 16)},
        {"precision": "fp32"},
        {"options": BuildOptions((1, 1, 8))},
        {"options": BuildOptions(workspace_mb=512)},
        {"options": BuildOptions(version_compatible=True)},
        {"options": BuildOptions(hardware_compatible=True)},
    ],
)
def test_the_key_covers_everything_that_decides_what_is_built(other: dict[str, object]) -> None:
    header = read_engine(example(), "part.engine").header
    assert len(header.key) == 64
    assert dataclasses.replace(header, **other).key != header.key  # type: ignore[arg-type]
    # The rest does not change the key.
    assert dataclasses.replace(header, source_name="b.onnx", metadata="[]").key == header.key


def header_with(options: BuildOptions = BuildOptions()) -> EngineHeader:  # noqa: B008
    return dataclasses.replace(read_engine(example(), "part.engine").header, options=options)


@pytest.mark.parametrize(
    ("options", "tensorrt", "gpu", "reason"),
    [
        (BuildOptions(), "10.3.0", ORIN, None),
        (BuildOptions(), "10.13.3", ORIN, "was built by TensorRT 10.3.0, and this is 10.13.3"),
        (BuildOptions(), "10.3.0", Gpu("Orin", "8.7", 8), "8 multiprocessors"),
        (BuildOptions(), "10.3.0", Gpu("Thor", "11.0", 20), "this is Thor"),
        (BuildOptions(version_compatible=True), "10.13.3", ORIN, None),
        (BuildOptions(version_compatible=True), "11.4.0", ORIN, None),
        (BuildOptions(version_compatible=True), "10.2.0", ORIN, "this is 10.2.0"),
        (BuildOptions(hardware_compatible=True), "10.3.0", Gpu("A10", "8.6", 72), None),
        (BuildOptions(hardware_compatible=True), "10.3.0", Gpu("B", "12.0", 70), None),
        (BuildOptions(hardware_compatible=True), "10.3.0", Gpu("T4", "7.5", 40), "this is T4"),
        (BuildOptions(hardware_compatible=True), "10.4.0", ORIN, "this is 10.4.0"),
    ],
)
def test_an_engine_runs_only_where_it_fits(
    options: BuildOptions, tensorrt: str, gpu: Gpu, reason: str | None
) -> None:
    mismatch = find_mismatch(header_with(options), tensorrt, gpu)
    assert (mismatch is None) == (reason is None)
    assert reason is None or reason in str(mismatch)
