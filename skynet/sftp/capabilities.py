"""What a server can do, as it says itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skynet.sftp import replies, wire
from skynet.sftp.conversation import Conversation

LIMITS = b"limits@openssh.com"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a server takes: bytes in a write and a read, files open at once (0: not known)."""

    write: int = 32 * 1024
    read: int = 32 * 1024
    handles: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server can do, as it said itself.

    bounds: waits for them, since the server is asked along with the first calls; LinkLost if it
    never answers. What is submitted may ask for them at any time, a `call` only before it begins.
    """

    extensions: frozenset[bytes]
    bounds: Callable[[], Bounds]

    @property
    def max_write(self) -> int:
        """The most bytes of a write."""
        return self.bounds().write

    @property
    def max_read(self) -> int:
        """The most bytes of a read."""
        return self.bounds().read

    @property
    def max_handles(self) -> int:
        """Files that may be open at once; 0 means not known."""
        return self.bounds().handles

    @property
    def posix_rename(self) -> bool:
        """Whether a rename can replace a file atomically."""
        return b"posix-rename@openssh.com" in self.extensions

    @property
    def hardlink(self) -> bool:
        """Whether a file can be given a second name."""
        return b"hardlink@openssh.com" in self.extensions

    @property
    def statvfs(self) -> bool:
        """Whether free space can be asked for."""
        return b"statvfs@openssh.com" in self.extensions

    @property
    def copy_data(self) -> bool:
        """Whether the server copies from one open file to another."""
        return b"copy-data" in self.extensions


def ask_for_bounds(*, says_them: bool) -> Conversation[Bounds]:
    """What a server says that has LIMITS; what any takes if it refuses. One round trip.

    Whoever measures that also can with another server: it is asked for something else.
    """
    (reply,) = yield [wire.limits() if says_them else wire.realpath(b".")]
    if not isinstance(reply, replies.Extended):
        return Bounds()
    packet, read, write, handles = replies.parse_limits(reply.body)
    room = min(packet or replies.MAX_PACKET, replies.MAX_PACKET) - 1024
    handles = handles if handles < 1 << 20 else 0
    return Bounds(_usable(write, room), _usable(read, room), handles)


def _usable(limit: int, room: int) -> int:
    """A length that both the server's limit and its longest packet allow, never absurdly small."""
    return max(4096, min(limit or room, room, 255 * 1024))
