"""A mirror of one large file whose upload breaks off, and what is left of it then."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skynet.cycle import Report
from skynet.errors import LinkLost
from skynet.intents import Intents
from skynet.memory import INTENTS
from skynet.remote import Intent, send
from skynet.sftp import resume
from skynet.sftp.upload import LANES
from skynet.state import directory_for
from tests.support.faults import Act, no_fault
from tests.support.frames import Asked, written
from tests.support.world import World

PIECE = 4096
SIZE = 100 * PIECE + 77
CONTENT = random.Random(1).randbytes(SIZE)
SAMPLE = 512
IN_FLIGHT = LANES * PIECE
SMALL_CHANGE = 4 * PIECE  # bytes: far more than manifest, log and lease of these mirrors
PATH = b"video"


@contextlib.contextmanager
def small_files_are_large() -> Iterator[None]:
    """Let a file of a few pieces be one that is gone on with, and be looked at in small steps."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RESUME_FROM", "WIDE_FROM"):
            patch.setattr(send, name, 10 * PIECE)
        for name, value in (("STEP", 4 * PIECE), ("STRIDE", PIECE), ("RECENT", 20 * PIECE)):
            patch.setattr(resume, name, value)
        patch.setattr(resume, "SAMPLE", SAMPLE)
        yield


def make_world(base: Path) -> World:
    world = World(base)
    world.max_write = PIECE
    world.put({os.fsdecode(PATH): CONTENT})
    return world


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_files_are_large():
        yield


@pytest.fixture(name="world")
def world_of_a_video(tmp_path: Path) -> World:
    return make_world(tmp_path)


def is_content(request: Asked) -> bool:
    return request.kind == "WRITE" and len(written(request)[1]) == PIECE


def sent(world: World) -> int:
    """Bytes that the last cycle wrote, of whatever kind."""
    return sum(len(written(request)[1]) for request in world.asked if request.kind == "WRITE")


def cut(world: World, after: int, act: Act = Act.CUT_BEFORE, **options: bool) -> int:
    """Run a cycle whose link is cut at a content write; how many bytes it had written."""
    seen = 0

    def fault(number: int, request: Asked) -> Act | None:
        nonlocal seen
        seen += is_content(request)
        return act if is_content(request) and seen > after else None

    world.fault = fault
    with pytest.raises(LinkLost):
        world.sync(**options)
    world.fault = no_fault
    return sent(world)


def intents_of(world: World) -> Intents:
    mirror = world.mirror()
    state = directory_for(mirror.state_dir, mirror.source, str(mirror.target))
    return Intents(state / INTENTS, world.events.append)


def intents(world: World) -> dict[bytes, Intent]:
    intents = intents_of(world)
    try:
        return dict(intents.noted())
    finally:
        intents.close()


def temp_of(world: World) -> Path:
    (intent,) = intents(world).values()
    return world.remote / ".skynet" / os.fsdecode(intent.temp)


def finish(world: World, **options: bool) -> Report:
    """Run a cycle to its end; all is right then, and nothing is left of what broke off."""
    report = world.sync(**options)
    assert report.outcome == "changed", (report.problems, report.hazards)
    world.check()
    assert intents(world) == {}
    made = report.counts.copy()
    world.quiet()
    assert made["bytes"] + made["resumed"] == sum(
        len(content) for content in world.files().values()
    )
    return report


def rewrite(world: World, change: Callable[[Intent], Intent]) -> None:
    intents = intents_of(world)
    intents.note({path: change(intent) for path, intent in intents.noted().items()})
    intents.close()
