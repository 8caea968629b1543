"""What the cycle sees of the local tree: kinds, links, special files, what cannot be read."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from skynet.ops import Upload
from tests.support.frames import Asked
from tests.support.world import Content, Link, World, tree_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_delete=MaxDelete(1.0, 1000))


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


def test_nothing_is_read_through_a_link(world: World) -> None:
    world.put({"secret": b"x" * 10, "l": Link("secret")})
    report = world.sync(ignore=("secret",))
    assert world.files() == {}
    assert report.counts["bytes"] == 0


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="cannot refuse to follow links")
def test_a_file_that_becomes_a_link_before_it_is_read_is_not_followed(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_bytes(b"1")
    world.put({"f": b"1"})
    world.at_open(b"lease", lambda: world.put({"f": Link("../outside")}))
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
