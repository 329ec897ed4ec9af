"""Load an exported file and score images with it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from fsad_edge.errors import ImageError, InputError, ModelFileError
from fsad_edge.options import Provider, to_choice
from fsad_edge.runtime.arrays import AnyArray, Float32Array, UInt8Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.tensorrt import TensorrtSession, check_source
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.decode_gate import GATE
from fsad_edge.runtime.engine_file import CURE, is_engine
from fsad_edge.runtime.files import exists, is_file, is_folder, read_bytes
from fsad_edge.runtime.folders import has_model
from fsad_edge.runtime.given import (
    check_kind,
    check_prepared,
    check_threads,
    describe,
    images_of,
    path_of,
    pixels_of,
    source_of,
)
from fsad_edge.runtime.golden_images import check_golden_images
from fsad_edge.runtime.image_scale import UNASKED
from fsad_edge.runtime.images import ImagePage
from fsad_edge.runtime.judgement import Look
from fsad_edge.runtime.locator import Located
from fsad_edge.runtime.metadata import Metadata
from fsad_edge.runtime.model_file import (
    ALL_REFERENCE_INPUTS,
    WEIGHTS,
    read_model_file,
    to_reference,
)
from fsad_edge.runtime.model_file import REFERENCE_INPUTS as REFERENCE_INPUTS
from fsad_edge.runtime.onnx_file import graph_key
from fsad_edge.runtime.preparation import Prepared
from fsad_edge.runtime.result import Result as Result
from fsad_edge.runtime.scored_image import GraphOutputs, ImageToScore, result_of
from fsad_edge.runtime.scored_image import ScoringState as ScoringState
from fsad_edge.runtime.seal import without_seal

#: Names of the graph's outputs.
OUTPUTS = ("score", "image_score", "anomaly_map", "patch_score", "patches", "embedding")

#: Those of a graph that compares images with the shots place by place, besides.
PLACE_OUTPUTS = ("place_score", "place_map")

#: An image to score: a file, a page of one, the bytes of one, or decoded uint8 of any size, RGB as
#: ``[H, W, 3]`` or grey as ``[H, W]``.
ImageSource = str | os.PathLike[str] | ImagePage | bytes | bytearray | memoryview | UInt8Array

Session = OnnxSession | TensorrtSession


@dataclass(frozen=True)
class SessionKey:
    """What a session depends on: models with equal keys can share one.

    Attributes:
        graph: :func:`graph_key` of the file; empty where the file is damaged.
        provider: the requested provider.
        threads: the requested number of threads.
        strict: the requested strictness.
        max_batch: the requested number of images in a run.
    """

    graph: str
    provider: Provider
    threads: int
    strict: bool
    max_batch: int


class Model:
    """An exported model, ready to score.

    Use :meth:`load`. :meth:`close`, or a ``with`` block, frees its session unless another model
    shares it.

    Attributes:
        metadata: the file's description of itself.
        reference: the file's own reference model: memory bank, Gaussian and projection.
        graph: SHA-256 of what the file computes, without the reference model.
        provider: ONNX Runtime's name of the provider that runs the model; ``TensorRT`` or
            ``TensorRT for RTX`` for an engine.
        unsealed: a sentence for the user where the file was written by a version that put no seal
            into files, so that damage of it cannot be found out, else None.

    Example:
        >>> with Model.load(part_file) as model:
        ...     result = model.score(photograph)
        >>> result.anomalous == (result.score > result.threshold)
        True
        >>> result.anomaly_map.shape, result.patch_map.shape
        ((8, 8), (4, 4))
    """

    def __init__(
        self,
        session: Session,
        metadata: Metadata,
        reference: ReferenceModel,
        session_key: SessionKey,
        shares: bool,
        unsealed: str | None,
    ) -> None:
        self._session: Session | None = session
        self._session_key = session_key
        # The defaults of a session are the reference model of the file that it was opened for.
        self._own = reference.as_inputs() if shares else {}
        self._state = ScoringState(metadata.threshold.value, metadata.map_threshold, self._own)
        self.metadata = metadata
        self.reference = reference
        self.graph = session_key.graph
        self.provider = session.provider
        self.unsealed = unsealed

    @property
    def notice(self) -> str | None:
        """What the user should be told of the engine: that ``auto`` uses the CPU although ONNX
        Runtime is built for a GPU, or that the file is slow there; mostly None."""
        return None if self._session is None else self._session.notice

    @property
    def notices(self) -> list[str]:
        """What whoever uses the model should be told once, a sentence each; mostly empty."""
        return [text for text in (self.notice, self.unsealed) if text is not None]

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        provider: Provider | str = Provider.AUTO,
        threads: int = 0,
        golden: bool = True,
        strict: bool = False,
        share_with: Model | Iterable[Model] = (),
        max_batch: int = 0,
    ) -> Model:
        """Load an exported file and check its seal and that its golden images get their scores.

        Args:
            path: the ``.onnx`` or ``.engine`` file.
            provider: see :class:`OnnxSession`; an engine runs on TensorRT only.
            threads: threads for one image; 0 takes as many as this process may use.
            golden: False skips the check.
            strict: refuse the CPU where a GPU is expected; see :class:`OnnxSession`.
            share_with: loaded models. An ONNX file of the same graph as one of them, loaded with
                the same ``provider``, ``threads`` and ``strict``, runs in that model's session with
                its own reference model, and takes little more memory; see :meth:`shares_with`. It
                also runs in an engine that was built from a file of that graph.
            max_batch: on a GPU, the most images in one run of ONNX Runtime, up to 256. Each of the
                sizes 1, 2, 4 ... up to it is prepared now, which takes a second or so, and memory
                for each. 0 takes 8, and prepares each size when it is first needed. More images go
                in several runs. A CPU takes any number, and prepares nothing.

        Raises:
            InputError: there is no such file, or the provider is not available.
            MissingExtraError: ONNX Runtime, or TensorRT for an engine, is not installed.
            ModelFileError: the file is not one of this project, newer than this version or damaged.
            GoldenImageError: the model computes other scores here than where it was made.
        """
        path = path_of(path, "the model file")
        check_model_file(path)
        graph = read_bytes(path)
        model = cls.from_bytes(graph, str(path), provider, threads, strict, share_with, max_batch)
        if isinstance(model._session, TensorrtSession) and is_engine(graph):
            check_source(path, model._session.header)
        if golden:
            model.check_golden()
        return model

    @classmethod
    def from_bytes(
        cls,
        graph: bytes,
        source: str,
        provider: Provider | str = Provider.AUTO,
        threads: int = 0,
        strict: bool = False,
        share_with: Model | Iterable[Model] = (),
        max_batch: int = 0,
    ) -> Model:
        """Load a serialised model without scoring golden images; raises as :meth:`load` does."""
        provider = to_choice(Provider, provider, "provider")
        check_threads(threads)
        if not isinstance(graph, bytes):
            raise InputError(f"a serialised model is bytes, not {describe(graph)}.")
        session: Session | None
        if is_engine(graph):
            if provider not in {Provider.AUTO, Provider.TENSORRT}:
                raise InputError(
                    f"{source} runs on TensorRT only: for --provider {provider} give the ONNX file."
                )
            session = engine = TensorrtSession(graph, source)
            key = SessionKey(engine.header.graph, provider, threads, strict, max_batch)
            metadata, shares, has_seal = engine.metadata, False, True
            reference = to_reference(engine.reference, metadata, source, CURE)
        else:
            file = read_model_file(graph, source)
            metadata, reference, has_seal = file.metadata, file.reference, file.sealed
            key = SessionKey(_graph_key(graph), provider, threads, strict, max_batch)
            others = [share_with] if isinstance(share_with, Model) else models_of(share_with)
            session = _session_for(key, others)
            shares = session is not None
            session = session or _open(graph, source, key, metadata.precision)
        _check_interface(session, metadata, reference, source)
        unsealed = None if has_seal else without_seal(source)
        return cls(session, metadata, reference, key, shares, unsealed)

    def shares_with(self, other: Model) -> bool:
        """Whether both models run in one session.

        Raises:
            InputError: the other one is no model.
        """
        check_kind(other, Model, "the other model")
        return self._session is not None and self._session is other._session

    def check_golden(self) -> None:
        """Score the golden images, with the file's own reference model even where another is set.

        Raises:
            GoldenImageError: a score differs from the recorded one.
        """

        def score(image: UInt8Array) -> float:
            return float(self._run(["score"], {"image": image[None], **self._own})[0][0])

        metadata = self.metadata
        check_golden_images(
            metadata.golden,
            replace(metadata.preparation, scale=UNASKED),  # they have 8 bits
            score,
            metadata.threshold.usual_score,
            metadata.golden_tolerance,
            self.provider,
        )

    def score(self, source: ImageSource) -> Result:
        """Score one image.

        Args:
            source: a file, a page of one, the bytes of one, or decoded uint8 of any size that a
                file may have: RGB as ``[H, W, 3]``, or grey as ``[H, W]``, which scores as a grey
                file does. An array may be read-only and need not be contiguous.

        Raises:
            ImageError: the image cannot be decoded, or an array has another dtype or shape; the
                sentence names both.
            InputError: it is something else, such as a list or an empty path, or the model is
                closed.

        Example:
            An image that shows something else than the shots, or nothing, is not judged.

            >>> import numpy as np
            >>> with Model.load(part_file) as model:
            ...     result = model.score(np.zeros((300, 300, 3), np.uint8))
            >>> str(result.decision), result.good, result.reasons[0].text
            ('not_judged', False, 'it is black: its highest value is 0 of 255')
        """
        return self.score_batch([source])[0]

    def score_batch(self, sources: Iterable[ImageSource]) -> list[Result]:
        """Score images together, in one run of the session.

        Args:
            sources: images as in :meth:`score`, at least one; a list, or another iterable, or one
                array uint8 ``[N, H, W, 3]``.

        Raises:
            ImageError: an image cannot be decoded; no image is scored then.
            InputError: there is no image, one image is given in place of several, or the model is
                closed.

        Example:
            >>> with Model.load(part_file) as model:
            ...     results = model.score_batch([photograph, photograph])
            >>> results[0].score == results[1].score
            True
        """
        self._check_open()  # before anything is decoded
        images, clocks = list[Prepared](), list[tuple[float, float]]()
        for source in images_of(sources):
            start = time.perf_counter()
            with GATE.working():
                image = self.decode(source)
                decoded = time.perf_counter()
                images.append(self.prepared(image))
                del image  # its memory is given back
            clocks.append((decoded - start, time.perf_counter() - decoded))
        return self.score_prepared(
            np.stack([image.pixels for image in images]),
            clocks,
            sizes=[image.size for image in images],
            places=[image.located for image in images],
            full_sizes=[image.full_size for image in images],
        )

    def score_prepared(
        self,
        batch: UInt8Array,
        clocks: Sequence[tuple[float, float]] | None = None,
        state: ScoringState | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        places: Sequence[Located | None] | None = None,
        looks: Sequence[Look] | None = None,
        full_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Result]:
        """Score images that :meth:`prepare` brought to the model's size.

        Args:
            batch: uint8 ``[N, H, W, 3]``.
            clocks: for each image, the seconds that its decoding and its resizing took.
            state: what to score with; the model's own by default.
            sizes: for each image, width and height of the photograph in pixels, as decoded.
                Without them an image is judged whatever its shape and size.
            places: for each image, where its part was found. Without them a map is one of ``batch``
                and not of the photographs, and an image is judged although it shows no part.
            looks: for each image, what :func:`~fsad_edge.runtime.judgement.look_at` gives for it,
                where that is measured already; it is measured here otherwise.
            full_sizes: for each image, width and height of the photograph in pixels, at the full
                resolution of its file, in which its regions are told. ``sizes`` by default, or
                the size of ``batch``.

        Raises:
            InputError: the batch has another dtype or shape, or holds no image; ``clocks``,
                ``sizes``, ``places``, ``looks`` or ``full_sizes`` are not one for each image; or
                the model is closed.
        """
        batch = check_prepared(batch, self.metadata.height, self.metadata.width)
        lists = {
            "clocks": clocks,
            "sizes": sizes,
            "places": places,
            "looks": looks,
            "full_sizes": full_sizes,
        }
        for name, given in lists.items():
            if given is not None and len(given) != len(batch):
                raise InputError(f"{name} are {len(given)}, and the images are {len(batch)}.")
        state = state or self._state  # read once: another thread may replace it
        shown = (self.metadata.width, self.metadata.height)
        images = [
            ImageToScore(*values)
            for values in zip(
                batch,
                clocks or repeat((0.0, 0.0), len(batch)),
                sizes or repeat(None, len(batch)),
                places or repeat(None, len(batch)),
                looks or repeat(None, len(batch)),
                full_sizes or sizes or repeat(shown, len(batch)),
                strict=True,
            )
        ]
        start = time.perf_counter()
        outputs = self._outputs(batch, state)
        infer = (time.perf_counter() - start) * 1e3
        weights = state.inputs.get(WEIGHTS, self.reference.weights)
        return [
            result_of(image, found, state, weights, self.metadata, infer)
            for image, found in zip(images, outputs, strict=True)
        ]

    def _outputs(self, batch: UInt8Array, state: ScoringState) -> list[GraphOutputs]:
        """What the graph gives for images uint8 ``[N, H, W, 3]``."""
        names = ["score", "image_score", "anomaly_map"]
        if self.reference.place_bank is not None:
            names += PLACE_OUTPUTS
        scores, image_scores, maps, *of_places = self._run(names, {"image": batch, **state.inputs})
        values = [scores.tolist(), image_scores.tolist(), maps]
        if of_places:
            place_scores, place_maps = of_places
            values += [place_scores.tolist(), place_maps]
        return [GraphOutputs(*found) for found in zip(*values, strict=True)]

    def embed(self, batch: UInt8Array) -> dict[str, Float32Array]:
        """Compute features and scores with the file's own reference model.

        Args:
            batch: uint8 ``[N, H, W, 3]``, images from :meth:`prepare`.

        Returns:
            float32 ``patches`` ``[N, h*w, D + 1]``, ``embedding`` ``[N, D]``, ``anomaly_map``
            ``[N, h, w]``, ``patch_score`` and ``image_score`` ``[N]``.

        Raises:
            InputError: as :meth:`score_prepared`.
        """
        batch = check_prepared(batch, self.metadata.height, self.metadata.width)
        names = ["patches", "embedding", "anomaly_map", "patch_score", "image_score"]
        arrays = self._run(names, {"image": batch, **self._own})
        return dict(zip(names, arrays, strict=True))

    def set_state(self, state: ScoringState) -> None:
        """Score with another state from now on; safe while other threads score.

        Args:
            state: its arrays are of the file's capacity and dimension.

        Raises:
            InputError: it is no such state.
        """
        check_kind(state, ScoringState, "the state")
        self._state = state

    @property
    def threshold(self) -> float:
        """The current threshold: the file's own, or that of the last :meth:`set_state`."""
        return self._state.threshold

    def decode(self, source: ImageSource) -> Image.Image | UInt8Array:
        """Decode one image for :meth:`prepare`, at the smallest scale that is enough.

        Args:
            source: an image as in :meth:`score`; an array is returned as ``[H, W, 3]``.

        Raises:
            ImageError: the image cannot be decoded, or an array has another dtype or shape.
            InputError: it is something else.
        """
        given = source_of(source)
        return given if isinstance(given, np.ndarray) else self.metadata.preparation.decode(given)

    def prepare(self, image: Image.Image | UInt8Array) -> UInt8Array:
        """Bring the result of :meth:`decode` to the model's size: uint8 ``[H, W, 3]``.

        Raises:
            InputError: as :meth:`prepared`.
        """
        return self.prepared(image).pixels

    def prepared(self, image: Image.Image | UInt8Array) -> Prepared:
        """The same with the size of the photograph and where the part was found in it.

        Args:
            image: of mode ``RGB`` or ``L``, or uint8 ``[H, W, 3]`` or ``[H, W]``.

        Raises:
            ImageError: an array has another dtype or shape, or an image another mode.
            InputError: it is something else.
        """
        if isinstance(image, np.ndarray):
            image = pixels_of(image)
        elif not isinstance(image, Image.Image):
            raise InputError(f"prepare takes what decode returns, not {describe(image)}.")
        elif image.mode not in {"RGB", "L"}:
            raise ImageError(
                f"an image is prepared in mode RGB or L, not {image.mode}: decode gives one, and "
                'so does convert("RGB").'
            )
        return self.metadata.preparation.prepare(image)

    def close(self) -> None:
        """Free the session unless another model shares it; this model cannot score afterwards.

        What other threads are scoring ends as it should, and what they begin afterwards is an
        InputError. A closed model may be closed again.
        """
        self._session = None

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> Session:
        session = self._session  # another thread may close the model
        if session is None:
            raise InputError(f"the model {self.metadata.name} is closed: load it again.")
        return session

    def _run(self, outputs: list[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        return self._check_open().run(outputs, feeds)


def models_of(given: Iterable[Model]) -> list[Model]:
    """Loaded models as they were given.

    Raises:
        InputError: they are something else.
    """
    found = list(given) if isinstance(given, Iterable) else [given]
    for one in found:
        if not isinstance(one, Model):
            raise InputError(f"share_with takes loaded models, not {describe(one)}.")
    return found


def check_model_file(path: Path) -> None:
    """Refuse a path where no model file can be; it is not read.

    Raises:
        InputError: there is no regular file.
    """
    if not is_file(path):
        raise InputError(f"{path} is not a model file{_why_no_file(path)}.")


def _why_no_file(path: Path) -> str:
    if not is_folder(path):
        return " (it is a device, a pipe or a socket)" if exists(path) else " (no such file)"
    if has_model(path):
        return f": it is a model directory; run  fsad-edge export {path}"
    return ": it is a folder; the model file comes first, then the images"


def _check_interface(
    session: Session, metadata: Metadata, reference: ReferenceModel, source: str
) -> None:
    """Refuse a graph that does not take and give what its file says.

    Raises:
        ModelFileError: an input or output is missing, of another shape, or one too many.
    """
    arrays = {name: list(array.shape) for name, array in reference.as_inputs().items()}
    outputs = OUTPUTS if reference.place_bank is None else (*OUTPUTS, *PLACE_OUTPUTS)
    known = session.inputs if isinstance(session, TensorrtSession) else session.defaults
    found = {name: shape for name, shape in known.items() if name in arrays}
    image = session.inputs.get("image", [])
    if (
        image[1:] != [metadata.height, metadata.width, 3]
        or session.inputs.keys() - arrays.keys() != {"image"}
        or found != arrays
        or not set(outputs) <= set(session.outputs)
    ):
        raise ModelFileError(
            f"{source} does not have the inputs and outputs it describes: export it again."
        )


def _graph_key(graph: bytes) -> str:
    """The key of a file; empty where it is damaged, which ONNX Runtime then reports."""
    with contextlib.suppress(ModelFileError):
        return graph_key(graph, ALL_REFERENCE_INPUTS)
    return ""


def _open(graph: bytes, source: str, key: SessionKey, precision: str) -> OnnxSession:
    session = OnnxSession(
        graph,
        source,
        key.provider,
        key.threads,
        key.strict,
        precision=precision,
        max_batch=key.max_batch,
    )
    if key.max_batch:
        session.prepare()
    return session


def _session_for(key: SessionKey, share_with: Iterable[Model]) -> Session | None:
    """The session of a loaded model that can be shared; None where there is none."""
    for model in share_with:
        session = model._session
        if session is None or not key.graph or model.graph != key.graph:
            continue  # closed, or another graph
        on_engine = isinstance(session, TensorrtSession)
        if model._session_key == key or (
            on_engine and key.provider in {Provider.AUTO, Provider.TENSORRT}
        ):
            return session
    return None
