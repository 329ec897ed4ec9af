"""Large images: the encoder runs over overlapping tiles, and nothing else changes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fsad_edge
from fsad_edge import ExportOptions, FinetuneOptions, Model
from fsad_edge.calibration.batches import BATCH, BATCH_SIDE, stacked
from fsad_edge.errors import FsadEdgeError
from fsad_edge.options import BundledEncoder, Locate, Precision
from fsad_edge.pipeline.candidates import Shape
from fsad_edge.scoring import tiles
from fsad_edge.training.encoder import load_encoder, pretrained_encoder, save_encoder
from tests.conftest import Job, photograph

#: Tiles of this side, pixels, which overlap by a third, stand for those of 768.
TILE = 96


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LARGEST_WHOLE", TILE)
    monkeypatch.setattr(tiles, "TILE", TILE)
    monkeypatch.setattr(tiles, "OVERLAP", TILE // 3)


@given(
    cells=st.integers(24, 300),
    stride=st.sampled_from([4, 8, 16, 14]),
    times=st.sampled_from([1, 2]),
)
def test_each_cell_comes_from_one_tile_and_not_from_its_border(
    cells: int, stride: int, times: int
) -> None:
    step = stride * times
    length = cells * step
    tile, _ = tiles.tile_size(length, tiles.LARGEST_WHOLE**2, step)
    spans = tiles.spans(length, tile, stride, step)
    used = [
        cell
        for span in spans
        for cell in range(span.start // stride + span.first, span.start // stride + span.last)
    ]
    assert used == list(range(length // stride))
    assert (spans[0].start, spans[-1].start + tile) == (0, length)
    for before, after in pairwise(spans):
        assert after.start % step == 0
        seen = tiles.OVERLAP // 2 - 2 * step
        assert after.first * stride >= seen
        assert tile - before.last * stride >= seen


@pytest.mark.parametrize("sides", [(1040, 1040), (2080, 512)])
def test_the_map_is_that_of_the_whole_image(
    sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = sides
    encoder = pretrained_encoder("fsad_edge", None, height, width, [16])
    image = np.asarray(photograph(np.random.default_rng(0), side=max(sides)))[:height, :width]
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        tiled = torch.nn.functional.normalize(encoder(batch), dim=1)
        monkeypatch.setattr(tiles, "LARGEST_WHOLE", max(sides))
        whole = torch.nn.functional.normalize(encoder(batch), dim=1)
    assert tiled.shape == whole.shape == (1, encoder.channels, height // 16, width // 16)
    assert float((1 - (tiled * whole).sum(dim=1)).mean()) < 1e-3
    # Another order of the tiles would be noticed: cells are not alike.
    assert float((1 - (tiled * whole.flip(2)).sum(dim=1)).mean()) > 1e-2


@pytest.mark.parametrize("kind", ["conv", "vit"])
def test_an_encoder_of_tiles_is_made_again(
    small_tiles: None, kind: str, backbones: dict[str, str], tmp_path: Path
) -> None:
    strides = {"conv": [8, 16], "vit": [16]}[kind]
    encoder = pretrained_encoder(backbones[kind], None, 192, 128, strides)
    save_encoder(encoder, tmp_path / "weights.safetensors")
    file = tmp_path / "weights.safetensors"
    again = load_encoder(encoder.spec, file.read_bytes(), str(file))
    image = torch.randint(256, (1, 3, 192, 128), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = encoder(image.float())
        assert torch.equal(again(image.float()), found)
    assert found.shape[2:] == (192 // strides[0], 128 // strides[0])


def test_a_file_with_tiles_scores_photographs_as_any_other(
    small_tiles: None, job: Job, tmp_path: Path
) -> None:
    options = FinetuneOptions(
        encoder=BundledEncoder.FAST,
        image_size=144,
        rotations=1,
        locate=Locate.OFF,
        epochs=0,
        align=False,
    )
    part = fsad_edge.finetune(job.shots, tmp_path / "part", options)
    rng = np.random.default_rng(5)
    good, bad = (np.asarray(photograph(rng, 400, defect=defect)) for defect in (False, True))
    with Model.load(fsad_edge.export(part, tmp_path / "part.onnx").path) as model:
        assert model.metadata.height == model.metadata.width == 144
        found = model.score(bad)
        assert found.patch_map.shape == (9, 9)
        assert found.score > found.threshold > model.score(good).score
        assert model.score_batch([good, bad])[1].score == pytest.approx(found.score, rel=1e-3)
    with pytest.raises(FsadEdgeError, match=r"at most 1024x1024 pixels, and this one has 144x144"):
        fsad_edge.export(part, tmp_path / "part8.onnx", ExportOptions(precision=Precision.INT8))


def test_the_whole_encoder_is_not_trained_on_tiles(job: Job, tmp_path: Path) -> None:
    options = FinetuneOptions(image_size=2048, epochs=1)
    with pytest.raises(
        FsadEdgeError, match=r"at most 1024 pixels, and --image-size is 2048: leave"
    ):
        fsad_edge.finetune(job.shots, tmp_path / "part", options)


@given(side=st.integers(1, 40).map(lambda n: 64 * n), count=st.integers(0, 20))
def test_batches_hold_all_images_and_fit_a_memory(side: int, count: int) -> None:
    image = np.broadcast_to(np.uint8(7), (side, side, 3))
    sizes = [len(batch) for batch in stacked([image] * min(count, 20 if side < 300 else 3))]
    assert sum(sizes) == min(count, 20 if side < 300 else 3)
    assert all(size == 1 or size * side**2 <= BATCH * BATCH_SIDE**2 for size in sizes)
    assert all(1 <= size <= BATCH for size in sizes)


@given(
    aspect=st.floats(0.25, 4),
    strides=st.sampled_from([(8,), (16,), (8, 16), (32,)]),
    side=st.sampled_from([448, 640, 1024]),
)
def test_no_size_up_to_1024_takes_tiles(aspect: float, strides: tuple[int, ...], side: int) -> None:
    height, width = Shape(side, strides, aspect).size
    assert not tiles.is_tiled(height, width)
    assert height % max(strides) == width % max(strides) == 0
    assert height * width > 0.85 * side**2
