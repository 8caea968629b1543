"""What a broken run did, and what changed here meanwhile: neither is taken for the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet.errors import SkynetError
from skynet.ops import Record
from tests.support.faults import POSIX_RENAME, Act, Fault, at, every, no_fault, nth
from tests.support.world import EPOCH, World

LOGS = 3
PERMISSION_DENIED = 3


def logs(base: Path, *, alike: bool) -> World:
    """alike: of one size and one second."""
    base.mkdir()
    world = World(base, complete_sync=True)
    for number in range(LOGS):
        length = 100 if alike else 100 + number
        world.put({f"log.{number}": b"%d" % number * length}, at=number if alike else None)
    world.sync()
    renumber(world, 0)
    return world


def renumber(world: World, first: int) -> None:
    """As logrotate does."""
    for number in reversed(range(first, first + LOGS)):
        world.move(f"log.{number}", f"log.{number + 1}")


def cut(world: World, number: int) -> bool:
    """One cycle whose link breaks behind this request; whether it came so far."""
    world.fault = at(number, Act.CUT_AFTER)
    try:
        world.sync(audit=False)
    except SkynetError:
        return True
    finally:
        world.fault = no_fault
    return False


def is_right(world: World) -> None:
    world.check()
    world.quiet(audit=True)


@pytest.mark.parametrize("alike", [False, True])
def test_what_a_broken_renumbering_left_is_renumbered_right(tmp_path: Path, alike: bool) -> None:
    number = 0
    while cut(world := logs(tmp_path / str(number), alike=alike), number):
        renumber(world, 1)
        world.sync(audit=False)
        is_right(world)
        renumber(world, 2)
        world.sync(audit=False)
        is_right(world)
        number += 1
    assert number > LOGS


@pytest.mark.parametrize("alike", [False, True])
def test_a_renumbering_that_breaks_twice(tmp_path: Path, alike: bool) -> None:
    world = logs(tmp_path / "whole", alike=alike)
    world.sync(audit=False)
    half = [n for n, request in enumerate(world.asked) if "rename" in request.kind.lower()][1]
    number = 0
    while True:
        world = logs(tmp_path / str(number), alike=alike)
        assert cut(world, half)
        renumber(world, 1)
        if not cut(world, number):
            break
        world.sync(audit=False)
        is_right(world)
        number += 1
    assert number > LOGS


def test_a_saved_plan_says_first_what_is_there(tmp_path: Path) -> None:
    world = logs(tmp_path / "world", alike=False)
    world.sync(audit=False)
    (world.remote / "log.1").chmod(0o600)
    world.move("log.1", "moved")
    saved = world.plan(bind=True).saved
    assert saved is not None
    (first,) = (op for op in saved.plan.ops if isinstance(op, Record))
    assert first.entry is not None
    assert (first.path, first.entry.mode, first.first) == (b"log.1", 0o600, True)
    assert world.sync(saved=saved).done["bytes"] == 0
    is_right(world)


def test_what_a_broken_run_made_is_told_before_what_becomes_of_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"new": {"file": b"2"}})
    world.fault = every(POSIX_RENAME, Act.CUT_AFTER)
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    world.put({"new": None})
    assert world.sync().outcome == "changed"
    world.quiet()


def test_what_a_broken_run_made_is_not_taken_for_what_is_here_by_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"new": b"2"})
    world.fault = every(POSIX_RENAME, Act.CUT_AFTER)
    with pytest.raises(SkynetError):
        world.sync()
    world.put({"new": b"another"})
    world.fault = every(POSIX_RENAME, PERMISSION_DENIED)
    assert world.sync().outcome == "problems"
    world.fault = no_fault
    world.sync()
    is_right(world)


def test_what_is_saved_again_within_the_second_is_sent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"status": b"first", "same": b"same"}, at=EPOCH + 1)
    world.fault = nth("WRITE", 3, Act.CUT_BEFORE)  # of the manifest, after the lease and two files
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    assert world.files() == {"kept": b"1", "status": b"first", "same": b"same"}
    world.put({"status": b"again"}, at=EPOCH + 2)
    assert world.sync().counts["bytes"] == len(b"again")
    is_right(world)


@pytest.mark.parametrize(
    "fault",
    [
        nth(POSIX_RENAME, 0, Act.CUT_AFTER),
        nth(POSIX_RENAME, 1, Act.CUT_AFTER),
        nth("WRITE", 3, Act.CUT_BEFORE),  # as below: both are there, and neither is recorded
    ],
    ids=["one", "another", "both"],
)
def test_what_looks_alike_and_has_changed_places_after_a_break_is_sent(
    tmp_path: Path, fault: Fault
) -> None:
    world = World(tmp_path)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"frame 1": b"one", "frame 2": b"two"}, at=EPOCH)
    world.fault = fault
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    world.move("frame 1", "aside")
    world.move("frame 2", "frame 1")
    world.move("aside", "frame 2")
    world.sync()
    is_right(world)


FILES = {"a": b"1" * 1000, "b": b"2" * 2000, "c": b"3" * 3000}
NEW_VERSIONS = {"a": b"4" * 1001, "b": b"5" * 2001, "c": b"6" * 3001}


def new_files(base: Path) -> World:
    base.mkdir()
    world = World(base)
    world.put(FILES)
    return world


def new_versions(base: Path) -> World:
    world = new_files(base)
    world.sync()
    world.put(NEW_VERSIONS)
    return world


def touched(base: Path) -> World:
    world = new_files(base)
    world.sync()
    for name in FILES:
        os.utime(world.local / name, ns=(EPOCH + 5, EPOCH + 5))
    return world


def closed_to_others(base: Path) -> World:
    world = new_files(base)
    world.sync()
    close_to_others(world)
    return world


def close_to_others(world: World) -> None:
    for name in FILES:
        (world.local / name).chmod(0o600)


@pytest.mark.parametrize("then", [lambda _: None, close_to_others], ids=["nothing", "chmod"])
@pytest.mark.parametrize("make", [new_files, new_versions, touched, closed_to_others])
def test_nothing_is_sent_twice_that_a_broken_run_has_published(
    tmp_path: Path, make: Callable[[Path], World], then: Callable[[World], object]
) -> None:
    number = 0
    while cut(world := make(tmp_path / str(number)), number):
        wanted = {name: (world.local / name).read_bytes() for name in FILES}
        missing = wanted.items() - world.files().items()
        then(world)
        report = world.sync()
        assert report.counts["bytes"] == sum(len(content) for _, content in missing), number
        is_right(world)
        number += 1
    assert number > LOGS


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("audit", [False, True])
def test_what_is_ours_stays_so_where_its_new_version_cannot_be_sent(
    tmp_path: Path, moves: bool, audit: bool
) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"d": {"kept": b"1"}})
    world.sync()
    world.put({"d": {"status": b"first"}}, at=EPOCH + 1)
    world.fault = every(POSIX_RENAME, Act.CUT_AFTER)
    with pytest.raises(SkynetError):
        world.sync()
    world.put({"d": {"status": b"again"}}, at=EPOCH + 2)
    if moves:
        world.move("d", "e")
    world.fault = every(POSIX_RENAME, PERMISSION_DENIED)
    assert world.sync().outcome == "problems"
    world.fault = no_fault
    assert world.sync(audit=audit).outcome == "changed"
    is_right(world)


@pytest.mark.parametrize("size", [100, 40 << 20])
def test_nothing_temporary_stays_where_nothing_is_to_be_done(tmp_path: Path, size: int) -> None:
    world = World(tmp_path)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"new": b"2" * size})
    world.fault = every(POSIX_RENAME, Act.CUT_BEFORE)
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    assert world.temps()
    world.put({"new": None})
    assert world.plan().counts["mutations"] == 0
    assert world.sync().outcome == "in-sync"
    is_right(world)
