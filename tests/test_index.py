"""The index: the same tree as the edits make, whole transactions, and no trust in its file."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.errors import SkynetError
from skynet.index import Index, pack
from skynet.index_file import IndexDamaged
from skynet.manifest import Facts, Head, Header
from skynet.tree import DIR, FILE, Drop, Edit, Entry, Move, Put, edit, join
from tests.support.histories import History, entries, histories

Tree = dict[bytes, Entry]

HEAD = Head(Header(b"m", 1, "ö", Facts(folds_case=True)), b"c" * 16, b"s" * 16, 9, 2, b"t" * 16, 8)
A, B = Entry(FILE, size=1), Entry(FILE, size=2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "index.db"


def tree_of(index: Index) -> Tree:
    listed = list(index.entries())
    assert len(dict(listed)) == len(listed) == index.count()
    return dict(listed)


def stat_of(index: Index, path: bytes) -> bytes:
    directory, _, name = path.rpartition(b"/")
    return index.children(directory)[name][0]


@given(entries)
def test_entries_pack(entry: Entry) -> None:
    with Index.open(None) as index:
        assert index.unpack(pack(entry)) == entry


# The tree ----------------------------------------------------------------------------------


@given(histories(), st.integers(0, 40))
def test_record_makes_the_tree_that_edit_makes(history: History, cut: int) -> None:
    with Index.open(None) as index:
        index.record(history.edits[:cut], HEAD, {})
        index.record(history.edits[cut:], HEAD, {})
        assert tree_of(index) == history.tree
        for directory in {b"", *history.tree}:
            children = {
                join(directory, name): index.unpack(blob)
                for name, (_, blob) in index.children(directory).items()
            }
            assert children == {
                path: entry
                for path, entry in history.tree.items()
                if path.rpartition(b"/")[0] == directory
            }
        for path in [b"none", *history.tree]:
            assert index.entry(path) == history.tree.get(path)


@given(histories(), st.integers(0, 40), histories())
def test_rebuild_forgets_the_tree_before(history: History, cut: int, before: History) -> None:
    checkpoint: Tree = {}
    edit(checkpoint, history.edits[:cut])
    with Index.open(None) as index:
        index.record(before.edits, HEAD, {})
        index.rebuild(checkpoint.items(), history.edits[cut:])
        assert tree_of(index) == history.tree


def test_entries_come_by_directory_then_name_over_all_pages() -> None:
    paths = [join(b"d%d" % (number % 7), b"%05d" % number) for number in range(10_000)]
    with Index.open(None) as index:
        index.rebuild(((path, A) for path in paths), [])
        listed = [path for path, _ in index.entries()]
    assert listed == sorted(paths, key=lambda path: path.rpartition(b"/"))


def test_neighbours_of_a_directory_stay_when_it_goes() -> None:
    around = [b"d-", b"d-/x", b"d.", b"d./x", b"d0", b"d0/x", b"e/d/x"]
    inside = [b"d", b"d/x", b"d/x/y", b"d/\xff", b"d/\xff/z"]
    with Index.open(None) as index:
        index.rebuild([(path, A) for path in around + inside], [])
        index.record([Move(b"d", b"m\xfe"), Drop(b"m\xfe/x")], HEAD, {})
        assert set(tree_of(index)) == {*around, b"m\xfe", b"m\xfe/\xff", b"m\xfe/\xff/z"}


def test_a_move_to_its_own_path_changes_nothing() -> None:
    with Index.open(None) as index:
        index.record([Put(b"d", Entry(DIR)), Put(b"d/a", A), Move(b"d", b"d")], HEAD, {})
        assert tree_of(index) == {b"d": Entry(DIR), b"d/a": A}


# Stats -------------------------------------------------------------------------------------


def test_a_stat_stays_with_its_entry_and_with_what_moves() -> None:
    with Index.open(None) as index:
        edits: list[Edit] = [Put(b"d", Entry(DIR)), Put(b"d/a", A), Put(b"b", A), Put(b"c", A)]
        index.record(edits, HEAD, {b"d/a": b"1", b"b": b"2"})
        assert stat_of(index, b"c") == b""
        index.record([Move(b"d", b"e"), Put(b"b", A)], HEAD, {})
        assert (stat_of(index, b"e/a"), stat_of(index, b"b")) == (b"1", b"2")
        index.record([Put(b"e/a", B)], HEAD, {})
        assert stat_of(index, b"e/a") == b""
        index.record([], HEAD, {b"b": b""})
        assert stat_of(index, b"b") == b""


def test_a_stat_is_that_of_what_is_at_the_path_in_the_end() -> None:
    edits: list[Edit] = [Put(b"a", A), Put(b"x", A), Move(b"a", b"b"), Move(b"x", b"a")]
    with Index.open(None) as index:
        index.record([Put(b"x", A)], HEAD, {b"x": b"of x"})
        index.record(edits, HEAD, {b"a": b"1", b"b": b"2"})
        assert (stat_of(index, b"a"), stat_of(index, b"b")) == (b"1", b"2")


def test_rebuild_keeps_the_stats_of_unchanged_entries() -> None:
    paths = [b"same", b"other", b"moved"]
    with Index.open(None) as index:
        index.record([Put(path, A) for path in paths], HEAD, dict.fromkeys(paths, b"s"))
        index.rebuild([(b"same", A), (b"other", A), (b"moved", A)], [Put(b"other", B)])
        index.record([Move(b"moved", b"there")], HEAD, {})
        stats = {name: known for name, (known, _) in index.children(b"").items()}
    assert stats == {b"same": b"s", b"other": b"", b"there": b"s"}


def test_remember_sets_stats_alone() -> None:
    with Index.open(None) as index:
        index.record([Put(b"a", A)], HEAD, {})
        index.remember({b"a": b"new", b"absent": b"new"})
        assert index.children(b"") == {b"a": (b"new", pack(A))}
        assert index.head == HEAD


@given(histories(), st.integers(0, 40), st.data())
def test_the_stats_recorded_are_those_that_are_there(
    history: History, cut: int, data: st.DataObject
) -> None:
    paths = sorted({b"none", *(edit.path for edit in history.edits)})
    known = data.draw(st.dictionaries(st.sampled_from(paths), st.sampled_from([b"", b"1", b"2"])))
    with Index.open(None) as index:
        index.record(history.edits[:cut], HEAD, dict.fromkeys(paths, b"before"))
        index.record(history.edits[cut:], HEAD, known)
        for path in known.keys() & history.tree.keys():
            assert stat_of(index, path) == known[path]


@given(histories())
def test_stats_are_those_of_the_children(history: History) -> None:
    with Index.open(None) as index:
        index.record(history.edits, HEAD, dict.fromkeys(history.tree, b"known"))
        for directory in {b"", *history.tree}:
            children = index.children(directory)
            assert index.stats(directory) == {name: known for name, (known, _) in children.items()}


@pytest.mark.parametrize("read_only", [True, False])
def test_what_is_noted_counts_only_when_it_is_remembered(file: Path, read_only: bool) -> None:
    with Index.open(file) as index:
        index.record([Put(b"a", A), Put(b"d/b", A), Put(b"c", A)], HEAD, {b"c": b"old"})
    with Index.open(file, read_only=read_only) as index:
        index.note({b"a": b"1", b"d/b": b"2", b"absent": b"3"})
        index.note({b"a": b"4"})
        assert (stat_of(index, b"a"), stat_of(index, b"d/b")) == (b"", b"")
        if read_only:
            with pytest.raises(SkynetError, match="readonly"):
                index.remember({})
            return
        index.remember({b"c": b"5"})
        index.remember({})
        assert (stat_of(index, b"a"), stat_of(index, b"d/b")) == (b"4", b"2")
        assert stat_of(index, b"c") == b"5"
    with Index.open(file) as index:
        assert stat_of(index, b"a") == b"4"
        assert index.count() == 3


def test_what_was_noted_of_a_tree_is_not_remembered_of_another_one() -> None:
    with Index.open(None) as index:
        index.record([Put(b"a", A)], HEAD, {})
        index.note({b"a": b"of A"})
        index.rebuild([(b"a", B)], [])
        index.remember({})
        assert stat_of(index, b"a") == b""


# Head and root -----------------------------------------------------------------------------


def test_what_is_recorded_is_there_next_time(file: Path) -> None:
    with Index.open(file) as index:
        assert (index.head, index.root, index.count()) == (None, None, 0)
        index.record([Put(b"a", A)], HEAD, {b"a": b"stat"})
        index.root = (7, 1 << 100)
    for read_only in (False, True):
        with Index.open(file, read_only=read_only) as index:
            assert (index.head, index.root) == (HEAD, (7, 1 << 100))
            assert index.children(b"") == {b"a": (b"stat", pack(A))}


def test_the_head_is_unknown_when_rebuilt() -> None:
    with Index.open(None) as index:
        index.record([Put(b"a", A)], HEAD, {})
        index.rebuild([], [])
        assert (index.head, index.count()) == (None, 0)


def test_a_rebuild_that_breaks_off_leaves_the_index_as_it_was(file: Path) -> None:
    def broken() -> Iterator[tuple[bytes, Entry]]:
        yield b"new", A
        raise SkynetError("damaged")

    with Index.open(file) as index:
        index.record([Put(b"a", A)], HEAD, {b"a": b"stat"})
        with pytest.raises(SkynetError, match=r"^damaged$"):
            index.rebuild(broken(), [])
        assert index.children(b"") == {b"a": (b"stat", pack(A))}
        assert index.head == HEAD


# The file ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    before = os.umask(0)
    try:
        Index.open(file).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def filled(file: Path) -> None:
    with Index.open(file) as index:
        index.rebuild(((b"d/%05d" % number, A) for number in range(2_000)), [])
        index.record([], HEAD, {})


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def overwrite(file: Path) -> None:
    file.write_bytes(b"no database at all " * 1_000)


def other_version(file: Path) -> None:
    execute(file, "PRAGMA user_version = 99")


def other_tables(file: Path) -> None:
    execute(file, "DROP TABLE meta")


def execute(file: Path, statement: str) -> None:
    db = sqlite3.connect(file)
    db.execute(statement)
    db.commit()
    db.close()


@pytest.mark.parametrize("spoil", [truncate, overwrite, other_version, other_tables])
def test_a_file_that_is_not_ours_is_begun_anew(file: Path, spoil: Callable[[Path], None]) -> None:
    filled(file)
    spoil(file)
    spoiled = file.read_bytes()
    with Index.open(file, read_only=True) as index:
        assert (index.count(), index.head) == (0, None)
    assert file.read_bytes() == spoiled
    with Index.open(file) as index:
        assert (index.count(), index.head) == (0, None)
        index.record([Put(b"a", A)], HEAD, {})
    with Index.open(file) as index:
        assert tree_of(index) == {b"a": A}


def test_damage_that_shows_later_is_met_once(file: Path) -> None:
    filled(file)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2].ljust(len(data), b"\xa5"))
    with Index.open(file) as index, pytest.raises(IndexDamaged, match="has been deleted"):
        list(index.entries())
    with Index.open(file) as index:
        assert index.count() == 0


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
def test_an_index_that_is_removed_while_it_is_open_is_begun_anew(file: Path) -> None:
    filled(file)
    with Index.open(file) as index:
        file.unlink()
        with pytest.raises(IndexDamaged, match="was removed"):
            index.record([Put(b"a", A)], HEAD, {})
    with Index.open(file) as index:
        assert index.count() == 0


def read_entries(index: Index) -> object:
    return list(index.entries())


def read_entry(index: Index) -> object:
    return index.entry(b"d/00000")


def read_children(index: Index) -> object:
    return [index.unpack(packed) for _, packed in index.children(b"d").values()]


def read_head(index: Index) -> object:
    return index.head


def read_root(index: Index) -> object:
    return index.root


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("UPDATE entries SET entry = x'c1'", read_entries),
        ("UPDATE entries SET entry = x'c1'", read_entry),
        ("UPDATE entries SET entry = x'c1'", read_children),
        ("UPDATE entries SET entry = x'91a1ff'", read_children),  # its kind is no UTF-8
        ("UPDATE entries SET entry = CAST(x'c1' AS TEXT)", read_children),
        ("UPDATE entries SET entry = 5", read_entry),
        ("UPDATE meta SET value = x'c1'", read_head),
        ("UPDATE meta SET value = CAST(x'c1' AS TEXT)", read_head),
        ("UPDATE meta SET value = 5", read_head),
        ("INSERT INTO meta VALUES ('root', x'c1')", read_root),
    ],
)
def test_values_that_are_not_ours_are_damage(
    file: Path, statement: str, read: Callable[[Index], object]
) -> None:
    filled(file)
    execute(file, statement)
    with Index.open(file, read_only=True) as index, pytest.raises(IndexDamaged, match="not used"):
        read(index)
    with Index.open(file) as index, pytest.raises(IndexDamaged, match="has been deleted"):
        read(index)
    assert not file.exists()


def snapshot(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_a_read_only_index_writes_nothing(file: Path) -> None:
    filled(file)
    before = snapshot(file.parent)
    with Index.open(file, read_only=True) as index:
        assert len(tree_of(index)) == 2_000
        assert index.head == HEAD
        writes: list[Callable[[], None]] = [
            lambda: index.record([Drop(b"d")], HEAD, {}),
            lambda: index.rebuild([], []),
            lambda: index.remember({b"d/00000": b"stat"}),
        ]
        for write in writes:
            with pytest.raises(SkynetError, match="readonly"):
                write()
        assert snapshot(file.parent) == before
    assert snapshot(file.parent) == before


def test_a_read_only_index_that_is_absent_is_empty_and_stays_absent(file: Path) -> None:
    with Index.open(file, read_only=True) as index:
        index.record([Put(b"a", A)], HEAD, {})
        assert tree_of(index) == {b"a": A}
    assert not file.parent.exists()


def test_what_a_crash_left_unfinished_is_rolled_back_by_a_writer_only(file: Path) -> None:
    filled(file)
    crash = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN');"
        "db.execute('UPDATE entries SET stat = entry'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", crash, str(file)], check=True)
    before = snapshot(file.parent)
    assert len(before) == 2  # the journal of the transaction
    with Index.open(file, read_only=True) as index:
        assert index.count() == 0
    assert snapshot(file.parent) == before
    with Index.open(file) as index:
        assert len(tree_of(index)) == 2_000
        assert stat_of(index, b"d/00000") == b""


def test_failing_storage_names_the_file_and_what_to_do(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(SkynetError, match="--state-dir") as caught:
        Index.open(file)
    assert str(file) in str(caught.value)
    assert not isinstance(caught.value, IndexDamaged)


def test_a_closed_index_says_so() -> None:
    index = Index.open(None)
    index.close()
    index.close()
    with pytest.raises(SkynetError, match="closed"):
        index.count()
