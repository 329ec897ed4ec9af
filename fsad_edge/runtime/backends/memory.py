"""What is said where there is no memory for a run of many images."""

from __future__ import annotations

import re

#: What to do about it, for the end of an error's sentence.
FEWER_IMAGES = (
    "score fewer at once, by a smaller --batch of  fsad-edge bench  or --max-batch of  fsad-edge "
    "serve"
)

#: How ONNX Runtime, CUDA and the C++ library say that there is none.
_SAID = re.compile(r"failed to allocate|out of memory|bad.?alloc|alloc_?failed", re.IGNORECASE)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine failed because there is not enough memory.

    Example:
        >>> is_out_of_memory(RuntimeError("std::bad_alloc")), is_out_of_memory(ValueError("no"))
        (True, False)
    """
    return isinstance(error, MemoryError) or _SAID.search(str(error)) is not None
