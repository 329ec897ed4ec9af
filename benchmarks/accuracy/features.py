"""Features of images, computed once for all shots and seeds of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from fsad_edge.runtime.arrays import Float32Array, UInt8Array
from fsad_edge.runtime.images import load_image, resize
from fsad_edge.training.encoder import pretrained_encoder


class Features:
    """The features of images, kept in memory until another data set is asked for."""

    def __init__(self, compute: Callable[[Path], Float32Array]) -> None:
        self._compute = compute
        self._known: dict[Path, Float32Array] = {}
        self._group = ""

    def of_images(self, group: str, paths: Sequence[Path]) -> Float32Array:
        """The features ``[N, ...]`` of images of a data set, or of tasks that share images."""
        if group != self._group:
            self._known.clear()
            self._group = group
        real = [path.resolve() for path in paths]
        for path in real:
            if path not in self._known:
                self._known[path] = self._compute(path)
        return np.stack([self._known[path] for path in real])


def colour(path: Path, size: int = 224, bins: int = 8) -> Float32Array:
    """Mean, deviation and histogram of each channel, float32 ``[6 + 3 * bins]``, 0 to 1."""
    image = resize(load_image(path), size, size).reshape(-1, 3)
    counts = [np.bincount(channel // (256 // bins), minlength=bins) for channel in image.T]
    scaled = image / np.float32(255)
    values = [scaled.mean(axis=0), scaled.std(axis=0), *(count / len(image) for count in counts)]
    joined: Float32Array = np.concatenate(values).astype(np.float32)
    return joined


def pixels(path: Path, size: int = 24) -> Float32Array:
    """The image resized to ``size`` x ``size``: float32 ``[size * size * 3]``, 0 to 1."""
    image = resize(load_image(path), size, size).astype(np.float32)
    scaled: Float32Array = image.ravel() / np.float32(255)
    return scaled


def patches(weights: str, size: int, stride: int = 16) -> Callable[[UInt8Array], Float32Array]:
    """Patch features of a pretrained encoder.

    Args:
        weights: the encoder, as ``finetune --backbone`` takes it.
        size: side of the encoder's input in pixels.
        stride: stride of the feature map in pixels.

    Returns:
        A function from a decoded image of any size to float32 ``[h, w, D]``: each patch averaged
        with its 3x3 neighbourhood (PatchCore, arXiv 2106.08265), then normalised to length 1.
    """
    encoder = pretrained_encoder(weights, None, size, size, [stride]).eval()

    def compute(image: UInt8Array) -> Float32Array:
        batch = torch.from_numpy(resize(image, size, size).copy())
        with torch.inference_mode():
            features = encoder(batch.permute(2, 0, 1)[None].float())
            around = torch.nn.functional.avg_pool2d(features, 3, 1, 1, count_include_pad=False)
            unit = torch.nn.functional.normalize(around, dim=1)
        result: Float32Array = unit[0].permute(1, 2, 0).contiguous().numpy()
        return result

    return compute
