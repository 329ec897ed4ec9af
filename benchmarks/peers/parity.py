"""anomalib's PatchCore before and after its own export. Runs in the peers' environment.

    PEERS_PYTHON -m benchmarks.peers.parity JOB.json OUT.npz

JOB: ``shots``, ``good`` and ``defect`` (lists of image files: to fit, and to set its threshold as
its Engine does), ``test`` (image files to score), ``weights``, ``size``, ``seed``, ``threads`` as
for ``benchmarks.peers``.

OUT, float32 ``[N]`` each in the order of ``test``:

- ``before``: as ``Engine.predict`` scores the files;
- ``after``: as what ``Engine.export`` writes (ONNX, any height and width, its default) scores them;
- ``after_resized``: the exported model fed with what ``Engine.predict``'s own resize makes of them;

and ``threshold``, float, on all three; ``batch``, how many images at once the exported file takes
(1 where it takes any number); and the versions ``anomalib`` and ``torch``.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers.__main__ import answer

KEYS = ("shots", "good", "defect", "test", "weights", "size", "seed", "threads")


def run(job: dict[str, Any]) -> dict[str, Any]:
    """The arrays of OUT for a JOB, see above."""
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    with tempfile.TemporaryDirectory() as folder:
        return _compare(job, Path(folder))


def _compare(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    import numpy as np
    import onnxruntime
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from anomalib.models import Patchcore
    from anomalib.pre_processing import PreProcessor
    from PIL import Image
    from torchvision.transforms.v2 import Compose, Normalize, Resize
    from torchvision.transforms.v2.functional import to_dtype, to_image

    from benchmarks.peers.images import pretrained_config
    from benchmarks.peers.models import CORESET, LAYERS, NEIGHBOURS

    for key in ("shots", "good", "defect", "test"):
        _link(folder / key, job[key])
    # As Patchcore.configure_pre_processor does it, with the mean and std of these weights.
    config = pretrained_config(Path(job["weights"]))
    resize = Resize((job["size"], job["size"]), antialias=True)
    pixels = PreProcessor(Compose([resize, Normalize(config["mean"], config["std"])]))
    model = Patchcore(
        backbone=f"local-dir:{job['weights']}",
        layers=LAYERS,
        coreset_sampling_ratio=CORESET,
        num_neighbors=NEIGHBOURS,
        pre_processor=pixels,
        evaluator=False,
        visualizer=False,
    )
    engine = Engine(
        default_root_dir=folder / "results",
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Folder(
        name="parity",
        root=folder,
        normal_dir="shots",
        normal_test_dir="good",
        abnormal_dir="defect",
        val_split_mode="same_as_test",
        train_batch_size=8,
        eval_batch_size=8,
        num_workers=0,
    )
    engine.fit(model=model, datamodule=data)
    threshold = float(model.post_processor.image_threshold)
    # The post-processor maps the threshold to 0.5 and cuts scores off at 0 and 1. A decision is the
    # same before that map, and only there can two scores be compared.
    model.post_processor.enable_normalization = False
    model.post_processor.enable_thresholding = False

    predicted: dict[str, float] = {}
    for got in engine.predict(model=model, data_path=folder / "test") or []:
        for path, value in zip(got.image_path, got.pred_score.flatten(), strict=True):
            predicted[Path(path).stem] = float(value)

    exported = engine.export(model=model, export_type="onnx", export_root=folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(
        str(exported), options, providers=["CPUExecutionProvider"]
    )
    entry = session.get_inputs()[0]
    # The batch is meant to be free; where the exporter has fixed it, the image is repeated.
    batch = entry.shape[0] if isinstance(entry.shape[0], int) else 1

    def score(image: Any) -> float:  # float32 [3, H, W], 0 to 1
        feed = {entry.name: np.repeat(np.asarray(image)[None], batch, axis=0)}
        return float(session.run(["pred_score"], feed)[0].flat[0])

    after, after_resized = [], []
    for path in job["test"]:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        # The whole image in 0 to 1, as anomalib's OpenVINOInferencer feeds an exported model.
        after.append(score((np.asarray(rgb, dtype=np.float32) / 255).transpose(2, 0, 1)))
        after_resized.append(score(resize(to_dtype(to_image(rgb), scale=True))))
    return {
        "before": np.array([predicted[f"{i:05d}"] for i in range(len(after))], np.float32),
        "after": np.array(after, np.float32),
        "after_resized": np.array(after_resized, np.float32),
        "threshold": threshold,
        "batch": batch,
        "anomalib": importlib.metadata.version("anomalib"),
        "torch": importlib.metadata.version("torch"),
    }


def _link(folder: Path, paths: list[str]) -> None:
    """Anomalib takes folders: one of links, numbered in the order of the list."""
    folder.mkdir()
    for index, path in enumerate(paths):
        os.symlink(path, folder / f"{index:05d}{Path(path).suffix.lower()}")


if __name__ == "__main__":
    answer(KEYS, run)
