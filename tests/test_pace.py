"""The pace is kept: at most the limit, at least nearly all of it, and no stall is made of it."""

from __future__ import annotations

import heapq
import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import accumulate, chain, count
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.errors import LinkLost
from skynet.sftp import channel, wire
from skynet.sftp import client as client_room
from skynet.sftp.client import Client, Connection
from skynet.sftp.conversation import Conversation, Everywhere
from skynet.sftp.pace import BURST_SECONDS, LONGEST_SLEEP, LONGEST_SLICE, SHORTEST_SLICE, Pace
from skynet.sftp.replies import Reply, expect_ok
from skynet.sftp.stream import OWES_AN_ANSWER
from skynet.sftp.wire import Request
from tests.support.frames import Asked
from tests.support.pipes import FAR_AWAY, SHORT, PipeConnection, open_channels, pretend
from tests.support.scripted import ScriptedConnection, greeting, obedient
from tests.support.sources import PATIENCE, BytesSource, Ends, Sending, raised, submit_all

WINDOW = 60.0  # seconds over which the limit is to be kept
A_LOT = 1 << 30


class Clock:
    """A clock that goes on while somebody sleeps, who sleeps `late` seconds too long."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 0.0
        self._late = late
        self._lock = threading.Lock()

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds + self._late


class Supervised(Clock):
    """Also the client's clock: it stands still while anybody works, and each time that somebody
    has slept the client's supervisor looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._looked = threading.Event()
        monkeypatch.setattr(channel, "monotonic", self.read)
        monkeypatch.setattr(client_room, "monotonic", self._look)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._looked.clear()
        self._looked.wait(1.0)  # none is left to look once the client has given up

    def _look(self) -> float:
        self._looked.set()
        return self.now


def patient() -> None:
    """Waits as long as it takes."""


def never() -> None:
    raise AssertionError("nothing had to wait")


class Timetable(NamedTuple):
    """Rates for so many seconds each, one after the other; the last one for ever."""

    parts: list[tuple[float, int]]

    def rate(self, now: float) -> int:
        for seconds, rate in self.parts:
            if now < seconds:
                return rate
            now -= seconds
        return self.parts[-1][1]

    def allowed(self, begin: float, end: float) -> float:
        """The bytes that all rates together allow from `begin` to `end`."""
        total, at = 0.0, 0.0
        for seconds, rate in [*self.parts, (math.inf, self.parts[-1][1])]:
            total += rate * max(0.0, min(end, at + seconds) - max(begin, at))
            at += seconds
        return total


class Threads:
    """Threads under one clock that stands still while any of them works: one runs at a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._turn = threading.Condition()
        self._asleep: list[tuple[float, int]] = []
        self._awake = 0
        self._tickets = count()

    def run(self, *works: Callable[[], None]) -> None:
        """Run them all to their ends."""
        self._awake = len(works)
        threads = [threading.Thread(target=self._work, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def sleep(self, seconds: float) -> None:
        mine = (self.now + seconds, next(self._tickets))
        with self._turn:
            heapq.heappush(self._asleep, mine)
            self._rest()
            assert self._turn.wait_for(lambda: mine not in self._asleep, PATIENCE)

    def _work(self, work: Callable[[], None]) -> None:
        work()
        with self._turn:
            self._rest()

    def _rest(self) -> None:
        self._awake -= 1
        if not self._awake and self._asleep:
            self.now, _ = heapq.heappop(self._asleep)
            self._awake = 1
            self._turn.notify_all()


Taken = list[tuple[float, int]]  # when, and how many bytes


def windows(taken: Taken, length: float) -> Iterator[tuple[int, int]]:
    """The most and the fewest bytes in windows of this length that begin as some are taken."""
    moments = [moment for moment, _ in taken]
    sums = [0, *accumulate(size for _, size in taken)]
    for first, begin in enumerate(moments):
        last = bisect_right(moments, begin + length)
        if begin + length <= moments[-1]:
            yield sums[last] - sums[first], sums[last] - sums[first + 1]


# The bucket -------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    rate=st.integers(1 << 10, 4 << 20),
    late=st.floats(0, 0.05),
    wanted=st.sampled_from([100, 10_000, A_LOT]),
)
def test_over_any_minute_the_limit_is_kept_and_used(rate: int, late: float, wanted: int) -> None:
    clock = Clock(late)
    pace = Pace(lambda: rate, clock=clock.read, sleep=clock.sleep)
    taken: Taken = []
    while clock.now < 2 * WINDOW:
        length = pace.take(max(wanted, rate // 100), patient)
        taken.append((clock.now, length))
    for most, fewest in windows(taken, WINDOW):
        assert most <= rate * WINDOW * 1.1
        assert fewest >= rate * WINDOW * 0.9


@settings(max_examples=30, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.floats(0.5, 20), st.integers(8 << 10, 1 << 20)), min_size=2, max_size=4
    ),
    late=st.floats(0, 0.05),
)
def test_a_change_counts_at_once(parts: list[tuple[float, int]], late: float) -> None:
    clock, timetable = Clock(late), Timetable(parts)
    pace = Pace(lambda: timetable.rate(clock.now), clock=clock.read, sleep=clock.sleep)
    # What may be earned ahead, claimed before, and taken for the other rate by a late sleeper.
    slack = (
        max(rate for _, rate in parts) * (BURST_SECONDS + 2 * (LONGEST_SLEEP + late))
        + LONGEST_SLICE
    )
    taken = 0
    while clock.now < sum(seconds for seconds, _ in parts) + 5:
        taken += pace.take(A_LOT, patient)
        assert abs(taken - timetable.allowed(0.0, clock.now)) <= slack


def test_channels_share_one_limit_and_none_is_left_out() -> None:
    threads, rate, each = Threads(), 1 << 20, 4 << 20
    pace = Pace(lambda: rate, clock=lambda: threads.now, sleep=threads.sleep)
    taken: list[Taken] = [[] for _ in range(4)]

    def take(mine: Taken) -> None:
        while sum(size for _, size in mine) < each:
            size = pace.take(A_LOT, patient)
            mine.append((threads.now, size))

    threads.run(*(partial(take, mine) for mine in taken))
    for most, _ in windows(sorted(chain(*taken)), 1.0):
        assert most <= rate * (1 + BURST_SECONDS) + LONGEST_SLICE
    ends = [mine[-1][0] for mine in taken]
    assert max(ends) - min(ends) <= 4 * LONGEST_SLICE / rate
    assert max(ends) >= (4 * each / rate) * 0.9
    assert max(ends) <= (4 * each / rate) * 1.1


@pytest.mark.parametrize("rate", [1 << 10, 100_000, 100 << 20])
def test_a_slice_and_a_burst_are_small(rate: int) -> None:
    clock = Clock()
    pace = Pace(lambda: rate, clock=clock.read, sleep=clock.sleep)
    clock.now += 3600  # nobody sends for an hour
    most = max(rate * BURST_SECONDS, SHORTEST_SLICE)
    burst, begun = 0, clock.now
    while True:
        length = pace.take(A_LOT, patient)
        assert length <= max(SHORTEST_SLICE, min(LONGEST_SLICE, rate / 16))
        if clock.now > begun:
            break
        burst += length
    assert 0 < burst <= most


def test_without_a_limit_nobody_waits_and_nothing_is_saved_up() -> None:
    clock = Clock()
    rates: list[int | None] = [None]
    pace = Pace(lambda: rates[0], clock=clock.read, sleep=clock.sleep)
    for _ in range(1000):
        assert pace.take(A_LOT, never) == LONGEST_SLICE
    clock.now += 3600
    assert pace.take(5, never) == 5
    rates[0] = 1 << 10
    begun = clock.now
    assert sum(pace.take(A_LOT, patient) for _ in range(60)) == 60 * SHORTEST_SLICE
    assert clock.now - begun == pytest.approx(60, rel=0.05)


def test_who_waits_is_let_go_when_the_limit_ends() -> None:
    clock = Clock()
    pace = Pace(lambda: 1 << 10 if clock.now < 10 else None, clock=clock.read, sleep=clock.sleep)
    while clock.now < 10:
        pace.take(A_LOT, patient)
    assert clock.now <= 10 + LONGEST_SLEEP


def test_a_wait_ends_when_it_is_told_to() -> None:
    clock = Clock()
    pace = Pace(lambda: 1 << 10, clock=clock.read, sleep=clock.sleep)

    def ended() -> None:
        if clock.now >= 3:
            raise LinkLost("The link is gone.")

    with pytest.raises(LinkLost):
        while True:
            pace.take(A_LOT, ended)
    assert clock.now <= 3 + LONGEST_SLEEP


# A client ---------------------------------------------------------------------------------------


@contextmanager
def paced_client(
    connection: Connection, pace: Pace, *, channels: int = 1, timeout: float = 20.0
) -> Iterator[Client]:
    with (
        closing(connection),
        closing(Client(connection, channels=channels, timeout=timeout, pace=pace)) as client,
    ):
        pretend(client, FAR_AWAY)
        yield client


@pytest.mark.parametrize("channels", [1, 4])
def test_a_client_sends_no_faster(channels: int, tmp_path: Path) -> None:
    clock, rate, size = Clock(), 1 << 20, 8 << 20
    pace = Pace(lambda: rate, clock=clock.read, sleep=clock.sleep)
    contents = {b"%d" % number: bytes([number]) * (size // 8) for number in range(8)}
    (tmp_path / "tmp").mkdir()
    sendings = {name: Sending(bytes(tmp_path), name) for name in contents}
    ends = Ends()
    with paced_client(PipeConnection(), pace, channels=channels) as client:
        client.widen()
        submit_all(
            client,
            ends,
            (
                (name, sending.conversation(client, BytesSource(contents[name])))
                for name, sending in sendings.items()
            ),
        )
        assert all(end.error is None for end in ends.wait(len(contents)))
    assert {name: (tmp_path / name.decode()).read_bytes() for name in contents} == contents
    assert size <= rate * (clock.now + BURST_SECONDS)
    if channels == 1:  # of several threads, each pushes the clock on by what it sleeps
        assert size >= rate * clock.now * 0.9


def written(length: int) -> Conversation[None]:
    """Write so many bytes at once, and wait for all the answers."""
    answers = yield [wire.write(b"h", 0, bytes(32 << 10)) for _ in range(length >> 15)]
    for reply in answers:
        expect_ok(reply)


def test_to_wait_for_the_pace_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """At this rate a slice waits for a second, three times as long as the server may be silent."""
    clock = Supervised(monkeypatch)
    connection = ScriptedConnection(greeting(obedient))
    pace = Pace(lambda: 1 << 10, clock=clock.read, sleep=clock.sleep)
    with paced_client(connection, pace, timeout=SHORT) as client:
        (reply,) = client.call(_one(wire.write(b"h", 0, bytes(3 << 10))))
        expect_ok(reply)


def test_a_server_that_stops_answering_is_found_long_before_all_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Supervised(monkeypatch)
    heard: list[int] = []

    def script(request: Asked) -> Iterable[bytes]:
        heard.append(request.request_id)
        return []

    connection = ScriptedConnection(greeting(script))
    pace = Pace(lambda: 1 << 20, clock=clock.read, sleep=clock.sleep)
    with paced_client(connection, pace, timeout=SHORT) as client:
        error = raised(lambda: client.call(written(32 << 20)))
    assert isinstance(error, LinkLost)
    assert "has not answered" in str(error)
    assert OWES_AN_ANSWER >> 15 <= len(heard) <= 512  # of 1024


def test_a_client_that_is_closed_stops_waiting() -> None:
    before = set(threading.enumerate())
    ends = Ends()
    connection = ScriptedConnection(greeting(obedient))
    with paced_client(connection, Pace(lambda: 1 << 10)) as client:
        client.submit(written(1 << 20), ends.of("it"))
    [end] = ends.wait(1)
    assert isinstance(end.error, LinkLost)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("most_streams", [1, 100])
def test_who_calls_does_not_stand_behind_what_waits(most_streams: int) -> None:
    """Unless the server has but one channel; then the call waits, and is answered even so."""
    asked: list[str] = []

    def script(request: Asked) -> Iterable[bytes]:
        asked.append(request.kind)
        return obedient(request)

    connection = ScriptedConnection(greeting(script), most_streams=most_streams)
    ends = Ends()
    rates: list[int | None] = [1 << 16 if most_streams > 1 else 1 << 20]
    with paced_client(connection, Pace(lambda: rates[0])) as client:
        client.submit(written(2 << 20), ends.of("much"))
        client.call(_one(wire.lstat(b"lease")))
        before = asked[: asked.index("LSTAT")].count("WRITE")
        rates[0] = None
        [end] = ends.wait(1)
    assert end.error is None
    assert before <= 16 if most_streams > 1 else before == 64


def test_the_channel_for_calls_takes_no_part_in_large_files() -> None:
    connection = ScriptedConnection(greeting(obedient))
    shares: list[None] = []

    def share() -> Conversation[None]:
        shares.append(None)
        yield [wire.lstat(b"x")]

    def wide() -> Conversation[None]:
        yield Everywhere(share)

    with paced_client(connection, Pace(lambda: None), channels=4) as client:
        open_channels(client)
        assert client.width == 4
        client.call(wide())
    assert len(shares) == 4


def _one(request: Request) -> Conversation[list[Reply]]:
    return (yield [request])
