"""Decoders of PBM, PGM and PPM files whose samples are text or must be scaled, with numpy.

Pillow takes each sample in Python, and copies a block of the file for each comment in it: a file of
30 MB keeps it busy for seconds, and one of comments for minutes. These read the same samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from fsad_edge.runtime.arrays import AnyArray, UInt8Array

#: The names of the decoders, by Pillow's of the same samples.
DECODERS = {"ppm": "ppm_scaled_arrays", "ppm_plain": "ppm_plain_arrays"}
SCALED, PLAIN = DECODERS.values()

#: Bytes that are read at once.
_BLOCK = 1 << 17

#: Most digits of a number.
_DIGITS = 10

_LAST_WORD = re.compile(rb"\S*\Z")
_IS_SPACE = np.isin(np.arange(256), np.frombuffer(b" \t\n\v\f\r", np.uint8))


class _Decoder(ImageFile.PyDecoder):
    _pulls_fd = True

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Decode the whole image."""
        deep = self.mode == "I"
        out_most = 65535 if deep else 255
        wanted = self.state.xsize * self.state.ysize * Image.getmodebands(self.mode)
        out = np.empty(wanted, "<u4" if deep else np.uint8)
        count = 0
        for samples in self._samples():
            samples = samples[: wanted - count]
            if self.mode == "1":  # 1 is black
                eight: AnyArray = 255 - 255 * samples
            else:
                eight = np.rint(samples / self.args[-1] * out_most)
            out[count : count + len(samples)] = np.minimum(eight, out_most)
            count += len(samples)
            if count == wanted:
                break
        raw_mode = {"1": "1;8", "I": "I;32"}.get(self.mode, self.mode)
        self.set_as_raw(out[:count].tobytes(), raw_mode)
        return -1, 0

    def _samples(self) -> Iterator[AnyArray]:
        raise NotImplementedError

    def _read(self) -> bytes:
        assert self.fd is not None
        return bytes(self.fd.read(_BLOCK))


class _Scaled(_Decoder):
    """Binary samples whose highest value is not the one of their bytes."""

    def _samples(self) -> Iterator[AnyArray]:
        dtype = ">u2" if self.args[-1] > 255 else ">u1"
        while block := self._read():
            yield np.frombuffer(block, dtype, len(block) // np.dtype(dtype).itemsize)


class _Plain(_Decoder):
    """Samples as text."""

    def _samples(self) -> Iterator[AnyArray]:
        for text in self._texts():
            codes = np.frombuffer(text, np.uint8)
            digits = codes - np.uint8(48)
            wrong = np.flatnonzero((digits > (1 if self.mode == "1" else 9)) & ~_IS_SPACE[codes])
            end = int(wrong[0]) if len(wrong) else len(codes)
            if self.mode == "1":  # a digit is a sample
                yield digits[:end][digits[:end] < 2]
            else:
                numbers = _numbers(digits[:end])
                if len(numbers) and numbers.max() > self.args[-1]:
                    raise ValueError(f"a sample is above {self.args[-1]}")
                yield numbers
            if len(wrong):  # what follows the last sample is not asked for
                raise ValueError("a sample is no number")

    def _texts(self) -> Iterator[bytes]:
        """The file without its comments, cut between numbers."""
        rest, in_comment = b"", False
        while block := self._read():
            text, in_comment = _without_comments(block, in_comment)
            text = rest + text
            rest = b""
            if not in_comment and self.mode != "1":
                # Only the end is looked at, where a number that is longer is refused.
                tail = _LAST_WORD.search(text, max(0, len(text) - _DIGITS - 1))
                rest = tail[0] if tail else b""
                if len(rest) > _DIGITS:
                    raise ValueError("a sample has too many digits")
            yield text[: len(text) - len(rest)]
        yield rest


def _without_comments(block: bytes, in_comment: bool) -> tuple[bytes, bool]:
    """A piece of a text that may begin in a comment, and whether one goes on behind it."""
    if not in_comment and b"#" not in block:
        return block, False
    codes = np.frombuffer(block, np.uint8)
    begun = np.cumsum(codes == ord("#")) + in_comment
    ended = np.maximum.accumulate(np.where((codes == ord("\n")) | (codes == ord("\r")), begun, 0))
    return codes[begun == ended].tobytes(), bool(begun[-1] > ended[-1])


def _numbers(digits: UInt8Array) -> AnyArray:
    """The numbers that stand in a text, of which ``digits`` are the characters' values."""
    is_digit = np.concatenate(([False], digits < 10, [False]))
    edges = np.flatnonzero(is_digit[1:] != is_digit[:-1])
    starts, ends = edges[::2], edges[1::2]
    lengths = ends - starts
    most = int(lengths.max()) if len(lengths) else 0
    if most > _DIGITS:
        raise ValueError("a sample has too many digits")
    values = np.zeros(len(ends), np.int64)
    for place in range(most):
        has = lengths > place
        values[has] += digits[ends[has] - 1 - place].astype(np.int64) * 10**place
    return values


Image.register_decoder(SCALED, _Scaled)
Image.register_decoder(PLAIN, _Plain)
