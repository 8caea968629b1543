"""One remote path made on the server: of parts of a file that is there, and of what is sent.

As with an upload, all goes to a temporary file, and what was at the path stays until the rename.
The server copies with `copy-data`, which works on the handles of one channel: so each channel opens
both files, and takes the next part whenever one of its lanes is free.

Why a patch publishes what the local file holds: it is read once more, whole, while the server
copies. What is sent comes of that reading, and its digest must be the one of the reading that
found what to copy. There, each block to be copied had the digest of a block of the original, which
had its size and time before anything was copied, and has them still when all is.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import xxhash

from skynet.delta import Data, Delta
from skynet.errors import LinkLost, RequestError, TornRead
from skynet.sftp import wire
from skynet.sftp.capabilities import Capabilities
from skynet.sftp.conversation import CROWDED, Conversation, Everywhere, Lanes
from skynet.sftp.pieces import Pieces, Source
from skynet.sftp.ration import Ration
from skynet.sftp.replies import (
    FAILURE,
    PERMISSION_DENIED,
    UNSUPPORTED,
    Handle,
    Reply,
    expect_data,
    expect_handle,
    expect_ok,
    is_status,
)
from skynet.sftp.upload import (
    LANES,
    Placement,
    Tracks,
    Uploaded,
    finish_temp,
    new_temp,
    open_when_free,
    publish,
)
from skynet.sftp.wire import Attrs, Request

T = TypeVar("T")

NO_COPIES = "no-copies"  # the server does not copy, whatever it has announced
NOT_ORIGINAL = "not-the-original"  # the file to copy from is not the one that was recorded

# Bytes of one copy: meanwhile that channel's server does nothing else, and its deadline runs.
COPY_PIECE = 4 << 20
# Parts in flight on one channel, where little is sent. What is copied is read here first, and
# nothing goes out before all lanes of a channel have their first part.
COPY_LANES = 4
MUCH = 8 << 20  # bytes to be sent that are worth as many lanes as an upload has
_HASHED = 1 << 20  # bytes of what is copied that are read here at once
_READ_BACK = 32  # reads in flight


class Original(NamedTuple):
    """A file on the server to copy from. mtime: seconds since 1970, None if it says nothing."""

    path: bytes
    size: int
    mtime: int | None


class Part(NamedTuple):
    """What one request brings to `offset`: `data`, or so many bytes of the original."""

    offset: int
    data: bytes = b""
    begin: int = 0
    length: int = 0

    def request(self, temp: bytes, original: bytes) -> Request:
        """The request for it, with the handles of both files."""
        if self.data:
            return wire.write(temp, self.offset, self.data)
        return wire.copy_data(original, self.begin, self.length, temp, self.offset)


class Parts:
    """Hands out the parts of one file, shared by all its lanes. ration: to be had before each."""

    def __init__(self, parts: Iterator[Part], ration: Ration) -> None:
        self.ration = ration
        self._parts = parts
        self._stopped = False
        self._lock = threading.Lock()

    def next(self) -> Part | None:
        """The next part; None at the end or after `stop`."""
        with self._lock:
            return None if self._stopped else next(self._parts, None)

    def stop(self) -> None:
        """Hand out no more, since something has failed."""
        self._stopped = True


def patch(
    open_source: Callable[[], Source],
    place: Placement,
    original: Original,
    delta: Delta,
    capabilities: Capabilities,
    tracks: Tracks,
    *,
    read_back: bool,
) -> Conversation[Uploaded]:
    """Publish a local file that `delta` makes of `original`.

    read_back: what was put together is read from the server, and compared, before it is published.
    Raises RequestError, TornRead, or the OSError of reading; the path is untouched then, and the
    temporary file gone, unless the link is lost.
    """

    def fill(handles: list[bytes]) -> Conversation[Uploaded]:
        source = open_source()
        try:
            pieces = Pieces(source, capabilities.max_write, tracks.content)
            ration = Ration()
            parts = Parts(patched(delta, pieces, ration), ration)
            lanes = LANES if delta.sent >= MUCH else COPY_LANES
            yield _spread(handles, place, original, parts, tracks, lanes)
            uploaded = Uploaded(source.size, pieces.digest(), source.verify())
        finally:
            source.close()
        if uploaded[:2] != (delta.size, delta.digest):
            raise TornRead("It changed after it was compared; it is sent when it has come to rest.")
        return uploaded

    expected = delta.digest if read_back else b""
    return _make(place, original, delta.size, fill, capabilities, expected)


def copy(
    place: Placement, original: Original, capabilities: Capabilities, *, digest: bytes = b""
) -> Conversation[None]:
    """Publish a copy of `original`. As `patch`; with `digest`, it is read back and must have it."""

    def fill(handles: list[bytes]) -> Conversation[None]:
        parts = Parts(copied(Part(0, length=original.size)), Ration())
        yield _spread(handles, place, original, parts, Tracks(lambda _: None), COPY_LANES)

    return _make(place, original, original.size, fill, capabilities, digest)


def patched(delta: Delta, pieces: Pieces, ration: Ration) -> Iterator[Part]:
    """The parts that `delta` consists of; the local file is read along, also where it is copied.

    ration: what may be read for a write.
    """
    end = 0
    for each in delta.ranges:
        begin, end = end, end + each.length
        if isinstance(each, Data):
            while (piece := pieces.pass_over(end, min(pieces.length, ration.length)))[1]:
                yield Part(*piece)
            continue
        for part in copied(Part(begin, begin=each.offset, length=each.length)):
            while pieces.pass_over(part.offset + part.length, _HASHED)[1]:
                continue
            yield part


def copied(whole: Part) -> Iterator[Part]:
    """A part that is copied, in pieces of at most COPY_PIECE."""
    for at in range(0, whole.length, COPY_PIECE):
        length = min(COPY_PIECE, whole.length - at)
        yield Part(whole.offset + at, begin=whole.begin + at, length=length)


def _make(
    place: Placement,
    original: Original,
    size: int,
    fill: Callable[[list[bytes]], Conversation[T]],
    capabilities: Capabilities,
    digest: bytes,
) -> Conversation[T]:
    """Open the files, let `fill` fill the temporary one, and publish it; see `patch`.

    fill(handles): of the temporary file, and of the original where one channel does all.
    """
    found, temp = yield from _open_temp(place, original)
    handles = [temp]
    try:
        _expect_original(found, original)
        if place.breadth != "wide":
            opening = wire.open_file(original.path, wire.READ_ONLY)
            handles.append(expect_handle((yield from open_when_free(opening))))
        result = yield from fill(handles)
        if digest:
            yield from _expect_content(place.temp, size, capabilities.max_read, digest)
    except LinkLost:
        raise
    except Exception:
        yield [*map(wire.close, handles), wire.remove(place.temp)]  # the first error matters
        raise
    try:
        last = [*map(wire.close, handles[1:]), wire.lstat(original.path)]
        *_, found = yield from finish_temp(temp, place, size, last)
        _expect_original(found, original)
    except Exception:
        yield [wire.remove(place.temp)]
        raise
    yield from publish(place, capabilities)
    return result


def _open_temp(place: Placement, original: Original) -> Conversation[tuple[Reply, bytes]]:
    """(what is at the original's path, handle of the new temporary file).

    Only then the original is opened: what has taken its place may be a link to anywhere.
    """
    opening = new_temp(place)
    found, reply = yield [wire.lstat(original.path), opening]
    if is_status(reply, FAILURE) and not (yield CROWDED):
        reply = yield from open_when_free(opening)
    return found, expect_handle(reply)


def _expect_original(found: Reply, original: Original) -> None:
    if (
        not isinstance(found, Attrs)
        or not stat.S_ISREG(found.mode or 0)
        or found.size != original.size
        or original.mtime not in (None, found.mtime)
    ):
        raise RequestError("The file to copy from is not the one that was recorded.", NOT_ORIGINAL)


def _spread(
    handles: list[bytes],
    place: Placement,
    original: Original,
    parts: Parts,
    tracks: Tracks,
    lanes: int,
) -> Lanes | Everywhere:
    """How all parts are brought there, as `place.breadth` says; lanes: on one channel."""
    if place.breadth == "wide":
        return Everywhere(lambda: _stripe(place.temp, original.path, parts, tracks, lanes))
    return _lanes(handles, parts, tracks, lanes)


def _stripe(
    temp: bytes, original: bytes, parts: Parts, tracks: Tracks, lanes: int
) -> Conversation[None]:
    """One channel's share."""
    flags = {temp: wire.WRITE_EXISTING, original: wire.READ_ONLY}
    opened = yield [wire.open_file(path, flag) for path, flag in flags.items()]
    closing = [wire.close(reply.handle) for reply in opened if isinstance(reply, Handle)]
    try:
        yield _lanes([expect_handle(reply) for reply in opened], parts, tracks, lanes)
    except Exception:
        parts.stop()
        yield closing  # the first error is what matters
        raise
    for reply in (yield closing):
        expect_ok(reply)


def _lanes(handles: list[bytes], parts: Parts, tracks: Tracks, lanes: int) -> Lanes:
    temp, original = handles
    return Lanes([_lane(temp, original, parts, tracks) for _ in range(lanes)])


def _lane(temp: bytes, original: bytes, parts: Parts, tracks: Tracks) -> Conversation[None]:
    try:
        while True:
            yield parts.ration
            if (part := parts.next()) is None:
                return
            (reply,) = yield [part.request(temp, original)]
            _expect_done(reply, part)
            tracks.acknowledged(len(part.data))
    except Exception:
        parts.stop()
        raise


def _expect_done(reply: Reply, part: Part) -> None:
    try:
        expect_ok(reply)
    except RequestError as error:
        if part.length and (is_status(reply, UNSUPPORTED) or is_status(reply, PERMISSION_DENIED)):
            error.code = NO_COPIES
        raise


def _expect_content(path: bytes, size: int, length: int, digest: bytes) -> Conversation[None]:
    """Read a file of `size` bytes, `length` at once. RequestError if its digest is not this."""
    handle = expect_handle((yield from open_when_free(wire.open_file(path, wire.READ_ONLY))))
    try:
        found = yield from _digest(handle, size, length)
    except Exception:
        yield [wire.close(handle)]
        raise
    yield [wire.close(handle)]
    if found != digest:
        raise RequestError("What the server has put together is not what it should be.", "mismatch")


def _digest(handle: bytes, size: int, length: int) -> Conversation[bytes]:
    """xxh3-128 of the first `size` bytes of a file, or of all that can be read."""
    hasher = xxhash.xxh3_128()
    offset, end = 0, -1
    while end < offset < size:
        end = offset
        starts = range(offset, min(offset + _READ_BACK * length, size), length)
        answers = yield [wire.read(handle, start, length) for start in starts]
        for start, reply in zip(starts, answers, strict=True):
            if start == offset:  # else a read before it was short
                data = expect_data(reply)
                hasher.update(data)
                offset += len(data)
    return hasher.digest()
