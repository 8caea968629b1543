"""A server that answers as a script says: for replies that no real server gives.

It runs on the client's threads, needs no process, and works on every platform.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from skynet.errors import ConnectError, LinkLost
from skynet.sftp.replies import OK
from skynet.sftp.wire import Attrs
from tests.support import frames
from tests.support.frames import Asked, Frames

Script = Callable[[Asked], Iterable[bytes]]  # the bytes to send for one request, none is fine


class ScriptedStream:
    """A stream whose requests are answered by `script`, in chunks of at most `chunk` bytes."""

    def __init__(self, script: Script, chunk: int) -> None:
        self._script = script
        self._chunk = chunk
        self._frames = Frames()
        self._answers: SimpleQueue[bytes] = SimpleQueue()
        self._rest = b""
        self.closed = False
        self.reason = ""  # why the connection was cut

    def send(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed:
            raise LinkLost("The stream is closed.")
        for packet in self._frames.feed(data):
            for answer in self._script(frames.asked(packet)):
                self.say(answer)

    def say(self, data: bytes) -> None:
        """Send bytes that nobody asked for."""
        self._answers.put(data)

    def recv(self, limit: int) -> bytes:
        data = self._rest or self._answers.get()
        if not data and self.reason:
            raise LinkLost(self.reason)
        limit = min(limit, self._chunk)
        self._rest = data[limit:]
        return data[:limit]

    room = 1 << 20

    def close(self) -> None:
        self.closed = True
        self._answers.put(b"")


class ScriptedConnection:
    """Streams to one script, which all of them share, or to one each from `scripts`."""

    def __init__(self, *scripts: Script, chunk: int = 1 << 20, most_streams: int = 100) -> None:
        self._scripts = scripts
        self._chunk = chunk
        self._most_streams = most_streams
        self._lock = threading.Lock()
        self.streams: list[ScriptedStream] = []
        self.aborted = ""

    def open_stream(self, opening: bytes) -> ScriptedStream:
        with self._lock:
            number = len(self.streams)
            if number >= self._most_streams:
                raise ConnectError("The server allows no more channels.", "no-channel")
            script = self._scripts[min(number, len(self._scripts) - 1)]
            stream = ScriptedStream(script, self._chunk)
            self.streams.append(stream)
        stream.send(opening)
        return stream

    def abort(self, reason: str) -> None:
        self.aborted = self.aborted or reason
        for stream in list(self.streams):
            stream.reason = reason
            stream.close()

    def close(self) -> None:
        self.abort("The connection was closed.")


def greeting(then: Script, *extensions: bytes) -> Script:
    """A script that greets with `extensions`, and answers all else as `then` does.

    Without any it is asked for its home by each client, and says so.
    """

    def script(request: Asked) -> Iterable[bytes]:
        if request.kind == "INIT":
            return [frames.version(*extensions)]
        if request.kind == "REALPATH" and request.text == b".":
            return [frames.names(request.request_id, [(b"/home", Attrs())])]
        return then(request)

    return script


def silent(request: Asked) -> Iterable[bytes]:
    """Never answers."""
    return []


def obedient(request: Asked) -> Iterable[bytes]:
    """Says OK to everything that is answered by a status, and shows an empty file."""
    if request.kind in ("OPEN", "OPENDIR"):
        return [frames.handle(request.request_id, b"h")]
    if request.kind in ("LSTAT", "FSTAT", "STAT"):
        return [frames.attrs(request.request_id, Attrs(size=0, mode=0o100644, mtime=0, atime=0))]
    return [frames.status(request.request_id, OK)]
