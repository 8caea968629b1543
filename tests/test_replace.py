"""Putting a new version in the place of an old one: atomically, in steps, or keeping the old."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet.errors import RequestError, SkynetError
from skynet.sftp.replies import PERMISSION_DENIED
from tests.support.faults import Act, FaultConnection, no_fault, nth
from tests.support.frames import Asked
from tests.support.pipes import client_over
from tests.support.sources import raised
from tests.support.uploads import HEALED, NEW, OLD, ONE_WRITE, World, attempt


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# Servers that cannot replace --------------------------------------------------------------------

PLAIN = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})
IN_STEPS = [*ONE_WRITE[:5], "RENAME", "RENAME", "RENAME", "REMOVE"]


def versions(world: World) -> dict[str, bytes]:
    """What is at the path and in the temporary names that matter to its recovery."""
    places = [world.path, *world.temps.iterdir()]
    return {p.name.partition("-")[0]: p.read_bytes() for p in places if p.exists()}


def test_without_posix_rename_the_old_version_steps_aside(world: World) -> None:
    connection = FaultConnection(without=PLAIN)
    assert attempt(world, connection, no_fault) is None
    assert connection.seen == IN_STEPS
    assert versions(world) == {"picture": NEW}


def test_without_posix_rename_a_new_name_is_one_rename(world: World) -> None:
    world.path.unlink()
    connection = FaultConnection(without=PLAIN)
    assert attempt(world, connection, no_fault) is None
    assert connection.seen == IN_STEPS[:6]
    assert versions(world) == {"picture": NEW}


@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER])
@pytest.mark.parametrize("number", range(len(IN_STEPS)))
def test_a_cut_at_any_step_loses_neither_version(world: World, number: int, act: Act) -> None:
    kind = IN_STEPS[number]
    fault = nth(kind, IN_STEPS[:number].count(kind), act)
    error = attempt(world, FaultConnection(without=PLAIN), fault)
    assert isinstance(error, SkynetError)
    left = versions(world)
    if "picture" not in left:
        # Between two renames: the old version is aside, the new one is whole.
        assert left == {"old": OLD, "new": NEW}
        assert kind == "RENAME"
    assert left.get("picture", OLD) in (OLD, NEW)
    assert OLD in left.values() or NEW in left.values()


@pytest.mark.parametrize("number", range(len(IN_STEPS)))
def test_a_refusal_at_any_step_leaves_a_version_at_the_path(world: World, number: int) -> None:
    kind = IN_STEPS[number]
    fault = nth(kind, IN_STEPS[:number].count(kind), PERMISSION_DENIED)
    error = attempt(world, FaultConnection(without=PLAIN), fault)
    left = versions(world)
    if kind == "REMOVE":
        assert left == {"picture": NEW, "old": OLD}  # cleared together with tmp/
        assert error is None
    elif kind in HEALED or number == IN_STEPS.index("RENAME"):
        assert error is None
        assert left == {"picture": NEW}
    else:
        assert isinstance(error, RequestError)
        assert left == {"picture": OLD}


def test_no_step_lets_the_path_be_absent_for_longer_than_two_renames(world: World) -> None:
    absent: list[str] = []

    def look(number: int, request: Asked) -> None:
        if not world.path.exists():
            absent.append(request.kind)

    assert attempt(world, FaultConnection(without=PLAIN), look) is None
    # What has been seen at a request is what the one before it left.
    assert absent in ([], ["RENAME"])


def test_with_posix_rename_the_path_is_never_absent(world: World) -> None:
    absent: list[str] = []

    def look(number: int, request: Asked) -> None:
        if world.path.read_bytes() not in (OLD, NEW):
            absent.append(request.kind)

    assert attempt(world, FaultConnection(), look) is None
    assert absent == []


# Keeping the old version ------------------------------------------------------------------------


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN])
def test_the_old_version_can_be_kept(world: World, without: frozenset[bytes]) -> None:
    with client_over(FaultConnection(without=without)) as client:
        world.sending.send(client, NEW, keep_old=True)
    assert versions(world) == {"picture": NEW, "old": OLD}


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN])
def test_keeping_an_old_version_that_is_not_there_is_fine(
    world: World, without: frozenset[bytes]
) -> None:
    world.path.unlink()
    with client_over(FaultConnection(without=without)) as client:
        world.sending.send(client, NEW, keep_old=True)
    assert versions(world) == {"picture": NEW}


def test_what_cannot_be_kept_is_not_replaced(world: World) -> None:
    connection = FaultConnection(nth("RENAME", 0, PERMISSION_DENIED), without=PLAIN)
    with client_over(connection) as client:
        error = raised(lambda: world.sending.send(client, NEW, keep_old=True))
    assert isinstance(error, RequestError)
    assert versions(world) == {"picture": OLD}


def test_a_file_system_without_hard_links_keeps_the_old_version_in_steps(world: World) -> None:
    connection = FaultConnection(nth("hardlink@openssh.com", 0, PERMISSION_DENIED))
    with client_over(connection) as client:
        world.sending.send(client, NEW, keep_old=True)
    assert versions(world) == {"picture": NEW, "old": OLD}
