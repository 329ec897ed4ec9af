"""Load an exported file, score images with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsad_edge.errors import GoldenImageError, ImageError, InputError, ModelFileError
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.tensorrt import TensorrtSession, check_source
from fsad_edge.runtime.bank import ReferenceModel
from fsad_edge.runtime.engine_file import is_engine
from fsad_edge.runtime.images import UInt8Array, decode, load_resized, resize
from fsad_edge.runtime.metadata import KEY, Metadata
from fsad_edge.runtime.onnx_file import graph_key, read_initializers, read_metadata

Float32Array = npt.NDArray[np.float32]

#: Names of the graph's inputs for the normal parts.
NORMALS = tuple(ReferenceModel.__dataclass_fields__)


@dataclass(frozen=True)
class Result:
    """What one image got.

    Attributes:
        score: distance from the normal parts, 0 and up, with no upper end.
        threshold: the boundary on that score.
        anomalous: the decision, ``score > threshold``.
        map: float32 ``[h, w]`` on the patch grid: each patch's mean distance from the nearest
            memory bank rows, by cosine and by rarity.
        map_threshold: what to hold the map against when it is drawn.
        timings: milliseconds by step: ``decode``, ``resize``, ``infer``, ``post``. In a batch
            ``infer`` is that of the whole batch.
    """

    score: float
    threshold: float
    map: Float32Array
    map_threshold: float
    timings: dict[str, float]

    @property
    def anomalous(self) -> bool:
        return self.score > self.threshold

    @property
    def ratio(self) -> float:
        """Score over threshold: 1.0 is the boundary."""
        return self.score / self.threshold


@dataclass(frozen=True)
class ScoringState:
    """What a model scores against: the session's defaults where ``inputs`` is empty."""

    threshold: float
    map_threshold: float
    inputs: dict[str, Float32Array]


@dataclass(frozen=True)
class SessionKey:
    """What decides on a session: models for which all of this is the same can share one.

    Attributes:
        graph: :func:`graph_key` of the file; empty where it is not known.
        provider: as it was asked for.
        threads: likewise.
        strict: likewise.
    """

    graph: str
    provider: str
    threads: int
    strict: bool


class Model:
    """An exported model, ready to score.

    Use :meth:`load`. As a context manager it frees its engine at the end, where no other model
    shares that.

    Attributes:
        metadata: what the file says of itself.
        normals: the file's own normal parts.
        graph: SHA-256 of what the file computes, normal parts left out; empty where an engine does
            not say.
        provider: the execution provider that runs it, or ``TensorRT``.
        notice: a sentence for the user where ``auto`` did not get the GPU that ONNX Runtime is
            built for, else None.
    """

    def __init__(
        self,
        session: OnnxSession | TensorrtSession,
        metadata: Metadata,
        reference: ReferenceModel,
        session_key: SessionKey,
        shares: bool,
    ) -> None:
        self._session, self._session_key = session, session_key
        # A session's defaults are the normal parts of the file that it was opened for.
        self._own = reference.as_inputs() if shares else {}
        self._state = ScoringState(metadata.threshold.value, metadata.map_threshold, self._own)
        self.metadata = metadata
        self.reference = reference
        self.graph = session_key.graph
        self.provider = session.provider
        self.notice = session.notice

    @classmethod
    def load(
        cls,
        path: str | Path,
        provider: str = "auto",
        threads: int = 0,
        golden: bool = True,
        strict: bool = False,
        share_with: Model | Iterable[Model] = (),
    ) -> Model:
        """Load an exported file and check that it scores its golden images as it must.

        Args:
            path: the ``.onnx`` or ``.engine`` file.
            provider: as :class:`OnnxSession` takes it; an engine runs on TensorRT alone.
            threads: for one image; 0 leaves the choice to the engine.
            golden: False skips the check.
            strict: likewise as :class:`OnnxSession` takes it.
            beside: loaded models. An ONNX file of the same graph as one of them, asked for with the
                same ``provider``, ``threads`` and ``strict``, runs in that one's session with its
                own normal parts, and takes little memory beyond these; see :meth:`shares_with`. It
                also runs in an engine that was built from a file of that graph.

        Raises:
            InputError: no such file, or the provider is not to be had.
            MissingExtraError: no engine is installed.
            ModelFileError: not a file of this project, newer than this version, or damaged.
            GoldenImageError: it computes other scores here than where it was made.
        """
        path = Path(path)
        if not path.is_file():
            hint = f": it is a folder; run  fsad-edge export {path}" if path.is_dir() else ""
            raise InputError(f"{path} is not a model file{hint or ' (no such file)'}.")
        try:
            graph = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
        model = cls.from_bytes(graph, str(path), provider, threads, strict, share_with)
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
        provider: str = "auto",
        threads: int = 0,
        strict: bool = False,
        share_with: Model | Iterable[Model] = (),
    ) -> Model:
        """Load a serialised model; no golden image is scored. Raises as :meth:`load` does."""
        session: OnnxSession | TensorrtSession | None
        if is_engine(graph):
            if provider not in {"auto", "tensorrt"}:
                raise InputError(
                    f"{source} runs on TensorRT alone: --provider {provider} takes the ONNX file."
                )
            session = engine = TensorrtSession(graph, source)
            session_key = SessionKey(engine.header.graph, provider, threads, strict)
            shares, documents, arrays = False, engine.metadata, engine.reference
        else:
            session_key = SessionKey(_graph_key(graph), provider, threads, strict)
            session = _session_for(
                session_key, [share_with] if isinstance(share_with, Model) else share_with
            )
            shares = session is not None
            session = session or OnnxSession(graph, source, provider, threads, strict)
            documents, arrays = read_metadata(graph), read_initializers(graph, NORMALS)
        if KEY not in documents:
            raise ModelFileError(
                f"{source} is an ONNX file, but not one that  fsad-edge export  wrote."
            )
        metadata = Metadata.from_json(documents[KEY], source)
        shape = session.inputs.get("image", [])
        if shape[1:] != [metadata.height, metadata.width, 3] or "score" not in session.outputs:
            raise ModelFileError(f"{source} does not have the inputs and outputs it describes.")
        missing = [name for name in NORMALS if name not in arrays]
        if missing:
            raise ModelFileError(f"{source} holds no '{missing[0]}': export it again.")
        reference = ReferenceModel(**{name: arrays[name] for name in NORMALS})
        return cls(session, metadata, reference, session_key, shares)

    def shares_with(self, other: Model) -> bool:
        """Whether both run in one session."""
        return self._session is other._session

    def check_golden(self) -> None:
        """Score the golden images, against the file's own normal parts even where others are set.

        Raises:
            GoldenImageError: a score differs from the one on record.
        """
        threshold = self.metadata.threshold.value
        for golden in self.metadata.golden:
            try:
                image = load_resized(golden.image, self.metadata.height, self.metadata.width)
                (scores,) = self._session.run(["score"], {"image": image[None], **self._own})
                score = float(scores[0])
            except ImageError as error:
                reason = str(error).removeprefix("the image ").removesuffix(".")
                raise ModelFileError(
                    f"golden image {golden.name} of the model {reason}: export it again."
                ) from error
            drift = abs(score - golden.score) / max(abs(golden.score), threshold)
            if not drift <= self.metadata.golden_tolerance:
                raise GoldenImageError(
                    f"golden image {golden.name} scores {score:.6g} here and {golden.score:.6g} "
                    f"where the model was made ({self.provider}): do not trust this model on this "
                    "machine; run  fsad-edge doctor  and export again."
                )

    def score(self, source: str | Path | bytes | UInt8Array) -> Result:
        """Score one image.

        Args:
            source: a file, the bytes of one, or decoded uint8 ``[H, W, 3]`` RGB of any size.

        Raises:
            ImageError: it cannot be decoded.
        """
        return self.score_batch([source])[0]

    def score_batch(self, sources: Sequence[str | Path | bytes | UInt8Array]) -> list[Result]:
        """Score images together, in one run of the engine.

        Args:
            sources: as :meth:`score` takes them; at least one.

        Raises:
            ImageError: one of them cannot be decoded; none is scored.
        """
        images, clocks = [], []
        for source in sources:
            start = time.perf_counter()
            image = self.decode(source)
            decoded = time.perf_counter()
            images.append(self.prepare(image))
            clocks.append((decoded - start, time.perf_counter() - decoded))
        return self.score_prepared(np.stack(images), clocks)

    def score_prepared(
        self, batch: UInt8Array, clocks: Sequence[tuple[float, float]] | None = None
    ) -> list[Result]:
        """Score images that :meth:`prepare` brought to the model's size.

        Args:
            batch: uint8 ``[N, H, W, 3]``.
            clocks: seconds that decoding and resizing each of them took, for the timings.
        """
        state = self._state  # one read: another thread may set new ones
        start = time.perf_counter()
        scores, maps = self._session.run(["score", "anomaly_map"], {"image": batch, **state.inputs})
        end = time.perf_counter()
        results = []
        for score, anomaly_map, (decoding, scaling) in zip(
            scores.tolist(), maps, clocks or [(0.0, 0.0)] * len(batch), strict=True
        ):
            timings = {
                "decode": decoding * 1e3,
                "resize": scaling * 1e3,
                "infer": (end - start) * 1e3,
            }
            result = Result(score, state.threshold, anomaly_map, state.map_threshold, timings)
            timings["post"] = (time.perf_counter() - end) * 1e3
            results.append(result)
        return results

    def embed(self, batch: UInt8Array) -> dict[str, Float32Array]:
        """What a memory bank is built from, and the scores against the file's own normal parts.

        Args:
            batch: uint8 ``[N, H, W, 3]``, from :meth:`prepare`.

        Returns:
            float32 ``patches`` ``[N, h*w, D + 1]``, ``embedding`` ``[N, D]``, ``anomaly_map``
            ``[N, h, w]``, ``patch_score`` and ``image_score`` ``[N]``.
        """
        names = ["patches", "embedding", "anomaly_map", "patch_score", "image_score"]
        arrays = self._session.run(names, {"image": batch, **self._own})
        if arrays[0].shape[-1] == arrays[1].shape[-1]:
            # The graphs of earlier files know no rarity: then it is the same for patch and bank.
            arrays[0] = np.pad(arrays[0], ((0, 0), (0, 0), (0, 1)))
        return dict(zip(names, arrays, strict=True))

    def set_reference(
        self, reference: ReferenceModel, threshold: float, map_threshold: float
    ) -> None:
        """Score against other normal parts from now on; safe while other threads score.

        Args:
            normals: of the capacity and dimension that the file has.
            threshold: on the score that decides.
            map_threshold: on the patch score.
        """
        self._state = ScoringState(threshold, map_threshold, reference.as_inputs())

    @property
    def threshold(self) -> float:
        """The boundary in force: the file's, or that of the last :meth:`set_reference`."""
        return self._state.threshold

    def decode(self, source: str | Path | bytes | UInt8Array) -> Image.Image | UInt8Array:
        """Decode one image, at the smallest scale that serves this model, for :meth:`prepare`.

        Args:
            source: as :meth:`score` takes it; an array is given back as it is.

        Raises:
            ImageError: it cannot be decoded.
        """
        if isinstance(source, np.ndarray):
            return source
        return decode(source, at_least=(self.metadata.height, self.metadata.width))

    def prepare(self, image: Image.Image | UInt8Array) -> UInt8Array:
        """Resize what :meth:`decode` gave to the model's size: uint8 ``[H, W, 3]``."""
        return resize(image, self.metadata.height, self.metadata.width)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self._session


def _graph_key(graph: bytes) -> str:
    """Empty where the bytes are damaged: ONNX Runtime is to say in which way."""
    with contextlib.suppress(ModelFileError):
        return graph_key(graph, NORMALS)
    return ""


def _session_for(
    session_key: SessionKey, share_with: Iterable[Model]
) -> OnnxSession | TensorrtSession | None:
    """That of a loaded model which is opened in the same way; None where there is none."""
    for model in share_with:
        session: OnnxSession | TensorrtSession | None = vars(model).get("_session")
        if session is None or not session_key.graph or model.graph != session_key.graph:
            continue  # closed, or another graph
        on_engine = isinstance(session, TensorrtSession)
        if model._session_key == session_key or (
            on_engine and session_key.provider in {"auto", "tensorrt"}
        ):
            return session
    return None
