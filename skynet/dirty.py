"""Dirty paths: what may have changed since a cycle looked at it, bounded however much that is.

A mark is kept under its *spot*: the path for the entry alone, the path and a slash for a deep mark.
Every batch of marks has a number, and a spot has that of its newest mark.

A deep mark swallows what is marked below it later, unless it was handed out: then a cycle may have
passed there already, so what comes later stands beside it and outlives it. When many marks are in
one directory, or too many in all, deep marks of directories take their place.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

from skynet.marks import EVERYTHING, Mark
from skynet.tree import ancestors, parent

CROWDED = 1000  # marks directly in a directory; with more, it is looked at as a whole
MAX_PATH = 4096  # bytes; of what is longer, a directory above it is marked
MIN_MARKS = 4  # to be allowed, so that there is something to cut
_COMMON = 256  # bytes of a path that count as one mark; longer ones count as several
_DOTS = frozenset((b"", b".", b".."))

_ROOT = b"/"  # the spot of EVERYTHING


class Unsaved(NamedTuple):
    """Spots that are marked and not on the disk, and the other way round."""

    news: list[bytes]
    gone: list[bytes]


class Dirty:
    """Marks, no more than `max_marks` of common length, which is MIN_MARKS at least."""

    def __init__(self, max_marks: int) -> None:
        assert max_marks >= MIN_MARKS
        self._max_weight = max_marks
        self._weight = 0
        self._groups: dict[bytes, dict[bytes, int]] = {}  # directory -> spot in it -> number
        self._number = 0
        self._handed_out = 0  # the number of the newest mark that somebody knows of
        self._unsaved: set[bytes] = set()
        self.version = 0  # another one when anything is

    def mark(self, marks: Iterable[Mark]) -> None:
        """Add marks; one that is no path of a tree counts as EVERYTHING."""
        self._number += 1
        self.version += 1
        for mark in marks:
            self._mark(*_kept(mark))

    def restore(self, spots: Set[bytes]) -> None:
        """Mark all that is on the disk."""
        self.mark(map(_mark_at, spots))
        self._unsaved ^= spots

    def collapsed(self, after: int = 0) -> dict[bytes, bool]:
        """Path -> deep, without what lies below deep ones; of marks after a number alone."""
        if self._groups.get(b"", {}).get(_ROOT, 0) > after:
            return {b"": True}
        found: dict[bytes, bool] = {}
        for directory, group in self._groups.items():
            spots = [spot for spot, number in group.items() if number > after]
            if spots and not any(over[spot] > after for over, spot in self._deep_over(directory)):
                for path, deep in map(_mark_at, spots):
                    found[path] = deep or found.get(path, False)
        return found

    def hand_out(self) -> int:
        """The number of all that is marked now, which a cycle is going to look at."""
        self._handed_out = self._number
        return self._number

    def settle(self, upto: int) -> None:
        """Forget what was not marked after this number."""
        self.version += 1
        self._drop([spot for _, spot, number in self._all() if number <= upto])

    def take_unsaved(self) -> Unsaved:
        """What the disk does not have as it is here; from now on it counts as saved."""
        spots, self._unsaved = self._unsaved, set()
        news = [spot for spot in spots if spot in self._groups.get(_directory(spot), ())]
        return Unsaved(news, list(spots.difference(news)))

    def nothing_is_saved(self) -> None:
        """The disk has lost it all."""
        self._unsaved = {spot for _, spot, _ in self._all()}

    def _mark(self, path: bytes, deep: bool) -> None:
        for group, spot in self._deep_over(path):
            if group[spot] > self._handed_out:
                group[spot] = self._number
                return
        self._put(_spot(path, deep))
        if self._weight > self._max_weight:
            self._sweep()
            if self._weight > self._max_weight // 2:
                self._cut()

    def _deep_over(self, path: bytes) -> Iterator[tuple[dict[bytes, int], bytes]]:
        """The deep marks of `path` and of all above it, with their groups."""
        for above in (path, *ancestors(path), b""):
            group, spot = self._groups.get(parent(above)), _spot(above, deep=True)
            if group is not None and spot in group:
                yield group, spot

    def _put(self, spot: bytes) -> None:
        directory = _directory(spot)
        group = self._groups.setdefault(directory, {})
        if spot not in group:
            self._weight += _weight(spot)
            self._unsaved ^= {spot}
        group[spot] = self._number
        if len(group) > CROWDED:
            self._drop(list(group))
            self._put(_spot(directory, deep=True))

    def _drop(self, spots: Iterable[bytes]) -> None:
        for spot in spots:
            directory = _directory(spot)
            group = self._groups[directory]
            del group[spot]
            if not group:
                del self._groups[directory]
            self._weight -= _weight(spot)
            self._unsaved ^= {spot}

    def _all(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Directory, spot and number of each."""
        for directory, group in self._groups.items():
            for spot, number in group.items():
                yield directory, spot, number

    def _sweep(self) -> None:
        """Drop what a deep mark covers that is no older."""
        covered = []
        for directory, group in self._groups.items():
            newest = max((over[spot] for over, spot in self._deep_over(directory)), default=0)
            covered += [spot for spot, number in group.items() if number <= newest]
        self._drop(spot for spot in covered if spot != _ROOT)

    def _cut(self) -> None:
        """Mark directories instead of what is deepest, until half of what is allowed is left."""
        spots = [spot for _, spot, _ in self._all()]
        levels = range(max(map(_depth, spots)))
        fitting = bisect_right(
            levels,
            self._max_weight // 2,
            key=lambda level: sum(map(_weight, {_cut(spot, level) for spot in spots})),
        )
        level = max(fitting - 1, 0)
        deeper = [spot for spot in spots if _depth(spot) > level]
        self._drop(deeper)
        for spot in {_cut(spot, level) for spot in deeper}:
            self._put(spot)


def is_spot(spot: bytes) -> bool:
    """Whether it is one: it leads nowhere out of a tree, and is not too long."""
    path = spot.removesuffix(b"/")
    return _is_path(path) and len(path) <= MAX_PATH


def _is_path(path: bytes) -> bool:
    return not path or (b"\0" not in path and _DOTS.isdisjoint(path.split(b"/")))


def _kept(mark: Mark) -> Mark:
    """The mark, or a wider one that can be kept."""
    if not _is_path(mark.path):
        return EVERYTHING
    while len(mark.path) > MAX_PATH:
        mark = Mark(parent(mark.path), deep=True)
    return mark


def _spot(path: bytes, deep: bool) -> bytes:
    return path + b"/" if deep else path


def _mark_at(spot: bytes) -> Mark:
    return Mark(spot.removesuffix(b"/"), spot.endswith(b"/"))


def _directory(spot: bytes) -> bytes:
    return parent(spot.removesuffix(b"/"))


def _depth(spot: bytes) -> int:
    """Names in the path: none for the root."""
    path = spot.removesuffix(b"/")
    return path.count(b"/") + 1 if path else 0


def _cut(spot: bytes, level: int) -> bytes:
    """The spot, or the deep one of the directory of so many names that it lies in."""
    if _depth(spot) <= level:
        return spot
    return b"/".join(spot.split(b"/")[:level]) + b"/"


def _weight(spot: bytes) -> int:
    return 1 + len(spot) // _COMMON
