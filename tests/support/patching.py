"""A target that holds an old version of one file, and a patch of it to a new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec

from skynet.delta import Delta, compare
from skynet.ops import Op, Patch
from skynet.remote import Outcome, Remote, SftpRemote
from skynet.sftp.pieces import Source
from tests.support.faults import FaultConnection
from tests.support.pipes import client_over, open_channels
from tests.support.sources import BytesSource
from tests.support.targets import DEADLINE, TIME, OnDisk, entry_of, source
from tests.support.versions import noise, signed

PATH = b"video"
COPY = "copy-data"
PIECE = 4096  # bytes of a write, and of a block of these small files
OLD = noise(60 * PIECE, 1)
# Something in front, something gone, something changed in place, something behind.
NEW = b"front" + OLD[: 20 * PIECE] + OLD[25 * PIECE : 40 * PIECE] + b"new" + OLD[40 * PIECE + 3 :]
NEW += noise(3 * PIECE, 2)


def delta_of(old: bytes, new: bytes) -> Delta:
    return compare(signed(old), BytesSource(new))


def patch_of(old: bytes, new: bytes, path: bytes = PATH) -> tuple[Patch, Delta]:
    """The patch from what OnDisk.put puts there, and what comes along with it."""
    delta = delta_of(old, new)
    replaced = msgspec.structs.replace(entry_of(old), mtime_ns=TIME * 1_000_000_000 + 7)
    entry = msgspec.structs.replace(entry_of(new, mtime=TIME + 60), digest=b"")
    return Patch(path, entry, replaced, delta.sent), delta


def apply_patch(remote: Remote, op: Op, delta: Delta | None, content: bytes) -> Outcome:
    """Carry out one operation; content: of the local file."""
    return apply_reading(remote, op, delta, source(content))


def apply_reading(
    remote: Remote, op: Op, delta: Delta | None, open_source: Callable[[], Source]
) -> Outcome:
    remote.submit(op, open_source, None, delta)
    (outcome,) = remote.wait(DEADLINE)
    return outcome


class Target(OnDisk):
    """A target over a connection that counts what is asked."""

    def __init__(self, directory: Path, connection: FaultConnection, remote: SftpRemote) -> None:
        self._root = os.fsencode(directory)
        self.remote = remote
        self.directory = directory
        self.connection = connection

    @property
    def left(self) -> list[str]:
        """Temporary files, also those beside their targets."""
        temps = self.directory / ".skynet/tmp"
        beside = [p.name for p in self.directory.rglob(".skynet-*")]
        return [p.name for p in temps.rglob("*") if p.is_file()] + beside

    def content(self, path: bytes = PATH) -> bytes:
        return (self.directory / os.fsdecode(path)).read_bytes()


@contextlib.contextmanager
def target(
    directory: Path, connection: FaultConnection, *, channels: int = 1, reads_back: bool = False
) -> Iterator[Target]:
    """A prepared target; what is asked from now on is counted by the connection."""
    with client_over(connection, channels=channels) as client:
        remote = SftpRemote(client, os.fsencode(directory), "nonce", reads_back=reads_back)
        remote.prepare()
        if channels > 1:
            open_channels(client)
        connection.arm(connection.fault)
        yield Target(directory, connection, remote)


def edited(content: bytes, seed: int, count: int, length: int) -> bytes:
    """`content` with so many random places of so many bytes changed."""
    random, new = Random(seed), bytearray(content)
    for _ in range(count):
        at = random.randrange(len(content) - length)
        new[at : at + length] = random.randbytes(length)
    return bytes(new)


def inserted(content: bytes, seed: int, count: int, length: int) -> bytes:
    """`content` with so many bytes put in at so many random places."""
    random = Random(seed)
    for at in sorted((random.randrange(len(content)) for _ in range(count)), reverse=True):
        content = content[:at] + random.randbytes(length) + content[at:]
    return content
