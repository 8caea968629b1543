"""Saved plans in a world: carried out exactly, and what the cycle keeps doing meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from skynet.cycle import Report
from skynet.errors import RequestError
from skynet.ops import kind
from tests.support.folding import FoldingWorld
from tests.support.saved import changed_world, refused, save
from tests.support.world import World, frozen

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return changed_world(tmp_path)


def kinds(report: Report) -> list[str]:
    return sorted(f"{kind(op)} {op.path.decode()}" for op in report.plan.ops)


def test_a_saved_plan_does_what_was_shown(world: World) -> None:
    shown = world.plan()
    saved = save(world)
    report = world.sync(saved=saved)
    assert (report.outcome, kinds(report)) == ("changed", kinds(shown))
    assert report.done == shown.plan.counts()
    world.check()
    world.quiet()  # also: what is recorded of the files needs no second look
    assert world.files()["new/file"] == b"7777777"


def test_no_more_is_done_than_was_shown(world: World) -> None:
    saved = save(world)
    world.put({"later": b"8", "bystander": b"66", "d": {"a": None}})
    before = world.files()
    report = world.sync(saved=saved)
    assert report.outcome == "changed"
    after = world.files()
    assert "later" not in after
    assert (after["bystander"], after["d/a"]) == (before["bystander"], before["d/a"])
    assert world.sync().done["upload"] == 2
    world.check()


def test_a_plan_is_saved_without_a_trace(world: World) -> None:
    before = frozen(world.local), frozen(world.remote), frozen(world.state)
    save(world)
    assert before == (frozen(world.local), frozen(world.remote), frozen(world.state))


def test_nothing_is_listed_or_read_that_the_plan_is_not_about(world: World) -> None:
    saved = save(world)
    world.sync(saved=saved)
    assert "OPENDIR" not in world.requests()


def test_a_first_contact_can_be_saved(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": b"1", "d": {"b": b"2"}})
    assert world.sync(saved=save(world)).outcome == "changed"
    world.check()
    world.quiet()


def test_adopted_files_are_not_sent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": b"1", "b": b"22"}, at=10**18)
    world.put_remote({"a": b"1"}, at=10**18)
    report = world.sync(saved=save(world))
    assert report.counts["bytes"] == 2
    world.quiet()


def test_a_plan_with_nothing_in_it_does_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": b"1"})
    world.sync()
    report = world.sync(saved=save(world))
    assert (report.outcome, report.counts["mutations"]) == ("in-sync", 0)


def test_paths_that_were_left_out_are_told_again(world: World) -> None:
    (world.local / "edit").chmod(0)
    if os.access(world.local / "edit", os.R_OK):
        os.mkfifo(world.local / "d" / "pipe")
        shutil.rmtree(world.remote / "d")
        world.put({"d": {"a": None}})
    saved = save(world)
    left_out = saved.plan.problems
    report = world.sync(saved=saved)
    assert set(left_out) <= set(report.problems)


@pytest.mark.parametrize("audit", [True, False])
def test_the_same_file_a_second_time_is_stale(world: World, *, audit: bool) -> None:
    saved = save(world, audit=audit)
    world.sync(saved=saved)
    assert "the manifest has moved on from generation 1 to 2" in refused(world, saved)


# Hazards.


def test_a_reviewed_plan_with_a_hazard_still_needs_its_approval(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put(dict.fromkeys("abcd", b"1"))
    world.sync()
    world.put(dict.fromkeys("abc"))
    shown = world.plan(bind=True)
    assert [hazard.code for hazard in shown.hazards] == ["mass-delete"]
    saved = shown.saved
    held = world.sync(saved=saved)
    assert (held.outcome, held.hazards) == ("held", shown.hazards)
    assert held.counts["mutations"] == 0
    done = world.sync(saved=saved, approve=shown.hazards[0].approve)
    assert (done.outcome, done.done["delete"]) == ("changed", 3)
    world.check()


def test_an_emptied_source_is_a_hazard_of_a_saved_plan_too(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put(dict.fromkeys("ab", b"1"))
    world.sync()
    world.put(dict.fromkeys("ab"))
    shown = world.plan(bind=True)
    held = world.sync(saved=shown.saved)
    assert held.hazards == shown.hazards
    assert held.hazards[0].code == "emptied-root"


# What the cycle keeps doing.


def test_what_a_broken_run_left_is_cleared_and_the_plan_goes_on(world: World) -> None:
    saved = save(world)
    temps = world.remote / ".skynet" / "tmp"
    (temps / "rest").write_bytes(b"half")
    lease = world.remote / ".skynet" / "lease"
    assert not lease.exists()
    lease.write_bytes(b"rubbish of a run that died")
    report = world.sync(saved=saved)
    assert report.outcome == "changed"
    world.check()


def test_old_trash_stays_since_nobody_was_shown_that_it_goes(world: World) -> None:
    old = world.remote / ".skynet" / "trash" / "2001-01-01T000000Z-00"
    old.mkdir(parents=True)
    world.age_trash(8)
    world.sync(saved=save(world))
    assert old.exists()
    world.put({"edit": b"again"})
    world.sync()
    assert not old.exists()


def test_a_path_that_fails_is_a_problem_as_ever(world: World) -> None:
    saved = save(world)
    world.at_open(b"tmp/", lambda: world.put({"new": {"file": b"torn"}}))
    report = world.sync(saved=saved)
    assert report.outcome == "problems"
    assert RequestError.code not in {problem.code for problem in report.problems}
    assert {problem.path for problem in report.problems} == {b"new/file"}


def test_a_saved_plan_exchanges_names(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": b"1", "b": b"22"})
    world.sync()
    world.move("a", "t")
    world.move("b", "a")
    world.move("t", "b")
    assert world.sync(saved=save(world)).done["rename"] == 3
    world.check()


def test_a_saved_plan_gives_another_case(tmp_path: Path) -> None:
    world = FoldingWorld(tmp_path)
    world.put({"Name": b"1", "D": {"x": b"22"}})
    world.sync()
    world.move("Name", "name")
    world.move("D", "d")
    world.put({"d": {"new": b"3"}})
    report = world.sync(saved=save(world))
    assert (report.done["rename"], report.done["upload"]) == (4, 1)
    assert world.files() == {"name": b"1", "d/x": b"22", "d/new": b"3"}
    world.quiet()
