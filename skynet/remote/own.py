"""skynet's own files on the remote: small reads, streams, atomic replacement, exclusive creation.

A handle is good on one channel only, so every step that needs one is a conversation of its own:
a long file is read and written in pieces of BATCH bytes, each with its own OPEN. The one handle
that outlives its conversation is that of the file appended to last, on a channel that is always
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from skynet.errors import RequestError, SkynetError, TargetError
from skynet.remote.verbs import Stamp
from skynet.rules import shown
from skynet.sftp import wire
from skynet.sftp.channel import SPARE_HANDLES
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import (
    NO_SUCH_FILE,
    OK,
    Handle,
    Reply,
    Status,
    expect_attrs,
    expect_data,
    expect_handle,
    expect_ok,
    is_status,
    refusal,
)
from skynet.sftp.upload import Placement, publish

T = TypeVar("T")

BATCH = 8 << 20
FIRST_READS = 4  # in the first batch: most of these files are small


class _Kept(NamedTuple):
    """The file that the last append has left open, or that is being opened for the next one."""

    name: bytes
    opened: Callable[[], bytes]

    def handle(self) -> bytes | None:
        """None if it could not be opened: who tries again is told why."""
        try:
            return self.opened()
        except SkynetError:
            return None


class OwnFiles:
    """Files below `directory`; see verbs.Remote.

    temp_name() makes full, unique names; raise_if_stopped(size) raises RemoteStopped. Whatever the
    server refuses is a TargetError: without these files there is no mirror.
    """

    def __init__(
        self,
        client: Client,
        directory: bytes,
        temp_name: Callable[[], bytes],
        raise_if_stopped: Callable[[int], Conversation[None]],
    ) -> None:
        self._raise_if_stopped = raise_if_stopped
        self._client = client
        self._directory = directory
        self._temp_name = temp_name
        self._kept: _Kept | None = None

    def peek(self, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes | None]:
        """The bytes at (name, offset, length), None without a file. Two round trips."""
        places = [(self._full(name), offset, length) for name, offset, length in wanted]
        return self._call("read", wanted[0][0], _peek(places))

    def read(self, name: bytes) -> Iterator[bytes] | None:
        """A whole file in chunks, None if it does not exist."""
        try:
            return read_file(self._client, self._full(name))
        except RequestError as error:
            if error.code == "no-such-file":
                return None
            raise self._explained("read", name, error) from None

    def replace(self, name: bytes, chunks: Iterable[bytes]) -> None:
        """Write under a temporary name and rename into place."""
        self._let_go()
        temp = self._temp_name()
        offset, flags = 0, wire.WRITE_NEW
        for batch in _batches(chunks):
            writing = _Writing(temp, offset, batch, self._client.capabilities.max_write)
            self._call("write", name, _write(writing, flags))
            offset, flags = offset + len(batch), wire.WRITE_IN_PLACE
        place = Placement(temp, self._full(name), self._temp_name())
        self._call("write", name, publish(place, self._client.capabilities))

    def write_at(self, name: bytes, offset: int, data: bytes) -> Stamp:
        """Write into a file, which is made if it does not exist."""
        return self._call("write", name, _write_at(self._writing(name, offset, data)))

    def expect_append(self, name: bytes) -> None:
        """Open a file that will be appended to, where the server says that it can spare a handle.

        On one that gives out very few, uploads would lack it.
        """
        if self._kept is not None and self._kept.name == name:
            return
        if self._client.capabilities.max_handles > SPARE_HANDLES:
            self._let_go()
            opened = self._client.begin(_opened(self._full(name), wire.WRITE_IN_PLACE))
            self._kept = _Kept(name, opened)

    def append(self, name: bytes, offset: int, data: bytes) -> None:
        """Write at the end of a file, which stays open for the next append.

        If somebody else removes or replaces the file meanwhile, the server takes such a write all
        the same, and nobody will ever read it. What keeps others from that is the lease: its holder
        looks at it first, and whoever takes it anew begins with a new handle (`create`).
        """
        if self._kept is not None and self._kept.name != name:
            self._let_go()
        kept, self._kept = self._kept, None  # so that nothing is kept after an error
        writing = _append(self._writing(name, offset, data), kept.handle() if kept else None)
        handle = self._call("write", name, writing)
        self._kept = _Kept(name, lambda: handle)

    def create(self, name: bytes, data: bytes) -> Stamp | None:
        """Make a file that does not exist yet; None if it does."""
        self._let_go()
        return self._call("write", name, _create(self._writing(name, 0, data)))

    def stamp(self, name: bytes) -> Stamp | None:
        """Size and time of a file, None without one. One request."""
        return self._call("look at", name, _stamp(self._full(name)))

    def rename(self, source: bytes, name: bytes) -> bool:
        """Rename to a free name; False if `source` does not exist."""
        self._let_go()
        return self._call("rename", source, _rename(self._full(source), self._full(name)))

    def remove(self, name: bytes) -> None:
        """Remove a file; it is fine if it does not exist."""
        self._let_go()
        self._call("remove", name, _remove(self._full(name)))

    def _let_go(self) -> None:
        """Close what an append has left open, before any name comes to stand for another file.

        Nobody waits for it: its writes were acknowledged, and what follows on the same channel is
        asked after it.
        """
        kept, self._kept = self._kept, None
        handle = kept.handle() if kept else None
        if handle is not None:
            self._client.pin(_close(handle), _ended)

    def _writing(self, name: bytes, offset: int, data: bytes) -> _Writing:
        return _Writing(self._full(name), offset, data, self._client.capabilities.max_write)

    def _call(self, doing: str, name: bytes, conversation: Conversation[T]) -> T:
        try:
            return self._client.call_pinned(conversation)
        except RequestError as error:
            self._tell_if_stopped(error)
            raise self._explained(doing, name, error) from None

    def _tell_if_stopped(self, refusal: RequestError) -> None:
        """RemoteStopped if the disk is why the server refuses without a reason."""
        if refusal.code == "failure":
            self._client.call(self._raise_if_stopped(0))

    def _explained(self, doing: str, name: bytes, error: RequestError) -> TargetError:
        return TargetError(
            f"The server refuses to {doing} {shown(self._full(name))}: {error}. skynet keeps there "
            "what it knows of the target; give this account full rights to that directory.",
            "own-files-refused",
        )

    def _full(self, name: bytes) -> bytes:
        return self._directory + b"/" + name


def read_file(client: Client, path: bytes) -> Iterator[bytes]:
    """A file's content in chunks. The first is read at once, so RequestError comes from here."""
    length = client.capabilities.max_read
    data, ended = client.call(_read(path, 0, length, FIRST_READS))
    return _read_on(client, path, data, ended)


def _read_on(client: Client, path: bytes, data: bytes, ended: bool) -> Iterator[bytes]:
    length = client.capabilities.max_read
    offset = 0
    while data:
        yield data
        if ended:
            return
        offset += len(data)
        data, ended = client.call(_read(path, offset, length, max(1, BATCH // length)))


def _read(path: bytes, offset: int, length: int, count: int) -> Conversation[tuple[bytes, bool]]:
    """(the bytes of up to `count` reads of `length`, whether the file ends there)."""
    (reply,) = yield [wire.open_file(path, wire.READ_ONLY)]
    handle = expect_handle(reply)
    reads = [wire.read(handle, offset + i * length, length) for i in range(count)]
    *answers, status, _ = yield [*reads, wire.fstat(handle), wire.close(handle)]
    pieces = []
    for answer in answers:
        pieces.append(expect_data(answer))
        if len(pieces[-1]) < length:  # what follows a short read is not contiguous
            break
    data = b"".join(pieces)
    size = status.size if isinstance(status, wire.Attrs) else None
    return data, not pieces[-1] or (size is not None and offset + len(data) >= size)


class _Writing(NamedTuple):
    """Bytes to be written into a file, in requests of at most `step` bytes."""

    path: bytes
    offset: int
    data: bytes
    step: int

    def requests(self, handle: bytes) -> list[wire.Request]:
        return [
            wire.write(handle, self.offset + start, self.data[start : start + self.step])
            for start in range(0, len(self.data), self.step)
        ]


def _write(writing: _Writing, flags: int) -> Conversation[None]:
    handle = yield from _opened(writing.path, flags)
    for answer in (yield [*writing.requests(handle), wire.close(handle)]):
        expect_ok(answer)


def _write_at(writing: _Writing) -> Conversation[Stamp]:
    handle = yield from _opened(writing.path, wire.WRITE_IN_PLACE)
    return (yield from _fill(handle, writing))


def _append(writing: _Writing, handle: bytes | None) -> Conversation[bytes]:
    """Write into the open file `handle`, else by its path; the handle, which stays open."""
    if handle is not None:
        answers = yield writing.requests(handle)
        if all(is_status(answer, OK) for answer in answers):
            return handle
        # The server may have dropped the handle. If it is something else, it is told again.
        yield [wire.close(handle)]
    handle = yield from _opened(writing.path, wire.WRITE_IN_PLACE)
    answers = yield writing.requests(handle)
    if not all(is_status(answer, OK) for answer in answers):
        yield [wire.close(handle)]
    for answer in answers:
        expect_ok(answer)
    return handle


def _opened(path: bytes, flags: int) -> Conversation[bytes]:
    opening = wire.open_file(path, flags, wire.Attrs(mode=0o600))
    (reply,) = yield [opening]
    if is_status(reply, NO_SUCH_FILE):  # somebody has removed our directory: make it again
        _, reply = yield [wire.mkdir(path.rpartition(b"/")[0], wire.Attrs(mode=0o700)), opening]
    return expect_handle(reply)


def _fill(handle: bytes, writing: _Writing) -> Conversation[Stamp]:
    """Write into an open file and close it. The stamp is that of this very file."""
    *answers, found, closed = yield [
        *(*writing.requests(handle), wire.fstat(handle)),
        wire.close(handle),
    ]
    for answer in (*answers, closed):
        expect_ok(answer)
    return _stamp_of(found)


def _stamp(path: bytes) -> Conversation[Stamp | None]:
    (reply,) = yield [wire.lstat(path)]
    return None if is_status(reply, NO_SUCH_FILE) else _stamp_of(expect_attrs(reply))


def _stamp_of(reply: Reply) -> Stamp:
    if isinstance(reply, wire.Attrs):
        return Stamp(reply.size or 0, reply.mtime or 0)
    return Stamp(0, 0)  # some servers cannot tell by handle


def _close(handle: bytes) -> Conversation[None]:
    yield [wire.close(handle)]


def _ended(_result: None, _error: BaseException | None) -> None:
    """A lost link is told by whatever is asked next, a refusal does no harm."""


def _peek(wanted: Sequence[tuple[bytes, int, int]]) -> Conversation[list[bytes | None]]:
    opened = yield [wire.open_file(path, wire.READ_ONLY) for path, _, _ in wanted]
    requests: list[wire.Request] = []
    for reply, (_, offset, length) in zip(opened, wanted, strict=True):
        if isinstance(reply, Handle):
            requests += [wire.read(reply.handle, offset, length), wire.close(reply.handle)]
    answers = iter((yield requests))
    found: list[bytes | None] = []
    for reply in opened:
        if is_status(reply, NO_SUCH_FILE):
            found.append(None)
            continue
        expect_handle(reply)
        found.append(expect_data(next(answers)))
        expect_ok(next(answers))
    return found


def _create(writing: _Writing) -> Conversation[Stamp | None]:
    (reply,) = yield [wire.open_file(writing.path, wire.WRITE_NEW, wire.Attrs(mode=0o600))]
    if not isinstance(reply, Handle):
        (there,) = yield [wire.lstat(writing.path)]
        if isinstance(there, wire.Attrs):
            return None
        expect_handle(reply)
    try:
        return (yield from _fill(expect_handle(reply), writing))
    except RequestError:
        yield [wire.remove(writing.path)]  # it is ours, and says nothing
        raise


def _rename(source: bytes, path: bytes) -> Conversation[bool]:
    (reply,) = yield [wire.rename(source, path)]
    if is_status(reply, NO_SUCH_FILE):
        return False
    expect_ok(reply)
    return True


def _remove(path: bytes) -> Conversation[None]:
    (reply,) = yield [wire.remove(path)]
    if isinstance(reply, Status) and reply.code not in (OK, NO_SUCH_FILE):
        raise refusal(reply)


def _batches(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about BATCH; one empty piece if there are none."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= BATCH:
            yield b"".join(held)
            held, size = [], 0
    if held or not size:
        yield b"".join(held)
