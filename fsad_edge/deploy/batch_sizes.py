"""The batch sizes that an engine or a Triton model is made for: smallest, usual and largest."""

from __future__ import annotations

from fsad_edge.errors import InputError

#: The largest batch that can be asked for.
LARGEST_BATCH = 256

BatchSizes = tuple[int, int, int]


def parse_batch_sizes(text: str) -> BatchSizes:
    """Read ``8``, which stands for ``8,8,8``, or ``1,4,8``.

    Raises:
        InputError: the text is neither, or the numbers do not fit.
    """
    try:
        sizes = tuple(int(number) for number in text.split(","))
    except ValueError:
        sizes = ()
    return check_batch_sizes(sizes * 3 if len(sizes) == 1 else sizes, text)


def batch_words(sizes: BatchSizes) -> str:
    """Smallest, usual and largest number of images in a run, for people.

    Example:
        >>> batch_words((1, 1, 1)), batch_words((1, 4, 8)), batch_words((8, 8, 8))
        ('one image a run', '1 to 8 images a run, usually 4', '8 images a run')
    """
    least, usual, most = sizes
    if least == most:
        return "one image a run" if most == 1 else f"{most} images a run"
    return f"{least} to {most} images a run, usually {usual}"


def check_batch_sizes(sizes: tuple[int, ...], given: str | None = None) -> BatchSizes:
    """Refuse batch sizes that are not in ascending order, or too large.

    Args:
        sizes: smallest, usual and largest number of images in a run.
        given: what the user gave, for the error's sentence.

    Raises:
        InputError: they do not fit.
    """
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2] <= LARGEST_BATCH:
        shown = ",".join(map(str, sizes)) if given is None else given
        what = f"the batch size '{shown}' does not fit" if shown.strip() else "--batch is empty"
        raise InputError(
            f"{what}: take one number from 1 to {LARGEST_BATCH}, or MIN,OPT,MAX in ascending order "
            "(--batch)."
        )
    return sizes[0], sizes[1], sizes[2]
