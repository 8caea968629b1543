"""Carrying out patches and copies: what they are given, how they are counted, what they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from skynet.apply import Applied, apply
from skynet.claims import Claims
from skynet.delta import Delta
from skynet.errors import TornRead
from skynet.intents import Intents
from skynet.monitor import Event, Progress
from skynet.ops import Copy, Op, Patch, Plan, Rename, Upload, effect
from skynet.remote import Outcome
from skynet.scan import LocalFile
from skynet.tree import Entry, edit
from tests.support.memory import MemoryRemote, MemoryRoot, MemorySource
from tests.support.patching import delta_of
from tests.support.targets import TIME, entry_of
from tests.support.versions import noise, signed
from tests.support.worlds import SECOND

OLD = noise(2 << 20, 1)
NEW = b"new" + OLD
TREE = {b"a": entry_of(OLD), b"b": entry_of(b"2")}


class Local(MemoryRoot):
    """A local directory of these files."""

    def __init__(self, files: dict[bytes, bytes]) -> None:
        super().__init__({path: entry_of(content) for path, content in files.items()})
        self._files = files

    def open(
        self, path: bytes, entry: Entry, check: Callable[[], None] = lambda: None
    ) -> LocalFile:
        check()
        if entry.size != len(self._files[path]):
            raise TornRead("It is another file.")
        return MemorySource(self._files[path], b"identity")


class Bench:
    """A remote in memory that holds OLD at `a`, and what became of a plan for it."""

    def __init__(self, *, can_copy: bool = True) -> None:
        self.remote = MemoryRemote({}, can_copy=can_copy)
        self.remote.prepare()
        for path, content in ((b"a", OLD), (b"b", b"2")):
            self.remote.data[path] = content
            self.remote.tree[path] = Entry("f", len(content), TIME * SECOND, 0o644)
        self.events: list[Event] = []
        self.outcomes: list[Outcome] = []

    def run(self, ops: list[Op], local: dict[bytes, bytes], deltas: dict[bytes, Delta]) -> Applied:
        return apply(
            Plan(ops, [()] * len(ops)),
            self.remote,
            Local(local),
            claims=Claims(None, self.events.append),
            intents=Intents(Path("no such directory"), self.events.append),
            get_ready=lambda: None,
            commit=self.outcomes.extend,
            beat=lambda: None,
            clock=lambda: 0.0,
            monitor=self.events.append,
            deltas=deltas,
        )

    @property
    def progress(self) -> Progress:
        return [event for event in self.events if isinstance(event, Progress)][-1]


def patch_to(content: bytes) -> Patch:
    return Patch(b"a", entry_of(content), TREE[b"a"], delta_of(OLD, content).sent)


COPY = Copy(b"c", b"a", TREE[b"a"], TREE[b"a"])


@pytest.mark.parametrize("can_copy", [True, False])
def test_what_was_done_is_what_is_counted(can_copy: bool) -> None:
    bench = Bench(can_copy=can_copy)
    delta = delta_of(OLD, NEW)
    rename = Rename(b"d", b"b", TREE[b"b"])
    ops: list[Op] = [COPY, patch_to(NEW), rename]
    applied = bench.run(ops, {b"a": NEW, b"c": OLD}, {b"a": delta})
    assert applied.problems == []
    sent = delta.sent if can_copy else len(NEW) + len(OLD)
    expected = {"copy": 1, "patch": 1} if can_copy else {"upload": 2}
    assert applied.done == {**expected, "rename": 1, "bytes": sent}
    assert bench.remote.counts["bytes"] == sent
    assert bench.progress.sent_bytes == bench.progress.total_bytes == sent
    assert bench.remote.data == {b"a": NEW, b"c": OLD, b"d": b"2"}
    tree = dict(TREE)
    edit(tree, (effect(outcome.op) for outcome in bench.outcomes))
    assert {path: entry.digest for path, entry in tree.items()} == {
        path: entry_of(content).digest for path, content in bench.remote.data.items()
    }


def test_the_signature_of_what_was_sent_comes_with_the_outcome() -> None:
    bench = Bench()
    ops: list[Op] = [patch_to(NEW), Upload(b"n", entry_of(OLD)), Upload(b"s", entry_of(b"small"))]
    bench.run(ops, {b"a": NEW, b"n": OLD, b"s": b"small"}, {b"a": delta_of(OLD, NEW)})
    signatures = {outcome.op.path: outcome.signature for outcome in bench.outcomes}
    assert signatures == {b"a": signed(NEW), b"n": signed(OLD), b"s": None}


def test_a_patch_that_is_torn_is_a_problem() -> None:
    bench = Bench()
    other = NEW[:-1] + bytes([NEW[-1] ^ 1])
    applied = bench.run([patch_to(NEW)], {b"a": other}, {b"a": delta_of(OLD, NEW)})
    assert [(problem.path, problem.code) for problem in applied.problems] == [
        (b"a", "changed-while-read")
    ]
    assert bench.remote.data[b"a"] == OLD
    assert bench.outcomes == []


def test_a_copy_of_something_else_is_sent() -> None:
    bench = Bench()
    elsewhere = msgspec.structs.replace(COPY, original=entry_of(NEW))
    applied = bench.run([elsewhere], {b"c": OLD}, {})
    assert applied.done == {"upload": 1, "bytes": len(OLD)}
