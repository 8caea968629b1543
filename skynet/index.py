"""The local index: a SQLite cache of the synced tree, with the stat identity of each file.

It spares the download of the manifest while `head` is still current, and the hashing of files
whose stat identity is the one recorded. It is a hint, never the truth: deleting it costs a
manifest download and a rescan. So a file of another format is begun anew, and one that proves to
be damaged, wherever that shows, is deleted: the cycle then starts again without it.

One row per entry, keyed by directory and name, so that a directory's children lie together.
Writes are whole transactions. One thread owns an Index.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from skynet.errors import SkynetError
from skynet.manifest_codec import Head
from skynet.tree import Drop, Edit, Entry, Put, join

SCHEMA = 1  # in the file's user_version; another number is another format
STAT_UNKNOWN = b""  # the manifest was loaded anew: nothing is known of the local file
_PAGE = 4096  # rows that a streaming read holds at a time
_BUSY_SECONDS = 5.0

_ENTRIES = """CREATE TABLE entries (
    dir BLOB NOT NULL, name BLOB NOT NULL, stat BLOB NOT NULL, entry BLOB NOT NULL,
    PRIMARY KEY (dir, name)) WITHOUT ROWID"""
_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"

_PUT = """INSERT INTO entries (dir, name, stat, entry) VALUES (?, ?, x'', ?)
    ON CONFLICT DO UPDATE SET entry = excluded.entry,
    stat = CASE WHEN entry = excluded.entry THEN stat ELSE x'' END"""
_REMEMBER = "UPDATE entries SET stat = ? WHERE dir = ? AND name = ?"
_CARRY_STATS = """UPDATE entries SET stat = old.stat FROM old
    WHERE old.dir = entries.dir AND old.name = entries.name AND old.entry = entries.entry"""
_CHILDREN = "SELECT name, stat, entry FROM entries WHERE dir = ? ORDER BY name"
_NEXT_PAGE = """SELECT dir, name, entry FROM entries WHERE (dir, name) > (?, ?)
    ORDER BY dir, name LIMIT ?"""

# The directories below D are those from D + "/" up to D + "0", the byte that follows "/".
_DROPS = (
    "DELETE FROM entries WHERE dir = :dir AND name = :name",
    "DELETE FROM entries WHERE dir = :path",
    "DELETE FROM entries WHERE dir >= :path_slash AND dir < :path_zero",
)
_MOVES = (
    """UPDATE OR REPLACE entries SET dir = :to_dir, name = :to_name
    WHERE dir = :dir AND name = :name""",
    "UPDATE OR REPLACE entries SET dir = :to WHERE dir = :path",
    """UPDATE OR REPLACE entries SET dir = CAST(:to || substr(dir, length(:path) + 1) AS BLOB)
    WHERE dir >= :path_slash AND dir < :path_zero""",
)

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_head = msgspec.msgpack.Decoder(Head).decode

# What decoding raises for values that are none of ours: text that is no UTF-8, values nested
# without end and columns that hold no bytes have errors of their own.
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError)


class IndexDamaged(SkynetError):
    """The index held something no skynet wrote, and is not to be used any more."""

    code = "index-damaged"


def pack(entry: Entry) -> bytes:
    """The entry as the index holds it: equal entries give equal bytes."""
    return _encode(entry)


class Index:
    """The synced tree as last known, and what the local files looked like then.

    Made by `open`. Failing storage raises SkynetError; damage raises IndexDamaged, after the
    file was deleted unless it is read-only, so that the next `open` begins anew.
    """

    def __init__(self, db: sqlite3.Connection, path: Path | None, *, read_only: bool) -> None:
        self._db = db
        self._path = path
        self._read_only = read_only

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
                _make_file(path)
            db = _connect(path, read_only=read_only)
            if db is None and not read_only:
                db = _begin_anew(path)
        except (OSError, sqlite3.Error) as error:
            raise _failure(path, error) from error
        return cls(db, path, read_only=read_only) if db is not None else cls._in_memory()

    @classmethod
    def _in_memory(cls) -> Index:
        db = sqlite3.connect(":memory:", isolation_level=None)
        _make_schema(db)
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
        value = self._meta("head")
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

    def children(self, directory: bytes) -> dict[bytes, tuple[bytes, bytes]]:
        """What `directory` holds: name to (stat identity, packed entry), in order of names."""
        rows = self._rows(_CHILDREN, (directory,))
        return {name: (stat, entry) for name, stat, entry in rows}

    def unpack(self, packed: bytes) -> Entry:
        """The entry that `children` gave packed."""
        try:
            return _decode_entry(packed)
        except _MALFORMED as error:
            raise self._damaged(error) from error

    def entry(self, path: bytes) -> Entry | None:
        """The entry at `path`; None when there is none."""
        rows = self._rows("SELECT entry FROM entries WHERE dir = ? AND name = ?", _split(path))
        return self.unpack(rows[0][0]) if rows else None

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """All (path, entry), by directory, then name; the index may change meanwhile."""
        last = (b"", b"")  # before every row, since no name is empty
        while rows := self._rows(_NEXT_PAGE, (*last, _PAGE)):
            for directory, name, blob in rows:
                yield join(directory, name), self.unpack(blob)
            last = rows[-1][:2]

    def count(self) -> int:
        """The number of entries."""
        number = self._rows("SELECT count(*) FROM entries")[0][0]
        assert isinstance(number, int)
        return number

    def rebuild(self, head_entries: Iterable[tuple[bytes, Entry]], edits: Iterable[Edit]) -> None:
        """Make the tree that of a manifest: its checkpoint's entries, then the log's edits.

        Stats stay where path and entry are unchanged. The head is forgotten: it is known only
        now, and to be set with `record((), head, {})`. Both iterables are read once, the entries
        to their end first; when one raises, the index is as it was.
        """
        rows = ((*_split(path), STAT_UNKNOWN, pack(entry)) for path, entry in head_entries)
        with self._transaction():
            self._db.execute("DELETE FROM meta WHERE key = 'head'")
            self._db.execute("ALTER TABLE entries RENAME TO old")
            self._db.execute(_ENTRIES)
            self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", rows)
            self._carry_out(edits)
            self._db.execute(_CARRY_STATS)
            self._db.execute("DROP TABLE old")

    def record(self, edits: Sequence[Edit], head: Head, stats: Mapping[bytes, bytes]) -> None:
        """Carry out what the manifest has accepted, in one transaction.

        edits: in order; a stat stays with its entry, and with what is moved. stats: path to the
        stat identity that the entry there was made from, b"" when unknown. head: the manifest's,
        behind these edits.
        """
        with self._transaction():
            self._carry_out(edits)
            self._remember(stats)
            self._set_meta("head", _encode(head))

    def remember(self, stats: Mapping[bytes, bytes]) -> None:
        """Set only the stat identities of these paths; those without an entry are passed over."""
        with self._transaction():
            self._remember(stats)

    def _carry_out(self, edits: Iterable[Edit]) -> None:
        for edit in edits:
            if isinstance(edit, Put):
                self._db.execute(_PUT, (*_split(edit.path), pack(edit.entry)))
            elif isinstance(edit, Drop):
                self._run(_DROPS, _subtree(edit.path))
            elif edit.source != edit.path:
                directory, name = _split(edit.path)
                target = {"to": edit.path, "to_dir": directory, "to_name": name}
                self._run(_MOVES, _subtree(edit.source) | target)

    def _run(self, statements: Sequence[str], values: Mapping[str, bytes]) -> None:
        for statement in statements:
            self._db.execute(statement, values)

    def _remember(self, stats: Mapping[bytes, bytes]) -> None:
        rows = ((stat, *_split(path)) for path, stat in stats.items())
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
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
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
        return self._damaged(error) if _is_damage(error) else _failure(self._path, error)

    def _damaged(self, error: Exception) -> IndexDamaged:
        """Delete the file, so that the damage is met once."""
        self.close()
        fate = "is not used in this run"
        if self._path is not None and not self._read_only:
            _delete(self._path)
            fate = "has been deleted"
        return IndexDamaged(
            f"The local index {self._path or 'in memory'} is damaged ({error}) and {fate}; it is "
            "built anew from the manifest. If this comes again, check the disk."
        )


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection | None:
    """The database in `path`; None when it is damaged, new or of another format."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        if _is_ours(db):
            db.execute("PRAGMA synchronous = NORMAL")
            db.text_factory = bytes  # there is no text, and what damage makes one may be no UTF-8
            return db
    except sqlite3.Error as error:
        if not (_is_damage(error) or (read_only and _is_unfinished(error))):
            db.close()
            raise
    db.close()
    return None


def _begin_anew(path: Path) -> sqlite3.Connection:
    _delete(path)
    _make_file(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    db.execute("PRAGMA synchronous = NORMAL")
    _make_schema(db)
    return db


def _make_file(path: Path) -> None:
    """Make the file, if absent, for its owner alone: SQLite's own journal takes over its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _make_schema(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("BEGIN")
    db.execute(_ENTRIES)
    db.execute(_META)
    db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("COMMIT")


def _is_ours(db: sqlite3.Connection) -> bool:
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    version = db.execute("PRAGMA user_version").fetchone()[0]
    return version == SCHEMA and {"entries", "meta"} <= tables


def _is_damage(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_unfinished(error: sqlite3.Error) -> bool:
    """Whether a crash left a transaction to roll back, which takes a writer."""
    return _code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _code(error: sqlite3.Error) -> int:
    # Errors of the module itself, such as the use of a closed connection, have no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _delete(path: Path) -> None:
    for file in (path, path.with_name(path.name + "-journal")):
        file.unlink(missing_ok=True)


def _failure(path: Path | None, error: Exception) -> SkynetError:
    return SkynetError(
        f"The local index {path or 'in memory'} cannot be used: {error}. Check the free space "
        "and the permissions there, or name another place with --state-dir.",
        "index",
    )


def _split(path: bytes) -> tuple[bytes, bytes]:
    directory, _, name = path.rpartition(b"/")
    return directory, name


def _subtree(path: bytes) -> dict[str, bytes]:
    directory, name = _split(path)
    bounds = {"path": path, "path_slash": path + b"/", "path_zero": path + b"0"}
    return {"dir": directory, "name": name} | bounds
