"""Moves through whole cycles against a real server: nothing is sent again."""

from __future__ import annotations

import itertools
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from skynet import apply
from skynet.config import MaxDelete
from skynet.errors import LinkLost
from skynet.ops import Patch
from skynet.rules import PARKED
from skynet.sftp.replies import FAILURE, PERMISSION_DENIED, UNSUPPORTED
from tests.support.faults import POSIX_RENAME, Act, at, no_fault, nth
from tests.support.folding import FoldingWorld
from tests.support.frames import Asked
from tests.support.world import SECOND, World

VIDEO = random.Random(1).randbytes(3 << 20)
FILES = {f"f{number}": b"content of %d" % number for number in range(30)}


@pytest.fixture(params=[True, False], ids=["complete-sync", "keeping"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, complete_sync=request.param)


def counts(world: World, **options: bool) -> dict[str, int]:
    """What a cycle did, without zeros."""
    report = world.sync(**options)
    assert not report.problems
    return {kind: count for kind, count in report.done.items() if count}


@pytest.mark.parametrize("audit", [True, False])
def test_a_moved_directory_is_one_rename(both: World, audit: bool) -> None:
    both.put({"d": {**FILES, "sub": FILES}})
    both.sync()
    both.move("d", "e")
    assert counts(both, audit=audit) == {"rename": 1}
    both.quiet(audit=False)
    both.quiet()


def test_what_changed_inside_is_all_that_is_sent(both: World) -> None:
    both.put({"d": FILES})
    both.sync()
    both.move("d", "e")
    both.put({"e": {"f0": b"changed", "f1": b"also", "new": b"new"}})
    os.remove(both.local / "e" / "f2")
    done = counts(both)
    assert (done["rename"], done["upload"], done["bytes"]) == (1, 3, len(b"changedalsonew"))
    both.quiet()


def test_a_directory_moves_into_one_that_moved(both: World) -> None:
    both.put({"a": {"x": FILES}, "b": {"y": FILES}})
    both.sync()
    both.move("a", "c")
    both.move("b/y", "c/y")
    assert counts(both)["rename"] == 2
    both.quiet()


def test_exchanged_directories_are_three_renames(both: World) -> None:
    both.put({"a": {"x": b"1", "y": b"2"}, "b": {"x": b"3", "y": b"2", "z": b"4"}})
    both.sync()
    both.move("a", "t")
    both.move("b", "a")
    both.move("t", "b")
    assert counts(both) == {"rename": 3}
    both.quiet()
    assert both.files()["a/x"] == b"3"


def test_a_cycle_of_five_directories(both: World) -> None:
    names = "abcde"
    both.put({name: {"f": name.encode(), "same": b"same"} for name in names})
    both.sync()
    both.move("a", "t")
    for new, old in itertools.pairwise(names):
        both.move(old, new)
    both.move("t", "e")
    assert counts(both) == {"rename": 6}
    both.quiet()


@pytest.mark.parametrize("status", [FAILURE, UNSUPPORTED, PERMISSION_DENIED])
def test_where_no_directory_can_be_renamed_its_files_are(both: World, status: int) -> None:
    """As at servers whose directories are prefixes in an object store."""

    def refuse_directories(_: int, request: Asked) -> int | None:
        renames = request.kind in ("RENAME", POSIX_RENAME)
        return status if renames and os.path.isdir(request.text) else None

    both.fault = refuse_directories
    both.put({"d": {**FILES, "sub": FILES}, "a": {"x": b"1"}, "b": {"x": b"2"}})
    both.sync()
    both.move("d", "e/moved")
    both.move("a", "t")
    both.move("b", "a")
    both.move("t", "b")
    done = counts(both)
    assert done["rename"] == 2 * len(FILES) + 3
    assert "upload" not in done
    assert not done.get("bytes")
    both.quiet(audit=False)
    both.quiet()


def test_exchanged_files_send_nothing(both: World) -> None:
    both.put({"a": b"1" * 5000, "b": b"2" * 7000})
    both.sync()
    both.move("a", "t")
    both.move("b", "a")
    both.move("t", "b")
    assert counts(both) == {"rename": 3}
    both.quiet()


def test_a_new_directory_takes_the_name_of_one_that_moved_into_it(both: World) -> None:
    both.put({"d": FILES})
    both.sync()
    both.move("d", "t")
    (both.local / "d").mkdir()
    both.move("t", "d/old")
    assert counts(both) == {"rename": 2, "mkdir": 1}
    both.quiet()


def test_a_directory_merged_into_another_is_renamed_file_by_file(both: World) -> None:
    both.put({"a": {"1": b"1", "2": b"22"}, "b": {"3": b"333"}})
    both.sync()
    both.move("a/1", "b/1")
    both.move("a/2", "b/2")
    os.rmdir(both.local / "a")
    done = counts(both)
    assert done["rename"] == 2
    assert "upload" not in done
    both.quiet()


def test_a_file_moves_onto_one_that_was_there(both: World) -> None:
    both.put({"a": b"new version", "b": b"old"})
    both.sync()
    both.move("a", "b")
    assert counts(both) == {"rename": 1}
    both.quiet()


def test_a_file_takes_the_name_of_its_directory(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    world.put({"d": {"f": b"content", "g": b"other"}})
    world.sync()
    world.move("d/f", "t")
    os.remove(world.local / "d" / "g")
    os.rmdir(world.local / "d")
    world.move("t", "d")
    done = counts(world)
    assert "upload" not in done
    world.quiet()


def test_what_is_not_ours_does_not_move_along(both: World) -> None:
    both.put({"d": {"f": b"1", "g": b"2"}})
    both.sync()
    both.put_remote({"d": {"theirs": b"result"}})
    both.move("d", "e")
    report = both.sync()
    assert "upload" not in report.done
    assert both.files().get("d/theirs", b"result") == b"result"
    assert "e/theirs" not in both.files()


@pytest.mark.parametrize("act", [FAILURE, Act.CUT_BEFORE], ids=["refused", "cut"])
@pytest.mark.parametrize("place", ["b", "d"])
def test_what_moved_and_did_not_get_its_attributes_gets_them_later(
    both: World, monkeypatch: pytest.MonkeyPatch, place: str, act: Act | int
) -> None:
    monkeypatch.setattr(apply, "COMMIT_OPS", 1)
    both.put({"a": b"1", "d": {"f": b"2"}, "k": b"3"})
    both.sync()
    if place == "d":
        (both.local / "d" / "f").rename(both.local / "aside")
        (both.local / "d").rmdir()
        both.move("aside", "d")
    else:
        both.move("a", "b")
    (both.local / place).chmod(0o600)
    both.fault = nth("SETSTAT", 0, act)
    with suppress(LinkLost):
        both.sync()
    both.fault = no_fault
    for _ in range(2):
        both.sync(audit=False)
    both.quiet()
    assert (both.remote / place).stat().st_mode & 0o777 == 0o600


def test_what_is_only_kept_is_not_sent_when_it_comes_back_elsewhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put({"a": VIDEO, "d": {"b": VIDEO[::-1], "c": b"1"}, "e": b"2"})
    world.sync()
    world.put({"a": None, "d": {"b": None}})
    world.sync()
    world.put({"a": b"new", "d": None, "x": VIDEO, "y": VIDEO[::-1]})
    assert counts(world)["bytes"] == len(b"new")
    assert world.files()["d/b"] == VIDEO[::-1]
    world.quiet()


def test_large_content_that_is_elsewhere_is_copied(both: World) -> None:
    both.put({"a": os.urandom(100_000)})
    both.sync()
    both.put({"d": {"b": (both.local / "a").read_bytes()}})
    done = counts(both)
    assert done["copy"] == 1
    assert done.get("bytes", 0) == 0
    both.quiet()


def edit_unseen(world: World, path: str, content: bytes) -> None:
    """Let a file have other content of the same size, and the same time."""
    before = (world.local / path).stat()
    assert before.st_size == len(content)
    (world.local / path).write_bytes(content)
    os.utime(world.local / path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("ahead_ns", [10 * SECOND, 0], ids=["settled", "young"])
def test_an_edit_that_keeps_size_and_time_is_seen_after_a_move(both: World, ahead_ns: int) -> None:
    both.ahead_ns = ahead_ns
    both.put({"a": b"one", "d": {"f": b"four", "g": b"seven", "h": b"twelve"}})
    both.sync()
    both.move("a", "b")
    both.move("d", "e")
    both.move("e/g", "e/moved")
    assert not counts(both).get("upload")
    edits = {"b": b"ONE", "e/f": b"FOUR", "e/moved": b"SEVEN"}
    for path, content in edits.items():
        edit_unseen(both, path, content)
    assert counts(both, audit=False)["upload"] == 3
    assert both.files().items() >= edits.items()
    both.quiet()


def test_it_is_seen_after_a_name_got_another_case(tmp_path: Path) -> None:
    world = FoldingWorld(tmp_path)
    world.put({"a": b"one"})
    world.sync()
    world.move("a", "A")
    assert not counts(world).get("upload")
    edit_unseen(world, "A", b"ONE")
    assert counts(world)["upload"] == 1


def test_it_is_seen_after_the_remote_was_repaired(both: World) -> None:
    both.put({"a": b"one"})
    both.sync()
    (both.remote / "a").chmod(0o600)
    assert counts(both) == {"setmeta": 1}
    edit_unseen(both, "a", b"ONE")
    assert counts(both)["upload"] == 1


@pytest.mark.parametrize("number", range(9, 48))
def test_a_link_cut_in_an_exchange_loses_nothing(tmp_path: Path, number: int) -> None:
    world = World(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    world.put({"a": {"x": b"1", "y": b"2"}, "b": {"x": b"3", "z": b"4"}, "f": b"5", "g": b"66"})
    world.sync()
    for one, other in (("a", "b"), ("f", "g")):
        world.move(one, "t")
        world.move(other, one)
        world.move("t", other)
    world.fault = at(number, Act.CUT_AFTER)
    with suppress(LinkLost):
        world.sync()
    world.fault = no_fault
    world.sync()
    world.check()
    assert not any(os.fsencode(name).startswith(PARKED) for name in os.listdir(world.remote))
    world.quiet()


def test_directories_are_known_again_after_the_state_was_lost(both: World) -> None:
    both.put({"d": FILES})
    both.sync()
    both.lose_state()
    both.quiet()
    both.move("d", "e")
    assert counts(both) == {"rename": 1}


@pytest.fixture
def patching(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.put({"video": VIDEO, "other": b"x"})
    world.sync()
    return world


def test_an_edit_inside_a_large_file_is_patched(patching: World) -> None:
    patching.put({"video": VIDEO[:500_000] + b"edit" + VIDEO[500_004:]})
    done = counts(patching)
    assert done["patch"] == 1
    assert done["bytes"] <= 64 << 10
    patching.quiet()


def test_what_was_patched_can_be_patched_again(patching: World) -> None:
    for number in range(3):
        patching.put({"video": b"%d" % number + VIDEO})
        assert counts(patching)["patch"] == 1
    patching.quiet()


def test_a_file_that_moved_and_changed_is_patched_in_its_place(patching: World) -> None:
    patching.move("video", "moved")
    assert counts(patching) == {"rename": 1}
    patching.put({"moved": VIDEO + b"more"})
    assert counts(patching)["patch"] == 1
    patching.quiet()


def test_a_file_that_has_nothing_in_common_is_sent_whole(patching: World) -> None:
    patching.put({"video": os.urandom(len(VIDEO))})
    done = counts(patching)
    assert (done["upload"], done["bytes"]) == (1, len(VIDEO))


def test_without_copies_on_the_server_a_changed_file_is_sent_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.without = frozenset({b"copy-data"})
    world.put({"video": VIDEO})
    world.sync()
    world.put({"video": VIDEO + b"more"})
    assert counts(world)["upload"] == 1
    world.quiet()


def test_without_signatures_a_changed_file_is_sent_whole_once(patching: World) -> None:
    patching.lose_state()
    patching.quiet()
    patching.put({"video": VIDEO + b"more"})
    assert counts(patching)["upload"] == 1
    patching.put({"video": VIDEO + b"and more"})
    assert counts(patching)["patch"] == 1


def test_an_old_version_that_was_touched_on_the_remote_is_not_built_upon(patching: World) -> None:
    patching.put_remote({"video": VIDEO[::-1]})
    patching.put({"video": VIDEO + b"more"})
    assert counts(patching)["upload"] == 1
    patching.quiet()


def test_a_dry_run_shows_the_patch(patching: World) -> None:
    patching.put({"video": VIDEO + b"more"})
    (op,) = patching.plan().plan.ops
    assert isinstance(op, Patch)
    assert op.sends < 64 << 10


def test_a_directory_that_a_broken_run_made_is_recorded_when_another_moves_into_it(
    both: World,
) -> None:
    both.put({"d": {"s": {"z": b"1"}}})
    both.sync()
    both.put_remote({"d": {"made": {}}})
    both.put({"d": {"made": {"f": b"2"}}})
    both.move("d/s", "d/made/s")
    assert both.sync().done["rename"] == 1
    both.check()
    both.quiet()
