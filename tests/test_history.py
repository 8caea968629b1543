"""The history of cycles: newest last, bounded on the disk, and damage is passed over."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from skynet import history
from skynet.history import HISTORY, MAX_BYTES, MAX_OPS, OLDER, Record, append, read


def record(number: int, **more: int) -> Record:
    return Record(ended=float(number), seconds=1.5, outcome="changed", done=more)


def numbers(directory: Path, limit: int = 1_000_000) -> list[int]:
    return [int(each.ended) for each in read(directory, limit)]


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def test_the_last_records_are_read_newest_last(tmp_path: Path) -> None:
    assert read(tmp_path, 5) == []
    for number in range(7):
        assert append(tmp_path, record(number, upload=number, bytes=10)) is None
    assert numbers(tmp_path, 3) == [4, 5, 6]
    assert numbers(tmp_path) == list(range(7))
    assert read(tmp_path, 1) == [record(6, upload=6, bytes=10)]
    assert read(tmp_path, 0) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_it_is_for_this_user_only(tmp_path: Path) -> None:
    append(tmp_path, record(1))
    assert stat.S_IMODE((tmp_path / HISTORY).stat().st_mode) == 0o600


def test_what_stays_is_bounded_and_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MAX_BYTES", 4096)
    for number in range(500):
        append(tmp_path, record(number))
        assert on_disk(tmp_path) <= 2 * 4096
        kept = numbers(tmp_path)
        assert kept == list(range(number + 1))[-len(kept) :]
    assert on_disk(tmp_path) > 4096
    across = len((tmp_path / HISTORY).read_bytes().splitlines()) + 2  # some of each file
    assert numbers(tmp_path, across) == list(range(500 - across, 500))


def test_a_record_is_bounded(tmp_path: Path) -> None:
    vast = Record(
        ended=1, seconds=1, outcome="changed", ops=["\x00" * 5000] * 50, more=4, error="e" * 5000
    )
    append(tmp_path, vast)
    [kept] = read(tmp_path, 9)
    assert (len(kept.ops), kept.more) == (MAX_OPS, 4 + 50 - MAX_OPS)
    assert on_disk(tmp_path) < MAX_BYTES // 10


@pytest.mark.parametrize(
    "damage",
    [
        *[b'{"ended": 3', b"{}\n", b"\xff\xff\n", b"\n", b"null\n", b"[" * 50_000 + b"\n"],
        b'{"ended": 1e300, "seconds": 1, "outcome": "changed"}\n',
        b'{"ended": -1, "seconds": 1, "outcome": "changed"}\n',
    ],
)
def test_torn_and_damaged_lines_are_passed_over(tmp_path: Path, damage: bytes) -> None:
    append(tmp_path, record(1))
    with (tmp_path / HISTORY).open("ab") as file:
        file.write(damage)
    append(tmp_path, record(2))
    assert numbers(tmp_path) == [1, 2]


def test_every_tear_costs_one_record_at_most(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path, record(number))
    whole = (tmp_path / HISTORY).read_bytes()
    for length in range(len(whole)):
        (tmp_path / HISTORY).write_bytes(whole[:length])
        append(tmp_path, record(9))
        kept = sum(line in whole.splitlines() for line in whole[:length].splitlines())
        assert numbers(tmp_path) == [*range(kept), 9]


def test_files_of_a_size_that_is_not_ours_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / OLDER).write_bytes(b"x" * (MAX_BYTES + 1))
    append(tmp_path, record(1))
    assert numbers(tmp_path) == [1]


def test_a_disk_that_refuses_is_a_notice(tmp_path: Path) -> None:
    notice = append(tmp_path / "gone", record(1))
    assert notice is not None
    assert notice.code == "history-not-written"
    (tmp_path / HISTORY).mkdir()
    assert append(tmp_path, record(1)) is not None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_notice(tmp_path: Path) -> None:
    (tmp_path / HISTORY).symlink_to("/dev/full")
    notice = append(tmp_path, record(1))
    assert notice is not None
    assert "No space left" in notice.message


def test_a_line_that_is_written_in_part_is_an_error() -> None:
    class AlmostFull(io.FileIO):
        def write(self, data: object) -> int:
            return 3

    with AlmostFull(os.devnull, "w") as file, pytest.raises(OSError, match="No space left"):
        history._write(file, b"four")
