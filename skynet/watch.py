"""The watcher: tells which paths of the source may have changed, and never that none has.

What it says is a hint for the next cycle. Where it may have missed something it says EVERYTHING,
and a Notice says why. Where the system cannot watch it polls: it says EVERYTHING from time to time,
for a scan finds what differs with no more memory than the index has.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from skynet.marks import EVERYTHING, Mark, Sight
from skynet.monitor import Monitor, Notice
from skynet.rules import shown
from skynet.vigil import MISSING, Vigil, identity
from skynet.watchable import Limit, advice, is_limit, network_kind, read_mounts

__all__ = ["EVERYTHING", "Mark", "Sight", "WatchMode", "Watcher"]

WatchMode = Literal["auto", "native", "poll", "off"]
Tell = Callable[[list[Sight]], None]

# All in seconds.
POLL_SECONDS = 60.0
SAME_NOTICE_AFTER = 60.0
LONGEST_BACKOFF = 300.0
CALM = 600.0  # a vigil that lasted so long was well

OVERFLOW = "More changed at once than the system could report, so all of the source is looked at."


class Watcher:
    """Watches one source. `tell` gets Sights from any thread, in batches; it must be quick.

    source: absolute. hides(path, is_dir): whether a path is invisible, its parent being visible.
    canary: a directory of the state directory, made here. clock: monotonic seconds. All methods
    are for one thread, and `monitor` is called only by it.
    """

    def __init__(
        self,
        source: bytes,
        mode: WatchMode,
        tell: Tell,
        *,
        hides: Callable[[bytes, bool], bool],
        canary: Path,
        clock: Callable[[], float],
        monitor: Monitor,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._source, self._mode, self._tell = source, mode, tell
        self._hides, self._canary, self._clock = hides, canary, clock
        self._monitor, self._poll_seconds = monitor, poll_seconds
        self._how = "off"
        self._vigil: Vigil | None = None
        self._opened_at = 0.0
        self._failures = 0
        self._open_at = self._poll_at = math.inf  # the next time to do so, without a vigil
        self._is_missing = False  # the source, and that was told
        self._limit: Limit | None = None  # was too low, when that is why we poll
        self._refusals = 0  # of those that were told
        self._unheard: Exception | None = None  # what `tell` raised
        self._noticed_at: dict[str, float] = {}

    @property
    def how(self) -> str:
        """What is done now: "native", "poll" or "off", with why where that was not asked for."""
        return self._how

    def start(self) -> None:
        """Begin to watch. What is there already is not told."""
        now = self._clock()
        if self._mode == "off":
            return
        self._poll_at = now + self._poll_seconds
        if self._mode == "poll":
            self._how = "poll"
        else:
            self._open(now)

    def check(self) -> None:
        """Find out whether the watcher is well, and mend it. To be called every few seconds."""
        now = self._clock()
        try:
            self._check(now)
        except Exception as error:  # noqa: BLE001 - told; a sick watcher must not end the daemon
            self._give_up(Notice("watch-died", f"Watching failed: {error!r}."), now)

    def stop(self) -> None:
        """End all threads, within seconds. From then on nothing is told."""
        self._mode, self._how = "off", "off"
        self._close(self._clock())

    # What check does

    def _check(self, now: float) -> None:
        if self._unheard is not None:
            self._notify(Notice("watch-unheard", f"A mark was lost: {self._unheard!r}."), now)
            self._unheard = None
            self._send([Sight(EVERYTHING)])
        if self._mode == "off":
            return
        if self._vigil is None:
            self._go_without(now)
            return
        if self._vigil.overflowed():
            self._notify(Notice("watch-overflow", OVERFLOW), now)
        trouble = self._vigil.trouble(now)
        if trouble is not None:
            self._give_up(trouble, now)
            self._go_without(now)
        elif self._is_short(self._vigil, now):
            self._tell_everything(now)

    def _give_up(self, trouble: Notice, now: float) -> None:
        """End the vigil. The next begins at once if this was the first trouble in a while."""
        was_well = self._vigil is not None and now - self._opened_at > CALM
        if was_well or trouble.code == "watch-root":
            self._failures = 0
        self._close(now)
        self._tell_everything(now)
        self._put_off("watching failed", trouble, now)

    def _go_without(self, now: float) -> None:
        """Open a vigil when it is time to, and tell EVERYTHING when it is time to."""
        if self._limit is not None and self._limit.is_raised():
            self._open_at = now
        was_missing = self._is_missing
        opened = now >= self._open_at and self._open(now)
        polls = self._mode != "native" and not self._is_missing
        if opened or (polls and (was_missing or now >= self._poll_at)):
            self._tell_everything(now)

    def _open(self, now: float) -> bool:
        """Whether the source is watched: all that changes once this returns is told."""
        if identity(self._source) is None:
            self._wait_for_root(now)
            return False
        self._is_missing, self._limit = False, None
        kind = network_kind(os.path.realpath(self._source), read_mounts())
        if kind and self._mode == "auto":
            self._open_at, self._how = math.inf, f"poll: a network file system ({kind})"
            return False
        self._vigil = vigil = Vigil(self._source, self._hides, self._canary, self._send)
        self._refusals, self._opened_at, self._how = 0, now, "native"
        try:
            vigil.make_canary()
        except OSError as error:  # a full disk says what the system's limit of watches says
            self._cannot_begin(_no_canary(error), now)
            return False
        try:
            vigil.start()
        except OSError as error:
            self._cannot_begin(_failure(error, 1), now)
            if self._mode == "auto" and error.errno == errno.ENOSPC:
                self._wait_for_limit(error)
            return False
        return not self._is_short(vigil, now)

    def _cannot_begin(self, trouble: Notice, now: float) -> None:
        self._close(now)
        self._put_off("watching cannot begin", trouble, now)

    def _close(self, now: float) -> None:
        vigil, self._vigil = self._vigil, None
        notice = vigil.stop() if vigil is not None else None
        if notice is not None:
            self._notify(notice, now)

    def _put_off(self, why: str, trouble: Notice, now: float) -> None:
        """Do without until later, twice as long each time."""
        delay = 2.0 ** min(self._failures, 30) if self._failures else 0.0
        self._failures += 1
        self._open_at = now + min(delay, LONGEST_BACKOFF)
        self._how = f"{'off' if self._mode == 'native' else 'poll'}: {why}"
        self._notify(trouble, now)

    def _wait_for_root(self, now: float) -> None:
        self._open_at, self._how = now, "off: the source is not there"
        if not self._is_missing:
            self._is_missing = True
            self._notify(Notice("watch-root", MISSING), now)

    def _wait_for_limit(self, refusal: OSError) -> None:
        """Try again when the limit is raised: each try takes all watches from other programs."""
        self._open_at, self._limit = math.inf, Limit(refusal)
        self._how = "poll: the system's limit of watches"

    def _is_short(self, vigil: Vigil, now: float) -> bool:
        """Whether the system's limit forbids the vigil to go on; polling has taken over then.

        With "native" it goes on with what it has, and full scans find the rest.
        """
        count, refused = vigil.refused
        if refused is None or count == self._refusals:
            return False
        self._refusals = count
        self._notify(_failure(refused, count), now)
        if self._mode == "auto" and is_limit(refused):
            self._close(now)
            self._wait_for_limit(refused)
            return True
        self._how = f"native: {count} directories are not watched"
        return False

    def _tell_everything(self, now: float) -> None:
        self._poll_at = now + self._poll_seconds
        self._send([Sight(EVERYTHING)])

    def _notify(self, notice: Notice, now: float) -> None:
        """Tell it, unless the same was told a moment ago."""
        if now - self._noticed_at.get(notice.code, -math.inf) >= SAME_NOTICE_AFTER:
            self._noticed_at[notice.code] = now
            self._monitor(notice)

    def _send(self, sights: list[Sight]) -> None:
        """Tell the sights; from any thread. An exception would end that of watchdog's."""
        try:
            self._tell(sights)
        except Exception as error:  # noqa: BLE001 - told by the next check
            self._unheard = error


def _no_canary(error: OSError) -> Notice:
    return Notice(
        "watch-canary",
        f"A file that watching needs cannot be made in the state directory: {error.strerror}. "
        "It is tried again.",
    )


def _failure(error: OSError, count: int) -> Notice:
    if is_limit(error):
        return Notice("watch-limit", advice(error, count))
    where = f" {shown(os.fsencode(error.filename))}" if error.filename else ""
    return Notice(
        "watch-refused",
        f"{count} directories cannot be watched, as{where}: {error.strerror}. "
        "Full scans find what changes there.",
    )
