"""How long to wait before trying again: ever longer, up to a cap, and never in step. Pure."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """first, cap: seconds. random: gives numbers from 0 to 1, so that many do not come at once."""

    def __init__(self, first: float, cap: float, random: Callable[[], float]) -> None:
        self._first = first
        self._cap = cap
        self._random = random
        self._tries = 0

    def next(self) -> float:
        """Seconds to wait now: half of what it could be at most, or more."""
        longest = min(self._cap, self._first * 2.0 ** min(self._tries, 60))
        self._tries += 1
        return longest * (1 + self._random()) / 2

    def reset(self) -> None:
        """It worked: begin with the shortest wait again."""
        self._tries = 0
