"""How well a sync keeps to the rate that it was told, for scripts/bench."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

LOOK_SECONDS = 0.25  # between two readings
MINUTE = 60.0
EDGE = 0.01  # of the data: what comes before and after is connecting, and recording what was done


class Reading(NamedTuple):
    """So many bytes had gone both ways since the beginning. seconds: from any beginning."""

    seconds: float
    moved: int


class Readings:
    """Reads a counter now and then. moved: bytes so far; its first answer counts as none."""

    def __init__(self, moved: Callable[[], int]) -> None:
        self._moved = moved
        self._before = moved()
        self.taken: list[Reading] = []

    def look(self) -> bool:
        """Read it, unless that was done just now; whether that is enough, which it never is."""
        now = time.monotonic()
        if not self.taken or now - self.taken[-1].seconds >= LOOK_SECONDS:
            self.taken.append(Reading(now, self._moved() - self._before))
        return False


def strayed(readings: Sequence[Reading], rate: int, size: int) -> float | None:
    """The farthest that the rate of any minute was from `rate`, as a part of it.

    rate: in bytes a second; size: of the data. None if sending them took less than a minute.
    """
    sending = [each for each in readings if EDGE * size <= each.moved <= (1 - EDGE) * size]
    farthest = None
    start = 0
    for end in sending:
        while start + 1 < len(sending) and end.seconds - sending[start + 1].seconds >= MINUTE:
            start += 1
        first = sending[start]
        if (seconds := end.seconds - first.seconds) >= MINUTE:
            off = abs((end.moved - first.moved) / seconds / rate - 1)
            farthest = max(farthest or 0.0, off)
    return farthest
