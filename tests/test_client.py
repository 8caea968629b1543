"""A client over real servers: channels, limits, deadlines, and a link that breaks anywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from struct import pack

import pytest

from skynet.errors import ConnectError, LinkLost, RequestError, SkynetError
from skynet.sftp import replies, wire
from skynet.sftp.channel import Session
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Work
from skynet.sftp.replies import expect_attrs, expect_ok
from tests.support import frames
from tests.support.faults import Act, FaultConnection, at, nth
from tests.support.frames import Asked
from tests.support.pipes import (
    SHORT,
    PipeConnection,
    client_over,
    impatient,
    open_channels,
    pipe_client,
)
from tests.support.scripted import ScriptedConnection, greeting, obedient, silent
from tests.support.sources import PATIENCE, BytesSource, Ends, Sending, raised, submit_all

LIMITS = b"limits@openssh.com"


@pytest.fixture
def target(tmp_path: Path) -> bytes:
    (tmp_path / "tmp").mkdir()
    return bytes(tmp_path)


def size_of(path: bytes) -> Conversation[int | None]:
    (reply,) = yield [wire.lstat(path)]
    return expect_attrs(reply).size


def remove(path: bytes) -> Conversation[None]:
    (reply,) = yield [wire.remove(path)]
    expect_ok(reply)


def wait_for(happened: Callable[[], bool]) -> None:
    stops = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < stops, "it did not happen"
        time.sleep(0.001)


# Capabilities -----------------------------------------------------------------------------------


def test_openssh_says_what_it_can_do() -> None:
    with pipe_client() as client:
        found = client.capabilities
    assert (found.posix_rename, found.hardlink, found.statvfs) == (True, True, True)
    assert found.copy_data
    assert found.max_write == found.max_read == 255 * 1024
    assert found.max_handles > 0


def test_a_server_without_extensions_gets_what_version_three_allows() -> None:
    connection = ScriptedConnection(greeting(obedient))
    with client_over(connection) as client:
        found = client.capabilities
    assert (found.posix_rename, found.hardlink, found.statvfs) == (False, False, False)
    assert not found.copy_data
    assert (found.max_write, found.max_read, found.max_handles) == (32768, 32768, 0)


@pytest.mark.parametrize(
    ("packet", "stated", "used"),
    [
        (0, 0, 255 * 1024),
        (1 << 18, 1 << 18, 255 * 1024),
        (1 << 63, 1 << 63, 255 * 1024),
        (34_000, 1 << 20, 34_000 - 1024),
        (1 << 18, 8192, 8192),
        (1, 1, 4096),
    ],
)
def test_stated_limits_are_bounded_on_both_sides(packet: int, stated: int, used: int) -> None:
    def script(request: Asked) -> Iterable[bytes]:
        number = request.request_id
        return [frames.limits(number, packet=packet, read=stated, write=stated, handles=9)]

    with client_over(ScriptedConnection(greeting(script, LIMITS))) as client:
        found = client.capabilities
    assert (found.max_write, found.max_read, found.max_handles) == (used, used, 9)


def test_limits_that_are_announced_and_refused_do_not_matter() -> None:
    def script(request: Asked) -> Iterable[bytes]:
        return [frames.status(request.request_id, replies.UNSUPPORTED)]

    with client_over(ScriptedConnection(greeting(script, LIMITS))) as client:
        assert client.capabilities.max_write == 32768


def test_limits_that_end_too_early_end_the_connection() -> None:
    def script(request: Asked) -> Iterable[bytes]:
        return [pack(">IBIQ", 13, frames.EXTENDED_REPLY, request.request_id, 1)]

    connection = ScriptedConnection(greeting(script, LIMITS))
    with pytest.raises(ConnectError, match="too early"), client_over(connection):
        pass
    assert connection.streams[0].closed


# Channels ---------------------------------------------------------------------------------------


def test_work_is_shared_by_several_channels(target: bytes) -> None:
    connection = FaultConnection()
    ends = Ends()
    with client_over(connection, channels=4) as client:
        open_channels(client)
        assert client.width == len(connection.processes) == 4
        sendings = [Sending(target, b"%d" % number) for number in range(200)]
        submit_all(
            client,
            ends,
            ((s.path, s.conversation(client, BytesSource(s.path))) for s in sendings),
        )
        assert {end.error for end in ends.wait(200)} == {None}
    for sending in sendings:
        assert Path(sending.path.decode()).read_bytes() == sending.path


def test_a_server_with_one_channel_is_used_with_one() -> None:
    connection = PipeConnection(most_streams=1)
    with client_over(connection, channels=4) as client:
        open_channels(client)
        open_channels(client)
        assert client.width == 1
        assert client.call(size_of(b"/")) is not None
        assert not connection.aborted


def test_an_idle_channel_that_the_server_closes_is_opened_again_when_it_is_wanted() -> None:
    """As SFTPGo does after 15 minutes, also while other channels of the connection are busy."""
    connection = ScriptedConnection(greeting(obedient))
    with client_over(connection, channels=4) as client:
        open_channels(client)
        ends = Ends()
        submit_all(client, ends, ((n, remove(b"x")) for n in range(100)))
        ends.wait(100)
        before = client.counts
        for stream in connection.streams[1:3]:
            stream.say(b"")
        wait_for(lambda: client.width == 2)
        client.call(remove(b"x"))
        assert client.counts["requests"] == before["requests"] + 1
        open_channels(client)
        assert client.width == 4
        submit_all(client, ends, ((n, remove(b"x")) for n in range(100)))
        assert {end.error for end in ends.wait(100)} == {None}
    assert len(connection.streams) == 6


@pytest.mark.parametrize("number", [0, 1])
def test_a_channel_that_is_closed_while_it_is_needed_ends_the_link(number: int) -> None:
    connection = ScriptedConnection(greeting(silent))
    with client_over(connection, channels=2) as client:
        open_channels(client)
        ends = Ends()
        client._sessions[number].pin(Work(remove(b"x"), ends.of("x"), 0))
        wait_for(lambda: bool(client._sessions[number]._pending))
        connection.streams[number].say(b"")
        assert isinstance(ends.wait(1)[0].error, LinkLost)
        assert isinstance(raised(lambda: client.call(remove(b"x"))), LinkLost)


def test_the_first_channel_is_always_needed() -> None:
    connection = ScriptedConnection(greeting(obedient))
    with client_over(connection, channels=2) as client:
        open_channels(client)
        connection.streams[0].say(b"")
        wait_for(lambda: bool(connection.aborted))
        assert isinstance(raised(lambda: client.call(remove(b"x"))), LinkLost)


def test_a_second_channel_without_sftp_is_given_up_and_closed() -> None:
    def prints(request: Asked) -> Iterable[bytes]:
        return [b"This account has one session only.\n"]

    connection = ScriptedConnection(greeting(obedient), prints)
    with client_over(connection, channels=2) as client:
        open_channels(client)
        assert client.width == 1
        assert [stream.closed for stream in connection.streams] == [False, True]
        client.call(remove(b"x"))


# Many files at once -----------------------------------------------------------------------------


class Crowd:
    """Gives handles, and answers nothing else before `count` of them are open."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[Asked] = []
        self.open = 0
        self.most_open = 0

    def __call__(self, request: Asked) -> Iterable[bytes]:
        if request.kind == "OPEN":
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            yield frames.handle(request.request_id, b"%d" % self.most_open)
        else:
            self._held.append(request)
        if self.most_open >= self._count:
            held, self._held = self._held, []
            for waiting in held:
                self.open -= waiting.kind == "CLOSE"
                yield from obedient(waiting)


def test_hundreds_of_files_are_in_flight_on_one_channel() -> None:
    # The server holds back every answer until 200 files are open: fewer at once would stall.
    crowd, ends = Crowd(200), Ends()
    with client_over(ScriptedConnection(greeting(crowd))) as client:
        sendings = [Sending(b"/d", b"%d" % number, mtime=0) for number in range(500)]
        submit_all(
            client, ends, ((s.path, s.conversation(client, BytesSource(b""))) for s in sendings)
        )
        assert {end.error for end in ends.wait(500)} == {None}
    assert crowd.most_open >= 200


def test_a_server_with_few_handles_is_not_asked_for_more(target: bytes) -> None:
    connection = FaultConnection(open_files=20)
    ends = Ends()
    with client_over(connection, channels=2) as client:
        assert 0 < client.capabilities.max_handles < 20
        open_channels(client)
        sendings = [Sending(target, b"%d" % number) for number in range(150)]
        submit_all(
            client, ends, ((s.path, s.conversation(client, BytesSource(b"x"))) for s in sendings)
        )
        assert {end.error for end in ends.wait(150)} == {None}
    assert connection.most_open <= 2 * client.capabilities.max_handles


def test_a_server_with_fewer_handles_than_it_says_gets_all_files(
    target: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "bound_handles", lambda *_: None)
    connection = FaultConnection(open_files=20)
    ends = Ends()
    with client_over(connection, channels=2) as client:
        sendings = [Sending(target, b"%d" % number) for number in range(900)]
        submit_all(
            client, ends, ((s.path, s.conversation(client, BytesSource(b"x"))) for s in sendings)
        )
        assert {end.error for end in ends.wait(900)} == {None}
    # Each file is opened once, and again when it was refused: seldom after the first windowful.
    assert connection.seen.count("OPEN") < 2 * 900


def test_a_server_that_opens_no_file_is_asked_once_for_each() -> None:
    def refuses(request: Asked) -> Iterable[bytes]:
        return [frames.status(request.request_id, replies.FAILURE)]

    ends = Ends()
    with client_over(ScriptedConnection(greeting(refuses))) as client:
        before = client.counts
        sendings = [Sending(b"/d", b"%d" % number) for number in range(50)]
        submit_all(
            client, ends, ((s.path, s.conversation(client, BytesSource(b"x"))) for s in sendings)
        )
        assert all(isinstance(end.error, RequestError) for end in ends.wait(50))
        assert client.counts["requests"] - before["requests"] == 50


def test_whoever_waits_for_a_file_to_close_hears_of_the_broken_link(target: bytes) -> None:
    connection = FaultConnection(open_files=12)
    ends = Ends()
    with client_over(connection, channels=1) as client:
        connection.arm(lambda _, request: Act.STALL if request.kind == "CLOSE" else None)
        sendings = [Sending(target, b"%d" % number) for number in range(100)]
        submit_all(
            client, ends, ((s.path, s.conversation(client, BytesSource(b"x"))) for s in sendings)
        )
        while "CLOSE" not in connection.seen:
            time.sleep(0.01)
        client.close()
        assert all(isinstance(end.error, LinkLost) for end in ends.wait(100))


# Deadlines --------------------------------------------------------------------------------------


def test_a_stopped_server_ends_within_the_deadline_and_all_are_told(target: bytes) -> None:
    connection = PipeConnection()
    ends = Ends()
    with client_over(connection, channels=2) as client:
        open_channels(client)
        connection.stop_servers()
        big = Sending(target, b"big")
        client.submit(big.conversation(client, BytesSource(bytes(9 << 20))), ends.of("big"))
        submit_all(client, ends, ((n, size_of(b"/")) for n in range(600)))
        with impatient(client):
            found = ends.wait(601)
        late = raised(lambda: client.call(size_of(b"/")))
    assert all(isinstance(end.error, LinkLost) for end in found)
    assert isinstance(late, LinkLost)
    assert "has not answered" in str(late)
    assert "has not answered" in connection.aborted
    assert ends.nothing_more()


def test_a_server_that_never_greets_is_given_up() -> None:
    connection = ScriptedConnection(silent)
    with pytest.raises(LinkLost), client_over(connection, timeout=SHORT):
        pass
    assert "has not answered" in connection.aborted


def test_an_idle_client_is_not_stalled() -> None:
    before = set(threading.enumerate())
    with client_over(ScriptedConnection(greeting(obedient))) as client:
        client.call(remove(b"x"))
        started = set(threading.enumerate()) - before
        (supervisor,) = (thread for thread in started if thread.name == "sftp-supervisor")
        with impatient(client):
            supervisor.join(2.0)  # the time it would need to give up, were it owed an answer
        client.call(remove(b"x"))


def test_a_request_that_is_swallowed_ends_the_link() -> None:
    connection = FaultConnection()
    with client_over(connection) as client, impatient(client):
        connection.arm(at(0, Act.STALL))
        error = raised(lambda: client.call(size_of(b"/")))
    assert isinstance(error, LinkLost)


def test_a_request_that_is_swallowed_among_others_ends_the_link_too() -> None:
    def swallows(request: Asked) -> Iterable[bytes]:
        return [] if request.text == b"swallowed" else obedient(request)

    ends = Ends()
    with client_over(ScriptedConnection(greeting(swallows))) as client, impatient(client):
        client.submit(remove(b"swallowed"), ends.of("swallowed"))
        # As the beats of the lease, which never end.
        stops = time.monotonic() + PATIENCE
        while (error := raised(lambda: client.call_pinned(remove(b"x")))) is None:
            assert time.monotonic() < stops, "nobody noticed"
        (end,) = ends.wait(1)
    assert isinstance(error, LinkLost)
    assert isinstance(end.error, LinkLost)
    assert "has not answered" in str(end.error)


# A link that breaks -----------------------------------------------------------------------------


def many_things(client: Client, target: bytes) -> Iterable[tuple[object, Conversation[object]]]:
    """A small file, a file of several writes, a listing and a look."""
    for name, length in ((b"small", 10), (b"large", 3000)):
        sending = Sending(target, name)
        yield name, sending.conversation(client, BytesSource(bytes(length)))
    yield "missing", remove(target + b"/missing")
    yield "size", size_of(target)


def run_many_things(connection: FaultConnection, target: bytes, fault: int, act: Act) -> bool:
    """Whether the link broke; each conversation is told exactly once in any case."""
    ends = Ends()
    with client_over(connection, timeout=600) as client:
        connection.arm(at(fault, act))
        expected = submit_all(client, ends, many_things(client, target))
        found = ends.wait(expected)
        broken = raised(lambda: client.call(size_of(b"/")))
    assert sorted(str(end.key) for end in found) == sorted(
        ["b'small'", "b'large'", "missing", "size"]
    )
    assert ends.nothing_more()
    lost = [end for end in found if isinstance(end.error, LinkLost)]
    assert broken is None or isinstance(broken, LinkLost)
    assert not lost or isinstance(broken, LinkLost)
    return broken is not None


@pytest.mark.parametrize("act", [Act.KILL, Act.CUT_BEFORE, Act.CUT_AFTER])
def test_a_link_that_breaks_at_any_request_is_told_to_all_once(target: bytes, act: Act) -> None:
    number, broken = 0, True
    while broken:
        connection = FaultConnection(max_write=1000)
        broken = run_many_things(connection, target, number, act)
        number += 1
        for temp in Path(target.decode(), "tmp").iterdir():
            temp.unlink()
    # Two uploads of 6 and 7 or more requests, and one request each for the others.
    assert number > 15


def test_what_is_submitted_to_a_lost_link_is_told_at_once() -> None:
    connection = PipeConnection()
    ends = Ends()
    with client_over(connection) as client:
        connection.kill_servers()
        raised(lambda: client.call(size_of(b"/")))
        submit_all(client, ends, ((n, size_of(b"/")) for n in range(20)))
        assert all(isinstance(end.error, LinkLost) for end in ends.wait(20))


def test_closing_tells_everything_that_waits() -> None:
    connection = ScriptedConnection(greeting(silent))
    ends = Ends()
    client = Client(connection)
    submit_all(client, ends, ((n, size_of(b"/")) for n in range(400)))
    client.close()
    assert all(isinstance(end.error, LinkLost) for end in ends.wait(400))
    assert isinstance(raised(lambda: client.call(size_of(b"/"))), LinkLost)
    client.close()
    assert ends.nothing_more()


def test_an_error_of_one_conversation_leaves_the_link_alone(target: bytes) -> None:
    connection = FaultConnection()
    with client_over(connection) as client:
        connection.arm(nth("REMOVE", 0, replies.PERMISSION_DENIED))
        error = raised(lambda: client.call(remove(target + b"/x")))
        assert isinstance(error, SkynetError)
        assert (error.code, str(error)) == ("permission-denied", "as the test wants")
        assert client.call(size_of(target)) is not None
