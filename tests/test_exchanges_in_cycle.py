"""What is known of directories that were exchanged: the next cycle finds nothing to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet.config import MaxDelete
from tests.support.world import World


@pytest.fixture(params=[True, False], ids=["complete-sync", "keeping"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, complete_sync=request.param, max_delete=MaxDelete(1.0, 1000))


def exchange(world: World, one: str, other: str) -> None:
    world.move(one, "aside")
    world.move(other, one)
    world.move("aside", other)


def test_directories_that_were_exchanged_and_filled_anew_while_another_one_moved(
    both: World,
) -> None:
    both.put({"a": {"1": b"1"}, "b": {"2": b"22"}, "c": {"3": b"333"}})
    both.sync()
    exchange(both, "a", "b")
    # Nothing is in them that was, so they are not taken for those that they were.
    both.put({"a": {"2": None, "x": b"4444"}, "b": {"1": None, "x": b"55555"}})
    both.move("c", "d")
    assert both.sync().done["rename"] == 1
    both.quiet()


def test_the_same_in_a_directory_that_moved(both: World) -> None:
    both.put({"c": {"a": {"1": b"1"}, "b": {"2": b"22"}, "3": b"333"}})
    both.sync()
    exchange(both, "c/a", "c/b")
    both.put({"c": {"a": {"2": None, "x": b"4444"}, "b": {"1": None, "x": b"55555"}}})
    both.move("c", "d")
    assert both.sync().done["rename"] == 1
    both.quiet()


def test_exchanged_directories_hold_others_that_were_exchanged_before(both: World) -> None:
    inside = {"x": {"1": b"1"}, "y": {"1": b"22"}}
    both.put({"a": inside, "b": inside})
    both.sync()
    for directory in ("a", "b"):
        exchange(both, f"{directory}/x", f"{directory}/y")
    both.sync()  # what has moved is not looked at once more
    exchange(both, "a", "b")
    assert both.sync().done["rename"] == 3
    both.quiet()


@pytest.mark.parametrize("racy", [True, False])
def test_files_that_had_to_be_read_are_not_taken_for_each_other(both: World, racy: bool) -> None:
    if racy:
        both.ahead_ns = 0
    both.put({"a": {"f": b"1"}})
    both.put({"b": {"f": b"2"}})
    both.sync()
    both.ahead_ns = 10**10
    for path in (both.local / "a/f", both.local / "b/f"):
        mode = path.stat().st_mode
        path.chmod(0o600)
        path.chmod(mode)
    exchange(both, "a", "b")
    both.sync()
    both.check()
    both.quiet()
    both.check()


def test_what_is_retained_in_a_moved_directory_is_not_in_the_way(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": {"f": b"1", "kept": {"g": b"22"}}, "b": {"h": b"333"}})
    world.sync()
    world.put({"a": {"kept": None}})
    world.sync()
    world.move("a", "c")
    world.move("b", "c/kept")
    report = world.sync()
    assert not report.problems
    assert "upload" not in report.done
    world.quiet()
    assert world.files() == {"c/f": b"1", "c/kept/g": b"22", "c/kept/h": b"333"}
