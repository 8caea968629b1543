"""What opening an SFTP channel costs, and what becomes of it at servers that do not go along."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import SimpleQueue

import paramiko  # type: ignore[import-untyped]  # paramiko ships no types
import pytest

from skynet.errors import ConnectError, LinkLost
from skynet.sftp import wire
from skynet.sftp.client import Client
from skynet.sftp.connect import Connection, Endpoint, connect
from skynet.sftp.conversation import Conversation
from skynet.sftp.credentials import NOBODY
from skynet.sftp.replies import Named, expect_names
from skynet.sftp.transport import SshTransport
from tests.support.pipes import client_over, impatient, open_channels, sftp_server
from tests.support.sshd import make_key, running_sshd

DEADLINE = 30.0  # seconds for what comes at once if it comes
Decision = Callable[["Server", paramiko.Channel], bool]


class Server(paramiko.ServerInterface):  # type: ignore[misc]  # the base is untyped
    """Lets everybody in, and asks `decide` whether a channel gets its subsystem."""

    def __init__(
        self, transport: paramiko.Transport, sock: socket.socket, decide: Decision
    ) -> None:
        self.transport = transport
        self._sock = sock
        self._decide = decide

    def check_auth_none(self, username: str) -> int:
        return int(paramiko.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return self._decide(self, channel)

    def more_has_come(self) -> bool:
        """Whether the client goes on without an answer; paramiko reads no byte ahead."""
        return bool(select.select([self._sock], [], [], DEADLINE)[0])


@contextmanager
def connected(directory: Path, decide: Decision) -> Iterator[tuple[Connection, paramiko.Transport]]:
    """A connection to such a server, and the server's end of it."""
    key = paramiko.Ed25519Key.from_private_key_file(str(make_key(directory / "host_key")))
    known_hosts = directory / "known_hosts"
    ends: list[paramiko.Transport] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        known_hosts.write_text(f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n")

        def serve() -> None:
            sock, _ = listener.accept()
            ends.append(paramiko.Transport(sock))
            ends[0].add_server_key(key)
            ends[0].start_server(threading.Event(), Server(ends[0], sock, decide))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            endpoint = Endpoint(
                "127.0.0.1",
                "anna",
                port,
                known_hosts=known_hosts,
                ssh_config=Path(os.devnull),
                connect_timeout=2 * DEADLINE,
            )
            with closing(connect(endpoint, prompter=NOBODY, environ={})) as connection:
                yield connection, ends[0]
        finally:
            thread.join(DEADLINE)
            for end in ends:
                end.close()
                end.join(DEADLINE)


def test_the_greeting_goes_with_the_request_for_the_subsystem(tmp_path: Path) -> None:
    with connected(tmp_path, lambda server, _: server.more_has_come()) as (connection, end):
        connection.open_stream(wire.init())
        assert end.accept(DEADLINE).recv(100) == wire.init()


def test_a_refusal_is_told_as_such_although_more_was_sent(tmp_path: Path) -> None:
    def decide(server: Server, _channel: object) -> bool:
        assert server.more_has_come()
        return False

    with connected(tmp_path, decide) as (connection, _):
        for _ in range(2):  # the connection is as good as before
            with pytest.raises(ConnectError, match="refused the sftp subsystem") as caught:
                connection.open_stream(wire.init())
            assert caught.value.code == "no-sftp"


def test_a_channel_that_is_closed_without_an_answer_has_no_sftp(tmp_path: Path) -> None:
    def decide(_server: object, channel: paramiko.Channel) -> bool:
        channel.close()
        return False

    with connected(tmp_path, decide) as (connection, _):
        with pytest.raises(ConnectError) as caught:
            connection.open_stream(wire.init())
        assert caught.value.code == "no-sftp"
        assert connection.is_alive


def test_a_server_that_dies_of_the_request_is_a_lost_link(tmp_path: Path) -> None:
    def decide(server: Server, _channel: object) -> bool:
        server.transport.close()
        return False

    with (
        connected(tmp_path, decide) as (connection, _),
        pytest.raises(LinkLost, match="was lost"),
    ):
        connection.open_stream(wire.init())


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    ended = threading.Event()

    def decide(_server: object, _channel: object) -> bool:
        return ended.wait(DEADLINE)

    with connected(tmp_path, decide) as (connection, _):
        connection._seconds = 1
        with pytest.raises(ConnectError, match="did not open a channel within 1 s") as caught:
            connection.open_stream(wire.init())
        ended.set()
    assert caught.value.code == "timeout"


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What threads ended with, which would be printed as tracebacks."""
    errors: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda hooked: errors.append(hooked.exc_value))
    return errors


def test_a_channel_that_comes_too_late_is_closed_even_if_the_server_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unheard: list[BaseException | None]
) -> None:
    ended, closing = threading.Event(), threading.Event()

    def vanish(*_: object) -> None:
        closing.set()
        raise EOFError

    with connected(tmp_path, lambda *_: ended.wait(DEADLINE)) as (connection, _):
        connection._seconds = 0.5
        with pytest.raises(ConnectError, match="did not open a channel within"):
            connection.open_stream(wire.init())
        late = [thread for thread in threading.enumerate() if "bounded-call" in thread.name]
        monkeypatch.setattr(SshTransport, "_send_user_message", vanish)
        ended.set()
        assert closing.wait(DEADLINE)
        for thread in late:
            thread.join(DEADLINE)
    assert not unheard


def test_a_keepalive_that_cannot_be_sent_is_not_told_by_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unheard: list[BaseException | None]
) -> None:
    sending: SimpleQueue[threading.Thread] = SimpleQueue()
    send_notice = SshTransport._send_notice

    def seen(transport: SshTransport, data: object) -> None:
        sending.put(threading.current_thread())
        send_notice(transport, data)

    monkeypatch.setattr(SshTransport, "_send_notice", seen)
    with connected(tmp_path, lambda *_: True) as (connection, _):
        connection.open_stream(wire.init())
        (transport,) = (one for one in threading.enumerate() if isinstance(one, SshTransport))
        transport.clear_to_send.clear()  # as in a rekey,
        transport.clear_to_send_timeout = 0.0  # which took too long
        transport.set_keepalive(1)
        sending.get(timeout=DEADLINE).join(DEADLINE)
    assert not unheard


# OpenSSH's server, with programs of our own as its SFTP


def program(directory: Path, text: str) -> str:
    """A script to be run as the subsystem."""
    path = directory / "subsystem"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("exit 1", "no-sftp", "ended it without a greeting"),
        ("kill -9 $$", "no-sftp", "ended it without a greeting"),
        ("echo Your account has expired.", "protocol", "It begins: 'Your account has expired.'"),
    ],
)
def test_what_comes_instead_of_a_greeting_is_told(
    tmp_path: Path, text: str, code: str, words: str
) -> None:
    with (
        running_sshd(tmp_path / "sshd", subsystem=program(tmp_path, text)) as sshd,
        pytest.raises(ConnectError) as caught,
    ):
        Client(connect(sshd.endpoint(), prompter=NOBODY, environ={}))
    assert caught.value.code == code
    assert words in str(caught.value)


def test_what_ends_before_it_is_greeted_is_told_each_time(tmp_path: Path) -> None:
    # Its end overtakes the greeting now and then, since OpenSSH takes that only when it has begun.
    with running_sshd(tmp_path / "sshd", subsystem="internal-sftp -l NONSENSE") as sshd:
        for _ in range(30):
            with pytest.raises(ConnectError, match="ended it without a greeting"):
                Client(connect(sshd.endpoint(), prompter=NOBODY, environ={}))


def test_a_further_channel_that_does_not_greet_costs_nothing_but_itself(tmp_path: Path) -> None:
    only_once = f"mkdir {tmp_path / 'begun'} || exec sleep 60; exec {sftp_server()}"
    with running_sshd(tmp_path / "sshd", subsystem=program(tmp_path, only_once)) as sshd:
        connection = connect(sshd.endpoint(), prompter=NOBODY, environ={})
        with client_over(connection, channels=2) as client:
            with impatient(client):
                open_channels(client)
            assert client.width == 1
            assert client.call(_ask_home())
            assert connection.is_alive


def _ask_home() -> Conversation[list[Named]]:
    (reply,) = yield [wire.realpath(b".")]
    return expect_names(reply)
