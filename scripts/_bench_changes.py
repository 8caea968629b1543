"""What people do to their files between two syncs, for scripts/bench.

What is random is seeded by the change's name, so that it is the same in every turn. What is put
into a large file in one place follows its size, which --scale shrinks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

from _bench_work import KIB, MIB, Change

EDIT_SIZE = 4 * KIB
INSERT_SIZE = 1000
CHANGED_OF = 10  # one of so many files, in "scatter"


def make_change(change: Change, folder: Path) -> None:
    """Change the files below `folder`, the same way each time."""
    source = Random(change)
    match change:
        case "move-dir":
            _move(folder)
        case "move-edit":
            _move_edit(folder, source)
        case "swap":
            _rotate(_files(folder))
        case "cycle":
            _rotate(sorted(folder.iterdir()))
        case "scatter":
            _scatter(folder, source)
        case _:
            (path,) = _files(folder)
            _change_file(change, path, source)


def _change_file(change: Change, path: Path, source: Random) -> None:
    size = path.stat().st_size
    match change:
        case "copy":
            shutil.copyfile(path, path.with_name("copy.bin"))
        case "front":
            _insert(path, source, [0], size // 1024)
        case "edits":
            _overwrite(path, source, 100)
        case "inserts":
            _insert(path, source, sorted(source.randrange(size) for _ in range(10)), INSERT_SIZE)
        case "append":
            _append(path, source, size // 16)


def _move(folder: Path) -> None:
    (directory,) = folder.iterdir()
    directory.rename(folder / "moved")


def _move_edit(folder: Path, source: Random) -> None:
    """The directory moves; and in it 10 files are edited, 5 removed and 5 added."""
    _move(folder)
    files = _files(folder)
    source.shuffle(files)
    for path in files[:5]:
        path.unlink()
    for path in files[5:15]:
        _overwrite(path, source, 1)
    for number in range(5):
        (folder / "moved" / f"added-{number}.bin").write_bytes(source.randbytes(100 * KIB))


def _rotate(names: Sequence[Path]) -> None:
    """The first takes the second's name, and so on; the last that of the first."""
    aside = names[-1].with_name("aside")
    names[-1].rename(aside)
    for path, following in reversed(list(pairwise(names))):
        path.rename(following)
    aside.rename(names[0])


def _append(path: Path, source: Random, size: int) -> None:
    with path.open("ab") as file:
        for piece in _pieces(size):
            file.write(source.randbytes(piece))


def _scatter(folder: Path, source: Random) -> None:
    """Every tenth file is edited, renamed or touched, or gets a new one beside it, in turn.

    None is removed: the guard would hold a plan with so many deletes.
    """
    for number, path in enumerate(_walk(folder)):
        turn, is_spared = divmod(number, CHANGED_OF)
        if not is_spared:
            _disturb(path, source, turn % 4)


def _disturb(path: Path, source: Random, how: int) -> None:
    if how == 0:
        path.write_bytes(source.randbytes(path.stat().st_size))
    elif how == 1:
        path.rename(path.with_name(f"{path.name}.renamed"))
    elif how == 2:
        os.utime(path)
    else:
        path.with_name(f"{path.name}.new").write_bytes(source.randbytes(path.stat().st_size))


def _overwrite(path: Path, source: Random, times: int) -> None:
    """Edits in place, at random."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        for _ in range(times):
            file.seek(source.randrange(max(1, size - EDIT_SIZE)))
            file.write(source.randbytes(min(EDIT_SIZE, size)))


def _insert(path: Path, source: Random, places: Sequence[int], size: int) -> None:
    """Insert `size` bytes at each of the ascending places, in a new file that replaces the old."""
    unfinished = path.with_name("unfinished")
    with path.open("rb") as old, unfinished.open("wb") as new:
        for place in places:
            for piece in _pieces(place - old.tell()):
                new.write(old.read(piece))
            new.write(source.randbytes(size))
        shutil.copyfileobj(old, new, MIB)
    unfinished.replace(path)


def _pieces(size: int) -> Iterator[int]:
    """Sizes of at most 1 MiB that add up to `size`."""
    while size > 0:
        yield min(size, MIB)
        size -= MIB


def _walk(folder: Path) -> Iterator[Path]:
    """Every file, sorted; a directory is read before its first file is given out."""
    for place, directories, names in os.walk(folder):
        directories.sort()
        for name in sorted(names):
            yield Path(place, name)


def _files(folder: Path) -> list[Path]:
    return list(_walk(folder))
