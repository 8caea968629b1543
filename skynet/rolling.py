"""Where in new bytes any block of an old version begins: at every offset, not only at its own.

The weak checksum of a block, Adler-32 of its beginning, is two sums modulo a prime, so the
checksums at all offsets of a stretch come out of running sums: rsync's rolling search, as
arithmetic on arrays.

delta.py imports this room only when it meets a change, since numpy takes 0.1 s to load.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from skynet.blocks import WEAK_BYTES, Signature, strong

_PRIME = 65521  # of Adler-32
_SPREAD = np.uint32(0x9E3779B1)  # multiplying with it mixes all bits into the high ones
_SPARSE = 64  # slots of the filter per block


class Finder:
    """Finds the blocks of a signature, but for a last one that is shorter, by their content.

    stretch: how many offsets are searched at once; the arrays for more do not fit into a cache.
    """

    stretch = 1 << 15

    def __init__(self, signature: Signature) -> None:
        self._length = min(WEAK_BYTES, signature.block)
        whole = signature.size // signature.block
        # Of blocks that are equal the first one stands for all.
        self._numbers = {signature.block_digest(n): n for n in reversed(range(whole))}
        self._weaks = np.unique(np.frombuffer(signature.weaks, ">u4", whole).astype(np.uint32))
        bits = max((_SPARSE * whole).bit_length(), 16)
        self._shift = np.uint32(32 - bits)
        slots = np.zeros(1 << bits, np.bool_)
        slots[self._slots(self._weaks)] = True
        self._filter = np.packbits(slots, bitorder="little")  # as bytes it would not fit a cache

    def number(self, content: memoryview) -> int | None:
        """The number of an old block with this content; None if there is none."""
        return self._numbers.get(strong(content))

    def offsets(self, view: memoryview, start: int, stop: int) -> list[int]:
        """Where in [start, stop), 1 to `stretch` offsets, a block of equal checksum begins.

        `view` goes on for a whole block behind the last of these offsets.
        """
        weaks = _weaks(view, self._length, start, stop)
        slots = self._slots(weaks)
        bits = self._filter.take((slots >> 3).astype(np.intp)) >> (slots & 7).astype(np.uint8)
        maybe = np.flatnonzero((bits & 1).view(np.bool_))
        nearest = self._weaks.searchsorted(weaks[maybe]).clip(max=len(self._weaks) - 1)
        found = maybe[self._weaks[nearest] == weaks[maybe]]
        return [start + offset for offset in found.tolist()]

    def _slots(self, weaks: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        return (weaks * _SPREAD) >> self._shift


def _weaks(view: memoryview, length: int, start: int, stop: int) -> npt.NDArray[np.uint32]:
    """Adler-32 of the `length` bytes from each offset in [start, stop) on.

    One offset further a byte x leaves and a byte y comes. The low half, 1 + the sum of all bytes,
    changes by y - x. The high half is the sum of all values that the low half went through: it
    changes by the new low half - 1 - length * x.
    """
    first = zlib.adler32(view[start : start + length])
    content = np.frombuffer(view, np.uint8)
    gone = _sums(content[start : stop - 1])
    low = _sums(content[start + length : stop - 1 + length])
    low -= gone
    low += first & 0xFFFF
    high = np.subtract(low, 1, dtype=np.int64)
    high[0] = first >> 16
    np.cumsum(high, out=high)
    high -= np.multiply(gone, length, dtype=np.int64)
    high -= high // _PRIME * _PRIME  # % is not vectorised, and three times as slow
    low -= low // _PRIME * _PRIME
    weaks = high.astype(np.uint32)
    weaks <<= 16
    weaks |= low.view(np.uint32)
    return weaks


def _sums(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """The sums of the first 0, 1, 2, ... bytes. Those of one stretch are far below 2**31."""
    sums = np.zeros(len(content) + 1, np.int32)
    np.cumsum(content, dtype=np.int32, out=sums[1:])
    return sums
