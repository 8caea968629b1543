"""What is happening, as values. Rooms tell a Monitor; only the faces show anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple


class Stage(NamedTuple):
    """A new part of the cycle has begun: `doing` is a phrase such as "comparing"."""

    doing: str


class Connected(NamedTuple):
    """A session with the server has begun. server: who, where and what it runs, for people."""

    server: str


class Progress(NamedTuple):
    """How far a plan is carried out. Bytes are content the server has acknowledged."""

    done: int
    total: int
    sent_bytes: int
    total_bytes: int


class BrokenOff(NamedTuple):
    """A cycle has ended by an error.

    planned, done: operations by kind and `bytes` of content, the latter acknowledged. counts: as
    of a report, until then.
    """

    planned: Counter[str]
    done: Counter[str]
    counts: Counter[str]


class Notice(NamedTuple):
    """Something a person should know that is no error. `code` is stable."""

    code: str
    message: str


Event = Stage | Connected | Progress | BrokenOff | Notice
Monitor = Callable[[Event], None]
