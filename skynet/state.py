"""The state directory of one mirror: its place, its permissions, and the lock on it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from skynet.errors import OwnedError, UsageError

LOCK = "lock"


def directory_for(base: Path, source: bytes, target: str) -> Path:
    """Where a mirror's state is kept below `base`; every pair of source and target has its own."""
    key = hashlib.blake2b(source + b"\0" + target.encode(), digest_size=10).hexdigest()
    return base / key


def make_private(directory: Path) -> None:
    """Make the directory if it is missing, for this user only."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The state directory {directory} cannot be made: {error.strerror}. "
            "Name another one with --state-dir.",
            "state-directory",
        ) from None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock. OwnedError names the process that has it."""
    try:
        handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(
            f"The state directory {directory} cannot be written to: {error.strerror}. "
            "Name another one with --state-dir.",
            "state-directory",
        ) from None
    try:
        if not _try_lock(handle):
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            raise OwnedError(
                f"Another skynet (process {holder}) works on this mirror. "
                "Wait for it to end, or stop it.",
                "locked",
            )
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)  # and with it the lock


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # Windows locks bytes against reading too: lock one behind the process id

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
