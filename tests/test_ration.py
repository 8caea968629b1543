"""What a channel holds is bounded, follows the limit, and whoever waits for it gets it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.errors import LinkLost
from skynet.sftp import backlog, ration
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from skynet.sftp.pace import Pace
from skynet.sftp.ration import HELD_SECONDS, Limits, Ration, Rations, limits
from skynet.sftp.stream import OWES_AN_ANSWER
from skynet.sftp.upload import Breadth, Placement, Tracks, upload
from skynet.sftp.wire import Attrs
from tests.support import frames
from tests.support.faults import FaultConnection
from tests.support.frames import Asked, written
from tests.support.patching import NEW, OLD, PATH, apply_patch, patch_of, target
from tests.support.pipes import FAR_AWAY, client_over, open_channels, pretend
from tests.support.scripted import ScriptedConnection, greeting, obedient
from tests.support.sources import BytesSource, Ends
from tests.support.versions import noise
from tests.test_pace import Clock, paced_client

WRITE = 32 << 10  # bytes, of a server that says nothing else
CHANNELS = 4
MTIME = 1_000_000

rates = st.none() | st.integers(1 << 10, 1 << 40)


# How much that is -------------------------------------------------------------------------------


@given(rates, st.integers(1, 64))
def test_what_all_channels_hold_is_bounded_and_enough(rate: int | None, channels: int) -> None:
    write, held = limits(rate, channels)
    assert channels * held <= max(ration.HELD, channels * 2 * write)
    assert held >= 2 * write
    assert 2 * write <= OWES_AN_ANSWER  # so an answer is due before the server owes one
    if rate is None:
        assert write == ration.LONGEST_WRITE


@given(st.integers(1 << 10, 1 << 40), st.integers(1, 64))
def test_a_limit_is_felt_as_short_writes_and_little_in_flight(rate: int, channels: int) -> None:
    write, held = limits(rate, channels)
    assert write <= max(ration.SHORTEST_WRITE, rate / 4)
    assert channels * held <= max(rate * HELD_SECONDS, channels * 2 * write)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=60))
def test_who_waits_is_served_in_turn_and_nobody_is_forgotten(steps: list[tuple[bool, int]]) -> None:
    most = 500
    rations: Rations[int] = Rations(lambda: Limits(300, most))
    sent: deque[int] = deque()
    waiting: deque[int] = deque()

    def go_on(size: int) -> None:
        assert sum(sent) < most
        sent.append(size)
        rations.hold(size)

    def answer() -> None:
        rations.release(sent.popleft())
        while (size := rations.next()) is not None:
            assert size == waiting.popleft()
            go_on(size)

    for asks, size in steps:
        if asks and rations.give(size, Ration()):
            go_on(size)
        elif asks:
            waiting.append(size)
        elif sent:
            answer()
    while sent:
        answer()
    assert not waiting


# A client ---------------------------------------------------------------------------------------


class Slow:
    """A server that answers writes only when no more of them come, to files of this size.

    most: the most bytes of `sources` that were read and not acknowledged. answered: how many were
    acknowledged each time. rate: bytes a second that it takes by its `clock`, for who measures it
    and therefore reads the clock at each answer.
    """

    def __init__(self, size: int, rate: float = 0.0) -> None:
        scripts = [greeting(self._script(channel)) for channel in range(CHANNELS + 1)]
        self.connection = ScriptedConnection(*scripts)
        self.sources: list[BytesSource] = []
        self.most = 0
        self.answered: list[int] = []
        self._now = 0.0
        self.size = size
        self.rate = rate
        self._clock_was_read = threading.Event()
        self._clock_was_read.set()
        self._acknowledged = 0
        self._asked: SimpleQueue[tuple[int, Asked]] = SimpleQueue()
        threading.Thread(target=self._answer, daemon=True).start()

    def _script(self, channel: int) -> Callable[[Asked], Iterable[bytes]]:
        def script(request: Asked) -> Iterable[bytes]:
            if request.kind == "FSTAT":
                return [frames.attrs(request.request_id, Attrs(size=self.size, mtime=MTIME))]
            if request.kind != "WRITE":
                return obedient(request)
            read = sum(source.offset for source in self.sources)
            self.most = max(self.most, read - self._acknowledged)
            self._asked.put((channel, request))
            return []

        return script

    def _answer(self) -> None:
        while not self.connection.aborted:
            asked: list[tuple[int, Asked]] = []
            with suppress(Empty):
                while True:
                    asked.append(self._asked.get(timeout=0.01))
            if not asked:
                continue
            self.answered.append(sum(len(written(request)[1]) for _, request in asked))
            self._acknowledged += self.answered[-1]
            for channel, request in asked:
                self._pass_time(len(written(request)[1]))
                for answer in obedient(request):
                    self.connection.streams[channel].say(answer)

    def _pass_time(self, count: int) -> None:
        if self.rate:
            self._clock_was_read.wait(20)
            self._clock_was_read.clear()
            self._now += count / self.rate

    def clock(self) -> float:
        self._clock_was_read.set()
        return self._now


def sending(
    client: Client, source: BytesSource, name: bytes, *, wide: bool
) -> Conversation[object]:
    breadth: Breadth = "wide" if wide else "lanes"
    place = Placement(b"tmp/" + name, name, b"aside", Attrs(mtime=MTIME), breadth=breadth)
    return upload(lambda: source, place, client.capabilities, Tracks(lambda _: None))


@contextmanager
def wide_open(client: Client) -> Iterator[None]:
    open_channels(client)
    assert client.width == CHANNELS
    yield


@pytest.mark.parametrize(
    ("count", "size", "wide"),
    [(600, WRITE, False), (100, 10 * WRITE, False), (2, 500 * WRITE, True)],
    ids=["small", "of several writes", "wide"],
)
def test_what_is_read_and_not_acknowledged_is_bounded(
    count: int, size: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ration, "HELD", 64 * WRITE)
    server = Slow(size)
    content, ends = bytes(size), Ends()
    with client_over(server.connection, channels=CHANNELS) as client, wide_open(client):
        for number in range(count):
            server.sources.append(BytesSource(content))
            name = b"%d" % number
            conversation = sending(client, server.sources[-1], name, wide=wide)
            client.submit(conversation, ends.of(name), weight=1)
        assert {end.error for end in ends.wait(count)} == {None}
    # Each of a channel's two threads may be about to send one write more.
    assert server.most <= (64 + 2 * CHANNELS) * WRITE
    assert server.most >= 64 // CHANNELS * WRITE  # and what may be held, is held


class Mirror:
    """A client of four channels near a slow server, and what is sent over it."""

    def __init__(self, server: Slow, client: Client) -> None:
        self.client = client
        self._server = server
        self._ends = Ends()

    def send(self, count: int, size: int, *, wide: bool) -> None:
        content = bytes(size)
        for _ in range(count):
            self._server.size = size
            self._server.sources.append(BytesSource(content))
            name = b"%d" % len(self._server.sources)
            conversation = sending(self.client, self._server.sources[-1], name, wide=wide)
            self.client.submit(conversation, self._ends.of(name))
        assert {end.error for end in self._ends.wait(count)} == {None}


@contextmanager
def mirrored(server: Slow) -> Iterator[Mirror]:
    client = Client(server.connection, channels=CHANNELS, timeout=20.0, clock=server.clock)
    pretend(client, FAR_AWAY)
    with closing(client), wide_open(client):
        client.round_trip = 0.0
        yield Mirror(server, client)


@pytest.mark.parametrize("rate", [1e5, 1e6, 2e6])
@pytest.mark.parametrize(
    ("count", "size", "wide"),
    [(500, WRITE, False), (50, 10 * WRITE, False), (1, 500 * WRITE, True)],
    ids=["small", "of several writes", "wide"],
)
def test_a_slow_line_is_sent_no_more_than_it_moves_in_a_moment(
    rate: float, count: int, size: int, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "LEAST", 4 * WRITE)
    monkeypatch.setattr(backlog, "FIRST", 64 * WRITE)
    server = Slow(size, rate)
    with mirrored(server) as mirror:
        mirror.send(count, size, wide=wide)
    in_a_moment = max(backlog.LEAST, rate * backlog.AHEAD_SECONDS)
    assert max(server.answered) >= in_a_moment
    later = server.answered[2:-1]
    # Each of a channel's two threads may be about to send one write more.
    assert max(later) <= 1.1 * in_a_moment + 2 * CHANNELS * WRITE
    if wide:  # it comes without pauses
        assert min(later) >= in_a_moment / 2


def test_what_a_slow_line_taught_is_forgotten_when_it_is_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "LEAST", 4 * WRITE)
    server = Slow(WRITE, 1e5)
    with mirrored(server) as mirror:
        mirror.send(1, 200 * WRITE, wide=True)
        assert server.answered[-2] <= 2 * CHANNELS * WRITE
        before = len(server.answered)
        server.rate *= 100
        mirror.send(1000, WRITE, wide=False)
    assert max(server.answered[before:]) >= 50 * WRITE


def test_with_one_write_at_a_time_all_is_done_even_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ration, "HELD", CHANNELS)
    connection, content = FaultConnection(max_write=WRITE), noise(40 * WRITE + 1)
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    ends, names = Ends(), [b"%d" % number for number in range(20)]
    with client_over(connection, channels=CHANNELS) as client, wide_open(client):
        for name in names:
            place = Placement(b"tmp/" + name, name, b"aside", breadth="wide")
            opening = partial(BytesSource, content)
            client.submit(
                upload(opening, place, client.capabilities, Tracks(lambda _: None)), ends.of(name)
            )
        assert {end.error for end in ends.wait(len(names))} == {None}
    assert all((tmp_path / name.decode()).read_bytes() == content for name in names)


def test_a_patch_needs_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ration, "HELD", CHANNELS)
    with target(tmp_path / "t", FaultConnection(max_write=4096)) as there:
        there.put(PATH, OLD)
        op, delta = patch_of(OLD, NEW)
        assert apply_patch(there.remote, op, delta, NEW).error is None
        held = there.holds(PATH)
        assert held is not None
        assert held.content == NEW


def test_when_the_link_is_lost_whoever_waits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ration, "HELD", 2 * WRITE)
    writes = threading.Semaphore(0)

    def script(request: Asked) -> Iterable[bytes]:
        if request.kind == "WRITE":
            writes.release()
            return []
        return obedient(request)

    ends, count = Ends(), 50
    with client_over(ScriptedConnection(greeting(script))) as client:
        for number in range(count):
            source = BytesSource(bytes((1 + number % 2) * WRITE))
            client.submit(sending(client, source, b"%d" % number, wide=False), ends.of(number))
        assert writes.acquire(timeout=20)
    errors = [end.error for end in ends.wait(count)]
    assert all(isinstance(error, LinkLost) for error in errors)


# Under a limit ----------------------------------------------------------------------------------


class Writes:
    """A server that takes a file of this size. lengths: of the writes; noted: called at each."""

    def __init__(self, size: int, noted: Callable[[], object] = lambda: None) -> None:
        self.lengths: list[int] = []
        self._size = size
        self._noted = noted

    def __call__(self, request: Asked) -> Iterable[bytes]:
        if request.kind == "WRITE":
            self.lengths.append(len(written(request)[1]))
            self._noted()
        if request.kind == "FSTAT":
            return [frames.attrs(request.request_id, Attrs(size=self._size, mtime=MTIME))]
        return obedient(request)


@pytest.mark.parametrize("rate", [2 << 10, 100_000, 1 << 20])
def test_under_a_limit_progress_is_smooth(rate: int) -> None:
    """However slow: something is acknowledged every moment, and little is in flight."""
    clock = Clock()
    size = max(20 * ration.SHORTEST_WRITE, 10 * rate)
    moments: list[float] = []
    writes = Writes(size, lambda: moments.append(clock.now))
    pace = Pace(lambda: rate, clock=clock.read, sleep=clock.sleep)
    with paced_client(ScriptedConnection(greeting(writes), most_streams=1), pace) as client:
        client.call(sending(client, BytesSource(bytes(size)), b"film", wide=False))
    assert sum(writes.lengths) == size
    assert max(writes.lengths) <= max(ration.SHORTEST_WRITE, rate / 4)
    moment = max(ration.SHORTEST_WRITE / rate, 0.25)
    assert max(after - before for before, after in pairwise(moments)) <= 2 * moment + 0.2


def test_a_small_file_too_goes_in_short_writes_under_a_limit() -> None:
    clock, size = Clock(), 30_000  # one write without a limit
    writes = Writes(size)
    pace = Pace(lambda: 20_000, clock=clock.read, sleep=clock.sleep)
    with paced_client(ScriptedConnection(greeting(writes)), pace) as client:
        client.call(sending(client, BytesSource(bytes(size)), b"picture", wide=False))
    assert sum(writes.lengths) == size
    assert max(writes.lengths) <= 5_000


def test_when_the_limit_ends_the_writes_are_long_again() -> None:
    clock, size = Clock(), 100 * WRITE
    writes = Writes(size)
    pace = Pace(lambda: 20_000 if clock.now < 10 else None, clock=clock.read, sleep=clock.sleep)
    with paced_client(ScriptedConnection(greeting(writes)), pace) as client:
        client.call(sending(client, BytesSource(bytes(size)), b"film", wide=False))
    assert sum(writes.lengths) == size
    assert writes.lengths[0] == 5_000
    assert max(writes.lengths) == WRITE
    assert len(writes.lengths) < 200
