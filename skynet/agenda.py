"""What the daemon is to look at next, and when: marks that are due, and those that have to wait.

Marks come from the watcher, on its threads, and stay in the journal until a cycle has dealt with
them. A mark waits while its file is still being written. What a cycle could do nothing about is
looked at again later; that is in memory alone, beside the marks, so it delays none that comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from skynet.journal import Journal
from skynet.marks import EVERYTHING, Mark, Sight
from skynet.settling import Settling
from skynet.tree import ancestors, parent

CROWDED = 500  # paths of one directory that wait; with more, the directory waits as a whole
MAX_WAITING = 10_000

IsBusy = Callable[[bytes], bool]


class Agenda:
    """Of one mirror. clock: monotonic seconds. wake: called when something new is there.

    It also is the `Arrivals` of a cycle that is under way.
    """

    def __init__(
        self,
        journal: Journal,
        settling: Settling,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._settling = settling
        self._clock = clock
        self._wake = wake
        self._lock = threading.Lock()  # of `settling`, which the watcher's threads tell as well
        self._again: dict[bytes, float] = {}  # path -> when to look at it and all below it
        self._shown: Mapping[bytes, bool] = {}
        self._shown_version = 0
        self._upto = 0  # what of the journal this cycle knows
        self._rest: dict[bytes, bool] = {}  # what of that it does not look at
        self._last: dict[bytes, bool] = {}  # what was taken last
        self._before: dict[bytes, bool] = {}  # what was taken before that
        self.taken: dict[bytes, bool] = {}  # what this cycle looks at

    def saw(self, sights: Iterable[Sight]) -> None:
        """Take what the watcher saw; any thread may call this."""
        sights = list(sights)
        now = self._clock()
        with self._lock:
            for mark, done in sights:
                if not mark.deep:
                    self._settling.saw(mark.path, now, done=done)
        self._journal.mark(sight.mark for sight in sights)
        self._wake()

    def look_everywhere(self) -> None:
        """Everything may have changed."""
        self._journal.mark([EVERYTHING])
        self._wake()

    def begin(self) -> Mapping[bytes, bool]:
        """The marks that are due now, for a cycle that begins. What an earlier one left counts."""
        self._upto, self._rest, self.taken = 0, {}, {}
        return self.take(lambda _path: False)

    def take(self, is_busy: IsBusy) -> Mapping[bytes, bool]:
        """The marks that have become due since, and are not about what is being worked on."""
        pending = self._journal.pending(self._upto)
        self._upto = pending.upto
        known = _joined(self._rest, pending.marks)
        now = self._clock()
        due = self._due_again(now, is_busy)
        with self._lock:
            for path, deep in known.items():
                if self._due(path, deep) <= now and not is_busy(path):
                    due[path] = deep or self._is_to_be_seen_again(path)
        self._rest = {path: deep for path, deep in known.items() if path not in due}
        self._last, self._before = due, self.taken
        self.taken = _joined(self.taken, due)
        return due

    def put_back(self) -> None:
        """What was taken last was not done."""
        self._rest = _joined(self._rest, self._last)
        self.taken = self._before

    def settle(
        self, later: Mapping[bytes, float], unsettled: Sequence[bytes], *, was_whole: bool
    ) -> None:
        """All that was taken has been dealt with.

        later: but for these paths, to be looked at again then. unsettled: files that are still
        being written, to be looked at when they are not. was_whole: everything was looked at.
        """
        now = self._clock()
        kept = {} if was_whole else self._again
        kept = {path: at for path, at in kept.items() if not is_covered(path, self.taken)}
        rests = {path: self.settles_at(path, 0.0) for path in unsettled}

        def is_dealt_with(path: bytes) -> bool:
            return path not in rests and (was_whole or is_covered(path, self.taken))

        with self._lock:
            for path in self.taken.keys() - rests.keys():
                self._settling.tried(path, now)
            going_on = self._settling.end_waits(now, is_dealt_with)
        self._again = _crowds_as_one({**kept, **going_on, **later, **rests})
        self._journal.settle(self._upto, [Mark(path, deep) for path, deep in self._rest.items()])
        self._upto, self._rest = 0, {}

    def next_due(self) -> float | None:
        """When the first path is due, by the clock; None if there is none."""
        marks = self._marks()
        with self._lock:
            first = min((self._due(path, deep) for path, deep in marks.items()), default=None)
        again = min(self._again.values(), default=None)
        return min((due for due in (first, again) if due is not None), default=None)

    def backlog(self) -> Mapping[bytes, bool]:
        """All that is to be looked at: path -> whether everything below it is as well."""
        marks = self._marks()
        return _joined(marks, dict.fromkeys(self._again, True)) if self._again else marks

    def is_unsettled(self, path: bytes, age: float) -> bool:
        """Whether a file of this age (seconds since its last change) is still being written."""
        return self.settles_at(path, age) > self._clock()

    def settles_at(self, path: bytes, age: float) -> float:
        """When a file may be sent, by the clock."""
        with self._lock:
            return self._settling.due_by_age(path, self._clock(), age)

    def _marks(self) -> Mapping[bytes, bool]:
        version = self._journal.version
        if version != self._shown_version:
            self._shown, self._shown_version = self._journal.marks(), version
        return self._shown

    def _due(self, path: bytes, deep: bool) -> float:
        return 0.0 if deep else self._settling.due(path) or 0.0

    def _is_to_be_seen_again(self, path: bytes) -> bool:
        again = self._again
        return bool(again) and any(p in again for p in (path, *ancestors(path), b""))

    def _due_again(self, now: float, is_busy: IsBusy) -> dict[bytes, bool]:
        """What this cycle has not been told of yet."""
        return {
            path: True
            for path, at in self._again.items()
            if at <= now and path not in self.taken and not is_busy(path)
        }


def is_covered(path: bytes, marks: Mapping[bytes, bool]) -> bool:
    """Whether who looks at these marks looks at the path."""
    return path in marks or any(marks.get(above, False) for above in (*ancestors(path), b""))


def _joined(first: Mapping[bytes, bool], second: Mapping[bytes, bool]) -> dict[bytes, bool]:
    joined = dict(first)
    for path, deep in second.items():
        joined[path] = deep or joined.get(path, False)
    return joined


def _crowds_as_one(later: Mapping[bytes, float]) -> dict[bytes, float]:
    """When to look at which paths; of many in one directory, once at all of it."""
    groups: dict[bytes, list[bytes]] = {}
    for path in later:
        groups.setdefault(parent(path), []).append(path)
    found: dict[bytes, float] = {}
    for directory, paths in groups.items():
        times = {path: later[path] for path in paths}
        if len(paths) > CROWDED and directory:
            times = {directory: max(times.values())}
        for path, at in times.items():
            found[path] = max(at, found.get(path, at))
    return found if len(found) <= MAX_WAITING else {b"": max(found.values())}
