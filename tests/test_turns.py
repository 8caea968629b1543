"""What a cycle costs, in turns: one is what goes to the server before it must be heard.

Every list is a turn, and what is in it travels together.
"""

from __future__ import annotations

import os
from itertools import zip_longest
from pathlib import Path

import pytest

from skynet.remote import SftpRemote
from skynet.remote.verbs import Facts
from skynet.sftp.replies import NO_SUCH_FILE
from tests.support.faults import FaultConnection, nth
from tests.support.pipes import client_over
from tests.support.sessions import sitting
from tests.support.turns import Turn, TurnConnection, Turns
from tests.support.world import World

IS_CURRENT: list[Turn] = [["OPEN", "OPEN"], ["READ", "CLOSE"] * 2]  # the manifest and its log
TAKE_LEASE: list[Turn] = [["OPEN"], ["WRITE", "FSTAT", "CLOSE"]]
UPLOAD: list[Turn] = [["OPEN"], ["WRITE", "FSETSTAT", "FSTAT", "CLOSE"], ["posix-rename"]]
OPEN_LOG: list[Turn] = [["OPEN"]]
APPEND: list[Turn] = [["WRITE"]]
END: list[Turn] = [["CLOSE", "REMOVE"]]  # the log, and the lease

PROBE: list[Turn] = [["FSETSTAT", "CLOSE", "LSTAT", "RENAME"], ["LSTAT", "REMOVE", "RMDIR"]]
MAKE: list[Turn] = [["MKDIR"] * 4 + ["OPEN"]]  # and the file that is looked at, in a directory
REPLACE: list[Turn] = [["OPEN"], ["WRITE", "CLOSE"], ["posix-rename"]]
LIST: list[Turn] = [["OPENDIR"], ["READDIR", "READDIR"], ["CLOSE"]]  # a directory, in an audit
NO_TRASH: list[Turn] = [["OPENDIR"]]
TRASH: list[Turn] = [["OPENDIR"], ["READDIR"], ["READDIR"], ["CLOSE"]]

REST = 60.0  # seconds after which it is looked whether the lease is still ours


def together(*parts: list[Turn]) -> list[Turn]:
    """What goes side by side, each from the first turn on."""
    return [
        [kind for turn in turns for kind in turn] for turns in zip_longest(*parts, fillvalue=())
    ]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "d": {"e": {"f": b"22"}}})
    assert made.sync().outcome == "changed"
    return made


@pytest.mark.parametrize("trash", [NO_TRASH, TRASH])
def test_an_audit_costs_two_turns_a_level_and_a_look_into_the_trash_none(
    world: World, trash: list[Turn]
) -> None:
    if trash is TRASH:
        world.put({"a": None})
        world.sync(audit=False)
    world.put({"new": b"new"})
    below = together(LIST[2:], LIST[:2])
    audit = [*together(IS_CURRENT, LIST[:2]), *below, *below]
    begin = together(LIST[2:], trash, [*TAKE_LEASE, *IS_CURRENT])
    world.sync_in(*audit, *begin, *together(OPEN_LOG, UPLOAD), *APPEND, *END)
    world.check()


def test_an_audit_that_finds_nothing_costs_two_turns_a_level(world: World) -> None:
    below = together(LIST[2:], LIST[:2])
    turns = Turns(*together(IS_CURRENT, LIST[:2]), *below, *below)
    world.turns = turns
    world.quiet()
    turns.check(besides=LIST[2:])  # nobody waits for it


def test_what_was_listed_before_a_manifest_was_read_is_listed_again(world: World) -> None:
    world.put({"new": b"by another"})
    world.twin().sync()
    world.quiet()
    listed = [request.text for request in world.asked if request.kind == "OPENDIR"]
    assert listed.count(os.fsencode(world.remote)) == 2


INTO_TRASH: list[Turn] = [["MKDIR", "MKDIR", "MKDIR", "LSTAT"], ["RENAME", "LSTAT"]]


def test_a_file_goes_to_the_trash_in_two_turns(world: World) -> None:
    world.put({"d": {"h": b"1"}})
    world.sync()
    world.put({"d": {"h": None}})
    begin = [*IS_CURRENT, *together([["LSTAT"]], TAKE_LEASE), *IS_CURRENT]
    world.sync_in(*begin, *together(OPEN_LOG, INTO_TRASH), *APPEND, *END, audit=False)
    world.check()


def test_a_trash_whose_directories_cannot_be_made_together_is_made_one_by_one(
    world: World,
) -> None:
    world.put({"d": {"h": b"1"}})
    world.sync()
    world.put({"d": {"h": None}})
    world.fault = nth("MKDIR", 1, NO_SUCH_FILE)  # as if that were not done in order
    assert not world.sync(audit=False).problems
    assert world.trashed() == {"d/h": b"1"}


def test_old_trash_goes_in_the_end(world: World) -> None:
    world.put({"a": None})
    world.sync()
    world.let_days_pass(8)
    world.put({"new": b"new"})
    world.sync()
    last = world.requests().index("RMDIR")
    assert world.requests()[last - 1 : last + 3] == ["REMOVE", "RMDIR", "CLOSE", "REMOVE"]
    assert world.trashed() == {}
    world.check()


def test_the_first_manifest_is_written_while_files_are_sent(tmp_path: Path) -> None:
    """Also where these had to wait for the directory that they are in."""
    world = World(tmp_path)
    world.put({"d": {"e": {"f": b"1"}}})
    (world.local / "d").chmod(0o700)  # which no umask cuts
    (world.local / "d/e").chmod(0o700)
    examine: list[Turn] = [["STAT", "LSTAT", "LSTAT"], ["OPEN"]]  # there is no manifest
    begin = [*examine, *LIST[:2], *together(LIST[2:], NO_TRASH, [*MAKE, *PROBE])]
    directories: list[Turn] = [["MKDIR", "LSTAT"], ["MKDIR", "LSTAT"]]
    manifest: list[Turn] = [["OPEN"], *REPLACE, *REPLACE]
    tail = [*OPEN_LOG, *APPEND, *END]
    world.sync_in(
        *(*begin, *TAKE_LEASE, ["OPEN"], *directories, *together(UPLOAD, manifest), *tail)
    )
    world.check()


def test_a_look_at_the_way_travels_with_the_lease(world: World) -> None:
    world.put({"d": {"e": {"f": b"another", "g": b"new"}}})
    look: list[Turn] = [["LSTAT", "LSTAT"]]  # d and d/e
    begin = [*IS_CURRENT, *together(look, TAKE_LEASE), *IS_CURRENT]
    uploads = together(OPEN_LOG, UPLOAD, UPLOAD)
    world.sync_in(*begin, *uploads, *APPEND, *END, audit=False)
    world.check()


def test_the_log_is_opened_while_the_first_operation_is_under_way(world: World) -> None:
    world.move("a", "b")
    begin = [*IS_CURRENT, *TAKE_LEASE, *IS_CURRENT]
    world.sync_in(*begin, ["OPEN", "RENAME"], *APPEND, *END, audit=False)
    world.check()


def test_a_log_that_was_opened_for_nothing_is_closed_with_the_lease(world: World) -> None:
    (world.remote / "new").mkdir()
    (world.remote / "new/theirs").touch()
    world.put({"new": b"in the way"})
    world.sync(audit=False)
    assert world.requests()[-2:] == ["CLOSE", "REMOVE"]
    assert world.requests().count("WRITE") == 2, "the lease, and the upload that was refused"


def test_a_look_at_the_way_travels_with_the_one_at_a_lease_that_was_kept(world: World) -> None:
    turns = world.turns = Turns()
    with sitting(world) as session:
        world.put({"a": b"the lease is taken"})
        session.cycle()
        world.monotonic += REST
        world.put({"d": {"e": {"f": b"another"}}})
        turns.expect(["LSTAT"] * 3, *UPLOAD, *APPEND)
        session.cycle(marks={b"d/e/f": False})
        turns.check()
    world.check()


AT_LENGTH: list[Turn] = [["MKDIR"], ["MKDIR"], ["STAT", "MKDIR"], ["STAT", "MKDIR"]]  # two levels
AGAIN: list[Turn] = [["MKDIR"], ["STAT", "MKDIR"]]


@pytest.mark.parametrize(
    ("target", "turns"),
    [
        (".", [*MAKE, *PROBE]),
        ("new", [*MAKE, *PROBE]),
        ("new/below", [*MAKE, *AT_LENGTH, *AGAIN * 3, ["OPEN"], *PROBE]),
    ],
)
def test_a_target_is_made_and_found_out_about_in_three_turns(
    tmp_path: Path, target: str, turns: list[Turn]
) -> None:
    expected = Turns(*turns)
    with client_over(TurnConnection(expected)) as client:
        remote = SftpRemote(client, os.fsencode(tmp_path / target), "nonce")
        facts = remote.prepare()
        expected.check()
        assert facts == Facts()
        assert remote.examine().is_prepared
        assert not list((tmp_path / target / ".skynet/tmp").iterdir())


def test_a_target_whose_names_ignore_case_is_known_by_our_own(tmp_path: Path) -> None:
    (tmp_path / ".SKYNET").mkdir()  # what a server that ignores case would show
    with client_over(FaultConnection()) as client:
        assert SftpRemote(client, os.fsencode(tmp_path), "nonce").prepare().folds_case
