"""How many millimetres a pixel of a photograph shows."""

from __future__ import annotations

from fsad_edge.errors import InputError

#: The least and the greatest millimetres that a pixel of a photograph may show: from a nanometre,
#: under an electron microscope, to a metre.
LEAST_MM, MOST_MM = 1e-6, 1000.0


def check_mm_per_px(given: float, what: str = "--mm-per-px") -> float:
    """Refuse a scale that no photograph has.

    Args:
        given: millimetres that a pixel of the photograph shows, at the full resolution of its file.
        what: what the user calls it.

    Raises:
        InputError: it is out of bounds, or no number.

    Example:
        >>> check_mm_per_px(0.05)
        0.05
    """
    if not LEAST_MM <= given <= MOST_MM:
        raise InputError(
            f"{what} {given:g} is not from {LEAST_MM:g} to {MOST_MM:g}: give the millimetres that "
            "one pixel of the photograph shows."
        )
    return given


def read_mm_per_px(text: str) -> float:
    """A scale from a text; raises as :func:`check_mm_per_px`."""
    try:
        given = float(text)
    except ValueError:
        raise InputError(
            f"--mm-per-px {text} is neither a number nor the name of a model in service with one: "
            "give the millimetres that one pixel of the photograph shows, as 0.05 or MODEL=0.05."
        ) from None
    return check_mm_per_px(given)
