"""What sync needs of a remote, whatever it is made of. Tests have one in memory.

Paths are relative to the target directory. Everything of skynet's own is below `.skynet` there;
`own` names are relative to that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from skynet.ops import Op
from skynet.tree import Entry, Kind

if TYPE_CHECKING:
    from skynet.blocks import Signature
    from skynet.delta import Delta
    from skynet.sftp.pieces import Source

OWN = b".skynet"
TEMPS = b"tmp"
TRASH = b"trash"


class Facts(msgspec.Struct, frozen=True):
    """What the remote file system was found to do, when it was first used."""

    keeps_times: bool = True
    keeps_modes: bool = True
    folds_case: bool = False
    moves_directories: bool = True  # one that holds something can be renamed


class Site(NamedTuple):
    """What is at the target. is_prepared: `.skynet` is there and can take uploads."""

    exists: bool
    is_prepared: bool


class Stamp(NamedTuple):
    """By what an own file is known to be as it was: bytes, and seconds since 1970.

    mtime is 0 where the server does not say it.
    """

    size: int
    mtime: int


class Listed(NamedTuple):
    """One remote directory. Times are whole seconds, in nanoseconds; digests are unknown.

    unknown: names of what can be no entry (devices, or what the server says too little of).
    error: why it could not be listed whole; nothing may be concluded from absence then.
    """

    directory: bytes
    children: dict[bytes, Entry]
    unknown: frozenset[bytes]
    error: Exception | None


class Intent(msgspec.Struct, frozen=True):
    """A large upload in progress: what of it the server has acknowledged, from the beginning on.

    identity and size: of the local file. temp: own name of the temporary file. digest: xxh3-128
    of the first `length` bytes.
    """

    identity: bytes
    size: int
    temp: bytes
    length: int
    digest: bytes


_TEMP_NAME = re.compile(re.escape(TEMPS) + rb"(/[0-9A-Za-z_-]{1,100}){1,2}")


def is_temp(name: bytes) -> bool:
    """Whether this can be the own name of a temporary file: in `tmp/`, or a directory there."""
    return _TEMP_NAME.fullmatch(name) is not None


class Outcome(NamedTuple):
    """An operation that has ended. `op` holds the digest of what was sent.

    A patch or a copy that turned out to be impossible is told as the upload that was done instead.

    identity: the local file's stat identity to record, b"" if none was read. error: RequestError,
    TornRead, OSError or RemoteStopped; None when the operation is done. signature: of the content
    that was read, whole, if the remote may use one for a patch. trashed: the stamp under which what
    was at the path went to the trash, if there was anything; b"" where it is not kept.
    """

    op: Op
    identity: bytes
    error: Exception | None
    signature: Signature | None = None
    trashed: bytes = b""


class Trash(NamedTuple):
    """What goes to the trash.

    stamp: a directory name there, new for every plan, so that no path is in it twice. keep_deleted:
    what is deleted goes there, instead of being removed. keep_replaced: what an upload replaces
    goes there too. What is not skynet's goes there always.
    """

    stamp: bytes
    keep_deleted: bool = True
    keep_replaced: bool = False


class Remote(Protocol):
    """A target directory. Errors of the link and of the remote as a whole are raised."""

    facts: Facts
    trash: Trash

    @property
    def can_copy(self) -> bool:
        """Whether files can be copied on the remote, as far as is known: patched, too."""

    def examine(self) -> Site:
        """What is at the target. TargetError if it can be no mirror."""

    def prepare(self) -> Facts:
        """Make the target and `.skynet`, where they are missing. TargetError.

        What the file system does is found out with a file of our own.
        """

    def walk(self, hides: Callable[[bytes], bool]) -> Iterator[Listed]:
        """Every directory, a parent before its children, in `tree.order`, the root first.

        That one is asked for at once, the others as what is returned is read.

        Directories that `hides` (their path) are not entered.
        """

    def kinds(self, paths: Sequence[bytes]) -> Callable[[], list[Kind | None]]:
        """Ask what is at each path, links not followed; None for nothing or what can be no entry.

        What is returned waits for the answer, so that other things can be asked meanwhile.
        """

    def expect(self, operations: int) -> None:
        """So many operations are to come: what they need is made ready, and nobody waits."""

    def submit(
        self,
        op: Op,
        open_source: Callable[[], Source] | None = None,
        intent: Intent | None = None,
        delta: Delta | None = None,
    ) -> None:
        """Take an operation, to begin with the next `wait`; uploads of files read open_source().

        They go on from `intent` where that still holds, and remove its temporary file otherwise.
        Patches and copies of files need open_source() as well. delta: of a patch, from the version
        that it replaces to the local file; without it, all is sent.
        """

    def wait(self, seconds: float) -> list[Outcome]:
        """Begin what was submitted; return what has ended since the last call, at least one.

        Nothing has ended if the list is empty after `seconds`.
        """

    def unfinished(self) -> dict[bytes, Intent]:
        """Path -> how far its upload has got: of large ones under way, or cut with the link."""

    def peek(self, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes | None]:
        """The bytes at (own name, offset, length): fewer at the end, None without a file."""

    def read(self, name: bytes) -> Iterator[bytes] | None:
        """A whole own file in chunks, None if it does not exist."""

    def replace(self, name: bytes, chunks: Iterable[bytes]) -> None:
        """Write an own file under a temporary name and rename it into place."""

    def write_at(self, name: bytes, offset: int, data: bytes) -> Stamp:
        """Write into an own file, which is made if it does not exist."""

    def expect_append(self, name: bytes) -> None:
        """An append to an own file is to come: it may be opened meanwhile, and nobody waits."""

    def append(self, name: bytes, offset: int, data: bytes) -> None:
        """Write at the end of an own file, which is known to be at `offset`.

        The file stays open: another append to it is one round trip, and goes to this very file,
        whatever others have made of its name. Only who holds the lease may rely on that.
        """

    def create(self, name: bytes, data: bytes) -> Stamp | None:
        """Make an own file that does not exist yet; None if it does."""

    def stamp(self, name: bytes) -> Stamp | None:
        """The present stamp of an own file, None without a file. One request."""

    def rename(self, source: bytes, name: bytes) -> bool:
        """Rename an own file to a name that is free; False if `source` does not exist."""

    def remove(self, name: bytes) -> None:
        """Remove an own file; it is fine if it does not exist."""

    def clear_temps(self, strays: Sequence[bytes] = (), keep: Collection[bytes] = ()) -> int:
        """Remove what broken uploads left in `tmp/`, and these files; how many that was.

        keep: own names of what is to stay. TargetError if `tmp/` cannot be cleared. A stray that
        the server does not give up stays: its directory may be opened by the plan to come.
        """

    def expire_trash(self, before: bytes) -> Callable[[int], None]:
        """Look what was put into the trash under a stamp that sorts before `before`.

        Nobody waits for that. What is returned removes what was there then, and whose directory the
        server does not date from `young` on, in seconds since 1970; TargetError, when the rest is
        gone, if the server refuses.
        """

    def content(self, path: bytes) -> Iterator[bytes]:
        """A mirrored file's content in chunks. RequestError."""

    @property
    def counts(self) -> Counter[str]:
        """`requests` sent, `mutations` among them, and acknowledged content `bytes`.

        resumed: content bytes that an earlier run had sent, and this one need not.
        """

    def close(self) -> None:
        """End the session."""
