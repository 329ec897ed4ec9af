"""What ``finetune`` computes on a GPU: in which batches, and what it says of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsad_edge import FinetuneOptions
from fsad_edge.calibration.batches import BATCH_ON_CUDA, batch_size, run_batches
from fsad_edge.options import BundledEncoder, Device, Provider, ScoreKind
from fsad_edge.pipeline.model_directory import read_manifest
from fsad_edge.pipeline.part_encoder import pretrained
from fsad_edge.pipeline.where_it_ran import provider_for, where_it_ran
from fsad_edge.runtime.arrays import AnyArray, Float32Array
from fsad_edge.runtime.backends.onnxruntime import OnnxSession
from fsad_edge.runtime.backends.providers import PROVIDERS
from fsad_edge.runtime.encoder_names import bundled_name
from tests.conftest import Job

SIDE = 64


class CountingSession(OnnxSession):
    """A session that notes the shapes it is given, on the CPU under the name of CUDA."""

    def run(self, outputs: list[str], feeds: Mapping[str, AnyArray]) -> list[Float32Array]:
        self.shapes = [*getattr(self, "shapes", []), feeds["image"].shape]
        return super().run(outputs, feeds)


def session_of(kind: type[OnnxSession], provider: str = Provider.CPU) -> OnnxSession:
    encoder = pretrained(bundled_name(BundledEncoder.FAST), None, SIDE, SIDE, [16])
    graph = encoder.scoring_graph(ScoreKind.PATCH, None, 40).to_bytes()
    session = kind(graph, "the graph", "cpu")
    session.provider = PROVIDERS[provider]
    return session


def test_cuda_sees_one_shape_and_gives_the_same() -> None:
    """It would search its algorithms again at every change of the shape."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (BATCH_ON_CUDA + 13, SIDE, SIDE, 3), np.uint8))
    here, there = session_of(OnnxSession), session_of(CountingSession, Provider.CUDA)
    for count in (1, 5, 8, BATCH_ON_CUDA, BATCH_ON_CUDA + 13):
        names = ["patches", "anomaly_map", "embedding"]
        plain = run_batches(here, images[:count], names)
        filled = run_batches(there, images[:count], names)
        for one, other in zip(plain, filled, strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert isinstance(there, CountingSession)
    assert set(there.shapes) == {(BATCH_ON_CUDA, SIDE, SIDE, 3)}


def test_large_images_fill_no_more_memory_on_a_gpu() -> None:
    assert batch_size(224, 224, BATCH_ON_CUDA) == BATCH_ON_CUDA
    assert batch_size(1024, 1024, BATCH_ON_CUDA) == batch_size(1024, 1024) == 3


def test_the_cpu_is_the_cpu_for_features_too() -> None:
    assert provider_for(Device.CPU) is Provider.CPU
    assert provider_for(Device.CUDA) is provider_for(Device.AUTO) is Provider.AUTO


@pytest.mark.parametrize(
    ("device", "features", "trained", "epochs", "said"),
    [
        ("auto", "cpu", "cpu", None, ""),
        ("cpu", "cpu", "cpu", 30, ""),
        ("cuda", "cpu", "cpu", 0, "nothing ran on it, because nothing was trained and features"),
        ("cuda", "cpu", "cuda", 30, "training alone ran on it, because features need ONNX"),
        ("auto", "cpu", "cuda", None, "so that --device cpu may be as fast"),
        ("cuda", "cuda", "cuda", 30, "features and training ran on it"),
        ("auto", "cuda", "cpu", None, "features were computed on it, and nothing was trained"),
    ],
)
def test_the_summary_says_what_a_gpu_did(
    job: Job, device: str, features: str, trained: str, epochs: int | None, said: str
) -> None:
    record = replace(read_manifest(job.part).training, device=trained)
    options = FinetuneOptions(device=Device(device), epochs=epochs)
    text = where_it_ran(options, session_of(OnnxSession, features), record)
    assert text.startswith(said) or said in text
    assert bool(text) is bool(said)
    assert ("may be as fast" in text) is (epochs is None and bool(said))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_the_summary_does_not_speak_of_one(job: Job) -> None:
    assert job.finetune.where == ""
    assert job.finetune.training.device == "cpu"
