"""What a server says of its bounds costs no round trip of its own, and nothing goes on without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from struct import pack

import pytest

from skynet.errors import ConnectError, LinkLost
from skynet.remote import SftpRemote
from skynet.sftp import client as client_module
from skynet.sftp import wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from tests.support import frames
from tests.support.faults import FaultConnection
from tests.support.frames import Asked, written
from tests.support.pipes import wait_until_opened
from tests.support.scripted import ScriptedConnection, greeting, obedient, silent
from tests.support.sources import BytesSource, Ends, Sending, raised

LIMITS = b"limits@openssh.com"
STATED = 8192
MOMENT = 0.1  # seconds in which what is not kept from it has long happened
DEADLINE = 30.0


class Late:
    """Says its bounds only when `say` is called, and answers all else at once."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._is_asked = threading.Event()
        self.connection = ScriptedConnection(greeting(self._answer, LIMITS))

    @property
    def seen(self) -> list[str]:
        return [request.kind for request in self.asked]

    def say(self) -> None:
        number = self.wait_until_asked()
        answer = frames.limits(number, packet=1 << 18, read=STATED, write=STATED, handles=20)
        self.connection.streams[0].say(answer)

    def wait_until_asked(self) -> int:
        """The number of the request for the bounds."""
        assert self._is_asked.wait(DEADLINE)
        (request,) = (each for each in self.asked if each.kind == LIMITS.decode())
        return request.request_id

    def _answer(self, request: Asked) -> Iterable[bytes]:
        self.asked.append(request)
        if request.kind == LIMITS.decode():
            self._is_asked.set()
            return []
        if request.kind == "READ":
            return [frames.data(request.request_id, b"x")]
        if request.kind == "REALPATH":
            return [frames.names(request.request_id, [(b"/home", wire.Attrs())])]
        return obedient(request)


def look() -> Conversation[None]:
    yield [wire.lstat(b"/")]


def peek(client: Client) -> None:
    SftpRemote(client, b"/d", "nonce").peek([(b"manifest", 0, 10), (b"log", 0, 10)])


def stamp(client: Client) -> None:
    SftpRemote(client, b"/d", "nonce").stamp(b"lease")


def find_home(client: Client) -> None:
    assert SftpRemote(client, b"~/d", "nonce").root == b"/home/d"


@pytest.mark.parametrize("first", [peek, stamp, find_home, lambda client: client.call(look())])
def test_the_first_call_does_not_wait_for_them(first: Callable[[Client], None]) -> None:
    server = Late()
    client = Client(server.connection, timeout=DEADLINE)
    first(client)
    assert server.seen[0] == LIMITS.decode()  # sent first, and not answered yet
    server.say()
    assert client.capabilities.max_write == STATED
    client.close()


def begin(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(MOMENT)
    assert thread.is_alive()
    return thread


@pytest.mark.parametrize(
    "needs", [lambda can: can.max_write, lambda can: can.max_read, lambda can: can.max_handles]
)
def test_whoever_needs_them_waits(needs: Callable[[object], int]) -> None:
    server, found = Late(), []
    client = Client(server.connection, timeout=DEADLINE)
    thread = begin(lambda: found.append(needs(client.capabilities)))
    server.say()
    thread.join(DEADLINE)
    assert found in ([STATED], [20])
    client.close()


def test_no_file_is_opened_and_no_byte_sent_before_they_are_known() -> None:
    server, ends = Late(), Ends()
    client = Client(server.connection, timeout=DEADLINE)
    sending = Sending(b"/d", b"name", mtime=0)

    def send() -> None:
        upload = sending.conversation(client, BytesSource(bytes(3 * STATED)))
        client.submit(upload, ends.of("it"))

    thread = begin(send)
    client.call(look())
    assert "OPEN" not in server.seen
    server.say()
    thread.join(DEADLINE)
    ends.wait(1)
    lengths = [len(written(each)[1]) for each in server.asked if each.kind == "WRITE"]
    assert max(lengths) == STATED
    client.close()


def test_how_many_channels_are_of_use_waits_for_the_round_trip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "monotonic", lambda: 0.0)  # so that it measures none
    server = Late()
    client = Client(server.connection, channels=8, timeout=DEADLINE)
    thread = begin(client.widen)
    server.say()
    thread.join(DEADLINE)
    wait_until_opened()
    assert client.width == 2  # as for a server on the same machine; 8, were it not known
    client.close()


def test_a_server_that_never_says_them_is_given_up() -> None:
    client = Client(ScriptedConnection(greeting(silent, LIMITS)), timeout=0.3)
    assert isinstance(raised(lambda: client.capabilities.max_write), LinkLost)
    assert isinstance(raised(lambda: client.call(look())), LinkLost)
    client.close()


def test_what_makes_no_sense_ends_the_connection() -> None:
    server = Late()
    client = Client(server.connection, timeout=DEADLINE)
    client.call(look())
    number = server.wait_until_asked()
    short = pack(">IBIQ", 13, frames.EXTENDED_REPLY, number, 1)
    server.connection.streams[0].say(short)
    assert isinstance(raised(lambda: client.capabilities.max_read), ConnectError)
    assert "too early" in str(raised(lambda: client.call(look())))
    assert "too early" in server.connection.aborted
    client.close()


def test_the_round_trip_is_measured_beside_a_first_call() -> None:
    connection = FaultConnection()
    client = Client(connection, timeout=DEADLINE)
    client.call(look())
    assert client.capabilities.max_write
    assert client.round_trip != client_module.UNKNOWN_ROUND_TRIP
    client.close()
    connection.close()
