"""Views of the shots and defects in them, computed on the device that trains, many at once.

What is drawn at random is drawn as for :func:`fsad_edge.synthesis.random_view` and
:func:`fsad_edge.synthesis.add_defect`, by the same functions. The pixels are computed in torch, and
differ from theirs by less than a grey level on average: torch's bicubic filter is a little sharper
than Pillow's, and a pixel is rounded once and not three times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fsad_edge.runtime.arrays import Float32Array
from fsad_edge.synthesis import Shot, Views
from fsad_edge.synthesis.defects import (
    ATTEMPTS,
    DEFECTS,
    LEAST_CHANGED,
    VISIBLE,
    Defect,
    any_kind,
)
from fsad_edge.synthesis.views import draw_exposure, draw_mirroring, draw_motion, generators

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DrawnViews:
    """What is drawn at random for some views, before any pixel is computed.

    Attributes:
        shots: int64 ``[N]``, the shot of each view.
        maps: float32 ``[N, 2, 3]``, from places in the view to places in the shot, both (x, y, 1)
            with -1 and 1 at the edges.
        exposures: float32 ``[N, 2]``, factors of contrast and of brightness.
    """

    shots: IntArray
    maps: Float32Array
    exposures: Float32Array


@dataclass(frozen=True)
class DrawnDefects:
    """Defects as they were drawn, one for each image.

    Attributes:
        kinds: their names.
        defects: the defects.
        layers: float32 ``[N, 4, H, W]``, the opacity of each, and what it adds to red, green and
            blue, so that all of it is copied to the device at once.
        rngs: a random generator for each, with which another one is drawn.
    """

    kinds: Sequence[str]
    defects: Sequence[Defect]
    layers: Float32Array
    rngs: Sequence[np.random.Generator]

    def again(self, places: Sequence[int]) -> DrawnDefects:
        """The same with other defects of their kinds in some places."""
        height, width = self.layers.shape[2:]
        defects, layers = list(self.defects), self.layers.copy()
        for place in places:
            defects[place] = DEFECTS[self.kinds[place]](height, width, self.rngs[place])
            layers[place] = _layers(defects[place])
        return replace(self, defects=defects, layers=layers)


def draw_views(
    shots: IntArray, views: Views, height: int, width: int, rng: np.random.Generator
) -> DrawnViews:
    """Draw views at random.

    Args:
        shots: int64 ``[N]``, the shot of each view.
        views: how far they may differ from it.
        height: of the views, pixels.
        width: of the views, pixels.
        rng: the random generator.
    """
    maps, exposures = [], []
    for _ in shots:
        motion = draw_motion(views, rng)
        upside_down, reversed_ = draw_mirroring(views, rng)
        exposures.append(draw_exposure(views, rng))
        # From pixels to the half sides that torch counts in.
        linear = motion.linear * [[1, height / width], [width / height, 1]]
        offset = -2 * linear @ [motion.right, motion.down]
        mirrored = linear * [-1 if reversed_ else 1, -1 if upside_down else 1]
        maps.append(np.column_stack([mirrored, offset]))
    return DrawnViews(shots, np.array(maps, np.float32), np.array(exposures, np.float32))


def draw_defects(
    count: int, height: int, width: int, rng: np.random.Generator, kind: str | None = None
) -> DrawnDefects:
    """Draw defects at random.

    Args:
        count: how many.
        height: of the images, pixels.
        width: of the images, pixels.
        rng: the random generator.
        kind: one of ``DEFECTS``; None draws one for each.
    """
    rngs = generators(rng, count)
    kinds = [kind or any_kind(own) for own in rngs]
    defects = [DEFECTS[one](height, width, own) for one, own in zip(kinds, rngs, strict=True)]
    return DrawnDefects(kinds, defects, np.stack([_layers(one) for one in defects]), rngs)


def _layers(defect: Defect) -> Float32Array:
    """Its opacity, and what it adds to the three colours, float32 ``[4, H, W]``."""
    height, width = defect.alpha.shape
    layers = np.zeros((height, width, 4), np.float32)
    layers[..., 0] = defect.alpha
    for added in defect.added:
        layers[..., 1:] += added
    return np.ascontiguousarray(layers.transpose(2, 0, 1))


class DeviceViews:
    """The shots on a device, and views of them.

    Args:
        shots: at least one, of one size.
        views: how far views may differ.
        device: where they are computed.
        seed: of the sensor noise.
    """

    def __init__(
        self, shots: Sequence[Shot], views: Views, device: torch.device, seed: int
    ) -> None:
        canvases = torch.from_numpy(np.stack([shot.canvas for shot in shots]))
        self._canvases = canvases.to(device).permute(0, 3, 1, 2)
        self._views, self._device = views, device
        self._rng = torch.Generator(device).manual_seed(seed)

    def views(self, drawn: DrawnViews) -> Tensor:
        """The views that were drawn, float ``[N, 3, H, W]``, whole numbers from 0 to 255."""
        canvases = self._canvases[self._copied(drawn.shots)].float()
        grid = functional.affine_grid(
            self._copied(drawn.maps), list(canvases.shape), align_corners=False
        )
        warped = functional.grid_sample(
            canvases, grid, "bicubic", padding_mode="reflection", align_corners=False
        ).clamp_(0, 255)
        # Pillow halves with the same weights, so that a view is as sharp as a photograph.
        pixels = functional.interpolate(
            warped, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False
        )
        middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
        contrast, brightness = self._copied(drawn.exposures)[:, :, None, None, None].unbind(1)
        pixels = ((pixels - middle) * contrast + middle) * brightness
        noise = torch.empty_like(pixels).normal_(generator=self._rng)
        return (pixels + self._views.noise * noise).clamp_(0, 255).round_()

    def with_defects(self, images: Tensor, drawn: DrawnDefects) -> Tensor:
        """Images with a defect in each; one that does not show is drawn again.

        Args:
            images: float ``[N, 3, H, W]``, 0 to 255.
            drawn: the defects.

        Returns:
            Whole numbers from 0 to 255, of the same shape.
        """
        for left in range(ATTEMPTS, 0, -1):
            changed = self._put_in(images, drawn)
            shown = (changed - images).abs().amax(dim=1) > VISIBLE
            counts = shown.sum(dim=(1, 2)).tolist()  # waits for the device: once for all images
            unseen = [place for place, count in enumerate(counts) if count < LEAST_CHANGED]
            if not unseen or left == 1:
                break
            drawn = drawn.again(unseen)
        return changed

    def _put_in(self, images: Tensor, drawn: DrawnDefects) -> Tensor:
        layers = self._copied(drawn.layers)
        pairs = zip(images, drawn.defects, strict=True)
        moved = torch.stack([_replacement(image, defect) for image, defect in pairs])
        blended = images + (moved + layers[:, 1:] - images) * layers[:, :1]
        return blended.clamp_(0, 255).round_()

    def _copied(self, array: Float32Array | IntArray) -> Tensor:
        """An array on the device; the host does not wait until it is there."""
        tensor = torch.from_numpy(array)
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)


def _replacement(image: Tensor, defect: Defect) -> Tensor:
    """:meth:`Defect.replacement` of an image float ``[3, H, W]``, without what it adds."""
    if defect.turned:
        image = image.flip(1, 2)
    if any(defect.shift):
        image = image.roll(defect.shift, (1, 2))
    if defect.blur:
        image = _blurred(image, defect.blur)
    return image * defect.gain


def _blurred(image: Tensor, deviation: float) -> Tensor:
    """An image float ``[3, H, W]`` through a Gaussian; its border goes on beyond it."""
    radius = math.ceil(3 * deviation)
    places = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    weights = (-0.5 * (places / deviation) ** 2).exp()
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(image[None], (radius,) * 4, mode="replicate")
    across = functional.conv2d(padded, weights, groups=3)
    return functional.conv2d(across, weights.transpose(2, 3), groups=3)[0]
