"""What the daemon is to look at next, and when: marks that are due, and those that have to wait.

Marks come from the watcher, on its threads, and stay in the journal until a cycle has dealt with
them. A mark waits while its file is still being written, and after a cycle that could not do
anything about it; a new change of its path ends that wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from skynet.journal import Journal
from skynet.marks import EVERYTHING, Mark, Sight
from skynet.settling import Settling
from skynet.tree import parent

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
        self._lock = threading.Lock()  # of what the watcher's threads touch: the next two
        self._waits: dict[bytes, float] = {}  # path -> until when
        self._shown: Mapping[bytes, bool] = {}
        self._shown_version = 0
        self._upto = 0  # what of the journal this cycle knows
        self._rest: dict[bytes, bool] = {}  # what of that it does not look at
        self._last: dict[bytes, bool] = {}  # what was taken last
        self.taken: frozenset[bytes] = frozenset()  # the paths this cycle looks at

    def saw(self, sights: Iterable[Sight]) -> None:
        """Take what the watcher saw; any thread may call this."""
        sights = list(sights)
        now = self._clock()
        with self._lock:
            for mark, done in sights:
                self._waits.pop(mark.path, None)
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
        self._upto, self._rest, self.taken = 0, {}, frozenset()
        return self.take(lambda _path: False)

    def take(self, is_busy: IsBusy) -> Mapping[bytes, bool]:
        """The marks that have become due since, and are not about what is being worked on."""
        pending = self._journal.pending(self._upto)
        self._upto = pending.upto
        known = _joined(self._rest, pending.marks)
        now = self._clock()
        with self._lock:
            due = {
                path: deep
                for path, deep in known.items()
                if self._due(path, deep) <= now and not is_busy(path)
            }
        self._rest = {path: deep for path, deep in known.items() if path not in due}
        self._last = due
        self.taken |= due.keys()
        return due

    def put_back(self) -> None:
        """What was taken last was not done."""
        self._rest = _joined(self._rest, self._last)
        self.taken -= self._last.keys()

    def settle(self, later: Mapping[bytes, float]) -> None:
        """All that was taken has been dealt with, but for these paths, which wait until then."""
        kept, waits = _crowds_as_one(later)
        with self._lock:
            self._waits = {p: until for p, until in self._waits.items() if p in self._rest} | waits
        rest = [Mark(path, deep) for path, deep in self._rest.items()]
        self._journal.settle(self._upto, [*rest, *kept])
        self._upto, self._rest = 0, {}

    def next_due(self) -> float | None:
        """When the first mark is due, by the clock; None if there is none."""
        marks = self.backlog()
        with self._lock:
            return min((self._due(path, deep) for path, deep in marks.items()), default=None)

    def backlog(self) -> Mapping[bytes, bool]:
        """All that is marked: path -> whether everything below it is as well."""
        version = self._journal.version
        if version != self._shown_version:
            self._shown, self._shown_version = self._journal.marks(), version
        return self._shown

    def is_unsettled(self, path: bytes, age: float) -> bool:
        """Whether a file of this age (seconds since its last change) is still being written."""
        return self.settles_at(path, age) > self._clock()

    def settles_at(self, path: bytes, age: float) -> float:
        """When a file may be sent, by the clock."""
        with self._lock:
            return self._settling.due_by_age(path, self._clock(), age)

    def _due(self, path: bytes, deep: bool) -> float:
        settles = None if deep else self._settling.due(path)
        return max(self._waits.get(path, 0.0), settles or 0.0)


def _joined(first: Mapping[bytes, bool], second: Mapping[bytes, bool]) -> dict[bytes, bool]:
    joined = dict(first)
    for path, deep in second.items():
        joined[path] = deep or joined.get(path, False)
    return joined


def _crowds_as_one(later: Mapping[bytes, float]) -> tuple[list[Mark], dict[bytes, float]]:
    """Marks of paths that wait, and until when; of many in one directory, one for all of it."""
    groups: dict[bytes, list[bytes]] = {}
    for path in later:
        groups.setdefault(parent(path), []).append(path)
    waits: dict[bytes, float] = {}
    marks = []
    for directory, paths in groups.items():
        if len(paths) > CROWDED and directory:
            waits[directory] = max(later[path] for path in paths)
            marks.append(Mark(directory, deep=True))
        else:
            waits |= {path: later[path] for path in paths}
            marks += [Mark(path, deep=True) for path in paths]
    if len(waits) > MAX_WAITING:
        return [EVERYTHING], {b"": max(later.values())}
    return marks, waits
