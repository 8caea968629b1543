"""All threads of this process on one processor for a while, where the system has a way (Linux).

Python runs one thread at a time. On several processors its threads hand the lock for that from one
to the other, tens of thousands of times while a plan is carried out, and wake each other for it. On
one processor they do not: small files take a quarter less time so, and large ones are not slower,
also when other programs are busy. What is done by one thread and its reading is better left alone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

_FIELDS_BEFORE = 36  # in /proc/PID/stat, from behind the program's name to the processor: proc(5)


class Processors:
    """Those that this process may run on when this is made."""

    def __init__(self) -> None:
        self._all: Set[int] = frozenset()
        if sys.platform == "linux":
            self._all = os.sched_getaffinity(0)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Until the block ends all threads stay where this one runs now, new ones too."""
        current = _current() if len(self._all) > 1 else None
        if current is None:
            yield
            return
        _confine({current})
        try:
            yield
        finally:
            _confine(self._all)


def _current() -> int | None:
    """The processor that this thread runs on; None where the system does not say."""
    try:
        text = Path("/proc/thread-self/stat").read_text("ascii", errors="replace")
        return int(text.rpartition(")")[2].split()[_FIELDS_BEFORE])
    except (OSError, ValueError, IndexError):
        return None


def _confine(processors: Set[int]) -> None:
    if sys.platform == "linux":
        for thread in threading.enumerate():
            # One that has ended, or a sandbox that forbids it: nothing but time is lost.
            with suppress(OSError):
                if thread.native_id is not None:
                    os.sched_setaffinity(thread.native_id, processors)
