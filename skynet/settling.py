"""Settling: which files are still being written, by when they were last seen to change. Pure.

A file counts as finished once it was quiet for `settle` seconds, or when it was closed after
writing; but `settle_max` seconds after the first change it has waited long enough. Where no events
are, only its age tells, whenever it is looked at: it goes on changing for as long as it is younger
than `settle` at every look. Only a hint: a file that changes while it is sent is not published.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MAX_FILES = 20_000  # that are remembered; those seen longest ago are forgotten first


class _Activity(NamedTuple):
    first: float
    last: float
    done: bool


class _Wait(NamedTuple):
    """first: when it was found young. is_long: it has waited long enough, and was young still."""

    first: float
    is_long: bool


class Settling:
    """Times are seconds of any one clock that never jumps."""

    def __init__(self, settle: float, settle_max: float) -> None:
        self._settle = settle
        self._settle_max = settle_max
        self._seen: dict[bytes, _Activity] = {}  # in the order of their last change
        self._young: dict[bytes, _Wait] = {}  # not seen, but found young, and never quiet since

    def saw(self, path: bytes, now: float, *, done: bool) -> None:
        """The file changed; done: and was closed after writing, or moved here as it is."""
        before = self._seen.pop(path, None)
        is_going_on = before is not None and not before.done and now - before.last < self._settle
        first = before.first if before is not None and is_going_on else now
        self._seen[path] = _Activity(first, now, done)
        if len(self._seen) > MAX_FILES:
            del self._seen[next(iter(self._seen))]

    def tried(self, path: bytes, now: float) -> None:
        """It was due, and was sent or could not be: what comes now begins another wait."""
        activity = self._seen.get(path)
        if activity is not None and now >= activity.first + self._settle_max:
            self._seen[path] = activity._replace(first=now)

    def due(self, path: bytes) -> float | None:
        """From when on it may be sent; None if nothing was seen of it lately."""
        activity = self._seen.get(path)
        if activity is None:
            return None
        if activity.done:
            return activity.last
        return min(activity.last + self._settle, activity.first + self._settle_max)

    def due_by_age(self, path: bytes, now: float, age: float) -> float:
        """The same of a file that is looked at: `age` is seconds since its last change."""
        due = self.due(path)
        if due is not None:
            return due
        if not 0 <= age < self._settle:
            self._young.pop(path, None)
            return now
        first = self._young[path].first if path in self._young else now
        due = min(now + self._settle - age, first + self._settle_max)
        self._young[path] = _Wait(first, due <= now)
        if len(self._young) > MAX_FILES:
            del self._young[next(iter(self._young))]
        return due

    def end_waits(self, now: float, is_over: Callable[[bytes], bool]) -> dict[bytes, float]:
        """These files were sent, or could not be, or are gone; what comes now is another wait.

        Returns when to look again at those that were sent young: no event tells how they go on.
        """
        again = {}
        for path in [path for path in self._young if is_over(path)]:
            if self._young.pop(path).is_long:
                self._young[path] = _Wait(now, False)
                again[path] = now + min(self._settle, self._settle_max)
        return again
