"""The state directory: one for each mirror, private, locked by one process at a time."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from skynet.errors import OwnedError, SkynetError, UsageError
from skynet.state import LOCK, directory_for, holder, is_locked, locked, make_private
from tests.support.mounts import small_disk

HOLD = """
import sys
from pathlib import Path
from skynet.state import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_every_pair_of_source_and_target_has_a_directory_of_its_own(tmp_path: Path) -> None:
    pairs = [(b"/a", "sftp://h/b"), (b"/a", "sftp://h/c"), (b"/b", "sftp://h/b"), (b"/a\xff", "")]
    found = {directory_for(tmp_path, source, target) for source, target in pairs}
    assert len(found) == len(pairs)
    assert all(directory.parent == tmp_path for directory in found)
    assert directory_for(tmp_path, *pairs[0]) in found


def test_directory_is_made_for_this_user_only_and_kept(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    make_private(directory)
    (directory / "file").write_bytes(b"kept")
    make_private(directory)
    assert (directory / "file").read_bytes() == b"kept"
    if os.name == "posix":
        for each in (directory, directory.parent):
            assert stat.S_IMODE(each.stat().st_mode) == 0o700


def test_directory_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="--state-dir") as caught:
        make_private(tmp_path / "file" / "below")
    assert caught.value.code == "state-directory"
    with pytest.raises(UsageError, match="--state-dir"), locked(tmp_path / "none"):
        pass


def test_a_disk_that_is_full_may_have_room_later(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        disk.fill()
        with pytest.raises(SkynetError, match="No space left") as caught, locked(disk.place):
            pass
        assert (caught.value.code, caught.value.exit_code) == ("state-directory", 1)
        disk.empty()
        with locked(disk.place):
            assert holder(disk.place) == os.getpid()


def test_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(OwnedError, match=f"process {os.getpid()}") as caught,
        locked(tmp_path),
    ):
        pass
    assert caught.value.code == "locked"
    assert caught.value.exit_code == 5


def test_lock_is_free_again_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()


def test_shorter_process_id_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("99999999999999\n")
    with locked(tmp_path), open(tmp_path / LOCK, "rb") as file:
        assert file.read() == b"%d\n" % os.getpid()


def test_lock_holds_between_processes_and_dies_with_its_holder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    with holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline().strip() == b"held"
            with pytest.raises(OwnedError, match=f"process {holder.pid}"), locked(tmp_path):
                pass
        finally:
            holder.kill()
    with locked(tmp_path):
        pass


# Looking at a lock.


def test_who_looks_is_told_the_holder(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "none")
    assert not is_locked(tmp_path)
    assert not (tmp_path / LOCK).exists()
    with locked(tmp_path):
        assert is_locked(tmp_path)
        assert holder(tmp_path) == os.getpid()
        (tmp_path / LOCK).write_text("")  # as between being locked and being named
        assert holder(tmp_path) == 0
    assert holder(tmp_path) is None


def test_who_looks_does_not_keep_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    for _ in range(3):
        assert not is_locked(tmp_path)
        with locked(tmp_path, sleep=no_sleep):
            assert is_locked(tmp_path)


def no_sleep(seconds: float) -> None:
    raise AssertionError("waited for a lock that is free")


@pytest.mark.skipif(os.name != "posix", reason="holds the lock as those who look do on POSIX")
def test_who_looks_in_that_moment_keeps_nobody_from_the_lock(tmp_path: Path) -> None:
    import fcntl

    with locked(tmp_path):
        pass
    looker = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    assert not is_locked(tmp_path)  # lookers do not see each other
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            os.close(looker)

    with locked(tmp_path, sleep):
        assert len(waited) == 2


def test_a_lock_that_is_held_is_waited_for_a_few_times_only(tmp_path: Path) -> None:
    waited: list[float] = []
    with locked(tmp_path), pytest.raises(OwnedError), locked(tmp_path, waited.append):
        pass
    assert sum(waited) < 0.1


# A lock whose file is deleted.


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
def test_who_has_lost_the_file_takes_the_lock_anew(tmp_path: Path) -> None:
    home = tmp_path / "above" / "home"
    make_private(home)
    with locked(home) as lock:
        assert not lock.renew()
        for lost in (home / LOCK, home, home.parent):
            lost.rename(tmp_path / f"away {lost.name}")
            assert not lock.is_held
            assert lock.renew()
            assert lock.is_held
            assert holder(home) == os.getpid()
    assert holder(home) is None


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
def test_what_another_has_taken_meanwhile_is_the_others(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        (tmp_path / LOCK).unlink()
        with locked(tmp_path):
            for _ in range(2):
                with pytest.raises(OwnedError):
                    lock.renew()
                assert not lock.is_held
        assert lock.renew(), "it has ended"


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
def test_where_it_cannot_be_taken_anew_that_is_tried_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_private(home)
    with locked(home) as lock:
        shutil.rmtree(home)
        home.write_bytes(b"in the way")
        assert not lock.renew()
        assert not lock.is_held
        home.unlink()
        assert lock.renew()
