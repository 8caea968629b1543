"""Cycles that look only where it was marked find what one that looks everywhere would find."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skynet.index import Index
from skynet.rules import Rules
from skynet.scope import EVERYTHING, Branch, Scope, Survey, branch_of
from skynet.session import SEEN_SECONDS
from skynet.survey import survey
from tests.support.folding import FoldingWorld
from tests.support.hands import Hand, Marks, joined, small_files_are_copied
from tests.support.memory_world import MemoryWorld
from tests.support.sessions import Sitting, sitting
from tests.support.world import World

seeds = st.integers(0, 2**32 - 1)


@contextmanager
def life(seed: int, **mirror: Any) -> Iterator[tuple[Sitting, Hand]]:
    """A session that is in sync, and a hand that is to change things."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as base, small_files_are_copied():
        world = MemoryWorld(Path(base), empty_dirs=True, **mirror)
        hand = Hand(world.local, chance)
        world.put({"first": b"1"})  # without a manifest every look is everywhere
        hand.grow(chance.randrange(16))
        with sitting(world) as session:
            session.cycle(audit=True)
            session.quiet()  # the identities of the directories are known now
            yield session, hand


def look(sitting: Sitting, branch: Branch) -> Survey:
    session = sitting.session
    facts, complete_sync = session.remote.facts, session.mirror.complete_sync
    scope = Scope(Rules([], "test"), facts, complete_sync=complete_sync, branch=branch)
    return survey(session.root, session.memory.index, None, scope, session.around.now_ns())


def widened(marks: Marks, chance: random.Random) -> Marks:
    """Some of them stand for a directory above and all that is in it."""
    wide: Marks = {}
    for path, deep in marks.items():
        above = path.rpartition(b"/")[0]
        wide = joined(wide, {above: True} if chance.random() < 0.2 else {path: deep})
    return wide


def superfluous(hand: Hand, chance: random.Random) -> Marks:
    """Marks of what has not changed, or was never there."""
    paths = [*hand.paths(), b"nowhere", b"a/nowhere/at/all", b"a", b"b/c", b"", b".skynet/lease"]
    return {path: chance.random() < 0.3 for path in chance.sample(paths, min(4, len(paths)))}


# Laws.


@given(seeds, st.integers(1, 10), st.booleans())
@settings(max_examples=200)
def test_marks_find_what_a_look_everywhere_finds(
    seed: int, changes: int, complete_sync: bool
) -> None:
    chance = random.Random(seed + 1)
    with life(seed, complete_sync=complete_sync) as (session, hand):
        left: Marks = {}  # what had problems stays marked, as the docket has it
        for _ in range(2):
            marks = left
            for _ in range(changes):
                marks = joined(marks, hand.change())
            marks = joined(widened(marks, chance), superfluous(hand, chance))
            here, everywhere = look(session, branch_of(marks)), look(session, EVERYTHING)
            assert here.findings == everywhere.findings
            assert here.problems == everywhere.problems == []
            assert here.identities == everywhere.identities
            whole = session.cycle(dry_run=True).plan
            assert session.cycle(dry_run=True, marks=marks).plan == whole
            approve = "".join(h.approve for h in session.cycle(dry_run=True).hazards[:1])
            report = session.cycle(marks=marks, approve=approve)
            assert report.problems == whole.problems
            assert report.was_whole == branch_of(marks).deep
            left = {problem.path: True for problem in report.problems}
            for again in ({}, {"marks": marks}, {"audit": True}):
                assert not session.cycle(**again).plan.ops
        if complete_sync:
            assert isinstance(session.world, MemoryWorld)
            session.world.check_exactly()


@given(seeds, st.integers(1, 6), st.booleans())
def test_marks_find_the_same_where_case_is_ignored(
    seed: int, changes: int, complete_sync: bool
) -> None:
    with tempfile.TemporaryDirectory() as base:
        world = FoldingWorld(Path(base), empty_dirs=True, complete_sync=complete_sync)
        world.put({"first": b"1"})
        hand = Hand(world.local, random.Random(seed), ["a", "A", "b"])
        hand.grow(seed % 8)
        with sitting(world) as session:
            session.cycle(audit=True)
            session.cycle(audit=True)
            assume(not look(session, EVERYTHING).findings)  # names that cannot both be there
            marks: Marks = {}
            for _ in range(changes):
                marks = joined(marks, hand.change())
            here, everywhere = look(session, branch_of(marks)), look(session, EVERYTHING)
            assert here.findings == everywhere.findings
            assert set(here.problems) <= set(everywhere.problems)
            whole = session.cycle(dry_run=True).plan.ops
            assert session.cycle(dry_run=True, marks=marks).plan.ops == whole


@given(seeds)
def test_superfluous_marks_find_nothing(seed: int) -> None:
    chance = random.Random(seed + 1)
    with life(seed) as (session, hand):
        for _ in range(10):
            marks = superfluous(hand, chance)
            found = look(session, branch_of(marks))
            assert (found.findings, found.problems, found.identities) == ([], [], {})
            report = session.quiet(marks=marks)
            assert not report.plan.ops
            assert not report.problems


def test_no_marks_are_no_look_at_all(tmp_path: Path) -> None:
    world = MemoryWorld(tmp_path)
    world.put({"a": b"1"})
    with sitting(world) as session:
        session.cycle(audit=True)
        world.put({"a": b"22", "b": b"2"})
        session.quiet(marks={})
        session.quiet(marks={b"": False})
        assert session.cycle(marks={b"": True}).was_whole
    assert world.there().keys() == {b"a", b"b"}


def test_a_branch_has_what_is_marked_and_nothing_else() -> None:
    branch = branch_of({b"a/b": False, b"a/c": True, b"d": True, b"d/e": False})
    assert not branch.deep
    assert branch.below.keys() == {b"a", b"d"}
    assert not branch.below[b"a"].deep
    assert {name: b.deep for name, b in branch.below[b"a"].below.items()} == {
        b"b": False,
        b"c": True,
    }
    assert branch.below[b"d"].deep
    assert branch_of({b"": True, b"x": False}).deep


def test_what_was_marked_counts_for_nothing_if_the_manifest_is_another(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": b"1", "b": b"2"})
    world.sync()
    world.lose_state()
    world.put({"b": b"changed"})
    with sitting(world) as session:
        report = session.cycle(marks={b"a": False})
        assert report.was_whole
    world.check()


# What it costs.


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The looks at the local file system: the function's name and what it looked at."""
    seen: list[str] = []

    def counted(function: str) -> None:
        plain = getattr(os, function)

        def call(path: Any = ".", *args: Any, **options: Any) -> Any:
            seen.append(f"{function} {path!r}")
            return plain(path, *args, **options)

        monkeypatch.setattr(os, function, call)

    for function in ("scandir", "stat", "lstat", "listdir"):
        counted(function)
    return seen


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows that are read from the index."""
    read: list[Any] = []
    plain = Index._rows

    def counted(index: Index, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        found = plain(index, query, values)
        # To count them SQLite reads them all.
        read.extend(plain(index, "SELECT 1 FROM entries") if "count(*)" in query else found)
        return found

    monkeypatch.setattr(Index, "_rows", counted)
    return read


@pytest.mark.parametrize("size", [10, 300])
def test_one_changed_file_costs_the_same_in_any_tree(
    tmp_path: Path, looks: list[str], rows: list[Any], size: int
) -> None:
    world = World(tmp_path)
    crowd = {f"{number:03}": b"%d" % number for number in range(size)}
    world.put({"d": {"e": {"f": b"1", **crowd}, **crowd}, **crowd})
    with sitting(world) as session:
        session.cycle(audit=True)
        world.put({"d": {"e": {"f": b"changed"}}})
        looks.clear()
        rows.clear()
        assert session.cycle(marks={b"d/e/f": False}).outcome == "changed"
    # The root, whether it is empty; the root, d, d/e and the file itself.
    assert len([look for look in looks if os.fspath(world.local) in look or " b'" in look]) <= 10
    assert len([look for look in looks if look.startswith("scandir")]) <= 1, looks
    assert len(rows) <= 20, rows
    world.check()


IDLE = 60.0  # after such a rest it is looked whether the lease is still ours
LOOK_AT_LEASE = ["LSTAT"]
UPLOAD = ["OPEN", "WRITE", "FSETSTAT", "FSTAT", "CLOSE", "posix-rename"]
APPEND = ["WRITE"]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Sitting]:
    world = World(tmp_path, complete_sync=True)
    world.put({"a": b"1", "d": {"e": {"f": b"2", "g": b"3"}}})
    world.sync()
    with sitting(world) as session:
        world.put({"first": b"1"})
        session.cycle()
        yield session


def test_a_file_at_the_root_costs_eight_requests(session: Sitting) -> None:
    for content in (b"changed", b"again"):
        session.world.put({"a": content})
        session.world.monotonic += IDLE
        session.cycle(marks={b"a": False})
        assert session.world.requests() == [*LOOK_AT_LEASE, *UPLOAD, *APPEND]
    session.world.check()


def test_directories_on_the_way_are_looked_at_every_ten_minutes(session: Sitting) -> None:
    world = session.world
    on_the_way = ["LSTAT", "LSTAT"]
    for rest, wanted in ((IDLE, on_the_way), (IDLE, []), (SEEN_SECONDS, on_the_way)):
        world.monotonic += rest
        world.put({"d": {"e": {"f": b"%d" % world.monotonic}}})
        session.cycle(marks={b"d/e/f": False})
        assert world.requests() == [*wanted, *LOOK_AT_LEASE, *UPLOAD, *APPEND]
    world.check()


def test_marks_of_nothing_cost_no_request(session: Sitting) -> None:
    session.world.monotonic += IDLE
    session.quiet(marks={b"a": False, b"d/e": True, b"nowhere/at/all": True})
    assert session.world.requests() == []


def test_a_session_that_made_its_target_costs_no_more(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.remote.rmdir()
    world.put({"a": b"1", "b": b"2"})
    with sitting(world) as session:
        session.cycle(audit=True)
        world.put({"a": b"changed"})
        world.monotonic += IDLE
        session.cycle(marks={b"a": False})
        assert world.requests() == [*LOOK_AT_LEASE, *UPLOAD, *APPEND]
        session.quiet(audit=True)
        assert world.requests()[:3] == ["OPENDIR", "READDIR", "READDIR"]
        assert world.requests()[3:] in (["CLOSE"], []), "nobody waits for it"
    world.check()
