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
        self._of_each = self._of_aside = limits(None, channels)

    def limits(self) -> Limits:
        """Those of one channel that carries large files, now."""
        rate = self._rate()
        return self._of_each if rate is None else limits(rate, self._channels)

    def limits_aside(self) -> Limits:
        """Those of the channel aside: as much as the others together, to get past them."""
        rate = self._rate()
        return self._of_aside if rate is None else limits(rate, self._channels)

    def begin(self, round_trip: float) -> None:
        """A large file begins, after a while without any, and its channels may open yet."""
        self._gain.interrupt()
        self._backlog.interrupt()
        self._follow(self._channels, round_trip)

    def note(self, count: int, width: int, round_trip: float) -> bool:
        """So many bytes of large files are acknowledged; whether to open one more channel.

        width: channels that carry them. round_trip: of an idle line, in seconds.
        """
        if self._rate() is not None:
            return False  # it is the limit that would be measured
        if self._backlog.note(count, round_trip):
            self._follow(width, round_trip)
        return self._gain.note(count, width, round_trip)

    def _follow(self, width: int, round_trip: float) -> None:
        most = self._backlog.most(round_trip)
        if most is None:
            self._of_each = self._of_aside = limits(None, self._channels)
        else:
            self._of_each, self._of_aside = shares(most, width), shares(most, 1)

    def _rate(self) -> float | None:
        return None if self._pace is None else self._pace.rate()
