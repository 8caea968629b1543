"""The log of the daemon: one line a record, on a stream and in a file that stays small.

What is logged holds file names and words of servers, so whatever a terminal or a reader of logs
would obey is written as an escape. A log that cannot be written is no reason to stop a mirror.
"""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO

from skynet.errors import UsageError
from skynet.target import printable

Level = Literal["error", "warning", "info", "debug"]

PRIORITIES: dict[Level, int] = {"error": 3, "warning": 4, "info": 6, "debug": 7}  # of syslog
MAX_BYTES = 10 << 20  # of a file before it is turned over
KEEP = 3  # old files
MAX_CHARACTERS = 8000  # of a message; what is longer is cut


class Logs:
    """Writes records to a stream, and to a file if there is one. Any thread may log."""

    def __init__(
        self,
        stream: TextIO | None,
        file: Path | None = None,
        max_bytes: int = MAX_BYTES,
        keep: int = KEEP,
        *,
        journal: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """journal: the stream leads to journald. clock: seconds since 1970.

        Raises UsageError if the file cannot be written now; later on that is survived.
        """
        self._stream = stream
        self._journal = journal
        self._clock = clock
        self._file = None if file is None else LogFile(file, max_bytes, keep)
        self._turn = threading.Lock()

    def log(self, level: Level, mirror: str, message: str) -> None:
        """One record; mirror is "" for what concerns the daemon as a whole."""
        words = printable(f"{mirror}: {message}" if mirror else message)
        if len(words) > MAX_CHARACTERS:
            words = words[: MAX_CHARACTERS - 3] + "..."
        dated = f"{_moment(self._clock())} {level.upper()} {words}\n"
        with self._turn:
            self._to_stream(f"<{PRIORITIES[level]}>{words}\n" if self._journal else dated)
            trouble = None if self._file is None else self._file.write(dated)
            if trouble is not None:
                self._to_stream(self._told(trouble))

    def close(self) -> None:
        """Close the file; the stream is the caller's."""
        with self._turn:
            if self._file is not None:
                self._file.close()

    def _told(self, trouble: str) -> str:
        if self._journal:
            return f"<{PRIORITIES['warning']}>{trouble}\n"
        return f"{_moment(self._clock())} WARNING {trouble}\n"

    def _to_stream(self, line: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            # Closed, or a full disk behind it: there is no other place to say so, and the next
            # record tries again.
            return


class LogFile:
    """A file that is turned over before it grows beyond max_bytes; `keep` old ones stay.

    FILE.1 is the youngest of them. While the file cannot be written, or not be turned over, lines
    are left out rather than let it grow; each new line tries again.
    """

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = max(keep, 1)
        self._torn = False  # the last line was written in part only
        self._lost = 0
        self._handle: int | None = None
        try:
            self._open()
        except OSError as error:
            raise UsageError(
                f"The log file {printable(str(path))} cannot be written: {error.strerror}. "
                "Name another one with --log-file.",
                "log-file",
            ) from None

    def write(self, line: str) -> str | None:
        """Append a line. A sentence if this is the first that cannot be written, else None."""
        try:
            self._append(line)
        except OSError as error:
            self.close()
            self._lost += 1
            if self._lost > 1:
                return None
            return (
                f"The log file {printable(str(self._path))} cannot be written: {error.strerror}. "
                "Records are left out there until it can be."
            )
        return None

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _append(self, line: str) -> None:
        note = f"({self._lost} records before this one could not be written.)\n"
        text = (note if self._lost else "") + line
        data = (b"\n" if self._torn else b"") + text.encode("utf-8", "backslashreplace")
        handle = self._ready_for(len(data))
        written = os.write(handle, data)
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._lost = 0

    def _ready_for(self, size: int) -> int:
        """The open file, with room for `size` bytes."""
        handle = self._open()
        status = os.fstat(handle)
        if status.st_nlink == 0:  # somebody has removed it: nobody would read this
            self.close()
            handle = self._open()
            status = os.fstat(handle)
        if status.st_size == 0 or status.st_size + size <= self._max_bytes:
            return handle
        self.close()  # Windows renames no open file
        self._turn_over()
        self._torn = False
        return self._open()

    def _open(self) -> int:
        if self._handle is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody reads would be waited for
            self._handle = os.open(self._path, flags, 0o600)
        return self._handle

    def _turn_over(self) -> None:
        """FILE.2 becomes FILE.3, and so on: the last one goes, and a gap moves up."""
        for number in range(self._keep - 1, 0, -1):
            if self._old(number).exists():
                os.replace(self._old(number), self._old(number + 1))
        os.replace(self._path, self._old(1))

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def leads_to_journal(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether journald reads what is written to the stream: $JOURNAL_STREAM says which one it is.

    A program whose output was redirected since then has the variable and another stream.
    """
    if stream is None:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (io.UnsupportedOperation, OSError, ValueError):
        return False  # no file of the system, or closed
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _moment(seconds: float) -> str:
    """The time where we are, with its zone, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="milliseconds")
