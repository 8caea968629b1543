"""What the cycle reads of local files: no more than needed, never a torn version, never stale."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet import scan
from skynet.config import MaxDelete
from skynet.tree import Entry
from tests.support.world import SECOND, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_delete=MaxDelete(1.0, 1000))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each local file was opened to be read."""
    counts: Counter[bytes] = Counter()
    plain = scan.Root.open

    def counted(
        root: scan.Root, path: bytes, entry: Entry, check: Callable[[], None] = lambda: None
    ) -> scan.LocalFile:
        counts[path] += 1
        return plain(root, path, entry, check)

    monkeypatch.setattr(scan.Root, "open", counted)
    return counts


def test_new_files_are_read_once(world: World, reads: Counter[bytes]) -> None:
    world.put({"a": b"1", "b": b"22", "c": b"22"})
    world.sync(complete_sync=True)
    assert reads == {b"a": 1, b"b": 1, b"c": 1}


def test_a_file_whose_size_changed_is_read_once(world: World, reads: Counter[bytes]) -> None:
    world.put({"a": b"1", "b": b"22"})
    world.sync()
    reads.clear()
    world.put({"a": b"longer"})
    world.sync()
    assert reads == {b"a": 1}


def test_unchanged_files_are_not_read(world: World, reads: Counter[bytes]) -> None:
    world.put({"a": b"1", "b": b"22"})
    world.sync()
    reads.clear()
    world.quiet()
    world.quiet(audit=False)
    world.lose_state()
    world.quiet()
    assert reads == {}


def test_only_files_of_a_vanished_size_are_hashed_first(
    world: World, reads: Counter[bytes]
) -> None:
    world.put({"old": b"12345"})
    world.sync()
    reads.clear()
    world.put({"old": None, "moved": b"12345", "new": b"another size"})
    world.sync(complete_sync=True)
    assert reads == {b"moved": 1, b"new": 1}
    world.check()


def test_a_touched_file_is_hashed_and_not_sent(world: World, reads: Counter[bytes]) -> None:
    world.put({"a": b"12345"})
    world.sync()
    reads.clear()
    world.put({"a": b"12345"})
    report = world.sync(audit=False)
    assert report.done == {"setmeta": 1}
    assert reads == {b"a": 1}
    world.quiet(audit=False)
    assert reads == {b"a": 1}


def test_an_edit_that_leaves_size_and_time_as_they_were_is_found(
    world: World, reads: Counter[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Racily clean: the file system's clock did not tick between the cycle and the edit."""
    plain = scan.identity
    tick = time.time_ns().to_bytes(8, "little")

    def coarse(status: os.stat_result) -> bytes:
        """As on a disk with coarse times: the change time, which comes second, does not tick."""
        known = plain(status)
        return known[:8] + tick + known[16:]

    monkeypatch.setattr("skynet.scan.identity", coarse)
    world.ahead_ns = 0
    world.put({"a": b"one", "b": b"x"}, at=SECOND)
    world.sync()
    world.put({"a": b"two"}, at=SECOND)
    assert world.sync(audit=False).done["upload"] == 1
    world.check()


def test_a_young_file_is_hashed_again_until_it_is_old(world: World, reads: Counter[bytes]) -> None:
    world.ahead_ns = 0
    world.put({"a": b"1"})
    world.sync()
    assert reads == {b"a": 1}
    world.quiet(audit=False)
    assert reads == {b"a": 2}, "it was written moments ago"
    world.ahead_ns = 10 * SECOND
    world.quiet(audit=False)
    world.quiet(audit=False)
    assert reads == {b"a": 3}, "once more, and from then on it is known"


def test_a_file_dated_into_the_future_is_known_when_it_is_old(
    world: World, reads: Counter[bytes]
) -> None:
    world.put({"a": b"1"}, at=time.time_ns() + 3600 * SECOND)
    world.sync()
    reads.clear()
    world.quiet(audit=False)
    assert reads == {}


def test_an_edit_with_the_times_set_back_is_found(world: World) -> None:
    world.put({"a": b"one"}, at=SECOND)
    world.sync()
    world.put({"a": b"two"}, at=SECOND)
    world.sync(audit=False)
    world.check()


# Files that change while they are sent.


def test_a_file_that_changes_while_it_is_sent_is_not_published(world: World) -> None:
    world.put({"f": b"old", "g": b"1"})
    world.sync()
    world.put({"f": b"new version"})
    world.at_open(b"tmp/", lambda: world.put({"f": b"even newer"}))
    report = world.sync()
    assert report.outcome == "problems"
    assert [(p.path, p.code) for p in report.problems] == [(b"f", "changed-while-read")]
    assert world.files() == {"f": b"old", "g": b"1"}
    assert world.temps() == []
    assert world.sync().outcome == "changed"
    world.check()
    world.quiet()


def test_a_file_that_grows_while_it_is_sent_is_not_published(world: World) -> None:
    world.put({"h": b"0"})
    world.sync()
    world.put({"f": b"x" * 600_000})

    def grow() -> None:
        with open(world.local / "f", "ab") as file:
            file.write(b"y" * 10)

    world.at_open(b"tmp/", grow)
    report = world.sync()
    assert [(p.path, p.code) for p in report.problems] == [(b"f", "changed-while-read")]
    assert world.files() == {"h": b"0"}
    assert world.temps() == []
    world.sync()
    world.check()


def test_a_file_that_is_truncated_while_it_is_sent_is_not_published(world: World) -> None:
    world.put({"h": b"0"})
    world.sync()
    world.put({"f": b"x" * 600_000})
    world.at_open(b"tmp/", lambda: os.truncate(world.local / "f", 7))
    report = world.sync()
    assert [p.code for p in report.problems] == ["changed-while-read"]
    assert world.files() == {"h": b"0"}
    assert world.temps() == []
    world.sync()
    world.check()


def test_a_file_that_vanishes_before_it_is_sent_is_a_problem(world: World) -> None:
    world.put({"f": b"1", "g": b"2"})
    world.at_open(b"lease", lambda: world.put({"f": None}))
    report = world.sync()
    assert [(p.path, p.code) for p in report.problems] == [(b"f", "vanished")]
    assert world.files() == {"g": b"2"}
    world.quiet()


def test_a_file_that_changes_while_it_is_hashed_is_no_rename(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put({"f": b"12345"})
    world.sync()
    world.put({"f": None, "new": b"12345"})
    plain = scan.LocalFile.verify

    def late(file: scan.LocalFile) -> bytes:
        world.put({"new": b"54321"})
        return plain(file)

    monkeypatch.setattr(scan.LocalFile, "verify", late)
    report = world.sync(complete_sync=True)
    assert [(p.path, p.code) for p in report.problems] == [(b"new", "changed-while-read")]
    assert "new" not in world.files()
    monkeypatch.undo()
    world.sync(complete_sync=True)
    world.check()
