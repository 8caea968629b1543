"""What a person would expect of plans, one situation after the other."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType

import msgspec
import pytest

from skynet.findings import Finding, undecided
from skynet.ops import Delete, Mkdir, Plan, Record, Rename, Rmdir, SetMeta, Upload
from skynet.plan import Policy, make_plan
from skynet.shuffle import parking_place
from skynet.tree import DIR, FILE, LINK, Entry, Tree
from tests.support.worlds import World, content_entry, findings, seen
from tests.test_plan import FULL, KEEPING, in_step

OLD, NEW = content_entry(b"old", 5), content_entry(b"new", 6)
ALSO_OLD = content_entry(b"old", 7)
DIRECTORY = Entry(DIR, mode=0o755)


def planned(local: Tree, remote: Tree, policy: Policy = FULL) -> Plan:
    return make_plan(findings(in_step(local, remote)), policy)


def test_moved_file_is_one_rename_in_both_modes() -> None:
    for policy in (FULL, KEEPING):
        assert planned({b"b": OLD}, {b"a": OLD}, policy).ops == [Rename(b"b", b"a", OLD)]


def test_moved_file_with_other_times_is_not_sent() -> None:
    ops = planned({b"b": ALSO_OLD}, {b"a": OLD}).ops
    assert ops == [Rename(b"b", b"a", OLD), SetMeta(b"b", ALSO_OLD)]


def test_times_that_the_remote_does_not_keep_are_only_recorded() -> None:
    policy = Policy(complete_sync=True, keeps_times=False)
    ops = planned({b"b": ALSO_OLD}, {b"a": OLD}, policy).ops
    assert ops == [Rename(b"b", b"a", OLD), Record(b"b", ALSO_OLD)]


def test_of_several_equal_files_the_one_of_the_same_name_moves() -> None:
    remote = {b"a": OLD, b"x": OLD}
    plan = planned({b"d": DIRECTORY, b"d/x": OLD}, remote)
    assert plan.ops[1:] == [Rename(b"d/x", b"x", OLD), Delete(b"a", OLD)]


def test_copy_whose_source_stays_is_sent() -> None:
    assert [type(op) for op in planned({b"a": OLD, b"b": OLD}, {b"a": OLD}).ops] == [Upload]


def test_a_swap_parks_one_and_sends_nothing() -> None:
    ops = planned({b"a": OLD, b"b": NEW}, {b"a": NEW, b"b": OLD}).ops
    parked = parking_place(b"b")
    assert ops == [Rename(parked, b"b", OLD), Rename(b"b", b"a", NEW), Rename(b"a", parked, OLD)]


def test_new_directory_comes_with_its_first_file() -> None:
    local = {b"d": DIRECTORY, b"d/e": DIRECTORY}
    assert not planned(local, {}, KEEPING).ops
    plan = planned({**local, b"d/e/f": NEW}, {}, KEEPING)
    assert [type(op) for op in plan.ops] == [Mkdir, Mkdir, Upload]
    assert plan.needs == [(), (0,), (1,)]


def test_directory_closed_to_its_owner_is_closed_when_it_is_full() -> None:
    closed = Entry(DIR, mode=0o500)
    plan = planned({b"d": closed, b"d/f": NEW}, {})
    assert plan.ops[0] == Mkdir(b"d", Entry(DIR, mode=0o700))
    assert plan.ops[2] == SetMeta(b"d", closed)
    assert plan.needs == [(), (0,), (0, 1)]


def test_file_replaced_by_an_empty_directory_is_deleted() -> None:
    plan = planned({b"a": DIRECTORY}, {b"a": OLD}, Policy(complete_sync=True))
    assert plan.ops == [Delete(b"a", OLD)]


def test_directory_with_kept_files_is_not_replaced_by_a_file() -> None:
    remote = {b"a": DIRECTORY, b"a/b": OLD}
    plan = planned({b"a": NEW}, remote, KEEPING)
    assert [problem.code for problem in plan.problems] == ["directory-in-the-way"]
    assert not [op for op in plan.ops if not isinstance(op, Record)]
    assert [type(op) for op in planned({b"a": NEW}, remote).ops] == [Delete, Rmdir, Upload]


def test_what_is_gone_is_remembered_and_goes_when_complete_sync_comes() -> None:
    plan = planned({}, {b"a": OLD}, KEEPING)
    retained = msgspec.structs.replace(OLD, retained=True)
    assert plan.ops == [Record(b"a", retained)]
    assert planned({}, {b"a": retained}).ops == [Delete(b"a", retained)]


@pytest.mark.parametrize(
    ("local", "expected"),
    [(OLD, Record), (ALSO_OLD, Record), (content_entry(b"old", 3 * 10**9), Upload)],
    ids=["equal", "within the second", "another second"],
)
def test_foreign_file_of_equal_size_and_time_is_adopted(local: Entry, expected: type) -> None:
    world = World({b"a": local}, {}, {b"a": seen(OLD)})
    (op,) = make_plan(findings(world), KEEPING).ops
    assert isinstance(op, expected)
    assert not isinstance(op, Upload) or op.foreign


@pytest.mark.parametrize("foreign_is_removed", [True, False])
def test_foreign_file_is_removed_only_by_policy(foreign_is_removed: bool) -> None:
    world = World({}, {}, {b"a": seen(OLD)})
    policy = Policy(complete_sync=True, remove_foreign=foreign_is_removed)
    expected = [Delete(b"a", seen(OLD), foreign=True)] if foreign_is_removed else []
    assert make_plan(findings(world), policy).ops == expected
    assert not make_plan(findings(world), KEEPING).ops


def test_directory_that_holds_a_kept_foreign_file_stays() -> None:
    synced = {b"a": DIRECTORY, b"a/b": OLD}
    world = World({}, synced, {**synced, b"a/c": seen(NEW)})
    policy = Policy(complete_sync=True, remove_foreign=False)
    ops = make_plan(findings(world), policy).ops
    assert ops == [Delete(b"a/b", OLD), Record(b"a", None)]  # it is theirs now


def test_only_files_that_may_be_known_are_read() -> None:
    unread = msgspec.structs.replace(OLD, digest=b"")
    longer = Entry(FILE, size=99)
    found = [
        Finding(b"gone", OLD, None),
        Finding(b"new", None, unread),
        Finding(b"new and longer", None, longer),
        Finding(b"resized", OLD, longer),
        Finding(b"same size", OLD, unread),
        Finding(b"unknown there", unread, unread, foreign=True),
        Finding(b"link", None, Entry(LINK, link=b"x")),
    ]
    assert [finding.path for finding in undecided(found)] == [b"new", b"same size"]


def test_what_is_in_the_way_is_told_by_its_path_alone() -> None:
    """Each path is not compared with every directory that makes room for a file or link."""

    def looks(directories: int) -> int:
        found = []
        for number in range(directories):
            path = b"%d" % number
            found.append(Finding(path, DIRECTORY, Entry(LINK, link=b"x")))
            found += [Finding(b"%b/%d" % (path, n), OLD, None) for n in range(1200 // directories)]
        counted = Counter[str]()

        def count(frame: FrameType, event: str, _: object) -> None:
            counted[event] += 1

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            plan = make_plan(found, FULL)
        finally:
            sys.setprofile(before)
        assert len(plan.ops) == 1200 + 2 * directories
        return counted.total()

    assert looks(100) < 2 * looks(5)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_directory_is_closed_after_what_is_in_it_has_its_attributes(is_new: bool) -> None:
    """Nothing below a directory that its owner may not enter can be reached."""
    shut = msgspec.structs.replace(DIRECTORY, mode=0o600)
    listed = msgspec.structs.replace(DIRECTORY, mode=0o500)
    local = {b"d": shut, b"d/e": listed, b"d/e/f": NEW}
    remote = {} if is_new else {b"d": DIRECTORY, b"d/e": DIRECTORY, b"d/e/f": NEW}
    plan = planned(local, remote)
    closing = {op.path: number for number, op in enumerate(plan.ops) if isinstance(op, SetMeta)}
    assert list(closing) == [b"d/e", b"d"]
    assert closing[b"d/e"] in plan.needs[closing[b"d"]]
