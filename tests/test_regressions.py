"""Bugs that lost people's data in other programs, each tried on this one.

Every test is named after the report. What only a watcher or a daemon can get wrong is not here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from skynet.errors import LinkLost, RemoteStopped, SkynetError, SourceError
from tests.support.faults import ALMOST_FULL, Act, nth
from tests.support.frames import Asked
from tests.support.world import SECOND, Link, World, frozen

FAILURE = 4
GOOD = b"the good version"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"good": GOOD, "d": {"other": b"1", "more": b"2"}})
    made.sync()
    return made


def refuse_uploads(number: int, request: Asked) -> int | None:
    return FAILURE if request.kind.startswith("posix-rename") else None


def recover(world: World) -> None:
    world.fault = lambda number, request: None
    world.sync()
    world.check()
    world.quiet()


def test_rclone_6142_a_failed_upload_leaves_the_good_file(world: World) -> None:
    world.put({"good": b"next version"})
    world.fault = refuse_uploads
    report = world.sync()
    assert [problem.path for problem in report.problems] == [b"good"]
    assert world.files()["good"] == GOOD
    assert world.temps() == []
    recover(world)


def test_rclone_3274_a_file_that_fails_its_check_is_not_published(world: World) -> None:
    """The server acknowledges a write that it did not make."""
    world.put({"good": b"next version, long enough"})
    world.fault = lambda number, request: (
        0 if request.kind == "WRITE" and b"next version" in request.packet else None
    )
    report = world.sync()
    assert [(p.path, p.code) for p in report.problems] == [(b"good", "size-mismatch")]
    assert world.files()["good"] == GOOD
    assert world.temps() == []
    recover(world)


@pytest.mark.parametrize("number", range(6))
def test_rclone_4513_no_partial_file_under_the_final_name(world: World, number: int) -> None:
    content = b"0123456789" * 150_000
    world.put({"good": content, "new": content})
    writes: list[int] = []

    def cut_at_a_write(_: int, request: Asked) -> Act | None:
        if request.kind != "WRITE" or b"0123456789" not in request.packet:
            return None
        writes.append(len(request.packet))
        return Act.CUT_AFTER if len(writes) == number + 1 else None

    world.fault = cut_at_a_write
    with pytest.raises(LinkLost):
        world.sync()
    assert world.files().get("good") in (GOOD, content)
    assert world.files().get("new") in (None, content)
    recover(world)


def test_rclone_1094_a_case_only_rename_does_not_delete_the_file(world: World) -> None:
    world.move("good", "GOOD")
    report = world.sync()
    assert report.done == {"rename": 1}
    assert world.files()["GOOD"] == GOOD
    world.check()
    world.quiet()


def test_syncthing_7426_a_case_only_rename_of_a_directory(world: World) -> None:
    world.move("d", "D")
    assert world.sync().done["rename"] == 1
    world.check()
    world.quiet()


def test_rclone_4298_a_first_sync_from_the_wrong_source_deletes_nothing(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "wrong").mkdir()
    wrong = World(tmp_path / "wrong", complete_sync=True)
    wrong.remote = world.remote
    before = frozen(world.remote)
    assert wrong.sync().outcome == "held"
    assert frozen(world.remote) == before


def test_rclone_1186_an_empty_source_empties_nothing_unmanaged(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put_remote({"a": b"1", "b": b"2"})
    report = world.sync()
    assert report.outcome == "held"
    assert world.files() == {"a": b"1", "b": b"2"}


def test_rclone_9718_every_attempt_has_its_own_temporary_name(world: World) -> None:
    world.put({"good": b"next version"})
    names: list[bytes] = []

    def note(request: Asked) -> None:
        if request.kind == "OPEN" and b"/.skynet/tmp/" in request.text:
            names.append(request.text)

    world.on_request = note
    world.fault = refuse_uploads
    world.sync()
    world.sync()
    assert len(names) >= 2
    assert len(set(names)) == len(names)


def test_syncthing_1498_a_full_disk_truncates_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skynet.remote.send.parse_space", lambda body: ALMOST_FULL)
    world.put({"good": b"next version"})
    world.fault = lambda number, request: (
        FAILURE if request.kind == "WRITE" and b"next version" in request.packet else None
    )
    with pytest.raises(RemoteStopped, match="disk is full: 4 KiB are free") as caught:
        world.sync()
    assert caught.value.code == "disk-full"
    assert world.files()["good"] == GOOD
    recover(world)


def test_syncthing_4345_a_vanished_root_deletes_nothing(world: World) -> None:
    before = world.files()
    shutil.rmtree(world.local)
    with pytest.raises(SourceError, match="Is the disk mounted"):
        world.sync()
    assert world.files() == before


@pytest.mark.parametrize("refilled", [False, True])
def test_syncthing_5207_a_recreated_root_deletes_nothing(world: World, refilled: bool) -> None:
    before = world.files()
    world.local.rename(world.base / "aside")
    world.local.mkdir()
    if refilled:
        world.put({"good": GOOD, "d": {"other": b"1"}})
    assert world.sync().outcome == "held"
    assert world.files() == before


def test_unison_262_an_unmounted_root_deletes_nothing(world: World) -> None:
    before = world.files()
    world.put({"good": None, "d": None})
    assert world.sync().hazards[0].code == "emptied-root"
    assert world.files() == before


def test_unison_pr_1208_a_failed_child_is_tried_again(world: World) -> None:
    world.put({"d": {"deep": {"a": b"1", "b": b"2"}}})
    world.fault = nth("posix-rename@openssh.com", 0, 3)
    report = world.sync()
    assert report.outcome == "problems"
    assert len(report.problems) == 1
    world.fault = lambda number, request: None
    assert world.sync(audit=False).done["upload"] == 1
    world.check()
    world.quiet()


def test_unison_pr_769_what_was_not_achieved_is_not_recorded(world: World) -> None:
    world.put({"good": b"next version"})
    (world.local / "d/other").chmod(0o600)
    world.fault = lambda number, request: 3 if request.kind == "SETSTAT" else None
    report = world.sync()
    assert [problem.path for problem in report.problems] == [b"d/other"]
    world.fault = lambda number, request: None
    assert world.sync(audit=False).done == {"setmeta": 1}
    world.check()


def test_lsyncd_57_a_failed_path_is_not_forgotten(world: World) -> None:
    world.put({"good": b"next version"})
    world.fault = refuse_uploads
    for _ in range(3):
        report = world.sync(audit=False)
        assert report.outcome == "problems"
        assert [problem.path for problem in report.problems] == [b"good"]
    recover(world)


@pytest.mark.parametrize("name", [" ", "  ", "a b", "* ", "; rm -rf .", "$(true)"])
def test_lsyncd_348_a_file_named_with_a_space_is_only_a_file(world: World, name: str) -> None:
    world.put({name: b"1"})
    world.sync()
    world.check()
    world.put({name: None})
    world.sync()
    world.check()
    assert world.files().keys() == {"good", "d/other", "d/more"}


def test_lsyncd_142_what_was_tampered_with_on_the_remote_is_repaired(world: World) -> None:
    world.put_remote({"good": b"tampered"})
    world.sync()
    world.check()


def test_lsyncd_225_a_moved_file_is_not_sent_again(world: World) -> None:
    world.move("good", "elsewhere/good")
    assert world.sync().counts["bytes"] == 0
    world.check()


def test_mutagen_275_a_remote_made_anew_never_deletes_locally(world: World) -> None:
    before = frozen(world.local)
    shutil.rmtree(world.remote)
    world.remote.mkdir()
    world.sync()
    assert frozen(world.local) == before
    world.check()


def test_mutagen_69_a_safety_halt_can_be_overridden(world: World) -> None:
    world.put({"d": None})
    assert world.approve().outcome == "changed"
    world.check()


def test_winscp_the_old_version_is_there_until_the_new_one_is(world: World) -> None:
    world.put({"good": b"next version"})
    missing: list[str] = []

    def look(request: Asked) -> None:
        if not (world.remote / "good").exists():
            missing.append(request.kind)

    world.on_request = look
    world.sync()
    assert missing == []
    world.check()


def test_winscp_without_atomic_rename_the_old_version_is_only_set_aside(world: World) -> None:
    world.without = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})
    world.put({"good": b"next version"})
    kept: list[bool] = []

    def look(request: Asked) -> None:
        places = [world.remote / "good", *(world.remote / ".skynet/tmp").iterdir()]
        kept.append(any(place.exists() and place.read_bytes() == GOOD for place in places))

    world.on_request = look
    world.sync()
    world.check()
    assert kept[0]
    gone = kept.index(False) if False in kept else len(kept)
    renames = [n for n, kind in enumerate(world.requests()) if kind == "RENAME"]
    assert len(renames) == 3, "refused; the old one aside; the new one in"
    assert gone > renames[-1] + 1, "the old version goes when the new one is in place"


def test_nextcloud_10547_zero_byte_files_do_not_overwrite_the_originals(world: World) -> None:
    for name in ("good", "d/other", "d/more"):
        path = world.local / name
        moment = path.stat().st_mtime_ns
        os.truncate(path, 0)
        os.utime(path, ns=(moment, moment))
    report = world.sync()
    assert [hazard.code for hazard in report.hazards] == ["zeroed-files"]
    assert world.files()["good"] == GOOD


def test_onedrive_3387_a_guard_that_tripped_is_told_in_every_run(world: World) -> None:
    world.put({"good": None, "d": None})
    for _ in range(3):
        report = world.sync(audit=False)
        assert report.outcome == "held"
        assert all(hazard.message for hazard in report.hazards)


def test_onedrive_511_an_unmounted_source_under_a_link_deletes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    disk, mount = tmp_path / "disk", world.local
    mount.rmdir()
    disk.mkdir()
    (disk / "a").write_bytes(b"1")
    mount.symlink_to(disk)
    world.sync()
    mount.unlink()
    with pytest.raises(SkynetError):
        world.sync()
    mount.mkdir()  # the empty mount point
    assert world.sync().outcome == "held"
    assert world.files() == {"a": b"1"}


def test_git_a_change_in_the_moment_of_the_cycle_is_found_later(world: World) -> None:
    """Racy git: the same size, written right after it was sent, and the clock does not tick."""
    world.ahead_ns = 0
    world.put({"good": b"version A"}, at=SECOND)
    world.sync()
    world.put({"good": b"version B"}, at=SECOND)
    world.sync(audit=False)
    assert world.files()["good"] == b"version B"


def test_a_link_put_on_the_remote_never_leads_outside(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "other").write_bytes(b"not ours")
    shutil.rmtree(world.remote / "d")
    world.put_remote({"d": Link(os.fspath(outside))})
    world.put({"d": {"other": None, "new": b"1"}})
    world.sync()
    assert [path.name for path in outside.iterdir()] == ["other"]
    assert (outside / "other").read_bytes() == b"not ours"
    world.check()
