"""Channels are opened as long as they make it faster: counted, with a clock of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.sftp import wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Everywhere, Lanes
from skynet.sftp.gain import ROUND_TRIPS, SHORTEST_LOOK, WORTH, Gain
from skynet.sftp.pace import Pace
from skynet.sftp.replies import expect_ok
from tests.support.frames import Asked
from tests.support.pipes import pretend, wait_until_opened
from tests.support.scripted import ScriptedConnection, greeting, obedient

PIECE = 32 << 10
MUCH = 1 << 20
NEAR, MIDDLE, FAR = 0.001, 0.005, 0.15  # seconds of a round trip


class Link:
    """Acknowledges pieces as fast as `rate` says for so many channels, by its own clock."""

    def __init__(self, rate: Callable[[int], float]) -> None:
        self.now = 0.0
        self._rate = rate
        self._lock = threading.Lock()

    def carry(self, count: int, width: int) -> None:
        with self._lock:
            self.now += count / self._rate(width)

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


def up_to(most: int) -> Callable[[int], float]:
    """Every channel gains a lot, up to so many.

    A rate is measured over many pieces, so that the few under way when it begins do not count.
    """
    return lambda width: 4e6 * 1.3 ** min(width, most)


def opened(link: Link, begun_with: int, most: int, round_trip: float = NEAR) -> int:
    """The channels there are in the end, if each that is asked for is granted up to `most`."""
    gain, width = Gain(link.read), begun_with
    for _ in range(2_000):
        link.carry(MUCH, width)
        if gain.note(MUCH, width, round_trip):
            width = min(width + 1, most)
    return width


@given(st.integers(1, 8), st.integers(1, 9), st.sampled_from([NEAR, MIDDLE, FAR]))
def test_one_channel_more_than_is_of_use_is_tried(begun: int, useful: int, away: float) -> None:
    assert opened(Link(up_to(useful)), begun, 64, away) == max(useful, begun) + 1


def test_a_gain_that_is_too_small_is_none() -> None:
    link = Link(lambda width: 1e6 * (WORTH - 0.02) ** width)
    assert opened(link, 2, 64) == 3
    link = Link(lambda width: 1e6 * (WORTH + 0.02) ** width)
    assert opened(link, 2, 12) == 12


def test_a_number_of_channels_is_judged_once_and_over_several_round_trips() -> None:
    link = Link(up_to(100))
    gain, asked = Gain(link.read), []
    for _ in range(10_000):
        link.carry(PIECE, 2)
        if gain.note(PIECE, 2, FAR):
            asked.append(link.now)
    assert len(asked) == 1  # whoever was refused is not asked again
    assert asked[0] >= ROUND_TRIPS * FAR


def test_a_pause_between_two_files_is_not_measured() -> None:
    link = Link(lambda width: 1e6 * 1.3**width)
    gain, width = Gain(link.read), 2
    for number in range(20_000):
        link.carry(PIECE, width)
        if gain.note(PIECE, width, NEAR):
            width += 1
        if number % 400 == 0:  # a pause now and then would halve the rate
            link.now += SHORTEST_LOOK
            gain.interrupt()
    assert width >= 10


# A client ---------------------------------------------------------------------------------------


def wide_file(count: int) -> Conversation[None]:
    """So many writes over all channels."""
    left = iter(range(count))
    lock = threading.Lock()

    def next_one() -> int | None:
        with lock:
            return next(left, None)

    def lane() -> Conversation[None]:
        while next_one() is not None:
            (reply,) = yield [wire.write(b"h", 0, bytes(PIECE))]
            expect_ok(reply)

    def share() -> Conversation[None]:
        yield Lanes([lane()])

    yield Everywhere(share)


def small_files(count: int) -> Conversation[None]:
    """So many writes on one channel."""
    for _ in range(count):
        (reply,) = yield [wire.write(b"h", 0, bytes(PIECE))]
        expect_ok(reply)


def server(link: Link, most_streams: int = 100) -> ScriptedConnection:
    """As fast as `link` is with the channels there are; each write waits for those being opened."""

    def script(request: Asked) -> Iterable[bytes]:
        if request.kind == "WRITE":
            wait_until_opened()
            link.carry(PIECE, len(connection.streams))
        return obedient(request)

    connection = ScriptedConnection(greeting(script), most_streams=most_streams)
    return connection


def channels_of(
    connection: ScriptedConnection,
    link: Link,
    work: Callable[[], Conversation[None]],
    *,
    channels: int = 64,
    round_trip: float = NEAR,
    pace: Pace | None = None,
) -> int:
    """How many channels carry data in the end."""
    client = Client(connection, channels=channels, timeout=20, clock=link.read, pace=pace)
    try:
        pretend(client, round_trip)
        client.widen()
        for _ in range(3):
            client.call(work())
        return client.width
    finally:
        client.close()
        connection.close()


@pytest.mark.parametrize(("round_trip", "begun"), [(NEAR, 2), (MIDDLE, 4), (FAR, 8)])
@pytest.mark.parametrize("useful", [1, 5, 9])
def test_large_files_open_channels_as_long_as_they_gain(
    round_trip: float, begun: int, useful: int
) -> None:
    link = Link(up_to(useful))
    found = channels_of(server(link), link, lambda: wide_file(4000), round_trip=round_trip)
    assert found == max(begun, useful) + 1


def test_no_more_than_were_allowed() -> None:
    link = Link(up_to(100))
    assert channels_of(server(link), link, lambda: wide_file(4000), channels=5) == 5


def test_no_more_than_the_server_grants() -> None:
    link = Link(up_to(100))
    connection = server(link, most_streams=6)
    assert channels_of(connection, link, lambda: wide_file(4000)) == 6
    assert not connection.aborted.startswith("The server")


def test_small_files_open_none() -> None:
    link = Link(up_to(100))
    assert channels_of(server(link), link, lambda: small_files(1500)) == 2


def test_a_limit_is_not_taken_for_a_channel_that_gains_nothing() -> None:
    link = Link(up_to(6))
    pace = Pace(lambda: 200_000 if link.now < 30 else None, clock=link.read, sleep=link.sleep)
    found = channels_of(server(link), link, lambda: wide_file(4000), pace=pace)
    assert found == 6  # and the link knows of one more, for calls
