"""A remote in memory, which does what a server with a POSIX file system does.

It is deterministic, never waits, lists the calls made, and can refuse or be cut at any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from skynet.blocks import PATCH_FROM, Signature
from skynet.delta import Delta
from skynet.errors import LinkLost, SkynetError, SourceError, TargetError, TornRead
from skynet.ops import (
    Copy,
    Delete,
    Mkdir,
    Op,
    Patch,
    Record,
    Rename,
    Rmdir,
    SetMeta,
    Upload,
    kind,
)
from skynet.remote.verbs import OWN, TEMPS, TRASH, Facts, Intent, Listed, Outcome, Site, Stamp
from skynet.scan import LocalFile, Root, digest_of
from skynet.sftp.pieces import Source
from skynet.tree import DIR, LINK, Entry, Kind, Tree, ancestors, is_below, join, order
from tests.support.disk import MemoryDisk, missing
from tests.support.versions import assembled, signed
from tests.support.worlds import CONTENT_OF, SECOND

Opener = Callable[[], Source]

CHUNK = 1000  # of what is read
PIECE = 8  # of what is uploaded
TMP = join(OWN, TEMPS)


def first(_number: int) -> int:
    """Of `number` operations under way, the one that was begun first."""
    return 0


class _Begun(NamedTuple):
    """An operation under way."""

    op: Op
    open_source: Opener | None
    delta: Delta | None

    def read(self) -> tuple[bytes, bytes]:
        """(content, identity) of the local file. TornRead, OSError."""
        assert self.open_source is not None
        return _read_all(self.open_source())


class MemoryRemote(MemoryDisk):
    """A remote whose target is a MemoryDisk.

    calls: what was asked for and carried out, as (verb or kind of operation, path or own name).
    refusals: the error with which the k-th call (from 0) ends, undone. cut_at: from that call on
    all end with LinkLost, undone. choose(n): which of n operations under way is done next.
    at_once: how many outcomes one `wait` gives at most, 0 for all. clock: the server's, in seconds,
    as files of skynet's own show it.
    """

    def __init__(
        self,
        tree: Tree | None = None,
        *,
        choose: Callable[[int], int] = first,
        at_once: int = 0,
        keeps: Facts | None = None,
        can_copy: bool = True,
    ) -> None:
        super().__init__(tree or {}, keeps)
        self.exists = tree is not None
        self.facts = Facts()
        self.can_copy = can_copy
        self.calls: list[tuple[str, bytes]] = []
        self.refusals: dict[int, Exception] = {}
        self.cut_at: int | None = None
        self.clock: Callable[[], float] = lambda: 1.0
        self._choose = choose
        self._at_once = at_once
        self._under_way: list[_Begun] = []
        self._counts: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Operations that were begun and have not ended."""
        return len(self._under_way)

    def examine(self) -> Site:
        self._called("examine", b"")
        own = self.tree.get(OWN)
        if own is not None and own.kind != DIR:
            raise TargetError(".skynet is not a directory.", "target-blocked")
        return Site(self.exists, TMP in self.tree)

    def prepare(self) -> Facts:
        self._called("prepare", b"", mutations=1)
        self.exists = True
        for path in (OWN, TMP):
            self.tree.setdefault(path, Entry(DIR, mode=0o700))
        return self._keeps

    def walk(self, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
        self._called("walk", b"")
        if not self.exists:
            yield Listed(b"", {}, frozenset(), missing())
            return
        hidden: list[bytes] = []
        for directory in [b"", *sorted(self._directories(), key=order)]:
            if any(directory == h or is_below(directory, h) for h in hidden):
                continue
            if directory and hides(directory):
                hidden.append(directory)
            else:
                yield Listed(directory, self._children(directory), frozenset(), None)

    def kinds(self, paths: Sequence[bytes]) -> Callable[[], list[Kind | None]]:
        self._called("kinds", b"")
        found = [entry.kind if (entry := self.tree.get(path)) else None for path in paths]
        return lambda: found

    def expect(self, operations: int) -> None:
        """There is nothing to open."""

    def submit(
        self,
        op: Op,
        open_source: Opener | None = None,
        intent: Intent | None = None,
        delta: Delta | None = None,
    ) -> None:
        self._under_way.append(_Begun(op, open_source, delta))

    def wait(self, seconds: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self._under_way and (not self._at_once or len(outcomes) < self._at_once):
            begun = self._under_way.pop(self._choose(len(self._under_way)))
            outcomes.append(self._outcome(begun))
        return outcomes

    def unfinished(self) -> dict[bytes, Intent]:
        return {}

    def peek(self, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes | None]:
        self._called("peek", b" ".join(name for name, _, _ in wanted))
        return [self._piece(join(OWN, name), at, length) for name, at, length in wanted]

    def read(self, name: bytes) -> Iterator[bytes] | None:
        self._called("read", name)
        data = self.data.get(join(OWN, name))
        return None if data is None else _chunks(data)

    def replace(self, name: bytes, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        self._called("replace", name, mutations=1)
        self._write(join(OWN, name), data)

    def write_at(self, name: bytes, offset: int, data: bytes) -> Stamp:
        self._called("write_at", name, mutations=1)
        return self._put_own(name, offset, data)

    def expect_append(self, name: bytes) -> None:
        """Nothing can be done beforehand."""

    def append(self, name: bytes, offset: int, data: bytes) -> None:
        self._called("append", name, mutations=1)
        self._put_own(name, offset, data)

    def create(self, name: bytes, data: bytes) -> Stamp | None:
        self._called("create", name, mutations=1)
        return None if join(OWN, name) in self.tree else self._put_own(name, 0, data)

    def stamp(self, name: bytes) -> Stamp | None:
        self._called("stamp", name)
        entry = self.tree.get(join(OWN, name))
        return None if entry is None else Stamp(entry.size, entry.mtime_ns // SECOND)

    def rename(self, source: bytes, name: bytes) -> bool:
        self._called("own-rename", source, mutations=1)
        if join(OWN, source) not in self.tree:
            return False
        self._move(join(OWN, source), join(OWN, name))
        return True

    def remove(self, name: bytes) -> None:
        self._called("remove", name, mutations=1)
        self._drop(join(OWN, name))

    def clear_temps(self, strays: Sequence[bytes] = (), keep: Collection[bytes] = ()) -> int:
        self._called("clear_temps", b"", mutations=1)
        kept = {p for k in keep for p in (join(OWN, k), *ancestors(join(OWN, k)))}
        below = [p for p in self.tree if (is_below(p, TMP) or p in strays) and p not in kept]
        for path in below:
            self._drop(path)
        return len(below)

    def expire_trash(self, before: bytes) -> Callable[[int], None]:
        trash = join(OWN, TRASH)
        below = [path for path in self.tree if is_below(path, trash)]
        old = [p for p in below if p.removeprefix(trash + b"/").partition(b"/")[0] < before]

        def remove(_young: int) -> None:  # it dates no directories
            self._called("expire_trash", before, mutations=1)
            for path in old:
                self._drop(path)

        return remove

    def content(self, path: bytes) -> Iterator[bytes]:
        self._called("content", path)
        if path not in self.data:
            raise missing()
        return _chunks(self.data[path])

    @property
    def counts(self) -> Counter[str]:
        return self._counts.copy()

    def close(self) -> None:
        self.cut_at = 0

    def _put_own(self, name: bytes, offset: int, data: bytes) -> Stamp:
        path = join(OWN, name)
        old = self.data.get(path, b"").ljust(offset, b"\0")
        self._write(path, old[:offset] + data + old[offset + len(data) :])
        entry = msgspec.structs.replace(self.tree[path], mtime_ns=int(self.clock()) * SECOND)
        self.tree[path] = entry
        return Stamp(entry.size, entry.mtime_ns // SECOND)

    # Operations.

    def _outcome(self, begun: _Begun) -> Outcome:
        op = begun.op
        try:
            sent = 0 if isinstance(op, Record) else 1
            self._called(kind(op), op.path, requests=sent, mutations=sent)
            return self._carry_out(begun)._replace(trashed=self._stamp_for(op))
        except (SkynetError, OSError) as error:
            return Outcome(op, b"", error)

    def _carry_out(self, begun: _Begun) -> Outcome:
        op = begun.op
        match op:
            case Upload():
                return self._upload(op, begun)
            case Patch():
                return self._patch(op, begun)
            case Copy():
                return self._copy(op, begun)
            case Mkdir():
                self._mkdir(op.path, op.entry)
            case Rename():
                self._rename(op)
            case SetMeta():
                self._set_meta(op.path, op.entry)
            case Delete():
                self._delete(op.path, foreign=op.foreign)
            case Rmdir():
                self._rmdir(op.path)
        return Outcome(op, b"", None)

    def _upload(self, op: Upload, begun: _Begun) -> Outcome:
        if op.entry.kind == LINK:
            self._make_room(op.path, keeps=self._keeps_old(op))
            self.tree[op.path] = op.entry
            return Outcome(op, b"", None)
        data, identity = begun.read()
        self._counts["bytes"] += len(data)
        self._publish(op, data)
        entry = msgspec.structs.replace(op.entry, digest=digest_of([data]))
        signature = _signature(data) if self.can_copy else None
        return Outcome(msgspec.structs.replace(op, entry=entry), identity, None, signature)

    def _patch(self, op: Patch, begun: _Begun) -> Outcome:
        delta = begun.delta
        if delta is None or not self.can_copy or not self._holds(op.path, op.replaces):
            return self._upload(Upload(op.path, op.entry, op.replaces), begun)
        data, identity = begun.read()
        self._counts["bytes"] += delta.sent
        if digest_of([data]) != delta.digest:
            raise TornRead("It changed after it was compared.")
        made = assembled(delta, self.data[op.path], data)
        self._publish(op, made)
        entry = msgspec.structs.replace(op.entry, digest=digest_of([made]))
        done = msgspec.structs.replace(op, entry=entry)
        return Outcome(done, identity, None, _signature(data))

    def _copy(self, op: Copy, begun: _Begun) -> Outcome:
        if not self.can_copy or not self._holds(op.source, op.original):
            return self._upload(Upload(op.path, op.entry, op.replaces), begun)
        self._publish(op, self.data[op.source])
        return Outcome(op, b"", None)

    def _rename(self, op: Rename) -> None:
        if op.source not in self.tree:
            raise missing()
        if op.replaces is not None:
            self._make_room(op.path, keeps=self._keeps_old(op))
        self._move(op.source, op.path)

    def _publish(self, op: Upload | Patch | Copy, data: bytes) -> None:
        self._make_room(op.path, keeps=self._keeps_old(op))
        self._write(op.path, data)
        self._set_meta(op.path, op.entry)

    def _keeps_old(self, op: Upload | Patch | Copy | Rename) -> bool:
        foreign = isinstance(op, Upload) and op.foreign
        return foreign or (self.trash.keep_replaced and op.replaces is not None)

    def _stamp_for(self, op: Op) -> bytes:
        """The stamp under which what was at an operation's path goes to the trash."""
        if isinstance(op, Delete):
            keeps = op.foreign or self.trash.keep_deleted
        else:
            keeps = isinstance(op, Upload | Patch | Copy | Rename) and self._keeps_old(op)
        return self.trash.stamp if keeps else b""

    def _called(self, verb: str, path: bytes, *, requests: int = 1, mutations: int = 0) -> None:
        number = len(self.calls)
        if self.cut_at is not None and number >= self.cut_at:
            raise LinkLost("The link is cut by the test.")
        self.calls.append((verb, path))
        self._counts += Counter(requests=requests, mutations=mutations)
        if number in self.refusals:
            raise self.refusals[number]


def _chunks(data: bytes) -> Iterator[bytes]:
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


def _read_all(source: Source) -> tuple[bytes, bytes]:
    """(content, identity) of a local file, which is closed again. TornRead, OSError."""
    try:
        data = b"".join(iter(lambda: source.read(PIECE), b""))
        return data, source.verify()
    finally:
        source.close()


def _signature(data: bytes) -> Signature | None:
    return signed(data) if len(data) >= PATCH_FROM else None


class MemorySource(LocalFile):
    """A local file in memory."""

    def __init__(self, data: bytes, identity: bytes) -> None:
        self.size = len(data)
        self._data = data
        self.identity = identity
        self._at = 0

    def read(self, limit: int) -> bytes:
        data = self._data[self._at : self._at + limit]
        self._at += len(data)
        return data

    def verify(self) -> bytes:
        return self.identity

    def close(self) -> None:
        self._data = b""


class MemoryRoot(Root):
    """A local directory in memory; `replaced_after` times `verify`, it is another directory."""

    def __init__(self, tree: Tree, replaced_after: int | None = None) -> None:
        self.tree = tree
        self.verified = 0
        self._replaced_after = replaced_after

    def verify(self) -> None:
        if self.verified == self._replaced_after:
            raise SourceError("The test has replaced the directory.")
        self.verified += 1

    def exists(self, path: bytes, *, directory: bool) -> bool:
        entry = self.tree.get(path)
        return entry is not None and (entry.kind == DIR) == directory

    def open(
        self, path: bytes, entry: Entry, check: Callable[[], None] = lambda: None
    ) -> LocalFile:
        check()
        return MemorySource(CONTENT_OF[self.tree[path].digest], b"identity of " + path)
