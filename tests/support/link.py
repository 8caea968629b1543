"""A TCP link on loopback that can break: cut at a byte, stalled, refused, slow."""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CHUNK = 64 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER that ends a connection at once, with an error
LOOK_SECONDS = 0.02


class Link:
    """Forwards what connects to `port` to a port that is asked for at each connection.

    to: gives that port. up: bytes that have gone to the server. connections: how many came, with
    those that were refused. rate: bytes a second upwards at most.
    """

    def __init__(self, to: Callable[[], int]) -> None:
        self.to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flows = threading.Event()
        self._flows.set()
        self._is_open = True
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._cut_at = math.inf
        self.port = int(self._listener.getsockname()[1])
        self.up = 0
        self.connections = 0
        self.rate = math.inf
        self.refuses = False

    def cut(self) -> None:
        """Break every connection, as a reset."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with suppress(OSError):  # it is gone already
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                each.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int) -> None:
        """Cut once, when so many bytes more have gone up."""
        self._cut_at = self.up + count

    def stall(self) -> None:
        """Let nothing through, and tell nobody."""
        self._flows.clear()

    def flow(self) -> None:
        """Let all through again."""
        self._flows.set()
        self.refuses = False

    def run(self) -> None:
        """Take connections until `close`."""
        self._listener.settimeout(LOOK_SECONDS)
        while self._is_open:
            with suppress(TimeoutError):
                self._take(self._listener.accept()[0])

    def close(self) -> None:
        """End everything; `run` returns."""
        self._is_open = False
        self._flows.set()
        self.cut()

    def join(self) -> None:
        """Wait for what `run` began."""
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _take(self, near: socket.socket) -> None:
        self.connections += 1
        far = None
        with suppress(OSError):  # the server is down: who connected is told by a reset
            far = None if self.refuses else socket.create_connection(("127.0.0.1", self.to()), 5)
        if far is None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            near.close()
            return
        with self._lock:
            self._sockets |= {near, far}
        for each in (near, far):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = threading.Thread(target=self._join_pair, args=(near, far))
        self._threads = [each for each in self._threads if each.is_alive()] + [pair]
        pair.start()

    def _join_pair(self, near: socket.socket, far: socket.socket) -> None:
        down = threading.Thread(target=self._pump, args=(far, near, False))
        down.start()
        self._pump(near, far, True)
        down.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with suppress(OSError):  # the other end is gone, or the link was cut
            while data := source.recv(CHUNK):
                self._flows.wait()
                if is_up:
                    self._count(len(data))
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _count(self, length: int) -> None:
        with self._lock:
            self.up += length
            is_over = self.up >= self._cut_at
        if is_over:
            self._cut_at = math.inf
            self.cut()
        if self.rate != math.inf:
            time.sleep(length / self.rate)


@contextmanager
def linked(to: Callable[[], int]) -> Iterator[Link]:
    """A link for the length of the block."""
    link = Link(to)
    thread = threading.Thread(target=link.run)
    thread.start()
    try:
        yield link
    finally:
        link.close()
        thread.join()
        link.join()
