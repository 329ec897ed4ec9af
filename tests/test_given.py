"""What the library takes: other kinds of images, lists, paths and options are refused in words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fsad_edge
from fsad_edge import ExportOptions, InputError, Learner, Model, load_image
from fsad_edge.errors import ImageError
from tests.conftest import SIZE, Job


@pytest.fixture(scope="module")
def model(job: Job) -> Iterator[Model]:
    with Model.load(job.file, "cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def pixels(job: Job) -> Any:
    return load_image(job.shots / "0.png")


class Subclass(np.ndarray[Any, Any]):
    """An array of a class of its own."""


#: Arrays that are no images of 8 bits, made of one that is, and what the sentence says of them.
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "uint16": (lambda a: a.astype(np.uint16), r"uint16 \[96, 96, 3\]: bring its values"),
    "float": (lambda a: a / 255, r"float64 \[96, 96, 3\]"),
    "nan": (lambda a: np.full(a.shape, np.nan, np.float32), "float32"),
    "bool": (lambda a: a > 100, r"bool \[96, 96, 3\]"),
    "int8": (lambda a: a.astype(np.int8), "int8"),
    "object": (lambda a: a.astype(object), "object"),
    "two channels": (lambda a: a[..., :2], r"uint8 \[96, 96, 2\]"),
    "alpha": (lambda a: np.dstack([a, a[..., 0]]), r"leave the alpha channel out"),
    "one channel": (lambda a: a[..., :1], r"leave the last axis out"),
    "planes": (lambda a: a.transpose(2, 0, 1), r"the channels come last"),
    "batch": (lambda a: a[None], r"\[1, 96, 96, 3\]: give one image"),
    "empty": (lambda a: a[:0], r"\[0, 96, 3\], smaller than one patch"),
    "small": (lambda a: a[:8, :8], "smaller than one patch"),
    "masked": (lambda a: np.ma.masked_array(a, a > 100), "masked"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_array_that_is_no_image_is_refused_by_dtype_and_shape(
    model: Model, pixels: Any, kind: str
) -> None:
    make, words = REFUSED[kind]
    for take in (model.score, model.decode, model.prepare, model.prepared):
        with pytest.raises(ImageError, match=words):
            take(make(pixels))


def test_arrays_of_any_layout_score_as_the_file_does(
    model: Model, pixels: Any, job: Job, tmp_path: Path
) -> None:
    score = model.score(job.shots / "0.png").score
    read_only = pixels.copy()
    read_only.setflags(write=False)
    wide = np.repeat(pixels, 2, axis=1)
    data = (job.shots / "0.png").read_bytes()
    alike: list[Any] = [
        *(read_only, np.asfortranarray(pixels), wide[:, ::2], pixels.view(Subclass)),
        *(data, bytearray(data), memoryview(data)),
    ]
    for same in alike:
        assert model.score(same).score == score
    grey = pixels[..., 1]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert model.score(grey).score == model.score(tmp_path / "grey.png").score


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "the image is empty"),
        ("a\0b", "null byte"),
        (["a.png"], r"one image is meant, not a list of 1: score_batch"),
        (None, "not NoneType"),
        (7, "not int"),
        (Image.new("RGB", (32, 32)), r"not PIL\.Image\.Image"),
    ],
)
def test_what_is_no_image_at_all(model: Model, given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        model.score(given)


def test_a_batch_is_a_list_of_images(model: Model, pixels: Any, job: Job) -> None:
    file = job.shots / "0.png"
    assert len(model.score_batch(one for one in (file, pixels))) == 2
    assert len(model.score_batch(np.stack([pixels, pixels]))) == 2
    nothing: Any
    for nothing in ([], (), pixels[None][:0]):
        with pytest.raises(InputError, match="no image to score"):
            model.score_batch(nothing)
    one: Any
    for one in (str(file), file, b"x", pixels, pixels[..., 0], None, {}):
        with pytest.raises(InputError, match="score_batch takes a list of images, not"):
            model.score_batch(one)


def test_prepared_images_are_of_the_models_size(model: Model, pixels: Any) -> None:
    batch = np.stack([model.prepare(pixels)] * 2)
    assert len(model.score_prepared(batch[:, :, ::-1])) == 2
    wrong: Any
    for wrong in (batch[0], batch[:0], batch.astype(np.float32), batch[:, 1:], [*batch]):
        for take in (model.score_prepared, model.embed):
            with pytest.raises(InputError, match=rf"uint8 \[N, {SIZE}, {SIZE}, 3\]"):
                take(wrong)
    with pytest.raises(InputError, match="sizes are 1, and the images are 2"):
        model.score_prepared(batch, sizes=[(9, 9)])


def test_a_model_that_is_closed_says_so_to_every_thread(job: Job, pixels: Any) -> None:
    loaded = Model.load(job.file, "cpu")
    said: list[str] = []

    def score() -> None:
        try:
            while True:
                loaded.score(pixels)
        except InputError as error:
            said.append(str(error))

    threads = [threading.Thread(target=score) for _ in range(3)]
    for thread in threads:
        thread.start()
    loaded.close()
    loaded.close()
    for thread in threads:
        thread.join(60)
    assert len(said) == 3
    assert all("is closed: load it again" in one for one in said)
    for take in (loaded.score_batch, fsad_edge.evaluate):
        arguments = [["missing.png"]] if take == loaded.score_batch else [loaded, job.dataset]
        with pytest.raises(InputError, match="is closed"):
            take(*arguments)


def test_a_learner_takes_the_bytes_of_files(job: Job, pixels: Any, tmp_path: Path) -> None:
    file = tmp_path / "part.onnx"
    file.write_bytes(job.file.read_bytes())
    data = (job.shots / "0.png").read_bytes()
    with Model.load(file, "cpu") as loaded, Learner.open(file, loaded) as learner:
        for wrong in ("a.png", Path("a.png"), pixels, None):
            for teach in (
                lambda image: learner.add(image, "anna"),
                lambda image: learner.reject(image, "anna"),
                lambda image: learner.keep_example(image, "anna", good=True),
                lambda image: learner.weigh_examples([("a", image)], []),
            ):
                with pytest.raises(InputError, match="the bytes of its file, not as"):
                    teach(wrong)
        for examples in ("a.png", [data], [("a",)], 3):
            with pytest.raises(InputError, match="a list of pairs"):
                learner.weigh_examples(examples, [])  # type: ignore[arg-type]
        for box in ("1,2,3,4", (1, 2, 3), (0.5, 1, 2, 3)):
            with pytest.raises(InputError, match="a box is four whole numbers"):
                learner.reject(data, "anna", box)  # type: ignore[arg-type]
        for number in (True, "1", float("nan"), 10**400, -1):
            with pytest.raises(InputError, match=r"a number above 0|not a number"):
                learner.plan_threshold("anna", value=number)  # type: ignore[arg-type]
        assert not learner.entries()


@pytest.mark.parametrize("path", ["", None, 3, b"part", "a\0b"])
def test_paths_are_texts_that_are_not_empty(job: Job, path: Any) -> None:
    for call in (
        lambda: Model.load(path),
        lambda: fsad_edge.finetune(path, "never"),
        lambda: fsad_edge.finetune(job.shots, path),
        lambda: fsad_edge.export(path),
        lambda: fsad_edge.evaluate(path, job.dataset),
        lambda: fsad_edge.evaluate(job.file, path),
    ):
        with pytest.raises(InputError, match="the path of "):
            call()


def test_options_of_another_kind(job: Job) -> None:
    for threads in (-1, 10**9, True, "2", None):
        with pytest.raises(InputError, match="the threads are 0 to 256"):
            Model.load(job.file, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"FinetuneOptions\(\.\.\.\), not dict"):
        fsad_edge.finetune(job.shots, "never", {"flip": True})  # type: ignore[arg-type]
    for wrong in ({"allow_drift": float("nan")}, {"force": "no"}, {"ranges_of": 3}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ExportOptions(**wrong)
    with pytest.raises(InputError, match="masks takes a list of words"):
        fsad_edge.evaluate(job.file, job.dataset, masks="large")


def test_arguments_of_another_kind_are_named_in_short(job: Job, model: Model) -> None:
    odd: Any = "no"
    with Learner.open(job.file, model, write=False) as learner:
        image = (job.shots / "0.png").read_bytes()
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: learner.add(image, "anna", force=odd), "force is True or False, not str"),
            (lambda: learner.reject(image, "anna", force=odd), "force is True or False"),
            (lambda: learner.undo(1, force=odd), "force is True or False"),
            (lambda: learner.set_threshold("anna", ratio=1, force=odd), "force is True or"),
            (
                lambda: learner.set_threshold_from_examples([], [], "anna", force=odd),
                "force is True or False",
            ),
            (lambda: learner.undo([]), "a whole number, not a list of 0"),  # type: ignore[arg-type]
            (lambda: learner.plan_threshold("anna", ratio=10**400), "above 0, and finite"),
            (lambda: Learner.open(job.file, None), "the model is a Model, not NoneType"),  # type: ignore[arg-type]
            (lambda: model.shares_with(None), "the other model is a Model, not NoneType"),  # type: ignore[arg-type]
            (lambda: model.set_state(odd), "the state is a ScoringState, not str"),
            (lambda: Model.load(job.file, threads=bytearray(60_000)), "not bytearray"),  # type: ignore[arg-type]
            (lambda: Model.load(job.file, np.zeros(2, "i4,f8")), "there is no provider"),  # type: ignore[arg-type]
        ]
        for call, words in calls:
            with pytest.raises(InputError, match=words) as refused:
                call()
            assert len(str(refused.value)) < 300
