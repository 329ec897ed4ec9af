"""The text of Triton's ``config.pbtxt``: a ``ModelConfig`` in protocol buffers' text format.

Its shapes do not include the batch dimension, and no shape may be empty: a score, one number for
each image, is declared as a vector of length one and reshaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsad_edge.deploy.batch_sizes import BatchSizes
from fsad_edge.errors import ModelFileError
from fsad_edge.options import TritonDevice
from fsad_edge.runtime.backends.onnxruntime import import_onnxruntime

#: The outputs that clients can ask for. Triton's backend copies all of these for every request:
#: ``patches``, from which memory banks are built, is a hundred times as large as all the others.
OUTPUTS = ("score", "anomaly_map", "image_score")

#: Microseconds that a request may wait for others to form a batch, on devices where batches help.
QUEUE_DELAY_US = 500

_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}

_INSTANCE_KINDS = {
    TritonDevice.CPU: "KIND_CPU",
    TritonDevice.GPU: "KIND_GPU",
    TritonDevice.TENSORRT: "KIND_GPU",
}


@dataclass(frozen=True)
class TritonOptions:
    """How Triton runs a model. The options are used for the model's first version only.

    Attributes:
        batch: smallest, preferred and largest number of images in a run.
        device: what the model runs on.
    """

    batch: BatchSizes = (1, 8, 8)
    device: TritonDevice = TritonDevice.AUTO


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph whose first dimension is the batch.

    Attributes:
        name: name of the tensor.
        type: Triton's name of the type.
        dims: shape without the batch dimension; -1 stands for a free dimension.
    """

    name: str
    type: str
    dims: tuple[int, ...]


def read_tensors(data: bytes, source: str) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and the offered outputs of a file, as ONNX Runtime reports them.

    Inputs with a default (the reference model) are left out: Triton treats an input that its
    configuration does not name as a part of the model.

    Args:
        data: the bytes of an ONNX file.
        source: where they came from, for error sentences.

    Raises:
        ModelFileError: the batch dimension of a tensor is not free, or its type is unknown.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
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


def make_configuration(
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    options: TritonOptions,
    warmups: list[str],
) -> str:
    """The text of a ``config.pbtxt``, without parameters.

    Args:
        name: the model's name.
        inputs: the inputs of the graph.
        outputs: the outputs that clients can ask for.
        options: how Triton runs the model.
        warmups: names of files in ``warmup/``, each with the bytes of one image.
    """
    largest = options.batch[2]
    # On a CPU a batch of two takes twice as long as one image, so that waiting gains nothing.
    delay = 0 if options.device == TritonDevice.CPU else QUEUE_DELAY_US
    text = (
        "# Written by  fsad-edge triton . You may edit this file: a later version appends its\n"
        "# parameters and changes nothing else.\n"
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        'default_model_filename: "model.onnx"\n'
        f"max_batch_size: {largest}\n"
    )
    for tensor in inputs:
        text += f"input [ {{ {_declaration(tensor)} }} ]\n"
    text += "".join(map(output_line, outputs))
    text += (
        f"dynamic_batching {{ preferred_batch_size: [ {options.batch[1]} ] "
        f"max_queue_delay_microseconds: {delay} }}\n"
        "version_policy { latest { num_versions: 1 } }\n"
    )
    text += _placement(options, inputs[0])
    for place, file in enumerate(warmups):
        text += _warmup(f"golden {place}", 1, inputs[0], f'input_data_file: "{file}"')
    if not warmups:
        text += _warmup("zeros", 1, inputs[0], "zero_data: true")
    if largest > 1:  # kernels are chosen for each shape
        data = f'input_data_file: "{warmups[0]}"' if warmups else "zero_data: true"
        text += _warmup("full batch", largest, inputs[0], data)
    return text


def output_line(tensor: Tensor) -> str:
    """The line of one output."""
    return f"output [ {{ {_declaration(tensor)} }} ]\n"


def _declaration(tensor: Tensor) -> str:
    """Name, type and shape. Triton has no scalars: an image's score is a vector of length one."""
    image = " format: FORMAT_NHWC" if len(tensor.dims) == 3 and tensor.dims[-1] == 3 else ""
    reshape = "" if tensor.dims else " reshape { shape: [ ] }"
    return (
        f'name: "{tensor.name}" data_type: {tensor.type}{image} '
        f"dims: {_dims(tensor.dims or (1,))}{reshape}"
    )


def _dims(dims: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, dims))} ]"


def _placement(options: TritonOptions, image: Tensor) -> str:
    """The device, and the execution providers of ONNX Runtime."""
    text = ""
    if options.device in _INSTANCE_KINDS:
        text += f"instance_group [ {{ count: 1 kind: {_INSTANCE_KINDS[options.device]} }} ]\n"
    if options.device == TritonDevice.CPU:
        return text
    accelerators = []
    if options.device == TritonDevice.TENSORRT:
        shape = "x".join(map(str, image.dims))
        # Without a profile each new batch size builds another engine, which takes minutes.
        profile = "".join(
            f'parameters {{ key: "trt_profile_{end}_shapes" '
            f'value: "{image.name}:{size}x{shape}" }} '
            for end, size in zip(("min", "opt", "max"), options.batch, strict=True)
        )
        accelerators.append(f'{{ name: "tensorrt" {profile}}}')
    # A distance is a difference of numbers near one, of which TF32 keeps three digits.
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


def parameter_line(key: str, value: str) -> str:
    """The line of one parameter, in printable ASCII."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in value.encode("utf-8", "replace")
    )
    return f'parameters {{ key: "{key}" value {{ string_value: "{escaped}" }} }}\n'
