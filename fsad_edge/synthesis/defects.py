"""Synthesised defects: the negatives of the contrastive loss, and the task that compares choices.

Cut-paste and scars follow Li et al. 2021 (CutPaste, arXiv 2104.04015), and masks of thresholded
Perlin noise follow Zavrtanik et al. 2021 (DRAEM, arXiv 2108.07610). Both are written from the
papers' descriptions. Here they blend material of the shot itself, so that no other data is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fsad_edge.runtime.arrays import BoolArray, Float32Array, UInt8Array

#: How often a defect is drawn until it changes ``LEAST_CHANGED`` pixels by more than ``VISIBLE``
#: grey levels: a patch that is pasted onto a similar one changes nothing.
ATTEMPTS, LEAST_CHANGED, VISIBLE = 8, 12, 6


@dataclass(frozen=True)
class Defect:
    """A defect as it was drawn, for any image of its size: what becomes of the pixels, in order.

    Attributes:
        alpha: float32 ``[H, W]``, 0 to 1, the opacity of what becomes of the pixels.
        turned: the image is turned by half.
        shift: rows and columns by which it is then rolled.
        blur: standard deviation of the Gaussian that blurs it, pixels; 0 leaves it sharp.
        gain: factor of its grey levels.
        added: what is added to them, float32, each of a shape that fits ``[H, W, 3]``.
    """

    alpha: Float32Array
    turned: bool = False
    shift: tuple[int, int] = (0, 0)
    blur: float = 0.0
    gain: float = 1.0
    added: tuple[Float32Array, ...] = ()

    def replacement(self, pixels: Float32Array) -> Float32Array:
        """The pixels of the defect for an image, both float32 ``[H, W, 3]``."""
        if self.turned:
            pixels = np.rot90(pixels, 2)
        if any(self.shift):
            pixels = np.roll(pixels, self.shift, axis=(0, 1))
        if self.blur:
            sharp = Image.fromarray(pixels.round().astype(np.uint8))
            pixels = np.asarray(sharp.filter(ImageFilter.GaussianBlur(self.blur)), np.float32)
        if self.gain != 1:
            pixels = pixels * np.float32(self.gain)
        for one in self.added:
            pixels = pixels + one
        return pixels


#: Draws a defect for images of a height and a width in pixels.
DrawDefect = Callable[[int, int, np.random.Generator], Defect]


def add_defect(
    image: UInt8Array, rng: np.random.Generator, kind: str | None = None
) -> tuple[UInt8Array, BoolArray]:
    """Put one synthesised defect into a normal image.

    Args:
        image: uint8 ``[H, W, 3]``, at the model's size.
        rng: the random generator.
        kind: one of ``DEFECTS``; None draws one.

    Returns:
        The image with the defect, uint8 ``[H, W, 3]``, and a bool mask ``[H, W]`` of the pixels
        that changed visibly.
    """
    kind = kind or any_kind(rng)
    pixels = image.astype(np.float32)
    for _ in range(ATTEMPTS):
        defect = DEFECTS[kind](image.shape[0], image.shape[1], rng)
        defective = pixels + (defect.replacement(pixels) - pixels) * defect.alpha[..., None]
        changed = defective.clip(0, 255).round().astype(np.uint8)
        mask = np.abs(changed.astype(np.int16) - image).max(axis=2) > VISIBLE
        if mask.sum() >= LEAST_CHANGED:
            break
    return changed, mask


def any_kind(rng: np.random.Generator) -> str:
    """One of the kinds of defects, all of them as likely."""
    return str(rng.choice(sorted(DEFECTS)))


def cut_paste(height: int, width: int, rng: np.random.Generator) -> Defect:
    """A rectangle of the image, rotated and pasted elsewhere: something that is out of place."""
    area = rng.uniform(0.004, 0.06) * height * width
    aspect = np.exp(rng.uniform(-1.2, 1.2))
    size = np.sqrt(area * aspect), np.sqrt(area / aspect)
    return _paste(height, width, rng, *size, jitter=0.15)


def scar(height: int, width: int, rng: np.random.Generator) -> Defect:
    """A long thin piece of the image at any angle, with another brightness."""
    side = min(height, width)
    size = side * rng.uniform(0.1, 0.45), side * rng.uniform(0.01, 0.04)
    return _paste(height, width, rng, *size, jitter=0.4)


def crack(height: int, width: int, rng: np.random.Generator) -> Defect:
    """A thin winding line, darker or lighter than its surroundings."""
    side = min(height, width)
    x, y = rng.uniform(0.15, 0.85, 2) * (width, height)
    angle = rng.uniform(0, 2 * np.pi)
    points = [(x, y)]
    for _ in range(int(rng.integers(4, 14))):
        angle += rng.normal(0, 0.45)
        step = side * rng.uniform(0.02, 0.06)
        x, y = x + step * np.cos(angle), y + step * np.sin(angle)
        points.append((x, y))
    line = Image.new("L", (2 * width, 2 * height))
    thickness = max(2, round(2 * side * rng.uniform(0.004, 0.018)))
    ImageDraw.Draw(line).line([(2 * px, 2 * py) for px, py in points], 255, thickness, "curve")
    alpha = np.asarray(line.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    shade = _shade(rng)
    return Defect(alpha * np.float32(rng.uniform(0.5, 1.0)), added=(shade,))


def blob(height: int, width: int, rng: np.random.Generator) -> Defect:
    """A spot with soft edges, another shade and its own grain: a stain, a dent, a hole."""
    alpha = _ellipse(height, width, rng, 0.015, 0.12)
    grain = _smooth_noise(height, width, int(rng.integers(16, 64)), rng)[..., None]
    shade = _shade(rng)
    return Defect(alpha, added=(shade, grain * rng.uniform(0, 25)))


def noise_patch(height: int, width: int, rng: np.random.Generator) -> Defect:
    """A Perlin-like mask filled with another region of the image: a damaged surface."""
    noise = _smooth_noise(height, width, int(rng.integers(3, 9)), rng)
    alpha = _ellipse(height, width, rng, 0.08, 0.25)
    level = np.quantile(noise, rng.uniform(0.5, 0.85))
    alpha = alpha * ((noise - level) * 6).clip(0, 1) * rng.uniform(0.5, 1.0)
    down, right = _elsewhere(height, width, rng)
    turned = rng.random() < 0.5
    # Rolled and then turned is turned and then rolled back.
    shift = (-down, -right) if turned else (down, right)
    shade = _shade(rng) * np.float32(0.5)
    return Defect(alpha.astype(np.float32), turned, shift, added=(shade,))


def smear(height: int, width: int, rng: np.random.Generator) -> Defect:
    """A region with a blurred texture and uneven shade: wear, missing structure, unevenness."""
    alpha = _ellipse(height, width, rng, 0.05, 0.22)
    blur = min(height, width) * rng.uniform(0.01, 0.05)
    slope = _smooth_noise(height, width, 3, rng)[..., None] * rng.uniform(5, 30)
    return Defect(alpha, blur=blur, added=(slope,))


#: The kinds of defects, by name.
DEFECTS: dict[str, DrawDefect] = {
    "blob": blob,
    "crack": crack,
    "cut_paste": cut_paste,
    "noise_patch": noise_patch,
    "scar": scar,
    "smear": smear,
}


def _shade(rng: np.random.Generator) -> Float32Array:
    """A slightly coloured change of brightness: float32 ``[3]``, grey levels."""
    level = rng.choice([-1, 1]) * rng.uniform(15, 90)
    shade: Float32Array = (level + rng.normal(0, 6, 3)).astype(np.float32)
    return shade


def _paste(
    height: int, width: int, rng: np.random.Generator, long: float, short: float, jitter: float
) -> Defect:
    """A ``long`` x ``short`` piece of another region, rotated, with another brightness."""
    mask = Image.new("L", (2 * width, 2 * height))
    x, y = rng.uniform(0.1, 0.9, 2) * (width, height)
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)]) * long / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * short / 2
    corners = np.array([along + across, along - across, -along - across, -along + across])
    ImageDraw.Draw(mask).polygon([(2 * (x + a), 2 * (y + b)) for a, b in corners], fill=255)
    coverage = mask.resize((width, height), Image.Resampling.BOX)
    alpha: Float32Array = np.asarray(coverage, np.float32) / np.float32(255)
    shift = _elsewhere(height, width, rng)
    turned = rng.random() < 0.5
    return Defect(alpha, turned, shift, gain=1 + rng.uniform(-jitter, jitter))


def _elsewhere(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Rows and columns to another region of the image."""
    down, right = rng.integers((height // 8, width // 8), (height * 7 // 8, width * 7 // 8))
    return int(down), int(right)


def _ellipse(
    height: int, width: int, rng: np.random.Generator, smallest: float, largest: float
) -> Float32Array:
    """The opacity of an ellipse with soft edges: float32 ``[H, W]``, 0 to 1.

    Its radii are between ``smallest`` and ``largest``, fractions of the image's shorter side.
    """
    side = min(height, width)
    radii = side * np.exp(rng.uniform(np.log(smallest), np.log(largest), 2))
    centre = rng.uniform(0.1, 0.9, 2) * (height, width)
    angle = rng.uniform(0, np.pi)
    y = np.arange(height, dtype=np.float32)[:, None] - centre[0]
    x = np.arange(width, dtype=np.float32)[None, :] - centre[1]
    along = (x * np.cos(angle) + y * np.sin(angle)) / radii[0]
    across = (y * np.cos(angle) - x * np.sin(angle)) / radii[1]
    softness = rng.uniform(0.1, 0.6)
    alpha: Float32Array = ((1 - np.hypot(along, across)) / softness).clip(0, 1)
    return alpha.astype(np.float32)


def _smooth_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> Float32Array:
    """Three octaves of smooth noise, mean near 0 and std near 1: float32 ``[H, W]``."""
    total = np.zeros((height, width), np.float32)
    for octave in range(3):
        grid = rng.normal(0, 1, (cells << octave, cells << octave)).astype(np.float32)
        layer = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer) / (1 << octave)
    return total
