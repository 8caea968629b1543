"""What a cycle makes of damaged local state, and of what others have written as their origin."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from skynet.index_file import IndexDamaged
from skynet.manifest import MAX_ORIGIN, Manifest
from skynet.memory import INDEX_FILE
from skynet.monitor import Notice
from tests.support.world import World, frozen


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "d": {"b": b"22", "c": b"333"}})
    made.sync()
    return made


def index_file(world: World) -> Path:
    (found,) = world.state.rglob(INDEX_FILE)
    return found


def spoil(world: World, statement: str) -> None:
    db = sqlite3.connect(index_file(world))
    assert db.execute(statement).rowcount > 0
    db.commit()
    db.close()


def notices(world: World) -> list[str]:
    return [event.code for event in world.events if isinstance(event, Notice)]


DAMAGE = pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET entry = x'c1'",
        "UPDATE entries SET entry = x'c1' WHERE name = x'62'",
        "UPDATE entries SET entry = x'91a1ff' WHERE name = x'62'",
        "UPDATE meta SET value = x'c1' WHERE key = 'head'",
        "UPDATE meta SET value = x'ff' WHERE key = 'root'",
    ],
)


@DAMAGE
def test_a_damaged_index_heals_within_the_run(world: World, statement: str) -> None:
    spoil(world, statement)
    world.put({"d/b": b"changed", "new": b"new"})
    report = world.sync()
    assert report.outcome == "changed"
    assert report.done["upload"] == 2
    assert notices(world) == ["index-damaged"]
    world.check()
    world.quiet()
    world.quiet(audit=False)
    assert notices(world) == []


@DAMAGE
def test_a_dry_run_does_without_a_damaged_index_and_leaves_it(world: World, statement: str) -> None:
    spoil(world, statement)
    world.put({"d/b": b"changed", "new": b"new"})
    before = frozen(world.state)
    report = world.plan()
    assert report.outcome == "planned"
    assert report.plan.counts()["upload"] == 2
    assert notices(world) == ["index-damaged"]
    assert frozen(world.state) == before


def test_damage_that_shows_while_something_is_recorded_heals_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Manifest.append
    path = index_file(world)

    def damaged_by_now(manifest: Manifest, *arguments: object) -> object:
        monkeypatch.setattr(Manifest, "append", append)
        path.unlink()
        raise IndexDamaged("It is damaged.")

    monkeypatch.setattr(Manifest, "append", damaged_by_now)
    world.put({"new": b"new", "more": b"more"})
    assert world.sync().outcome == "changed"
    assert notices(world) == ["index-damaged", "lease-taken"]
    world.check()
    world.quiet()


def test_an_index_that_is_damaged_again_and_again_ends_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise IndexDamaged("It is damaged.")

    monkeypatch.setattr("skynet.index.Index.children", damaged)
    with pytest.raises(IndexDamaged):
        world.sync()
    assert notices(world) == ["index-damaged"]


# The origin.


@pytest.fixture
def deep(tmp_path: Path) -> World:
    """A world whose source, as it is shown, has a path of more than MAX_ORIGIN characters."""
    if sys.platform != "linux":
        pytest.skip("paths of this length, and of these bytes, are Linux's alone")
    world = World(tmp_path, complete_sync=True)
    while len(os.fsencode(world.local)) < MAX_ORIGIN // 4 + 100:
        world.local /= os.fsdecode(b"\xff" * 200)
    world.local.mkdir(parents=True)
    world.put({"a": b"1"})
    return world


def test_a_source_with_a_very_long_path_is_mirrored(deep: World) -> None:
    assert deep.sync().outcome == "changed"
    deep.check()
    deep.lose_state()
    deep.quiet()


def test_sources_with_very_long_paths_are_told_apart(deep: World) -> None:
    deep.sync()
    other = deep.twin()
    other.local = deep.local.with_name("other")
    other.local.mkdir()
    other.put({"b": b"2"})
    assert "other-mirror" in [hazard.code for hazard in other.sync().hazards]


def test_the_origin_of_another_mirror_is_shown_without_control_characters(world: World) -> None:
    other = world.twin()
    other.local = world.base / "oth\x1b[2Jer"
    other.local.mkdir()
    other.put({"b": b"2"})
    assert other.approve().outcome == "changed"
    world.put({"c": b"3"})
    (hazard, *_) = world.sync().hazards
    assert hazard.message.isprintable()
    assert "oth\\x1b[2Jer" in hazard.message
