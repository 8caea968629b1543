"""A local file cut into writes, in order, and how much of it the server has acknowledged.

All lanes of an upload take their pieces here, so the file is read once, from front to back, and
hashed as it is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple, Protocol

import xxhash


class Source(Protocol):
    """A local file, open, read once from front to back. identity: its stat when it was opened."""

    size: int
    identity: bytes

    def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`; b"" at the end."""

    def verify(self) -> bytes:
        """The identity to record, to be called after the last read; TornRead if it has changed."""

    def close(self) -> None:
        """Close the file."""


class Mark(NamedTuple):
    """The beginning of a file: so many bytes, and their xxh3-128."""

    length: int
    digest: bytes


class Piece(NamedTuple):
    """What one write carries. until: the mark at its end."""

    offset: int
    data: bytes
    until: Mark


NOTHING = Mark(0, xxhash.xxh3_128().digest())


class Trail:
    """How far an upload has got: noted by the threads that send it, asked by any other.

    What counts is acknowledged from the file's beginning without a gap. Behind a gap it is kept as
    runs, each as its two ends, so there are never more of them than writes in flight.

    resumed: told how many bytes an earlier run had sent, when the upload goes on from there.
    """

    def __init__(self, resumed: Callable[[int], None]) -> None:
        self._resumed = resumed
        self._lock = threading.Lock()
        self._identity = b""
        self._ends: dict[int, Mark] = {0: NOTHING}  # where a run begins -> where it ends
        self._begins: dict[int, int] = {0: 0}  # and the other way round

    def begin(self, identity: bytes, mark: Mark) -> None:
        """The file of this identity is sent from `mark` on."""
        with self._lock:
            self._identity = identity
            self._ends, self._begins = {0: mark}, {mark.length: 0}
        self._resumed(mark.length)

    def acknowledge(self, piece: Piece) -> None:
        """The server has it."""
        with self._lock:
            begin = self._begins.pop(piece.offset, piece.offset)
            end = self._ends.pop(piece.until.length, piece.until)
            self._ends[begin], self._begins[end.length] = end, begin

    def reached(self) -> tuple[bytes, Mark]:
        """(the file's identity, how much of its beginning is acknowledged)."""
        with self._lock:
            return self._identity, self._ends[0]


def whole(source: Source, limit: int, tell: Callable[[bytes], None] | None) -> tuple[bytes, bytes]:
    """(content, its xxh3-128) of a file that is no longer than `limit`. tell: as of Pieces."""
    data = source.read(limit)
    if tell is not None:
        tell(data)
    return data, xxhash.xxh3_128_digest(data)


class Pieces:
    """Cuts a source into writes of at most `length` bytes; shared by all lanes of a file.

    tell: given all that is read, in order.
    """

    def __init__(
        self, source: Source, length: int, tell: Callable[[bytes], None] | None = None
    ) -> None:
        self._source = source
        self.length = length
        self._tell = tell
        self._hash = xxhash.xxh3_128()
        self._stopped = False
        self._offset = 0
        self._lock = threading.Lock()

    def next(self, limit: int) -> Piece:
        """The next piece, of at most `limit` bytes; of none at the end or after `stop`."""
        with self._lock:
            offset, limit = self._offset, min(limit, self.length)
            # A file that grows may have no end.
            data = b"" if self._stopped or offset > self._source.size else self._read(limit)
            return Piece(offset, data, Mark(self._offset, self._hash.digest()))

    def pass_over(self, end: int, limit: int) -> tuple[int, bytes]:
        """(offset, bytes) of what need not be sent, up to `end`; no bytes there or after `stop`."""
        with self._lock:
            limit = min(limit, end - self._offset)
            return self._offset, b"" if self._stopped or limit <= 0 else self._read(limit)

    def stop(self) -> None:
        """Hand out no more, since a write has failed."""
        self._stopped = True

    def digest(self) -> bytes:
        """xxh3-128 of all that was handed out or passed over."""
        return self._hash.digest()

    def _read(self, limit: int) -> bytes:
        data = self._source.read(limit)
        self._hash.update(data)
        self._offset += len(data)
        if self._tell is not None:
            self._tell(data)
        return data
