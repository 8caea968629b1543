"""The status file: what is written is read again, bounded, private, and damage is no status."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import statefile
from skynet.errors import UsageError
from skynet.status import (
    MAX_BYTES,
    MAX_LINES,
    MAX_PROBLEMS,
    STATUS_FILE,
    Held,
    Seen,
    Transfer,
    read_status,
    write_status,
)
from tests.support.statuses import HELD, NOW, PID, TRANSFERS, status

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    full = status(
        state="held", held=HELD, transfers=TRANSFERS, problems=[("a", "b", "c")], problem_count=1
    )
    assert read_status(tmp_path) is None
    for one in (status(), full, status(state="stopping")):
        write_status(tmp_path, one)
        assert read_status(tmp_path) == one
    assert os.listdir(tmp_path) == [STATUS_FILE]


@posix_only
def test_it_is_for_this_user_only(tmp_path: Path) -> None:
    write_status(tmp_path, status())
    assert stat.S_IMODE((tmp_path / STATUS_FILE).stat().st_mode) == 0o600


def test_it_has_an_end_however_much_is_told(tmp_path: Path) -> None:
    long = "\x00" * 5000
    vast = status(
        doing=long,
        server=long,
        offline=long,
        watch=long,
        problems=[(long, "code", long)] * 300,
        problem_count=70_000,
        transfers=[Transfer(long, 1, 2, 3.0)] * 300,
        held=Held("hash", [("code", long)] * 300, [long] * 300, 5),
    )
    write_status(tmp_path, vast)
    assert (tmp_path / STATUS_FILE).stat().st_size <= MAX_BYTES
    found = read_status(tmp_path)
    assert found is not None
    assert found.held is not None
    assert (len(found.problems), found.problem_count) == (MAX_PROBLEMS, 70_000)
    assert (len(found.held.plan), found.held.more) == (MAX_LINES, 5 + 300 - MAX_LINES)


@given(st.text(st.characters(), max_size=30))
def test_no_text_makes_it_fail(text: str) -> None:
    line = statefile.encode(status(offline=text))
    assert b"\n" not in line
    read = msgspec.json.decode(line)["offline"]
    assert read == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    "data",
    [
        *[b"", b"{", b"[]", b'"\xff"', b'{"mirror": 1}', b"[" * 100_000],
        *[statefile.encode(status())[:-9], statefile.encode(status()) + b" " * MAX_BYTES],
    ],
)
def test_a_damaged_file_is_no_status(tmp_path: Path, data: bytes) -> None:
    (tmp_path / STATUS_FILE).write_bytes(data)
    assert read_status(tmp_path) is None
    write_status(tmp_path, status())
    assert read_status(tmp_path) == status()


@posix_only
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / STATUS_FILE)
    assert read_status(tmp_path) is None


@posix_only
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_status(tmp_path, status())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / STATUS_FILE).symlink_to(tmp_path / STATUS_FILE)
    with pytest.raises(UsageError, match="cannot be read"):
        read_status(tmp_path / "sub")


def test_a_disk_that_refuses_keeps_what_was_there_and_gets_nothing_else(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).mkdir()
    with pytest.raises(OSError, match=STATUS_FILE):
        write_status(tmp_path, status())
    assert os.listdir(tmp_path) == [STATUS_FILE]


@posix_only
def test_a_full_disk_tells_no_old_status(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here; that needs root")
    try:
        write_status(tmp_path, status())
        _fill(tmp_path / "filler")
        write_status(tmp_path, status(backlog_files=5))  # in the room of the one before
        told = read_status(tmp_path)
        assert told is not None
        assert (told.backlog_files, told.is_in_sync) == (5, False)
        large = status(problems=[(f"{number:0500}", "no", "No.") for number in range(90)])
        with pytest.raises(OSError, match="No space left"):
            write_status(tmp_path, large)
        assert read_status(tmp_path) is None
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def _fill(path: Path) -> None:
    """Leave no room on the file system."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_only_who_wrote_the_status_and_holds_the_lock_is_alive() -> None:
    assert Seen(status(), PID).alive == status()
    assert Seen(status(), None).alive is None
    assert Seen(status(), PID + 1).alive is None
    assert Seen(None, PID).alive is None


def test_the_time_of_writing_is_no_news() -> None:
    assert Seen(status(updated=NOW), PID).facts == Seen(status(), PID).facts
    assert Seen(status(backlog_files=1), PID).facts != Seen(status(), PID).facts
    assert Seen(status(), None).facts != Seen(status(), PID).facts
