"""Time anomalib's PatchCore from photographs to a score. Runs in the peers' environment.

    PEERS_PYTHON -m benchmarks.peers.finetune JOB.json OUT.npz

JOB: ``shots`` (a folder of photographs), ``threads``. The network is a resnet18 of random weights,
on whose values the time does not depend. All else is anomalib's default: images of 256 pixels,
layers 2 and 3, a coreset of a tenth.

OUT, seconds: ``imports``, ``fit``, ``export`` (ONNX) and ``first score`` in ONNX Runtime.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.__main__ import answer

KEYS = ("shots", "threads")

#: Side of the input, pixels: anomalib's default.
SIDE = 256


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The seconds of each step."""
    clock = _Clock()
    import numpy as np
    import onnxruntime
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore
    from PIL import Image

    clock.take("imports")
    torch.set_num_threads(job["threads"])
    shots = Path(job["shots"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Patchcore(backbone="resnet18", pre_trained=False, evaluator=False, visualizer=False)
        data = Folder(
            name="finetune",
            root=shots.parent,
            normal_dir=shots.name,
            normal_test_dir=shots.name,
            val_split_mode="same_as_test",
            train_batch_size=8,
            num_workers=0,
        )
        engine = Engine(
            default_root_dir=folder,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        engine.fit(model=model, datamodule=data)
        clock.take("fit")
        file = engine.export(
            model=model, export_type="onnx", export_root=folder, input_size=(SIDE, SIDE)
        )
        clock.take("export")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        entry = session.get_inputs()[0]
        # What the exporter left open is one image of the default size.
        free = zip(entry.shape, (1, 3, SIDE, SIDE), strict=True)
        count, _, height, width = (side if isinstance(side, int) else own for side, own in free)
        with Image.open(min(shots.iterdir())) as image:
            pixels = np.asarray(image.convert("RGB").resize((width, height)), np.float32) / 255
        batch = np.repeat(pixels.transpose(2, 0, 1)[None], count, axis=0)
        session.run(None, {entry.name: batch})
        clock.take("first score")
    return dict(clock.seconds)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def take(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self._last = now - self._last, now


if __name__ == "__main__":
    answer(KEYS, run)
