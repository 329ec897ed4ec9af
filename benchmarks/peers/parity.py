"""Score with anomalib's PatchCore before and after export. Runs in the peers' environment.

    PEERS_PYTHON -m benchmarks.peers.parity JOB.json OUT.npz

JOB: ``shots`` (image files to fit), ``good`` and ``defect`` (image files on which the Engine sets
the threshold), ``test`` (image files to score); ``weights``, ``size``, ``seed`` and ``threads`` as
for ``benchmarks.peers``.

OUT, float32 ``[N]`` each in the order of ``test``:

- ``before``: scores of ``Engine.predict``;
- ``after``: scores of the file that ``Engine.export`` writes with its defaults (ONNX, any height
  and width);
- ``after_resized``: scores of the same file for images that ``Engine.predict``'s own resize made;

and ``threshold``, float, of all three; ``batch``, the number of images that the exported file takes
at once (1 if it takes any number); and the versions ``anomalib`` and ``torch``.
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
    """The arrays of OUT for a JOB, as described above."""
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key in ("shots", "good", "defect", "test"):
            _link(folder / key, job[key])
        return _compare(job, folder)


def _compare(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    import numpy as np
    from anomalib.engine import Engine
    from torchvision.transforms.v2 import Resize

    resize = Resize((job["size"], job["size"]), antialias=True)
    model = _make_model(job, resize)
    engine = Engine(
        default_root_dir=folder / "results",
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    engine.fit(model=model, datamodule=_make_data(folder))
    threshold = float(model.post_processor.image_threshold)
    # The post-processor maps the threshold to 0.5 and clips scores to 0 and 1. Decisions are the
    # same before that, and only unclipped scores can be compared.
    model.post_processor.enable_normalization = False
    model.post_processor.enable_thresholding = False

    predicted: dict[str, float] = {}
    for batch in engine.predict(model=model, data_path=folder / "test") or []:
        for path, value in zip(batch.image_path, batch.pred_score.flatten(), strict=True):
            predicted[Path(path).stem] = float(value)
    exported = engine.export(model=model, export_type="onnx", export_root=folder)
    after, after_resized, batch_size = _score_exported(exported, job, resize)
    return {
        "before": np.array([predicted[f"{i:05d}"] for i in range(len(after))], np.float32),
        "after": np.array(after, np.float32),
        "after_resized": np.array(after_resized, np.float32),
        "threshold": threshold,
        "batch": batch_size,
        "anomalib": importlib.metadata.version("anomalib"),
        "torch": importlib.metadata.version("torch"),
    }


def _make_model(job: dict[str, Any], resize: Any) -> Any:
    from anomalib.models import Patchcore
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize

    from benchmarks.peers.images import pretrained_config
    from benchmarks.peers.models import CORESET, LAYERS, NEIGHBOURS

    # As in Patchcore.configure_pre_processor, with the mean and std of these weights.
    config = pretrained_config(Path(job["weights"]))
    return Patchcore(
        backbone=f"local-dir:{job['weights']}",
        layers=LAYERS,
        coreset_sampling_ratio=CORESET,
        num_neighbors=NEIGHBOURS,
        pre_processor=PreProcessor(Compose([resize, Normalize(config["mean"], config["std"])])),
        evaluator=False,
        visualizer=False,
    )


def _make_data(folder: Path) -> Any:
    from anomalib.data import Folder

    return Folder(
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


def _score_exported(
    file: Any, job: dict[str, Any], resize: Any
) -> tuple[list[float], list[float], int]:
    """Scores of the whole images, of the resized ones, and the images that the file takes."""
    import numpy as np
    import onnxruntime
    from PIL import Image
    from torchvision.transforms.v2.functional import to_dtype, to_image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    # The batch should be free; if the exporter fixed it, the image is repeated.
    batch_size = entry.shape[0] if isinstance(entry.shape[0], int) else 1

    def score(image: Any) -> float:  # float32 [3, H, W], 0 to 1
        feed = {entry.name: np.repeat(np.asarray(image)[None], batch_size, axis=0)}
        return float(session.run(["pred_score"], feed)[0].flat[0])

    after, after_resized = [], []
    for path in job["test"]:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        # The whole image in 0 to 1, as anomalib's OpenVINOInferencer feeds an exported model.
        after.append(score((np.asarray(rgb, dtype=np.float32) / 255).transpose(2, 0, 1)))
        after_resized.append(score(resize(to_dtype(to_image(rgb), scale=True))))
    return after, after_resized, batch_size


def _link(folder: Path, paths: list[str]) -> None:
    """Make a folder of links, numbered in the order of the list: anomalib takes only folders."""
    folder.mkdir()
    for index, path in enumerate(paths):
        os.symlink(path, folder / f"{index:05d}{Path(path).suffix.lower()}")


if __name__ == "__main__":
    answer(KEYS, run)
