"""What a daemon has done: one line of JSON for each cycle, in two files that take turns.

What is damaged is passed over: a history is there to be read, and nothing depends on it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Annotated

import msgspec

from skynet import statefile
from skynet.monitor import Notice
from skynet.statefile import cut, encode

HISTORY = "history.jsonl"
OLDER = "history.1.jsonl"
MAX_BYTES = 1 << 20  # of each of the two files
MAX_OPS = 20  # of one record
_BINARY = getattr(os, "O_BINARY", 0)

# What a date can be made of: up to the year 9000.
UnixSeconds = Annotated[float, msgspec.Meta(ge=0, le=221845392000)]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a cycle came to.

    ended: unix seconds. outcome: as of a report, or "failed". done: operations by kind, and
    "bytes" of content. problems: how many paths. error: "", or "code: message". ops: what was
    done, as plain text; more: how many are not told.
    """

    ended: UnixSeconds
    seconds: float
    outcome: str
    done: dict[str, int] = {}
    problems: int = 0
    error: str = ""
    ops: list[str] = []
    more: int = 0


def append(directory: Path, record: Record) -> Notice | None:
    """Add a record, with its first MAX_OPS operations; a Notice if the disk refuses."""
    try:
        _append(directory, encode(_bounded(record)) + b"\n")
    except OSError as error:
        return Notice(
            "history-not-written",
            f"The history cannot be written in {directory}: {error.strerror}. "
            "skynet log does not show this cycle.",
        )
    return None


def read(directory: Path, limit: int) -> list[Record]:
    """The last `limit` records, newest last. UsageError."""
    found: list[Record] = []
    for name in (HISTORY, OLDER):
        wanted = limit - len(found)
        if wanted > 0:
            found = list(_records(directory / name))[-wanted:] + found
    return found


def _append(directory: Path, line: bytes) -> None:
    path = directory / HISTORY
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o600)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        size = os.fstat(handle).st_size
        if size:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line  # a write broke off there
        if not size or size + len(line) <= MAX_BYTES:
            _write(file, line)
            return
    os.replace(path, directory / OLDER)
    _append(directory, line)


def _write(file: FileIO, line: bytes) -> None:
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _records(path: Path) -> Iterator[Record]:
    for line in (statefile.read(path, MAX_BYTES) or b"").splitlines():
        try:
            yield msgspec.json.decode(line, type=Record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # torn, damaged, or of another version


def _bounded(record: Record) -> Record:
    ops = [cut(line) for line in record.ops[:MAX_OPS]]
    return msgspec.structs.replace(
        record, ops=ops, more=record.more + len(record.ops) - len(ops), error=cut(record.error)
    )
