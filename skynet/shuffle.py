"""The order in which names are exchanged: each goes to a place that is free by then. Pure.

A chain (a to b, b to c) begins at its end. In a cycle (a and b exchanged) one is parked under a
name of our own, once, and goes to its place last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from skynet.rules import PARKED
from skynet.tree import ancestors

DEEPEST = 100  # moves that wait for each other; beyond that, one is parked


class Step(NamedTuple):
    """What is at `source` by then goes to `path`; without a source, a directory is made there.

    origin: where it was before all steps.
    """

    path: bytes
    source: bytes | None
    origin: bytes


def parking_place(origin: bytes) -> bytes:
    """The name, in the root, under which what was at `origin` is parked."""
    return PARKED + hashlib.blake2b(origin, digest_size=8).hexdigest().encode()


class Shuffle:
    """Carries out moves on paper; `steps` is the result.

    moves: new path -> old path. missing: directories that do not exist, made where a move needs
    them. closed: places that nothing can go to yet. occupant(path): the old path of what would be
    at `path` if nothing but the directories above it had moved; None for nothing.
    """

    def __init__(
        self,
        moves: Mapping[bytes, bytes],
        missing: Collection[bytes],
        occupant: Callable[[bytes], bytes | None],
        closed: Collection[bytes] = (),
    ) -> None:
        self._moves = moves
        self._goes_to = {source: path for path, source in moves.items()}
        self._missing = set(missing)
        self._occupant = occupant
        self._at: dict[bytes, bytes] = {}  # old path -> path by now, of what has moved
        self._begun: list[bytes] = []  # places that wait for something to go
        self._done: set[bytes] = set()
        self.closed = set(closed)
        self.steps: list[Step] = []

    def where(self, origin: bytes) -> bytes:
        """Where that is by now which was at `origin`."""
        return relocated(self._at, origin)

    def place(self, path: bytes) -> None:
        """Move to `path` what belongs there, and before that whatever is in its way."""
        if path in self._done or path in self._begun:
            return
        self._begun.append(path)
        self._make_room(path)
        origin = self._moves[path]
        if self.where(origin) != path:
            self._go(origin, path)
        self._done.add(self._begun.pop())

    def park(self, origin: bytes) -> None:
        """Get what was at `origin` out of the way, if it has not moved yet."""
        if origin not in self._at:
            self._go(origin, parking_place(origin))

    def _make_room(self, path: bytes) -> None:
        for above in reversed(list(ancestors(path))):
            if above in self._moves:
                self.place(above)
            elif above in self._missing:
                self._begun.append(above)
                self._vacate(above)
                self._missing.remove(self._begun.pop())
                self.steps.append(Step(above, None, above))
        self._vacate(path)

    def _vacate(self, path: bytes) -> None:
        """Let what is at `path`, and is to go elsewhere, go there, or be parked."""
        there = self._occupant(path)
        if there is None or self.where(there) != path:
            return
        target = self._goes_to.get(there, path)
        if target == path:
            return
        if len(self._begun) > DEEPEST or self._is_awaited(target):
            self.park(there)
        else:
            self.place(target)

    def _is_awaited(self, target: bytes) -> bool:
        """Whether `target`, or a directory above it, waits itself for something to go."""
        if target in self.closed:
            return True
        return not {target, *ancestors(target)}.isdisjoint(self._begun)

    def _go(self, origin: bytes, path: bytes) -> None:
        self.steps.append(Step(path, self.where(origin), origin))
        self._at[origin] = path


def relocated(goes_to: Mapping[bytes, bytes], path: bytes) -> bytes:
    """Where `path` is after moves (old path -> new path), which take along what is below."""
    if goes_to:
        for above in (path, *ancestors(path)):
            if above in goes_to:
                return goes_to[above] + path[len(above) :]
    return path


def natural(moves: Mapping[bytes, bytes], path: bytes) -> bytes:
    """The old path of what comes to be at `path` by moves (new path -> old path) above it."""
    for above in ancestors(path):
        if above in moves:
            return moves[above] + path[len(above) :]
    return path
