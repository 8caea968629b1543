"""What a cycle costs, in requests: performance as a unit test.

Every list is what goes over the wire after the greeting, in order.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.world import World

LIMITS = ["limits"]  # the client asks once how long a request may be
IS_CURRENT = [
    "OPEN",  # the manifest
    "OPEN",  # and its log, in the same round trip
    *["READ", "CLOSE"],  # the manifest's last bytes
    *["READ", "CLOSE"],  # the log's, in the second round trip
]
# The file must not exist before; its text, and its time, by which it is known again.
TAKE_LEASE = ["OPEN", "WRITE", "FSTAT", "CLOSE"]
CHECK_AGAIN = IS_CURRENT  # with the lease held: has anybody written since we looked?
UPLOAD = [
    "OPEN",  # a temporary file
    *["WRITE", "FSETSTAT", "FSTAT", "CLOSE"],  # content, mode and time, its size: one round trip
    "posix-rename",  # into place
]
OPEN_LOG = ["OPEN"]  # it travels with the first operation
APPEND = ["WRITE"]  # one record at the end of the log, which stays open for the next
END_LEASE = ["CLOSE", "REMOVE"]  # of the log; the lease. One round trip
BEGIN = [*LIMITS, *IS_CURRENT, *TAKE_LEASE, *CHECK_AGAIN, *OPEN_LOG]
# Without an audit, a directory on the way, or a file whose attributes are set, is looked at first:
# it may have become a link that leads elsewhere.
BEGIN_WITH_A_LOOK = [*LIMITS, *IS_CURRENT, "LSTAT", *TAKE_LEASE, *CHECK_AGAIN, *OPEN_LOG]
END = [*APPEND, *END_LEASE]
LIST_DIRECTORY = ["OPENDIR", "READDIR", "READDIR", "CLOSE"]  # the second READDIR says: no more


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "b": b"22", "d": {"c": b"333", "e": b"4444"}, "z": b"55555"})
    assert made.sync().outcome == "changed"
    return made


def test_nothing_changed_without_audit(world: World) -> None:
    report = world.quiet(audit=False)
    assert world.requests() == [*LIMITS, *IS_CURRENT]
    assert report.counts["requests"] == 7


def test_nothing_changed_with_audit(world: World) -> None:
    report = world.quiet()
    # Two directories, the target and d; .skynet is not looked into.
    wanted = [*LIMITS, *IS_CURRENT, *LIST_DIRECTORY, *LIST_DIRECTORY]
    # The first listing goes beside the look. Nobody waits for the last CLOSE, so it may be lost.
    assert sorted([*world.requests(), "CLOSE"][: len(wanted)]) == sorted(wanted)
    assert report.counts["requests"] == 15


def test_one_file_changed(world: World) -> None:
    world.put({"a": b"another"})
    report = world.sync(audit=False)
    assert world.requests() == [*BEGIN, *UPLOAD, *END]
    # Lease: OPEN, WRITE, REMOVE. Upload: OPEN, WRITE, FSETSTAT, rename. Log: OPEN, WRITE.
    assert report.counts["mutations"] == 9
    world.check()


def test_one_empty_file_made(world: World) -> None:
    world.put({"empty": b""})
    world.sync(audit=False)
    # There is nothing to WRITE into the temporary file.
    assert world.requests() == [*BEGIN, *(r for r in UPLOAD if r != "WRITE"), *END]
    world.check()


def test_one_file_renamed(world: World) -> None:
    world.move("b", "bb")
    report = world.sync(audit=False)
    assert world.requests() == [*BEGIN, "RENAME", *END]
    assert report.counts["bytes"] == 0
    world.check()


def test_one_file_deleted_to_the_trash(world: World) -> None:
    world.put({"d/c": None})
    world.sync(audit=False)
    assert world.requests() == [
        *BEGIN_WITH_A_LOOK,
        *["MKDIR", "MKDIR", "MKDIR", "LSTAT"],  # trash, this cycle's stamp, d; is it there?
        *["RENAME", "LSTAT"],  # into it; and is the file gone from where it was?
        *END,
    ]
    world.check()


def test_one_file_deleted_at_once(world: World) -> None:
    world.put({"d/c": None})
    world.sync(audit=False, trash_days=0)
    assert world.requests() == [*BEGIN_WITH_A_LOOK, "REMOVE", *END]
    world.check()


def test_one_file_touched(world: World) -> None:
    world.put({"z": b"55555"})
    world.sync(audit=False)
    assert world.requests() == [*BEGIN_WITH_A_LOOK, "SETSTAT", *END]
    world.check()


def test_a_new_directory_costs_one_round_trip(world: World) -> None:
    world.put({"new": {"f": b"content"}})
    (world.local / "new").chmod(0o700)  # which no umask cuts
    world.sync(audit=False)
    # LSTAT: is it the directory's mode that MKDIR has set?
    assert world.requests() == [*BEGIN, "MKDIR", "LSTAT", *UPLOAD, *END]
    world.check()


def test_a_file_that_vanished_without_complete_sync_costs_the_record_only(world: World) -> None:
    world.put({"a": None})
    world.sync(audit=False, complete_sync=False)
    assert world.requests() == [*BEGIN, *END]


def test_lost_state_costs_one_manifest_download(world: World) -> None:
    world.lose_state()
    world.quiet(audit=False)
    examine = ["STAT", "LSTAT", "LSTAT"]  # the target, .skynet and .skynet/tmp
    assert world.requests()[:4] == [*LIMITS, *examine]
    a_file = ["OPEN", *["READ"] * 4, "FSTAT", "CLOSE"]
    assert world.requests()[4:] == [*a_file, *a_file]  # the checkpoint, its log
