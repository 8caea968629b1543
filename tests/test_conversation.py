"""Conversations over one channel: round trips, lanes, order, and ends that are told once."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from skynet.errors import ConnectError, LinkLost, ProtocolError, RequestError, SkynetError
from skynet.sftp import channel as room
from skynet.sftp import replies, wire
from skynet.sftp.conversation import Conversation, Lanes
from skynet.sftp.replies import Reply, Status, expect_ok
from tests.support import frames
from tests.support.frames import Asked
from tests.support.pipes import client_over
from tests.support.scripted import Script, ScriptedConnection, greeting, obedient, silent
from tests.support.sources import Ends, raised


def connect(script: Script, **options: int) -> ScriptedConnection:
    return ScriptedConnection(greeting(script), **options)


def remove(*paths: bytes) -> Conversation[list[Reply]]:
    return (yield [wire.remove(path) for path in paths])


def codes(answers: Iterable[Reply]) -> list[int]:
    return [answer.code for answer in answers if isinstance(answer, Status)]


class Holding:
    """Answers nothing until `count` requests have come; then all of them, the last one first.

    The status of a request for path b"N" is N.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[bytes] = []

    def __call__(self, request: Asked) -> Iterable[bytes]:
        self._held.append(frames.status(request.request_id, int(request.text)))
        if len(self._held) < self._count:
            return []
        answers, self._held = self._held[::-1], []
        return answers


# Round trips ------------------------------------------------------------------------------------


def test_requests_of_one_yield_are_one_round_trip_and_answers_keep_their_order() -> None:
    with client_over(connect(Holding(9))) as client:
        answers = client.call(remove(*(b"%d" % n for n in range(9))))
    assert codes(answers) == list(range(9))


def test_conversations_share_a_round_trip_and_get_their_own_answers() -> None:
    ends = Ends()
    with client_over(connect(Holding(60))) as client:
        for number in range(60):
            client.submit(remove(b"%d" % number), ends.of(number))
        found = {end.key: end.result for end in ends.wait(60)}
    assert found == {number: [Status(number, b"")] for number in range(60)}


def test_a_conversation_may_ask_nothing() -> None:
    def quiet() -> Conversation[list[list[Reply]]]:
        first = yield []
        second = yield Lanes([])
        return [first, second]

    with client_over(connect(silent)) as client:
        assert client.call(quiet()) == [[], []]


def test_an_error_of_a_conversation_is_told_to_its_owner_alone() -> None:
    def failing() -> Conversation[None]:
        yield [wire.remove(b"x")]
        raise ValueError("mine")

    with client_over(connect(obedient)) as client:
        with pytest.raises(ValueError, match="mine"):
            client.call(failing())
        assert codes(client.call(remove(b"x"))) == [replies.OK]


def test_requests_and_mutations_are_counted() -> None:
    def look_and_remove() -> Conversation[None]:
        yield [wire.lstat(b"x"), wire.remove(b"x")]

    with client_over(connect(obedient)) as client:
        before = client.counts
        client.call(look_and_remove())
        assert client.counts - before == {"requests": 2, "mutations": 1}


# Lanes ------------------------------------------------------------------------------------------


def lane(path: bytes, log: list[bytes], times: int = 3) -> Conversation[None]:
    for _ in range(times):
        (reply,) = yield [wire.remove(path)]
        expect_ok(reply)
        log.append(path)


def test_lanes_run_side_by_side_and_are_waited_for_together() -> None:
    log: list[bytes] = []

    def side_by_side() -> Conversation[list[Reply]]:
        answers = yield Lanes([lane(b"0", log), lane(b"0", log)])
        log.append(b"all")
        return answers

    # Each answer takes two requests, so one lane alone would wait for ever.
    with client_over(connect(Holding(2))) as client:
        assert client.call(side_by_side()) == []
    assert log == [b"0"] * 6 + [b"all"]


def test_an_error_of_a_lane_is_raised_when_the_others_have_ended() -> None:
    log: list[bytes] = []

    def side_by_side() -> Conversation[None]:
        try:
            yield Lanes([lane(b"4", log, 1), lane(b"0", log, 1), lane(b"3", log, 1)])
        finally:
            log.append(b"all")

    with client_over(connect(Holding(3))) as client, pytest.raises(RequestError) as caught:
        client.call(side_by_side())
    assert caught.value.code == "permission-denied"  # answered first: the last one comes first
    assert log == [b"0", b"all"]


def test_a_conversation_goes_on_after_a_lane_has_failed() -> None:
    def heals() -> Conversation[list[int]]:
        try:
            yield Lanes([lane(b"4", [])])
        except RequestError:
            return codes((yield [wire.remove(b"0")]))
        return []

    with client_over(connect(Holding(1))) as client:
        assert client.call(heals()) == [0]


def test_a_lane_may_have_lanes() -> None:
    log: list[bytes] = []

    def outer() -> Conversation[None]:
        yield Lanes([inner(), inner()])

    def inner() -> Conversation[None]:
        yield Lanes([lane(b"0", log, 1), lane(b"0", log, 1)])

    with client_over(connect(Holding(4))) as client:
        client.call(outer())
    assert log == [b"0"] * 4


def test_a_lost_link_is_told_once_to_a_conversation_with_lanes() -> None:
    ends = Ends()

    def side_by_side() -> Conversation[None]:
        try:
            yield Lanes([lane(b"x", []), lane(b"x", [])])
        except LinkLost:
            yield [wire.remove(b"temp")]
            raise

    def cut(request: Asked) -> Iterable[bytes]:
        return [b""] if request.request_id == 1 else []

    with client_over(connect(cut)) as client:
        client.submit(side_by_side(), ends.of("lanes"))
        (end,) = ends.wait(1)
    assert isinstance(end.error, LinkLost)
    assert ends.nothing_more()


# The greeting -----------------------------------------------------------------------------------


def test_a_greeting_may_come_in_pieces() -> None:
    with client_over(connect(obedient, chunk=1)) as client:
        assert codes(client.call(remove(b"x"))) == [replies.OK]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (frames.version(number=2), ProtocolError),
        (frames.status(0, 4), ProtocolError),
        (b"Welcome to our server!\n", ProtocolError),
        (frames.version() + frames.status(0, 0), ProtocolError),
        (b"", ConnectError),
    ],
)
def test_what_is_no_greeting_is_refused_and_the_link_closed(
    said: bytes, error: type[SkynetError]
) -> None:
    connection = ScriptedConnection(lambda request: [said])
    with pytest.raises(error), client_over(connection):
        pass
    assert connection.streams[0].closed


# Replies that break the session -----------------------------------------------------------------

UNASKED = [
    frames.status(77, 0),
    b"\0\0\0\x0a\x66\0\0\0\0\0\0\0\x63h",  # a handle longer than its packet
    b"\0\0\0\x05\x4d\0\0\0\0",
    b"\xff\xff\xff\xff",
]


@pytest.mark.parametrize("said", UNASKED)
def test_a_reply_that_makes_no_sense_ends_everything_under_way(said: bytes) -> None:
    ends = Ends()
    waited_for = 5

    def mad(request: Asked) -> Iterable[bytes]:
        return [said] if request.request_id == waited_for - 1 else []

    connection = connect(mad)
    with client_over(connection, timeout=600) as client:
        for number in range(waited_for):
            client.submit(remove(b"x"), ends.of(number))
        found = ends.wait(waited_for)
        late = raised(lambda: client.call(remove(b"x")))
    assert sorted(str(end.key) for end in found) == list("01234")
    assert all(isinstance(end.error, LinkLost) and end.error.code == "protocol" for end in found)
    assert isinstance(late, ProtocolError)
    assert connection.aborted
    assert ends.nothing_more()


def test_an_answer_given_twice_is_one_too_many() -> None:
    def stutter(request: Asked) -> Iterable[bytes]:
        return [frames.status(request.request_id, 0)] * (1 + (request.text == b"twice"))

    def twice() -> Conversation[None]:
        yield [wire.remove(b"twice")]
        yield [wire.remove(b"once")]
        yield [wire.remove(b"once")]

    connection = connect(stutter)
    ends = Ends()
    with client_over(connection, timeout=600) as client:
        client.submit(twice(), ends.of("twice"))
        ends.wait(1)
        client_ended = raised(lambda: client.call(_wait_for_ever()))
    assert isinstance(client_ended, SkynetError)
    assert "answered request 1, never sent" in connection.aborted


def _wait_for_ever() -> Conversation[None]:
    while True:
        yield [wire.remove(b"once")]


# Request numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("last", range(1, 8))
def test_a_channel_whose_numbers_are_used_up_is_lost_and_all_are_told(
    monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    monkeypatch.setattr(room, "LAST_REQUEST_ID", last)
    ends = Ends()

    def two_steps() -> Conversation[None]:
        yield [wire.remove(b"x"), wire.remove(b"y")]
        yield Lanes([lane(b"x", []), lane(b"y", [])])

    connection = connect(obedient)
    with client_over(connection) as client:
        client.submit(two_steps(), ends.of(1))
        client.submit(two_steps(), ends.of(2))
        found = ends.wait(2)
    assert sorted(str(end.key) for end in found) == ["1", "2"]
    assert all(isinstance(end.error, LinkLost) for end in found)
    assert "request numbers" in connection.aborted
    assert ends.nothing_more()
    assert client.counts["requests"] <= last


def test_numbers_are_used_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LAST_REQUEST_ID", 5)  # the first asks how far away the server is
    with client_over(connect(obedient)) as client:
        assert codes(client.call(remove(b"1", b"2", b"3", b"4"))) == [0] * 4


# Bounds -----------------------------------------------------------------------------------------


def test_no_more_conversations_are_under_way_than_the_window_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "WINDOW", 7)
    most = 0
    held: list[Asked] = []

    def full(request: Asked) -> Iterable[bytes]:
        nonlocal most
        held.append(request)
        most = max(most, len(held))
        if len(held) < 7:
            return []
        answers = [frames.status(waiting.request_id, 0) for waiting in held]
        held.clear()
        return answers

    ends = Ends()
    with client_over(connect(full)) as client:
        for number in range(70):
            client.submit(remove(b"x"), ends.of(number))
        assert {end.error for end in ends.wait(70)} == {None}
    assert most == 7


def test_nothing_is_started_while_much_waits_to_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OUTGOING_LIMIT", 1)
    ends = Ends()
    with client_over(connect(obedient)) as client:
        for number in range(50):
            client.submit(remove(b"x"), ends.of(number))
        assert {end.error for end in ends.wait(50)} == {None}
