"""What black and white are in shots of more than 8 bits: by the user, the files or all shots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsad_edge.errors import InputError
from fsad_edge.runtime.image_scale import (
    FoundSamples,
    ImageScale,
    likely_range,
    without_lower_bytes,
)
from fsad_edge.runtime.images import samples_of
from fsad_edge.runtime.sample_formats import Samples

_SIXTEEN = {Samples.GREY16, Samples.COLOUR16}

Found = dict[Path, FoundSamples]


def settle_scale(files: Sequence[Path], asked: ImageScale) -> ImageScale:
    """Find out what black and white are in the shots, for them and for all images scored later.

    Args:
        files: the shots.
        asked: what the user says; it is taken where it says anything.

    Returns:
        ``asked``, completed by what all shots that have such samples say of themselves.

    Raises:
        InputError: the shots do not say it, or contradict the user.
        ImageError: a shot cannot be read.
    """
    found = {file: samples for file in files if (samples := samples_of(file)) is not None}
    sixteen = {
        file: one
        for file, one in found.items()
        if one.format.kind in _SIXTEEN and not one.format.certain
    }
    others = {file: one for file, one in found.items() if one.format.kind not in _SIXTEEN}
    return ImageScale(
        _settle_bits(sixteen, asked.bits) if sixteen else asked.bits,
        _settle_range(others) if others and asked.range is None else asked.range,
    )


def _settle_bits(found: Found, asked: int | None) -> int:
    judged = {file: one.brightness for file, one in found.items() if one.brightness is not None}
    file = max(judged, key=lambda file: (judged[file].bits, judged[file].most))
    declared = {one.format.bits for one in found.values()}
    bits = asked or (declared.pop() if len(declared) == 1 else None)
    # One exposure may be darker than the others, and one file may be of another camera.
    if bits is None and 2 * sum(one.fills for one in judged.values()) >= len(judged):
        bits = 16
    upper_only = [file for file, one in found.items() if one.format.upper_only]
    if bits != 16 and upper_only:
        raise InputError(without_lower_bytes(str(upper_only[0])))
    if bits is None:
        dark = {file: one for file, one in judged.items() if not one.fills}
        file = max(dark, key=lambda file: (dark[file].bits, dark[file].most))
        guess, most = dark[file].camera_bits, max(one.most for one in judged.values())
        raise InputError(
            f"{file} is a 16-bit file, and most shots do not fill 16 bits (the brightest pixel "
            f"over all shots is {most}): it looks like {guess} bits; say so with  --bits {guess}  "
            f"(bits={guess} in Python), or with  --bits 16  where the photographs are that dark."
        )
    if judged[file].bits > bits:
        more = judged[file].camera_bits
        raise InputError(
            f"{file} holds many values above those of {bits} bits, up to {judged[file].most}, "
            f"which {bits} bits do not hold: give more with  --bits {more}  (bits={more} in "
            "Python)."
        )
    return bits


def _settle_range(found: Found) -> tuple[float, float]:
    declared = {one.format.range for one in found.values()}
    agreed = declared.pop() if len(declared) == 1 else None
    if agreed is not None:
        return agreed
    least = min(one.least for one in found.values())
    most = max(one.most for one in found.values())
    kinds = {one.format.kind for one in found.values()}
    if kinds == {Samples.FLOAT} and least >= 0 and most <= 1:
        return 0.0, 1.0
    file = max(found, key=lambda file: max(found[file].most, -found[file].least))
    kind = found[file].format.kind
    low, high = likely_range(least, most, kind)
    raise InputError(
        f"{file} is a {kind} file, and the values over all shots go from {least:g} to {most:g}: "
        f"say which are black and white, probably with  --range {low:g} {high:g}  "
        f"(range=({low:g}, {high:g}) in Python)."
    )
