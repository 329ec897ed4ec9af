"""The text of Triton's ``config.pbtxt``: a ``ModelConfig`` in protocol buffers' text format.

Its shapes leave the batch's dimension out, and no shape is empty: a score, one number an image, is
a vector of one that is reshaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime

#: Outputs that are offered. Triton's backend copies each of these for every request, asked for or
#: not: ``patches``, from which memory banks are made, would be a hundred times all the others.
OUTPUTS = ("score", "anomaly_map")

#: Where a model runs: ``auto`` leaves it to Triton, which takes the GPUs it finds.
DEVICES = ("auto", "cpu", "gpu", "tensorrt")

#: How long a request may wait for others to make a batch with, where batches pay.
QUEUE_DELAY_US = 500

_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}


@dataclass(frozen=True)
class TritonOptions:
    """How Triton shall run a model; for its first version.

    Attributes:
        batch: smallest, preferred and largest number of images in a run.
        device: one of ``DEVICES``.
    """

    batch: tuple[int, int, int] = (1, 8, 8)
    device: str = "auto"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph whose first dimension is the batch's.

    Attributes:
        name: of it.
        type: by Triton's name.
        dims: without the batch's.
    """

    name: str
    type: str
    dims: tuple[int, ...]


def tensors(data: bytes, source: str) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and offered outputs of a file, as ONNX Runtime tells them.

    Inputs with a default, the normal parts, are left out: Triton takes them for part of the model
    where its configuration does not name them.

    Raises:
        ModelFileError: it is no graph whose first dimension is free, or not of known types.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own types are private to its C extension
        raise ModelFileError(f"{source} is not a model ONNX Runtime can load.") from error

    def read(values: list[object]) -> list[Tensor]:
        found = []
        for value in values:
            name, kind, shape = (getattr(value, key) for key in ("name", "type", "shape"))
            if kind not in _TYPES or not shape or isinstance(shape[0], int):
                raise ModelFileError(
                    f"{source} has a tensor '{name}' of {kind} {shape}, which Triton cannot make "
                    "batches of: export it again."
                )
            dims = tuple(side if isinstance(side, int) else -1 for side in shape[1:])
            found.append(Tensor(name, _TYPES[kind], dims))
        return found

    offered = {value.name: value for value in session.get_outputs()}
    missing = [name for name in OUTPUTS if name not in offered]
    if missing:
        raise ModelFileError(f"{source} has no output '{missing[0]}': export it again.")
    return read(session.get_inputs()), read([offered[name] for name in OUTPUTS])


def configuration(
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    options: TritonOptions,
    warmups: list[str],
) -> str:
    """A ``config.pbtxt``, without parameters.

    Args:
        name: of the model.
        inputs: of the graph.
        outputs: that are offered.
        options: how to run it.
        warmups: files in ``warmup/``, each the bytes of one image.
    """
    largest = options.batch[2]
    # On a CPU a batch of two takes twice as long as one: nothing is worth waiting for.
    delay = 0 if options.device == "cpu" else QUEUE_DELAY_US
    text = (
        "# Written by  fsad-edge export --triton ; yours from now on. A later version adds its\n"
        "# parameters at the end and changes nothing else.\n"
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        'default_model_filename: "model.onnx"\n'
        f"max_batch_size: {largest}\n"
    )
    for tensor in inputs:
        text += f"input [ {{ {_described(tensor)} }} ]\n"
    for tensor in outputs:
        text += f"output [ {{ {_described(tensor)} }} ]\n"
    text += (
        f"dynamic_batching {{ preferred_batch_size: [ {options.batch[1]} ] "
        f"max_queue_delay_microseconds: {delay} }}\n"
        "version_policy { latest { num_versions: 1 } }\n"
    )
    text += _placed(options, inputs[0])
    for place, file in enumerate(warmups):
        text += _warmup(f"golden {place}", 1, inputs[0], f'input_data_file: "{file}"')
    if not warmups:
        text += _warmup("zeros", 1, inputs[0], "zero_data: true")
    if largest > 1:  # kernels are chosen for a shape
        data = f'input_data_file: "{warmups[0]}"' if warmups else "zero_data: true"
        text += _warmup("full batch", largest, inputs[0], data)
    return text


def _described(tensor: Tensor) -> str:
    """Name, type and dimensions. Triton knows no scalars: an image's score is a vector of one."""
    image = " format: FORMAT_NHWC" if len(tensor.dims) == 3 and tensor.dims[-1] == 3 else ""
    reshape = "" if tensor.dims else " reshape { shape: [ ] }"
    return (
        f'name: "{tensor.name}" data_type: {tensor.type}{image} '
        f"dims: {_dims(tensor.dims or (1,))}{reshape}"
    )


def _dims(dims: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, dims))} ]"


def _placed(options: TritonOptions, image: Tensor) -> str:
    """Where it runs, and with which of ONNX Runtime's providers."""
    kinds = {"cpu": "KIND_CPU", "gpu": "KIND_GPU", "tensorrt": "KIND_GPU"}
    text = ""
    if options.device in kinds:
        text += f"instance_group [ {{ count: 1 kind: {kinds[options.device]} }} ]\n"
    if options.device == "cpu":
        return text
    accelerators = []
    if options.device == "tensorrt":
        shape = "x".join(map(str, image.dims))
        # Else a batch of another size builds another engine, for minutes.
        profile = "".join(
            f'parameters {{ key: "trt_profile_{end}_shapes" '
            f'value: "{image.name}:{size}x{shape}" }} '
            for end, size in zip(("min", "opt", "max"), options.batch, strict=True)
        )
        accelerators.append(f'{{ name: "tensorrt" {profile}}}')
    # A distance is a difference of numbers near one: TF32 keeps three digits of these.
    accelerators.append('{ name: "cuda" parameters { key: "use_tf32" value: "0" } }')
    return text + (
        "optimization { execution_accelerators { gpu_execution_accelerator: [\n  "
        + ",\n  ".join(accelerators)
        + "\n] } }\n"
    )


def _warmup(title: str, batch: int, image: Tensor, data: str) -> str:
    return (
        f'model_warmup {{ name: "{title}" batch_size: {batch} count: 1 inputs {{ '
        f'key: "{image.name}" value {{ data_type: {image.type} dims: {_dims(image.dims)} '
        f"{data} }} }} }}\n"
    )


def parameter(key: str, value: str) -> str:
    """A line of its own, its text in printable ASCII."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in value.encode("utf-8", "replace")
    )
    return f'parameters {{ key: "{key}" value {{ string_value: "{escaped}" }} }}\n'
