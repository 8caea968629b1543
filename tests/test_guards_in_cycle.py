"""The guard in a cycle: what is held, that nothing is sent then, and what an approval covers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from skynet.errors import SourceError
from tests.support.world import DAY, World, frozen


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "b": b"22", "d": {"c": b"333", "e": b"4444"}})
    made.sync()
    return made


def held_codes(world: World) -> list[str]:
    """Run a cycle that must be held and change nothing; its hazards."""
    before = frozen(world.remote)
    report = world.sync()
    assert report.outcome == "held"
    assert report.counts["mutations"] == 0
    assert frozen(world.remote) == before
    return [hazard.code for hazard in report.hazards]


def test_a_mass_delete_is_held_and_done_when_approved(world: World) -> None:
    world.put({"d": None})
    assert held_codes(world) == ["mass-delete"]
    assert held_codes(world) == ["mass-delete"], "it is held until it is approved"
    assert world.approve().outcome == "changed"
    world.check()
    world.quiet()


def test_a_mass_delete_by_number_is_held(world: World) -> None:
    world.put({"a": None})
    report = world.sync(max_delete=MaxDelete(1.0, 0))
    assert [hazard.code for hazard in report.hazards] == ["mass-delete"]


def test_a_few_deletes_are_not_held(world: World) -> None:
    world.put({"a": None})
    assert world.sync().outcome == "changed"
    world.check()


def test_held_plans_hold_uploads_as_well(world: World) -> None:
    world.put({"d": None, "new": b"1"})
    assert held_codes(world) == ["mass-delete"]
    assert "new" not in world.files()


def test_an_emptied_root_is_held(world: World) -> None:
    world.put({"a": None, "b": None, "d": None})
    assert held_codes(world) == ["emptied-root", "mass-delete"]


def test_an_emptied_root_that_is_meant_empties_the_target(world: World) -> None:
    world.put({"a": None, "b": None, "d": None})
    assert world.approve().outcome == "changed"
    assert world.files() == {}
    world.quiet()


def test_an_emptied_root_deletes_nothing_without_complete_sync(world: World) -> None:
    before = world.files()
    world.put({"a": None, "b": None, "d": None})
    assert world.sync(complete_sync=False).hazards == []
    assert world.files() == before


def test_a_swapped_root_is_held(world: World) -> None:
    other = world.base / "other"
    shutil.copytree(world.local, other)
    shutil.rmtree(world.local)
    other.rename(world.local)
    world.put({"a": None})
    assert held_codes(world) == ["swapped-root"]
    assert held_codes(world) == ["swapped-root"]
    assert world.approve().outcome == "changed"
    world.check()
    world.put({"b": None})
    assert world.sync().outcome == "changed", "the new root is the known one now"


def test_a_swapped_root_without_deletes_goes_on(world: World) -> None:
    other = world.base / "other"
    shutil.copytree(world.local, other)
    shutil.rmtree(world.local)
    other.rename(world.local)
    world.put({"new": b"1"})
    assert world.sync().outcome == "changed"
    world.check()


def test_a_root_swapped_in_the_middle_deletes_nothing(world: World) -> None:
    world.put({"a": None})
    before = world.files()

    def swap() -> None:
        world.local.rename(world.base / "aside")
        world.local.mkdir()

    world.at_open(b"lease", swap)
    with pytest.raises(SourceError, match="nothing was deleted"):
        world.sync()
    assert world.files() == before
    assert world.temps() == []


def test_a_root_unmounted_in_the_middle_deletes_nothing(world: World) -> None:
    world.put({"a": None})
    before = world.files()

    def unmount() -> None:
        world.local.rename(world.base / "aside")

    world.at_open(b"lease", unmount)
    with pytest.raises(SourceError, match="cannot be read"):
        world.sync()
    assert world.files() == before


def zero(world: World, name: str) -> None:
    """As after a power loss: no content, and the old modification time."""
    path = world.local / name
    moment = path.stat().st_mtime_ns
    os.truncate(path, 0)
    os.utime(path, ns=(moment, moment))


def test_zeroed_files_are_held(world: World) -> None:
    zero(world, "d/c")
    assert held_codes(world) == ["zeroed-files"]
    assert held_codes(world) == ["zeroed-files"]
    assert world.files()["d/c"] == b"333"
    assert world.approve().outcome == "changed"
    world.check()


def test_a_file_emptied_on_purpose_is_not_held(world: World) -> None:
    world.put({"d/c": b""})
    assert world.sync().outcome == "changed"
    world.check()


# Approvals.


def test_a_wrong_approval_approves_nothing(world: World) -> None:
    world.put({"d": None})
    before = frozen(world.remote)
    for wrong in ("", "0" * 12, "yes"):
        assert world.sync(approve=wrong).outcome == "held"
    assert frozen(world.remote) == before


def test_an_approval_covers_no_more_than_was_shown(world: World) -> None:
    world.put({"d": None})
    shown = world.sync().hazards[0].approve
    world.put({"a": None})
    report = world.sync(approve=shown)
    assert report.outcome == "held"
    assert report.hazards[0].approve != shown
    assert "d/c" in world.files()


def test_an_approval_survives_changes_that_destroy_nothing_more(world: World) -> None:
    world.put({"d": None})
    shown = world.sync().hazards[0].approve
    world.put({"new": b"1"})
    assert world.sync(approve=shown).outcome == "changed"
    world.check()


def test_an_approval_is_used_up(world: World) -> None:
    world.put({"d": None})
    shown = world.sync().hazards[0].approve
    world.sync(approve=shown)
    world.put({"d": {"c": b"333", "e": b"4444", "f": b"5"}})
    world.sync()
    world.put({"d": None})
    assert world.sync(approve=shown).outcome == "held", "d/f was never shown"


def test_a_dry_run_shows_the_hash_that_approves(world: World) -> None:
    world.put({"d": None})
    shown = world.plan()
    assert shown.outcome == "held"
    assert world.sync(approve=shown.hazards[0].approve).outcome == "changed"
    world.check()


def test_a_held_plan_keeps_nothing_that_would_hide_the_hazard(world: World) -> None:
    """Neither the new root nor the new stat is remembered while the plan is held."""
    zero(world, "a")
    world.put({"b": None})
    for audit in (True, False, True):
        report = world.sync(audit=audit)
        assert [hazard.code for hazard in report.hazards] == ["zeroed-files"]


def test_trash_keeps_what_an_approved_plan_removes(world: World) -> None:
    world.put({"d": None})
    world.approve()
    assert world.trashed() == {"d/c": b"333", "d/e": b"4444"}


def test_old_trash_is_emptied_after_trash_days(world: World) -> None:
    world.put({"a": None})
    world.sync()
    assert world.trashed() == {"a": b"1"}
    world.let_days_pass(6)
    world.put({"x": b"1"})
    world.sync()
    assert world.trashed() == {"a": b"1"}
    world.let_days_pass(2)
    world.put({"y": b"1"})
    world.sync()
    assert world.trashed() == {}
    world.check()


@pytest.mark.parametrize(("wrong", "later"), [(-9000, 9000), (0, 9000), (0, 0)])
def test_no_wrong_clock_empties_the_trash(world: World, wrong: int, later: int) -> None:
    world.ahead_ns += wrong * DAY
    world.put({"a": None})
    world.sync()
    world.ahead_ns += later * DAY
    if not later:
        world.age_trash(9000)  # it is the server's clock that is wrong
    world.put({"x": b"1"})
    world.sync()
    assert world.trashed() == {"a": b"1"}
    world.check()
