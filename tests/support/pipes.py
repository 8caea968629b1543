"""A real `sftp-server` process on a socket pair: the engine's other end without SSH."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from skynet.errors import ConnectError, LinkLost
from skynet.sftp.client import Client, Connection
from skynet.sftp.stream import Stream
from tests.support.sources import PATIENCE

PLACES = (
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/libexec/openssh/sftp-server",
)


def sftp_server() -> str:
    """The path of OpenSSH's sftp-server; skips the test, or fails it, when there is none."""
    for place in PLACES:
        if Path(place).exists():
            return place
    if os.environ.get("SKYNET_REQUIRE_SERVERS") == "1":
        pytest.fail("OpenSSH's sftp-server is required here and not installed")
    pytest.skip("OpenSSH's sftp-server is not installed")


class PipeStream:
    """One end of a socket pair, as the engine wants it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.reason = ""

    def send(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise LinkLost(self.reason or f"The pipe broke: {error}.") from None

    def recv(self, limit: int) -> bytes:
        try:
            data = self.socket.recv(limit)
        except OSError as error:
            raise LinkLost(self.reason or f"The pipe broke: {error}.") from None
        if not data and self.reason:
            raise LinkLost(self.reason)
        return data

    room = 64 << 10  # less than what a socket buffers

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class PipeConnection:
    """Streams to one server process each; it gives `most_streams` of them, then refuses.

    arguments: for sftp-server. open_files: its limit of open files, 0 for the usual one.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        most_streams: int = 100,
        open_files: int = 0,
    ) -> None:
        self._command: Sequence[str] = [sftp_server(), *arguments]
        if open_files:
            limited = f'ulimit -n {open_files} && exec "$0" "$@"'
            self._command = ["/bin/sh", "-c", limited, *self._command]
        self.prefix: Sequence[str] = ()  # of the server's command, as from `bound_by_modes`
        self._cwd = cwd
        self._most_streams = most_streams
        self._lock = threading.Lock()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.streams: list[PipeStream] = []
        self.aborted = ""

    def open_stream(self, opening: bytes) -> Stream:
        stream = self._open_pipe()
        stream.send(opening)
        return stream

    def stop_servers(self) -> None:
        """Let every server stop answering, without ending it."""
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def kill_servers(self) -> None:
        """End every server at once, as a crash would."""
        for process in self.processes:
            process.kill()

    def abort(self, reason: str) -> None:
        self.aborted = self.aborted or reason
        for stream in list(self.streams):
            stream.reason = stream.reason or reason
            stream.close()

    def close(self) -> None:
        self.abort("The connection was closed.")
        self.kill_servers()
        for process in self.processes:
            process.wait(PATIENCE)
        for stream in self.streams:
            stream.socket.close()

    def _open_pipe(self) -> PipeStream:
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            if len(self.streams) >= self._most_streams:
                ours.close()
                raise ConnectError("The server allows no more channels.", "no-channel")
            stream = PipeStream(ours)
            self.streams.append(stream)
            self.processes.append(
                subprocess.Popen(
                    [*self.prefix, *self._command],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    cwd=self._cwd,
                )
            )
        return stream


FAR_AWAY = 1.0  # seconds: else so near a server would get fewer channels
SHORT = 0.3  # seconds that a silent server is given, where a test waits for the end of them


def pretend(client: Client, round_trip: float) -> None:
    """Let a client take its server for so far away, once it has measured how far it is."""
    assert client.capabilities.max_write
    client.round_trip = round_trip


@contextlib.contextmanager
def impatient(client: Client, seconds: float = SHORT) -> Iterator[None]:
    """The server may be silent for so long only, within the block: not while it is started."""
    before, client._timeout = client._timeout, seconds
    yield
    client._timeout = before


def open_channels(client: Client) -> None:
    """Have all the channels that this round trip asks for, or as many as the server grants."""
    client.widen()
    wait_until_opened()


def wait_until_opened() -> None:
    """Return when the channels that were asked for are open or given up."""
    end = time.monotonic() + PATIENCE
    while any(thread.name == "sftp-open" for thread in threading.enumerate()):
        assert time.monotonic() < end, "a channel is still being opened"
        time.sleep(0.0005)


@contextlib.contextmanager
def client_over(
    connection: Connection, *, channels: int = 1, timeout: float = 20.0
) -> Iterator[Client]:
    """A client for the length of a test; the connection is closed whatever happens."""
    try:
        client = Client(connection, channels=channels, timeout=timeout)
        try:
            pretend(client, FAR_AWAY)
            yield client
        finally:
            client.close()
    finally:
        connection.close()


@contextlib.contextmanager
def pipe_client(
    *arguments: str, channels: int = 1, timeout: float = 20.0, cwd: Path | None = None
) -> Iterator[Client]:
    """A client of a real sftp-server."""
    connection = PipeConnection(*arguments, cwd=cwd)
    with client_over(connection, channels=channels, timeout=timeout) as client:
        yield client
