"""Own files, temporary files and trash of a remote: in memory and on a real sftp-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from skynet.ops import Delete, Rmdir
from skynet.remote import Trash
from skynet.remote.verbs import OWN
from skynet.tree import LATEST_TIME, join
from tests.support.targets import KINDS, TEMPS, Place, entry_of, prepared, succeed, temps


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty target that has been prepared."""
    with prepared(request.param, tmp_path) as target:
        yield target


def test_own_files_are_created_once(place: Place) -> None:
    assert place.remote.create(b"lease", b"mine")
    assert not place.remote.create(b"lease", b"theirs")
    assert place.holds(join(OWN, b"lease")) is not None
    assert place.remote.peek([(b"lease", 0, 99)]) == [b"mine"]


def test_peek_gives_pieces_of_several_files(place: Place) -> None:
    place.remote.create(b"one", b"0123456789")
    place.remote.create(b"two", b"")
    wanted = [(b"one", 2, 3), (b"none", 0, 9), (b"one", 8, 99), (b"two", 0, 9), (b"one", 99, 1)]
    assert place.remote.peek(wanted) == [b"234", None, b"89", b"", b""]


def test_own_files_are_replaced_whole_and_read_in_chunks(place: Place) -> None:
    assert place.remote.read(b"manifest") is None
    for chunks in ([], [b"abc", b"", b"d" * 100_000], [b"short"]):
        place.remote.replace(b"manifest", iter(chunks))
        read = place.remote.read(b"manifest")
        assert read is not None
        assert b"".join(read) == b"".join(chunks)
    assert not temps(place)


def test_own_files_are_written_in_place(place: Place) -> None:
    for offset, data in ((0, b"abc"), (3, b"def"), (1, b"XY"), (6, b"!")):
        place.remote.write_at(b"log", offset, data)
    assert place.remote.peek([(b"log", 0, 99)]) == [b"aXYdef!"]


def test_own_files_are_renamed_and_removed(place: Place) -> None:
    place.remote.create(b"a", b"1")
    assert place.remote.rename(b"a", b"b")
    assert not place.remote.rename(b"a", b"c")
    assert place.remote.peek([(b"a", 0, 9), (b"b", 0, 9)]) == [None, b"1"]
    for _ in range(2):
        place.remote.remove(b"b")
    assert place.everything() == {OWN, TEMPS}


def test_temps_are_cleared_and_nothing_else(place: Place) -> None:
    for path in (b"file", join(OWN, b"manifest"), join(TEMPS, b"one"), join(TEMPS, b"\xff two")):
        place.put(path, b"x")
    assert place.remote.clear_temps() == 2
    assert place.remote.clear_temps() == 0
    assert place.everything() == {OWN, TEMPS, b"file", join(OWN, b"manifest")}


def test_temps_to_be_kept_stay_also_in_a_directory_of_their_own(place: Place) -> None:
    place.mkdir(join(TEMPS, b"3"))
    for name in (b"one", b"two", b"3/one", b"3/two"):
        place.put(join(TEMPS, name), b"x")
    assert place.remote.clear_temps((), [b"tmp/one", b"tmp/3/two", b"tmp/gone"]) == 2
    assert place.everything() == {
        *(OWN, TEMPS, join(TEMPS, b"one"), join(TEMPS, b"3"), join(TEMPS, b"3/two"))
    }


def test_old_trash_expires(place: Place) -> None:
    place.remote.expire_trash(b"2024")(LATEST_TIME)
    for stamp in (b"2024-01-01", b"2024-01-02", b"2024-01-03"):
        place.mkdir(b"d")
        place.put(b"d/file", stamp)
        place.remote.trash = Trash(stamp)
        succeed(place.remote, Delete(b"d/file", entry_of(stamp)))
        succeed(place.remote, Rmdir(b"d"))
    before = place.everything()
    remove = place.remote.expire_trash(b"2024-01-02")
    assert place.everything() == before, "it is looked at only"
    remove(LATEST_TIME)
    below = join(OWN, b"trash")
    stamps = {path for path in place.everything() if path.startswith(below + b"/")}
    assert {path.split(b"/")[2] for path in stamps} == {b"2024-01-02", b"2024-01-03"}
    assert join(below, b"2024-01-03/d/file") in stamps
