"""Saved plans of a world whose local tree has changed in every way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skynet import planfile
from skynet.errors import ExitCode, StalePlan
from skynet.saved import SavedPlan
from tests.support.world import Link, World, frozen


def changed_world(base: Path) -> World:
    """A mirror in sync, then changed in every way."""
    made = World(base, complete_sync=True)
    made.put(
        {
            "same": b"0", "edit": b"1", "gone": b"22", "old name": b"333", "touched": b"4444",
            "d": {"a": b"a", "b": b"bb"}, "e": {"x": b"x"}, "bystander": b"6", "link": Link("same"),
        }
    )  # fmt: skip
    made.sync()
    made.put({"edit": b"one", "gone": None, "new": {"file": b"7777777"}, "link": Link("edit")})
    made.put({"e": {"x": None}})
    (made.local / "e").rmdir()
    made.move("old name", "new name")
    (made.local / "touched").chmod(0o600)
    return made


def save(world: World, **options: Any) -> SavedPlan:
    """The plan as it comes out of a file."""
    report = world.plan(bind=True, **options)
    assert report.saved is not None
    file = world.base / "plan"
    planfile.write(file, report.saved)
    return planfile.read(file)


def refused(world: World, saved: SavedPlan, **options: Any) -> str:
    """Why a saved plan is stale; nothing was asked of the remote that could change it."""
    before = frozen(world.remote)
    with pytest.raises(StalePlan) as caught:
        world.sync(saved=saved, **options)
    assert caught.value.exit_code == ExitCode.HELD
    assert frozen(world.remote) == before
    assert {"RENAME", "REMOVE", "WRITE", "MKDIR"}.isdisjoint(world.requests())
    return str(caught.value)
