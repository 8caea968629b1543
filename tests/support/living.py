"""A source that people work in: random changes, and what of it nobody touched."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

NAMES = ["a", "b", "c", "d.jpg", "e f", "g\n", "-h"]
SIZES = [0, 1, 700, 4096, 70_000]
LARGE = 33 << 20  # bytes; uploads from 32 MiB on are resumed
MAX_FILES = 300


class Living:
    """Changes of one source, drawn from `rng`; all it makes and moves is below `root`."""

    def __init__(self, source: Path, rng: random.Random) -> None:
        self._source = source
        self.root = source / "life"
        self.root.mkdir(parents=True)
        self._rng = rng
        self._number = 0
        self._gone: set[bytes] = set()  # contents

    def step(self) -> None:
        """Change something."""
        verbs: list[Callable[[], None]] = [
            *(self._create, self._create, self._create, self._edit, self._append, self._replace),
            *(self._rename, self._rename_directory, self._remove, self._make, self._swap),
        ]
        if self._rng.random() < 0.01:
            verbs = [self._create_large, self._remove_directory]
        if len(self._files()) > MAX_FILES:
            verbs = [self._remove_directory, self._remove]
        self._rng.choice(verbs)()

    def never_touched(self) -> set[bytes]:
        """Contents of the files that are as and where they were made; not of very small ones."""
        return {content for content in map(Path.read_bytes, self._files()) if len(content) > 9} - (
            self._gone
        )

    def _create(self) -> None:
        self._new().write_bytes(self._content())

    def _create_large(self) -> None:
        self._new().write_bytes(self._rng.randbytes(LARGE))

    def _edit(self) -> None:
        for file in self._one(self._files()):
            self._lost(file)
            size = file.stat().st_size
            with file.open("r+b") as open_file:
                open_file.seek(self._rng.randint(0, size))
                open_file.write(self._rng.randbytes(1 + size // 3))

    def _append(self) -> None:
        for file in self._one(self._files()):
            self._lost(file)
            with file.open("ab") as open_file:
                open_file.write(self._content())

    def _replace(self) -> None:
        for file in self._one(self._files()):
            draft = file.with_name(f"{file.name}~")
            draft.write_bytes(self._content())
            self._lost(draft)
            self._lost(file)
            draft.replace(file)

    def _rename(self) -> None:
        for file in self._one(self._files()):
            self._lost(file)
            file.rename(self._new())

    def _rename_directory(self) -> None:
        for directory in self._one(self._directories()):
            target = self._new()
            if directory not in target.parents:
                self._lost(directory)
                directory.rename(target)

    def _remove(self) -> None:
        for file in self._one(self._files()):
            self._lost(file)
            file.unlink()

    def _remove_directory(self) -> None:
        for directory in self._one(self._directories()):
            self._lost(directory)
            shutil.rmtree(directory)

    def _make(self) -> None:
        self._new().mkdir()

    def _swap(self) -> None:
        files = self._files()
        if len(files) > 1:
            one, other = self._rng.sample(files, 2)
            aside = self._new()
            for old, new in ((one, aside), (other, one), (aside, other)):
                self._lost(old)
                old.rename(new)

    def _content(self) -> bytes:
        return self._rng.randbytes(self._rng.choice(SIZES))

    def _new(self) -> Path:
        """A path at which there is nothing, often one that was there before."""
        directory = self._rng.choice([self.root, *self._directories()])
        name = self._rng.choice(NAMES)
        while os.path.lexists(directory / name):
            self._number += 1
            name = f"{name[:10]}{self._number}"
        return directory / name

    def _lost(self, path: Path) -> None:
        """What is here is about to go away."""
        files = path.rglob("*") if path.is_dir() else [path]
        self._gone |= {file.read_bytes() for file in files if file.is_file()}

    def _one(self, paths: list[Path]) -> list[Path]:
        return [self._rng.choice(paths)] if paths else []

    def _files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file())

    def _directories(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_dir())
