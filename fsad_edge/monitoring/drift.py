"""Is the line still what it was: scores that drift, images that are dark, blurred or shifted.

:class:`ImageCheck` holds one image against the shots; :class:`ScoreDrift` holds the stream of
scores against what it was before.
"""

from __future__ import annotations

import base64
import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from fsad_edge.errors import ModelFileError
from fsad_edge.runtime.images import UInt8Array
from fsad_edge.runtime.metadata import Metadata

Float32Array = npt.NDArray[np.float32]

#: Side of the small grey image by which a shift is found.
SMALL = 32

#: An image is flagged where the logarithm of a measure is this many spreads from the shots' mean.
SPREADS = 3.5

#: Spread of the logarithms of the measures where nothing else is known, and how many shots that is
#: worth.
PRIOR_STDS = {"brightness": 0.1, "contrast": 0.15, "sharpness": 0.1}
PRIOR_SHOTS = 4

#: Flags by measure, below and above what the shots have; None is no flag.
FLAGS: dict[str, tuple[str | None, str | None]] = {
    "brightness": ("dark", "bright"),
    "contrast": ("flat", None),
    "sharpness": ("blurred", None),
}

#: Cells of the small image that are a shift, about a tenth of the side; and in how many the shots
#: must lie, or no shift is looked for.
SHIFT, SHOTS_LIE_WITHIN = 3, 1

#: Shots that can show whether parts lie alike.
ENOUGH_FOR_SHIFT = 3

#: A false alarm of :class:`ScoreDrift` in so many images, on average and at most.
RUN_LENGTH = 100_000

#: Scores that the stream is held against; once there are as many, no more are added, or a slow
#: drift would become what it is held against.
REFERENCE = 2000

#: Images behind the comparison with the shots' scores.
START = 50


@dataclass(frozen=True)
class Quality:
    """Measures of one image, of its green channel.

    Attributes:
        brightness: mean grey level, 0 to 255.
        contrast: standard deviation of the grey levels over their mean, which a longer exposure
            leaves as it is.
        sharpness: energy of the Laplacian over that of the gradient, 0 and up: hardly depends on
            what is shown or how it is lit, and falls where the finest detail goes.
        small: float32 ``[SMALL, SMALL]``, the image in small.
    """

    brightness: float
    contrast: float
    sharpness: float
    small: Float32Array


def image_quality(prepared: UInt8Array) -> Quality:
    """Measure an image, uint8 ``[H, W, 3]``, at the model's size."""
    grey = prepared[:, :, 1].astype(np.float32)
    down, right = grey[1:] - grey[:-1], grey[:, 1:] - grey[:, :-1]
    curved = down[1:, 1:-1] - down[:-1, 1:-1] + right[1:-1, 1:] - right[1:-1, :-1]
    gradient = _energy(down) + _energy(right)
    brightness = float(grey.mean())
    return Quality(
        brightness=brightness,
        contrast=math.sqrt(_energy(grey - brightness)) / max(brightness, 1),
        sharpness=_energy(curved) / max(gradient, 1e-6),
        small=_shrink(grey),
    )


def describe(shots: Sequence[UInt8Array]) -> dict[str, Any]:
    """What shots look like, for a file's metadata.

    Args:
        shots: uint8 ``[H, W, 3]`` at the model's size, at least one.

    Returns:
        the measures, a number a shot; ``mean_image``, the mean of the small images (Base64 of
        uint8 ``[SMALL, SMALL]``), and ``likeness``, by how much a shot must at least look like
        it where a shift is to be found: None where the shots do not lie alike, or are too few to
        show it.
    """
    found = [image_quality(shot) for shot in shots]
    small = np.stack([quality.small for quality in found])
    document: dict[str, Any] = {
        name: [round(getattr(quality, name), 5) for quality in found] for name in FLAGS
    }
    mean = small.mean(axis=0).round().astype(np.uint8)
    document["mean_image"] = base64.b64encode(mean.tobytes()).decode("ascii")
    alike = []
    if len(small) >= ENOUGH_FOR_SHIFT:
        others = [np.delete(small, index, axis=0).mean(axis=0) for index in range(len(small))]
        alike = [find_shift(image, other) for image, other in zip(small, others, strict=True)]
    lies_alike = bool(alike) and all(max(map(abs, shift)) <= SHOTS_LIE_WITHIN for shift, _ in alike)
    document["similarity"] = round(min(peak for _, peak in alike) / 2, 4) if lies_alike else None
    return document


def find_shift(small: Float32Array, other: Float32Array) -> tuple[tuple[int, int], float]:
    """How far one image is shifted against another: phase correlation.

    Args:
        small: float32 ``[SMALL, SMALL]``.
        other: of the same shape.

    Returns:
        cells down and to the right, and the height of the peak, 0 to 1: how alike they are then.
    """
    one, two = (np.fft.rfft2((image - image.mean()) * _WINDOW) for image in (small, other))
    cross = one * two.conj()
    correlation = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), small.shape)
    down, right = divmod(int(correlation.argmax()), SMALL)
    half = SMALL // 2
    return ((down + half) % SMALL - half, (right + half) % SMALL - half), float(correlation.max())


class ImageCheck:
    """Tells what is wrong with an image as a photograph, whatever is on it.

    Args:
        appearance: of :func:`describe`; of an empty one nothing is flagged.

    Raises:
        ModelFileError: it is damaged.
    """

    def __init__(self, appearance: dict[str, Any]) -> None:
        self._bounds: dict[str, tuple[float, float]] = {}
        self._mean_image: Float32Array | None = None
        if not appearance:
            return
        try:
            for name, prior in PRIOR_STDS.items():
                self._bounds[name] = _bounds([float(one) for one in appearance[name]], prior)
            if appearance["similarity"] is not None:
                self._similarity = float(appearance["similarity"])
                flat = np.frombuffer(base64.b64decode(appearance["mean_image"]), np.uint8)
                self._mean_image = flat.reshape(SMALL, SMALL).astype(np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"the model's description of its shots is damaged ({error!r}): export it again."
            ) from error

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> ImageCheck:
        """Of a model's shots; files of older versions do not describe them."""
        return cls(metadata.appearance)

    def check(self, prepared: UInt8Array) -> list[str]:
        """What is wrong with an image, uint8 ``[H, W, 3]`` at the model's size.

        Returns:
            some of ``dark``, ``bright``, ``flat`` (low in contrast), ``blurred``, ``shifted``.
        """
        return self.flags(image_quality(prepared)) if self._bounds else []

    def flags(self, quality: Quality) -> list[str]:
        """As :meth:`check`, of what was measured."""
        found = []
        for name, (lowest, highest) in self._bounds.items():
            value, (below, above) = max(getattr(quality, name), _LEAST), FLAGS[name]
            if value < lowest and below:
                found.append(below)
            if value > highest and above:
                found.append(above)
        if self._mean_image is not None:
            shift, similarity = find_shift(quality.small, self._mean_image)
            if max(map(abs, shift)) >= SHIFT and similarity >= self._similarity:
                found.append("shifted")
        return found


class ScoreDrift:
    """Tells whether the scores of a line are no longer distributed as they were.

    Each score is ranked among those before it (a conformal p-value); as long as the order of the
    scores is a matter of chance, the ranks are uniform and independent, whatever the distribution
    (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2nd ed., chapter 8). Power
    bets on ranks that are too high or too low are summed over all times at which a drift may have
    begun (Shiryaev and Roberts): an alarm comes once in ``run_length`` images at most, on average,
    where there is no drift.

    Not safe for several threads.

    Args:
        shots: scores of the left-out shots; empty where there are none.
        run_length: images.
        seed: of the chance that places equal scores.
        prior_std: the threshold's, for :meth:`unlike_shots`.

    Attributes:
        images: scores that were given.
        drifted: ``higher`` or ``lower`` once there is an alarm, until :meth:`reset`; else None.
    """

    #: Exponents of the bets: strong drifts, and weak ones.
    _POWERS = np.array([0.5, 0.75])

    def __init__(
        self,
        shots: Sequence[float] = (),
        run_length: int = RUN_LENGTH,
        seed: int = 0,
        prior_std: float = 0.2,
    ) -> None:
        self._shots = np.log(np.maximum(np.asarray(shots, dtype=np.float64), 1e-4))
        self._prior_std = prior_std
        self._run_length = run_length
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Begin anew, with what comes next as what is normal: after learning, or a repair."""
        self.images = 0
        self.drifted: str | None = None
        self._before: list[float] = []
        self._first: list[float] = []
        self._sums = np.zeros((2, len(self._POWERS)))  # of bets on higher and on lower scores

    def update(self, score: float) -> None:
        """Take the score of the next image, a finite number."""
        self.images += 1
        if len(self._first) < START:
            self._first.append(math.log(max(score, 1e-4)))
        lower = bisect.bisect_left(self._before, score)
        equal = bisect.bisect_right(self._before, score) - lower
        rank = (lower + self._rng.uniform() * (equal + 1)) / (len(self._before) + 1)
        if len(self._before) < REFERENCE:
            self._before.insert(lower, score)
        chances = np.clip([[1 - rank], [rank]], 1e-9, 1)
        bets = self._POWERS * chances ** (self._POWERS - 1)
        self._sums = np.minimum((self._sums + 1) * bets, 1e12)
        if self.drifted is None and self.evidence >= 1:
            higher, lower_ = self._sums.mean(axis=1)
            self.drifted = "higher" if higher > lower_ else "lower"

    @property
    def evidence(self) -> float:
        """For a drift, 0 and up; 1 raises the alarm."""
        return float(self._sums.mean()) / self._run_length

    @property
    def ratio_to_shots(self) -> float | None:
        """The first ``START`` scores over those of the shots (geometric means); None before."""
        if len(self._shots) < 2 or len(self._first) < START:
            return None
        return math.exp(float(np.mean(self._first) - self._shots.mean()))

    def unlike_shots(self, false_alarm_rate: float = 0.01) -> bool:
        """Whether the first ``START`` images of the line score higher than the shots did.

        They were then photographed otherwise, or are other parts. Student's prediction bound for
        the mean, as for the threshold; False while there are fewer images, or one shot.

        Args:
            false_alarm_rate: of this one test, as a fraction.
        """
        ratio = self.ratio_to_shots
        if ratio is None:
            return False
        count = len(self._shots)
        dof = count - 1 + _PRIOR_SCORES
        own = float(np.square(self._shots - self._shots.mean()).sum())
        std = math.sqrt((own + _PRIOR_SCORES * self._prior_std**2) / dof)
        width = std * math.sqrt(1 / count + 1 / START)
        return math.log(ratio) > _student_quantile(1 - false_alarm_rate, dof) * width


#: As for the threshold: scores that the prior's spread is worth.
_PRIOR_SCORES = 8

#: No measure is below this: an image of one colour has none.
_LEAST = 1e-4

_WINDOW = np.outer(*(2 * [np.hanning(SMALL + 2)[1:-1]])).astype(np.float32)


def _energy(values: Float32Array) -> float:
    flat = values.ravel()
    return float(flat @ flat) / max(flat.size, 1)


def _shrink(grey: Float32Array) -> Float32Array:
    """Means of cells: float32 ``[SMALL, SMALL]``."""
    edges = [np.arange(SMALL + 1) * side // SMALL for side in grey.shape]
    if min(grey.shape) < SMALL:  # repeat pixels
        return grey[np.ix_(*(edge[:-1] for edge in edges))]
    sums = np.add.reduceat(np.add.reduceat(grey, edges[0][:-1], 0), edges[1][:-1], 1)
    means: Float32Array = (sums / np.outer(*map(np.diff, edges))).astype(np.float32)
    return means


def _bounds(values: Sequence[float], prior: float) -> tuple[float, float]:
    """Between which a measure of one more image lies."""
    logs = np.log(np.maximum(values, _LEAST))
    dof = PRIOR_SHOTS + len(logs) - 1
    square = PRIOR_SHOTS * prior**2 + float(np.square(logs - logs.mean()).sum())
    width = SPREADS * math.sqrt(square / dof * (1 + 1 / len(logs)))
    return math.exp(logs.mean() - width), math.exp(logs.mean() + width)


def _student_quantile(probability: float, dof: int) -> float:
    """Quantile of Student's t (Cornish and Fisher): within 0.5 % from 8 degrees of freedom."""
    z = NormalDist().inv_cdf(probability)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / dof + second / dof**2
