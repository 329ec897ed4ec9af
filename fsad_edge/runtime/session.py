"""ONNX Runtime behind one small class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import InputError, MissingExtraError, ModelFileError

if TYPE_CHECKING:
    import onnxruntime

#: Names a user gives to ONNX Runtime's providers.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def import_onnxruntime() -> Any:
    """The ``onnxruntime`` module, whichever package brings it.

    Raises:
        MissingExtraError: neither ``onnxruntime`` nor ``onnxruntime-gpu`` is installed.
    """
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
        provider: ``auto`` (CUDA where it is found, else the CPU), ``cpu`` or ``cuda``.
        threads: for one image; 0 leaves the choice to ONNX Runtime.

    Attributes:
        provider: what was got, by ONNX Runtime's name.
        metadata: the file's own key-value pairs.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        InputError: the provider is not to be had.
        ModelFileError: ONNX Runtime does not take the graph.
    """

    def __init__(self, graph: bytes, source: str, provider: str = "auto", threads: int = 0) -> None:
        ort = import_onnxruntime()
        available: list[str] = ort.get_available_providers()
        if provider not in {"auto", *PROVIDERS}:
            known = ", ".join(["auto", *PROVIDERS])
            raise InputError(f"there is no provider '{provider}': take one of {known}.")
        if provider == "auto":
            wanted = [name for name in reversed(PROVIDERS.values()) if name in available]
        else:
            wanted = [PROVIDERS[provider]]
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session: onnxruntime.InferenceSession = ort.InferenceSession(
                graph, options, providers=wanted
            )
        except Exception as error:  # ONNX Runtime's own types are private to its C extension
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelFileError(
                f"{source} is not a model ONNX Runtime can load ({reason})."
            ) from error
        self.provider: str = self._session.get_providers()[0]
        # A provider whose libraries are missing is dropped by ONNX Runtime with a log line only.
        if provider != "auto" and self.provider != PROVIDERS[provider]:
            raise InputError(
                f"--provider {provider} was asked for and ONNX Runtime gave {self.provider}: "
                "see  fsad-edge doctor  for what is missing."
            )
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.inputs: dict[str, list[Any]] = {
            value.name: value.shape for value in self._session.get_inputs()
        }
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]

    def run(
        self, outputs: list[str], feeds: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[np.float32]]:
        """Run the graph once; the named outputs, in the order asked for."""
        arrays: list[npt.NDArray[np.float32]] = self._session.run(outputs, dict(feeds))
        return arrays
