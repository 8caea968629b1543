"""Whether one more channel is worth opening: as long as the last one has made it faster.

Each channel moves at most its window in a round trip, and the link, the server's disk or this
processor may be what is slow; so it is tried. Each number of channels is judged once, over a few
round trips in which large files are under way; the first one that gains too little is the last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

WORTH = 1.1  # times the rate there was with one channel less
ROUND_TRIPS = 8  # that a number of channels is measured for
SHORTEST_LOOK = 0.5  # seconds, where the round trip is short


class Gain:
    """Compares the rates of acknowledged bytes. clock: seconds, from any beginning."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._width = 0  # channels that are being measured, 0 for none
        self._settled = 0.0  # when a new channel has come up to its speed
        self._begun: float | None = None
        self._bytes = 0
        self._judged = 0  # channels up to which all is known
        self._rate = 0.0
        self._is_enough = False

    def interrupt(self) -> None:
        """No large file was under way for a while."""
        with self._lock:
            self._width = 0

    def note(self, count: int, width: int, round_trip: float) -> bool:
        """So many bytes are acknowledged, with so many channels; whether to open one more."""
        if self._is_enough or width <= self._judged:
            return False
        look = max(SHORTEST_LOOK, ROUND_TRIPS * round_trip)
        with self._lock:
            now = self._clock()
            if width != self._width:
                self._width, self._settled, self._begun = width, now + look / 2, None
            if now < self._settled:
                return False
            if self._begun is None:
                self._begun, self._bytes = now, 0
                return False
            self._bytes += count
            seconds = now - self._begun
            return seconds >= look and width > self._judged and self._judge(self._bytes / seconds)

    def _judge(self, rate: float) -> bool:
        self._judged = self._width
        self._is_enough = rate < self._rate * WORTH
        self._rate = rate
        return not self._is_enough
