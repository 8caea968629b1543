"""What must not be in sync silently: names that fold, special files, what came back meanwhile."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from skynet.config import MaxDelete
from skynet.cycle import Report
from skynet.remote import Facts, SftpRemote
from skynet.sftp.replies import FAILURE
from tests.support.command import bound_by_modes
from tests.support.faults import no_fault, nth
from tests.support.world import Link, World, frozen

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))


def problems(report: Report) -> set[tuple[bytes, str]]:
    return {(problem.path, problem.code) for problem in report.problems}


def untouched(world: World, **options: object) -> Report:
    """Run a cycle that must change nothing of what is mirrored."""
    before = world.files()
    report = world.sync(**options)
    assert report.outcome == "problems"
    assert world.files() == before
    return report


# A remote that ignores case.


@pytest.fixture
def folding(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    prepare = SftpRemote.prepare

    def prepare_folding(remote: SftpRemote) -> Facts:
        prepare(remote)
        return Facts(folds_case=True)

    monkeypatch.setattr(SftpRemote, "prepare", prepare_folding)
    return world


@pytest.mark.parametrize("audit", [True, False])
def test_a_name_that_changes_its_case_is_renamed(folding: World, audit: bool) -> None:
    folding.put({"Name": b"1", "D": {"x": b"2"}, "other": b"3"})
    folding.sync()
    folding.move("Name", "name")
    folding.move("D", "d")
    report = folding.sync(audit=audit)
    assert problems(report) == set()
    assert (report.done["rename"], report.counts["bytes"]) == (4, 0)
    folding.check()
    folding.quiet()


@pytest.mark.parametrize("audit", [True, False])
def test_two_names_here_that_fold_are_not_touched(folding: World, audit: bool) -> None:
    folding.put({"Name": b"1", "other": b"2"})
    folding.sync()
    folding.put({"name": b"3", "NAME": b"4"})
    report = untouched(folding, audit=audit)
    assert problems(report) == {(name, "case-collision") for name in (b"Name", b"name", b"NAME")}
    assert "cannot be told from" in report.problems[0].message


def test_a_remote_name_in_another_case_is_not_overwritten(folding: World) -> None:
    folding.put({"a": b"1"})
    folding.sync()
    folding.put_remote({"Theirs": b"2"})
    folding.put({"theirs": b"3"})
    assert problems(untouched(folding)) == {(b"theirs", "case-change")}


def test_what_is_ignored_there_is_not_overwritten_under_another_spelling(folding: World) -> None:
    folding.put({"a": b"1"})
    folding.sync()
    folding.put_remote({"Build": b"2"})
    folding.put({"build": b"3"})
    assert problems(untouched(folding, ignore=("Build",))) == {(b"build", "case-change")}


def test_names_that_fold_and_are_ignored_are_no_problem(folding: World) -> None:
    folding.put({"a": b"1"})
    folding.sync()
    folding.put_remote({"Build": {"x": b"2"}})
    folding.put({"build": {"y": b"3"}, ".Skynet": {"manifest": b"not this"}})
    report = folding.sync(ignore=("[bB]uild/",))
    assert report.problems == []
    assert folding.files() == {"a": b"1", "Build/x": b"2"}


# What is not mirrored takes the place of what is.


@pytest.mark.parametrize("audit", [True, False])
def test_a_file_that_became_a_pipe_is_told(world: World, audit: bool) -> None:
    world.put({"f": b"1", "d": {"x": b"2"}, "g": b"3"})
    world.sync()
    world.put({"f": None, "d": None})
    os.mkfifo(world.local / "f")
    os.mkfifo(world.local / "d")
    os.mkfifo(world.local / "new")
    report = untouched(world, audit=audit)
    assert problems(report) == {(b"f", "not-mirrored"), (b"d", "not-mirrored")}


def test_a_file_that_became_a_link_that_is_skipped_is_told(world: World) -> None:
    world.put({"f": b"1", "g": b"3"})
    world.sync(symlinks="skip")
    world.put({"f": Link("g"), "new": Link("g")})
    assert problems(untouched(world, symlinks="skip")) == {(b"f", "not-mirrored")}


def test_a_pipe_that_is_ignored_is_not_told(world: World) -> None:
    world.put({"f": b"1", "g": b"3"})
    world.sync()
    world.put({"f": None})
    os.mkfifo(world.local / "f")
    world.quiet(ignore=("f",))


def test_a_special_file_on_the_remote_keeps_its_directory(world: World) -> None:
    world.put({"d": {"e": {"x": b"1"}}, "g": b"2"})
    world.sync()
    os.mkfifo(world.remote / "d/e/pipe")
    world.put({"d": None})
    assert world.sync().problems == []
    assert world.files() == {"g": b"2"}
    assert (world.remote / "d/e/pipe").exists()
    world.quiet()


# Foreign files that must stay.


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("complete_sync", [False, True])
def test_a_file_where_the_remote_has_an_ignored_directory_is_told(
    tmp_path: Path, is_ours: bool, complete_sync: bool
) -> None:
    world = World(tmp_path, complete_sync=complete_sync)
    world.put({"a": b"1"} | ({"build": {"out": b"2"}} if is_ours else {}))
    world.sync()
    world.put_remote({"build": {"out": b"2"}} if not is_ours else {})
    world.put({"build": b"a script", ".skynetignore": b"build/"})
    for _ in range(2):
        report = world.sync()
        assert [(p.path, p.code) for p in report.problems] == [(b"build", "directory-in-the-way")]
        assert world.files()["build/out"] == b"2"
    world.put({"build": None, ".skynetignore": b"*.o"})
    assert world.sync(complete_sync=False).outcome != "problems"


@pytest.mark.parametrize("special", [False, True])
def test_a_directory_that_holds_what_is_ignored_is_not_replaced_by_a_file(
    tmp_path: Path, special: bool
) -> None:
    world = World(tmp_path, complete_sync=True, ignore=("*.tmp",))
    world.put({"a": b"1", "b": b"2", "out": {"ours": b"3"}})
    world.sync()
    world.put_remote({"out": {"sub": {"x.tmp": b"theirs"}}})
    if special:
        os.remove(world.remote / "out" / "sub" / "x.tmp")
        os.mkfifo(world.remote / "out" / "sub" / "pipe")
    world.put({"out": b"a file"})
    assert world.sync().done == {"delete": 1}
    report = world.sync()
    assert [(p.path, p.code) for p in report.problems] == [(b"out", "directory-in-the-way")]
    assert report.counts["mutations"] == 0
    assert list((world.remote / "out" / "sub").iterdir())


@pytest.mark.parametrize("audit", [True, False])
def test_a_closed_directory_in_the_way_of_a_file_is_told_in_each_run(
    tmp_path: Path, audit: bool
) -> None:
    world = World(tmp_path)
    world.put({"d": {"kept": b"1", "moves": b"2"}})
    (world.local / "d").chmod(0o500)
    world.sync()
    world.move("d/moves", "moved")
    world.put({"d": b"a file"})
    assert world.sync().done["rename"] == 1  # for which the directory is opened, and closed again
    for _ in range(2):
        report = world.sync(audit=audit)
        assert [(p.path, p.code) for p in report.problems] == [(b"d", "directory-in-the-way")]


def test_a_closed_directory_that_was_only_opened_makes_room_later(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True, max_delete=MaxDelete(1.0, 1000))
    world.put({"d": {"f": b"1"}, "a": b"2"})
    (world.local / "d").chmod(0o500)
    world.sync()
    world.put({"d": b"a file"})
    world.fault = nth("RMDIR", 0, FAILURE)
    assert world.sync().outcome == "problems"
    world.fault = no_fault
    world.sync()
    world.check()
    world.quiet()


def test_a_directory_that_moves_makes_room_whatever_is_ignored_in_it(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True, ignore=("*.tmp",))
    world.put({"out": {"ours": b"1", "x.tmp": b"here"}})
    world.sync()
    world.put_remote({"out": {"x.tmp": b"there"}})
    world.move("out", "moved")
    world.put({"out": b"a file"})
    assert world.sync().done == {"rename": 1, "upload": 1, "bytes": len(b"a file")}
    assert world.files() == {"moved/ours": b"1", "moved/x.tmp": b"there", "out": b"a file"}
    world.quiet()


def test_a_foreign_file_that_is_kept_is_not_moved_for_a_directory(world: World) -> None:
    world.put({"a": b"1"})
    world.sync(foreign="keep")
    world.put_remote({"p": b"theirs"})
    world.put({"p": {"q": {"x": b"2"}}})
    before = frozen(world.remote / "p")
    report = untouched(world, foreign="keep")
    paths = (b"p", b"p/q", b"p/q/x")
    assert problems(report) == {(path, "foreign-in-the-way") for path in paths}
    assert frozen(world.remote / "p") == before
    world.put({"p": {"q": None}})
    world.quiet(foreign="keep")


@pytest.mark.parametrize("then", ["keep", "trash"])
@pytest.mark.parametrize("mode", [0o755, 0o500])
def test_a_directory_in_which_only_foreign_files_are_left_is_not_ours_any_more(
    world: World, mode: int, then: str
) -> None:
    world.prefix = bound_by_modes()
    world.put({"a": b"1", "d": {"e": {"ours": b"2"}, "f": b"3"}})
    (world.local / "d" / "e").chmod(mode)
    world.sync(foreign="keep")
    world.put_remote({"d": {"e": {"theirs": b"4"}}})
    world.put({"d": None})
    done = world.sync(foreign="keep").done
    assert (done["delete"], done["record"]) == (2, 2)
    assert stat.S_IMODE((world.remote / "d" / "e").stat().st_mode) == mode
    world.quiet(foreign="keep", audit=False)  # it was tried to be removed, and refused
    world.quiet(foreign="keep")
    assert world.files() == {"a": b"1", "d/e/theirs": b"4"}
    world.put({"d": {"e": {"again": b"5"}}})
    (world.remote / "d" / "e").chmod(0o755)
    assert world.sync(foreign=then).outcome == "changed"
    world.check({"d/e/theirs": b"4"} if then == "keep" else {})


# The second look.


def test_what_comes_back_before_it_is_deleted_stays(world: World) -> None:
    world.put({"a": b"1", "d": {"x": b"2"}, "g": b"3"})
    world.sync()
    world.put({"a": None, "d": None})
    world.at_open(b"lease", lambda: world.put({"a": b"again", "d": {"x": b"again"}}))
    report = world.sync()
    assert problems(report) == {(b"a", "came-back"), (b"d/x", "came-back"), (b"d", "came-back")}
    assert world.files() == {"a": b"1", "d/x": b"2", "g": b"3"}
    world.sync()
    world.check()


# Approvals.


def test_an_approval_of_another_owner_does_not_cover_zeroed_files(world: World) -> None:
    world.put({"a": b"1"})
    world.sync()
    twin = world.twin()
    twin.host = "there"
    world.put({"b": b"2"})
    shown = twin.sync()
    assert [hazard.code for hazard in shown.hazards] == ["other-mirror"]
    moment = (world.local / "a").stat().st_mtime_ns
    os.truncate(world.local / "a", 0)
    os.utime(world.local / "a", ns=(moment, moment))
    report = twin.sync(approve=shown.hazards[0].approve)
    assert report.outcome == "held"
    assert [hazard.code for hazard in report.hazards] == ["other-mirror", "zeroed-files"]
