"""How much content a channel holds: what was read here, and the server has not acknowledged.

Whoever reads content to send it asks for a ration first, and waits while a share of the memory is
held already. Under a limit it also waits while more is held than the limit sends in a moment, and
writes are short: so what is read is soon sent, and what is sent is soon acknowledged.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

HELD = 64 << 20  # bytes that all channels may hold
# Bytes of one channel: four times what OpenSSH lets through in a round trip.
MOST_OF_A_CHANNEL = 8 << 20
LONGEST_WRITE = 255 << 10  # as of OpenSSH; a server's own limit may be lower
SHORTEST_WRITE = 4 << 10
WRITE_SECONDS = 0.25  # of the limit: one write, within these bounds
HELD_SECONDS = 2.0  # of the limit: what all channels hold; longer than most round trips


class Limits(NamedTuple):
    """Bytes of one write, and those at which a channel reads no more."""

    write: int
    held: int


def limits(rate: float | None, channels: int) -> Limits:
    """For one of so many channels. rate: bytes a second that all of them may send, None for any."""
    if rate is None:
        return shares(HELD, channels)
    share = min(MOST_OF_A_CHANNEL, HELD // channels)
    write = max(SHORTEST_WRITE, min(LONGEST_WRITE, int(rate * WRITE_SECONDS)))
    # Two writes, so that one is on its way while the other is acknowledged.
    return Limits(write, max(2 * write, min(share, int(rate * HELD_SECONDS / channels))))


def shares(held: int, channels: int) -> Limits:
    """For one of so many channels that together hold so many bytes, if that is two writes each."""
    share = min(MOST_OF_A_CHANNEL, min(held, HELD) // channels)
    write = max(SHORTEST_WRITE, min(LONGEST_WRITE, share // 2))
    return Limits(write, max(2 * write, share))


class Ration:
    """A step of a conversation that is about to read content. It costs no round trip.

    length: once the conversation goes on, how many bytes it may read and write at once.
    """

    __slots__ = ("length",)

    def __init__(self) -> None:
        self.length = 0


class Rations(Generic[T]):
    """Counts what one channel holds. T: what waits for a ration.

    acknowledged: told what `release` is told.
    """

    def __init__(
        self, limits: Callable[[], Limits], acknowledged: Callable[[int], None] = lambda _: None
    ) -> None:
        self._limits = limits
        self._acknowledged = acknowledged
        self._lock = threading.Lock()
        # Apart, since each is written by one thread at a time; so neither needs the lock.
        self._read = 0
        self._released = 0
        self._waiting: deque[tuple[T, Ration]] = deque()

    @property
    def held(self) -> int:
        """Bytes that were read, and are not acknowledged."""
        return self._read - self._released

    @property
    def are_short(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def give(self, who: T, ration: Ration) -> bool:
        """Fill the ration; False if `who` has to wait for `next` to name it."""
        ration.length, most = self._limits()
        if self.held < most:
            return True
        with self._lock:
            if self.held < most:
                return True
            self._waiting.append((who, ration))
            return False

    def hold(self, count: int) -> None:
        """So many bytes were read and are to be sent. By one thread at a time."""
        self._read += count

    def release(self, count: int) -> None:
        """The server has answered the write of so many bytes. By one thread at a time."""
        self._released += count
        self._acknowledged(count)

    def next(self) -> T | None:
        """Who has waited longest, if there is a ration now. To be asked after each `release`."""
        with self._lock:  # also to see that nobody waits: somebody may be about to
            if not self._waiting:
                return None
            length, most = self._limits()
            if self.held >= most:
                return None
            who, ration = self._waiting.popleft()
        ration.length = length
        return who

    def clear(self) -> list[T]:
        """All who wait; they wait no longer."""
        with self._lock:
            waiting = [who for who, _ in self._waiting]
            self._waiting.clear()
            return waiting
