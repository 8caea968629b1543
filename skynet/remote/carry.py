"""One operation of a plan as a conversation with an SFTP server.

Each is idempotent where the protocol lets it be: a directory that is there is made, a file that
is gone is deleted.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from skynet.errors import RemoteStopped, RequestError
from skynet.ops import Delete, Mkdir, Op, Rename, Rmdir, SetMeta, Upload
from skynet.remote.verbs import OWN, TEMPS, TRASH, Facts, Outcome, Trash
from skynet.rules import STRAY_TEMP
from skynet.sftp import wire
from skynet.sftp.client import Capabilities
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import (
    FAILURE,
    NO_SUCH_FILE,
    OK,
    PERMISSION_DENIED,
    Extended,
    Reply,
    expect_ok,
    is_status,
    parse_free_bytes,
)
from skynet.sftp.upload import (
    LANES,
    NO_TEMPS,
    RENAME_REFUSED,
    Breadth,
    Placement,
    Source,
    Uploaded,
    make_link,
    upload,
)
from skynet.sftp.wire import Attrs
from skynet.tree import FILE, LINK, Entry, ancestors, join, parent, wire_time

SPARE_BYTES = 1 << 20  # less free space than an upload and this is a full disk
WIDE_FROM = 8 << 20  # bytes: a file worth all channels
WEIGHT_OF_A_WRITE = 4  # so that files of many writes keep a channel's memory to some 16 MiB

UNSTAMPED = Trash(b"unstamped")  # until the cycle names its own


@dataclass(slots=True)
class Carrier:
    """Makes conversations for operations on the target at `root` (full path).

    nonce: makes temporary names unique among all runs. acknowledged: told content bytes.
    """

    root: bytes
    nonce: str
    capabilities: Capabilities
    acknowledged: Callable[[int], None]
    facts: Facts = field(default_factory=Facts)
    trash: Trash = UNSTAMPED
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _trash_directories: set[bytes] = field(default_factory=set)
    _in_order: bool = False  # the server takes a file only from one writer, front to back
    _mounted: set[bytes] = field(default_factory=set)  # parents where tmp/ cannot be renamed to

    def full(self, path: bytes) -> bytes:
        """The full path of a path of the mirror."""
        return join(self.root, path) if self.root != b"/" else b"/" + path

    def temp_name(self) -> bytes:
        """A full path in `tmp/` that nobody has used."""
        return self.full(join(join(OWN, TEMPS), self._unique()))

    def carry_out(self, op: Op, open_source: Callable[[], Source] | None) -> Conversation[Outcome]:
        """Do it; errors are raised in the conversation."""
        match op:
            case Upload():
                return (yield from self._upload(op, open_source))
            case Mkdir():
                yield from self._mkdir(op)
            case Rename():
                (reply,) = yield [wire.rename(self.full(op.source), self.full(op.path))]
                expect_ok(reply)
            case SetMeta():
                (reply,) = yield [wire.setstat(self.full(op.path), self.attrs(op.entry))]
                expect_ok(reply)
            case Delete():
                yield from self._delete(op)
            case Rmdir():
                (reply,) = yield [wire.rmdir(self.full(op.path))]
                _expect_gone(reply)
        return Outcome(op, b"", None)

    def attrs(self, entry: Entry) -> Attrs:
        """What is to be set on the remote: only what its file system keeps."""
        mode = entry.mode if self.facts.keeps_modes else None
        if entry.kind != FILE or not self.facts.keeps_times:
            return Attrs(mode=mode)
        return Attrs(mode=mode, mtime=wire_time(entry.mtime_ns))

    def _unique(self) -> bytes:
        return f"{self.nonce}-{next(self._numbers):x}".encode()

    def _mkdir(self, op: Mkdir) -> Conversation[None]:
        path, attrs = self.full(op.path), self.attrs(op.entry)
        made, found = yield [wire.mkdir(path, attrs), wire.lstat(path)]
        if not is_status(made, OK) and not is_directory(found):
            expect_ok(made)  # and what stands there is not touched
        if attrs.mode is not None and not _has_mode(found, attrs.mode):
            # The server's umask has cut the mode of MKDIR, or the directory was there before.
            (reply,) = yield [wire.setstat(path, attrs)]
            expect_ok(reply)

    def weight(self, op: Op) -> int:
        """How much of a channel's window an operation takes: by the writes it has in flight."""
        if not isinstance(op, Upload) or op.entry.size <= self.capabilities.max_write:
            return 1
        return WEIGHT_OF_A_WRITE * min(LANES, -(-op.entry.size // self.capabilities.max_write))

    def is_wide(self, op: Op) -> bool:
        """Whether an operation is worth all channels."""
        return isinstance(op, Upload) and op.entry.size >= WIDE_FROM and not self._in_order

    def _upload(
        self, op: Upload, open_source: Callable[[], Source] | None
    ) -> Conversation[Outcome]:
        beside = parent(op.path) in self._mounted
        try:
            return (yield from self._upload_once(op, open_source, beside=beside))
        except RequestError as error:
            if error.code == "failure":
                yield from self.raise_if_full(op.entry.size)
            if error.code != RENAME_REFUSED and self.is_wide(op):
                return (yield from self._upload_in_order(op, open_source))
            if error.code != RENAME_REFUSED or beside:
                raise
            (found,) = yield [wire.lstat(self.full(op.path))]
            if is_directory(found):
                raise
        # Perhaps another file system is mounted there: put the temporary file beside the target.
        outcome = yield from self._upload_once(op, open_source, beside=True)
        self._mounted.add(parent(op.path))
        return outcome

    def _upload_in_order(
        self, op: Upload, open_source: Callable[[], Source] | None
    ) -> Conversation[Outcome]:
        """Try again as an object store needs it: one writer, from front to back."""
        self._in_order = True
        try:
            return (yield from self._upload_once(op, open_source, beside=False))
        except RequestError:
            self._in_order = False  # that was not the reason
            raise

    def _upload_once(
        self, op: Upload, open_source: Callable[[], Source] | None, *, beside: bool
    ) -> Conversation[Outcome]:
        place = yield from self._placement(op, beside=beside)
        if op.entry.kind == LINK:
            yield from make_link(op.entry.link, place, self.capabilities)
            return Outcome(op, b"", None)
        assert open_source is not None
        sending = (open_source, place, self.capabilities, self.acknowledged)
        try:
            sent: Uploaded = yield from upload(*sending)
        except RequestError as error:
            if error.code != NO_TEMPS:
                raise
            # Somebody has removed it since the manifest was written.
            yield [wire.mkdir(self.full(join(OWN, TEMPS)), Attrs(mode=0o700))]
            sent = yield from upload(*sending)
        entry = msgspec.structs.replace(op.entry, digest=sent.digest)
        return Outcome(msgspec.structs.replace(op, entry=entry), sent.identity, None)

    def _breadth(self, op: Upload) -> Breadth:
        if self._in_order:
            return "in order"
        return "wide" if self.is_wide(op) else "lanes"

    def _placement(self, op: Upload, *, beside: bool) -> Conversation[Placement]:
        keep = op.foreign or (self.trash.keep_replaced and op.replaces is not None)
        if keep:
            yield from self._make_trash_parents(op.path)
        aside = self._trash_path(op.path) if keep else self.temp_name()
        temp = self.temp_name()
        if beside:
            temp = self.full(join(parent(op.path), STRAY_TEMP + self._unique()))
        return Placement(
            temp, self.full(op.path), aside, self.attrs(op.entry), keep, self._breadth(op)
        )

    def raise_if_full(self, size: int) -> Conversation[None]:
        """RemoteStopped if `size` bytes find no room: a generic FAILURE often is a full disk."""
        if not self.capabilities.statvfs:
            return
        (reply,) = yield [wire.statvfs(self.root)]
        if isinstance(reply, Extended):
            free = parse_free_bytes(reply.body)
            if free < size + SPARE_BYTES:
                raise RemoteStopped(
                    f"The remote disk is full: {free // 1024} KiB are free at the target. "
                    "What was there is untouched. Make room, then run skynet again.",
                    "disk-full",
                )

    def _delete(self, op: Delete) -> Conversation[None]:
        path = self.full(op.path)
        if not (self.trash.keep_deleted or op.foreign):
            (reply,) = yield [wire.remove(path)]
            _expect_gone(reply)
            return
        # Most often the trash has this directory already, so try without making it.
        (reply,) = yield [wire.rename(path, self._trash_path(op.path))]
        if is_status(reply, OK):
            return
        yield from self._make_trash_parents(op.path)
        reply, found = yield [wire.rename(path, self._trash_path(op.path)), wire.lstat(path)]
        if is_status(reply, PERMISSION_DENIED):
            expect_ok(reply)
        if not is_status(reply, OK) and isinstance(found, Attrs):
            # It is the trash that is missing, or out of reach, not the file.
            raise RequestError(
                "It cannot be moved to the trash. If another file system is mounted there, no "
                "rename leads from it to .skynet: set trash_days = 0 to delete at once.",
                "no-trash",
            )

    def _trash_path(self, path: bytes) -> bytes:
        return self.full(join(self._trash_root(), path))

    def _trash_root(self) -> bytes:
        return join(join(OWN, TRASH), self.trash.stamp)

    def _make_trash_parents(self, path: bytes) -> Conversation[None]:
        root = self._trash_root()
        inside = (join(root, directory) for directory in reversed(list(ancestors(path))))
        for directory in (join(OWN, TRASH), root, *inside):
            if directory not in self._trash_directories:
                yield [wire.mkdir(self.full(directory), Attrs(mode=0o700))]  # or it is there
                self._trash_directories.add(directory)


def _expect_gone(reply: Reply) -> None:
    if is_status(reply, NO_SUCH_FILE):
        return
    if is_status(reply, FAILURE):
        raise RequestError("It is not empty, or the server will not remove it.", "failure")
    expect_ok(reply)


def _has_mode(reply: Reply, mode: int) -> bool:
    return isinstance(reply, Attrs) and stat.S_IMODE(reply.mode or 0) == mode


def is_directory(reply: Reply) -> bool:
    """Whether the reply describes a directory."""
    return isinstance(reply, Attrs) and stat.S_ISDIR(reply.mode or 0)
