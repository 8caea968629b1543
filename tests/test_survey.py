"""What the cycle sees of the local tree: kinds, names, times, ignore rules, and what it reads."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet import scan
from skynet.config import MaxDelete
from skynet.ops import Upload
from skynet.tree import Entry
from tests.support.frames import Asked
from tests.support.world import SECOND, Content, Link, World, tree_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_delete=MaxDelete(1.0, 1000))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each local file was opened to be read."""
    counts: Counter[bytes] = Counter()
    plain = scan.Root.open

    def counted(root: scan.Root, path: bytes, entry: Entry) -> scan.LocalFile:
        counts[path] += 1
        return plain(root, path, entry)

    monkeypatch.setattr(scan.Root, "open", counted)
    return counts


# What becomes of one path when it changes its kind.

KINDS: dict[str, Content] = {
    "nothing": None,
    "file": b"a file",
    "other": b"another file, longer",
    "directory": {"x": b"in it", "y": {"z": b"below"}},
    "link": Link("keep"),
    "dangling": Link("nowhere/at all"),
}


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("audit", [True, False])
def test_a_path_changes_its_kind_in_complete_sync(
    world: World, before: str, after: str, audit: bool
) -> None:
    world.put({"keep": b"1", "p": KINDS[before]})
    world.sync(complete_sync=True)
    world.put({"p": KINDS[after]})
    report = world.sync(complete_sync=True, audit=audit)
    assert not report.problems
    world.check()
    world.quiet(complete_sync=True)


@pytest.mark.parametrize("before", ["file", "link", "dangling"])
@pytest.mark.parametrize("after", ["file", "other", "directory", "link", "dangling"])
def test_a_path_changes_its_kind_without_complete_sync(
    world: World, before: str, after: str
) -> None:
    world.put({"keep": b"1", "p": KINDS[before]})
    world.sync()
    world.put({"p": KINDS[after]})
    assert not world.sync().problems
    world.check()
    world.quiet()


def test_a_directory_that_became_a_file_is_in_the_way_of_what_is_kept(world: World) -> None:
    world.put({"p": {"x": b"in it"}})
    world.sync()
    world.put({"p": b"a file", "other": b"1"})
    for _ in range(2):
        report = world.sync()
        assert report.outcome == "problems"
        assert [(p.path, p.code) for p in report.problems] == [(b"p", "directory-in-the-way")]
        assert world.files() == {"other": b"1", "p/x": b"in it"}
    world.sync(complete_sync=True)
    world.check()
    assert world.trashed() == {"p/x": b"in it"}
    world.quiet()


# Links.


def test_links_are_kept_as_they_are(world: World, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"not ours")
    world.put(
        {
            "to file": Link("d/f"),
            "to directory": Link("d"),
            "to itself": Link("to itself"),
            "ping": Link("pong"),
            "pong": Link("ping"),
            "up": Link(".."),
            "outside": Link(os.fspath(tmp_path / "outside")),
            "root": Link("/"),
            "not text": Link(b"\xff\xfe/\n"),
            "d": {"f": b"1", "back": Link("../d")},
        }
    )
    world.sync(complete_sync=True)
    world.check()
    assert world.files() == {"d/f": b"1"}
    world.quiet(complete_sync=True)
    world.lose_state()
    world.quiet(complete_sync=True)


def test_a_link_that_points_elsewhere_now_is_sent(world: World) -> None:
    world.put({"l": Link("a")})
    world.sync()
    world.put({"l": Link("b")})
    world.sync(audit=False)
    world.check()
    world.quiet()


def test_nothing_is_read_through_a_link(world: World, reads: Counter[bytes]) -> None:
    world.put({"secret": b"x" * 10, "l": Link("secret")})
    world.sync(ignore=("secret",))
    assert world.files() == {}
    assert reads == {}


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="cannot refuse to follow links")
def test_a_file_that_becomes_a_link_before_it_is_read_is_not_followed(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_bytes(b"1")
    world.put({"f": b"1"})
    world.on_request = at_lease(lambda: world.put({"f": Link("../outside")}))
    report = world.sync()
    assert [p.path for p in report.problems] == [b"f"]
    assert world.files() == {}


def test_links_are_skipped_and_counted(world: World) -> None:
    world.put({"f": b"1", "l": Link("f"), "d": {"m": Link("/")}})
    report = world.sync(symlinks="skip", complete_sync=True)
    assert report.skipped["links"] == 2
    assert tree_of(world.remote).keys() == {b"f"}
    world.quiet(symlinks="skip", complete_sync=True)


def test_a_mirrored_link_stays_when_links_are_skipped_from_now_on(world: World) -> None:
    world.put({"f": b"1", "l": Link("f")})
    world.sync(complete_sync=True)
    world.quiet(symlinks="skip", complete_sync=True)
    world.check()


# What is no file, directory or link.


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_special_files_are_skipped_and_counted(world: World) -> None:
    world.put({"f": b"1", "d": {"g": b"2"}})
    os.mkfifo(world.local / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(world.local / "d" / "sock"))
        report = world.sync(complete_sync=True)
    assert report.skipped["special"] == 2
    assert report.outcome == "changed"
    assert world.files() == {"f": b"1", "d/g": b"2"}
    world.quiet(complete_sync=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize("audit", [True, False])
def test_a_file_that_became_special_stays_on_the_remote(world: World, audit: bool) -> None:
    world.put({"f": b"1", "g": b"2"})
    world.sync(complete_sync=True)
    (world.local / "f").unlink()
    os.mkfifo(world.local / "f")
    world.sync(complete_sync=True, audit=audit)
    assert world.files() == {"f": b"1", "g": b"2"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_special_file_on_the_remote_is_a_problem_and_is_left(world: World) -> None:
    world.put({"f": b"1", "g": b"2"})
    os.mkfifo(world.remote / "f")
    report = world.sync(complete_sync=True)
    assert [(p.path, p.code) for p in report.problems] == [(b"f", "special-on-remote")]
    assert stat.S_ISFIFO((world.remote / "f").stat().st_mode)
    assert world.files() == {"g": b"2"}


# Directories.


def test_empty_directories_are_not_mirrored(world: World) -> None:
    world.put({"d": {"e": {}}, "f": b"1", "n": {"o": {"p": b"2"}}})
    world.sync()
    world.check()
    assert not (world.remote / "d").exists()
    world.quiet()
    world.put({"d": {"e": {"first": b"3"}}})
    world.sync()
    world.check()


def test_empty_directories_are_mirrored_on_demand(world: World) -> None:
    world.put({"d": {"e": {}}, "f": b"1"})
    world.sync()
    world.sync(empty_dirs=True)
    world.check(empty_dirs=True)
    world.quiet(empty_dirs=True)
    world.put({"d": None})
    world.sync(empty_dirs=True, complete_sync=True)
    world.check(empty_dirs=True)
    world.quiet(empty_dirs=True, complete_sync=True)


@pytest.mark.skipif(os.name != "posix", reason="has no permission bits")
def test_read_only_directories_are_filled_first(world: World) -> None:
    world.put({"d": {"e": {"f": b"1"}, "g": b"2"}})
    for path in ("d/e", "d"):
        (world.local / path).chmod(0o555)
    world.sync(complete_sync=True)
    world.check()
    world.quiet(complete_sync=True)


@pytest.mark.skipif(os.name != "posix", reason="has no permission bits")
@pytest.mark.parametrize("audit", [True, False])
def test_a_directory_whose_mode_changes_is_set(world: World, audit: bool) -> None:
    world.put({"d": {"f": b"1"}})
    world.sync()
    (world.local / "d").chmod(0o711)
    assert world.sync(audit=audit).done == {"setmeta": 1}
    world.check()
    world.quiet(audit=audit)


@pytest.mark.skipif(os.name != "posix", reason="has no permission bits")
@pytest.mark.parametrize("mode", [0o600, 0o755, 0o4755, 0o444, 0o000])
def test_permissions_are_carried(world: World, mode: int) -> None:
    world.put({"f": b"1"})
    (world.local / "f").chmod(mode)
    world.sync()
    world.check()
    world.quiet()


# Names.

NAMES: list[bytes] = [
    b"with space",
    b" leading and trailing ",
    b"-rf",
    b"--",
    b"~",
    b"*?[a]",
    b"new\nline",
    b"tab\there\r",
    b"\x01\x1b[31mred",
    b"\xff\xfe not UTF-8",
    "grün".encode("latin-1"),
    b"n" * 255,
    ("é" * 127).encode(),
    "\u00e9 composed".encode(),
    "e\u0301 composed".encode(),
    b"trailing.",
    b"...",
    b"back\\slash",
    b"quote\"'`$(x)",
    b"a.b",
    b"a",
    b"A",
    b"a-",
    "\U0001f600".encode(),
    b"%41",
    b"#hash",
    b"!bang",
    b".hidden",
    b".skynet-not",
    b"CON",
    b"COM1.txt",
]


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="names are text")
def test_names_are_bytes(world: World) -> None:
    world.put({name: b"content of " + name for name in NAMES})
    world.put({"d": {name: {name: b"1"} for name in NAMES}})
    world.put({b"l " + name[:200]: Link(name) for name in NAMES})
    world.sync(complete_sync=True)
    world.check()
    world.quiet(complete_sync=True)
    world.lose_state()
    world.quiet(complete_sync=True)
    world.put({name: None for name in NAMES})
    world.sync(complete_sync=True)
    world.check()


def test_deep_paths_are_mirrored(world: World) -> None:
    deep: Content = b"at the bottom"
    for _ in range(60):
        deep = {"n" * 50: deep}
    world.put({"d": deep})
    world.sync()
    world.check()
    world.quiet()


# skynet's own names.


def test_reserved_names_are_not_mirrored(world: World) -> None:
    own = {".skynet": {"manifest": b"not this"}, "d": {".skynet": {"x": b"1"}}}
    world.put({**own, ".skynet-tmp-1": b"stray", "f": b"2"})
    world.sync(complete_sync=True)
    assert world.files() == {"d/.skynet/x": b"1", "f": b"2"}
    assert (world.remote / ".skynet/manifest").read_bytes() != b"not this"
    world.quiet(complete_sync=True)


# Ignore rules.


def test_what_is_ignored_is_not_sent(world: World) -> None:
    ignored = {"x.tmp": b"1", "keep.tmp": b"2", "build": {"o": b"3"}, "d": {"y.tmp": b"4"}}
    world.put({**ignored, "top": b"5", "d/top": b"6", ".skynetignore": b"*.tmp\n!keep.tmp\n"})
    world.sync(ignore=("build/", "/top"), complete_sync=True)
    assert world.files().keys() == {"keep.tmp", "d/top", ".skynetignore"}
    world.quiet(ignore=("build/", "/top"), complete_sync=True)


def test_what_is_ignored_stays_on_the_remote(world: World) -> None:
    world.put({"f": b"1", "log": {"x": b"2"}})
    world.sync(complete_sync=True)
    world.put_remote({"theirs.log": b"3"})
    world.put({".skynetignore": b"log/\n*.log\n", "log": None})
    world.sync(complete_sync=True)
    assert world.files().keys() == {"f", "log/x", "theirs.log", ".skynetignore"}
    world.quiet(complete_sync=True)


def test_what_is_no_longer_ignored_is_sent(world: World) -> None:
    world.put({"x.tmp": b"1", ".skynetignore": b"*.tmp\n"})
    world.sync()
    world.put({".skynetignore": None})
    world.sync(complete_sync=True)
    world.check()


def test_ignored_files_in_a_vanished_directory_keep_it(world: World) -> None:
    world.put({"d": {"f": b"1"}, "g": b"2"})
    world.sync(complete_sync=True)
    world.put_remote({"d/theirs.log": b"3"})
    world.put({"d": None})
    report = world.sync(complete_sync=True, ignore=("*.log",))
    assert world.files() == {"d/theirs.log": b"3", "g": b"2"}
    assert [p.path for p in report.problems] == [b"d"], "loud: the directory could not go"


def test_names_that_are_not_text_can_be_ignored(world: World) -> None:
    world.put({b"\xff.tmp": b"1", b"\xfe": b"2", "f": b"3", ".skynetignore": b"*.tmp\n\xfe\n"})
    world.sync()
    assert world.files().keys() == {"f", ".skynetignore"}


# Times.

TIMES = [
    -1,
    -(10**9) * 86_400 * 365 * 30,
    0,
    1,
    999_999_999,
    1_234_567_890 * 10**9 + 123_456_789,
    (2**31) * 10**9 + 7,
    (2**32 - 1) * 10**9 + 999_999_999,
    (2**32) * 10**9,
    (2**32 + 12345) * 10**9 + 1,
]


@pytest.mark.parametrize("moment", TIMES)
def test_times_are_carried_as_far_as_the_wire_can(world: World, moment: int) -> None:
    world.put({"f": b"1", "other": b"2"}, at=moment)
    assert (world.local / "f").stat().st_mtime_ns == moment, "the local disk holds such times"
    world.sync()
    expected = min(max(moment // SECOND, 0), 2**32 - 1)
    assert int((world.remote / "f").stat().st_mtime) == expected
    world.quiet()
    world.quiet(audit=False)
    world.lose_state()
    world.quiet()
    world.lose_state()
    world.put({"f": b"3"}, at=moment + SECOND)
    world.sync()
    assert world.files()["f"] == b"3"


def test_a_change_of_nanoseconds_is_seen(world: World) -> None:
    world.put({"f": b"1"}, at=SECOND)
    world.sync()
    world.put({"f": b"2"}, at=SECOND + 1)
    world.sync(audit=False)
    world.check()


# Reading no more than needed, and trusting no more than is known.


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

    def timeless(status: os.stat_result) -> bytes:
        """As on a disk with coarse times: neither of the two, which come first, ticks."""
        return plain(status)[16:]

    monkeypatch.setattr("skynet.scan.identity", timeless)
    monkeypatch.setattr("skynet.survey.identity", timeless)
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


def at_lease(action: Callable[[], None]) -> Callable[[Asked], None]:
    """Does something when the plan is made and nothing of it is done yet."""
    return _at(b"/.skynet/lease", action)


def at_upload(action: Callable[[], None]) -> Callable[[Asked], None]:
    """Does something when the first upload of a cycle that has a manifest was just begun."""
    return _at(b"/.skynet/tmp/", action)


def _at(place: bytes, action: Callable[[], None]) -> Callable[[Asked], None]:
    seen: list[Asked] = []

    def on_request(request: Asked) -> None:
        if request.kind == "OPEN" and place in request.text:
            seen.append(request)
            if len(seen) == 1:
                action()

    return on_request


def test_a_file_that_changes_while_it_is_sent_is_not_published(world: World) -> None:
    world.put({"f": b"old", "g": b"1"})
    world.sync()
    world.put({"f": b"new version"})
    world.on_request = at_upload(lambda: world.put({"f": b"even newer"}))
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

    world.on_request = at_upload(grow)
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
    world.on_request = at_upload(lambda: os.truncate(world.local / "f", 7))
    report = world.sync()
    assert [p.code for p in report.problems] == ["changed-while-read"]
    assert world.files() == {"h": b"0"}
    assert world.temps() == []
    world.sync()
    world.check()


def test_a_file_that_vanishes_before_it_is_sent_is_a_problem(world: World) -> None:
    world.put({"f": b"1", "g": b"2"})
    world.on_request = at_lease(lambda: world.put({"f": None}))
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


# Unknown is not absent.


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, world: World) -> Callable[[str], None]:
    """Makes a local path unreadable, as for a user who is not root."""

    def refused(path: str) -> None:
        full = os.fsencode(world.local / path)
        scandir, opened = os.scandir, os.open

        def no_scandir(place: bytes) -> object:
            if place == full:
                raise PermissionError(13, "Permission denied")
            return scandir(place)

        def no_open(place: bytes, *rest: int) -> int:
            if place == full:
                raise PermissionError(13, "Permission denied")
            return opened(place, *rest)

        monkeypatch.setattr(os, "scandir", no_scandir)
        monkeypatch.setattr(os, "open", no_open)

    return refused


@pytest.mark.parametrize("audit", [True, False])
def test_nothing_is_deleted_below_an_unreadable_directory(
    world: World, refuse: Callable[[str], None], audit: bool
) -> None:
    world.put({"d": {"f": b"1", "e": {"g": b"2"}}, "a": b"3", "z": b"4"})
    world.sync(complete_sync=True)
    world.put({"d": {"f": None, "e": None}, "a": None})
    refuse("d")
    report = world.sync(complete_sync=True, audit=audit)
    assert [(p.path, p.code) for p in report.problems] == [(b"d", "unreadable")]
    assert world.files() == {"d/f": b"1", "d/e/g": b"2", "z": b"4"}


def test_an_unreadable_root_deletes_nothing(world: World, refuse: Callable[[str], None]) -> None:
    world.put({"a": b"1", "d": {"f": b"2"}})
    world.sync(complete_sync=True)
    refuse(".")
    before = world.files()
    report = world.sync(complete_sync=True, foreign="trash")
    assert report.outcome == "problems"
    assert world.files() == before


def test_an_unreadable_file_is_a_problem_and_others_go_on(
    world: World, refuse: Callable[[str], None]
) -> None:
    world.put({"f": b"old", "g": b"1"})
    world.sync(complete_sync=True)
    world.put({"f": b"newer", "g": b"2 changed"})
    refuse("f")
    report = world.sync(complete_sync=True)
    assert [(p.path, p.code) for p in report.problems] == [(b"f", "unreadable")]
    assert "Permission denied" in report.problems[0].message
    assert world.files() == {"f": b"old", "g": b"2 changed"}


def test_an_unreadable_file_that_must_be_hashed_is_a_problem(
    world: World, refuse: Callable[[str], None]
) -> None:
    world.put({"f": b"12345", "g": b"1"})
    world.sync(complete_sync=True)
    world.put({"f": b"54321"})
    refuse("f")
    report = world.sync(complete_sync=True)
    assert [(p.path, p.code) for p in report.problems] == [(b"f", "unreadable")]
    assert world.files()["f"] == b"12345"


@pytest.mark.parametrize("kind", ["OPENDIR", "READDIR"])
def test_a_remote_directory_that_cannot_be_listed_is_unknown(world: World, kind: str) -> None:
    world.put({"d": {"f": b"1"}, "z": b"2", "y": b"3"})
    world.sync(complete_sync=True)
    world.put({"d": None})
    listing: list[bytes] = []

    def fault(number: int, request: Asked) -> int | None:
        if request.kind == "OPENDIR":
            listing.append(request.text)
        is_d = bool(listing) and listing[-1].endswith(b"/d")
        return 3 if request.kind == kind and is_d else None  # permission denied

    world.fault = fault
    report = world.sync(complete_sync=True)
    assert [(p.path, p.code) for p in report.problems] == [(b"d", "unlistable")]
    assert world.files()["d/f"] == b"1"


def test_upload_ops_carry_what_was_seen(world: World) -> None:
    world.put({"f": b"123"}, at=5)
    (op,) = world.plan().plan.ops
    assert isinstance(op, Upload)
    assert (op.entry.size, op.entry.mtime_ns, op.replaces) == (3, 5, None)
