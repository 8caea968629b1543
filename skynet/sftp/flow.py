"""How content flows over a connection: within the limit if one holds, else as the line takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skynet.sftp.backlog import Backlog
from skynet.sftp.gain import Gain
from skynet.sftp.pace import Pace
from skynet.sftp.ration import HELD, Limits, Rations, limits, shares


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
        self._width = 0  # channels that carry large files, 0 while there are none
        self._most = self._backlog.most(0.0)
        self._carrying: list[Rations[Any]] = []
        self._all: list[Rations[Any]] = []

    def rations(self, acknowledged: Callable[[int], None], *, aside: bool) -> Rations[Any]:
        """Those of one channel. acknowledged: told what the server has acknowledged there.

        The channel aside may hold as much as the others together, to get past them.
        """
        rations: Rations[Any] = Rations(
            self._limits_aside if aside else lambda: self._limits(rations), acknowledged
        )
        self._all.append(rations)
        if not aside:
            self._carrying.append(rations)
        return rations

    def forget(self, rations: Rations[Any]) -> None:
        """Its channel has ended."""
        self._all.remove(rations)
        if rations in self._carrying:
            self._carrying.remove(rations)

    def begin(self) -> None:
        """A large file begins, after a while without any, and its channels may open yet."""
        self._gain.interrupt()
        self._backlog.interrupt()
        self._width = self._channels

    def note(self, count: int, width: int, round_trip: float, *, is_large: bool) -> bool:
        """So many bytes are acknowledged; whether to open one more channel for large files.

        width: channels that carry large files. round_trip: of an idle line, in seconds. is_large:
        whether a large file is under way.
        """
        if self._rate() is not None:
            return False  # it is the limit that would be measured
        self._width = width if is_large else 0
        # A large file is sent as fast as it goes, also where its lanes are all that is under way.
        is_short = is_large or any(rations.are_short for rations in self._all)
        if not is_short and not any(rations.held for rations in self._all):
            self._backlog.interrupt()
        elif self._backlog.note(count, round_trip, is_short=is_short):
            self._most = self._backlog.most(round_trip)
        return is_large and self._gain.note(count, width, round_trip)

    def _limits(self, rations: Rations[Any]) -> Limits:
        """Those of one channel, now."""
        rate = self._rate()
        if rate is not None:
            return limits(rate, self._channels)
        most = HELD if self._most is None else self._most
        if self._width:
            return shares(most, self._width)
        # Which channels have something to send is not known before: so each may hold its share
        # of all that there may be, and what the others leave.
        beside = sum(other.held for other in self._carrying if other is not rations)
        write, share = shares(most, self._channels)
        left = min(most - beside, limits(None, self._channels).held)
        return Limits(write, max(share, left))

    def _limits_aside(self) -> Limits:
        rate = self._rate()
        if rate is not None or self._most is None:
            return limits(rate, self._channels)
        return shares(self._most, 1)

    def _rate(self) -> float | None:
        return None if self._pace is None else self._pace.rate()
