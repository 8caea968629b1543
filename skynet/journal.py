"""The journal: dirty paths, kept on the disk, so that no change is missed after a crash.

Marks are in memory at once and on the disk with the next flush. The disk is what a restart begins
with, and nothing else: a database that is not whole counts as one that says that everything is
dirty, and one that cannot be written costs no more than that.

SQLite would take no notice of changed bytes, or of a log cut short. So a last row holds the sum of
all the others, and there is no write-ahead log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from skynet.dirty import MAX_PATH, Dirty, Unsaved, is_spot
from skynet.hints import Bounds, Hints, HintsDamaged
from skynet.marks import EVERYTHING, Mark
from skynet.monitor import Monitor, Notice

MAX_PAUSE = 1024  # flushes that do not try, after many that failed

_SUM = b"//"  # the key of the sum; that of a mark is its spot, and this is none
_ROW = 4096  # bytes on the disk, more than what a mark of common length takes


class Pending(NamedTuple):
    """What is dirty.

    marks: path -> deep, without what lies below deep ones; {b"": True} when everything is dirty.
    upto: the number to settle with once all of this has been looked at.
    """

    marks: dict[bytes, bool]
    upto: int


class Journal:
    """The journal of one mirror, in a directory of its own; any thread may use it.

    max_marks: beyond that many, in memory and on the disk, whole directories are marked.
    """

    def __init__(self, directory: Path, monitor: Monitor, *, max_marks: int = 100_000) -> None:
        self._directory = directory
        self._monitor = monitor
        self._max_marks = max_marks
        self._marking = threading.Lock()  # held shortly, and never while the disk is waited for
        self._dirty = Dirty(max_marks)
        self._writing = threading.Lock()  # for all that is below
        self._errors: list[Exception] = []
        self._hints = self._new_hints()
        self._sum = 0  # of the rows on the disk
        self._failures = 0  # in a row
        self._pause = 0  # flushes yet to come that are not to try
        self._is_told = False
        self._open()

    def mark(self, marks: Iterable[Mark]) -> None:
        """Add marks, in memory: nothing waits for the disk."""
        found = list(marks)  # whoever makes them may take their time
        if found:
            with self._marking:
                self._dirty.mark(found)

    @property
    def version(self) -> int:
        """Another one whenever other marks are there."""
        return self._dirty.version

    def marks(self) -> dict[bytes, bool]:
        """As `pending` tells them, to be shown and not to be settled."""
        with self._marking:
            return self._dirty.collapsed()

    def pending(self, after: int = 0) -> Pending:
        """All that is marked now; or what was since an earlier `upto`."""
        with self._marking:
            return Pending(self._dirty.collapsed(after), self._dirty.hand_out())

    def settle(self, upto: int, keep: Iterable[Mark] = ()) -> None:
        """Forget what was not marked again after `upto` was handed out, and mark `keep` anew.

        On the disk this is done by the next flush.
        """
        kept = list(keep)
        with self._marking:
            self._dirty.settle(upto)
            self._dirty.mark(kept)

    def flush(self) -> None:
        """Let the disk have what is marked now, in one transaction.

        After a failure the next flushes do not try, twice as many each time, up to MAX_PAUSE.
        """
        with self._writing:
            if self._pause:
                self._pause -= 1
                return
            with self._marking:
                unsaved = self._dirty.take_unsaved()
            if unsaved.news or unsaved.gone:
                self._save(unsaved)

    def close(self) -> None:
        """Close the database. What was not flushed is lost."""
        with self._writing:
            self._hints.close()

    def _open(self) -> None:
        if not self._hints.exist:
            return
        error = self._use(self._read)
        if error is not None:
            self._monitor(
                Notice(
                    "journal-damaged",
                    f"The journal of changes in {self._directory} cannot be used ({error}). It is "
                    "begun anew; everything is compared again.",
                )
            )
            self.mark([EVERYTHING])
            self.flush()

    def _save(self, unsaved: Unsaved) -> None:
        error = self._use(lambda cache: self._write(cache, unsaved))
        if error is None:
            self._failures = 0
            return
        with self._marking:
            self._dirty.nothing_is_saved()
        self._failures += 1
        self._pause = min(1 << min(self._failures, 30), MAX_PAUSE)
        if not self._is_told:
            self._is_told = True
            self._monitor(
                Notice(
                    "journal-degraded",
                    f"The journal of changes in {self._directory} cannot be written ({error}). "
                    "Changes are kept in memory; it is tried again.",
                )
            )

    def _read(self, cache: Any) -> None:
        with cache.transact():  # or SQLite would lock the file anew for each row
            spots = self._spots(cache)
            total = _summed(0, spots)
            if cache.get(_SUM) != total.to_bytes(16):
                raise HintsDamaged("it is not whole")
        self._sum = total
        self._dirty.restore(spots)

    def _spots(self, cache: Any) -> set[bytes]:
        spots: set[bytes] = set()
        for key in cache:  # iterkeys begins at the first key for every hundred
            if key == _SUM:
                continue
            if len(spots) == self._max_marks:
                raise HintsDamaged("it holds too much")
            if not is_spot(key) or cache.get(key) != b"":
                raise HintsDamaged("it holds a mark that cannot be")
            spots.add(key)
        return spots

    def _write(self, cache: Any, unsaved: Unsaved) -> None:
        total = _summed(_summed(self._sum, unsaved.gone), unsaved.news)
        with cache.transact():
            for spot in unsaved.gone:
                cache.delete(spot)
            for spot in unsaved.news:
                cache.set(spot, b"")
            cache.set(_SUM, total.to_bytes(16))
        self._sum = total

    def _use(self, work: Callable[[Any], None]) -> Exception | None:
        """Let `work` use the database; else why not, and the database is gone."""
        self._hints.use(work)
        if not self._errors:
            return None
        self._hints = self._new_hints()  # the old ones give up after a while
        self._sum = 0
        return self._errors.pop()

    def _new_hints(self) -> Hints:
        bounds = Bounds(item=MAX_PATH + 1, database=(self._max_marks + 1000) * _ROW)
        return Hints(self._directory, bounds, self._errors.append, durable=True)


def _summed(total: int, spots: Iterable[bytes]) -> int:
    """The sum with these spots added; or without them, if they were in it."""
    for spot in spots:
        total ^= int.from_bytes(blake2b(spot, digest_size=16).digest())
    return total
