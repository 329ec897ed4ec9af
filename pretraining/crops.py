"""Training crops of photographs and procedural textures that look like industrial close-ups."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Pixels = NDArray[np.float32]


def photo_crop(photo: Image.Image, size: int, rng: Rng) -> Image.Image:
    """A random box of an RGB photo, from 56 pixels to the whole, resized to a square of `size`."""
    width, height = photo.size
    side = np.exp(rng.uniform(np.log(56), np.log(1.25 * min(width, height))))
    ratio = np.exp(rng.uniform(-0.25, 0.25))
    w, h = min(width, side * ratio), min(height, side / ratio)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    crop = photo.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    return rotate_and_mirror(crop, rng)


def rotate_and_mirror(image: Image.Image, rng: Rng) -> Image.Image:
    """Apply one of the eight symmetries of the square."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    quarter = int(rng.integers(4))
    if quarter:
        image = image.transpose(Image.Transpose(1 + quarter))
    return image


def cloud(size: int, rng: Rng, stretch: float = 1.0) -> Pixels:
    """Smooth noise in octaves, stretched along x: float32 [size, size], mean 0, std 1."""
    total = np.zeros((size, size), np.float32)
    slope = rng.uniform(0.2, 1.1)
    first = int(rng.integers(2, 12))
    for octave in range(5):
        rows = min(size, first * 2**octave)
        cols = max(2, min(size, round(rows / stretch)))
        grid = Image.fromarray(rng.normal(size=(rows, cols)).astype(np.float32))
        layer = grid.resize((size, size), Image.Resampling.BICUBIC)
        total += np.asarray(layer) * float(2 ** (-slope * octave))
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def grating(size: int, rng: Rng) -> Pixels:
    """Stripes or a weave with jitter, float32 [size, size]."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 48)
    warp = rng.uniform(0, 3) * cloud(size, rng)
    phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle) + warp) / period
    wave = np.sin(phase)
    if rng.random() < 0.5:
        side = np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle) + warp) / period)
        wave = wave * side if rng.random() < 0.5 else np.maximum(wave, side)
    return np.asarray(np.tanh(wave * rng.uniform(0.5, 4)), np.float32)


def grains(size: int, rng: Rng) -> Pixels:
    """Crystal grains around random points, each with its own tone, float32 [size, size]."""
    points = rng.uniform(0, size, (int(rng.integers(6, 90)), 2)).astype(np.float32)
    small = -(-size // 2)
    y, x = np.mgrid[:small, :small].astype(np.float32) * 2
    distance = (y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2
    tones = rng.normal(size=len(points)).astype(np.float32)[distance.argmin(-1)]
    image = Image.fromarray(tones).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(np.asarray(image) + 0.3 * cloud(size, rng), np.float32)


def texture(size: int, rng: Rng) -> Image.Image:
    """A procedural texture: clouds, brushed metal, stripes, weaves, grains, or two of these."""

    def one() -> Pixels:
        kind = int(rng.integers(4))
        if kind == 0:
            return cloud(size, rng)
        if kind == 1:
            return cloud(size, rng, stretch=rng.uniform(4, 40))
        return grating(size, rng) if kind == 2 else grains(size, rng)

    field = one()
    if rng.random() < 0.5:
        field = field + rng.uniform(0.2, 1.0) * one()
    tint = rng.normal(0, 0.25, 3) if rng.random() < 0.5 else np.zeros(3)
    level, contrast = rng.uniform(60, 190), np.exp(rng.uniform(np.log(5), np.log(55)))
    rgb = level * (1 + 0.4 * tint) + contrast * field[..., None] * (1 + tint)
    return rotate_and_mirror(Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8)), rng)


def add_marks(image: Image.Image, rng: Rng) -> Image.Image:
    """Add scratches, spots or a displaced piece, so that training sees small irregularities."""
    size = image.width
    kind = int(rng.integers(3))
    if kind == 2:
        w, h = rng.integers(8, size // 3, 2)
        x, y = rng.integers(0, size - w), rng.integers(0, size - h)
        piece = rotate_and_mirror(image.crop((x, y, x + w, y + h)), rng)
        image = image.copy()
        image.paste(piece, (int(rng.integers(size - w)), int(rng.integers(size - h))))
        return image
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(0, size, 2)
        if kind == 0:
            angle, line = rng.uniform(0, 2 * np.pi), [(x, y)]
            for _ in range(int(rng.integers(2, 9))):
                angle += rng.normal(0, 0.4)
                step = rng.uniform(4, 16)
                x, y = x + step * np.cos(angle), y + step * np.sin(angle)
                line.append((x, y))
            pen.line(line, fill=255, width=int(rng.integers(1, 4)))
        else:
            w, h = rng.uniform(2, 14, 2)
            pen.ellipse((x - w, y - h, x + w, y + h), fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    alpha = np.asarray(mask, np.float32)[..., None] / 255 * rng.uniform(0.2, 1.0)
    pixels = np.asarray(image, np.float32)
    tone = rng.uniform(0, 255, 3) if rng.random() < 0.3 else np.full(3, rng.uniform(0, 255))
    return Image.fromarray((pixels * (1 - alpha) + tone * alpha).astype(np.uint8))


def degrade(image: Image.Image, rng: Rng) -> NDArray[np.uint8]:
    """Apply blur, grey conversion, contrast, exposure and noise; uint8 [size, size, 3]."""
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 2.5)))
    pixels = np.asarray(image, np.float32)
    if rng.random() < 0.5:
        grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        pixels = np.repeat(grey[..., None], 3, 2)
    elif rng.random() < 0.3:
        pixels = pixels[..., rng.permutation(3)]
    if rng.random() < 0.6:
        mean = pixels.mean()
        pixels = (pixels - mean) * np.exp(rng.uniform(-1.2, 0.4)) + mean + rng.normal(0, 30)
    if rng.random() < 0.05:
        pixels = 255 - pixels
    if rng.random() < 0.35:
        shape = pixels.shape[:2] + ((1,) if rng.random() < 0.7 else (3,))
        pixels = pixels + rng.normal(0, np.exp(rng.uniform(0, 2.7)), shape).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_crop(photo: Image.Image | None, size: int, rng: Rng) -> NDArray[np.uint8]:
    """One training crop of a photo, or else of a procedural texture: uint8 [size, size, 3]."""
    image = texture(size, rng) if photo is None else photo_crop(photo, size, rng)
    if photo is not None and rng.random() < 0.07:
        image = Image.blend(image, texture(size, rng), float(rng.uniform(0.2, 0.7)))
    if rng.random() < 0.25:
        image = add_marks(image, rng)
    return degrade(image, rng)
