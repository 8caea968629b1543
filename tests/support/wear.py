"""What a person does to a source in a long time: edits, new files, moves, deletes.

All content is new, so what is sent again is known by it. The watcher's part is played as well.
"""

from __future__ import annotations

import os
import random
import time

from skynet.marks import Mark, Sight
from tests.support.keepers import House
from tests.support.world import tree_of


class Wear:
    """Of the source of this house. moved: how many files were moved, alone or with others."""

    def __init__(self, house: House, seed: int) -> None:
        self._house = house
        self._random = random.Random(seed)
        self._number = 0
        self._root = os.fsencode(house.local)
        self._files: list[bytes] = []
        self._places = [b""]
        self.moved = 0

    def build(self, *, directories: int, files: int) -> None:
        for number in range(directories):
            path = os.path.join(self._random.choice(self._places), b"d%d" % number)
            os.mkdir(self._at(path))
            self._places.append(path)
        for _ in range(files):
            self._write(self._new_path())

    def contents(self) -> dict[bytes, bytes]:
        return {
            path: node.content for path, node in tree_of(self._root).items() if path in self._files
        }

    def change(self) -> None:
        """One change of some kind, of which the watcher tells."""
        verb = self._random.choice(["new", "edit", "edit", "file", "file", "place", "delete"])
        if verb == "new" or not self._files:
            self._tell(self._write(self._new_path()), deep=False)
        elif verb == "edit":
            self._tell(self._write(self._random.choice(self._files)), deep=False)
        elif verb == "delete":
            self._delete(self._random.choice(self._files))
        elif verb == "file":
            self._move(self._random.choice(self._files), self._new_path(), deep=False)
        elif len(self._places) > 1:
            source, path = self._random.choice(self._places[1:]), self._new_path()
            if not path.startswith(source + b"/"):
                self._move(source, path, deep=True)

    def _new_path(self) -> bytes:
        return os.path.join(self._random.choice(self._places), self._name())

    def _name(self) -> bytes:
        self._number += 1
        return b"n%d" % self._number

    def _write(self, path: bytes) -> bytes:
        self._number += 1
        with open(self._at(path), "wb") as file:
            file.write(b"content %d " % self._number * self._random.randrange(1, 9))
        then = time.time_ns() - self._random.randrange(1, 10**12)
        os.utime(self._at(path), ns=(then, then))
        if path not in self._files:
            self._files.append(path)
        return path

    def _delete(self, path: bytes) -> None:
        os.unlink(self._at(path))
        self._files.remove(path)
        self._tell(path, deep=False)

    def _move(self, source: bytes, path: bytes, *, deep: bool) -> None:
        os.rename(self._at(source), self._at(path))
        before = self._files
        self._files = [_moved(each, source, path) for each in self._files]
        self._places = [_moved(each, source, path) for each in self._places]
        self.moved += sum(new != old for new, old in zip(self._files, before, strict=True))
        self._tell(source, deep=deep)
        self._tell(path, deep=deep)

    def _tell(self, path: bytes, *, deep: bool) -> None:
        self._house.tell(Sight(Mark(path, deep)))

    def _at(self, path: bytes) -> bytes:
        return os.path.join(self._root, path)


def _moved(each: bytes, source: bytes, path: bytes) -> bytes:
    is_inside = each == source or each.startswith(source + b"/")
    return path + each[len(source) :] if is_inside else each
