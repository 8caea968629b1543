"""Going on with an upload that broke off.

What was acknowledged is not sent again, if it is still the same: here by reading the file's
beginning and hashing it, there by reading back a part of it. A server that crashed may have lost
what it had acknowledged; that leaves a short file, or long runs of zeros, which samples find.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from skynet.errors import RequestError
from skynet.sftp import wire
from skynet.sftp.conversation import Conversation, Lanes
from skynet.sftp.pieces import Mark, Pieces, Source
from skynet.sftp.replies import Data, Handle, Reply
from skynet.sftp.wire import Attrs

START_OVER = "start-over"  # what was sent is no good: all is to be sent anew

LANES = 8
STEP = 16 << 20  # bytes that a lane hashes before others get their turn on this channel
STRIDE = 1 << 20  # from one sample to the next, in what was sent last; before that, one a STEP
RECENT = 512 << 20  # so much of that: what is older has reached the server's disk, most likely
SAMPLE = 4096


class Begun(NamedTuple):
    """What an earlier run has sent: of the file of this identity, up to this mark."""

    identity: bytes
    mark: Mark


def _start_over(reason: str) -> RequestError:
    """The error that asks for the whole file again."""
    return RequestError(reason, START_OVER)


def open_again(temp: bytes, begun: Begun) -> Conversation[bytes]:
    """The handle of a temporary file that holds what has begun. RequestError START_OVER."""
    found, reply = yield [wire.lstat(temp), wire.open_file(temp, wire.READ_AND_WRITE)]
    if isinstance(reply, Handle) and _may_hold(found, begun.mark.length):
        return reply.handle
    closing = [wire.close(reply.handle)] if isinstance(reply, Handle) else []
    yield [*closing, wire.remove(temp)]  # if there is anything; a new one has another name
    raise _start_over("The temporary file is gone, or shorter than it was.")


def _may_hold(found: Reply, length: int) -> bool:
    """Whether it is a file at least this long. A link is not followed: it could lead anywhere."""
    return (
        isinstance(found, Attrs)
        and stat.S_ISREG(found.mode or 0)
        and found.size is not None
        and found.size >= length
    )


def take_up(handle: bytes, source: Source, pieces: Pieces, begun: Begun) -> Conversation[None]:
    """Bring `pieces` to where the earlier run had got. RequestError START_OVER, OSError."""
    if source.identity != begun.identity:
        raise _start_over("The local file has changed.")
    yield Lanes([_compare(handle, pieces, begun.mark.length) for _ in range(LANES)])
    if pieces.digest() != begun.mark.digest:
        raise _start_over("The local file has changed.")


def _compare(handle: bytes, pieces: Pieces, end: int) -> Conversation[None]:
    """Pass over what was sent, and read a part of it back; one lane of several."""
    while samples := _samples(pieces, end):
        answers = yield [wire.read(handle, offset, len(data)) for offset, data in samples]
        if answers != [Data(data) for _, data in samples]:
            pieces.stop()
            raise _start_over("The server has lost what it had acknowledged.")


def _samples(pieces: Pieces, end: int) -> list[tuple[int, bytes]]:
    """(offset, bytes) to compare of the next STEP, none at the end."""
    samples: list[tuple[int, bytes]] = []
    for _ in range(STEP // STRIDE):
        offset, data = pieces.pass_over(end, STRIDE)
        if not data:
            break
        if not samples or end - offset <= RECENT:
            sample = data[-SAMPLE:]
            samples.append((offset + len(data) - len(sample), sample))
    return samples
