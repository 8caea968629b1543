"""What the cycle sees of the local tree: names, ignore rules and times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from tests.support.world import SECOND, Content, Link, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, max_delete=MaxDelete(1.0, 1000))


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
    world.put(dict.fromkeys(NAMES))
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
    assert world.sync(complete_sync=True, ignore=("*.log",)).problems == []
    assert world.files() == {"d/theirs.log": b"3", "g": b"2"}
    world.quiet(complete_sync=True, ignore=("*.log",))


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
