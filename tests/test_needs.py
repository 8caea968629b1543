"""Directories closed to their owner are opened for what is done in them, and closed after it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from skynet.needs import changed_directories
from skynet.ops import Delete, Mkdir, Op, Plan, Record, Rename, Rmdir, SetMeta, Upload
from skynet.plan import Policy, make_plan
from skynet.tree import DIR, Entry, Tree
from tests.support.world import World as RealWorld
from tests.support.worlds import World, content_entry, findings

CLOSED, OPEN = Entry(DIR, mode=0o555), Entry(DIR, mode=0o755)
OLD, NEW = content_entry(b"old", 5), content_entry(b"new", 6)
FULL = Policy(complete_sync=True)


def planned(local: Tree, remote: Tree, policy: Policy = FULL) -> Plan:
    return make_plan(findings(World(dict(local), dict(remote), dict(remote))), policy)


def opening(path: bytes) -> SetMeta:
    return SetMeta(path, OPEN, opens=True)


@pytest.mark.parametrize(
    ("op", "changed"),
    [
        (Upload(b"d/a", NEW), {b"d"}),
        (Mkdir(b"a", OPEN), {b""}),
        (Rename(b"d/a", b"e/a", OLD), {b"d", b"e"}),
        (Delete(b"d/e/a", OLD), {b"d/e"}),
        (Rmdir(b"d/e"), {b"d"}),
        (SetMeta(b"d/a", OLD), set()),
        (Record(b"d/a", OLD), set()),
    ],
)
def test_operations_change_the_directories_that_hold_their_names(
    op: Op, changed: set[bytes]
) -> None:
    assert set(changed_directories(op)) == changed


def test_closed_directory_in_which_nothing_is_done_stays_closed() -> None:
    tree = {b"d": CLOSED, b"d/a": OLD}
    assert planned(tree, tree).ops == []
    assert not planned({**tree, b"b": NEW}, tree).needs[0]


def test_closed_directory_is_opened_for_an_upload_and_closed_after_it() -> None:
    plan = planned({b"d": CLOSED, b"d/a": NEW}, {b"d": CLOSED, b"d/a": OLD})
    upload = Upload(b"d/a", NEW, OLD)
    assert plan.ops == [opening(b"d"), upload, SetMeta(b"d", CLOSED)]
    assert [set(needs) for needs in plan.needs] == [set(), {0}, {0, 1}]


def test_both_ends_of_a_move_are_opened() -> None:
    directories = {b"d": CLOSED, b"e": CLOSED}
    plan = planned({**directories, b"e/a": OLD}, {**directories, b"d/a": OLD})
    closing: list[Op] = [SetMeta(b"e", CLOSED), SetMeta(b"d", CLOSED)]
    rename = Rename(b"e/a", b"d/a", OLD)
    assert plan.ops == [opening(b"d"), opening(b"e"), rename, *closing]
    assert set(plan.needs[2]) == {0, 1}


def test_closed_directory_that_goes_is_not_closed_again() -> None:
    plan = planned({}, {b"d": CLOSED, b"d/a": OLD})
    assert plan.ops == [opening(b"d"), Delete(b"d/a", OLD), Rmdir(b"d")]
    assert [set(needs) for needs in plan.needs] == [set(), {0}, {0, 1}]


def test_directory_that_is_to_be_open_is_opened_before_it_is_set() -> None:
    plan = planned({b"d": OPEN, b"d/a": NEW}, {b"d": CLOSED})
    assert [type(op) for op in plan.ops] == [SetMeta, Upload, SetMeta]


def test_nothing_is_opened_where_modes_are_not_kept() -> None:
    policy = Policy(complete_sync=True, keeps_modes=False)
    plan = planned({b"d": CLOSED, b"d/a": NEW}, {b"d": CLOSED}, policy)
    assert [type(op) for op in plan.ops] == [Upload]


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_closed_directories_follow_the_local_tree(tmp_path: Path) -> None:
    world = RealWorld(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    directory = world.local / "d"
    world.put({"d": {"a": b"1", "b": b"2", "c": b"3"}, "e": b"4"})
    directory.chmod(0o555)
    world.sync()
    world.quiet()
    for audit, change in (
        (True, {"d/a": b"changed", "d/new": b"5"}),
        (False, {"d/b": None}),
        (True, {"d": None}),
    ):
        if directory.exists():
            directory.chmod(0o755)
        world.put(change)
        if directory.exists():
            directory.chmod(0o555)
        report = world.sync(audit=audit)
        assert report.problems == []
        world.check()
        world.quiet()
