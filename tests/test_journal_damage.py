"""Whatever is done to a journal or to its disk, no change is lost, and no harm is done."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from diskcache import Cache

from skynet import hints
from skynet.dirty import MAX_PATH
from skynet.journal import MAX_PAUSE
from skynet.marks import Mark
from tests.support.databases import Marker, execute
from tests.support.journals import ALL, Opened
from tests.support.mounts import SmallDisk, small_disk


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(tmp_path / "journal")
    yield opened
    opened.journal.close()


def full(opened: Opened, count: int = 300) -> dict[bytes, bool]:
    opened.journal.mark([Mark(b"d%d/file %d" % (n % 7, n), n % 10 == 0) for n in range(count)])
    opened.journal.flush()
    found = opened.journal.pending().marks
    opened.journal.close()
    return found


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, a block emptied, or the end cut off."""
    found = bytearray(data)
    kind = chance.randrange(4)
    place = chance.randrange(len(found))
    if kind == 0:
        return bytes(found[:place])
    if kind == 1:
        place -= place % 512
        found[place : place + 512] = bytes(min(512, len(found) - place))
    for _ in range(chance.choice([1, 1, 3, 100])):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def test_damage_anywhere_loses_no_change(opened: Opened) -> None:
    marked = full(opened)
    whole = (opened.directory / "cache.db").read_bytes()
    found_out = 0
    for seed in range(400):
        (opened.directory / "cache.db").write_bytes(damaged(whole, random.Random(seed)))
        found = opened.holds()
        opened.journal.close()
        assert found in (marked, ALL), seed
        found_out += found == ALL
    assert found_out > 100
    assert opened.notices == ["journal-damaged"] * found_out


def test_a_strange_rollback_journal_loses_no_change(opened: Opened) -> None:
    marked = full(opened)
    whole = (opened.directory / "cache.db").read_bytes()
    magic = bytes.fromhex("d9d505f920a163d7")
    for seed in range(100):
        chance = random.Random(seed)
        header = magic + bytes([0, 0, 0, chance.randrange(9)]) + chance.randbytes(4)
        pages = len(whole) // 4096
        header += pages.to_bytes(4) + (512).to_bytes(4) + (4096).to_bytes(4)
        (opened.directory / "cache.db").write_bytes(whole)
        (opened.directory / "cache.db-journal").write_bytes(
            header.ljust(512, b"\0") + b"\0\0\0" + chance.randbytes(1 + 4100 * seed // 10)
        )
        found = opened.holds()
        opened.journal.close()
        assert found in (marked, ALL), seed


def changed(statement: str, *values: object) -> Callable[[Path], None]:
    return lambda directory: execute(directory, statement, *values)


def row(key: object, value: object = b"", raw: int = 1, mode: int = 1) -> Callable[[Path], None]:
    return changed(
        "INSERT INTO Cache (key, raw, mode, value) VALUES (?, ?, ?, ?)", key, raw, mode, value
    )


def pickled_value(directory: Path) -> None:
    value = pickle.dumps(Marker(directory.parent / "harm"))
    execute(directory, "UPDATE Cache SET value = ?, mode = 4 WHERE rowid = 3", value)


def pickled_key(directory: Path) -> None:
    row(pickle.dumps(Marker(directory.parent / "harm")), raw=0)(directory)


def no_database(directory: Path) -> None:
    (directory / "cache.db").unlink()


def rubbish(directory: Path) -> None:
    (directory / "cache.db").write_bytes(b"rubbish" * 1000)


def many_rows(directory: Path) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    with connection:
        connection.executemany(
            "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 1, 1, x'')",
            [(b"f%d" % number,) for number in range(1001)],
        )
    connection.close()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no database": no_database,
    "empty database": lambda directory: os.truncate(directory / "cache.db", 0),
    "rubbish": rubbish,
    "huge": lambda directory: os.truncate(directory / "cache.db", 1 << 40),
    "open to all": lambda directory: directory.chmod(0o755),
    "no rows": changed("DELETE FROM Cache"),
    "no marks": changed("DELETE FROM Cache WHERE key != x'2f2f'"),
    "no sum": changed("DELETE FROM Cache WHERE key = x'2f2f'"),
    "another sum": changed("UPDATE Cache SET value = zeroblob(16) WHERE key = x'2f2f'"),
    "a mark less": changed("DELETE FROM Cache WHERE rowid = (SELECT MIN(rowid) FROM Cache)"),
    "a mark more": row(b"x"),
    "another mark": changed("UPDATE Cache SET key = x'41' WHERE rowid = 3"),
    "no table": changed("ALTER TABLE Cache RENAME TO Elsewhere"),
    "strange setting": changed("INSERT INTO Settings VALUES ('disk_strange', 1)"),
    "pickled value": pickled_value,
    "pickled key": pickled_key,
    "text key": row("x"),
    "number": row(1),
    "nothing": row(None),
    "value": changed("UPDATE Cache SET value = x'79' WHERE rowid = 3"),
    "text value": changed("UPDATE Cache SET value = '' WHERE rowid = 3"),
    "value in a file": changed("UPDATE Cache SET filename = '../treasure' WHERE rowid = 3"),
    "value in a file to be read": changed(
        "UPDATE Cache SET filename = '../treasure', mode = 2 WHERE rowid = 3"
    ),
    "expired": changed("UPDATE Cache SET expire_time = 1 WHERE rowid = 3"),
    "oversized": row(b"x" * (MAX_PATH + 2)),
    "many rows": many_rows,
    "out of the tree": row(b"../x"),
    "absolute": row(b"/etc/"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot be removed while it is open")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_it_marks_everything(opened: Opened, damage: str) -> None:
    treasure = opened.directory.parent / "treasure"
    treasure.write_bytes(b"gold")
    full(opened)
    DAMAGES[damage](opened.directory)
    assert opened.holds() == ALL
    assert opened.notices == ["journal-damaged"]
    assert opened.holds() == ALL
    assert opened.notices == ["journal-damaged"]
    opened.journal.settle(opened.journal.pending().upto, [Mark(b"a")])
    opened.journal.flush()
    assert opened.holds() == {b"a": False}
    assert treasure.read_bytes() == b"gold"
    assert {path.name for path in opened.directory.parent.iterdir()} == {"journal", "treasure"}


def test_more_marks_than_are_allowed_mark_everything(opened: Opened) -> None:
    marked = full(opened)
    opened.max_marks = len(marked)
    assert opened.holds() == marked
    opened.max_marks -= 1
    assert opened.holds() == ALL


def test_an_older_sum_is_not_believed(opened: Opened) -> None:
    """As if the newest rows had come to the disk, and the sum had not."""
    full(opened)
    sum_before = "SELECT value FROM Cache WHERE key = x'2f2f'"
    with contextlib.closing(sqlite3.connect(opened.directory / "cache.db")) as connection:
        (before,) = connection.execute(sum_before).fetchone()
    opened.again().mark([Mark(b"new")])
    opened.journal.flush()
    opened.journal.close()
    execute(opened.directory, "UPDATE Cache SET value = ? WHERE key = x'2f2f'", before)
    assert opened.holds() == ALL


def test_a_lost_directory_is_a_journal_begun(opened: Opened) -> None:
    full(opened)
    shutil.rmtree(opened.directory)
    assert opened.holds() == {}
    assert opened.notices == []


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot be removed while it is open")
@pytest.mark.parametrize("damage", ["a mark less", "no table", "value in a file", "no directory"])
def test_damage_at_run_time_costs_nothing(opened: Opened, damage: str) -> None:
    opened.journal.mark([Mark(b"a"), Mark(b"b")])
    opened.journal.flush()
    (DAMAGES | {"no directory": shutil.rmtree})[damage](opened.directory)
    opened.journal.settle(opened.journal.pending().upto, keep=[Mark(b"b")])
    opened.journal.mark([Mark(b"c")])
    for _ in range(4):
        opened.journal.flush()
    assert opened.journal.pending().marks == {b"b": False, b"c": False}
    assert opened.holds() in ({b"b": False, b"c": False}, ALL)


# A disk that is full or read-only.


class Disk:
    """Stands in for diskcache's Cache, and fails while it is `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self.tries = 0
        monkeypatch.setattr(hints, "Cache", self.open)

    def open(self, *arguments: object, **options: object) -> Cache:
        self.tries += 1
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        return Cache(*arguments, **options)


def test_a_full_disk_is_told_once_and_tried_at_a_bounded_pace(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    opened.journal.mark([Mark(b"a")])
    for number in range(10 * MAX_PAUSE):
        opened.journal.mark([Mark(b"d/%d" % number)])
        opened.journal.flush()
    assert opened.notices == ["journal-degraded"]
    assert 10 <= disk.tries <= 30
    assert opened.journal.pending().marks == {b"a": False, b"d": True}
    disk.full = False
    for _ in range(MAX_PAUSE + 1):
        opened.journal.flush()
    assert opened.holds() == {b"a": False, b"d": True}
    assert opened.notices == ["journal-degraded"]


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot be removed while it is open")
def test_after_a_success_the_pace_is_as_before(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    opened.journal.mark([Mark(b"a")])
    for _ in range(MAX_PAUSE):
        opened.journal.flush()
    disk.full = False
    for _ in range(MAX_PAUSE):
        opened.journal.flush()
    opened.journal.mark([Mark(b"b")])
    shutil.rmtree(opened.directory)
    for _ in range(4):
        opened.journal.flush()
    assert opened.holds() == {b"a": False, b"b": False}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small") as disk:
        yield disk


def test_a_disk_that_is_really_full(disk: SmallDisk) -> None:
    opened = Opened(disk.place / "journal")
    opened.journal.mark([Mark(b"a")])
    opened.journal.flush()
    disk.fill()
    marked = {b"%d/%s" % (n % 3, b"x" * 200 + b"%d" % n): False for n in range(900)}
    opened.journal.mark(map(Mark, marked))
    for _ in range(20):
        opened.journal.flush()
    assert opened.notices == ["journal-degraded"]
    assert opened.journal.pending().marks == marked | {b"a": False}
    disk.empty()
    opened.journal.settle(opened.journal.pending().upto, [Mark(b"b")])
    for _ in range(MAX_PAUSE + 1):
        opened.journal.flush()
    assert opened.holds() == {b"b": False}
    opened.journal.close()


def test_a_disk_that_is_read_only(disk: SmallDisk) -> None:
    opened = Opened(disk.place / "journal")
    full(opened, 10)
    disk.remount("ro")
    assert opened.holds() == ALL
    opened.journal.settle(opened.journal.pending().upto, [Mark(b"b")])
    for _ in range(10):
        opened.journal.flush()
    assert opened.notices == ["journal-damaged", "journal-degraded"]
    disk.remount("rw")
    for _ in range(MAX_PAUSE + 1):
        opened.journal.flush()
    assert opened.holds() in ({b"b": False}, ALL)
    opened.journal.close()
