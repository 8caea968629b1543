"""The audit: it finds what was done to the remote behind skynet's back, and repairs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from tests.support.command import bound_by_modes
from tests.support.faults import no_fault
from tests.support.world import Link, World

PERMISSION_DENIED = 3

TREE = {
    "a": b"alpha",
    "d": {"b": b"beta", "deep": {"er": {"c": b"gamma" * 1000}}},
    "empty": b"",
    "link": Link("d/b"),
}


@pytest.fixture
def synced(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.put(TREE)
    world.sync()
    world.check()
    return world


def remove(world: World) -> None:
    world.put_remote({"d/b": None})


def truncate(world: World) -> None:
    os.truncate(world.remote / "d/b", 2)


def replace_same_size(world: World) -> None:
    world.put_remote({"d/b": b"BETA"})


def change_mode(world: World) -> None:
    (world.remote / "d/b").chmod(0o640 ^ 0o111)


def change_directory_mode(world: World) -> None:
    (world.remote / "d/deep").chmod(0o700)


def put_directory(world: World) -> None:
    world.put_remote({"d/b": {}})


def put_link(world: World) -> None:
    world.put_remote({"d/b": Link("/etc/passwd")})


def remove_directory(world: World) -> None:
    world.put_remote({"d": None})


def replace_directory_by_file(world: World) -> None:
    world.put_remote({"d/deep": b"a file"})


def replace_directory_by_link(world: World) -> None:
    world.put_remote({"d/deep": Link("..")})


def retarget_link(world: World) -> None:
    world.put_remote({"link": Link("elsewhere")})


def replace_link_by_file(world: World) -> None:
    world.put_remote({"link": b"file"})


def remove_everything(world: World) -> None:
    world.put_remote(dict.fromkeys(TREE))


DAMAGES = [
    remove,
    truncate,
    replace_same_size,
    change_mode,
    change_directory_mode,
    put_directory,
    put_link,
    remove_directory,
    replace_directory_by_file,
    replace_directory_by_link,
    retarget_link,
    replace_link_by_file,
    remove_everything,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("complete_sync", [True, False])
def test_the_audit_repairs(
    synced: World, damage: Callable[[World], None], complete_sync: bool
) -> None:
    damage(synced)
    report = synced.sync(complete_sync=complete_sync)
    assert report.outcome == "changed", (report.problems, report.hazards)
    synced.check()
    synced.quiet(complete_sync=complete_sync)
    synced.quiet(complete_sync=complete_sync, audit=False)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize("another", [True, False])
def test_the_audit_repairs_in_a_directory_that_moves(
    tmp_path: Path, damage: Callable[[World], None], refused: bool, another: bool
) -> None:
    world = World(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    world.put(TREE | {"other": {"b": b"other", "z": b"z"}})
    world.sync()
    damage(world)
    world.move("d", "e")
    if another:
        world.move("other", "d")
    if refused:
        world.fault = lambda number, request: (
            PERMISSION_DENIED if request.kind == "RENAME" and b"remote/d" in request.text else None
        )
    world.sync()
    world.fault = no_fault
    world.sync(audit=False)
    world.check()
    world.quiet(audit=True)
    world.quiet(audit=False)


def test_what_the_audit_finds_replaced_is_kept_in_the_trash(synced: World) -> None:
    synced.put_remote({"d/b": b"by somebody else"})
    synced.sync(trash="all")
    assert synced.trashed() == {"d/b": b"by somebody else"}
    synced.check()


def test_without_an_audit_drift_is_not_seen(synced: World) -> None:
    synced.put_remote({"d/b": None})
    assert synced.sync(audit=False).outcome == "in-sync"
    assert synced.sync().outcome == "changed"
    synced.check()


@pytest.mark.parametrize("complete_sync", [True, False])
def test_what_may_not_be_entered_is_made_so_and_nothing_of_it_sent(
    tmp_path: Path, complete_sync: bool
) -> None:
    """Without its x a directory is listed as if it were empty."""
    world = World(tmp_path, complete_sync=complete_sync)
    world.prefix = bound_by_modes()
    world.put(TREE)
    world.sync()
    (world.remote / "d").chmod(0o644)
    report = world.sync()
    assert [(p.path, p.code) for p in report.problems] == [(b"d", "unlistable")]
    assert (report.done["setmeta"], report.done["upload"], report.counts["bytes"]) == (1, 0, 0)
    world.check()
    world.quiet()
