"""The trash on the server: nothing is lost where somebody else removes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from skynet.index import LARGE
from skynet.ops import Delete
from skynet.remote import Trash
from skynet.sftp.replies import FAILURE, PERMISSION_DENIED
from skynet.tree import FILE
from tests.support.faults import FaultConnection
from tests.support.frames import Asked
from tests.support.patching import OLD, PATH, target
from tests.support.sessions import Arriving, Marks, Sitting, sitting
from tests.support.targets import TIME, Held, do, entry_of
from tests.support.world import World

PLAIN = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})


LOCK = b"lock"
ANY_DELETES = MaxDelete(1.0, 1_000_000)


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


# One path, more than once in a cycle ------------------------------------------------------------


class Busy(Arriving):
    """A path that changes again as soon as what was done about it is recorded.

    contents: what it holds one after the other, None where it is deleted.
    """

    def __init__(self, world: World, contents: list[bytes | None]) -> None:
        super().__init__()
        self._world = world
        self._contents = contents

    def take(self, is_busy: Callable[[bytes], bool]) -> Marks:
        if self._contents and not is_busy(LOCK):
            self._world.put({LOCK: self._contents.pop(0)})
            self.mark({LOCK: False})
        return super().take(is_busy)


def change_again_and_again(world: World, *contents: bytes | None) -> None:
    """One cycle, in which the path that is to hold the first of these gets the others too."""

    def pass_time(_: object) -> None:
        world.monotonic += 5  # so that all is recorded at once, and then looked at again

    world.put({LOCK: b"old" * 1000, "stays": b"s"})
    with sitting(world) as session:
        session.cycle(audit=True)
        world.put({LOCK: contents[0]})
        world.on_request = pass_time
        arriving = Busy(world, list(contents[1:]))
        report = session.cycle(marks={LOCK: False}, arrivals=arriving)
        assert (report.problems, arriving.pending, arriving.put_backs) == ([], {}, 0)
        assert [op.path for op in report.plan.ops] == [LOCK] * len(contents)
        session.quiet(audit=True)
    world.check()


def all_trashed(world: World) -> list[bytes]:
    """What the trash holds under any stamp, in order."""
    trash = world.remote / ".skynet/trash"
    return sorted(path.read_bytes() for path in trash.rglob("*") if path.is_file())


def test_a_path_may_be_deleted_twice_in_a_cycle(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True, max_delete=ANY_DELETES)
    change_again_and_again(world, None, b"made again", None)
    assert all_trashed(world) == [b"made again", b"old" * 1000]


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN])
def test_a_path_may_be_replaced_twice_in_a_cycle(tmp_path: Path, without: frozenset[bytes]) -> None:
    world = World(tmp_path, trash="all")
    world.without = without
    change_again_and_again(world, b"first", b"second one", b"third")
    assert all_trashed(world) == [b"first", b"old" * 1000, b"second one"]


def test_each_version_is_noted_where_it_is(tmp_path: Path) -> None:
    versions = [os.urandom(LARGE + number) for number in range(3)]
    world = World(tmp_path, complete_sync=True, max_delete=ANY_DELETES)
    change_again_and_again(world, versions[0], None, versions[1], None, versions[2], None)
    assert len(all_trashed(world)) == 3
    world.put({"again": {str(number): version for number, version in enumerate(versions)}})
    report = world.sync()
    assert (report.done["copy"], report.counts["bytes"]) == (3, 0)


def test_what_is_under_way_stays_with_its_stamp(tmp_path: Path) -> None:
    """A plan joins while the directories in the trash are being made."""
    with target(tmp_path / "t", FaultConnection()) as there:
        there.put(PATH, OLD)
        there.remote.trash = Trash(b"first")

        def join(_: int, request: Asked) -> None:
            if request.kind == "MKDIR":
                there.remote.trash = Trash(b"second")

        there.connection.arm(join)
        assert do(there.remote, Delete(PATH, entry_of(OLD))).trashed == b"first"
        assert there.holds(b".skynet/trash/first/video") == Held(FILE, OLD, 0o640, TIME)
