"""A hand that changes a local directory at random, and tells what a watcher would mark."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skynet import index, trashed
from tests.support.world import EPOCH, SECOND

Marks = dict[bytes, bool]

# Few, so that paths and contents meet again.
NAMES = ["a", "b", "c", "d"]
CONTENTS = [b"", b"x", b"y", b"zz", b"pppp", b"qqqq"]


@contextmanager
def small_files_are_copied() -> Iterator[None]:
    """Let the server make copies of what is elsewhere, however small it is."""
    with pytest.MonkeyPatch.context() as patch:
        for room in (index, trashed):
            patch.setattr(room, "LARGE", 2)
        yield


class Hand:
    """Every change gets a modification time of its own, so no two states look alike.

    names: all others are left alone.
    """

    def __init__(self, root: Path, chance: random.Random, names: list[str] = NAMES) -> None:
        self.root = root
        self.contents: set[bytes] = set()  # of every file there ever was
        self._chance = chance
        self._names = names
        self._moment = EPOCH

    def grow(self, changes: int) -> None:
        """Make new files and directories."""
        for _ in range(changes):
            self._chance.choice([self._write, self._write, self._make_directory])()

    def change(self) -> Marks:
        """Do one thing; its marks."""
        acts: list[Callable[[], Marks]] = [
            *[self._write, self._make_directory, self._rewrite, self._touch],
            *[self._move, self._move, self._swap, self._delete],
        ]
        return self._chance.choice(acts)()

    def paths(self) -> list[bytes]:
        """All there are, relative to the root."""
        return sorted(os.fsencode(p.relative_to(self.root)) for p in self.root.rglob("*"))

    def _mark(self, *paths: Path, deep: bool = False) -> Marks:
        return {os.fsencode(path.relative_to(self.root)): deep for path in paths}

    def _some(self, *, files: bool = False) -> Path | None:
        paths = [
            path
            for path in sorted(self.root.rglob("*"))
            if path.name in self._names and (path.is_file() or not files)
        ]
        return self._chance.choice(paths) if paths else None

    def _place(self) -> Path:
        directories = [self.root, *sorted(p for p in self.root.rglob("*") if p.is_dir())]
        return self._chance.choice(directories) / self._chance.choice(self._names)

    def _fill(self, path: Path) -> Marks:
        content = self._chance.choice(CONTENTS)
        self.contents.add(content)
        path.write_bytes(content)
        return self._stamp(path)

    def _stamp(self, path: Path) -> Marks:
        self._moment += SECOND + 1
        os.utime(path, ns=(self._moment, self._moment))
        return self._mark(path)

    def _write(self) -> Marks:
        path = self._place()
        return {} if path.is_dir() else self._fill(path)

    def _make_directory(self) -> Marks:
        path = self._place()
        if path.exists():
            return {}
        path.mkdir()
        if self._chance.random() < 0.5:
            self._fill(path / self._chance.choice(self._names))
        return self._mark(path, deep=True)

    def _rewrite(self) -> Marks:
        path = self._some(files=True)
        return self._fill(path) if path is not None else {}

    def _touch(self) -> Marks:
        path = self._some(files=True)
        if path is None:
            return {}
        path.chmod(self._chance.choice([0o644, 0o600]))
        return self._stamp(path)

    def _move(self) -> Marks:
        source, path = self._some(), self._place()
        if source is None or path == source or source in path.parents:
            return {}
        if path.is_dir() or (path.exists() and source.is_dir()):
            return {}
        deep = source.is_dir()
        source.rename(path)
        return self._mark(source, path, deep=deep)

    def _swap(self) -> Marks:
        one, other = self._some(), self._some()
        if one is None or other is None or one == other:
            return {}
        if one in other.parents or other in one.parents:
            return {}
        deep = one.is_dir() or other.is_dir()
        aside = self.root.parent / "aside"
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
        return self._mark(one, other, deep=deep)

    def _delete(self) -> Marks:
        path = self._some()
        if path is None:
            return {}
        if path.is_file():
            path.unlink()
            return self._mark(path)
        shutil.rmtree(path)
        return self._mark(path, deep=True)


def joined(first: Marks, second: Marks) -> Marks:
    """The marks of both."""
    return first | {path: deep or first.get(path, False) for path, deep in second.items()}
