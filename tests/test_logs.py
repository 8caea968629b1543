"""The daemon's log: one line a record, a bounded file, and no trouble that could end a daemon."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.errors import UsageError
from skynet.logs import MAX_CHARACTERS, Logs, leads_to_journal

DATED = re.compile(r"(\S+) (ERROR|WARNING|INFO|DEBUG) (.*)\n")
posix_only = pytest.mark.skipif(os.name != "posix", reason="about permissions and devices")


def test_for_a_person_a_record_has_its_time_with_the_zone_and_its_level() -> None:
    stream = io.StringIO()
    Logs(stream, clock=lambda: 1_800_000_000.25).log("warning", "pictures", "the server is away")
    match = DATED.fullmatch(stream.getvalue())
    assert match is not None
    moment = datetime.fromisoformat(match[1])
    assert (moment.timestamp(), moment.tzinfo is None) == (1_800_000_000.25, False)
    assert match.groups()[1:] == ("WARNING", "pictures: the server is away")


def test_for_journald_a_record_has_its_priority() -> None:
    stream = io.StringIO()
    logs = Logs(stream, journal=True)
    logs.log("error", "pictures", "a plan is held")
    logs.log("warning", "pictures", "away")
    logs.log("info", "", "<0>is no priority")
    logs.log("debug", "", "x")
    assert stream.getvalue().splitlines() == [
        *("<3>pictures: a plan is held", "<4>pictures: away", "<6><0>is no priority", "<7>x")
    ]


@given(st.text(), st.text(), st.booleans())
def test_a_record_is_one_line_whatever_a_file_is_called(
    mirror: str, message: str, journal: bool
) -> None:
    stream = io.StringIO()
    Logs(stream, journal=journal).log("info", mirror, message)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_a_long_message_is_cut() -> None:
    stream = io.StringIO()
    Logs(stream, journal=True).log("info", "", "x\n" * MAX_CHARACTERS)
    assert len(stream.getvalue()) == len("<6>") + MAX_CHARACTERS + len("\n")
    assert stream.getvalue().endswith("...\n")


@posix_only
def test_the_journal_is_known_by_the_device_and_inode_of_the_stream(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream:
        status = os.fstat(stream.fileno())
        mine = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert leads_to_journal(stream, mine)
        assert not leads_to_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:1"})
        assert not leads_to_journal(stream, {})
    assert not leads_to_journal(stream, mine)  # closed
    assert not leads_to_journal(io.StringIO(), mine)
    assert not leads_to_journal(None, mine)


# The file


def logged(path: Path) -> list[str]:
    """The messages of the file and of its old ones, oldest first."""
    old = sorted(path.parent.glob(f"{path.name}.*"), reverse=True)
    lines = "".join(each.read_text() for each in [*old, path]).splitlines(keepends=True)
    matches = [DATED.fullmatch(line) for line in lines]
    return [match[3] for match in matches if match is not None]


@given(
    st.lists(st.integers(0, 300), max_size=60),
    st.integers(100, 2000),
    st.integers(1, 4),
)
def test_the_file_is_turned_over_and_what_is_kept_is_the_last(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], max_bytes: int, keep: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "skynet.log"
    logs = Logs(None, path, max_bytes, keep)
    messages = [f"{number} {'x' * length}" for number, length in enumerate(lengths)]
    for message in messages:
        logs.log("info", "", message)
    logs.close()
    files = list(path.parent.iterdir())
    longest = 60 + 305  # a line longer than the file may be has a file of its own
    assert all(file.stat().st_size <= max(max_bytes, longest) for file in files)
    assert len(files) <= 1 + keep
    found = logged(path)
    assert found == messages[len(messages) - len(found) :]
    assert len(found) == len(messages) or len(files) == 1 + keep


@posix_only
def test_only_the_owner_reads_the_files(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        logs = Logs(None, tmp_path / "skynet.log", 100)
        for _ in range(9):
            logs.log("info", "", "x" * 80)
        logs.close()
    finally:
        os.umask(previous)
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 4


def test_a_new_run_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    path = tmp_path / "skynet.log"
    for message in ("first", "second"):
        logs = Logs(None, path)
        logs.log("info", "", message)
        logs.close()
    assert logged(path) == ["first", "second"]


@posix_only
def test_a_file_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "skynet.log"
    logs = Logs(None, path)
    logs.log("info", "", "first")
    path.unlink()
    logs.log("info", "", "second")
    logs.close()
    assert logged(path) == ["second"]


@pytest.mark.parametrize("where", ["gone/skynet.log", "."])
def test_a_file_that_cannot_be_written_at_first_is_an_error(tmp_path: Path, where: str) -> None:
    with pytest.raises(UsageError, match="Name another one with --log-file"):
        Logs(None, tmp_path / where)


@posix_only
def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError):
        Logs(None, tmp_path / "pipe")


# Trouble


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_full_disk_is_told_once_and_survived(tmp_path: Path) -> None:
    path = tmp_path / "skynet.log"
    path.symlink_to("/dev/full")
    stream = io.StringIO()
    logs = Logs(stream, path, journal=True)
    for number in range(3):
        logs.log("info", "", f"lost {number}")
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if line.startswith("<6>")] == [f"<6>lost {n}" for n in range(3)]
    [trouble] = [line for line in lines if line.startswith("<4>")]
    assert "No space left on device" in trouble
    path.unlink()  # and now there is room
    logs.log("info", "", "kept")
    logs.close()
    assert "(3 records before this one could not be written.)\n" in path.read_text()
    assert logged(path) == ["kept"]


def test_a_line_that_was_cut_short_does_not_run_into_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "skynet.log"
    logs = Logs(None, path)
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, data: write(handle, data[:30]))
        logs.log("info", "", "cut")
    logs.log("info", "", "whole")
    logs.close()
    assert logged(path) == ["whole"]
    assert "\n(1 records before this one" in path.read_text()


def test_a_file_that_cannot_be_turned_over_does_not_grow(tmp_path: Path) -> None:
    path = tmp_path / "skynet.log"
    (tmp_path / "skynet.log.1").mkdir()  # no file can take its place
    (tmp_path / "skynet.log.1" / "x").touch()
    (tmp_path / "skynet.log.2").mkdir()
    (tmp_path / "skynet.log.2" / "x").touch()
    stream = io.StringIO()
    logs = Logs(stream, path, 200, 1)
    for number in range(50):
        logs.log("info", "", f"record {number}")
    assert path.stat().st_size <= 200
    assert stream.getvalue().count("record ") == 50
    assert stream.getvalue().count("cannot be written") == 1
    (tmp_path / "skynet.log.1" / "x").unlink()
    (tmp_path / "skynet.log.1").rmdir()
    logs.log("info", "", "the last one")
    logs.close()
    assert "the last one" in path.read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is always full")
def test_a_stream_that_cannot_be_written_stops_neither_daemon_nor_file(tmp_path: Path) -> None:
    path = tmp_path / "skynet.log"
    full = os.open("/dev/full", os.O_WRONLY)
    closed = io.StringIO()
    closed.close()
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(full, stream.fileno())
        os.close(full)
        for each in (stream, closed):
            logs = Logs(each, path)
            logs.log("info", "", "heard")
            logs.close()
        with open(os.devnull, "w") as sink:
            os.dup2(sink.fileno(), stream.fileno())  # what is left in its buffer can go now
    assert logged(path) == ["heard", "heard"]


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "skynet.log"
    stream = io.StringIO()
    logs = Logs(stream, path, 2000, 500)

    def say(number: int) -> None:
        for count in range(100):
            logs.log("info", "", f"{number} {count}")

    threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    logs.close()
    expected = sorted(f"{n} {k}" for n in range(4) for k in range(100))
    texts = [each.read_text() for each in tmp_path.iterdir()]
    for text in ("".join(texts), stream.getvalue()):
        assert sorted(match[3] for match in DATED.finditer(text)) == expected
