"""What is at a target in memory, and what a POSIX file system does to it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from skynet.errors import RequestError
from skynet.remote.verbs import OWN, TRASH, Facts, Trash
from skynet.tree import DIR, FILE, Entry, Tree, ancestors, is_below, join, parent
from skynet.tree import name as last_name
from tests.support.worlds import CONTENT_OF, SECOND, seen

DEFAULT_MODE = 0o644


class MemoryDisk:
    """All that is at the target, skynet's own included: `tree` as listed, `data` of files.

    keeps: what it does with times and modes.
    """

    def __init__(self, tree: Tree, keeps: Facts | None = None) -> None:
        self.tree: dict[bytes, Entry] = {}
        self.data: dict[bytes, bytes] = {}
        self.trash = Trash(b"unstamped")
        self._keeps = keeps or Facts()
        for path, entry in tree.items():
            self.tree[path] = seen(entry)
            if entry.kind == FILE:
                self.data[path] = CONTENT_OF[entry.digest]

    @property
    def mirrored(self) -> dict[bytes, Entry]:
        """What is at the target but skynet's own."""
        return {p: e for p, e in self.tree.items() if p != OWN and not is_below(p, OWN)}

    def _make_room(self, path: bytes, *, keeps: bool) -> None:
        """Let nothing be at the path, where a file may be now; `keeps`: it goes to the trash."""
        self._expect_parent(path)
        there = self.tree.get(path)
        if there is None:
            return
        if there.kind == DIR:
            raise RequestError("Is a directory", "rename-refused")
        if keeps:
            self._to_trash(path)
        else:
            self._drop(path)

    def _holds(self, path: bytes, recorded: Entry) -> bool:
        """Whether the file there looks like the one that was recorded."""
        there = self.tree.get(path)
        if there is None or there.kind != FILE or there.size != recorded.size:
            return False
        return not self._keeps.keeps_times or there.mtime_ns == seen(recorded).mtime_ns

    def _mkdir(self, path: bytes, entry: Entry) -> None:
        there = self.tree.get(path)
        if there is not None and there.kind != DIR:
            raise failure()
        self._expect_parent(path)
        self.tree.setdefault(path, Entry(DIR, mode=0o755))
        self._set_meta(path, entry)

    def _delete(self, path: bytes, *, foreign: bool) -> None:
        there = self.tree.get(path)
        if there is None:
            return
        if self.trash.keep_deleted or foreign:
            self._to_trash(path)
        elif there.kind == DIR:
            raise failure()
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
            raise failure()
        self._drop(path)

    def _set_meta(self, path: bytes, entry: Entry) -> None:
        there = self.tree.get(path)
        if there is None:
            raise missing()
        sets_mode = self._keeps.keeps_modes and entry.mode is not None
        sets_time = self._keeps.keeps_times and entry.kind == FILE
        self.tree[path] = msgspec.structs.replace(
            there,
            mode=entry.mode if sets_mode else there.mode,
            mtime_ns=seen(entry).mtime_ns if sets_time else there.mtime_ns,
        )

    def _directories(self) -> Iterator[bytes]:
        return (path for path, entry in self.tree.items() if entry.kind == DIR)

    def _children(self, directory: bytes) -> dict[bytes, Entry]:
        return {last_name(p): e for p, e in self.tree.items() if parent(p) == directory}

    def _expect_parent(self, path: bytes) -> None:
        above = parent(path)
        if above and (above not in self.tree or self.tree[above].kind != DIR):
            raise missing()

    def _move(self, source: bytes, path: bytes) -> None:
        if source not in self.tree:
            raise missing()
        self._expect_parent(path)
        if path in self.tree:
            raise failure()
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


def missing() -> RequestError:
    return RequestError("No such file", "no-such-file")


def failure() -> RequestError:
    return RequestError("Failure", "failure")
