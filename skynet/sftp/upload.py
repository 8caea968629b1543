"""One local file to one remote path, whole or not at all.

The content goes to a temporary file; then its times are set, it is closed, its size is checked,
and a rename puts it in place. What was at the path stays there until that rename. Content is
hashed as it is read, so the file is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from skynet.errors import LinkLost, NotPublished, RequestError
from skynet.sftp import wire
from skynet.sftp.capabilities import Capabilities
from skynet.sftp.conversation import CROWDED, Conversation, Everywhere, Lanes, Step
from skynet.sftp.pieces import NOTHING, Pieces, Source, Trail, whole
from skynet.sftp.ration import Ration
from skynet.sftp.replies import (
    FAILURE,
    NO_SUCH_FILE,
    OK,
    Reply,
    Status,
    expect_attrs,
    expect_handle,
    expect_ok,
    is_status,
)
from skynet.sftp.resume import Begun, open_again, take_up
from skynet.sftp.wire import Attrs

NO_TEMPS = "no-temporary-directory"  # where the temporary file should go
RENAME_REFUSED = NotPublished.code  # without a reason: perhaps another file system is there
Breadth = Literal["wide", "lanes", "in order"]

LANES = 16  # writes in flight for one file: 4 MiB, twice what OpenSSH's window lets through


class Placement(NamedTuple):
    """Where an upload goes.

    temp and aside: names of our own, on the file system of `path`; the second is for what `path`
    holds, used where the server cannot replace atomically, or if `keep_old` asks for the old
    version to stay there. aside_in: the directories above `aside`, topmost first, that are made
    again if they are gone. attrs: mode and mtime to set, None for what the server does not keep.
    breadth: a file of several writes goes over all channels, or in LANES over one, or in order.
    """

    temp: bytes
    path: bytes
    aside: bytes
    attrs: Attrs = wire.NO_ATTRS
    keep_old: bool = False
    breadth: Breadth = "lanes"
    aside_in: tuple[bytes, ...] = ()


class Uploaded(NamedTuple):
    """What has been published: content bytes, their xxh3-128, the local file's stat identity."""

    size: int
    digest: bytes
    identity: bytes


class Tracks(NamedTuple):
    """Who is told how far an upload has got, on the threads that send it.

    acknowledged: the content bytes that the server has confirmed. trail: what may be gone on with.
    content: all that is read of the local file, in order.
    """

    acknowledged: Callable[[int], None]
    trail: Trail | None = None
    content: Callable[[bytes], None] | None = None


def upload(
    open_source: Callable[[], Source],
    place: Placement,
    capabilities: Capabilities,
    tracks: Tracks,
    begun: Begun | None = None,
) -> Conversation[Uploaded]:
    """Send a file, or go on with what has `begun`.

    Raises RequestError, TornRead, or the OSError of reading; the path is untouched then, and the
    temporary file gone. It stays only when the link is lost.
    """
    handle = yield from _open_temp(place, begun)
    try:
        uploaded, last = yield from _fill(open_source, handle, place, capabilities, tracks, begun)
    except LinkLost:
        raise  # nothing more can be sent, and what was sent may be gone on with
    except Exception:
        # The first error is what matters, whatever these answer; a temporary file that stays is
        # removed by the next cycle's recovery.
        yield [wire.close(handle), wire.remove(place.temp)]
        raise
    try:
        writes = [wire.write(handle, 0, last)] if last else []
        yield from finish_temp(handle, place, uploaded.size, writes)
    except Exception:
        # No second CLOSE: the server may have given the same handle to another file by now.
        yield [wire.remove(place.temp)]
        raise
    tracks.acknowledged(len(last))
    yield from publish(place, capabilities)
    return uploaded


def make_link(target: bytes, place: Placement, capabilities: Capabilities) -> Conversation[None]:
    """Publish a symbolic link that says `target`."""
    (reply,) = yield [wire.symlink(target, place.temp)]
    expect_ok(reply)
    yield from publish(place, capabilities)


def publish(place: Placement, capabilities: Capabilities) -> Conversation[None]:
    """Rename the finished temporary file into place; NotPublished, and it is removed, if not."""
    try:
        yield from put_in_place(place, capabilities)
    except RequestError as error:
        yield [wire.remove(place.temp)]  # the error tells the story, whatever this answers
        code = RENAME_REFUSED if error.code == "failure" else error.code
        raise NotPublished(str(error), code) from None


def put_in_place(place: Placement, capabilities: Capabilities) -> Conversation[None]:
    """Rename `place.temp` to `place.path`, over what is there; it stays if that fails."""
    may_replace = capabilities.posix_rename
    if place.keep_old and may_replace:
        may_replace = yield from _link_aside(place, capabilities)
    if may_replace:
        (reply,) = yield [wire.posix_rename(place.temp, place.path)]
        expect_ok(reply)
    else:
        yield from _replace_in_steps(place)


def _link_aside(place: Placement, capabilities: Capabilities) -> Conversation[bool]:
    """Give the old version, if there is one, its second name; False if that cannot be done."""
    if not capabilities.hardlink:
        return False
    reply = yield from _ask_aside(wire.hardlink(place.path, place.aside), place)
    return reply is None or is_status(reply, OK)


def _ask_aside(request: wire.Request, place: Placement) -> Conversation[Reply | None]:
    """The answer to what gives the old version its second name; None if there is no old version.

    The server says the same where the directory of that name is missing, as when somebody has
    emptied the trash. So what is at the path is looked at before it counts as absent.
    """
    (reply,) = yield [request]
    if not is_status(reply, NO_SUCH_FILE):
        return reply
    (found,) = yield [wire.lstat(place.path)]
    if is_status(found, NO_SUCH_FILE):
        return None
    for directory in place.aside_in:
        yield [wire.mkdir(directory, Attrs(mode=0o700))]  # or it is there
    (reply,) = yield [request]
    return reply


def _replace_in_steps(place: Placement) -> Conversation[None]:
    """Replace without an atomic rename: the old version steps aside first, never deleted first.

    A crash between the steps leaves the old version at `aside` and the new one at `temp`; the
    next cycle finds the path missing and sends it again.
    """
    if not place.keep_old:
        (reply,) = yield [wire.rename(place.temp, place.path)]
        if is_status(reply, OK):
            return
    answer = yield from _ask_aside(wire.rename(place.path, place.aside), place)
    stepped_aside = answer is not None
    if answer is not None:
        expect_ok(answer)
    (reply,) = yield [wire.rename(place.temp, place.path)]
    if not is_status(reply, OK) and stepped_aside:
        yield [wire.rename(place.aside, place.path)]
    expect_ok(reply)
    if stepped_aside and not place.keep_old:
        yield [wire.remove(place.aside)]  # published already: what stays is cleared with tmp/


def _open_temp(place: Placement, begun: Begun | None) -> Conversation[bytes]:
    """The handle of the temporary file: of a new one, or of the one that has `begun`."""
    if begun is not None:
        return (yield from open_again(place.temp, begun))
    return _expect_temp((yield from open_when_free(new_temp(place))))


def new_temp(place: Placement) -> wire.Request:
    """What opens a new temporary file, ours to open again whatever the file's mode will be.

    Other channels write to it, and what broke off is read; strangers never may more than in the
    end.
    """
    mode = place.attrs.mode
    attrs = Attrs(mode=mode | 0o600) if mode is not None else wire.NO_ATTRS
    return wire.open_file(place.temp, wire.WRITE_NEW, attrs)


def open_when_free(opening: wire.Request) -> Conversation[Reply]:
    """What the server answers; when too many files are open, as soon as another is closed."""
    (reply,) = yield [opening]
    while is_status(reply, FAILURE) and not (yield CROWDED):
        (reply,) = yield [opening]
    return reply


def _expect_temp(reply: Reply) -> bytes:
    try:
        return expect_handle(reply)
    except RequestError as error:
        error.code = NO_TEMPS if error.code == "no-such-file" else error.code
        raise


def _fill(
    open_source: Callable[[], Source],
    handle: bytes,
    place: Placement,
    capabilities: Capabilities,
    tracks: Tracks,
    begun: Begun | None,
) -> Conversation[tuple[Uploaded, bytes]]:
    """Send a file of several writes, or read a smaller one: then its bytes are to be sent yet.

    The local file is open no longer than this takes: hundreds of small ones are under way, and a
    process may have only so many open.
    """
    yield (ration := Ration())
    source = open_source()
    try:
        length = min(capabilities.max_write, ration.length)
        if source.size <= length:
            last, digest = whole(source, length, tracks.content)
            return Uploaded(source.size, digest, source.verify()), last
        pieces = Pieces(source, capabilities.max_write, tracks.content)
        if begun is not None:
            yield from take_up(handle, source, pieces, begun)
        if tracks.trail is not None:
            tracks.trail.begin(source.identity, begun.mark if begun is not None else NOTHING)
        yield _spread(handle, place, pieces, tracks)
        return Uploaded(source.size, pieces.digest(), source.verify()), b""
    finally:
        source.close()


def _spread(handle: bytes, place: Placement, pieces: Pieces, tracks: Tracks) -> Step:
    """How a file of more than one write is sent, as `place.breadth` says."""
    if place.breadth == "wide":
        return Everywhere(lambda: _stripe(place.temp, pieces, tracks))
    lanes = LANES if place.breadth == "lanes" else 1
    return Lanes([_lane(handle, pieces, tracks) for _ in range(lanes)])


def _stripe(temp: bytes, pieces: Pieces, tracks: Tracks) -> Conversation[None]:
    """One channel's share of a file; whatever the others take is not its business.

    If somebody has removed the file meanwhile, a new one of that name would hold this share only.
    """
    (reply,) = yield [wire.open_file(temp, wire.WRITE_EXISTING)]
    handle = expect_handle(reply)
    try:
        yield Lanes([_lane(handle, pieces, tracks) for _ in range(LANES)])
    except Exception:
        yield [wire.close(handle)]  # the first error is what matters
        raise
    (reply,) = yield [wire.close(handle)]
    expect_ok(reply)


def _lane(handle: bytes, pieces: Pieces, tracks: Tracks) -> Conversation[None]:
    ration = Ration()
    try:
        while True:
            yield ration
            piece = pieces.next(ration.length)
            if not piece.data:
                return
            (reply,) = yield [wire.write(handle, piece.offset, piece.data)]
            expect_ok(reply)
            tracks.acknowledged(len(piece.data))
            if tracks.trail is not None:
                tracks.trail.acknowledge(piece)
    except Exception:
        pieces.stop()
        raise


def finish_temp(
    handle: bytes, place: Placement, size: int, first: Sequence[wire.Request]
) -> Conversation[list[Reply]]:
    """Set times and mode, check the size, close. RequestError.

    first: asked before, in the same round trip; their answers, none of them a refusal.
    """
    settings = [wire.fsetstat(handle, place.attrs)] if place.attrs != wire.NO_ATTRS else []
    answers = yield [*first, *settings, wire.fstat(handle), wire.close(handle)]
    for reply in (*answers[: len(first)], answers[-1]):
        if isinstance(reply, Status):
            expect_ok(reply)
    are_set = all(is_status(reply, OK) for reply in answers[len(first) : -2])
    if not are_set or not _is_as_wanted(answers[-2], place, size):
        # Some servers work on requests out of order, or cannot set attributes by handle.
        yield from _settle_by_path(place, size)
    return answers[: len(first)]


def _is_as_wanted(reply: Reply, place: Placement, size: int) -> bool:
    """Whether size and mtime are known and right; a server that sends neither is not trusted."""
    if not isinstance(reply, Attrs) or reply.size != size:
        return False
    return place.attrs.mtime in (None, reply.mtime)


def _settle_by_path(place: Placement, size: int) -> Conversation[None]:
    if place.attrs != wire.NO_ATTRS:
        (reply,) = yield [wire.setstat(place.temp, place.attrs)]
        expect_ok(reply)
    (reply,) = yield [wire.lstat(place.temp)]
    found = expect_attrs(reply).size
    if found is not None and found != size:
        raise RequestError(f"{found} of {size} bytes arrived", "size-mismatch")
