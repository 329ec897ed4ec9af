"""Time the candidates in ONNX Runtime, interleaved with the teacher cut after its stride-16 map.

python candidates.py --teacher local-dir:TEACHER --out candidates.json
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import timm
import torch
from networks import CANDIDATES
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import (
    quant_pre_process,
)
from torch import Tensor, nn


class Cut(nn.Module):
    """A timm network that is cut after one of its feature levels and returns that map."""

    def __init__(self, name: str, level: int, pretrained: bool = True) -> None:
        super().__init__()
        self.net = timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(level,), exportable=True
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, 3, H, W], normalised -> float [N, C, h, w]."""
        out: Tensor = self.net(x)[0]
        return out

    def input_stats(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of pixels in [0, 1] that the weights expect."""
        config: dict[str, Any] = vars(self.net)["pretrained_cfg"]
        return list(config["mean"]), list(config["std"])

    def shape(self) -> tuple[int, int]:
        """Channels and stride of the map."""
        info: Any = vars(self.net)["feature_info"]
        return int(info.channels()[0]), int(info.reduction()[0])


class Noise(CalibrationDataReader):  # type: ignore[misc]
    """Random images for calibration, whose ranges do not matter because only time is measured."""

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(0)
        self.items: Iterator[dict[str, Any]] = iter(
            [{"x": rng.normal(size=(1, 3, size, size)).astype(np.float32)} for _ in range(3)]
        )

    def get_next(self) -> dict[str, Any] | None:
        """One input, or None after the last."""
        return next(self.items, None)


def export(net: nn.Module, path: Path, size: int, dynamic: bool = False) -> None:
    """Write `net` as ONNX with input `x` float [1 or N, 3, size, size]."""
    axes = {"x": {0: "n"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(),
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=False,
            input_names=["x"],
            opset_version=17,
            dynamic_axes=axes,
        )


def session(path: Path, threads: int) -> ort.InferenceSession:
    """A CPU session with a fixed number of threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def quantise(path: Path, size: int) -> Path:
    """Write an int8 Q/DQ graph, per channel, of the graph at `path`; returns the new file."""
    prepared, out = path.with_suffix(".pre.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out),
        Noise(size),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return out


def count_operations(path: Path) -> tuple[int, int]:
    """Parameters and multiply-accumulates of the convolutions in an ONNX file, for one image.

    The constants of the graph must be folded, so that nothing after the cut is counted.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    weights = {w.name: list(w.dims) for w in model.graph.initializer}
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.output)
    }
    parameters, total = 0, 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            sizes = [math.prod(weights[name]) for name in node.input[1:]]
            parameters += sum(sizes)
            total += sizes[0] * math.prod(shapes[node.output[0]][2:])
    return parameters, total


def measure(sessions: dict[str, ort.InferenceSession], size: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each session, in blocks of 8 runs, in a new order every round.

    There is a pause between blocks, because ONNX Runtime's threads spin for a while after a run and
    would slow the next session on two cores.
    """
    x = np.random.default_rng(1).normal(size=(1, 3, size, size)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name in random.sample(list(sessions), len(sessions)):
            time.sleep(0.05)
            for _ in range(8):
                start = time.perf_counter()
                sessions[name].run(None, {"x": x})
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--teacher", required=True, help="timm name, e.g. local-dir:FOLDER")
    parser.add_argument("--level", type=int, default=3, help="feature level of the teacher")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--nets", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    random.seed(0)
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {"teacher": Cut(args.teacher, args.level)}
    for name in args.nets:
        nets[name] = CANDIDATES[name]().eval().fold()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, net in nets.items():
            path = Path(folder) / f"{name}.onnx"
            export(net, path, args.size)
            sessions[name] = session(path, args.threads)
            sessions[f"{name}/int8"] = session(quantise(path, args.size), args.threads)
            parameters, total = count_operations(path.with_suffix(".pre.onnx"))
            rows[name] = {"parameters": parameters, "mmac": round(total / 1e6, 1)}
            rows[name]["mb_fp16"] = round(2 * parameters / 1e6, 2)
        medians = measure(sessions, args.size, args.rounds)
    for name, row in rows.items():
        row["ms_fp32"] = round(medians[name], 3)
        row["ms_int8"] = round(medians[f"{name}/int8"], 3)
        row["ratio_fp32"] = round(medians["teacher"] / medians[name], 2)
        row["ratio_int8"] = round(medians["teacher"] / medians[f"{name}/int8"], 2)
        print(name, row)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
