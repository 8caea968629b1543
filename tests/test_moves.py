"""Moved directories and files: laws on random lives of a tree, and what a person would expect."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.findings import IDENTITY_SIZE, Finding
from skynet.matching import Held, known_by_identity
from skynet.moves import after_moves, differing, moved_directories
from skynet.ops import Copy, Mkdir, Op, Patch, Plan, Rename, SetMeta, Upload, effect, replay
from skynet.plan import Known, Policy, make_plan
from skynet.renaming import relocations
from skynet.rules import PARKED
from skynet.shuffle import relocated
from skynet.tree import DIR, FILE, Entry, edit, is_below, is_valid, order
from tests.support.worlds import content_entry
from tests.test_plan import do_strictly, in_any_order, without_empty_dirs

NAMES = [b"a", b"b", b"c", b"d"]
DIRECTORY = Entry(DIR, mode=0o755)


class Life:
    """A tree that lives on, with an identity for each file and directory, as on a disk."""

    def __init__(self, seed: int, size: int) -> None:
        self.chance = random.Random(seed)
        self.tree: dict[bytes, tuple[Entry, int]] = {}
        self.number = 0
        for _ in range(size):
            self.create()

    def free_path(self) -> bytes | None:
        directories = [b"", *(p for p, (e, _) in self.tree.items() if e.kind == DIR)]
        above = self.chance.choice(directories)
        path = above + b"/" + self.chance.choice(NAMES) if above else self.chance.choice(NAMES)
        return None if path in self.tree else path

    def new_content(self) -> Entry:
        # Few different ones, so that there are equal files.
        return content_entry(b"%d" % self.chance.randrange(12), 5)

    def create(self) -> None:
        path = self.free_path()
        if path is not None:
            self.number += 1
            entry = DIRECTORY if self.chance.random() < 0.5 else self.new_content()
            self.tree[path] = entry, self.number

    def move(self) -> None:
        path = self.free_path()
        if path is None or not self.tree:
            return
        source = self.chance.choice(list(self.tree))
        if is_below(path, source):
            return
        for old in [p for p in self.tree if p == source or is_below(p, source)]:
            self.tree[path + old[len(source) :]] = self.tree.pop(old)

    def delete(self) -> None:
        if self.tree:
            gone = self.chance.choice(list(self.tree))
            for old in [p for p in self.tree if p == gone or is_below(p, gone)]:
                del self.tree[old]

    def change(self) -> None:
        files = [p for p, (e, _) in self.tree.items() if e.kind == FILE]
        if files:
            path = self.chance.choice(files)
            self.number += self.chance.random() < 0.5  # saved anew, or written in place
            identity = self.number if self.chance.random() < 0.5 else self.tree[path][1]
            self.tree[path] = self.new_content(), identity

    def live(self, steps: int) -> None:
        acts = [self.move] * 4 + [self.create, self.delete, self.change]
        for _ in range(steps):
            self.chance.choice(acts)()


def identity(entry: Entry, number: int) -> bytes:
    """As the scan gives it: equal only if nothing was done to the file but moving it."""
    content = entry.digest[:8].ljust(8, b"-") if entry.kind == FILE else bytes(8)
    return (content + bytes(8) + content + number.to_bytes(8, "big")).ljust(IDENTITY_SIZE, b"k")


def lives(seed: int, size: int, steps: int) -> tuple[dict[bytes, Entry], Life, list[Finding]]:
    """The remote tree, the life after it, and findings for all paths."""
    life = Life(seed, size)
    before = dict(life.tree)
    life.live(steps)
    found = []
    for path in sorted(before.keys() | life.tree.keys(), key=order):
        old, new = before.get(path), life.tree.get(path)
        found.append(
            Finding(
                path,
                None if old is None else old[0],
                None if new is None else new[0],
                here=b"" if new is None else identity(*new),
                known=b"" if old is None else identity(*old),
            )
        )
    return {path: entry for path, (entry, _) in before.items()}, life, found


def planned(findings: list[Finding], policy: Policy) -> Plan:
    moves: dict[bytes, bytes] = {}
    if policy.moves_directories:
        moves = moved_directories(findings, lambda _: False, retained=policy.complete_sync)
    first = relocations(findings, moves)
    made = {op.path: op.entry for op in first if isinstance(op, Mkdir)}
    rest = list(known_by_identity(differing(after_moves(findings, moves, made))))
    changing = {finding.path for finding in rest}
    goes_to = {source: path for path, source in moves.items()}

    def holder(size: int, digest: bytes) -> Held | None:
        for finding in findings:
            now, entry = relocated(goes_to, finding.path), finding.remote
            if entry is not None and entry.digest == digest and now not in changing:
                return now, entry
        return None

    return make_plan(rest, policy, Known((), first, holder))


def local_of(life: Life) -> dict[bytes, Entry]:
    return {path: entry for path, (entry, _) in life.tree.items()}


def sent(ops: Iterable[Op]) -> list[bytes]:
    return [op.entry.digest for op in ops if isinstance(op, Upload | Patch)]


def carried_out_in_any_order(plan: Plan, remote: dict[bytes, Entry], seed: int) -> None:
    tree = dict(remote)
    for index in in_any_order(plan, seed):
        do_strictly(tree, plan.ops[index])


numbers = st.integers(0, 2**32)
policies = st.builds(
    Policy,
    complete_sync=st.just(True),
    can_copy=st.booleans(),
    empty_dirs=st.just(True),
    moves_directories=st.booleans(),
)


@given(numbers, st.integers(0, 14), st.integers(1, 12), policies)
@settings(max_examples=300)
def test_the_plan_makes_the_local_tree(seed: int, size: int, steps: int, policy: Policy) -> None:
    remote, life, findings = lives(seed, size, steps)
    plan = planned(findings, policy)
    assert not plan.problems
    assert replay(remote, plan.ops) == local_of(life)
    carried_out_in_any_order(plan, remote, seed)


@given(numbers, st.integers(0, 14), st.integers(1, 12))
@settings(max_examples=300)
def test_no_content_is_sent_that_the_remote_has(seed: int, size: int, steps: int) -> None:
    remote, _, findings = lives(seed, size, steps)
    held = {entry.digest for entry in remote.values()}
    plan = planned(findings, Policy(complete_sync=True, can_copy=True, empty_dirs=True))
    assert held.isdisjoint(sent(plan.ops))


@given(numbers, st.integers(0, 14), st.integers(1, 12))
@settings(max_examples=300)
def test_without_copies_content_is_sent_only_for_more_of_it(
    seed: int, size: int, steps: int
) -> None:
    remote, life, findings = lives(seed, size, steps)
    local = local_of(life)
    plan = planned(findings, Policy(complete_sync=True, empty_dirs=True))
    before = Counter(entry.digest for entry in remote.values())
    after = Counter(entry.digest for entry in local.values())
    for digest, count in Counter(sent(plan.ops)).items():
        assert count == after[digest] - before[digest]


@given(numbers, st.integers(0, 14), st.integers(1, 12), st.booleans())
@settings(max_examples=300)
def test_without_complete_sync_every_local_file_is_right_and_none_is_lost(
    seed: int, size: int, steps: int, can_copy: bool
) -> None:
    remote, life, findings = lives(seed, size, steps)
    plan = planned(findings, Policy(can_copy=can_copy))
    carried_out_in_any_order(plan, remote, seed)
    after = replay(remote, plan.ops)
    refused = {problem.path for problem in plan.problems}
    for path, entry in without_empty_dirs(local_of(life)).items():
        if path not in refused:
            assert msgspec.structs.replace(after[path], retained=False) == entry
    assert not any(path.startswith(PARKED) for path in after)


@given(numbers, st.integers(0, 14), st.integers(1, 12))
def test_every_prefix_leaves_a_valid_tree(seed: int, size: int, steps: int) -> None:
    remote, _, findings = lives(seed, size, steps)
    tree = dict(remote)
    for op in planned(findings, Policy(complete_sync=True, can_copy=True)).ops:
        edit(tree, [effect(op)])
        assert is_valid(tree)


@given(numbers, st.integers(0, 14), st.integers(1, 12))
def test_the_same_findings_give_the_same_plan(seed: int, size: int, steps: int) -> None:
    policy = Policy(complete_sync=True, can_copy=True)
    assert planned(lives(seed, size, steps)[2], policy) == planned(
        lives(seed, size, steps)[2], policy
    )


@given(numbers, st.integers(1, 14))
def test_one_moved_directory_is_one_rename(seed: int, size: int) -> None:
    life = Life(seed, size)
    directories = [
        path
        for path, (entry, _) in life.tree.items()
        if entry.kind == DIR
        if any(is_below(p, path) and e.kind == FILE for p, (e, _) in life.tree.items())
    ]
    if not directories:
        return
    source = directories[0]
    before = dict(life.tree)
    for old in [p for p in life.tree if p == source or is_below(p, source)]:
        life.tree[b"new" + old[len(source) :]] = life.tree.pop(old)
    found = [
        Finding(
            path,
            before[path][0] if path in before else None,
            life.tree[path][0] if path in life.tree else None,
            here=identity(*life.tree[path]) if path in life.tree else b"",
            known=identity(*before[path]) if path in before else b"",
        )
        for path in sorted(before.keys() | life.tree.keys(), key=order)
    ]
    ops = planned(found, Policy(complete_sync=True, empty_dirs=True)).ops
    assert ops == [Rename(b"new", source, DIRECTORY)]


def test_a_copy_is_made_before_its_source_is_overwritten() -> None:
    old, new = content_entry(b"old", 5), content_entry(b"new", 5)
    findings = [Finding(b"a", old, new), Finding(b"b", None, old)]
    plan = make_plan(findings, Policy(complete_sync=True, can_copy=True))
    assert plan.ops == [Copy(b"b", b"a", old, old), Upload(b"a", new, old)]
    assert plan.needs == [(), (0,)]


@pytest.mark.parametrize("due", ["mode", "time", "record"])
def test_what_only_gets_another_mode_or_time_is_copied_as_it_is(due: str) -> None:
    old = content_entry(b"old", 5)
    now = {
        "mode": content_entry(b"old", 5, 0o600),
        "time": content_entry(b"old", 7),
        "record": old,
    }[due]
    held = msgspec.structs.replace(old, retained=True) if due == "record" else old
    findings = [Finding(b"a", held, now), Finding(b"b", None, now)]
    plan = make_plan(findings, Policy(complete_sync=True, can_copy=True))
    assert plan.ops[0] == Copy(b"b", b"a", now, held)
    assert [op.path for op in plan.ops[1:]] == [b"a"]
    is_read_first = isinstance(plan.ops[1], SetMeta)
    assert is_read_first == (due != "record")
    assert plan.needs == [(), (0,)]
    assert replay({b"a": held}, plan.ops) == {b"a": now, b"b": now}


def test_content_elsewhere_is_copied_and_where_it_cannot_be_it_is_sent() -> None:
    entry = content_entry(b"x", 5)

    def holder(size: int, digest: bytes) -> Held | None:
        return (b"elsewhere", entry) if digest == entry.digest else None

    findings = [Finding(b"a", None, entry)]
    known = Known(holder=holder)
    assert make_plan(findings, Policy(can_copy=True), known).ops == [
        Copy(b"a", b"elsewhere", entry, entry)
    ]
    assert make_plan(findings, Policy(), known).ops == [Upload(b"a", entry)]


def test_a_patch_where_it_saves() -> None:
    old, new = content_entry(b"old", 5), content_entry(b"new", 5)
    known = Known(sends={b"a": 2})
    assert make_plan([Finding(b"a", old, new)], Policy(), known).ops == [Patch(b"a", new, old, 2)]


def test_a_directory_with_something_unknown_inside_is_not_moved_as_a_whole() -> None:
    entry = content_entry(b"x", 5)
    findings = [
        Finding(b"a", DIRECTORY, None, known=identity(DIRECTORY, 1)),
        Finding(b"a/f", entry, None, known=identity(entry, 2)),
        Finding(b"a/g", entry, None),
        Finding(b"b", None, DIRECTORY, here=identity(DIRECTORY, 1)),
        Finding(b"b/f", None, entry, here=identity(entry, 2)),
    ]
    moved = {b"b": b"a"}
    assert moved_directories(findings, lambda _: False, retained=True) == moved
    # b/g cannot be read, or is ignored: what was a/g must not be deleted in its place.
    assert moved_directories(findings, lambda path: path == b"b/g", retained=True) == {}
