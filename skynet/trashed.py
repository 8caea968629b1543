"""What is in the remote's trash: content that need not be sent again when it comes back.

Noted when the trash is filled: large files of ours, by their size, with where they are now. These
are hints (see hints.py): one that is lost, or that leads to nothing any more, costs an upload. The
least recently used go when all together take more than MAX_KEPT, and each goes with its trash.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from skynet.hints import Bounds, Hinted, Hints, HintsDamaged
from skynet.index import LARGE
from skynet.manifest_codec import entry_fault, path_fault
from skynet.monitor import Monitor, Notice
from skynet.ops import Delete
from skynet.remote import Outcome
from skynet.rules import in_trash, was_at
from skynet.tree import FILE, Entry

MAX_KEPT = 4 << 20  # bytes on the disk: some 20,000 notes, swept in a second
MAX_OF_A_SIZE = 1000
MAX_ITEM = 1 << 20  # bytes of all that is noted of a size
_BOUNDS = Bounds(item=MAX_ITEM, database=MAX_KEPT + (16 << 20), keep=MAX_KEPT)

Kept = tuple[bytes, Entry]  # path in the target, reserved as it is, and the file that is there

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Kept]).decode


def put_away(outcomes: Iterable[Outcome]) -> Iterator[Kept]:
    """What operations that are done have moved to the trash, as far as it is worth a note."""
    for outcome in outcomes:
        if not outcome.trashed:
            continue
        op = outcome.op
        old = op.entry if isinstance(op, Delete) else getattr(op, "replaces", None)
        is_worth_it = old is not None and old.kind == FILE and old.size >= LARGE and old.digest
        if old is not None and is_worth_it and not getattr(op, "foreign", False):
            yield in_trash(outcome.trashed, op.path), msgspec.structs.replace(old, retained=False)


class Trashed(Hinted):
    """The notes of one mirror; as a context manager, closed at its end."""

    @classmethod
    def open(cls, directory: Path, monitor: Monitor, *, read_only: bool = False) -> Trashed:
        """The notes kept in a directory of their own."""

        def forgotten(error: Exception) -> None:
            monitor(
                Notice(
                    "trash-notes-damaged",
                    f"The notes of what is in the trash in {directory} cannot be used ({error}). "
                    "They are begun anew; what comes back from there is sent once more.",
                )
            )

        return cls(Hints(directory, _BOUNDS, forgotten, read_only=read_only))

    def holds_size(self, size: int) -> bool:
        """Whether the trash may hold a file of this size in bytes."""
        return bool(self._of_size(size))

    def holder(self, size: int, digest: bytes) -> Kept | None:
        """Where it may hold content of this size and xxh3-128."""
        return next((kept for kept in self._of_size(size) if kept[1].digest == digest), None)

    def note(self, news: Iterable[Kept]) -> None:
        """Keep these too."""
        by_size: dict[int, list[Kept]] = defaultdict(list)
        for kept in news:
            by_size[kept[1].size].append(kept)

        def write(cache: Any) -> None:
            with cache.transact():
                for size, added in by_size.items():
                    _write(cache, size, added + _read(cache, size))
            cache.cull()

        if self._hints is not None and by_size:
            self._hints.use(write)

    def expire(self, before: bytes) -> None:
        """Drop what was put into the trash under a stamp that sorts before `before`."""
        first = in_trash(before, b"")

        def sweep(cache: Any) -> None:
            for key in list(cache.iterkeys()):
                size = _size_of(key)
                known = _read(cache, size)
                left = [kept for kept in known if kept[0] >= first]
                if len(left) < len(known):
                    _write(cache, size, left)

        if self._hints is not None and self._hints.exist:
            self._hints.use(sweep)

    def _of_size(self, size: int) -> list[Kept]:
        found: list[Kept] = []
        if size >= LARGE and self._hints is not None and self._hints.exist:
            self._hints.use(lambda cache: found.extend(_read(cache, size)))
        return found


def _key(size: int) -> bytes:
    return size.to_bytes(8, "big")


def _size_of(key: bytes) -> int:
    if len(key) != 8:
        raise HintsDamaged("it holds a key that is no size")
    return int.from_bytes(key, "big")


def _read(cache: Any, size: int) -> list[Kept]:
    value = cache.get(_key(size))
    if value is None:
        return []
    try:
        found = _decode(value)
    except msgspec.DecodeError as error:
        raise HintsDamaged(str(error)) from None
    if not all(_can_be(kept, size) for kept in found):
        raise HintsDamaged("it holds a note that cannot be")
    return found


def _can_be(kept: Kept, size: int) -> bool:
    path, entry = kept
    before = was_at(path)
    if not before or path_fault(before) or entry_fault(entry):
        return False
    return entry.kind == FILE and entry.size == size and bool(entry.digest)


def _write(cache: Any, size: int, newest_first: list[Kept]) -> None:
    """Keep as many as there is room for; nothing, if there are none."""
    kept = newest_first[:MAX_OF_A_SIZE]
    while len(value := _encode(kept)) > MAX_ITEM:
        kept = kept[: len(kept) // 2]
    if kept:
        cache.set(_key(size), value)
    else:
        cache.delete(_key(size))
