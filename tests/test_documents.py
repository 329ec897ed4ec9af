"""Documents: what is written is read back equal, and everything else is refused in one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fsad_edge.errors import ModelFileError
from fsad_edge.options import ScoreKind
from fsad_edge.runtime.documents import (
    QUOTED,
    SCHEMA,
    read_document,
    to_document,
    write_document,
)
from fsad_edge.runtime.image_scale import ImageScale
from fsad_edge.runtime.locator import Locator
from fsad_edge.runtime.metadata import (
    RESIZE_RULE,
    SMALL,
    Appearance,
    Backbone,
    ByPlace,
    GoldenImage,
    Judgement,
    LeftOutMaps,
    Metadata,
    ShotFinding,
    ShotProblem,
    ShotsRecord,
    Threshold,
)
from fsad_edge.runtime.origins import Origins

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)
whole = st.integers(-(2**63), 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
distances = st.floats(0, 1e12)
positive = st.floats(1e-12, 1e12)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
several = st.lists(st.floats(0, 255), min_size=2, max_size=2)

bounds = st.tuples(st.floats(0.001, 0.1), st.floats(0.1, 1))
#: Of a bank with three rows and two shots.
origins = st.builds(
    Origins,
    count=st.just(2),
    rows=st.integers(1, 16384),
    columns=st.integers(1, 16384),
    nearest=st.sampled_from([b"\0\0\1\0\xff\xff", b"\1\0\1\0\0\0"]),
    places=st.binary(min_size=12, max_size=12) | st.binary(min_size=24, max_size=24),
    names=st.just([]) | st.lists(texts, min_size=2, max_size=2),
    pictures=st.just([]) | st.lists(st.binary(max_size=9), min_size=2, max_size=2),
)

locators = st.builds(
    Locator,
    whitening=st.lists(st.floats(-1e6, 1e6), min_size=9, max_size=9),
    limit=st.floats(1e-3, 1e3),
    extent=bounds,
    length=bounds,
    breadth=bounds,
    width=st.floats(0.01, 2),
    height=st.floats(0.01, 2),
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    turned=st.just(False),
    reach=st.floats(0.01, 1),
    template=st.just(b""),
    outline=st.binary(min_size=512, max_size=512),
)
left_out_maps = arrays(np.float32, (3, 8), elements=st.floats(0, 60_000, width=16)).map(
    lambda values: LeftOutMaps.of(values, (2, 4), 3, 0)
)
documents = st.builds(
    Metadata,
    name=texts,
    created=texts,
    height=st.integers(16, 16384),
    width=st.integers(16, 16384),
    backbone=st.builds(Backbone, texts, texts, texts, counts),
    shots=st.builds(
        ShotsRecord,
        st.just(1),
        st.lists(digests, min_size=1, max_size=3),
        counts,
        st.lists(
            st.builds(ShotFinding, st.sampled_from(ShotProblem), st.lists(texts), texts),
            max_size=2,
        ),
    ),
    score=st.sampled_from(ScoreKind),
    threshold=st.builds(
        Threshold,
        value=positive,
        false_alarm_rate=st.floats(1e-9, 0.999999),
        method=texts,
        scores=st.lists(distances, min_size=1, max_size=3).map(sorted),
        reliability=texts,
        prior_std=st.floats(0.001, 10),
        rate_promised=st.booleans(),
    ),
    map_threshold=positive,
    bank_rows=st.just(3),
    precision=st.sampled_from(["fp32", "fp16", "int8 (cpu)", "int8 (tensorrt)"]),
    golden_tolerance=st.floats(0, 0.1),
    golden=st.lists(st.builds(GoldenImage, texts, st.binary(max_size=9), distances), max_size=2),
    versions=st.dictionaries(texts, texts, max_size=3),
    bank_rotations=st.integers(1, 360),
    bank_flip=st.booleans(),
    appearance=st.builds(
        Appearance,
        several,
        several,
        several,
        st.binary(min_size=SMALL * SMALL, max_size=SMALL * SMALL),
        st.lists(st.binary(min_size=64, max_size=64), min_size=2, max_size=3),
        st.none() | st.floats(-1, 1),
    ),
    judgement=st.builds(
        Judgement,
        unlikeness=st.none() | st.floats(1e-3, 1e6),
        offset=st.floats(1e-9, 1),
        highlight=st.floats(0, 255),
        saturated=st.floats(0, 1),
        contrast=st.floats(0, 255),
        detail=st.floats(0, 2048),
        edges=st.floats(0, 2048),
        plain=st.floats(0, 2048),
        sharpness=st.floats(1e-3, 5),
        shape=st.none() | st.tuples(st.floats(1e-3, 1), st.floats(1, 1e3)),
        side=st.floats(0, 1e6),
    ),
    resize=st.just(RESIZE_RULE),
    scale=st.builds(
        ImageScale,
        st.none() | st.integers(8, 16),
        st.none() | st.tuples(st.floats(-1e9, 0), st.floats(1, 1e9)),
    ),
    locator=st.none() | locators,
    origins=st.none() | origins,
    left_out=st.none() | left_out_maps,
    by_place=st.none()
    | st.builds(
        ByPlace, scores=st.lists(st.floats(0, 10), max_size=3).map(sorted), why=st.text(max_size=9)
    ),
)

EXAMPLE = Metadata(
    name="nut",
    created="2026-01-01T00:00:00+00:00",
    height=224,
    width=224,
    backbone=Backbone("network", "hub", "0" * 64, 0, True),
    shots=ShotsRecord(2, ["1" * 64, "2" * 64], 0, []),
    score=ScoreKind.PATCH,
    threshold=Threshold(0.5, 0.01, "method", [0.1, 0.2], "reliability", 0.2, True),
    map_threshold=0.5,
    bank_rows=100,
    precision="fp32",
    golden_tolerance=1e-3,
    golden=[GoldenImage("0.png", b"image", 0.1)],
    versions={"python": "3.11"},
    bank_rotations=12,
    bank_flip=False,
    appearance=Appearance([100.0], [0.2], [1.5], bytes(SMALL * SMALL), [bytes(64)], 0.25),
    judgement=Judgement(
        *(1.5, 0.01, 20.0, 0.5, 3.0, 4.0, 0.2, 0.3, 4.0), shape=(1.1, 1.6), side=200.0
    ),
)


def read(text: str | bytes) -> Metadata:
    return read_document(Metadata, text, "the description in part.onnx", "export it again")


def refused(text: str | bytes) -> str:
    """The sentence of the refusal."""
    with pytest.raises(ModelFileError) as raised:
        read(text)
    sentence = str(raised.value)
    assert sentence.startswith("the description in part.onnx ")
    assert sentence.endswith(": export it again.") or "newer fsad-edge" in sentence
    assert sentence.isprintable()
    # What the document's author wrote is quoted twice at most: a field's name, and its value.
    assert len(sentence) <= 200 + 2 * QUOTED
    return sentence


@given(documents)
@settings(deadline=None)
def test_what_is_written_is_read_back_equal(metadata: Metadata) -> None:
    assert read(write_document(metadata)) == metadata
    assert Metadata.from_json(metadata.to_json(), "part.onnx") == metadata


Place = tuple[str | int, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where each value of a document is, from its fields down to its numbers."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield (*place, key)
        if isinstance(one, (dict, list)):
            yield from places(one, (*place, key))


DOCUMENT = json.loads(write_document(EXAMPLE))
PLACES = sorted(places(DOCUMENT), key=str)


def changed(place: Place, value: Any) -> Any:
    """The example with another value at one place."""
    document = copy.deepcopy(DOCUMENT)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return document


def at(place: Place) -> Any:
    value = DOCUMENT
    for key in place:
        value = value[key]
    return value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


FIELDS = [place for place in PLACES if isinstance(place[-1], str) and place[:1] != ("versions",)]
OBJECTS = [(), *(place for place in FIELDS if isinstance(at(place), dict))]


@pytest.mark.parametrize("place", FIELDS, ids=str)
def test_a_missing_field_is_refused(place: Place) -> None:
    document = changed(place, None)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    del parent[place[-1]]
    if place in {
        ("resize",),
        ("locator",),
        ("left_out",),
        ("origins",),
        ("zones",),
        ("by_place",),
        ("cell_shift",),
    }:  # they have a default
        assert read(json.dumps(document)) == EXAMPLE
    else:
        assert str(place[-1]) in refused(json.dumps(document))


@pytest.mark.parametrize("place", OBJECTS, ids=str)
@given(name=st.text(max_size=200))
@settings(deadline=None, max_examples=20)
def test_an_unknown_field_is_refused(place: Place, name: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    parent = document
    for key in place:
        parent = parent[key]
    if name not in parent:
        parent[name] = 1
        assert "unknown field" in refused(json.dumps(document))


#: Values of every JSON type, some of them hard to print.
WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 10**400, 0.5, "", "x" * 10_000, "\n\x1b[31m\ud800", [], {}),
    *({"x" * 500: 1}, nested(300), float("nan"), float("inf"), -float("inf")),
)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_value_of_another_type_is_refused(place: Place) -> None:
    """What is accepted in any place has that field's own type, and is read back as it is."""
    for value in WRONG:
        text = json.dumps(changed(place, value))
        try:
            metadata = read(text)
        except ModelFileError:
            refused(text)
            continue
        assert json.loads(write_document(metadata)) == json.loads(text)
        kinds = (int, float) if type(at(place)) is float else (type(at(place)),)
        assert type(value) in kinds or (
            place[-1] in {"similarity", "unlikeness", "shape"} and value is None
        )


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("height",), 15, "height is 15, outside 16 to 16384"),
        (("height",), True, "height is True and not a whole number"),
        (("height",), 64.0, "height is 64.0 and not a whole number"),
        (("threshold", "value"), 0, "threshold.value is 0.0 and not above 0"),
        (("threshold", "value"), True, "threshold.value is True and not a finite number"),
        (("threshold", "scores", 1), float("nan"), r"scores[1] is nan and not a finite number"),
        (("map_threshold",), float("inf"), "map_threshold is inf and not a finite number"),
        (("map_threshold",), 10**400, "and not a finite number"),
        (("golden_tolerance",), 1.0, "golden_tolerance is 1.0, outside 0 to 0.1"),
        (("score",), "both", "score is 'both' and not one of patch, image"),
        (("golden", 0, "image"), "é", "golden[0].image is not Base64 text"),
        (("golden", 0), [], "golden[0] is [] and not an object"),
        (("appearance", "mean_image"), "AAAA", "appearance.mean_image is 3, outside 1024 to 1024"),
        (("appearance", "contrast"), [], "appearance.contrast is 0, outside 1 to inf"),
        (("shots",), [1], "shots is [1] and not an object"),
        (("versions", "x" * 99), 1, "xxx' is 1 and not a text"),
        (("versions",), {"a\nb": 1}, r"versions.'a\nb' is 1 and not a text"),
        (("bank_flip",), 1, "bank_flip is 1 and not true or false"),
        (("scale",), {"bits": 12}, "scale has no field 'range'"),
        (("scale", "bits"), 17, "scale.bits is 17, outside 8 to 16"),
        (("scale", "range"), [1, 0], "scale cannot be: the range is the value of black and a"),
        (
            ("threshold", "value"),
            1e13,
            "threshold.value is 10000000000000.0, outside 1e-12 to 1e+12",
        ),
        (("threshold", "scores"), [0.2, 0.1], "threshold.scores is not in ascending order"),
        (("threshold", "scores"), [], "threshold.scores is 0, outside 1 to"),
        (("shots", "count"), 3, "shots cannot be: count is 3, and sha256 holds 2"),
        (("shots", "sha256", 0), "0", "shots.sha256[0] is '0' and not a SHA-256"),
        (("appearance", "contrast"), [1, 2], "brightness, contrast and sharpness hold 1, 2, 1"),
        (("appearance", "fingerprints"), [], "for 0 fingerprints"),
        (("judgement", "shape"), [2, 1], "the bounds of the shape are in the wrong order"),
        (("bank_rows",), 2**63, "is 9223372036854775808 and not a whole number of 64 bits"),
        (("name",), "\ud800", r"name is '\ud800', with half of a character"),
        (("versions",), {"\ud800": "1"}, "with half of a character"),
        (("precision",), "fp31", "precision is 'fp31' and not the name of a number format"),
        (("schema",), True, "it names no schema"),
        (("schema",), 0, "it names no schema"),
        (("schema",), SCHEMA + 1, "was written by a newer fsad-edge (schema 4; this version"),
    ],
)
def test_the_sentence_names_the_field_and_the_value(place: Place, value: Any, words: str) -> None:
    assert words in refused(json.dumps(changed(place, value)))


@pytest.mark.parametrize("depth", [10, 500, 900, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    for text in ("[" * depth, "[" * depth + "]" * depth, '{"schema":' * depth):
        refused(text)
    for value in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        refused('{"schema": 1, "name": ' + value + "}")


def test_a_field_that_is_named_twice_is_refused() -> None:
    text = json.dumps(DOCUMENT)
    for inner in ('"threshold": {', "{"):
        twice = text.replace(inner, inner + '"value": 99, "value": 9, ', 1)
        assert "names the field 'value' twice" in refused(twice)
    assert "twice" in refused("{" + '"schema": 2, ' * 100_000 + text[1:])


@pytest.mark.parametrize("digits", [1001, 5000, 1_000_000])
def test_a_number_of_many_digits_is_refused(digits: int) -> None:
    text = json.dumps(DOCUMENT).replace('"bank_rows": 100', '"bank_rows": -' + "1" * digits)
    assert f"it holds a number of {digits:,} digits" in refused(text)


def test_a_document_that_is_too_large_is_refused() -> None:
    assert "at most 67,108,864 are read" in refused(json.dumps({"name": "x" * (64 << 20)}))
    assert "damaged" in refused(json.dumps(changed(("threshold", "scores"), [0.1] * 1_000_001)))


def test_bytes_are_utf_8() -> None:
    text = json.dumps(DOCUMENT)
    assert read(text.encode()) == EXAMPLE
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        refused(text.encode(encoding))


@pytest.mark.parametrize(
    "value", [nested(17), {"a": [float("nan")]}, {"a": {"\ud800": 1}}, [-(2**63) - 1]]
)
def test_a_value_of_any_form_is_checked_all_the_same(value: Any) -> None:
    document = {"schema": 1, "sides": [1, 2], "rest": value}
    with pytest.raises(ModelFileError, match=r"^it is damaged \(rest .*\): cure\.$"):
        read_document(Pair, json.dumps(document), "it", "cure")


@given(st.binary(max_size=40) | st.text(max_size=40))
@settings(deadline=None)
def test_any_bytes_are_refused(text: str | bytes) -> None:
    refused(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists))
@settings(deadline=None)
def test_any_json_is_refused(value: Any) -> None:
    refused(json.dumps(value))
    refused(json.dumps({"schema": 1, "name": value}))


@dataclass(frozen=True)
class Pair:
    """A dataclass with what metadata does not have."""

    sides: tuple[int, int]
    numbers: tuple[float, ...] = ()
    rest: Any = None


@given(st.builds(Pair, st.tuples(whole, whole), st.lists(numbers).map(tuple)))
def test_tuples_and_defaults(pair: Pair) -> None:
    assert read_document(Pair, write_document(pair), "it", "cure") == pair
    document = {"schema": 1, **to_document(pair)}
    document["sides"] = document["sides"][:1]
    with pytest.raises(ModelFileError, match="sides holds 1 values and needs 2"):
        read_document(Pair, json.dumps(document), "it", "cure")
