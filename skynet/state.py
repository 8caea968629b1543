"""The state directory of one mirror: its place, its permissions, and the lock on it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from skynet.errors import OwnedError, SkynetError, UsageError

LOCK = "lock"
TRIES = 5  # who only looks at a lock has it for microseconds
TRY_AGAIN = 0.01  # seconds
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def directory_for(base: Path, source: bytes, target: str) -> Path:
    """Where a mirror's state is kept below `base`; every pair of source and target has its own."""
    key = hashlib.blake2b(source + b"\0" + target.encode(), digest_size=10).hexdigest()
    return base / key


def make_directories(directory: Path) -> None:
    """Make the directory and those above it, as far as they are missing, for this user only."""
    for each in (*reversed(directory.parents), directory):
        if not each.is_dir():  # `parents=True` would open those above to all
            each.mkdir(mode=0o700, exist_ok=True)


def make_private(directory: Path) -> None:
    """As `make_directories`; UsageError if that cannot be, SkynetError while the disk is full."""
    try:
        make_directories(directory)
    except OSError as error:
        raise _of_no_use(directory, "made", error) from None


class Lock:
    """The lock of a directory, which is this process's from `take` to `release`.

    Local state may be deleted at any time. Without its file the lock keeps nobody out any more.
    """

    def __init__(self, directory: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self.directory = directory
        self._sleep = sleep
        self._handle: int | None = None

    def take(self) -> None:
        """OwnedError names the process that has it; else as `make_private`."""
        try:
            self._handle = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _of_no_use(self.directory, "written to", error) from None
        try:
            self._sign(self._handle)
        except SkynetError:
            self.release()
            raise

    def release(self) -> None:
        """Let it go; may be called again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)  # and with it the lock

    @property
    def is_held(self) -> bool:
        """Whether it was taken, and its file is still there."""
        if self._handle is None:
            return False
        try:
            there = os.stat(self.directory / LOCK)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # that it cannot be looked at does not mean that it is gone
        return os.path.samestat(there, os.fstat(self._handle))

    def renew(self) -> bool:
        """Make the directory and take the lock again, if its file is gone; whether that was done.

        It is not where it cannot be: whoever needs the directory is told. OwnedError if another
        process was quicker.
        """
        if self.is_held:
            return False
        self.release()
        try:
            make_private(self.directory)
            self.take()
        except OwnedError:
            raise
        except SkynetError:
            return False
        return True

    def _sign(self, handle: int) -> None:
        if not _take(handle, self._sleep):
            raise OwnedError(
                f"Another skynet (process {_named(handle) or 'unknown'}) works on this mirror. "
                "Wait for it to end, or stop it.",
                "locked",
            )
        try:
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise _of_no_use(self.directory, "written to", error) from None


@contextlib.contextmanager
def locked(directory: Path, sleep: Callable[[float], None] = time.sleep) -> Iterator[Lock]:
    """Hold the directory's lock. See Lock.take."""
    lock = Lock(directory, sleep)
    lock.take()
    try:
        yield lock
    finally:
        lock.release()


def _of_no_use(directory: Path, what: str, error: OSError) -> SkynetError:
    """What it means that the directory cannot be used: only a disk that is full mends itself."""
    kind = SkynetError if error.errno in FULL else UsageError
    return kind(
        f"The state directory {directory} cannot be {what}: {error.strerror}. "
        "Name another one with --state-dir.",
        "state-directory",
    )


def is_locked(directory: Path) -> bool:
    """Whether a process holds the directory's lock; see `holder`."""
    return holder(directory) is not None


def holder(directory: Path) -> int | None:
    """The process that holds the directory's lock, 0 if it is not named; None if it is free.

    Nobody is kept from a lock by this: those who look do not see each other, and `locked` asks
    more than once.
    """
    try:
        handle = os.open(directory / LOCK, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"The state directory {directory} cannot be read: {error.strerror}. "
            "Ask as the user that skynet runs as.",
            "state-directory",
        ) from None
    try:
        return None if _try_lock(handle, looks=True) else _named(handle)
    finally:
        os.close(handle)


def _take(handle: int, sleep: Callable[[float], None]) -> bool:
    for _ in range(TRIES - 1):
        if _try_lock(handle):
            return True
        sleep(TRY_AGAIN)
    return _try_lock(handle)


def _named(handle: int) -> int:
    """The process id that the lock's file holds, 0 if it holds none."""
    text = os.read(handle, 32).strip()
    return int(text) if text.isdigit() else 0


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows locks bytes against reading too: lock some behind the process id
    _LOOKERS = 1 << 20  # of these bytes, all are the owner's, and one is a looker's

    def _try_lock(handle: int, *, looks: bool = False) -> bool:
        os.lseek(handle, _FAR + (os.getpid() % _LOOKERS if looks else 0), os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1 if looks else _LOOKERS)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(handle: int, *, looks: bool = False) -> bool:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if looks else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
