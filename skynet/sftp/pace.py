"""How fast a client sends: one bucket of bytes for all channels of a connection.

Time earns bytes at the rate that holds; who wants to send claims some and waits until all that
was claimed up to its own is earned. So turns are kept, no wait holds a lock, and a rate that
changes counts at once for those who wait already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_SECONDS = 0.25  # what may be earned ahead while nobody sends
SLICE_SECONDS = 0.0625  # what is claimed at once, within these bounds, in bytes:
SHORTEST_SLICE = 1 << 10
LONGEST_SLICE = 64 << 10
LONGEST_SLEEP = 0.1  # seconds until a new rate, or the end of a session, is noticed
SHORTEST_SLEEP = 0.001  # sleeps are not exact; what one is too long is earned all the same


class Pace:
    """Gives out bytes to send. rate: those that may be sent in a second now, None for no limit."""

    def __init__(
        self,
        rate: Callable[[], float | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = rate
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._looked_at = clock()
        self._earned = 0.0
        self._claimed = 0

    def take(self, wanted: int, held: Callable[[], None]) -> int:
        """Wait until some of `wanted` bytes may be sent; how many of them.

        held: called every moment while this waits; what it raises ends the wait.
        """
        with self._lock:
            length = min(wanted, _slice(self._earn()))
            self._claimed += length
            mine = self._claimed
        while (seconds := self._until_earned(mine)) > 0:
            held()
            self._sleep(min(max(seconds, SHORTEST_SLEEP), LONGEST_SLEEP))
        return length

    def _until_earned(self, mine: int) -> float:
        """Seconds until so much is earned, if the rate stays; 0 if it is."""
        with self._lock:
            rate = self._earn()
            if rate is None or self._earned >= mine:
                return 0.0
            return (mine - self._earned) / rate

    def _earn(self) -> float | None:
        """Bring what is earned up to now; the rate."""
        now, rate = self._clock(), self.rate()
        if rate is None:
            self._earned = float(self._claimed)
        else:
            earned = self._earned + (now - self._looked_at) * rate
            ahead = max(rate * BURST_SECONDS, _slice(rate))
            self._earned = min(earned, self._claimed + ahead)
        self._looked_at = now
        return rate


def _slice(rate: float | None) -> int:
    if rate is None:
        return LONGEST_SLICE
    return max(SHORTEST_SLICE, min(LONGEST_SLICE, int(rate * SLICE_SECONDS)))
