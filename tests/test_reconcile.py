"""The cycle: it converges, does nothing twice, forgets nothing, and keeps to complete-sync."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from skynet.blocks import PATCH_FROM
from skynet.config import MaxDelete
from skynet.errors import SourceError, TargetError
from skynet.index import LARGE
from skynet.ops import Rename, SetMeta, Upload
from tests.support.versions import noise
from tests.support.world import Link, World, frozen

TREE = {
    "a": b"alpha",
    "d": {"b": b"beta", "deep": {"er": {"c": b"gamma" * 1000}}},
    "empty": b"",
    "link": Link("d/b"),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def synced(world: World) -> World:
    world.put(TREE)
    assert world.sync().outcome == "changed"
    world.check()
    return world


@pytest.mark.parametrize("audit", [True, False])
def test_the_second_cycle_and_the_third_send_nothing(synced: World, audit: bool) -> None:
    synced.quiet(audit=audit)
    synced.quiet(audit=audit)


@pytest.mark.parametrize("audit", [True, False])
def test_without_its_state_the_next_cycle_sends_nothing(synced: World, audit: bool) -> None:
    synced.lose_state()
    synced.quiet(audit=audit)
    synced.quiet(audit=audit)


def test_an_edit_is_sent_after_the_state_was_lost(synced: World) -> None:
    synced.lose_state()
    synced.put({"a": b"ALPHA"})
    assert synced.sync(audit=False).done["upload"] == 1
    synced.check()


def test_a_first_cycle_makes_the_target_and_those_above_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.remote.rmdir()
    world.remote = tmp_path / "far" / "away"
    world.put(TREE)
    world.sync()
    world.check()
    world.quiet()


def test_an_empty_source_makes_nothing(world: World) -> None:
    assert world.sync().outcome == "in-sync"
    assert list(world.remote.iterdir()) == []


def test_a_file_of_many_writes_arrives_whole(world: World) -> None:
    content = os.urandom(3_000_001)
    world.put({"large": content})
    report = world.sync()
    assert report.counts["bytes"] == len(content)
    world.check()


def test_counts_are_of_what_was_done(synced: World) -> None:
    synced.put({"a": b"12345", "n": {"x": b"123"}})
    report = synced.sync()
    assert report.outcome == "changed"
    assert report.done == report.plan.counts()
    assert report.done == {"upload": 2, "mkdir": 1, "bytes": 8}


# A dry run.


def test_a_dry_run_without_state_writes_nothing(world: World) -> None:
    world.put(TREE)
    before = frozen(world.base)
    report = world.plan()
    assert report.outcome == "planned"
    assert report.plan.counts()["upload"] == 5
    assert report.counts["mutations"] == 0
    assert frozen(world.base) == before
    assert not world.state.exists()


@pytest.mark.parametrize("audit", [True, False])
def test_a_dry_run_writes_nothing(synced: World, audit: bool) -> None:
    synced.put({"a": b"other", "d/b": None, "n": {"m": b"new"}})
    before = frozen(synced.base)
    assert synced.plan(audit=audit, complete_sync=True).outcome == "planned"
    assert frozen(synced.base) == before


def test_a_dry_run_that_looks_for_what_may_be_copied_or_patched_writes_nothing(
    synced: World,
) -> None:
    content = noise(PATCH_FROM)
    synced.put({"large": content, "gone": content[: LARGE + 1]})
    synced.sync()
    synced.put({"gone": None})
    synced.sync(complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    synced.put({"large": content + b"more", "back": content[: LARGE + 1]})
    before = frozen(synced.base)
    assert synced.plan().plan.counts() >= Counter(patch=1, copy=1)
    assert frozen(synced.base) == before


@pytest.mark.parametrize("audit", [True, False])
def test_a_dry_run_on_a_stale_index_writes_nothing(
    synced: World, tmp_path: Path, audit: bool
) -> None:
    stale = tmp_path / "stale"
    synced.state.rename(stale)
    synced.put({"a": b"other"})
    synced.sync()
    synced.lose_state()
    stale.rename(synced.state)
    before = frozen(synced.base)
    report = synced.plan(audit=audit)
    assert report.outcome == "in-sync"
    assert frozen(synced.base) == before


def test_a_dry_run_of_a_tree_in_sync_says_so(synced: World) -> None:
    before = frozen(synced.base)
    assert synced.plan().outcome == "in-sync"
    assert frozen(synced.base) == before


def test_what_a_dry_run_shows_is_what_the_next_cycle_does(synced: World) -> None:
    synced.put({"a": b"other", "d/b": None, "n": {"m": b"new"}})
    planned = synced.plan(complete_sync=True).plan
    assert synced.sync(complete_sync=True).plan == planned
    synced.check()


# Without complete-sync the remote keeps what is gone here; with it, it goes.


def test_a_vanished_file_is_kept_without_complete_sync(synced: World) -> None:
    synced.put({"d/b": None})
    synced.sync()
    synced.check({"d/b": b"beta"})
    synced.quiet()
    synced.quiet(audit=False)


def test_a_vanished_file_goes_to_the_trash_in_complete_sync(synced: World) -> None:
    synced.put({"d/b": None})
    synced.sync(complete_sync=True)
    synced.check()
    assert synced.trashed() == {"d/b": b"beta"}
    synced.quiet(complete_sync=True)


def test_a_vanished_directory_goes_in_complete_sync(synced: World) -> None:
    synced.put({"more": {str(n): b"%d" % n for n in range(9)}})
    synced.sync()
    synced.put({"d": None})
    report = synced.sync(complete_sync=True)
    assert report.done["rmdir"] == 3
    synced.check()
    assert not (synced.remote / "d").exists()
    synced.quiet(complete_sync=True)


def test_what_was_retained_goes_when_complete_sync_is_switched_on(synced: World) -> None:
    synced.put({"d/b": None})
    synced.sync()
    synced.put({"a": b"later"})
    synced.sync()
    report = synced.sync(complete_sync=True, audit=False)
    assert report.done == {"delete": 1}
    synced.check()
    synced.quiet(complete_sync=True)


def test_what_was_retained_passes_the_guard_when_it_goes(synced: World) -> None:
    synced.put({"d": None, "a": None, "empty": None})
    synced.sync()
    held = synced.sync(complete_sync=True)
    assert held.outcome == "held"
    assert [hazard.code for hazard in held.hazards] == ["mass-delete"]
    assert synced.files().keys() == {"a", "d/b", "d/deep/er/c", "empty"}


def test_a_retained_file_is_no_source_of_a_rename(synced: World) -> None:
    synced.put({"d/b": None})
    synced.sync()
    synced.put({"new": b"beta"})
    report = synced.sync()
    assert [type(op) for op in report.plan.ops] == [Upload]
    synced.check({"d/b": b"beta"})


def test_a_file_that_reappears_as_it_was_is_not_sent(synced: World) -> None:
    content = (synced.local / "d/b").read_bytes()
    moment = (synced.local / "d/b").stat().st_mtime_ns
    synced.put({"d/b": None})
    synced.sync()
    synced.put({"d/b": content}, at=moment)
    report = synced.sync()
    assert report.counts["bytes"] == 0
    synced.check()
    synced.put({"d/b": None})
    synced.sync(complete_sync=True)
    synced.check()


def test_a_file_that_reappears_changed_is_sent(synced: World) -> None:
    synced.put({"d/b": None})
    synced.sync()
    synced.put({"d/b": b"BETA"})
    assert synced.sync().done["upload"] == 1
    synced.check()
    synced.quiet()


def test_a_retained_file_that_vanishes_from_the_remote_is_forgotten(synced: World) -> None:
    synced.put({"d/b": None})
    synced.sync()
    synced.put_remote({"d/b": None})
    synced.sync()
    synced.check()
    synced.quiet()


# Moves.


@pytest.mark.parametrize("complete_sync", [True, False])
@pytest.mark.parametrize("audit", [True, False])
def test_a_moved_file_is_renamed(synced: World, complete_sync: bool, audit: bool) -> None:
    synced.move("a", "n/ew")
    report = synced.sync(complete_sync=complete_sync, audit=audit)
    assert report.done == {"rename": 1, "mkdir": 1}
    assert report.counts["bytes"] == 0
    synced.check()
    synced.quiet(complete_sync=complete_sync)


@pytest.mark.parametrize("complete_sync", [True, False])
def test_a_moved_and_touched_file_is_renamed_and_touched(
    synced: World, complete_sync: bool
) -> None:
    synced.put({"a": None, "moved": b"alpha"})
    (synced.local / "moved").chmod(0o600)
    report = synced.sync(complete_sync=complete_sync)
    assert [type(op) for op in report.plan.ops] == [Rename, SetMeta]
    synced.check()
    synced.quiet(complete_sync=complete_sync)


def test_a_move_onto_a_name_that_was_there_before_is_no_move(synced: World) -> None:
    synced.put({"d/b": None, "a": b"beta"})
    synced.sync(complete_sync=True)
    synced.check()
    synced.quiet(complete_sync=True)


def test_two_files_that_swap_names_arrive(synced: World) -> None:
    synced.put({"one": b"1", "two": b"2"})
    synced.sync()
    synced.move("one", "three")
    synced.move("two", "one")
    synced.move("three", "two")
    synced.sync(complete_sync=True)
    synced.check()
    synced.quiet(complete_sync=True)


def test_of_two_files_with_one_content_only_the_vanished_is_renamed(synced: World) -> None:
    synced.put({"copy": b"alpha"})
    assert synced.sync(complete_sync=True).done["upload"] == 1
    synced.move("copy", "copy2")
    assert synced.sync(complete_sync=True).done == {"rename": 1}
    synced.check()


def test_files_out_of_a_removed_directory_are_renamed(synced: World) -> None:
    synced.move("d/b", "b")
    synced.move("d/deep/er/c", "c")
    synced.put({"d": None, "link": None})
    report = synced.sync(complete_sync=True)
    assert report.done["rename"] == 2
    assert report.counts["bytes"] == 0
    synced.check()
    synced.quiet(complete_sync=True)


# What ends a cycle before it begins.


def test_a_target_that_is_a_file_ends_the_cycle(world: World) -> None:
    world.put(TREE)
    world.remote.rmdir()
    world.remote.write_bytes(b"a file")
    with pytest.raises(TargetError, match="is a file"):
        world.sync()
    assert world.remote.read_bytes() == b"a file"


def test_a_reserved_name_that_is_a_file_ends_the_cycle(world: World) -> None:
    world.put(TREE)
    world.put_remote({".skynet": b"a file"})
    with pytest.raises(TargetError, match="not a directory"):
        world.sync()


def test_a_missing_source_ends_the_cycle_before_it_connects(world: World) -> None:
    world.local.rmdir()
    with pytest.raises(SourceError, match="cannot be read"):
        world.sync()
    assert world.asked == []


def test_a_source_that_is_a_file_ends_the_cycle(world: World) -> None:
    world.local.rmdir()
    world.local.write_bytes(b"")
    with pytest.raises(SourceError, match="not a directory"):
        world.sync()
