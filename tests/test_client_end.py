"""How a client ends: nothing that the server does not take can keep it from that."""

from __future__ import annotations

from skynet.errors import LinkLost
from skynet.sftp import wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from tests.support.pipes import FAR_AWAY, open_channels, pretend
from tests.support.scripted import ScriptedConnection, greeting, silent
from tests.support.sources import Ends, submit_all

CHANNELS = 4


class Stream:
    """A stream that notes when it is asked to say farewell, which may take as long as it likes."""

    room = 1 << 20

    def __init__(self, connection: Connection, opening: bytes) -> None:
        self._inner = ScriptedConnection.open_stream(connection, opening)
        self._calls = connection.calls

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self._inner.send(data)

    def recv(self, limit: int) -> bytes:
        return self._inner.recv(limit)

    def close(self) -> None:
        self._calls.append("farewell")
        self._inner.close()


class Connection(ScriptedConnection):
    """A connection to a silent server. calls: what it and its streams were asked for, in order."""

    def __init__(self) -> None:
        super().__init__(greeting(silent))
        self.calls: list[str] = []

    def open_stream(self, opening: bytes) -> Stream:  # type: ignore[override]  # as good as one
        return Stream(self, opening)

    def abort(self, reason: str) -> None:
        self.calls.append("abort")
        super().abort(reason)


def ask() -> Conversation[None]:
    yield [wire.lstat(b"/")]


def open_client(connection: Connection) -> Client:
    client = Client(connection, channels=CHANNELS)
    pretend(client, FAR_AWAY)
    open_channels(client)
    assert client.width == CHANNELS
    return client


def test_the_connection_is_cut_before_any_channel_says_farewell() -> None:
    connection, ends = Connection(), Ends()
    client = open_client(connection)
    submit_all(client, ends, ((number, ask()) for number in range(100)))
    connection.calls.clear()
    client.close()
    assert connection.calls[0] == "abort"
    assert connection.calls.count("farewell") >= CHANNELS
    told = ends.wait(100)
    assert {type(end.error) for end in told} == {LinkLost}
    assert {str(end.error) for end in told} == {"The connection was closed."}
    client.close()
    assert ends.nothing_more()
