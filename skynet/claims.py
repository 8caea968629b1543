"""Claims: what is about to be made on the remote, and is not recorded there yet.

If a cycle breaks off, an audit cannot tell what it had done by then: whose a thing is that the
manifest does not know, or which of several files that look alike has a name now. The claims say
what may be where. They are a file of edits, of which each group is written before the operations
that it comes from are begun. They are hints: without them what is unknown is foreign.

    group   4 length | 4 CRC-32 of what follows | the edits
"""

from __future__ import annotations

import errno
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from math import inf
from pathlib import Path
from zlib import crc32

import msgspec

from skynet import statefile
from skynet.errors import UsageError
from skynet.manifest_codec import entry_fault, path_fault
from skynet.monitor import Monitor, Notice
from skynet.ops import Copy, Mkdir, Op, Patch, Record, Rename, SetMeta, Upload, effect
from skynet.tree import Edit, Entry, Move, Put, ancestors

MAX_FILE = 64 << 20  # bytes that are read
MAX_TRAIL = 1000  # paths that something may have come by
MAX_OUTDATED = 4 << 20  # bytes that are written before those that are recorded by now are left out

_HEAD = struct.Struct(">II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Edit]).decode

Recorded = Callable[[bytes], tuple[bytes, Entry] | None]  # path -> stat identity and entry


class Claimed:
    """What earlier cycles were making when they broke off: edits in the order they were begun."""

    def __init__(self, edits: Iterable[Edit] = ()) -> None:
        self._made: dict[bytes, list[Entry]] = defaultdict(list)
        self._moved: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
        for number, edit in enumerate(edits):
            if isinstance(edit, Put):
                self._made[edit.path].append(edit.entry)
            elif isinstance(edit, Move):
                self._moved[edit.path].append((number, edit.source))

    def __bool__(self) -> bool:
        return bool(self._made or self._moved)

    def concern(self, path: bytes) -> bool:
        """Whether something else than is recorded may be at the path."""
        return bool(self) and (
            path in self._made or any(at in self._moved for at in (path, *ancestors(path)))
        )

    def origins(self, path: bytes, recorded: Recorded) -> Iterator[tuple[bytes, Entry]]:
        """What may be at a path: the identity that it had here, b"" if unknown, and the entry.

        The content of what was sent is unknown.
        """
        seen: dict[bytes, float] = {}
        waiting = [(path, inf)]
        while waiting and len(seen) < MAX_TRAIL:
            path, before = waiting.pop()
            if path not in seen:
                row = recorded(path)
                if row is not None:
                    yield row
                for entry in self._made.get(path, ()):
                    yield b"", entry
            if seen.get(path, -1) >= before:
                continue
            seen[path] = before
            for directory in (path, *ancestors(path)):
                for number, source in self._moved.get(directory, ()):
                    if number < before:  # what came here by a later move has been moved since
                        waiting.append((source + path[len(directory) :], number))


NOTHING_CLAIMED = Claimed()


class Claims:
    """The claims of one mirror, in a file of their own; without a path nothing is kept."""

    def __init__(self, path: Path | None, monitor: Monitor) -> None:
        self._path = path
        self._monitor = monitor
        self._left: list[Edit] | None = None  # by earlier cycles; None if the file must be read
        self._file: FileIO | None = None
        self._written = 0
        self._told: list[Edit] = []  # in this cycle
        self._is_torn = False  # the file ends in a group that is not whole
        self._is_seen = False  # what was left by cycles that broke off
        self._is_told = False

    @property
    def are_unseen(self) -> bool:
        """Whether a cycle has broken off and no audit has looked at what it left."""
        return not self._is_seen and self._path is not None and self._path.exists()

    def left(self) -> Claimed:
        """Those of cycles that broke off."""
        self._is_seen = True
        if self._path is None:
            return NOTHING_CLAIMED
        return Claimed(self._look(self._path))

    def tell(self, ops: Iterable[Op]) -> None:
        """Claim what earlier cycles made and this one will record, before it records anything.

        As soon as it is recorded that a directory is gone from where it was, nothing else tells of
        what is in it where it is now.
        """
        tells = (op for op in ops if isinstance(op, Record) and op.first and op.entry is not None)
        self._told = [effect(op) for op in tells]
        if self._told:
            self._use(lambda path: self._append(path, self._told))

    def add(self, ops: Iterable[Op]) -> None:
        """Claim what these make, before they are begun."""
        edits = list(_edits(ops))
        if edits:
            self._use(lambda path: self._append(path, edits))

    def renew(self, unrecorded: Callable[[], Iterable[Op]]) -> None:
        """Leave out what is recorded by now, if the file has become large."""
        if self._written >= MAX_OUTDATED:
            self._use(lambda path: self._rewrite(path, [*self._told, *_edits(unrecorded())]))

    def break_off(self) -> None:
        """The cycle ends here; what it claimed is left for the next."""
        self._left, self._is_seen, self._told = None, False, []
        self.close()

    def end(self, *, left_too: bool) -> None:
        """All that the cycle made is recorded; and what earlier ones had left, if that was seen."""
        self._is_seen, self._told = True, []
        if left_too:
            self._left = []
        self._use(lambda path: self._rewrite(path, ()))

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._written = 0

    def _use(self, work: Callable[[Path], None]) -> None:
        """Write, but let no disk that is full or read-only keep the mirror from its work."""
        if self._path is None:
            return
        try:
            work(self._path)
        except OSError as error:
            self._left = None
            self.close()
            if not self._is_told:
                self._is_told = True
                self._monitor(
                    Notice(
                        "claims-unwritable",
                        "What is about to be made on the remote cannot be noted here "
                        f"({error.strerror}). If this run breaks off, and some of that is deleted "
                        "here before the next run, it is taken for somebody else's.",
                    )
                )

    def _append(self, path: Path, edits: list[Edit]) -> None:
        if self._file is None:
            if self._left is None:
                self._look(path)
            if self._is_torn:  # nothing that follows would be read
                self._rewrite(path, ())
            self._file = FileIO(os.open(path, _APPEND, 0o600), "a")
        group = _group(edits)
        if self._file.write(group) < len(group):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += len(group)

    def _rewrite(self, path: Path, edits: Iterable[Edit]) -> None:
        self.close()
        left = self._look(path) if self._left is None else self._left
        if wanted := [*left, *edits]:
            statefile.replace(path, _group(wanted))
        else:
            path.unlink(missing_ok=True)
        self._is_torn = False

    def _look(self, path: Path) -> list[Edit]:
        self._left, is_whole = _read(path)
        self._is_torn = not is_whole
        return self._left


_APPEND = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


def _edits(ops: Iterable[Op]) -> Iterator[Edit]:
    """What will be somewhere, but for what takes the place of something foreign.

    If that looks like it, nothing tells the two apart afterwards.
    """
    for op in ops:
        if isinstance(op, Rename | SetMeta):
            yield effect(op)
        elif isinstance(op, Mkdir | Upload | Patch | Copy) and not _may_be_foreign(op):
            yield Put(op.path, msgspec.structs.replace(op.entry, digest=b""))


def _may_be_foreign(op: Op) -> bool:
    return isinstance(op, Upload) and op.foreign


def _group(edits: list[Edit]) -> bytes:
    data = _encode(edits)
    return _HEAD.pack(len(data), crc32(data)) + data


def _read(path: Path) -> tuple[list[Edit], bool]:
    """The edits of all groups up to one that is not whole; whether there is none such."""
    edits: list[Edit] = []
    try:
        data = statefile.read(path, MAX_FILE)
    except UsageError:
        return edits, False
    if data is None:
        return edits, not os.path.lexists(path)
    at = 0
    while at + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        group = data[at : at + length]
        if len(group) < length or crc32(group) != check:
            return edits, False
        edits += _checked(group)
        at += length
    return edits, at == len(data)


def _checked(group: bytes) -> Iterator[Edit]:
    try:
        edits = _decode(group)
    except msgspec.DecodeError:
        return
    for edit in edits:
        paths = (edit.path, edit.source) if isinstance(edit, Move) else (edit.path,)
        is_fit = not any(map(path_fault, paths))
        if is_fit and not (isinstance(edit, Put) and entry_fault(edit.entry)):
            yield edit
