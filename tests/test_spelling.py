"""Names that only got another case, on a remote that ignores case: laws, and whole cycles."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.config import MaxDelete
from skynet.cycle import Report
from skynet.errors import LinkLost
from skynet.findings import Finding
from skynet.matching import Held, known_by_identity
from skynet.moves import after_moves, moved_directories
from skynet.ops import Copy, Mkdir, Op, Plan, Rename, Upload, replay
from skynet.plan import Known, Policy, make_plan
from skynet.remote import SftpRemote
from skynet.remote.verbs import Facts
from skynet.renaming import relocations
from skynet.rules import PARKED, folded
from skynet.spelling import confusion, respelled, respellings
from skynet.stale import expected
from skynet.tree import DIR, Entry, is_below, join, name, order, parent
from tests.support.folding import FOLDS, FoldingWorld
from tests.support.frames import renamed
from tests.support.world import World
from tests.support.worlds import content_entry
from tests.test_moves import DIRECTORY, Life, identity, local_of, sent
from tests.test_plan import do_strictly, in_any_order

FULL = Policy(complete_sync=True, can_copy=True, empty_dirs=True, folds_case=True)


# Laws, on random lives of a tree.


class CasedLife(Life):
    """A life on a disk that tells case apart, of names that never differ in case alone."""

    def free_path(self) -> bytes | None:
        path = super().free_path()
        if path is not None and self.chance.random() < 0.5:
            path = recased(path)
        return None if path is None or self.is_taken(path) else path

    def is_taken(self, path: bytes) -> bool:
        return folded(path) in {folded(p) for p in self.tree}

    def recase(self) -> None:
        if self.tree:
            source = self.chance.choice(list(self.tree))
            for old in [p for p in self.tree if p == source or is_below(p, source)]:
                self.tree[recased(source) + old[len(source) :]] = self.tree.pop(old)

    def swap(self) -> None:
        """Exchange two, each with the other case."""
        if len(self.tree) < 2:
            return
        one, other = self.chance.sample(list(self.tree), 2)
        if is_below(one, other) or is_below(other, one):
            return
        taken = {p: self.tree.pop(p) for p in list(self.tree) if p == one or is_below(p, one)}
        for old in [p for p in self.tree if p == other or is_below(p, other)]:
            self.tree[recased(one) + old[len(other) :]] = self.tree.pop(old)
        for old, what in taken.items():
            self.tree[recased(other) + old[len(one) :]] = what

    def live(self, steps: int) -> None:
        acts = [self.recase] * 4 + [self.move] * 3
        acts += [self.swap, self.swap, self.create, self.delete, self.change]
        for _ in range(steps):
            self.chance.choice(acts)()


def recased(path: bytes) -> bytes:
    return join(parent(path), name(path).swapcase())


def lives(seed: int, size: int, steps: int) -> tuple[dict[bytes, Entry], CasedLife, list[Finding]]:
    life = CasedLife(seed, size)
    before = dict(life.tree)
    life.live(steps)
    found = [
        finding(path, before.get(path), life.tree.get(path))
        for path in sorted(before.keys() | life.tree.keys(), key=order)
    ]
    return {path: entry for path, (entry, _) in before.items()}, life, found


def finding(path: bytes, old: tuple[Entry, int] | None, new: tuple[Entry, int] | None) -> Finding:
    remote, local = old and old[0], new and new[0]
    here, known = identity(*new) if new else b"", identity(*old) if old else b""
    return Finding(path, remote, local, here=here, known=known)


def planned(findings: list[Finding], policy: Policy) -> Plan:
    """As `planning.plan_for` does it."""
    first: list[Op] = []

    def respell(findings: list[Finding]) -> list[Finding]:
        moves, findings, problems = respelled(findings)
        assert not problems
        first.extend(respellings(moves, findings))
        return after_moves(findings, moves, {})

    findings = respell(findings)
    moves = moved_directories(
        findings, lambda _: False, retained=policy.complete_sync, folds_case=True
    )
    ops = relocations(findings, moves)
    first += ops
    made = {op.path: op.entry for op in ops if isinstance(op, Mkdir)}
    findings = respell(after_moves(findings, moves, made))
    findings = list(known_by_identity(findings))
    staying = {f.remote.digest: f for f in findings if f.remote is not None and f.local == f.remote}

    def holder(_size: int, digest: bytes) -> Held | None:
        f = staying.get(digest)
        return (f.path, f.remote) if f is not None and f.remote is not None else None

    return make_plan(findings, policy, Known((), first, holder))


def carried_out_where_case_is_ignored(plan: Plan, remote: dict[bytes, Entry], seed: int) -> None:
    """In any order that is allowed, no operation meets another spelling of a name."""
    tree = dict(remote)
    for index in in_any_order(plan, seed):
        op = plan.ops[index]
        spelled = {folded(path): path for path in tree}
        if isinstance(op, Rename):
            assert folded(op.path) != folded(op.source), "a name renamed to itself"
        for path in (op.path, op.source) if isinstance(op, Rename | Copy) else (op.path,):
            assert spelled.get(folded(path), path) == path
            assert not parent(path) or spelled[folded(parent(path))] == parent(path)
        do_strictly(tree, op)
        assert len({folded(path) for path in tree}) == len(tree)


numbers = st.integers(0, 2**32)


@given(numbers, st.integers(0, 12), st.integers(1, 10), st.booleans())
@settings(max_examples=1000)
def test_the_plan_makes_the_local_tree(seed: int, size: int, steps: int, can_copy: bool) -> None:
    remote, life, findings = lives(seed, size, steps)
    policy = Policy(complete_sync=True, can_copy=can_copy, empty_dirs=True, folds_case=True)
    plan = planned(findings, policy)
    assert not plan.problems
    assert replay(remote, plan.ops) == local_of(life)
    carried_out_where_case_is_ignored(plan, remote, seed)


@given(numbers, st.integers(0, 12), st.integers(1, 10))
@settings(max_examples=500)
def test_no_content_is_sent_that_the_remote_has(seed: int, size: int, steps: int) -> None:
    remote, _, findings = lives(seed, size, steps)
    held = {entry.digest for entry in remote.values()}
    assert held.isdisjoint(sent(planned(findings, FULL).ops))


@given(numbers, st.integers(0, 12), st.integers(1, 10), st.booleans())
@settings(max_examples=500)
def test_without_complete_sync_no_operation_meets_another_spelling(
    seed: int, size: int, steps: int, can_copy: bool
) -> None:
    _expect_no_other_spelling(seed, size, steps, can_copy)


def test_a_new_directory_takes_the_place_of_one_retained_in_a_moved_one() -> None:
    _expect_no_other_spelling(23, 12, 6, can_copy=False)


def _expect_no_other_spelling(seed: int, size: int, steps: int, can_copy: bool) -> None:
    remote, _, findings = lives(seed, size, steps)
    plan = planned(findings, Policy(can_copy=can_copy, folds_case=True))
    carried_out_where_case_is_ignored(plan, remote, seed)
    assert not any(path.startswith(PARKED) for path in replay(remote, plan.ops))


@given(numbers, st.integers(0, 12), st.integers(1, 6))
def test_a_saved_plan_takes_no_other_spelling_for_something_else(
    seed: int, size: int, steps: int
) -> None:
    remote, _, findings = lives(seed, size, steps)
    spelled = {folded(path): entry.kind for path, entry in remote.items()}
    wanted = expected(planned(findings, FULL).ops)
    for path, kinds in wanted.kinds.items():
        assert spelled.get(folded(path)) in kinds


# What a person would expect.

X, Y = content_entry(b"x", 5), content_entry(b"yy", 5)


def test_a_file_gets_another_case_by_way_of_a_third_name() -> None:
    parked, back = planned([Finding(b"A", X, None), Finding(b"a", None, X)], FULL).ops
    assert isinstance(parked, Rename)
    assert parked.path.startswith(PARKED)
    assert (parked.source, back) == (b"A", Rename(b"a", parked.path, X))


def test_what_it_holds_may_change_with_its_case() -> None:
    ops = planned([Finding(b"A", X, None), Finding(b"a", None, Y)], FULL).ops
    assert [type(op) for op in ops] == [Rename, Rename, Upload]
    assert ops[2] == Upload(b"a", Y, X)


def test_a_foreign_file_of_another_spelling_is_left_alone_with_all_below() -> None:
    findings = [
        Finding(b"D", DIRECTORY, None, foreign=True),
        Finding(b"d", None, DIRECTORY),
        Finding(b"D/x", X, None, foreign=True),
        Finding(b"d/x", None, Y),
        Finding(b"e", None, X),
    ]
    moves, left, problems = respelled(findings)
    assert (moves, left) == ({}, findings[4:])
    assert [(problem.path, problem.code) for problem in problems] == [(b"d", "case-change")]


def test_foreign_files_in_a_directory_of_ours_stay_in_it() -> None:
    findings = [
        Finding(b"D", DIRECTORY, None),
        Finding(b"d", None, DIRECTORY),
        Finding(b"D/Theirs", X, None, foreign=True),
        Finding(b"d/theirs", None, X),
    ]
    moves, left, problems = respelled(findings)
    assert (moves, left) == ({b"d": b"D"}, findings[:2])
    assert [problem.path for problem in problems] == [b"d/theirs"]


def test_what_its_owner_cannot_change_is_told() -> None:
    closed = Entry(DIR, mode=0o500)
    findings = [
        Finding(b"d", closed, closed),
        Finding(b"d/A", X, None),
        Finding(b"d/a", None, X),
    ]
    assert [problem.path for problem in respelled(findings).problems] == [b"d/a"]


def test_names_are_confused_where_case_is_ignored() -> None:
    assert confusion([b"a"], [b"A", b"b"], [b"A"], []).respelled == {b"a", b"A"}
    assert confusion([b"a"], [b"A"], [b"a"], []).respelled == {b"a", b"A"}
    for here, recorded, seen, untouchable in (
        ([b"a", b"A"], [], [], []),
        ([b"a", b"A"], [b"A"], [b"A"], []),
        ([b"a"], [b"a", b"A"], [b"a"], []),
        ([b"a"], [], [b"a", b"A"], []),
        ([b"a"], [], [b"A"], [b"A"]),
    ):
        confused = confusion(here, recorded, seen, untouchable)
        assert confused.left_alone == {b"a", b"A"}
        assert {problem.path for problem in confused.problems} == set(here)
    assert not confusion([b"b"], [b"a", b"A"], [], []).left_alone


# Whole cycles, on a remote that ignores case.


@pytest.fixture(params=[True, False], ids=["complete-sync", "keeping"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> FoldingWorld:
    return FoldingWorld(tmp_path, complete_sync=request.param, max_delete=MaxDelete(1.0, 1000))


def here(world: FoldingWorld) -> dict[str, bytes]:
    paths = [path for path in world.local.rglob("*") if path.is_file()]
    return {str(path.relative_to(world.local)): path.read_bytes() for path in paths}


def synced(world: FoldingWorld, **options: bool) -> Report:
    report = world.sync(**options)
    assert not report.problems
    assert world.files() == here(world)
    world.quiet(audit=False)
    world.quiet()
    return report


@pytest.mark.parametrize("audit", [True, False])
def test_files_and_directories_get_another_case(both: FoldingWorld, audit: bool) -> None:
    both.put({"Name": b"1", "D": {"x": b"2", "Y": b"3", "e": {"z": b"4"}}, "other": b"5"})
    both.sync()
    both.move("Name", "name")
    both.move("D", "d")
    both.move("d/Y", "d/y")
    both.move("d/e", "d/E")
    report = synced(both, audit=audit)
    assert {kind: number for kind, number in report.done.items() if number} == {"rename": 8}
    assert report.counts["bytes"] == 0


def test_content_changes_with_the_case(both: FoldingWorld) -> None:
    both.put({"Name": b"1" * 1000, "D": {"x": b"2", "gone": b"3"}})
    both.sync()
    both.move("Name", "name")
    both.move("D", "d")
    os.remove(both.local / "d/gone")
    both.put({"name": b"longer now", "d": {"x": b"other", "new": b"4"}})
    report = both.sync()
    assert not report.problems
    kept = {} if both.settings["complete_sync"] else {"d/gone": b"3"}
    assert both.files() == here(both) | kept
    both.quiet()


def test_another_file_takes_the_name_in_another_case(both: FoldingWorld) -> None:
    both.put({"Name": b"1", "other": b"22"})
    both.sync()
    os.remove(both.local / "Name")
    both.move("other", "name")
    report = synced(both)
    assert report.counts["bytes"] == 0


def test_names_are_exchanged_and_get_another_case(both: FoldingWorld) -> None:
    both.put({"A": b"1", "B": b"22", "C": {"x": b"3"}, "E": {"y": b"4"}})
    both.sync()
    for one, other in (("A", "B"), ("C", "E")):
        both.move(one, "t")
        both.move(other, one.lower())
        both.move("t", other.lower())
    assert synced(both).counts["bytes"] == 0


def test_a_moved_directory_holds_what_got_another_case(both: FoldingWorld) -> None:
    both.put({"d": {"Name": b"1", "x": b"2"}, "e": {"f": b"3"}})
    both.sync()
    both.move("d", "moved")
    both.move("moved/Name", "moved/name")
    report = synced(both)
    assert report.done["rename"] == 3
    assert report.counts["bytes"] == 0


def test_what_was_retained_gives_way_to_the_same_name(tmp_path: Path) -> None:
    world = FoldingWorld(tmp_path)
    world.put({"Name": b"old", "D": {"x": b"kept", "y": b"old"}})
    world.sync()
    world.put({"Name": None, "D": None})
    world.sync()
    world.put({"name": b"new one", "d": {"Y": b"new"}})
    world.sync()
    assert world.files() == {"name": b"new one", "d/x": b"kept", "d/Y": b"new"}
    world.quiet()


def test_what_is_retained_in_a_moved_directory_gives_way(tmp_path: Path) -> None:
    world = FoldingWorld(tmp_path)
    world.put({"d": {"Name": b"old", "x": b"1"}})
    world.sync()
    os.remove(world.local / "d/Name")
    world.sync()
    world.move("d", "e")
    world.put({"e": {"name": b"new one"}})
    synced(world)


def test_a_name_that_got_another_case_on_the_remote_gets_ours(both: FoldingWorld) -> None:
    both.put({"d": {"name": b"1" * 100}, "x": b"2"})
    both.sync()
    for old, new in ((b"d/name", b"D/NAME"), (b"d", b"D")):
        both.tree[new], content = both.tree.pop(old), both.data.pop(old, None)
        if content is not None:
            both.data[new] = content
    report = synced(both)
    assert report.counts["bytes"] == 0


def test_both_spellings_here_are_a_problem_each(both: FoldingWorld) -> None:
    both.put({"Name": b"1", "x": b"2"})
    both.sync()
    both.put({"name": b"3"})
    report = both.sync()
    found = {(problem.path, problem.code) for problem in report.problems}
    assert found == {(b"Name", "case-collision"), (b"name", "case-collision")}
    assert both.files() == {"Name": b"1", "x": b"2"}


def test_a_foreign_name_of_another_case_is_a_problem(both: FoldingWorld) -> None:
    both.put({"x": b"2"})
    both.sync()
    both.put_remote({"Theirs": b"1"})
    both.put({"theirs": b"3"})
    report = both.sync()
    assert [(problem.path, problem.code) for problem in report.problems] == [
        (b"theirs", "case-change")
    ]
    assert both.files() == {"Theirs": b"1", "x": b"2"}


def test_a_run_that_is_cut_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    for number in count():
        base = tmp_path / str(number)
        base.mkdir()
        world = FoldingWorld(base, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
        world.put({"Name": b"1" * 50, "D": {"x": b"2" * 60, "Y": b"3"}, "a": b"4"})
        world.sync()
        world.move("Name", "name")
        world.move("D", "d")
        world.move("d/Y", "d/y")
        world.cut_at = number
        is_cut = True
        with suppress(LinkLost):
            world.sync()
            is_cut = False
        world.cut_at = None
        if not is_cut:
            break
        assert synced(world).counts["bytes"] == 0
        assert not any(path.startswith(PARKED) for path in world.tree)
    assert number > 10


# Requests.


def test_no_name_is_ever_renamed_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = SftpRemote.prepare

    def prepare_folding(remote: SftpRemote) -> Facts:
        prepare(remote)
        return FOLDS

    monkeypatch.setattr(SftpRemote, "prepare", prepare_folding)
    world = World(tmp_path, complete_sync=True)
    chance = random.Random(1)
    world.put({"Name": b"1", "D": {"x": b"2", "Y": b"3"}, "B": b"4"})
    world.sync()
    for _ in range(10):
        for path in sorted(world.local.rglob("*"), reverse=True):
            if chance.random() < 0.5:
                path.rename(path.with_name(path.name.swapcase()))
        world.sync()
        world.check()
        for asked in world.asked:
            if "rename" in asked.kind.lower():
                source, target = renamed(asked)
                assert folded(source) != folded(target)
