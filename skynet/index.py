"""The local index: a SQLite cache of the synced tree, with the stat identity of each file.

It spares the download of the manifest while `head` is still current, and the hashing of files
whose stat identity is the one recorded. It is a hint, never the truth: deleting it costs a
manifest download and a rescan. So a file of another format is begun anew, and one that proves to
be damaged, wherever that shows, is deleted: the cycle then starts again without it.

One row per entry, keyed by directory and name, so that a directory's children lie together.
Writes are whole transactions. One thread owns an Index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from skynet import index_file
from skynet.errors import SkynetError
from skynet.index_file import IndexDamaged
from skynet.index_paths import DROPS, LARGE_MOVES, MOVES, below, split
from skynet.manifest_codec import Head
from skynet.tree import FILE, Edit, Entry, Move, Put, join

LARGE = 64 * 1024  # bytes of a file that is worth being copied on the server
STAT_UNKNOWN = b""  # the manifest was loaded anew: nothing is known of the local file
_PAGE = 4096  # rows that a streaming read holds at a time

# The fifth value says whether the stat is known; else it stays with an entry that is the same.
_PUT = """INSERT INTO entries (dir, name, stat, entry) VALUES (?1, ?2, ?3, ?4)
    ON CONFLICT DO UPDATE SET entry = excluded.entry,
    stat = CASE WHEN ?5 OR entry <> excluded.entry THEN excluded.stat ELSE stat END"""
_IS_LARGE = "INSERT OR IGNORE INTO large VALUES (?, ?, ?)"
_FIND_LARGE = (
    "INSERT INTO large SELECT large_size(entry), dir, name FROM entries WHERE large_size(entry)"
)
_OF_SIZE = """SELECT entries.dir, entries.name, entry FROM large JOIN entries
    ON entries.dir = large.dir AND entries.name = large.name WHERE large.size = ? LIMIT 1000"""
_NOTED = """CREATE TEMP TABLE IF NOT EXISTS noted (
    dir BLOB NOT NULL, name BLOB NOT NULL, stat BLOB NOT NULL,
    PRIMARY KEY (dir, name)) WITHOUT ROWID"""
_NOTE = "INSERT OR REPLACE INTO noted VALUES (?, ?, ?)"
_REMEMBER_NOTED = """UPDATE entries SET stat = noted.stat FROM noted
    WHERE noted.dir = entries.dir AND noted.name = entries.name"""
_REMEMBER = "UPDATE entries SET stat = ? WHERE dir = ? AND name = ?"
_CARRY_STATS = """UPDATE entries SET stat = old.stat FROM old
    WHERE old.dir = entries.dir AND old.name = entries.name AND old.entry = entries.entry"""
_STATS = "SELECT name, stat FROM entries WHERE dir = ?"
_CHILDREN = "SELECT name, stat, entry FROM entries WHERE dir = ? ORDER BY name"
_ROW = "SELECT stat, entry FROM entries WHERE dir = ? AND name = ?"
_NEXT_PAGE = """SELECT dir, name, entry FROM entries WHERE (dir, name) > (?, ?)
    ORDER BY dir, name LIMIT ?"""

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_deletes = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode

# What decoding raises for values that are none of ours: text that is no UTF-8, values nested
# without end and columns that hold no bytes have errors of their own.
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)


def pack(entry: Entry) -> bytes:
    """The entry as the index holds it: equal entries give equal bytes."""
    return _encode(entry)


class Index:
    """The synced tree as last known, and what the local files looked like then.

    Made by `open`. Failing storage raises SkynetError; damage raises IndexDamaged, after the
    file was deleted unless it is read-only, so that the next `open` begins anew. So does a change
    where somebody has removed the file.
    """

    def __init__(self, db: sqlite3.Connection, path: Path | None, *, read_only: bool) -> None:
        self._db = db
        self._path = path
        self._read_only = read_only
        self._has_notes = False

    @classmethod
    def open(cls, path: Path | None, *, read_only: bool = False) -> Index:
        """The index in the file `path`, which is made when absent; None keeps it in memory.

        With `read_only` nothing is written: an unusable or absent file gives an empty index in
        memory, a usable one refuses changes.
        """
        if path is None or (read_only and not path.exists()):
            return cls._in_memory()
        try:
            if not read_only:
                index_file.make_file(path)
            db = index_file.connect(path, read_only=read_only)
            if db is None and not read_only:
                db = index_file.begin_anew(path)
        except (OSError, sqlite3.Error) as error:
            raise index_file.failure(path, error) from error
        return cls(db, path, read_only=read_only) if db is not None else cls._in_memory()

    @classmethod
    def _in_memory(cls) -> Index:
        db = sqlite3.connect(":memory:", isolation_level=None)
        index_file.make_schema(db)
        return cls(db, None, read_only=False)

    def close(self) -> None:
        """Let go of the file; may be called again."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def head(self) -> Head | None:
        """The manifest state that the entries are those of; None when that is not known."""
        return self._head("head")

    @property
    def reached(self) -> Head | None:
        """The head before another manifest was read, for as long as that is not relied on."""
        return self._head("reached")

    @reached.setter
    def reached(self, head: Head | None) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM meta WHERE key = 'reached'")
            if head is not None:
                self._set_meta("reached", _encode(head))

    def _head(self, key: str) -> Head | None:
        value = self._meta(key)
        try:
            return None if value is None else _decode_head(value)
        except _MALFORMED as error:
            raise self._damaged(error) from error

    @property
    def root(self) -> tuple[int, int] | None:
        """The pinned identity (device, inode) of the source root; None before it is set."""
        value = self._meta("root")
        if value is None:
            return None
        try:
            device, inode = value.split(b":")
            return int(device), int(inode)
        except ValueError as error:
            raise self._damaged(error) from error

    @root.setter
    def root(self, identity: tuple[int, int]) -> None:
        # As text: inode numbers of 128 bits exist, on ReFS.
        with self._transaction():
            self._set_meta("root", b"%d:%d" % identity)

    @property
    def deletes(self) -> list[tuple[int, int]]:
        """(minute since 1970, how many entries were deleted in it), oldest first."""
        value = self._meta("deletes")
        try:
            return [] if value is None else _decode_deletes(value)
        except _MALFORMED as error:
            raise self._damaged(error) from error

    @deletes.setter
    def deletes(self, notes: Sequence[tuple[int, int]]) -> None:
        with self._transaction():
            self._set_meta("deletes", _encode(notes))

    def stats(self, directory: bytes) -> dict[bytes, bytes]:
        """The names that `directory` holds, each with its stat identity."""
        return dict(self._rows(_STATS, (directory,)))

    def children(self, directory: bytes) -> dict[bytes, tuple[bytes, bytes]]:
        """What `directory` holds: name to (stat identity, packed entry), in order of names."""
        rows = self._rows(_CHILDREN, (directory,))
        return {name: (stat, entry) for name, stat, entry in rows}

    def rows(self, directory: bytes, names: Iterable[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        """As `children`, but only these names, as far as they are there."""
        found = ((name, self._rows(_ROW, (directory, name))) for name in names)
        return {name: rows[0] for name, rows in found if rows}

    def unpack(self, packed: bytes) -> Entry:
        """The entry that `children` gave packed."""
        try:
            return _decode_entry(packed)
        except _MALFORMED as error:
            raise self._damaged(error) from error

    def entry(self, path: bytes) -> Entry | None:
        """The entry at `path`; None when there is none."""
        row = self.row(path)
        return row[1] if row is not None else None

    def row(self, path: bytes) -> tuple[bytes, Entry] | None:
        """Stat identity and entry at `path`; None when there is none."""
        rows = self._rows(_ROW, split(path))
        return (rows[0][0], self.unpack(rows[0][1])) if rows else None

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """All (path, entry), by directory, then name; the index may change meanwhile."""
        last = (b"", b"")  # before every row, since no name is empty
        while rows := self._rows(_NEXT_PAGE, (*last, _PAGE)):
            for directory, name, blob in rows:
                yield join(directory, name), self.unpack(blob)
            last = rows[-1][:2]

    def holds_size(self, size: int) -> bool:
        """Whether there may be a large file of this size."""
        return size >= LARGE and bool(self._rows("SELECT 1 FROM large WHERE size = ?", (size,)))

    def holders(self, size: int, digest: bytes) -> Iterator[tuple[bytes, Entry]]:
        """Large files of this content, as far as they are soon found."""
        for directory, name, blob in self._rows(_OF_SIZE, (size,)) if size >= LARGE else ():
            entry = self.unpack(blob)
            if (entry.kind, entry.size, entry.digest) == (FILE, size, digest):
                yield join(directory, name), entry

    def count(self) -> int:
        """The number of entries."""
        number = self._rows("SELECT count(*) FROM entries")[0][0]
        assert isinstance(number, int)
        return number

    def rebuild(self, head_entries: Iterable[tuple[bytes, Entry]], edits: Iterable[Edit]) -> None:
        """Make the tree that of a manifest: its checkpoint's entries, then the log's edits.

        Stats stay where path and entry are unchanged; what was noted is dropped. The head is
        forgotten: it is known only now, and to be set with `record((), head, {})`. Both iterables
        are read once, the entries to their end first; when one raises, the index is as it was.
        """
        rows = ((*split(path), STAT_UNKNOWN, pack(entry)) for path, entry in head_entries)
        with self._transaction():
            self._db.execute("DROP TABLE IF EXISTS temp.noted")
            self._db.execute("DELETE FROM meta WHERE key = 'head'")
            self._db.execute("ALTER TABLE entries RENAME TO old")
            self._db.execute(index_file.ENTRIES)
            self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
            self._carry_out(edits, {})
            self._db.execute(_CARRY_STATS)
            self._db.execute("DROP TABLE old")
            self._db.execute("DELETE FROM large")
            self._db.create_function("large_size", 1, _large_size, deterministic=True)
            self._db.execute(_FIND_LARGE)
        self._has_notes = False

    def record(self, edits: Sequence[Edit], head: Head, stats: Mapping[bytes, bytes]) -> None:
        """Carry out what the manifest has accepted, in one transaction.

        edits: in order; a stat stays with its entry, and with what is moved. stats: path to the
        stat identity that the entry there was made from, b"" when unknown. head: the manifest's,
        behind these edits.
        """
        with self._transaction():
            left = {edit.source for edit in edits if isinstance(edit, Move)}
            # A path that has been given up may be another's in the same batch, and the stat too.
            self._carry_out(edits, {**stats, **dict.fromkeys(stats.keys() & left, STAT_UNKNOWN)})
            # What was put has its stat, but what was moved to a path that had been put before.
            put = set() if left else {edit.path for edit in edits if isinstance(edit, Put)}
            self._remember({path: stat for path, stat in stats.items() if path not in put})
            self._set_meta("head", _encode(head))

    def note(self, stats: Mapping[bytes, bytes]) -> None:
        """Put stat identities aside, on the disk, for `remember`; also where all is read-only."""
        with self._transaction("BEGIN"):
            self._db.execute(_NOTED)
            self._db.executemany(_NOTE, ((*split(path), stat) for path, stat in stats.items()))
            self._has_notes = True

    def remember(self, stats: Mapping[bytes, bytes]) -> None:
        """Set only the stat identities of these paths, and of all that were noted before.

        Those without an entry are passed over.
        """
        if not stats and not self._has_notes:
            return
        with self._transaction():
            if self._has_notes:
                self._db.execute(_REMEMBER_NOTED)
                self._db.execute("DROP TABLE noted")
                self._has_notes = False
            self._remember(stats)

    def _carry_out(self, edits: Iterable[Edit], stats: Mapping[bytes, bytes]) -> None:
        for kind, run in groupby(edits, type):
            if kind is Put:
                self._put(cast("Iterator[Put]", run), stats)
                continue
            for edit in run:
                if isinstance(edit, Move):
                    self._move(edit)
                else:
                    self._run(DROPS, below(edit.path))

    def _put(self, edits: Iterable[Put], stats: Mapping[bytes, bytes]) -> None:
        large: list[tuple[int, bytes, bytes]] = []

        def rows() -> Iterator[tuple[bytes, bytes, bytes, bytes, bool]]:
            for put in edits:
                place = split(put.path)
                if put.entry.size >= LARGE:
                    large.append((put.entry.size, *place))
                yield (*place, stats.get(put.path, b""), pack(put.entry), put.path in stats)

        self._db.executemany(_PUT, rows())
        self._db.executemany(_IS_LARGE, large)

    def _move(self, edit: Move) -> None:
        if edit.source != edit.path:
            directory, name = split(edit.path)
            target = {"to": edit.path, "to_dir": directory, "to_name": name}
            self._run(MOVES, below(edit.source) | target)
            self._run(LARGE_MOVES, below(edit.source) | target)

    def _run(self, statements: Sequence[str], values: Mapping[str, bytes]) -> None:
        for statement in statements:
            self._db.execute(statement, values)

    def _remember(self, stats: Mapping[bytes, bytes]) -> None:
        rows = ((stat, *split(path)) for path, stat in stats.items())
        self._db.executemany(_REMEMBER, rows)

    def _meta(self, key: str) -> bytes | None:
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        if not rows:
            return None
        value = rows[0][0]
        if not isinstance(value, bytes):
            raise self._damaged(TypeError(f"{key} is a {type(value).__name__}"))
        return value

    def _set_meta(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _rows(self, query: str, values: Sequence[bytes | int | str] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        try:
            self._db.execute(begin)
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # After some errors SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> SkynetError:
        if index_file.is_damage(error):
            return self._damaged(error)
        if index_file.is_removed(error):
            self.close()
            return index_file.removed(self._path)
        return index_file.failure(self._path, error)

    def _damaged(self, error: Exception) -> IndexDamaged:
        """Delete the file, so that the damage is met once."""
        self.close()
        fate = "is not used in this run"
        if self._path is not None and not self._read_only:
            index_file.delete(self._path)
            fate = "has been deleted"
        return IndexDamaged(
            f"The local index {self._path or 'in memory'} is damaged ({error}) and {fate}; it is "
            "built anew from the manifest. If this comes again, check the disk."
        )


def _large_size(packed: bytes) -> int:
    """The size of a large file, 0 for what is none. Called by SQLite."""
    try:
        size = _decode_entry(packed).size
    except _MALFORMED:
        return 0  # whoever looks at the entry will find the damage
    return size if size >= LARGE else 0
