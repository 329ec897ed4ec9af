"""The few batch sizes in which a GPU runs a model, and how images are spread over them.

A GPU's libraries look for the fastest algorithm of each convolution whenever the shape of its input
changes, which takes longer than a hundred images. In a few fixed sizes, each is looked for once.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

from fsad_edge.errors import InputError

#: The most images in one run on a GPU, unless another number is given, and the most that can be.
USUAL_MOST, LARGEST_MOST = 8, 256


def batch_sizes(most: int) -> tuple[int, ...]:
    """The sizes of runs of at most so many images: powers of two, and the number itself.

    Raises:
        InputError: the number is below 1 or above ``LARGEST_MOST``.

    Example:
        >>> batch_sizes(8), batch_sizes(12), batch_sizes(1)
        ((1, 2, 4, 8), (1, 2, 4, 8, 12), (1,))
    """
    if not (isinstance(most, int) and 1 <= most <= LARGEST_MOST):
        raise InputError(f"the most images in one run are 1 to {LARGEST_MOST}, not {most!r}.")
    return (*(1 << power for power in range((most - 1).bit_length())), most)


def pieces(count: int, sizes: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """How images are spread over runs of fixed sizes.

    Args:
        count: the number of images.
        sizes: the sizes, ascending.

    Yields:
        the images of a run, and its size: they fill the largest size while they can, and the rest
        goes into the smallest size that takes it.

    Example:
        >>> list(pieces(11, (1, 2, 4, 8)))
        [(slice(0, 8, None), 8), (slice(8, 11, None), 4)]
    """
    for start in range(0, count, sizes[-1]):
        stop = min(count, start + sizes[-1])
        yield slice(start, stop), sizes[bisect.bisect_left(sizes, stop - start)]
