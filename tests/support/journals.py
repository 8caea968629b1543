"""Journals opened one after another, and a model of what they must know."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from skynet.journal import Journal
from skynet.marks import Mark
from skynet.monitor import Event, Notice
from skynet.tree import is_below, join

ALL = {b"": True}  # what is pending when everything is dirty
PATHS = [b""]
for _ in range(3):
    PATHS = sorted({*PATHS, *(join(path, name) for path in PATHS for name in (b"a", b"b"))})


def covered(found: dict[bytes, bool]) -> set[bytes]:
    """The paths that these marks tell to look at."""
    return {
        path
        for path in PATHS
        if path in found or any(deep and is_below(path, above) for above, deep in found.items())
    }


class Model:
    """Path -> when it was marked last; and what was handed out when."""

    def __init__(self) -> None:
        self.dirty: dict[bytes, int] = {}
        self.now = 0

    def mark(self, marks: Iterable[Mark]) -> None:
        self.now += 1
        for mark in marks:
            for path in covered({mark.path: mark.deep}):
                self.dirty[path] = self.now

    def settle(self, upto: int) -> None:
        self.dirty = {path: when for path, when in self.dirty.items() if when > upto}


class Opened:
    """Journals in one directory, one after another, and what they had to tell."""

    def __init__(self, directory: Path, max_marks: int = 1000) -> None:
        self.directory = directory
        self.max_marks = max_marks
        self.events: list[Event] = []
        self.journal = self.again()

    def again(self) -> Journal:
        """A new one, as after a kill: the one before has not closed anything."""
        self.journal = Journal(self.directory, self.events.append, max_marks=self.max_marks)
        return self.journal

    def holds(self) -> dict[bytes, bool]:
        """What another process would find."""
        return self.again().pending().marks

    @property
    def notices(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Notice)]


def rows(directory: Path) -> int:
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM Cache").fetchone()
        return int(count)
