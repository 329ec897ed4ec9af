"""Models that share a session: each answers as it does alone, whatever the others do."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import fsad_edge
from fsad_edge import FinetuneOptions, Model
from fsad_edge.deploy.engine import header_of
from fsad_edge.deploy.engine_source import read_source
from fsad_edge.errors import GoldenImageError, InputError, ModelFileError
from fsad_edge.graph.encoder_graph import trace
from fsad_edge.learning.export import export_learned
from fsad_edge.learning.learner import Learner
from fsad_edge.options import Provider
from fsad_edge.runtime.backends.cuda import Gpu
from fsad_edge.runtime.engine_file import BuildOptions, read_engine, write_engine
from fsad_edge.runtime.metadata import KEY
from fsad_edge.runtime.model import REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import graph_key, read_initializers, replace
from fsad_edge.serve.metrics import Metrics
from fsad_edge.serve.model_files import ModelFile, find_model_files
from fsad_edge.serve.model_registry import POLL_SECONDS, ModelRegistry
from tests.conftest import BANK_SIZE, SIZE, Job, photograph, run_cli
from tests.serving import encoded, serving, wait_until
from tests.test_onnx_file import models as onnx_models
from tests.test_onnx_file import texts

NUT, BOLT, OTHER = "nut", "bolt", "other"
SHOTS = 4

#: Scores, both thresholds and maps of images.
Answers = list[tuple[float, float, float, bytes]]


def photographs(part: str, count: int, seed: int = 0) -> list[Image.Image]:
    """Photographs of one of two parts that look nothing alike."""
    rng = np.random.default_rng([seed, len(part)])
    made = [photograph(rng) for _ in range(count)]
    return made if part == NUT else [ImageOps.posterize(ImageOps.invert(one), 3) for one in made]


@pytest.fixture(scope="module")
def parts(
    job: Job, tmp_path_factory: pytest.TempPathFactory, backbones: dict[str, str]
) -> dict[str, Path]:
    """The job's part, another that was exported with the same encoder, and one of another graph.

    The job keeps the pretrained weights, because an epoch on its few shots gains too little.
    """
    folder = tmp_path_factory.mktemp("parts")
    (folder / "shots").mkdir()
    for index, image in enumerate(photographs(BOLT, SHOTS)):
        image.save(folder / "shots" / f"{index}.png")
    options = FinetuneOptions(
        backbone=backbones["conv"], image_size=SIZE, bank_size=BANK_SIZE, rotations=1, epochs=0
    )
    trained = fsad_edge.finetune(folder / "shots", folder / "trained", options)
    with pytest.MonkeyPatch.context() as patch:  # a trace of its own, not the shared one
        patch.setattr("fsad_edge.graph.encoder_graph.trace", trace)
        fsad_edge.export(trained, folder / f"{BOLT}.onnx")
    shutil.copy(job.file, folder / f"{NUT}.onnx")
    (folder / f"{OTHER}.onnx").write_bytes(other_graph(job.file.read_bytes()))
    return {path.stem: path for path in folder.glob("*.onnx")}


def other_graph(data: bytes) -> bytes:
    """The file with another weight in its encoder, and with the golden scores of that encoder."""
    weights = read_initializers(data)
    name = next(name for name, array in weights.items() if array.ndim == 4)
    changed = replace(data, {name: weights[name] * np.float32(1.5)}, {})
    with Model.from_bytes(changed, "other", "cpu", 1) as model:
        golden = [
            dataclasses.replace(one, score=model.score(one.image).score)
            for one in model.metadata.golden
        ]
        described = dataclasses.replace(model.metadata, golden=golden)
    return replace(changed, {}, {KEY: described.to_json()})


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    made = [*photographs(NUT, 2, seed=1), *photographs(BOLT, 2, seed=1)]
    return [encoded(one, quality=92) for one in made]


@pytest.fixture
def copies(parts: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Files next to which images can be learned, or that can be replaced."""
    return {name: Path(shutil.copy(parts[name], tmp_path / f"{name}.onnx")) for name in (NUT, BOLT)}


def load(path: Path, share_with: Model | list[Model] | tuple[()] = ()) -> Model:
    return Model.load(path, "cpu", threads=1, share_with=share_with)


def answers(model: Model, images: list[bytes]) -> Answers:
    """A model's results for images, bit for bit."""
    results = [model.score(image) for image in images]
    return [
        (one.score, one.threshold, one.map_threshold, one.anomaly_map.tobytes()) for one in results
    ]


@pytest.fixture(scope="module")
def alone(parts: dict[str, Path], images: list[bytes]) -> dict[str, Answers]:
    """The results of each file where it is the only one."""
    return {name: answers(load(path), images) for name, path in parts.items()}


def test_parts_share_a_session_and_answer_as_they_do_alone(
    parts: dict[str, Path], images: list[bytes], alone: dict[str, Answers]
) -> None:
    assert alone[NUT] != alone[BOLT]
    for first, second in ((NUT, BOLT), (BOLT, NUT)):
        one = load(parts[first])
        other = load(parts[second], share_with=one)
        assert other.shares_with(one)
        assert other.graph == one.graph
        assert answers(other, images) == alone[second]
        assert answers(one, images) == alone[first]
        one.check_golden()
        other.check_golden()
        batch = np.stack([other.prepare(other.decode(image)) for image in images])
        own = load(parts[second]).embed(batch)
        for name, array in other.embed(batch).items():
            np.testing.assert_array_equal(array, own[name])


def test_other_graphs_and_options_do_not_share(
    parts: dict[str, Path], images: list[bytes], alone: dict[str, Answers]
) -> None:
    nut = load(parts[NUT])
    other = load(parts[OTHER], share_with=nut)
    assert not other.shares_with(nut)
    assert other.graph != nut.graph
    assert answers(other, images) == alone[OTHER] != alone[NUT]
    assert not load(parts[BOLT]).shares_with(nut)
    for provider, threads in ((Provider.CPU, 2), (Provider.AUTO, 1)):
        assert not Model.load(parts[BOLT], provider, threads, share_with=nut).shares_with(nut)


def test_the_key_covers_constants_attributes_and_the_bank_s_capacity(
    parts: dict[str, Path],
) -> None:
    data = parts[NUT].read_bytes()
    key = graph_key(data, REFERENCE_INPUTS)
    assert key == graph_key(parts[BOLT].read_bytes(), REFERENCE_INPUTS)
    weights = next(iter(read_initializers(data).keys() - set(REFERENCE_INPUTS)))
    changed = read_initializers(data)[weights].copy()
    changed.flat[0] = np.nextafter(changed.flat[0], np.float32(9))
    assert graph_key(replace(data, {weights: changed}, {}), REFERENCE_INPUTS) != key

    model = onnx.load_from_string(data)
    bank = next(tensor for tensor in model.graph.initializer if tensor.name == "bank")
    bank.dims[0] -= 1
    assert graph_key(model.SerializeToString(), REFERENCE_INPUTS) != key
    model = onnx.load_from_string(data)
    node = next(node for node in model.graph.node if node.attribute)
    node.attribute[0].i += 1
    assert graph_key(model.SerializeToString(), REFERENCE_INPUTS) != key
    model = onnx.load_from_string(data)
    for remarked in (model, model.graph, *model.graph.node, *model.graph.value_info):
        remarked.doc_string = "at line 7"
        remarked.metadata_props.add(key="source", value="/home/anna/graph.py")
    model.producer_version = "other packages"
    assert graph_key(model.SerializeToString(), REFERENCE_INPUTS) == key


@given(onnx_models(), st.dictionaries(texts, texts, max_size=3), st.data())
@settings(deadline=None)
def test_the_key_leaves_out_the_reference_model_and_metadata_only(
    model: onnx.ModelProto, metadata: dict[str, str], data: st.DataObject
) -> None:
    file = model.SerializeToString()
    arrays = {name: array for name, array in read_initializers(file).items() if array.size}
    names = data.draw(st.sets(st.sampled_from(sorted(arrays)))) if arrays else set()
    other = {name: array + 1 for name, array in arrays.items()}
    key = graph_key(file, names)
    kept = {name: array for name, array in other.items() if name in names}
    assert graph_key(replace(file, kept, metadata), names) == key
    for name in arrays.keys() - names:
        moved = replace(file, {name: other[name]}, {})
        if not np.array_equal(read_initializers(moved)[name], arrays[name]):  # 1 can be too little
            assert graph_key(moved, names) != key


@pytest.fixture(scope="module")
def pair(parts: dict[str, Path]) -> list[Model]:
    one = load(parts[NUT])
    return [one, load(parts[BOLT], share_with=one)]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=25)
def test_no_result_depends_on_earlier_ones(
    pair: list[Model],
    images: list[bytes],
    alone: dict[str, Answers],
    asked: list[tuple[int, int]],
) -> None:
    for which, image in asked:
        assert answers(pair[which], [images[image]]) == [alone[(NUT, BOLT)[which]][image]]


def test_closing_one_leaves_the_session_to_the_others(
    parts: dict[str, Path], images: list[bytes], alone: dict[str, Answers]
) -> None:
    nut = load(parts[NUT])
    bolt = load(parts[BOLT], share_with=[nut])
    with nut:
        pass
    assert answers(bolt, images) == alone[BOLT]
    again = load(parts[BOLT], share_with=[nut, bolt])  # a closed one has nothing to share
    assert again.shares_with(bolt)
    assert answers(again, images) == alone[BOLT]


def test_threads_get_the_scores_of_their_own_model(
    pair: list[Model], images: list[bytes], alone: dict[str, Answers]
) -> None:
    wrong: list[str] = []

    def ask(model: Model, name: str) -> None:
        for _ in range(20):
            if answers(model, images) != alone[name]:
                wrong.append(name)

    both = [*zip(pair, (NUT, BOLT), strict=True)]
    threads = [threading.Thread(target=ask, args=each) for each in both * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_sharing_model_learns_and_unlearns_as_it_does_alone(
    copies: dict[str, Path], parts: dict[str, Path], images: list[bytes]
) -> None:
    new = [encoded(one) for one in photographs(NUT, 2, seed=9)]  # to the bolt's model
    nut = load(copies[NUT])
    bolt = load(copies[BOLT], share_with=nut)
    before = answers(nut, images), answers(bolt, images)
    with Learner.open(copies[BOLT], bolt) as learner:
        for image in new:
            learner.add(image, "anna", force=True)
        found = answers(bolt, images), learner.threshold.value
        assert found[0] != before[1]
        assert answers(nut, images) == before[0]
        bolt.check_golden()

    lone = load(copies[BOLT])
    with Learner.open(copies[BOLT], lone) as learner:  # finds what was learned
        assert (answers(lone, images), learner.threshold.value) == found
    elsewhere = copies[BOLT].parent / "elsewhere"
    elsewhere.mkdir()
    other = Path(shutil.copy(parts[BOLT], elsewhere / "other.onnx"))
    lone = load(other)
    with Learner.open(other, lone) as learner:  # learns the same alone
        for image in new:
            learner.add(image, "anna", force=True)
        assert (answers(lone, images), learner.threshold.value) == found
        for _ in new:
            learner.undo()
        undone = answers(lone, images)
    new_file = copies[BOLT].with_name("new.onnx")
    with Learner.open(copies[BOLT], bolt, write=False) as learner:
        new_file.write_bytes(export_learned(copies[BOLT], bolt, learner))
    taught = load(new_file, share_with=bolt)
    assert taught.shares_with(bolt)  # the file with what was learned has the same graph
    assert answers(taught, images) == found[0]
    with Learner.open(copies[BOLT], bolt) as learner:
        for _ in new:
            learner.undo()
    assert answers(bolt, images) == undone
    np.testing.assert_allclose([one[0] for one in undone], [one[0] for one in before[1]], 1e-5)


def test_golden_scores_are_those_of_the_file_s_own_reference_model(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    nut, foreign = load(parts[NUT]), load(parts[BOLT]).reference
    wrong = tmp_path / "wrong.onnx"
    described = dataclasses.replace(nut.metadata, bank_rows=foreign.rows, origins=None)
    metadata = {KEY: described.to_json()}
    wrong.write_bytes(replace(parts[NUT].read_bytes(), foreign.as_inputs(), metadata))
    with pytest.raises(GoldenImageError):
        load(wrong, share_with=nut)


def test_a_damaged_file_is_refused_with_the_same_sentence(
    parts: dict[str, Path], tmp_path: Path
) -> None:
    damaged, nut = tmp_path / "damaged.onnx", load(parts[NUT])
    for data in (b"", b"no model", parts[BOLT].read_bytes()[:-1000]):
        damaged.write_bytes(data)
        said = []
        for share_with in ((), nut):
            with pytest.raises(ModelFileError) as raised:
                load(damaged, share_with=share_with)
            said.append(str(raised.value))
        assert said[0] == said[1]


@pytest.fixture
def served(copies: dict[str, Path]) -> Iterator[ModelRegistry]:
    models = ModelRegistry(
        [ModelFile(*pair) for pair in copies.items()], Provider.CPU, 1, Metrics()
    )
    yield models
    models.stop()


def test_a_swapped_file_leaves_the_session_and_joins_it_again(
    served: ModelRegistry,
    copies: dict[str, Path],
    parts: dict[str, Path],
    images: list[bytes],
    alone: dict[str, Answers],
) -> None:
    def swap(name: str, path: Path) -> None:
        Path(shutil.copy(path, copies[name].with_suffix(".new"))).replace(copies[name])
        assert served.slots[name].refresh()
        assert served.slots[name].error is None

    def model(name: str) -> Model:
        return served[name].model

    assert model(NUT).shares_with(model(BOLT))
    for name in (NUT, BOLT):  # the one that the session was opened for, and the other
        rest = BOLT if name == NUT else NUT
        swap(name, parts[OTHER])
        assert not model(NUT).shares_with(model(BOLT))
        assert answers(model(name), images) == alone[OTHER]
        assert answers(model(rest), images) == alone[rest]
        swap(name, parts[name])
        assert model(NUT).shares_with(model(BOLT))
        assert answers(model(name), images) == alone[name]
        assert answers(model(rest), images) == alone[rest]


def test_a_folder_is_served_and_each_model_answers_by_its_name(
    copies: dict[str, Path],
    parts: dict[str, Path],
    images: list[bytes],
    alone: dict[str, Answers],
) -> None:
    with serving(copies[NUT].parent, "--threads", "1") as server, server.client() as client:

        def check(name: str, expected: Answers) -> None:
            for image, (score, threshold, *_) in zip(images, expected, strict=True):
                answer = client.post(f"/v1/score?model={name}", content=image)
                (result,) = answer.json()["results"]
                assert result["score"] == pytest.approx(score, rel=1e-5)
                assert result["threshold"] == threshold

        def graphs() -> dict[str, str]:
            return {one["name"]: one["graph"] for one in client.get("/v1/models").json()["models"]}

        assert set(graphs()) == {NUT, BOLT}
        assert graphs()[NUT] == graphs()[BOLT] == load(parts[NUT]).graph
        for name in (BOLT, NUT):
            check(name, alone[name])
        Path(shutil.copy(parts[OTHER], copies[NUT].with_suffix(".new"))).replace(copies[NUT])
        wait_until(lambda: graphs()[NUT] != graphs()[BOLT], 10 * POLL_SECONDS)
        check(NUT, alone[OTHER])
        check(BOLT, alone[BOLT])
        ready = client.get("/readyz").json()["models"]
        assert {name: one["graph"] for name, one in ready.items()} == graphs()
        assert f'graph="{graphs()[NUT]}",model="{NUT}"' in client.get("/metrics").text


def test_a_folder_s_files_are_named(tmp_path: Path) -> None:
    for name in ("nut.onnx", "bolt.onnx", "bolt.engine", ".screw.onnx", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    assert {one.name: one.path for one in find_model_files([str(tmp_path)])} == {
        "bolt": tmp_path / "bolt.engine",
        "nut": tmp_path / "nut.onnx",
    }
    with pytest.raises(InputError, match="holds no model file"):
        find_model_files([str(tmp_path / "empty")])
    with pytest.raises(InputError, match=r"nut\.onnx is given twice"):
        find_model_files([str(tmp_path), str(tmp_path / "nut.onnx")])


def test_an_engine_names_the_graph_that_it_was_built_from(parts: dict[str, Path]) -> None:
    source = read_source(parts[NUT])
    header = header_of(source, BuildOptions(), "10.3.0", Gpu("Orin", "8.7", 16))
    data = write_engine(header, source.reference, b"no plan")
    graph = read_engine(data, "nut.engine").header.graph
    assert graph == load(parts[BOLT]).graph != load(parts[OTHER]).graph


def test_info_shows_which_models_can_share(parts: dict[str, Path]) -> None:
    graphs = {name: run_cli("info", path, "--json").json["graph"] for name, path in parts.items()}
    assert graphs[NUT] == graphs[BOLT] != graphs[OTHER]
