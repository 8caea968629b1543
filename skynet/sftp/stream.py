"""A byte stream to an SFTP server, and the same kept to a pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from skynet.errors import LinkLost
from skynet.sftp.pace import Pace

# Bytes handed to the transport at once. They fill four SSH packets of the usual size to the last
# byte: a few bytes more would cost a packet of their own.
SEND_SLICE = 4 * 32704
COPIED_AT_ONCE = 1 << 20  # bytes; what is more is copied little by little
# So many bytes hold several whole requests: if nothing was heard since they were sent, the server
# owes an answer, and to be kept to the pace is no excuse for its silence any more.
OWES_AN_ANSWER = 512 * 1024


class Stream(Protocol):
    """A byte stream to an SFTP server: a channel of SSH, or a pipe to a server process."""

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; LinkLost when the link is gone."""

    def recv(self, limit: int) -> bytes:
        """Some bytes, at most `limit`; b"" when the server has closed the stream."""

    def close(self) -> None:
        """Give the stream up; a blocked `recv` returns."""

    @property
    def room(self) -> int:
        """Bytes that the server takes at once; 0 where that cannot be known."""


class PacedStream:
    """`stream`, which sends no faster than `pace` allows. One thread may send, one receive.

    noted: called when something was sent, and while the pace holds it back, so that this is not
    taken for a stall; but not if the server is silent although it owes answers.
    """

    room = 0  # whoever sends may have to wait, so the thread that receives must not

    def __init__(self, stream: Stream, pace: Pace, noted: Callable[[], None]) -> None:
        self._stream = stream
        self._pace = pace
        self._noted = noted
        self._sent = 0
        self._sent_when_heard = 0
        self._closed = False

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; LinkLost when the link is gone or the stream was closed."""
        view = memoryview(data)
        while view:
            length = self._pace.take(len(view), self._hold)
            self._stream.send(view[:length])
            self._sent += length
            self._hold()
            view = view[length:]

    def recv(self, limit: int) -> bytes:
        """As of `stream`: what is received is not limited."""
        data = self._stream.recv(limit)
        self._sent_when_heard = self._sent
        return data

    def close(self) -> None:
        """Give the stream up; a held `send` ends."""
        self._closed = True
        self._stream.close()

    def _hold(self) -> None:
        if self._closed:
            raise LinkLost("The stream was closed.")
        if self._sent - self._sent_when_heard < OWES_AN_ANSWER:
            self._noted()


def slices(chunks: list[bytes | memoryview]) -> Iterator[memoryview]:
    """All of it in pieces of at most SEND_SLICE bytes. `chunks` is emptied, to hold no more."""
    waiting: list[bytes | memoryview] = []
    length = 0
    if sum(map(len, chunks)) <= COPIED_AT_ONCE:
        yield from _cut(b"".join(chunks))
        chunks.clear()
    chunks.reverse()
    while chunks:
        waiting.append(chunks.pop())
        length += len(waiting[-1])
        if length >= SEND_SLICE:
            yield from _cut(b"".join(waiting))
            waiting, length = [], 0
    yield from _cut(b"".join(waiting))


def _cut(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[start : start + SEND_SLICE] for start in range(0, len(data), SEND_SLICE))
