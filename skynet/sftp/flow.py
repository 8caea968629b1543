"""How content flows over a connection: within the limit if one holds, else as the line takes it."""

from __future__ import annotations

from collections.abc import Callable

from skynet.sftp.backlog import Backlog
from skynet.sftp.gain import Gain
from skynet.sftp.pace import Pace
from skynet.sftp.ration import Limits, limits, shares


class Flow:
    """Says how much each channel may hold, and whether one more is worth trying.

    pace: of the limit, None for none. channels: the most there may be. clock: seconds, from any
    beginning, by which the line is measured.
    """

    def __init__(self, pace: Pace | None, channels: int, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._channels = channels
        self._gain = Gain(clock)
        self._backlog = Backlog(clock)
        self._measured = limits(None, channels)

    def limits(self) -> Limits:
        """Those of one channel, now."""
        rate = self._rate()
        return self._measured if rate is None else limits(rate, self._channels)

    def interrupt(self) -> None:
        """No large file was under way for a while."""
        self._gain.interrupt()
        self._backlog.interrupt()

    def note(self, count: int, width: int, round_trip: float) -> bool:
        """So many bytes of large files are acknowledged; whether to open one more channel.

        width: channels that carry them. round_trip: of an idle line, in seconds.
        """
        if self._rate() is not None:
            return False  # it is the limit that would be measured
        if self._backlog.note(count):
            most = self._backlog.most(round_trip)
            self._measured = limits(None, self._channels) if most is None else shares(most, width)
        return self._gain.note(count, width, round_trip)

    def _rate(self) -> float | None:
        return None if self._pace is None else self._pace.rate()
