"""Databases of hints: bytes by short keys, kept by diskcache, which may be lost at any time.

Nothing here is the truth, and losing it costs work done again. So whatever is wrong with a
database, it is deleted and begun anew. diskcache would run what a crafted one says; ours holds raw
bytes in its rows and nothing else, and no file beside them is ever read or removed.

A database is made when it is first written. One thread at a time uses it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple, Self

from diskcache import Cache, Disk, Timeout

from skynet.errors import SkynetError

MAX_FAILURES = 2  # what fails again after it was begun anew is left alone
FORGIVE_SECONDS = 3600.0  # so long, for a disk that is full now may have room later

_SETTINGS = {
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "sqlite_mmap_size": 0,
    # Whole after a power cut, if not the newest. Waiting for the disk at each note would cost
    # every upload.
    "sqlite_synchronous": 1,
}

# Opening writes dozens of settings, each a transaction. Only then every one waits for the disk, and
# all of it is in one file.
_DURABLE = {"sqlite_synchronous": 0, "sqlite_journal_mode": "truncate"}
_WAITS = ("sqlite_synchronous", 2)

_DATABASE = "cache.db"  # as diskcache names it
_FIND = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"


class HintsDamaged(SkynetError):
    """A database holds something that no skynet wrote."""

    code = "hints-damaged"


# What SQLite, diskcache and decoding raise for files and rows that are none of ours.
_DAMAGE = (
    *(HintsDamaged, sqlite3.Error, Timeout, OSError, UnicodeError),
    *(ValueError, TypeError, AttributeError, LookupError, RecursionError, AssertionError),
)


class Bounds(NamedTuple):
    """Bytes of a key or value, and of the whole database when it is opened.

    keep: bytes that `Cache.cull` lets the database have; 0 if nothing ever goes by itself.
    """

    item: int
    database: int
    keep: int = 0


class _RawDisk(Disk):  # type: ignore[misc]  # diskcache has no types
    """Bytes as they are, in the row: nothing is unpickled, and no file is read or removed."""

    def __init__(self, directory: str, max_bytes: int, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self._max_bytes = max_bytes

    def put(self, key: object) -> tuple[bytes, bool]:
        return self._checked(key), True

    def get(self, key: object, raw: object) -> bytes:
        if not raw:
            raise HintsDamaged("a key is not raw")
        return self._checked(key)

    def store(
        self, value: object, _read: object, key: object = None
    ) -> tuple[int, int, None, bytes]:
        del key
        return 0, 1, None, self._checked(value)  # mode 1 is diskcache's MODE_RAW

    def fetch(self, mode: object, filename: object, value: object, _read: object) -> bytes:
        if mode != 1 or filename is not None:
            raise HintsDamaged("a value is not raw")
        return self._checked(value)

    def remove(self, _file_path: object) -> None:
        raise HintsDamaged("it names a file")

    def _checked(self, value: object) -> bytes:
        if not isinstance(value, bytes) or len(value) > self._max_bytes:
            raise HintsDamaged("it holds something else than short bytes")
        return value


class _Reader:
    """What reading needs of diskcache, which writes even when it is opened."""

    def __init__(self, directory: Path, bounds: Bounds) -> None:
        _expect_bounded(directory, bounds.database)
        database = (directory / _DATABASE).absolute()
        # Without a log nobody writes; told so, SQLite makes no files beside it to find that out.
        is_written = database.with_name(f"{_DATABASE}-wal").exists()
        mode = "mode=ro" if is_written else "mode=ro&immutable=1"
        self._db = sqlite3.connect(f"{database.as_uri()}?{mode}", uri=True, isolation_level=None)
        self._disk = _RawDisk(str(directory), bounds.item)

    def get(self, key: bytes) -> bytes | None:
        """As diskcache.Cache.get."""
        for mode, filename, value in self._db.execute(_FIND, (key,)).fetchall():
            return self._disk.fetch(mode, filename, value, None)
        return None

    def close(self) -> None:
        self._db.close()


class Hints:
    """One database, in a directory of its own.

    forgotten: told why it is begun anew. durable: what is written outlives a power cut. read_only:
    it may only be read, and stays as it is whatever is wrong with it. clock: monotonic seconds.
    """

    def __init__(
        self,
        directory: Path,
        bounds: Bounds,
        forgotten: Callable[[Exception], None],
        *,
        durable: bool = False,
        read_only: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._directory = directory
        self._bounds = bounds
        self._forgotten = forgotten
        self._durable = durable
        self._read_only = read_only
        self._cache: Cache | _Reader | None = None
        self._clock = clock
        self._failures = 0
        self._failed_at = 0.0

    @property
    def exist(self) -> bool:
        """Whether there is anything to read."""
        return os.path.lexists(self._directory)

    def use(self, work: Callable[[Any], None]) -> None:
        """Let `work` read and write the diskcache; it is begun anew if that shows any damage."""
        if self._read_only:
            with suppress(*_DAMAGE):  # who writes there will tell of it
                work(self._opened())
            return
        if self._failures and self._clock() - self._failed_at >= FORGIVE_SECONDS:
            self._failures = 0
        if self._failures >= MAX_FAILURES:
            return  # whoever is told, has been
        try:
            work(self._opened())
        except _DAMAGE as error:
            self._failures += 1
            self._failed_at = self._clock()
            self._begin_anew(error)

    def close(self) -> None:
        """Close the database."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None  # with it go the connections of other threads

    def _opened(self) -> Cache | _Reader:
        if self._cache is None and self._read_only:
            self._cache = _Reader(self._directory, self._bounds)
        elif self._cache is None:
            _make_private(self._directory, self._bounds.database)
            cache = Cache(
                str(self._directory),
                timeout=5,
                disk=_RawDisk,
                disk_max_bytes=self._bounds.item,
                size_limit=self._bounds.keep or self._bounds.database,
                eviction_policy="least-recently-used" if self._bounds.keep else "none",
                **(_SETTINGS | _DURABLE if self._durable else _SETTINGS),
            )
            if self._durable:
                cache.reset(*_WAITS)
            self._cache = cache
        return self._cache

    def _begin_anew(self, error: Exception) -> None:
        self.close()
        self._forgotten(error)
        try:
            _remove(self._directory)
        except OSError:
            self._failures = MAX_FAILURES  # nothing can be kept there, and nothing must be


class Hinted:
    """What keeps its hints in a database, if it has one; a context manager that closes it."""

    def __init__(self, hints: Hints | None = None) -> None:
        self._hints = hints

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._hints is not None:
            self._hints.close()


def _make_private(directory: Path, max_database: int) -> None:
    """Make the directory, or see that it is a real one, ours and nobody else's. HintsDamaged."""
    if os.path.expandvars(directory) != str(directory):
        raise HintsDamaged("its name holds a variable, which diskcache would expand")
    directory.mkdir(mode=0o700, exist_ok=True)
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode):
        raise HintsDamaged("it is no directory")
    if sys.platform != "win32" and (status.st_uid != os.geteuid() or status.st_mode & 0o077):
        raise HintsDamaged("others have access to it")
    _expect_bounded(directory, max_database)


def _expect_bounded(directory: Path, max_database: int) -> None:
    database = directory / _DATABASE
    if database.exists() and database.stat().st_size > max_database:
        raise HintsDamaged("it is too large")


def _remove(directory: Path) -> None:
    """Remove the directory, or what stands in its place."""
    if directory.is_dir() and not directory.is_symlink():
        shutil.rmtree(directory)
    else:
        directory.unlink(missing_ok=True)
