"""A real `sftp-server` process on a socket pair: the engine's other end without SSH."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from skynet.errors import LinkLost
from skynet.sftp.client import Client

PLACES = ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server", "/usr/libexec/openssh/sftp-server")


def sftp_server() -> str:
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

    def send(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise LinkLost(f"pipe: {error}") from None

    def recv(self, limit: int) -> bytes:
        try:
            return self.socket.recv(limit)
        except OSError as error:
            raise LinkLost(f"pipe: {error}") from None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class PipeConnection:
    """Streams to one server process each, all killed by `abort`."""

    def __init__(self, *arguments: str, cwd: Path | None = None) -> None:
        self.command = [sftp_server(), *arguments]
        self.cwd = cwd
        self.processes: list[subprocess.Popen[bytes]] = []
        self.streams: list[PipeStream] = []
        self.aborted = ""
        self.lock = threading.Lock()

    def open_stream(self) -> PipeStream:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                self.command, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, cwd=self.cwd
            )
        stream = PipeStream(ours)
        with self.lock:
            self.processes.append(process)
            self.streams.append(stream)
        return stream

    def stop_servers(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def abort(self, reason: str) -> None:
        self.aborted = self.aborted or reason
        for stream in list(self.streams):
            stream.close()

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        for process in self.processes:
            process.kill()
            process.wait(10)
        for stream in self.streams:
            stream.socket.close()


@contextlib.contextmanager
def pipe_client(*arguments: str, channels: int = 1, timeout: float = 20.0, cwd: Path | None = None):
    connection = PipeConnection(*arguments, cwd=cwd)
    client = Client(connection, channels=channels, timeout=timeout)
    try:
        yield client
    finally:
        client.close()
