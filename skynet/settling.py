"""Settling: which files are still being written, by when they were last seen to change. Pure.

A file counts as finished once it was quiet for `settle` seconds, or when it was closed after
writing; but `settle_max` seconds after the first change it has waited long enough. Only a hint: a
file that changes while it is sent is not published.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_FILES = 20_000  # that are remembered; those seen longest ago are forgotten first


class _Activity(NamedTuple):
    first: float
    last: float
    done: bool


class Settling:
    """Times are seconds of any one clock that never jumps."""

    def __init__(self, settle: float, settle_max: float) -> None:
        self._settle = settle
        self._settle_max = settle_max
        self._seen: dict[bytes, _Activity] = {}  # in the order of their last change

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
        """The same of a file that has this age (seconds since its last change, as it says)."""
        due = self.due(path)
        if due is not None:
            return due
        return now + self._settle - age if 0 <= age < self._settle else now
