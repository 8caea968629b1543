"""A slow line is kept full, and not fuller: nobody stands behind megabytes that were sent ahead."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skynet.sftp.backlog import AHEAD_SECONDS, FIRST, LEAST, LOOK_SECONDS, LOOKS, SPELLS, Backlog
from skynet.sftp.ration import HELD, LONGEST_WRITE, SHORTEST_WRITE, shares

WINDOWS = 16 << 20  # bytes that the server lets through unanswered, in all channels
STEP = 0.05  # seconds
rates = st.floats(1e5, 1e9)
trips = st.floats(0.0, 0.3)


class Line:
    """Moves so many bytes a second, of ours and of those that others have in its queue."""

    def __init__(self, rate: float, round_trip: float) -> None:
        self.now = 0.0
        self.rate = rate
        self.round_trip = round_trip
        self.others = 0.0  # bytes
        self.backlog = Backlog(lambda: self.now)
        self.own = self.allowed()

    def carry(self, seconds: float) -> float:
        """Bytes a second that were acknowledged, while as much is under way as may be."""
        moved, steps = 0.0, round(seconds / STEP)
        for _ in range(steps):
            self.now += STEP
            share = self.rate * self.own / (self.own + self.others)
            got = STEP * (min(share, self.own / self.round_trip) if self.round_trip else share)
            moved += got
            if self.backlog.note(int(got), self.round_trip, is_short=True):
                self.own = self.allowed()
        return moved / seconds

    def allowed(self) -> float:
        most = self.backlog.most(self.round_trip)
        return float(WINDOWS if most is None else min(WINDOWS, most))

    @property
    def wait(self) -> float:
        """Seconds that what comes now stands behind what was sent before."""
        return max(0.0, self.own / self.rate - self.round_trip)


@given(rates, trips)
@example(12e6, 0.0)
@example(1e9, 0.15)
def test_a_line_is_full_and_its_queue_is_short(rate: float, round_trip: float) -> None:
    line = Line(rate, round_trip)
    line.carry(20)
    possible = min(rate, WINDOWS / round_trip if round_trip else rate)
    assert line.carry(20) >= 0.99 * possible
    assert line.wait <= max(AHEAD_SECONDS + round_trip + 0.01, LEAST / rate)


@pytest.mark.parametrize("round_trip", [0.05, 0.15, 0.3])
def test_a_fast_line_is_full_within_some_round_trips(round_trip: float) -> None:
    line = Line(1e9, round_trip)
    line.carry(0.1 + 8 * round_trip)
    assert line.own == WINDOWS


@given(rates, trips)
def test_a_line_that_gets_faster_is_followed(rate: float, round_trip: float) -> None:
    line = Line(rate, round_trip)
    line.carry(20)
    line.rate *= 10
    line.carry(20)
    possible = min(line.rate, WINDOWS / round_trip if round_trip else line.rate)
    assert line.carry(20) >= 0.99 * possible


@given(st.floats(1e6, 1e9), trips, st.floats(0.5, 2.0))
def test_a_queue_that_others_fill_is_not_left_to_them(
    rate: float, round_trip: float, seconds: float
) -> None:
    held_back, greedy = Line(rate, round_trip), Line(rate, round_trip)
    for line in (held_back, greedy):
        line.carry(20)
        line.others = rate * seconds
    greedy.own = float(WINDOWS)
    greedy.backlog = Backlog(lambda: 0.0)  # no time passes, so that never changes
    span = 4 * SPELLS * LOOKS * LOOK_SECONDS
    assert held_back.carry(span) >= 0.6 * greedy.carry(span)


def test_what_is_known_lasts_until_it_is_known_better() -> None:
    line = Line(1e7, 0.0)
    assert line.backlog.most(0.0) == FIRST
    line.carry(5)
    most = line.backlog.most(0.0)
    assert most == pytest.approx(1e7 * AHEAD_SECONDS, rel=0.01)
    line.backlog.interrupt()
    line.now += 1000.0  # which was no slow line, but none that was used
    line.carry(5)
    assert line.backlog.most(0.0) == pytest.approx(most, rel=0.01)


@given(st.floats(1e6, 1e9), trips, st.floats(0.01, 0.5), st.integers(0, 3))
def test_a_line_of_which_little_is_asked_is_no_slow_line(
    rate: float, round_trip: float, part: float, seconds: int
) -> None:
    line = Line(rate, round_trip)
    if seconds:
        line.carry(float(seconds))
    before = line.allowed()
    for _ in range(1000):  # now and then a file, of less than the line would move
        line.now += STEP
        line.backlog.note(int(part * STEP * rate), round_trip, is_short=False)
    assert line.allowed() >= before


def test_a_server_that_pauses_is_no_slow_line() -> None:
    line = Line(3e7, 0.01)
    for _ in range(10):
        line.carry(2)
        line.now += LOOKS * LOOK_SECONDS / 3
        assert line.own >= 3e7 * AHEAD_SECONDS


@given(st.integers(1, 1 << 40), st.integers(1, 64))
def test_channels_share_what_may_be_under_way(held: int, channels: int) -> None:
    write, share = shares(held, channels)
    assert SHORTEST_WRITE <= write <= LONGEST_WRITE
    assert 2 * write <= share
    assert channels * share <= max(min(held, HELD), channels * 2 * SHORTEST_WRITE)
