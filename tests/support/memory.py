"""A remote in memory, which does what a server with a POSIX file system does.

It is deterministic, never waits, lists the calls made, and can refuse or be cut at any of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from skynet.errors import LinkLost, RequestError, SkynetError, SourceError, TargetError
from skynet.ops import Delete, Mkdir, Op, Record, Rename, Rmdir, SetMeta, Upload, kind
from skynet.remote.verbs import OWN, TEMPS, TRASH, Facts, Listed, Outcome, Site, Trash
from skynet.scan import LocalFile, Root, digest_of
from skynet.tree import DIR, FILE, LINK, Entry, Kind, Tree, ancestors, is_below, join, order, parent
from skynet.tree import name as last_name
from tests.support.worlds import CONTENT_OF, SECOND, seen

if TYPE_CHECKING:
    from skynet.sftp.upload import Source

CHUNK = 1000  # of what is read
PIECE = 8  # of what is uploaded
DEFAULT_MODE = 0o644


def first(_number: int) -> int:
    """Of `number` operations under way, the one that was begun first."""
    return 0


class MemoryRemote:
    """All that is at the target, skynet's own included: `tree` as listed, `data` of files.

    calls: what was asked for and carried out, as (verb or kind of operation, path or own name).
    refusals: the error with which the k-th call (from 0) ends, undone. cut_at: from that call on
    all end with LinkLost, undone. choose(n): which of n operations under way is done next.
    at_once: how many outcomes one `wait` gives at most, 0 for all.
    """

    def __init__(
        self,
        tree: Tree | None = None,
        *,
        choose: Callable[[int], int] = first,
        at_once: int = 0,
        keeps: Facts | None = None,
    ) -> None:
        self.tree: dict[bytes, Entry] = {}
        self.data: dict[bytes, bytes] = {}
        self.exists = tree is not None
        self.facts = Facts()
        self.trash = Trash(b"unstamped")
        self.calls: list[tuple[str, bytes]] = []
        self.refusals: dict[int, Exception] = {}
        self.cut_at: int | None = None
        self._keeps = keeps or Facts()
        self._choose = choose
        self._at_once = at_once
        self._under_way: list[tuple[Op, Callable[[], Source] | None]] = []
        self._counts: Counter[str] = Counter()
        for path, entry in (tree or {}).items():
            self.tree[path] = seen(entry)
            if entry.kind == FILE:
                self.data[path] = CONTENT_OF[entry.digest]

    @property
    def mirrored(self) -> dict[bytes, Entry]:
        """What is at the target but skynet's own."""
        return {p: e for p, e in self.tree.items() if p != OWN and not is_below(p, OWN)}

    @property
    def under_way(self) -> int:
        """Operations that were begun and have not ended."""
        return len(self._under_way)

    def examine(self) -> Site:
        self._called("examine", b"")
        own = self.tree.get(OWN)
        if own is not None and own.kind != DIR:
            raise TargetError(".skynet is not a directory.", "target-blocked")
        return Site(self.exists, join(OWN, TEMPS) in self.tree)

    def prepare(self) -> None:
        self._called("prepare", b"", mutations=1)
        self.exists = True
        for path in (OWN, join(OWN, TEMPS)):
            self.tree.setdefault(path, Entry(DIR, mode=0o700))

    def probe(self) -> Facts:
        self._called("probe", b"", mutations=1)
        return self._keeps

    def walk(self, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
        self._called("walk", b"")
        if not self.exists:
            yield Listed(b"", {}, frozenset(), self._missing())
            return
        hidden: list[bytes] = []
        for directory in [b"", *sorted(self._directories(), key=order)]:
            if any(directory == h or is_below(directory, h) for h in hidden):
                continue
            if directory and hides(directory):
                hidden.append(directory)
            else:
                yield Listed(directory, self._children(directory), frozenset(), None)

    def kinds(self, paths: Sequence[bytes]) -> list[Kind | None]:
        self._called("kinds", b"")
        found = [self.tree.get(path) for path in paths]
        return [entry.kind if entry is not None else None for entry in found]

    def submit(self, op: Op, open_source: Callable[[], Source] | None = None) -> None:
        self._under_way.append((op, open_source))

    def wait(self, seconds: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self._under_way and (not self._at_once or len(outcomes) < self._at_once):
            op, open_source = self._under_way.pop(self._choose(len(self._under_way)))
            outcomes.append(self._outcome(op, open_source))
        return outcomes

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

    def write_at(self, name: bytes, offset: int, data: bytes) -> None:
        self._called("write_at", name, mutations=1)
        old = self.data.get(join(OWN, name), b"").ljust(offset, b"\0")
        self._write(join(OWN, name), old[:offset] + data + old[offset + len(data) :])

    def create(self, name: bytes, data: bytes) -> bool:
        self._called("create", name, mutations=1)
        if join(OWN, name) in self.tree:
            return False
        self._write(join(OWN, name), data)
        return True

    def rename(self, source: bytes, name: bytes) -> bool:
        self._called("own-rename", source, mutations=1)
        if join(OWN, source) not in self.tree:
            return False
        self._move(join(OWN, source), join(OWN, name))
        return True

    def remove(self, name: bytes) -> None:
        self._called("remove", name, mutations=1)
        self._drop(join(OWN, name))

    def clear_temps(self, strays: Sequence[bytes] = ()) -> int:
        self._called("clear_temps", b"", mutations=1)
        temps = join(OWN, TEMPS)
        below = [path for path in self.tree if is_below(path, temps) or path in strays]
        for path in below:
            self._drop(path)
        return len(below)

    def expire_trash(self, before: bytes) -> None:
        self._called("expire_trash", before, mutations=1)
        trash = join(OWN, TRASH)
        for path in [path for path in self.tree if is_below(path, trash)]:
            if path.removeprefix(trash + b"/").partition(b"/")[0] < before:
                self._drop(path)

    def content(self, path: bytes) -> Iterator[bytes]:
        self._called("content", path)
        if path not in self.data:
            raise self._missing()
        return _chunks(self.data[path])

    @property
    def counts(self) -> Counter[str]:
        return self._counts.copy()

    def close(self) -> None:
        self.cut_at = 0

    # Operations.

    def _outcome(self, op: Op, open_source: Callable[[], Source] | None) -> Outcome:
        try:
            sent = 0 if isinstance(op, Record) else 1
            self._called(kind(op), op.path, requests=sent, mutations=sent)
            return self._carry_out(op, open_source)
        except (SkynetError, OSError) as error:
            return Outcome(op, b"", error)

    def _carry_out(self, op: Op, open_source: Callable[[], Source] | None) -> Outcome:
        match op:
            case Upload():
                return self._upload(op, open_source)
            case Mkdir():
                self._mkdir(op)
            case Rename():
                self._move(op.source, op.path)
            case SetMeta():
                self._set_meta(op.path, op.entry)
            case Delete():
                self._delete(op.path, foreign=op.foreign)
            case Rmdir():
                self._rmdir(op.path)
        return Outcome(op, b"", None)

    def _mkdir(self, op: Mkdir) -> None:
        there = self.tree.get(op.path)
        if there is not None and there.kind != DIR:
            raise _failure()
        self._expect_parent(op.path)
        self.tree.setdefault(op.path, Entry(DIR, mode=0o755))
        self._set_meta(op.path, op.entry)

    def _upload(self, op: Upload, open_source: Callable[[], Source] | None) -> Outcome:
        if op.entry.kind == LINK:
            self._make_room(op)
            self.tree[op.path] = op.entry
            return Outcome(op, b"", None)
        assert open_source is not None
        data, identity = _read_all(open_source())
        self._counts["bytes"] += len(data)
        self._make_room(op)
        self._write(op.path, data)
        self._set_meta(op.path, op.entry)
        entry = msgspec.structs.replace(op.entry, digest=digest_of([data]))
        return Outcome(msgspec.structs.replace(op, entry=entry), identity, None)

    def _make_room(self, op: Upload) -> None:
        self._expect_parent(op.path)
        there = self.tree.get(op.path)
        if there is None:
            return
        if there.kind == DIR:
            raise RequestError("Is a directory", "rename-refused")
        if op.foreign or (self.trash.keep_replaced and op.replaces is not None):
            self._to_trash(op.path)
        else:
            self._drop(op.path)

    def _delete(self, path: bytes, *, foreign: bool) -> None:
        there = self.tree.get(path)
        if there is None:
            return
        if self.trash.keep_deleted or foreign:
            self._to_trash(path)
        elif there.kind == DIR:
            raise _failure()
        else:
            self._drop(path)

    def _to_trash(self, path: bytes) -> None:
        place = join(join(join(OWN, TRASH), self.trash.stamp), path)
        for directory in reversed(list(ancestors(place))):
            self.tree.setdefault(directory, Entry(DIR, mode=0o700))
        self._move(path, place)

    def _rmdir(self, path: bytes) -> None:
        if path not in self.tree:
            return
        if self.tree[path].kind != DIR or any(is_below(other, path) for other in self.tree):
            raise _failure()
        self._drop(path)

    def _set_meta(self, path: bytes, entry: Entry) -> None:
        there = self.tree.get(path)
        if there is None:
            raise self._missing()
        sets_mode = self._keeps.keeps_modes and entry.mode is not None
        sets_time = self._keeps.keeps_times and entry.kind == FILE
        self.tree[path] = msgspec.structs.replace(
            there,
            mode=entry.mode if sets_mode else there.mode,
            mtime_ns=seen(entry).mtime_ns if sets_time else there.mtime_ns,
        )

    # The file system.

    def _called(self, verb: str, path: bytes, *, requests: int = 1, mutations: int = 0) -> None:
        number = len(self.calls)
        if self.cut_at is not None and number >= self.cut_at:
            raise LinkLost("The link is cut by the test.")
        self.calls.append((verb, path))
        self._counts += Counter(requests=requests, mutations=mutations)
        if number in self.refusals:
            raise self.refusals[number]

    def _directories(self) -> Iterator[bytes]:
        return (path for path, entry in self.tree.items() if entry.kind == DIR)

    def _children(self, directory: bytes) -> dict[bytes, Entry]:
        return {last_name(p): e for p, e in self.tree.items() if parent(p) == directory}

    def _expect_parent(self, path: bytes) -> None:
        above = parent(path)
        if above and (above not in self.tree or self.tree[above].kind != DIR):
            raise self._missing()

    def _move(self, source: bytes, path: bytes) -> None:
        if source not in self.tree:
            raise self._missing()
        self._expect_parent(path)
        if path in self.tree:
            raise _failure()
        for old in [p for p in self.tree if p == source or is_below(p, source)]:
            new = path + old[len(source) :]
            self.tree[new] = self.tree.pop(old)
            if old in self.data:
                self.data[new] = self.data.pop(old)

    def _write(self, path: bytes, data: bytes) -> None:
        self._expect_parent(path)
        self.data[path] = data
        mode = 0o600 if is_below(path, OWN) else DEFAULT_MODE
        self.tree[path] = Entry(FILE, len(data), SECOND, mode)

    def _drop(self, path: bytes) -> None:
        self.tree.pop(path, None)
        self.data.pop(path, None)

    def _piece(self, path: bytes, offset: int, length: int) -> bytes | None:
        data = self.data.get(path)
        return None if data is None else data[offset : offset + length]

    @staticmethod
    def _missing() -> RequestError:
        return RequestError("No such file", "no-such-file")


def _failure() -> RequestError:
    return RequestError("Failure", "failure")


def _chunks(data: bytes) -> Iterator[bytes]:
    return (data[at : at + CHUNK] for at in range(0, len(data), CHUNK))


def _read_all(source: Source) -> tuple[bytes, bytes]:
    """(content, identity) of a local file, which is closed again. TornRead, OSError."""
    try:
        data = b"".join(iter(lambda: source.read(PIECE), b""))
        return data, source.verify()
    finally:
        source.close()


class MemorySource(LocalFile):
    """A local file in memory."""

    def __init__(self, data: bytes, identity: bytes) -> None:
        self.size = len(data)
        self._data = data
        self._identity = identity
        self._at = 0

    def read(self, limit: int) -> bytes:
        data = self._data[self._at : self._at + limit]
        self._at += len(data)
        return data

    def verify(self) -> bytes:
        return self._identity

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

    def open(self, path: bytes, entry: Entry) -> LocalFile:
        return MemorySource(CONTENT_OF[self.tree[path].digest], b"identity of " + path)
