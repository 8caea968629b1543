"""A remote in memory that ignores case and keeps the case of names, as Windows and macOS do."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skynet.ops import Copy, Op, Rename
from skynet.remote import Outcome
from skynet.remote.verbs import Facts
from skynet.rules import folded
from skynet.tree import FILE, SECOND, Entry, Kind, join, name, parent
from tests.support.memory import MemoryRemote
from tests.support.world import World

FOLDS = Facts(folds_case=True)


class FoldingRemote(MemoryRemote):
    """What is done to one spelling of a name is done to what has the name.

    A file that is renamed to another spelling of its own name is removed, as Win32-OpenSSH does.
    """

    def __init__(self) -> None:
        super().__init__({}, keeps=FOLDS)

    def spelled(self, path: bytes) -> bytes:
        """The path as it is listed, as far as it is there."""
        if path in self.tree or not path:
            return path
        above = self.spelled(parent(path))
        there = [name(p) for p in self.tree if parent(p) == above]
        wanted = folded(name(path))
        return join(above, next((n for n in there if folded(n) == wanted), name(path)))

    def kinds(self, paths: Sequence[bytes]) -> Callable[[], list[Kind | None]]:
        return super().kinds([self.spelled(path) for path in paths])

    def _carry_out(self, begun: Any) -> Outcome:
        op = begun.op
        done = super()._carry_out(begun._replace(op=self._as_spelled(op)))
        return done._replace(op=msgspec.structs.replace(done.op, path=op.path))

    def _as_spelled(self, op: Op) -> Op:
        path = self.spelled(op.path)
        if not isinstance(op, Rename | Copy):
            return msgspec.structs.replace(op, path=path)
        source = self.spelled(op.source)
        return msgspec.structs.replace(op, path=path, source=source)

    def _rename(self, op: Rename) -> None:
        if op.path == op.source and self.tree[op.path].kind == FILE:
            self._drop(op.path)
        else:
            super()._rename(op)


class FoldingWorld(World):
    """A world whose remote is in memory and ignores case.

    last: the remote of the last cycle. tree, data: what is at the target, skynet's own included.
    """

    def __init__(self, base: Path, **settings: Any) -> None:
        super().__init__(base, **settings)
        self.last = FoldingRemote()
        self.tree, self.data = self.last.tree, self.last.data
        self.cut_at: int | None = None  # the call at which the next cycle is cut

    def connect(self) -> FoldingRemote:  # type: ignore[override]  # it is not over SFTP
        self.last = FoldingRemote()
        self.last.tree, self.last.data = self.tree, self.data
        self.last.cut_at = self.cut_at
        return self.last

    def files(self) -> dict[str, bytes]:
        return {os.fsdecode(p): self.data[p] for p in self.last.mirrored if p in self.data}

    def put_remote(self, tree: Mapping[Any, Any], *, at: int | None = None) -> None:
        """Files right in the target."""
        for key, content in tree.items():
            self.data[os.fsencode(key)] = content
            self.tree[os.fsencode(key)] = Entry(FILE, len(content), at or SECOND, 0o644)
