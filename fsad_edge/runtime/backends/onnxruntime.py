"""ONNX Runtime behind one small class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError, MissingExtraError, ModelFileError
from fsad_edge.options import Provider, to_choice
from fsad_edge.runtime.backends.providers import (
    PROVIDERS,
    available,
    first_line,
    options_of,
    why_not,
)


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module, whichever package brings it.

    From 1.29 on it reports its use to its makers, from a thread and a file of its own, unless told
    not to: a scoring device asks for nothing outside. ``ORT_DISABLE_TELEMETRY=0`` lets it.

    Raises:
        MissingExtraError: neither ``onnxruntime`` nor ``onnxruntime-gpu`` is installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    return onnxruntime


class OnnxSession:
    """One ONNX graph in ONNX Runtime.

    Args:
        graph: the serialised model.
        source: where it came from, for error sentences.
        provider: ``auto`` (CUDA where it is found, else the CPU), ``cpu``, ``cuda`` or ``tensorrt``
            (ONNX Runtime's; its first load builds an engine, which takes minutes).
        threads: for one image; 0 leaves the choice to ONNX Runtime.
        strict: ``auto`` may not fall back to the CPU where ONNX Runtime is built for CUDA, and of a
            graph on the GPU no part may run on the CPU.

    Attributes:
        provider: what was got, by ONNX Runtime's name.
        inputs: shapes of those that must be given, by name.
        defaults: shapes of those that have a default.
        outputs: their names.
        notice: a sentence for the user where ``auto`` fell back to the CPU, and why; else None.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        InputError: the provider is not to be had.
        ModelFileError: ONNX Runtime does not take the graph.
    """

    def __init__(
        self,
        graph: bytes,
        source: str,
        provider: Provider | str = Provider.AUTO,
        threads: int = 0,
        strict: bool = False,
    ) -> None:
        ort = import_onnxruntime()
        provider = to_choice(Provider, provider, "provider")
        self._ort, self._graph, self._source, self._threads = ort, graph, source, threads
        self.notice: str | None = None
        session = None
        # TensorRT has to be asked for: it takes minutes.
        wanted = "cuda" if provider == "auto" else provider
        if wanted != "cpu" and (provider != "auto" or PROVIDERS[wanted] in available(ort)):
            session, reason = self._on_gpu(wanted, strict)
            if session is None and (provider != "auto" or strict):
                raise InputError(f"--provider {provider} cannot have {wanted}: {reason}.")
            if session is None:
                self.notice = (
                    f"--provider auto took the CPU and not {wanted}: {reason}; "
                    "--strict  refuses to."
                )
        self._session = session or self._on_cpu()
        del self._graph
        self.provider: str = self._session.get_providers()[0]
        self.inputs: dict[str, list[Any]] = {
            value.name: value.shape for value in self._session.get_inputs()
        }
        self.defaults: dict[str, list[Any]] = {
            value.name: value.shape for value in self._session.get_overridable_initializers()
        }
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]

    def _on_gpu(self, provider: str, strict: bool) -> tuple[Any, str]:
        """A session and nothing, or None and why it is not to be had."""
        if PROVIDERS[provider] not in available(self._ort):
            return None, why_not(self._ort, provider)
        try:
            session = self._open(provider, strict)
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            return None, first_line(error)
        # A provider whose libraries are missing is dropped by ONNX Runtime with a log line only.
        if session.get_providers()[0] != PROVIDERS[provider]:
            return None, why_not(self._ort, provider)
        return session, ""

    def _on_cpu(self) -> Any:
        try:
            return self._open("cpu", strict=False)
        except Exception as error:
            raise ModelFileError(
                f"{self._source} is not a model ONNX Runtime can load ({first_line(error)})."
            ) from error

    def _open(self, provider: str, strict: bool) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Threads that spin after a run for the next one, for 50 ms and more, take the cores from
        # decoding and from other models, and keep an idle device warm. Within a run they may.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if strict:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        given = [(PROVIDERS[provider], options_of(provider, self._graph, self._source))]
        # ONNX Runtime would else fall back by itself, and print so on standard output.
        return self._ort.InferenceSession(self._graph, options, providers=given, enable_fallback=0)

    def run(
        self, outputs: list[str], feeds: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float32]]:
        """Run the graph once; the named outputs, in the order asked for."""
        arrays: list[npt.NDArray[np.float32]] = self._session.run(outputs, dict(feeds))
        return arrays
