"""How much may be under way at once: enough to fill the line, so little that nobody waits for long.

On a slow line all that was sent ahead stands in a queue, and whatever is asked then stands behind
it: other files, and the calls that keep the lease. So of what the server has not acknowledged there
may be as much as the line moves in a moment, by the rate at which it does. That is at least twice
what the line itself holds, so a line that can move more is not kept from it.

It begins with little, and finds out within some round trips how much that is. Only while somebody
is held back does the rate tell what the line can do, or if it is more than was known.

Where others fill that queue as well, holding back would only leave the line to them. It is given up
where it costs, and tried again later.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

LOOK_SECONDS = 0.5  # a rate is measured for; in the beginning for less:
FIRST_LOOKS, FIRST_SECONDS = 4, 0.1
LOOKS = 20  # of the last so many the best counts: a server may pause
AHEAD_SECONDS = 0.25  # of what the line moves may wait in the queue
LEAST, FIRST = 512 << 10, 4 << 20  # bytes
# Holding back costs if so many looks on end had less than this part of what others before had.
WORTH = 0.75
SPELLS = 3  # of so many looks are compared with, and nothing is held back for


class Backlog:
    """Measures how fast content is acknowledged. clock: seconds, from any beginning."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: float | None = None
        self._bytes = 0
        self._was_short = False
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._in_spell = 0  # looks since the last spell
        self._spells: deque[float] = deque(maxlen=SPELLS)  # the mean rate of each
        self._free = 0  # spells for which nothing is held back

    def interrupt(self) -> None:
        """Nothing is under way for a while."""
        with self._lock:
            self._begun = None

    def note(self, count: int, round_trip: float, *, is_short: bool) -> bool:
        """So many bytes are acknowledged; whether `most` may be another now.

        is_short: whether somebody waits until less is under way.
        """
        with self._lock:
            now = self._clock()
            if self._begun is None:
                self._begin(now)
                return False
            self._bytes += count
            self._was_short |= is_short
            seconds = now - self._begun
            if seconds < self._look(round_trip):
                return False
            rate = self._bytes / seconds
            tells = self._was_short or rate > max(self._looks, default=rate)
            self._begin(now)
            if tells:
                self._judge(rate)
            return tells

    def _begin(self, now: float) -> None:
        self._begun, self._bytes, self._was_short = now, 0, False

    def _look(self, round_trip: float) -> float:
        if len(self._looks) < FIRST_LOOKS:
            return min(LOOK_SECONDS, max(FIRST_SECONDS, 2 * round_trip))
        return LOOK_SECONDS

    def _judge(self, rate: float) -> None:
        self._looks.append(rate)
        self._in_spell += 1
        if self._in_spell < LOOKS:
            return
        self._in_spell = 0
        mean = sum(self._looks) / LOOKS
        if self._free:
            self._free -= 1
        elif mean < WORTH * max(self._spells, default=0.0):
            self._free = SPELLS
        self._spells.append(mean)

    def most(self, round_trip: float) -> int | None:
        """Bytes that may be unacknowledged; None for any number. round_trip: of an idle line."""
        with self._lock:
            if self._free:
                return None
            if not self._looks:
                return FIRST
            return max(LEAST, int(max(self._looks) * (AHEAD_SECONDS + 2 * round_trip)))
