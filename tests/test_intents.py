"""The intents: what is kept, and that nothing that is put in their place does any harm."""

from __future__ import annotations

import os
import pickle
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import hints
from skynet.hints import MAX_FAILURES
from skynet.intents import MAX_BYTES, MAX_DATABASE, MAX_INTENTS, Intents
from skynet.monitor import Event, Notice
from skynet.remote import Intent
from skynet.remote.verbs import is_temp
from tests.support.databases import Marker, execute

INTENT = Intent(b"identity", 1000, b"tmp/a0-1", 500, b"d" * 16)
KEY = b"intent d/video"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "intents"


class Opened:
    """Intents in one directory, one after another, and what they had to tell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.intents = Intents(directory, self.events.append)

    def again(self) -> Intents:
        self.intents.close()
        self.intents = Intents(self.directory, self.events.append)
        return self.intents

    @property
    def notices(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def opened(directory: Path) -> Iterator[Opened]:
    opened = Opened(directory)
    yield opened
    opened.intents.close()


def test_intents_are_kept_replaced_and_forgotten(opened: Opened) -> None:
    further = msgspec.structs.replace(INTENT, length=700)
    other = msgspec.structs.replace(INTENT, temp=b"tmp/7/a0-2")
    opened.intents.note({b"d/video": INTENT, b"\xff\n": other})
    assert opened.again().noted() == {b"d/video": INTENT, b"\xff\n": other}
    opened.intents.note({b"d/video": further})
    assert opened.again().noted() == {b"d/video": further, b"\xff\n": other}
    opened.intents.forget([b"\xff\n", b"never known"])
    assert opened.again().noted() == {b"d/video": further}
    assert opened.notices == []


def test_nothing_is_made_until_there_is_something_to_keep(opened: Opened) -> None:
    assert opened.intents.noted() == {}
    opened.intents.note({})
    opened.intents.forget([b"a"])
    assert not opened.directory.exists()


def test_what_is_known_is_not_written_again(opened: Opened) -> None:
    opened.intents.note({b"a": INTENT})
    database = opened.directory / "cache.db-wal"
    before = database.read_bytes()
    opened.intents.note({b"a": INTENT})
    opened.intents.forget([b"b"])
    assert database.read_bytes() == before


def test_a_name_too_long_for_a_key_is_not_noted(opened: Opened) -> None:
    opened.intents.note({b"x" * MAX_BYTES: INTENT, b"a": INTENT})
    assert opened.again().noted() == {b"a": INTENT}
    assert opened.notices == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_its_owner_can_read_it(opened: Opened) -> None:
    opened.intents.note({b"a": INTENT})
    assert stat.S_IMODE(opened.directory.stat().st_mode) == 0o700


# Damage, and malice.


def set_value(value: bytes) -> Callable[[Path], None]:
    return lambda directory: execute(directory, "UPDATE Cache SET value = ?", value)


def set_intent(**changes: object) -> Callable[[Path], None]:
    return set_value(msgspec.msgpack.encode(msgspec.structs.replace(INTENT, **changes)))


def pickled_value(directory: Path) -> None:
    value = pickle.dumps(Marker(directory.parent / "harm"))
    execute(directory, "UPDATE Cache SET value = ?, mode = 4", value)


def pickled_key(directory: Path) -> None:
    execute(
        directory, "UPDATE Cache SET key = ?, raw = 0", pickle.dumps(Marker(directory.parent / "x"))
    )


def many_rows(directory: Path) -> None:
    for number in range(MAX_INTENTS + 1):
        execute(
            directory,
            "INSERT INTO Cache (key, raw, mode, value) SELECT ?, 1, 0, value FROM Cache LIMIT 1",
            b"intent %d" % number,
        )


def rubbish(directory: Path) -> None:
    (directory / "cache.db").write_bytes(b"rubbish" * 1000)


def no_table(directory: Path) -> None:
    execute(directory, "ALTER TABLE Cache RENAME TO Elsewhere")


def strange_setting(directory: Path) -> None:
    execute(directory, "INSERT INTO Settings VALUES ('disk_strange', 1)")


def huge(directory: Path) -> None:
    os.truncate(directory / "cache.db", MAX_DATABASE + 1)


def open_to_all(directory: Path) -> None:
    directory.chmod(0o755)


def a_file(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()
    directory.rmdir()
    directory.write_bytes(b"")


DAMAGES = {
    "rubbish": rubbish,
    "strange setting": strange_setting,
    "huge": huge,
    "open to all": open_to_all,
    "a file": a_file,
    "pickled value": pickled_value,
    "pickled key": pickled_key,
    "foreign key": lambda directory: execute(directory, "UPDATE Cache SET key = x'00'"),
    "text key": lambda directory: execute(directory, "UPDATE Cache SET key = 'intent a'"),
    "value in a file": lambda directory: execute(
        directory, "UPDATE Cache SET filename = 'f', mode = 2"
    ),
    "expired": lambda directory: execute(directory, "UPDATE Cache SET expire_time = 1"),
    "no msgpack": set_value(b"\xc1"),
    "long": set_value(b"x" * (MAX_BYTES + 1)),
    "many rows": many_rows,
    "more than all": set_intent(length=1001),
    "nothing": set_intent(length=0),
    "short digest": set_intent(digest=b"d"),
    "out of tmp": set_intent(temp=b"tmp/../../manifest"),
    "absolute": set_intent(temp=b"/etc/passwd"),
    "tmp itself": set_intent(temp=b"tmp"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot be removed while it is open")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_it_is_begun_anew(opened: Opened, damage: str) -> None:
    opened.intents.note({KEY.removeprefix(b"intent "): INTENT})
    opened.intents.close()
    DAMAGES[damage](opened.directory)
    assert opened.again().noted() == {}
    assert opened.notices == ["intents-damaged"]
    opened.intents.note({b"a": INTENT})
    assert opened.again().noted() == {b"a": INTENT}
    assert opened.notices == ["intents-damaged"]
    assert not (opened.directory.parent / "harm").exists()
    assert [path.name for path in opened.directory.parent.iterdir()] == ["intents"]


def test_a_file_that_a_row_names_is_not_removed(opened: Opened) -> None:
    """Nor by replacing the row: diskcache would remove whatever it names."""
    treasure = opened.directory.parent / "treasure"
    treasure.write_bytes(b"gold")
    opened.intents.note({b"a": INTENT})
    execute(opened.directory, "UPDATE Cache SET filename = ?", "../treasure")
    opened.intents.note({b"a": msgspec.structs.replace(INTENT, length=600)})
    assert treasure.read_bytes() == b"gold"
    assert opened.notices == ["intents-damaged"]


def test_a_link_in_its_place_is_removed_and_not_followed(opened: Opened) -> None:
    elsewhere = opened.directory.parent / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    opened.directory.symlink_to(elsewhere)
    assert opened.intents.noted() == {}
    opened.intents.note({b"a": INTENT})
    assert opened.again().noted() == {b"a": INTENT}
    assert list(elsewhere.iterdir()) == []


def test_what_cannot_be_kept_is_told_and_not_tried_for_ever(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def full(*arguments: object, **options: object) -> None:
        tried.append(arguments)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(hints, "Cache", full)
    for length in range(1, 10):
        opened.intents.note({b"a": msgspec.structs.replace(INTENT, length=length)})
    assert len(tried) == MAX_FAILURES
    assert opened.notices == ["intents-damaged"] * MAX_FAILURES
    assert opened.intents.noted() == {}


def test_a_directory_whose_name_would_be_expanded_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "elsewhere")
    opened = Opened(tmp_path / "$ELSEWHERE" / "intents")
    opened.directory.parent.mkdir()
    opened.intents.note({b"a": INTENT})
    assert opened.intents.noted() == {}
    assert [path.name for path in tmp_path.rglob("*")] == ["$ELSEWHERE"]


@given(st.binary(max_size=20))
def test_a_name_of_a_temporary_file_leads_nowhere_else(tail: bytes) -> None:
    name = b"tmp/" + tail
    if is_temp(name):
        assert 1 <= len(tail.split(b"/")) <= 2
        assert not {b"", b".", b".."} & set(tail.split(b"/"))
        assert b"\0" not in tail


def test_names_of_temporary_files_as_they_are_made() -> None:
    assert is_temp(b"tmp/0123456789-1f")
    assert is_temp(b"tmp/7/0123456789-1f")
    for name in (b"", b"tmp", b"tmp/", b"tmp/a/b/c", b"trash/a", b"tmp/..", b"tmp//a", b"tmp/a\n"):
        assert not is_temp(name)
