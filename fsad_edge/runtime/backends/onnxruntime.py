"""A model in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fsad_edge.errors import InputError, MissingExtraError, ModelFileError
from fsad_edge.options import MAX_THREADS, Provider, to_choice
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.backends.providers import (
    PROVIDERS,
    available,
    first_line,
    options_of,
    reason_unavailable,
)
from fsad_edge.runtime.cores import default_threads, usable_cores
from fsad_edge.runtime.documents import shorten


def import_onnxruntime() -> Any:
    """Import the ``onnxruntime`` module, whichever package brings it.

    From version 1.29 on it reports its use to its makers unless told not to. A scoring device calls
    nothing outside, so this is switched off; ``ORT_DISABLE_TELEMETRY=0`` switches it on.

    Raises:
        MissingExtraError: neither ``onnxruntime`` nor ``onnxruntime-gpu`` is installed, or it is
            broken.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingExtraError("onnxruntime", "cpu") from None
    except (ImportError, OSError) as error:  # such as a shared library that is missing
        raise MissingExtraError("onnxruntime", "cpu", broken=error) from error
    return onnxruntime


class OnnxSession:
    """One ONNX graph in ONNX Runtime.

    Args:
        graph: the serialised model.
        source: where it came from, for the sentences of errors.
        provider: ``auto`` (CUDA where it is found, else the CPU), ``cpu``, ``cuda`` or ``tensorrt``
            (ONNX Runtime's; its first load builds an engine, which takes minutes).
        threads: threads for one image; 0 takes as many as this process may use.
        strict: ``auto`` may not fall back to the CPU where ONNX Runtime is built for CUDA, and no
            part of a graph on the GPU may run on the CPU.
        side_by_side: on the CPU, score as many images at a time as there are threads, each with
            one: many images take about a fifth less time so, and a single one takes longer.

    Attributes:
        provider: ONNX Runtime's name of the provider that runs the graph.
        inputs: shapes of the inputs that must be given, by name.
        defaults: shapes of the inputs that have a default, by name.
        outputs: names of the outputs.
        threads: the threads, as they were asked for.
        workers: how many calls of :meth:`run` at a time use the processor best.
        notice: a sentence for the user where ``auto`` fell back to the CPU, and why; else None.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        InputError: the provider is not available.
        ModelFileError: ONNX Runtime cannot load the graph.
    """

    def __init__(
        self,
        graph: bytes,
        source: str,
        provider: Provider | str = Provider.AUTO,
        threads: int = 0,
        strict: bool = False,
        side_by_side: bool = False,
    ) -> None:
        ort = import_onnxruntime()
        provider = to_choice(Provider, provider, "provider")
        if not 0 <= threads <= MAX_THREADS:
            raise InputError(f"the threads are 0 to {MAX_THREADS}, not {threads}.")
        self._ort, self._graph, self._source, self.threads = ort, graph, source, threads
        self.notice: str | None = None
        self._side_by_side = side_by_side
        session = None
        auto = provider is Provider.AUTO
        # TensorRT is never chosen automatically: its first load takes minutes.
        wanted = Provider.CUDA if auto else provider
        if wanted is not Provider.CPU and (not auto or PROVIDERS[wanted] in available(ort)):
            session, reason = self._on_gpu(wanted, strict)
            if session is None and (strict or not auto):
                raise InputError(f"--provider {provider} cannot use {wanted}: {reason}.")
            if session is None:
                self.notice = (
                    f"--provider auto uses the CPU and not {wanted}: {reason}; with  --strict  "
                    "this is an error."
                )
        self._session = session or self._on_cpu()
        del self._graph
        self.provider: str = self._session.get_providers()[0]
        on_cpu = self.provider == PROVIDERS[Provider.CPU]
        self.workers = (threads or usable_cores()) if side_by_side and on_cpu else 1
        self.inputs: dict[str, list[Any]] = {
            value.name: value.shape for value in self._session.get_inputs()
        }
        self.defaults: dict[str, list[Any]] = {
            value.name: value.shape for value in self._session.get_overridable_initializers()
        }
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]

    def _on_gpu(self, provider: Provider, strict: bool) -> tuple[Any, str]:
        """A session and an empty text, or None and why there is none."""
        if PROVIDERS[provider] not in available(self._ort):
            return None, reason_unavailable(self._ort, provider)
        try:
            session = self._open(provider, strict)
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            return None, first_line(error)
        # ONNX Runtime drops a provider whose libraries are missing, with nothing but a log line.
        if session.get_providers()[0] != PROVIDERS[provider]:
            return None, reason_unavailable(self._ort, provider)
        return session, ""

    def _on_cpu(self) -> Any:
        try:
            return self._open(Provider.CPU, strict=False)
        except Exception as error:
            raise ModelFileError(
                f"{self._source} is not a model ONNX Runtime can load "
                f"({shorten(first_line(error))}): export it again."
            ) from error

    def _open(self, provider: Provider, strict: bool) -> Any:
        options = self._ort.SessionOptions()
        one_each = self._side_by_side and provider is Provider.CPU
        options.intra_op_num_threads = 1 if one_each else self.threads or default_threads()
        # Errors are raised; without this they would be printed, too.
        options.log_severity_level = 4
        # Threads that go on spinning after a run, for 50 ms and more, take the cores from decoding
        # and from other models, and keep an idle device warm. Within a run they may spin.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if strict:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        given = [(PROVIDERS[provider], options_of(provider, self._graph, self._source))]
        # Otherwise ONNX Runtime would fall back by itself, and print so on standard output.
        return self._ort.InferenceSession(self._graph, options, providers=given, enable_fallback=0)

    def run(self, outputs: list[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        """Run the graph once.

        Args:
            outputs: names of the outputs to compute.
            feeds: the inputs by name.

        Returns:
            The outputs, in the order of their names.

        Raises:
            ModelFileError: ONNX Runtime cannot run the graph on these inputs.
        """
        try:
            arrays: list[Float32Array] = self._session.run(outputs, dict(feeds))
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            raise ModelFileError(
                f"{self._source} cannot be run by ONNX Runtime ({shorten(first_line(error))}): "
                "export it again."
            ) from error
        return arrays
