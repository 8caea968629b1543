"""A vigil: one lookout from its start to its end; what it sees, as Sights, and how it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from skynet.lookout import Lookout, Loss
from skynet.marks import EVERYTHING, Sight
from skynet.monitor import Notice
from skynet.rules import shown
from skynet.sightings import Event, Sightings
from skynet.state import make_directories

# All in seconds.
CANARY_AFTER = 30.0  # of silence
CANARY_DEADLINE = 10.0
STOP_DEADLINE = 5.0

MISSING = "The source is not there. It is looked for until it is back."
REPLACED = "The source is another directory than it was, so it is watched anew."
UNMOUNTED = "A file system below the source was unmounted, so the source is watched anew."
LOST = "Directories were moved faster than they could be watched, so all are watched anew."
DEAF = "A file of our own changed and nothing was reported, so the source is watched anew."
DEAD = "A thread that watches the source ended, so the source is watched anew."

Send = Callable[[list[Sight]], None]


def identity(source: bytes) -> tuple[int, int] | None:
    """The device and inode of a directory, None while there is none that can be looked at."""
    try:
        status = os.stat(source)
    except OSError:
        return None  # whatever the reason is, it cannot be watched
    return status.st_dev, status.st_ino


class Vigil:
    """Watches `source` from `start` to `stop`; `send` gets Sights, from any thread.

    The methods are for one thread. `canary` is the directory of the canary in the state directory;
    it is made here.
    """

    def __init__(
        self, source: bytes, hides: Callable[[bytes, bool], bool], canary: Path, send: Send
    ) -> None:
        root = os.path.realpath(source)  # the kernel does not watch through a symbolic link
        self._source, self._send = source, send
        self._root = identity(source)
        self._seen = Sightings(root, hides)
        self._canary = Canary(canary)
        self._lookout = Lookout(
            root, os.fsencode(canary), self._hear, self._canary.sing, self._lost
        )
        self._overflowed = False
        self._broken: Notice | None = None

    def make_canary(self) -> None:
        """Make what `start` needs. Raises OSError, which says nothing about watching."""
        self._canary.make()

    def start(self) -> None:
        """Return when everything is watched that can be. Raises OSError; then `stop` it."""
        self._lookout.start()

    def stop(self) -> Notice | None:
        """End its threads, which may be the news that they do not."""
        self._send = _unheard
        if self._lookout.stop(STOP_DEADLINE):
            return None
        return Notice("watch-stuck", f"A watching thread did not end in {STOP_DEADLINE:.0f} s.")

    def trouble(self, now: float) -> Notice | None:
        """Why it is of no use any more; None while it is well."""
        root = identity(self._source)
        if root != self._root:
            return Notice("watch-root", MISSING if root is None else REPLACED)
        if self._broken is not None:
            return self._broken
        if self._lookout.dead():
            return Notice("watch-died", DEAD)
        if self._lookout.patrol():
            return Notice("watch-lost", LOST)
        if self._canary.is_silent(now):
            return Notice("watch-deaf", DEAF)
        return None

    def overflowed(self) -> bool:
        """Whether events were lost since the last call. EVERYTHING was told at once."""
        flowed, self._overflowed = self._overflowed, False
        return flowed

    @property
    def refused(self) -> tuple[int, OSError | None]:
        """How many directories could not be watched, and one reason, a limit if there is one."""
        return self._lookout.refusals, self._lookout.refused

    # Called by watchdog's threads

    def _hear(self, event: Event) -> None:
        self._canary.sing()  # who reports anything is not deaf
        sights = self._seen.of(event)
        if sights:
            self._send(sights)

    def _lost(self, loss: Loss) -> None:
        if loss.kind == "overflow":
            self._overflowed = True
        else:
            self._broken = _broken(loss)
        self._send([Sight(EVERYTHING)])


def _broken(loss: Loss) -> Notice:
    if loss.kind == "unmounted":
        return Notice("watch-unmounted", UNMOUNTED)
    if loss.kind == "astray":
        return Notice("watch-lost", LOST)
    if loss.kind == "readable":
        return Notice("watch-readable", f"{shown(loss.path)} can be read now and is watched.")
    return Notice("watch-died", f"{DEAD} ({loss.error!r})")


def _unheard(_sights: list[Sight]) -> None:
    """Take what a lookout says after its end."""


class Canary:
    """A file that is touched after a silence: when that is not reported, nothing is."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "canary"
        self._heard = True
        self._touched_at: float | None = None
        self._quiet_since = 0.0

    def make(self) -> None:
        """Make the directories, for this user only, and the file. Raises OSError."""
        make_directories(self._directory)  # the state directory may be gone as well
        self._file.touch(mode=0o600)

    def sing(self) -> None:
        """Something was reported; from any thread."""
        self._heard = True

    def is_silent(self, now: float) -> bool:
        """Whether nothing was reported in time although something happened. Raises OSError."""
        if self._heard:
            self._heard, self._touched_at, self._quiet_since = False, None, now
        elif self._touched_at is not None:
            return now - self._touched_at > CANARY_DEADLINE
        elif now - self._quiet_since >= CANARY_AFTER:
            self._touched_at = now
            os.utime(self._file)
        return False
