"""A model in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fsad_edge.errors import InputError, MissingExtraError, ModelFileError
from fsad_edge.options import MAX_THREADS, Precision, Provider, to_choice
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.backends.batch_sizes import USUAL_MOST, batch_sizes
from fsad_edge.runtime.backends.fixed_sizes import FixedSizes
from fsad_edge.runtime.backends.memory import FEWER_IMAGES, is_out_of_memory
from fsad_edge.runtime.backends.providers import (
    PROVIDERS,
    available,
    batch_profile,
    first_line,
    options_of,
    reason_unavailable,
)
from fsad_edge.runtime.cores import default_threads, usable_cores
from fsad_edge.runtime.documents import shorten
from fsad_edge.runtime.where_fast import INT8_CPU, why_slow


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
        provider: ``auto`` (CUDA where it is found and fast for this precision, else the CPU),
            ``cpu``, ``cuda`` or ``tensorrt`` (ONNX Runtime's; its first load builds an engine,
            which takes minutes).
        threads: threads for one image; 0 takes as many as this process may use.
        strict: ``auto`` may not fall back to the CPU where ONNX Runtime is built for CUDA, and no
            part of a graph on the GPU may run on the CPU.
        side_by_side: on the CPU, score as many images at a time as there are threads, each with
            one: many images take about a fifth less time so, and a single one takes longer.
        precision: the number format of the graph, as its file names it.
        max_batch: on a GPU, the most images in one run; 0 takes 8. The graph is run in the batch
            sizes 1, 2, 4 ... up to it: images are padded to the next one, and more go in pieces.
        fixed_sizes: run the graph so on the CPU, too, where any size takes no longer.

    Attributes:
        provider: ONNX Runtime's name of the provider that runs the graph.
        inputs: shapes of the inputs that must be given, by name.
        defaults: shapes of the inputs that have a default, by name.
        outputs: names of the outputs.
        threads: the threads, as they were asked for.
        workers: how many calls of :meth:`run` at a time use the processor best.

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
        precision: str = Precision.FP32,
        max_batch: int = 0,
        fixed_sizes: bool = False,
    ) -> None:
        ort = import_onnxruntime()
        provider = to_choice(Provider, provider, "provider")
        if not 0 <= threads <= MAX_THREADS:
            raise InputError(f"the threads are 0 to {MAX_THREADS}, not {threads}.")
        self._ort, self._source, self.threads = ort, source, threads
        self._notice: str | None = None
        self._sizes, self._on_any = batch_sizes(max_batch or USUAL_MOST), fixed_sizes
        self._fixed: FixedSizes | None = None
        opener = _Opener(ort, graph, source, threads or default_threads(), strict, side_by_side)
        if not self._take_gpu(opener, provider, precision):
            self._take_cpu(opener)
            if (slow := why_slow(precision, Provider.CPU)) is not None:
                self._notice = " ".join(filter(None, [self._notice, f"{source} {slow}."]))
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

    @property
    def notice(self) -> str | None:
        """What the user should be told: why ``auto`` uses the CPU, or why the GPU takes longer."""
        texts = [self._notice, self._fixed.notice if self._fixed else None]
        return " ".join(text for text in texts if text is not None) or None

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The batch sizes that the graph is run in; None for any."""
        return self._fixed.sizes if self._fixed else None

    def prepare(self) -> None:
        """Prepare every batch size, so that no later run takes longer for being the first."""
        if self._fixed is not None:
            self._fixed.prepare()

    def _take_gpu(self, opener: _Opener, provider: Provider, precision: str) -> bool:
        """Open the graph on the GPU where that is asked for, or is possible and fast.

        Raises:
            InputError: it was asked for, and is not possible, or slow with ``strict``.
        """
        auto = provider is Provider.AUTO
        # TensorRT is never chosen automatically: its first load takes minutes.
        wanted = Provider.CUDA if auto else provider
        if wanted is Provider.CPU or (auto and PROVIDERS[wanted] not in available(self._ort)):
            return False
        slow = why_slow(precision, wanted)
        if slow is not None:
            if opener.strict:
                raise InputError(f"--strict refuses {wanted}: {self._source} {slow}.")
            to_cpu = auto and precision == INT8_CPU
            self._notice = f"{self._source} {slow}" + (
                ": --provider auto uses the CPU." if to_cpu else f": {wanted} takes longer."
            )
            if to_cpu:
                return False
        reason = self._open_on_gpu(opener, wanted)
        if reason and (opener.strict or not auto):
            raise InputError(f"--provider {provider} cannot use {wanted}: {reason}.")
        if reason:
            self._notice = (
                f"--provider auto uses the CPU and not {wanted}: {reason}; with  --strict  "
                "this is an error."
            )
        return not reason

    def _open_on_gpu(self, opener: _Opener, provider: Provider) -> str:
        """Open the graph on the GPU; why that is not possible, or an empty text."""
        if PROVIDERS[provider] not in available(self._ort):
            return reason_unavailable(self._ort, provider)
        try:
            if provider is Provider.CUDA:
                self._take_sizes(opener.graph, opener.on_cuda, "cuda", capture=True)
            else:
                # TensorRT's one engine takes all sizes, and two would overwrite each other's files.
                session = opener.on_tensorrt(self._sizes[-1])
                self._take_sizes(opener.graph, lambda _: session, "cuda", capture=False)
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            return first_line(error)
        return ""

    def _take_cpu(self, opener: _Opener) -> None:
        try:
            if self._on_any:
                self._take_sizes(opener.graph, lambda _: opener.on_cpu(), "cpu", capture=False)
            else:
                self._session = opener.on_cpu()
        except Exception as error:
            raise ModelFileError(
                f"{self._source} is not a model ONNX Runtime can load "
                f"({shorten(first_line(error))}): export it again."
            ) from error

    def _take_sizes(
        self, graph: bytes, open_session: Callable[[bool], Any], device: str, capture: bool
    ) -> None:
        sizes = self._sizes
        self._fixed = FixedSizes(self._ort, graph, open_session, sizes, device, capture)
        self._session = self._fixed.session

    def run(self, outputs: list[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        """Run the graph once.

        Args:
            outputs: names of the outputs to compute.
            feeds: the inputs by name. Arrays of a reference model must not change afterwards: one
                that is on a GPU already is not copied again.

        Returns:
            The outputs, in the order of their names.

        Raises:
            InputError: there is not enough memory for so many images.
            ModelFileError: ONNX Runtime cannot run the graph on these inputs.
        """
        try:
            if self._fixed is not None:
                return self._fixed.run(outputs, feeds)
            arrays: list[Float32Array] = self._session.run(outputs, dict(feeds))
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            if is_out_of_memory(error):
                raise InputError(
                    f"there is not enough memory for {len(feeds['image'])} images in one run of "
                    f"{self._source} ({shorten(first_line(error))}): {FEWER_IMAGES}."
                ) from error
            raise ModelFileError(
                f"{self._source} cannot be run by ONNX Runtime ({shorten(first_line(error))}): "
                "export it again."
            ) from error
        return arrays


@dataclass(frozen=True)
class _Opener:
    """Opens sessions of one graph.

    Attributes:
        ort: the module ``onnxruntime``.
        graph: the serialised model.
        source: where it came from.
        threads: threads of a session.
        strict: no part of a graph on the GPU may run on the CPU.
        side_by_side: on the CPU, an image has one thread.
    """

    ort: Any
    graph: bytes
    source: str
    threads: int
    strict: bool
    side_by_side: bool

    def on_cpu(self) -> Any:
        """A session on the CPU."""
        return self._open(Provider.CPU, {})

    def on_cuda(self, capture: bool) -> Any:
        """A session on CUDA, whose runs are captured as a CUDA graph, or are not."""
        return self._open_on_gpu(Provider.CUDA, {"enable_cuda_graph": str(int(capture))})

    def on_tensorrt(self, most: int) -> Any:
        """A session in ONNX Runtime's TensorRT, for at most so many images at once."""
        return self._open_on_gpu(Provider.TENSORRT, batch_profile(self.graph, most))

    def _open_on_gpu(self, provider: Provider, further: dict[str, str]) -> Any:
        session = self._open(provider, further)
        # ONNX Runtime drops a provider whose libraries are missing, with nothing but a log line.
        if session.get_providers()[0] != PROVIDERS[provider]:
            raise InputError(reason_unavailable(self.ort, provider))
        return session

    def _open(self, provider: Provider, further: dict[str, str]) -> Any:
        options = self.ort.SessionOptions()
        one_each = self.side_by_side and provider is Provider.CPU
        options.intra_op_num_threads = 1 if one_each else self.threads
        # Errors are raised; without this they would be printed, too.
        options.log_severity_level = 4
        # Threads that go on spinning after a run, for 50 ms and more, take the cores from decoding
        # and from other models, and keep an idle device warm. Within a run they may spin.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self.strict and provider is not Provider.CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        given = [(PROVIDERS[provider], {**options_of(provider, self.source), **further})]
        # Otherwise ONNX Runtime would fall back by itself, and print so on standard output.
        return self.ort.InferenceSession(self.graph, options, providers=given, enable_fallback=0)
