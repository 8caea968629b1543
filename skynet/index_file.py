"""The SQLite file of the index: opened, recognised as ours or made anew; what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from skynet.errors import SkynetError

SCHEMA = 3  # in the file's user_version; another number is another format
_BUSY_SECONDS = 5.0

ENTRIES = """CREATE TABLE entries (
    dir BLOB NOT NULL, name BLOB NOT NULL, stat BLOB NOT NULL, entry BLOB NOT NULL,
    PRIMARY KEY (dir, name)) WITHOUT ROWID"""
# A hint where large files are, by size; their entries tell whether they still are.
LARGE = """CREATE TABLE IF NOT EXISTS large (
    size INTEGER NOT NULL, dir BLOB NOT NULL, name BLOB NOT NULL,
    PRIMARY KEY (size, dir, name)) WITHOUT ROWID"""
_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class IndexDamaged(SkynetError):
    """The index held something no skynet wrote, or was removed; it is not to be used any more."""

    code = "index-damaged"


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection | None:
    """The database in `path`; None when it is damaged, new or of another format. sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        if _is_ours(db):
            db.execute("PRAGMA synchronous = NORMAL")
            db.text_factory = bytes  # there is no text, and what damage makes one may be no UTF-8
            return db
    except sqlite3.Error as error:
        if not (is_damage(error) or (read_only and _is_unfinished(error))):
            db.close()
            raise
    db.close()
    return None


def begin_anew(path: Path) -> sqlite3.Connection:
    """An empty index in place of whatever is in `path`. OSError, sqlite3.Error."""
    delete(path)
    make_file(path)
    db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    db.execute("PRAGMA synchronous = NORMAL")
    make_schema(db)
    return db


def make_file(path: Path) -> None:
    """Make the file, if absent, for its owner alone: SQLite's own journal takes over its mode."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def make_schema(db: sqlite3.Connection) -> None:
    """Make the tables in a new database."""
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("BEGIN")
    db.execute(ENTRIES)
    db.execute(LARGE)
    db.execute(_META)
    db.execute(f"PRAGMA user_version = {SCHEMA}")
    db.execute("COMMIT")


def _is_ours(db: sqlite3.Connection) -> bool:
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    version = db.execute("PRAGMA user_version").fetchone()[0]
    return version == SCHEMA and {"entries", "large", "meta"} <= tables


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is no whole database."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_removed(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is not there any more, so that it takes no change."""
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED


def _is_unfinished(error: sqlite3.Error) -> bool:
    """Whether a crash left a transaction to roll back, which takes a writer."""
    return _code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _code(error: sqlite3.Error) -> int:
    # Errors of the module itself, such as the use of a closed connection, have no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def delete(path: Path) -> None:
    """Remove the file and what belongs to it, as far as they are there."""
    for file in (path, path.with_name(path.name + "-journal")):
        file.unlink(missing_ok=True)


def removed(path: Path | None) -> IndexDamaged:
    """The error of an index whose file somebody has removed."""
    return IndexDamaged(
        f"The local index {path} was removed while it was in use. It is built anew from the "
        "manifest."
    )


def failure(path: Path | None, error: Exception) -> SkynetError:
    """The error of storage that does not work; `path` None is memory."""
    return SkynetError(
        f"The local index {path or 'in memory'} cannot be used: {error}. Check the free space "
        "and the permissions there, or name another place with --state-dir.",
        "index",
    )
