"""The files that scripts/bench mirrors, and the check of what arrived.

The same batches make the same files, byte for byte, with content that does not compress.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from _bench_work import MIB, Batch, BenchError

OLDEST_MTIME = 1_600_000_000  # long past, so that no tool doubts a file for being new
RESERVED = ".skynet"  # what skynet keeps for itself in a target


class Tally(NamedTuple):
    """How many files, and the bytes in them."""

    files: int
    size: int


def ensure_data(store: Path, batches: Sequence[Batch]) -> Path:
    """The directory in `store` with the files of the batches; made if it is not there yet."""
    folder = store / "_".join(map(_name, batches))
    if folder.is_dir():
        return folder
    # The final name appears only when all is written, so what an interrupted run left is redone.
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for batch in batches:
        _make_batch(unfinished, batch)
    unfinished.rename(folder)
    return folder


def _name(batch: Batch) -> str:
    """Names everything that decides the content."""
    return f"{batch.name}-{batch.count}-{batch.smallest}-{batch.largest}-{batch.per_directory}"


def _make_batch(folder: Path, batch: Batch) -> None:
    source = random.Random(_name(batch))
    for number in range(batch.count):
        directory = folder / f"{batch.name} {number // batch.per_directory:05}"
        if number % batch.per_directory == 0:
            directory.mkdir(parents=True)
        path = directory / f"{batch.name}-{number:07}.bin"
        _make_file(path, source, source.randint(batch.smallest, batch.largest))
        mtime = OLDEST_MTIME + number
        os.utime(path, (mtime, mtime))


def _make_file(path: Path, source: random.Random, size: int) -> None:
    with path.open("wb") as file:
        while size > 0:
            file.write(source.randbytes(min(size, MIB)))
            size -= MIB


def walk_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file below `folder`, except in what skynet keeps for itself at its top."""
    places = [str(folder)]
    while places:
        place = places.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif entry.name != RESERVED or place != str(folder):
                    places.append(entry.path)


def tally(folder: Path) -> Tally:
    """Count what lies below `folder`; nothing if it does not exist."""
    if not folder.is_dir():
        return Tally(0, 0)
    files = size = 0
    for entry in walk_files(folder):
        files += 1
        size += entry.stat(follow_symlinks=False).st_size
    return Tally(files, size)


def warm(folder: Path) -> Tally:
    """Read every file once, so that no tool pays for the disk alone. Returns what there is."""
    files = size = 0
    for entry in walk_files(folder):
        files += 1
        size += sum(map(len, _chunks(Path(entry.path))))
    return Tally(files, size)


def require_same(source: Path, target: Path, expected: Tally, every_byte: bool) -> None:
    """Raise BenchError unless `target` holds what `source` does, whose tally is `expected`."""
    found = tally(target)
    if found != expected:
        raise BenchError(
            f"{found.files} files with {found.size} bytes arrived, "
            f"not {expected.files} with {expected.size}."
        )
    if not every_byte:
        return
    for entry in walk_files(source):
        relative = os.path.relpath(entry.path, source)
        if not _equal(Path(entry.path), target / relative):
            raise BenchError(f"{relative} arrived with other content, or under another name.")


def _equal(one: Path, other: Path) -> bool:
    # filecmp would answer from its cache here: targets of two rounds have the same size and mtime.
    if not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    return all(a == b for a, b in zip(_chunks(one), _chunks(other), strict=False))


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            yield chunk
