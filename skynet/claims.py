"""Claims: what is about to be made on the remote, and is not recorded there yet.

If a cycle breaks off, the next audit finds things that the manifest does not know. Those that are
as they were claimed are ours, also if they are gone here meanwhile; everything else there is
somebody else's. The claims are a file of edits, of which each group is written before the
operations that it comes from are begun. They are hints: without them the same things are foreign.

    group   4 length | 4 CRC-32 of what follows | the edits
"""

from __future__ import annotations

import errno
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from zlib import crc32

import msgspec

from skynet import statefile
from skynet.errors import UsageError
from skynet.manifest_codec import entry_fault, path_fault
from skynet.monitor import Monitor, Notice
from skynet.ops import Copy, Mkdir, Op, Rename, Upload, effect
from skynet.tree import Edit, Entry, Move, Put, ancestors

MAX_FILE = 64 << 20  # bytes that are read
MAX_OUTDATED = 4 << 20  # bytes that are written before those that are recorded by now are left out

_HEAD = struct.Struct(">II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Edit]).decode

Recorded = Callable[[bytes], tuple[bytes, Entry] | None]  # path -> stat identity and entry


class Claimed:
    """What earlier cycles were making when they broke off.

    made: path -> what may have been put there. moved: path -> from where something may have come.
    """

    def __init__(self, edits: Iterable[Edit] = ()) -> None:
        self.made: Mapping[bytes, list[Entry]] = defaultdict(list)
        self.moved: Mapping[bytes, list[bytes]] = defaultdict(list)
        for edit in edits:
            if isinstance(edit, Put):
                self.made[edit.path].append(edit.entry)
            elif isinstance(edit, Move):
                self.moved[edit.path].append(edit.source)

    def __bool__(self) -> bool:
        return bool(self.made or self.moved)

    def origins(self, path: bytes, recorded: Recorded) -> Iterator[tuple[bytes, Entry]]:
        """What may be at a path: the identity that it had here, b"" if unknown, and the entry."""
        seen = {path}
        waiting = [path]
        while waiting:
            path = waiting.pop()
            row = recorded(path)
            if row is not None:
                yield row
            for entry in self.made.get(path, ()):
                yield b"", entry
            for directory in (path, *ancestors(path)):
                for source in self.moved.get(directory, ()):
                    before = source + path[len(directory) :]
                    if before not in seen:
                        seen.add(before)
                        waiting.append(before)


NOTHING_CLAIMED = Claimed()


class Claims:
    """The claims of one mirror, in a file of their own; without a path nothing is kept."""

    def __init__(self, path: Path | None, monitor: Monitor) -> None:
        self._path = path
        self._monitor = monitor
        self._left: list[Edit] | None = None  # by earlier cycles, once they are read
        self._file: FileIO | None = None
        self._written = 0

    def left(self) -> Claimed:
        """Those of cycles that broke off."""
        self._left = list(_read(self._path)) if self._path is not None else []
        return Claimed(self._left)

    def add(self, ops: Iterable[Op]) -> None:
        """Claim what these make, before they are begun."""
        edits = [effect(op) for op in ops if _makes(op)]
        if edits:
            self._use(lambda path: self._append(path, edits))

    def renew(self, unrecorded: Callable[[], Iterable[Op]]) -> None:
        """Leave out what is recorded by now, if the file has become large."""
        if self._written >= MAX_OUTDATED:
            edits = [effect(op) for op in unrecorded() if _makes(op)]
            self._use(lambda path: self._rewrite(path, edits))

    def end(self, *, audited: bool) -> None:
        """All that a cycle made is recorded; what earlier ones made too, if it had an audit."""
        if audited:
            self._left = []
        self._use(lambda path: self._rewrite(path, []))

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
            self._path = None  # whoever is told, has been
            self._monitor(
                Notice(
                    "claims-unwritable",
                    "What is about to be made on the remote cannot be noted here "
                    f"({error.strerror}). If this run breaks off, and some of that is deleted here "
                    "before the next run, it is taken for somebody else's.",
                )
            )

    def _append(self, path: Path, edits: list[Edit]) -> None:
        if self._file is None:
            if self._left is None:
                self.left()
            self._file = FileIO(os.open(path, _APPEND, 0o600), "a")
        group = _group(edits)
        if self._file.write(group) < len(group):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += len(group)

    def _rewrite(self, path: Path, edits: list[Edit]) -> None:
        self.close()
        if self._left or edits:
            statefile.replace(path, _group([*(self._left or ()), *edits]))
        else:
            path.unlink(missing_ok=True)


_APPEND = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)


def _makes(op: Op) -> bool:
    """Whether something is at the path then of which the manifest knows nothing."""
    if isinstance(op, Upload):
        return op.replaces is None or op.foreign
    if isinstance(op, Copy):
        return op.replaces is None
    return isinstance(op, Mkdir | Rename)


def _group(edits: list[Edit]) -> bytes:
    data = _encode(edits)
    return _HEAD.pack(len(data), crc32(data)) + data


def _read(path: Path) -> Iterator[Edit]:
    """The edits of all groups up to one that is not whole."""
    try:
        data = statefile.read(path, MAX_FILE)
    except UsageError:
        return
    at = 0
    while data is not None and at + _HEAD.size <= len(data):
        length, check = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        group = data[at : at + length]
        if len(group) < length or crc32(group) != check:
            return
        yield from _checked(group)
        at += length


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
