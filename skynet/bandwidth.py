"""Bandwidth limits: how fast may be sent, always or by the time of day.

Rates are bytes a second with the binary units of rclone and rsync: 1k is 1024. Those two take a
bare number for KiB, others for bytes; so here it is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from operator import itemgetter

from skynet.errors import ConfigError
from skynet.target import printable

UNITS = {"B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SLOWEST = 1 << 10  # bytes a second; with less, one request would take minutes
FORM = (
    'Write bytes a second as "10M" for 10 MiB/s (units: B, k, M, G), "off" for no limit, '
    'or a timetable as "08:00 2M, 18:00 off".'
)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """A timetable of rates.

    entries: at least one (minute of the day, bytes a second or None for no limit), in ascending
    order. The last one of a day holds until the first one of the next.
    """

    entries: tuple[tuple[int, int | None], ...]

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at any time."""
        return any(rate is not None for _, rate in self.entries)

    def rate_at(self, hour: int, minute: int) -> int | None:
        """The rate that holds at this time of day."""
        begun = bisect_right(self.entries, hour * 60 + minute, key=itemgetter(0))
        return self.entries[begun - 1][1]  # before the first of today it is the last of yesterday


UNLIMITED = Bandwidth(((0, None),))


def parse_bandwidth(text: str) -> Bandwidth:
    """The limit that a rate or a timetable names; its entries may stand in any order.

    Raises ConfigError, which says what is wrong and what to write.
    """
    if ":" not in text:
        return Bandwidth(((0, _rate(text.strip())),))
    entries = [_entry(part.strip()) for part in text.split(",")]
    rates = dict(entries)
    if len(rates) < len(entries):
        raise _wrong(text, "names one time of day twice")
    return Bandwidth(tuple(sorted(rates.items(), key=itemgetter(0))))


def _entry(text: str) -> tuple[int, int | None]:
    time, _, rate = text.partition(" ")
    found = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", time)
    if found is None:
        raise _wrong(text, "does not begin with a time of day from 00:00 to 23:59")
    return int(found[1]) * 60 + int(found[2]), _rate(rate.strip())


def _rate(text: str) -> int | None:
    if text.lower() == "off":
        return None
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([BKMG]?)", text.upper())
    if found is None:
        raise _wrong(text, "is not a rate")
    if float(found[1]) and not found[2]:
        raise _wrong(text, "has no unit")
    rate = int(float(found[1]) * UNITS[found[2] or "B"])
    if rate < SLOWEST:
        raise _wrong(text, "is slower than 1k, the slowest that can be kept")
    return rate


def _wrong(text: str, why: str) -> ConfigError:
    shown = printable(text if len(text) <= 60 else text[:57] + "...")
    return ConfigError(f'"{shown}" {why}. {FORM}')
