"""What of a new version of a file the old version already holds, so that only the rest is sent.

The new file is read once, front to back, beside the signature of the old one (blocks.py).

1. As long as the next old block is what comes next, that is a copy.
2. Where it is not, the change may be in place: are the blocks behind it where they were?
3. Any old block may begin at any offset of what lies between: a rolling search (rolling.py).

A match is a whole block, for there are no old bytes here to extend it with; so what is sent beyond
the change itself is less than two blocks for each place that was changed.

The search is some forty times as slow as all the rest, so it is bounded. It looks at every offset
until it has looked at `budget` bytes and a sixteenth of what was copied, or until as much was
copied as the old version has. From then on it looks at the offsets of one block in PROBES, and
back from what it finds. Not found then are runs of old blocks elsewhere than expected that are
shorter than PROBES + 1 blocks, and up to PROBES blocks at the beginning of longer ones. The last
block of the old file, if it is shorter than the others, is found only behind its predecessor or in
its place. Where very many offsets have the weak checksum of a block and are none, only the first
of them are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest
from typing import TYPE_CHECKING, Protocol

import xxhash

from skynet.blocks import Signature, strong

if TYPE_CHECKING:
    from skynet.rolling import Finder

SEARCH_BUDGET = 1 << 24  # bytes: a fifth of a second
PROBES = 64  # blocks of which one is searched when the budget is spent
MAX_RANGES = 4096
MIN_COPY = 4096  # bytes: a shorter copy costs more as a request than as content

_PIECE = 1 << 20  # bytes of one read, small enough to be hashed in the cache
_EARNED = 16  # bytes copied for each byte more that may be searched
_CHECKED = 1 << 20  # bytes of a stretch's candidates that are hashed, beside the first 8 blocks


class Source(Protocol):
    """The new file, open, read once from front to back."""

    def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`; b"" at the end."""


@dataclass(frozen=True, slots=True)
class Copy:
    """`length` bytes of the new file that the old one holds from `offset` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Data:
    """`length` bytes of the new file, from `offset` on in the new file itself, to be sent."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Delta:
    """How to make the new file: its ranges in order, without gaps, no two that could be one.

    size and digest (xxh3-128) are those of the whole new content.
    """

    ranges: tuple[Copy | Data, ...]
    size: int
    digest: bytes

    @property
    def copied(self) -> int:
        """Bytes that the old file holds."""
        return sum(r.length for r in self.ranges if isinstance(r, Copy))

    @property
    def sent(self) -> int:
        """Bytes that have to be sent."""
        return self.size - self.copied


def compare(
    signature: Signature,
    source: Source,
    *,
    budget: int = SEARCH_BUDGET,
    max_ranges: int = MAX_RANGES,
) -> Delta:
    """The delta from the version that `signature` is of to what `source` reads.

    budget: bytes to search without finding anything, see the module's text. max_ranges: beyond
    that many the shortest copies are sent instead. Raises what reading raises.
    """
    return _Comparison(signature, _Window(source), _Ranges(max_ranges), budget).run()


class _Window:
    """The new file from the first byte on that is not decided about, as far as it was read."""

    def __init__(self, source: Source) -> None:
        self.offset = 0  # in the file
        self._source = source
        self._hash = xxhash.xxh3_128()
        self._data = b""
        self._begin = 0

    def ahead(self, length: int) -> memoryview:
        """What comes next: at least `length` bytes, fewer only at the end of the file."""
        while (missing := length - len(self._data) + self._begin) > 0:
            piece = self._source.read(max(_PIECE, missing))
            if not piece:
                break
            self._hash.update(piece)
            rest = self._data[self._begin :]
            self._data = rest + piece if rest else piece
            self._begin = 0
        return memoryview(self._data)[self._begin :]

    def skip(self, length: int) -> None:
        self._begin += length
        self.offset += length

    def digest(self) -> bytes:
        """xxh3-128 of all that was read."""
        return self._hash.digest()


class _Ranges:
    """Collects ranges: merged, none of the copies short, at most `limit` in the end."""

    def __init__(self, limit: int) -> None:
        self.copied = 0
        self._limit = limit
        self._ranges: list[Copy | Data] = []

    def copy(self, offset: int, length: int) -> None:
        self.copied += length
        _append(self._ranges, Copy(offset, length))
        if len(self._ranges) > 4 * self._limit:  # else they could take any amount of memory
            self._thin()

    def data(self, offset: int, length: int) -> None:
        _append(self._ranges, Data(offset, length))

    def finish(self) -> tuple[Copy | Data, ...]:
        self._keep({i for i, length in self._copies() if length >= MIN_COPY})
        if len(self._ranges) > self._limit:
            self._thin()
        return tuple(self._ranges)

    def _thin(self) -> None:
        """Keep the longest copies; each comes with the data behind it, and there is data first."""
        longest = nlargest((self._limit - 1) // 2, self._copies(), key=lambda copy: copy[1])
        self._keep({i for i, _ in longest})

    def _copies(self) -> Iterator[tuple[int, int]]:
        """(index, length) of every copy."""
        return ((i, r.length) for i, r in enumerate(self._ranges) if isinstance(r, Copy))

    def _keep(self, kept: set[int]) -> None:
        """Turn all copies but these into data."""
        ranges: list[Copy | Data] = []
        offset = 0
        for i, part in enumerate(self._ranges):
            _append(ranges, part if i in kept else Data(offset, part.length))
            offset += part.length
        self._ranges = ranges


def _append(ranges: list[Copy | Data], part: Copy | Data) -> None:
    """Add a range behind the others, or to the last one if it continues that."""
    last = ranges[-1] if ranges else None
    if last is not None and type(last) is type(part) and last.offset + last.length == part.offset:
        ranges[-1] = type(part)(last.offset, last.length + part.length)
    elif part.length:
        ranges.append(part)


class _Comparison:
    """One new file on its way past the blocks of the old one.

    _next: the old block that is expected at the window's offset; there may be no such block.
    """

    def __init__(self, signature: Signature, window: _Window, ranges: _Ranges, budget: int) -> None:
        self._signature = signature
        self._block = signature.block
        self._window = window
        self._ranges = ranges
        self._budget = budget
        self._searched = 0
        self._next = 0
        self._stride = 2 * self._block

    def run(self) -> Delta:
        while self._window.ahead(1):
            if not self._follow():
                self._leap()
        return Delta(self._ranges.finish(), self._window.offset, self._window.digest())

    def _follow(self) -> bool:
        """Copy the blocks that come as expected, in what is read; whether there is any."""
        view = self._window.ahead(self._block)
        number, end = self._next, 0
        while self._is_block(number, view[end:]):
            end += self._signature.length(number)
            number += 1
        if end:
            self._ranges.copy(self._next * self._block, end)
            self._window.skip(end)
            self._next = number
            self._stride = 2 * self._block
        return end > 0

    def _leap(self) -> None:
        """Go on to where an old block is known to be, or over a stride of data."""
        view = self._window.ahead(self._stride + self._block)
        number = self._finder.number(view[: self._block])
        if number is not None:
            self._next = number
            return
        gap = self._gap(view)
        if gap is not None:
            found = self._search(view, 1, gap - self._block + 1)
        else:
            gap = min(self._stride, len(view))
            found = self._search(view, 1, min(gap, len(view) - self._block + 1))
        if found is not None:
            gap, self._next = found
        else:
            self._next += gap // self._block
            self._stride = min(2 * self._stride, max(_PIECE, 2 * self._block))
        self._ranges.data(self._window.offset, gap)
        self._window.skip(gap)

    def _gap(self, view: memoryview) -> int | None:
        """Bytes up to the nearest block that is where it was expected, if within a stride."""
        for distance in range(1, min(self._stride, len(view)) // self._block + 1):
            start = distance * self._block
            if self._is_block(self._next + distance, view[start:]):
                return start
        return None

    def _is_block(self, number: int, view: memoryview) -> bool:
        """Whether `view` begins with that old block."""
        length = self._signature.length(number)
        if not 0 < length <= len(view):
            return False
        return strong(view[:length]) == self._signature.block_digest(number)

    @cached_property
    def _finder(self) -> Finder:
        from skynet.rolling import Finder

        return Finder(self._signature)

    def _search(self, view: memoryview, start: int, stop: int) -> tuple[int, int] | None:
        """(offset, number) of an old block, the first found that begins in [start, stop)."""
        for begin, end in self._stretches(start, stop):
            self._searched += end - begin
            candidates = self._finder.offsets(view, begin, end)
            for offset in candidates[: 8 + _CHECKED // self._block]:
                number = self._finder.number(view[offset : offset + self._block])
                if number is not None:
                    return self._back(view, offset, number)
        return None

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The offsets to search, in stretches: all of them, or probes when they were enough."""
        while start < stop:
            end = min(start + self._finder.stretch, stop)
            if self._is_sparing():
                period = PROBES * self._block
                into = (self._window.offset + start) % period
                if into > self._block:
                    start += period - into
                    continue
                end = min(end, start + self._block - into + 1)
            yield start, end
            start = end

    def _is_sparing(self) -> bool:
        copied = self._ranges.copied
        return copied >= self._signature.size or (
            self._searched >= self._budget + copied // _EARNED
        )

    def _back(self, view: memoryview, offset: int, number: int) -> tuple[int, int]:
        """The beginning, in `view`, of the run of old blocks that this one belongs to."""
        signature = self._signature
        if signature.block_digest(self._next) == signature.block_digest(number):
            number = self._next  # of equal blocks, the one that keeps the order
        while offset >= self._block and number > 0:
            if not self._is_block(number - 1, view[offset - self._block :]):
                break
            offset -= self._block
            number -= 1
        return offset, number
