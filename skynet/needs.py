"""Which operations of a plan must be done before which. Pure.

Two operations keep their order if they are about the same path, or if one of them is about a
directory as such (makes, moves, removes or records it, or sets its mode) and the other about
something in it. All others may be done in any order, or at once.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence

from skynet.ops import Copy, Op, Plan, Record, Rename, Rmdir, SetMeta, Upload
from skynet.tree import DIR, ancestors, parent

_CHANGELESS = (Record, SetMeta)


def changed_directories(op: Op) -> tuple[bytes, ...]:
    """The directories in which the operation makes, replaces or removes a name."""
    if isinstance(op, _CHANGELESS):
        return ()
    if isinstance(op, Rename):
        return parent(op.path), parent(op.source)
    return (parent(op.path),)


def needs_of(ops: Sequence[Op]) -> list[tuple[int, ...]]:
    """For each operation the earlier ones that must be done first."""
    sources = {op.source for op in ops if isinstance(op, Copy)}
    order = _Order(_filled_before(ops), sources)
    return [order.add(index, op) for index, op in enumerate(ops)]


def dependents_of(plan: Plan, first: int = 0) -> dict[int, array[int]]:
    """Which operations wait for each; both counted from `first` on."""
    dependents: dict[int, array[int]] = {}
    for index, needs in enumerate(plan.needs, first):
        for needed in needs:
            dependents.setdefault(first + needed, array("L")).append(index)
    return dependents


def _filled_before(ops: Sequence[Op]) -> set[bytes]:
    """The directories that an operation is about as such after others were about their inside."""
    filled: set[bytes] = set()
    found: set[bytes] = set()
    for op in ops:
        found.update(path for path in _wholes(op) if path in filled)
        for path in _touched(op):
            for above in ancestors(path):
                if above in filled:
                    break  # and so are those above it
                filled.add(above)
    return found


class _Order:
    """What each path was last about.

    filled: directories of which it matters what is about their inside (`_filled_before`). sources:
    files that are copied.
    """

    def __init__(self, filled: set[bytes], sources: set[bytes]) -> None:
        self._filled = filled
        self._sources = sources
        self._last: dict[bytes, int] = {}  # path -> what changed it last
        self._read: dict[bytes, list[int]] = defaultdict(list)  # path -> who has read it since
        self._inside: dict[bytes, list[int]] = defaultdict(
            list
        )  # filled -> what is about its inside
        self._above: dict[bytes, tuple[int, ...]] = {}  # directory -> what its inside waits for

    def add(self, index: int, op: Op) -> tuple[int, ...]:
        """Take the next operation; what it needs."""
        is_new = isinstance(op, Upload) and op.replaces is None and op.path not in self._last
        if is_new and op.path not in self._sources:
            # Nearly all of a first plan: nothing else is about a new file but its directories.
            self._note_inside(index, op.path)
            return self._waits_inside(parent(op.path))
        needed: set[int] = set()
        for path in _touched(op):
            needed.update(self._waits_inside(parent(path)))
            needed.update(self._inside.get(path, ()))
            if path in self._last:
                needed.add(self._last[path])
            if not isinstance(op, Copy) or path == op.path:
                needed.update(self._read.pop(path, ()))
        self._note(index, op)
        needed.discard(index)
        return tuple(sorted(needed))

    def _waits_inside(self, directory: bytes) -> tuple[int, ...]:
        """The last operation about each directory above, one object for all files of one."""
        found = self._above.get(directory)
        if found is None:
            latest: list[int] = []
            for path in (directory, *ancestors(directory)):
                # What a nearer directory waits for itself need not be told again.
                if self._last.get(path, -1) > (latest[-1] if latest else -1):
                    latest.append(self._last[path])
            found = self._above[directory] = tuple(latest)
        return found

    def _note(self, index: int, op: Op) -> None:
        if isinstance(op, Copy):
            self._read[op.source].append(index)
        wholes = set(_wholes(op))
        for path in _touched(op):
            if not isinstance(op, Copy) or path == op.path:
                self._last[path] = index
            self._note_inside(index, path)
            if path in wholes:
                self._above.clear()

    def _note_inside(self, index: int, path: bytes) -> None:
        if self._filled:
            for above in ancestors(path):
                if above in self._filled:
                    self._inside[above].append(index)


def _touched(op: Op) -> tuple[bytes, ...]:
    """The paths that an operation is about."""
    return (op.path, op.source) if isinstance(op, Rename | Copy) else (op.path,)


def _wholes(op: Op) -> Iterator[bytes]:
    """The directories that an operation is about as such."""
    if isinstance(op, Rename):
        if op.entry.kind == DIR:
            yield from (op.path, op.source)
    elif isinstance(op, Rmdir) or (op.entry is not None and op.entry.kind == DIR):
        yield op.path
    elif isinstance(op, Record) and op.entry is None:
        yield op.path  # perhaps a directory's
