"""The trash on the server: nothing is lost where somebody else removes it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skynet.sftp.replies import FAILURE, PERMISSION_DENIED
from tests.support.frames import Asked
from tests.support.sessions import Sitting, sitting
from tests.support.world import World

PLAIN = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})


def remove_trash(world: World) -> None:
    shutil.rmtree(world.remote / ".skynet/trash")


# Somebody removes it while a session lasts ------------------------------------------------------


def fill_trash(session: Sitting) -> None:
    """One cycle that deletes, and one that empties what it has made."""
    world = session.world
    world.put({"d": {"a": b"one", "b": b"b", "c": b"c"}, "stays": b"s"})
    session.cycle(audit=True)
    world.put({"d": {"c": None}})
    session.cycle(marks={b"d/c": False})
    assert world.trashed() == {"d/c": b"c"}
    remove_trash(world)


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN])
def test_a_version_that_is_replaced_is_kept_in_a_trash_that_was_removed(
    tmp_path: Path, without: frozenset[bytes]
) -> None:
    world = World(tmp_path, complete_sync=True, trash="all")
    world.without = without
    with sitting(world) as session:
        fill_trash(session)
        world.put({"d": {"a": b"two"}})
        session.cycle(marks={b"d/a": False})
    world.check()
    assert world.trashed() == {"d/a": b"one"}


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN])
def test_a_foreign_file_is_kept_in_a_trash_that_was_removed(
    tmp_path: Path, without: frozenset[bytes]
) -> None:
    world = World(tmp_path, complete_sync=True)
    world.without = without
    with sitting(world) as session:
        fill_trash(session)
        world.put_remote({"report": b"the only copy"})
        world.put({"report": b"ours"})
        session.cycle(audit=True)
    world.check()
    assert world.trashed() == {"report": b"the only copy"}


def test_a_file_is_deleted_into_a_trash_that_was_removed(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    with sitting(world) as session:
        fill_trash(session)
        world.put({"d": {"b": None}})
        session.cycle(marks={b"d/b": False})
    world.check()
    assert world.trashed() == {"d/b": b"b"}


@pytest.mark.parametrize("kind", ["replace", "delete"])
def test_the_trash_is_made_again_also_in_the_midst_of_a_cycle(tmp_path: Path, kind: str) -> None:
    world = World(tmp_path, complete_sync=True, trash="all")
    world.put({"d": {"a": b"one", "b": b"b"}, "stays": b"s"})
    world.sync()
    world.put({"d": {"a": b"two"} if kind == "replace" else {"b": None}})
    made: list[Asked] = []

    def remove_what_was_made(request: Asked) -> None:
        """Before what is to use the directories that were just made."""
        made.extend([request] if request.kind == "MKDIR" else [])
        if request.kind in ("hardlink@openssh.com", "RENAME") and len(made) == 3:
            remove_trash(world)
            made.append(request)

    world.on_request = remove_what_was_made
    assert world.sync().problems == []
    assert len(made) > 4
    world.check()
    assert world.trashed() == ({"d/a": b"one"} if kind == "replace" else {"d/b": b"b"})


@pytest.mark.parametrize("status", [PERMISSION_DENIED, FAILURE])
def test_nothing_is_replaced_where_no_trash_can_be_made(tmp_path: Path, status: int) -> None:
    world = World(tmp_path, trash="all")
    world.put({"a": b"one"})
    world.sync()
    world.put({"a": b"two"})
    world.fault = lambda _, request: status if request.kind == "MKDIR" else None
    (problem,) = world.sync().problems
    assert problem.path == b"a"
    assert world.files() == {"a": b"one"}
    assert world.temps() == []


def test_a_session_does_not_remember_the_trash_of_former_cycles(tmp_path: Path) -> None:
    world = World(tmp_path, trash="all")
    world.put({"d": {"a": b"0"}})
    known: set[int] = set()
    with sitting(world) as session:
        session.cycle(audit=True)
        for number in range(3):
            world.put({"d": {"a": b"%d" % number * 2}})
            session.cycle(marks={b"d/a": False})
            known.add(len(session.session.remote._places._trash_directories))  # type: ignore[attr-defined]
    assert known == {3}  # trash, this cycle's stamp, d
    assert len(world.trashed()) == 1
