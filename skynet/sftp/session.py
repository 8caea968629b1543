"""A connection and its streams, once logged in: what the SFTP client works with.

Nothing here has a deadline of its own but opening a stream. A blocked send or recv ends when the
other side moves, or when another thread calls `Connection.abort`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from skynet.errors import LinkLost
from skynet.sftp.dial import one_line
from skynet.sftp.endpoint import Hop
from skynet.sftp.hostkeys import HostKey
from skynet.sftp.refusals import timeout
from skynet.sftp.waits import bounded

CLOSE_SECONDS = 2.0


class Channel(Protocol):
    """An SSH channel of the library below. A broken one raises OSError or EOFError."""

    eof_received: bool

    def send(self, data: memoryview) -> int:
        """Send some of `data`; how much of it, 0 when the channel is closed."""

    def recv(self, limit: int) -> bytes:
        """At most `limit` bytes; b"" when the channel is closed."""

    def close(self) -> None:
        """Close the channel and tell the server."""

    @property
    def out_window_size(self) -> int:
        """Bytes that the server has promised to take."""


class Transport(Protocol):
    """An SSH session of the library below."""

    remote_version: str
    farewell: str

    def is_active(self) -> bool:
        """Whether the session works, as far as is known."""

    def get_exception(self) -> Exception | None:
        """What broke the session."""

    def open_sftp(self, hop: Hop, seconds: float, opening: bytes) -> Channel:
        """A channel with the sftp subsystem, which was sent `opening`."""

    def close(self) -> None:
        """Break the session at once."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread that serves it."""


class Proxy(Protocol):
    """A program that carries a session."""

    def terminate(self) -> None:
        """Ask it to end."""

    def close(self) -> None:
        """End and reap it."""


@dataclass(frozen=True, slots=True)
class Link:
    """The session with one hop, the host key it showed, and the program that carries it if any.

    transport: a Transport; typed loosely because only its own room knows all of it.
    """

    hop: Hop
    transport: Any
    key: HostKey
    proxy: Proxy | None

    def abort(self) -> None:
        """Break the session at once; never blocks."""
        self.transport.close()
        if self.proxy is not None:
            self.proxy.terminate()

    def close(self) -> None:
        """Break the session and wait a moment for what served it."""
        self.abort()
        self.transport.join(CLOSE_SECONDS)
        if self.proxy is not None:
            self.proxy.close()


class Stream:
    """One channel with the sftp subsystem at its other end. One thread may send, one receive."""

    def __init__(self, channel: Channel, connection: Connection) -> None:
        self._channel = channel
        self._connection = connection
        self._closed = False

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; blocks while the server's window is full. LinkLost if it is gone."""
        view = memoryview(data).cast("B")
        try:
            while view:
                sent = self._channel.send(view)
                if sent == 0:
                    raise self._connection.lost()
                # A slice of a view: what is left is never copied, whatever its size.
                view = view[sent:]
        except (OSError, EOFError) as error:
            raise self._connection.lost() from error
        # Packets for a dead session are dropped without an error.
        if not self._connection.is_alive:
            raise self._connection.lost()

    def recv(self, limit: int) -> bytes:
        """At most `limit` bytes, at least one; b"" once either side has ended the stream.

        LinkLost when the channel or the connection broke without an orderly end.
        """
        try:
            data = self._channel.recv(limit)
        except (OSError, EOFError) as error:
            raise self._connection.lost() from error
        if not data and not self._channel.eof_received and not self._closed:
            raise self._connection.lost()
        return data

    @property
    def room(self) -> int:
        """Bytes that the server has promised to take."""
        return self._channel.out_window_size

    def close(self) -> None:
        """End the stream; on a stalled link the farewell is given up after a moment."""
        self._closed = True
        with suppress(TimeoutError):
            bounded(partial(_hang_up, self._channel), CLOSE_SECONDS)


class Connection:
    """A session with a server, which any number of threads may open streams on."""

    def __init__(self, links: Sequence[Link], seconds: float) -> None:
        """`links`: the hops, nearest first. `seconds`: the deadline for opening a stream."""
        self._links = tuple(links)
        self._server = links[-1]
        self._transport: Transport = links[-1].transport
        self._seconds = seconds
        self._lock = threading.Lock()
        self._reason = ""

    @property
    def description(self) -> str:
        """user@host:port."""
        return self._server.hop.description

    @property
    def server_version(self) -> str:
        """How the server calls itself, such as "SSH-2.0-OpenSSH_9.2"."""
        return one_line(self._transport.remote_version)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the server's host key, "SHA256:..."."""
        return self._server.key.fingerprint

    @property
    def is_alive(self) -> bool:
        """False once the session has broken or was ended."""
        return not self._reason and self._transport.is_active()

    def open_stream(self, opening: bytes = b"") -> Stream:
        """A new channel with the sftp subsystem, within connect_timeout. From any thread.

        opening: the first bytes to be sent; most servers get them along with the request.
        ConnectError with code no-sftp when the server has none, no-channel when it allows no more
        channels, timeout when it does not answer. LinkLost when the session is gone.
        """
        if not self.is_alive:
            raise self.lost()
        try:
            opened = partial(self._open_channel, opening)
            channel = bounded(opened, self._seconds, _hang_up)
        except TimeoutError as error:
            raise timeout(self._server.hop, "did not open a channel", self._seconds) from error
        except (EOFError, OSError) as error:
            raise self.lost() from error
        return Stream(channel, self)

    def _open_channel(self, opening: bytes) -> Channel:
        # The caller keeps the deadline; this later one only ends a call that was given up.
        return self._transport.open_sftp(self._server.hop, 2 * self._seconds, opening)

    def abort(self, reason: str) -> None:
        """End the session at once, from any thread. Blocked streams raise LinkLost(reason)."""
        with self._lock:
            self._reason = self._reason or reason
        # The nearest first: after that, nothing further out can block on a stalled link.
        for link in self._links:
            link.abort()

    def close(self) -> None:
        """End the session and release what carried it; call it after `abort` too."""
        self.abort(f"the connection to {self.description} was closed.")
        for link in self._links:
            link.close()

    def lost(self) -> LinkLost:
        """The error for a stream that broke: the reason given to `abort`, or what was seen."""
        with self._lock:
            if not self._reason and not self._transport.is_active():
                self._reason = f"the connection to {self.description} was lost ({self._why()})."
            return LinkLost(self._reason or f"{self.description} broke off the channel.")

    def _why(self) -> str:
        """The server's last words, or what went wrong."""
        error = None if self._transport.farewell else self._transport.get_exception()
        words = self._transport.farewell or str(error or "")
        return one_line(words) or "the other side closed it"


def _hang_up(channel: Channel) -> None:
    """Close a channel. What can fail is only the notice to the server, which may be gone."""
    with suppress(EOFError, OSError):
        channel.close()
