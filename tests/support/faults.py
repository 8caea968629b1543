"""Faults between the client and a real sftp-server, at the k-th request of a connection.

A FaultConnection counts the requests of all its channels, in the order in which they are sent,
and asks its `fault` what to do with each. It also keeps what was seen: the kinds of all requests,
and how many files were open at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from queue import SimpleQueue

from skynet.errors import LinkLost
from skynet.sftp.replies import Space, parse_version
from skynet.sftp.stream import Stream
from tests.support import frames
from tests.support.frames import Asked, Frames
from tests.support.pipes import PipeConnection, PipeStream


class Act(Enum):
    """What happens to a request, other than going through."""

    CUT_BEFORE = "the link breaks and the server never sees it"
    CUT_AFTER = "the server has acted on it; the link breaks before the reply"
    KILL = "the server dies instead of reading it"
    STALL = "it is neither forwarded nor answered"


Fault = Callable[[int, Asked], "Act | int | None"]  # an int is the status that is answered


POSIX_RENAME = "posix-rename@openssh.com"
ALMOST_FULL = Space(free=4096, has_files=True, is_read_only=False)


def no_fault(number: int, request: Asked) -> None:
    """Everything goes through."""


def at(number: int, act: Act | int) -> Fault:
    """A fault at the request of this number, from 0."""
    return lambda seen, request: act if seen == number else None


def every(kind: str, act: Act | int) -> Fault:
    """A fault at all requests of a kind."""
    return lambda seen, request: act if request.kind == kind else None


def nth(kind: str, number: int, act: Act | int) -> Fault:
    """A fault at the request of this number, from 0, among those of a kind."""
    seen = 0

    def fault(_: int, request: Asked) -> Act | int | None:
        nonlocal seen
        if request.kind != kind:
            return None
        seen += 1
        return act if seen == number + 1 else None

    return fault


class FaultConnection(PipeConnection):
    """A connection to real servers whose requests meet `fault`.

    without: extensions that the server is made to lack. max_write: the limit it is made to state.
    reorder: replies are held back until every request is answered, then come last one first.
    """

    def __init__(
        self,
        fault: Fault = no_fault,
        *,
        without: frozenset[bytes] = frozenset(),
        max_write: int = 0,
        reorder: bool = False,
        cwd: Path | None = None,
        most_streams: int = 100,
        open_files: int = 0,
    ) -> None:
        super().__init__(cwd=cwd, most_streams=most_streams, open_files=open_files)
        self.fault = fault
        self.without = without
        self.max_write = max_write
        self.reorder = reorder
        self.seen: list[str] = []
        self.most_open = 0
        self._open = 0
        self._count = 0
        self._counting = threading.Lock()

    def arm(self, fault: Fault) -> None:
        """Begin to count from 0 and meet this fault: what came before was preparation."""
        with self._counting:
            self.fault, self._count, self.seen = fault, 0, []

    def open_stream(self, opening: bytes) -> Stream:
        stream = FaultStream(self._open_pipe(), self)
        stream.send(opening)
        return stream

    def judge(self, request: Asked) -> Act | int | None:
        """Count a request, and say what happens to it."""
        with self._counting:
            self.seen.append(request.kind)
            self._count += 1
            self._open -= request.kind == "CLOSE"
            return self.fault(self._count - 1, request)

    def note_opened(self) -> None:
        """A handle was given out."""
        with self._counting:
            self._open += 1
            self.most_open = max(self.most_open, self._open)


class FaultStream:
    """A stream to a real server that does to requests and replies what its connection says."""

    def __init__(self, pipe: PipeStream, connection: FaultConnection) -> None:
        self._pipe = pipe
        self._connection = connection
        self._requests = Frames()
        self._arrived: SimpleQueue[bytes | LinkLost] = SimpleQueue()
        self._rest = b""
        self._lock = threading.Lock()
        self._kinds: dict[int, str] = {}  # requests forwarded and not yet answered
        self._cut_at: int | None = None
        self._held: list[bytes] = []
        threading.Thread(target=self._pump, name="faults-pump", daemon=True).start()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        for packet in self._requests.feed(data):
            if self._goes_through(frames.asked(packet)):
                self._pipe.send(packet)

    def recv(self, limit: int) -> bytes:
        data = self._rest or self._arrived.get()
        if isinstance(data, LinkLost):
            raise data
        self._rest = data[limit:]
        return data[:limit]

    @property
    def room(self) -> int:
        return self._pipe.room

    def close(self) -> None:
        self._pipe.close()

    def _goes_through(self, request: Asked) -> bool:
        if request.kind == "INIT":
            return True
        act = self._connection.judge(request)
        if isinstance(act, int):
            self._arrived.put(frames.status(request.request_id, act, b"as the test wants"))
            return False
        if act is Act.CUT_BEFORE:
            self._break()
        if act is Act.KILL:
            self._connection.kill_servers()
            self._break()
        if act is Act.STALL:
            return False
        with self._lock:
            self._kinds[request.request_id] = request.kind
            if act is Act.CUT_AFTER:
                self._cut_at = request.request_id
        return True

    def _break(self) -> None:
        self._pipe.close()
        raise LinkLost("The link is cut by the test.")

    def _pump(self) -> None:
        """Move replies from the server to the client, on a thread of its own."""
        packets = Frames()
        try:
            while data := self._pipe.recv(1 << 20):
                for packet in packets.feed(data):
                    self._pass_on(packet)
        except LinkLost as error:
            self._arrived.put(error)
        else:
            self._arrived.put(b"")

    def _pass_on(self, packet: bytes) -> None:
        if frames.reply_kind(packet) == frames.VERSION:
            self._arrived.put(self._stripped(packet))
            return
        request_id = frames.reply_id(packet)
        with self._lock:
            kind = self._kinds.pop(request_id)
            owed = len(self._kinds)
        if request_id == self._cut_at:
            self._pipe.close()
            raise LinkLost("The link is cut by the test.")
        if kind == "OPEN" and frames.reply_kind(packet) == frames.HANDLE:
            self._connection.note_opened()
        if kind == "limits@openssh.com" and self._connection.max_write:
            packet = self._limited(request_id)
        self._deliver(packet, owed)

    def _deliver(self, packet: bytes, owed: int) -> None:
        if not self._connection.reorder:
            self._arrived.put(packet)
            return
        self._held.append(packet)
        if not owed:
            self._arrived.put(b"".join(reversed(self._held)))
            self._held.clear()

    def _stripped(self, packet: bytes) -> bytes:
        extensions = parse_version(packet[4:]).keys() - self._connection.without
        return frames.version(*extensions)

    def _limited(self, request_id: int) -> bytes:
        length = self._connection.max_write
        return frames.limits(request_id, packet=1 << 18, read=1 << 15, write=length, handles=0)
