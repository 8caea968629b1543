"""What of ours the server does not let us touch: what can be done is done, and the path is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skynet.errors import TargetError
from skynet.monitor import Notice
from tests.support.command import bound_by_modes
from tests.support.world import World

STRAY = ".skynet-tmp-broken"
OLD = "2020-01-01T000000Z-ab", "2020-01-02T000000Z-cd"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.prefix = bound_by_modes()
    world.put({"d": {"a": b"a"}})
    world.sync()
    return world


@contextmanager
def closed(directory: Path, mode: int) -> Iterator[None]:
    """Nothing can be changed in the directory; and it can be tidied up afterwards."""
    directory.chmod(mode)
    try:
        yield
    finally:
        directory.chmod(0o700)


def notices(world: World) -> list[Notice]:
    return [event for event in world.events if isinstance(event, Notice)]


def test_a_stray_in_a_closed_directory_goes_when_that_is_open(world: World) -> None:
    world.put_remote({"d": {STRAY: b"half"}})
    (world.remote / "d").chmod(0o500)
    world.put({"d": {"b": b"b"}})
    assert not world.sync().problems
    assert world.temps() == [f"d/{STRAY}"]
    world.put({"d": {"c": b"c"}})
    world.sync()
    world.check()


def test_temps_that_cannot_be_cleared_are_named(world: World) -> None:
    left = world.remote / ".skynet" / "tmp" / "0"
    left.mkdir(exist_ok=True)
    (left / "x").write_bytes(b"half")
    (world.remote / ".skynet" / "lease").write_bytes(b"unlocked\n")
    world.put({"b": b"b"})
    with closed(left, 0o500), pytest.raises(TargetError, match=r"clear .*/\.skynet/tmp: Perm"):
        world.sync()
    world.sync()
    world.check()


def test_old_trash_that_cannot_be_removed_is_told_and_keeps_no_other(world: World) -> None:
    trash = world.remote / ".skynet" / "trash"
    for stamp in OLD:
        (trash / stamp / "d").mkdir(parents=True)
        (trash / stamp / "d" / "a").write_bytes(b"old")
    world.age_trash(8)
    world.put({"b": b"b"})
    with closed(trash / OLD[0] / "d", 0o500):
        assert not world.sync().problems
        world.quiet()
    assert os.listdir(trash) == [OLD[0]]
    world.put({"c": b"c"})
    with closed(trash, 0):
        assert not world.sync().problems
    assert [notice.code for notice in notices(world)] == ["old-trash-stays"]
    assert f"empty {trash}: Permission denied" in notices(world)[0].message
    world.put({"c": b"more"})
    world.sync()
    assert os.listdir(trash) == []
    assert not notices(world)
