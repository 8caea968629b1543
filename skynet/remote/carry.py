"""One operation of a plan as a conversation with an SFTP server.

Each is idempotent where the protocol lets it be: a directory that is there is made, a file that
is gone is deleted.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass

from skynet.delta import Delta
from skynet.errors import RequestError
from skynet.ops import Copy, Delete, Mkdir, Op, Patch, Rename, Rmdir, SetMeta, Upload
from skynet.remote.copies import Copies
from skynet.remote.places import Places, is_directory
from skynet.remote.send import Opener, Sender
from skynet.remote.verbs import Intent, Outcome
from skynet.sftp import wire
from skynet.sftp.capabilities import Capabilities
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import (
    FAILURE,
    NO_SUCH_FILE,
    OK,
    PERMISSION_DENIED,
    Reply,
    expect_ok,
    is_status,
)
from skynet.sftp.upload import LANES, put_in_place
from skynet.sftp.wire import Attrs

WEIGHT_OF_A_WRITE = 4  # so that files of many writes keep a channel's memory to some 16 MiB


@dataclass(slots=True)
class Carrier:
    """Makes conversations for operations on the target that `places` are in."""

    places: Places
    sender: Sender
    copies: Copies
    capabilities: Capabilities

    def weight(self, op: Op) -> int:
        """How much of a channel's window an operation takes: by the writes it may have in flight.

        Whatever is patched or copied may have to be sent.
        """
        if not isinstance(op, Upload | Patch | Copy):
            return 1
        writes = -(-op.entry.size // self.capabilities.max_write)
        return WEIGHT_OF_A_WRITE * min(LANES, writes) if writes > 1 else 1

    def is_wide(self, op: Op) -> bool:
        """Whether an operation is worth all channels."""
        if isinstance(op, Upload):
            return self.sender.is_wide(op.entry.size)
        return isinstance(op, Patch | Copy) and self.copies.is_wide(op)

    def carry_out(
        self,
        op: Op,
        open_source: Opener | None,
        intent: Intent | None = None,
        delta: Delta | None = None,
    ) -> Conversation[Outcome]:
        """Do it; errors are raised in the conversation."""
        match op:
            case Upload():
                return (yield from self.sender.upload(op, open_source, intent))
            case Patch():
                assert open_source is not None
                return (yield from self.copies.patch(op, open_source, delta))
            case Copy():
                assert open_source is not None
                return (yield from self.copies.copy(op, open_source))
            case Mkdir():
                yield from self._mkdir(op)
            case Rename():
                return (yield from self._rename(op))
            case SetMeta():
                attrs = self.places.attrs(op.entry)
                (reply,) = yield [wire.setstat(self.places.full(op.path), attrs)]
                expect_ok(reply)
            case Delete():
                return Outcome(op, b"", None, trashed=(yield from self._delete(op)))
            case Rmdir():
                (reply,) = yield [wire.rmdir(self.places.full(op.path))]
                _expect_gone(reply)
        return Outcome(op, b"", None)

    def _rename(self, op: Rename) -> Conversation[Outcome]:
        stamp = self.places.stamp_for(op.replaces)
        try:
            if op.replaces is None:
                paths = self.places.full(op.source), self.places.full(op.path)
                (reply,) = yield [wire.rename(*paths)]
                expect_ok(reply)
            else:
                place = yield from self.places.placement(
                    op.path, op.entry, "lanes", stamp=stamp, beside=False
                )
                place = place._replace(temp=self.places.full(op.source))
                yield from put_in_place(place, self.capabilities)
        except RequestError as error:
            # Perhaps another file system is mounted at one of the two.
            moved = (yield from self.copies.move(op)) if error.code == "failure" else None
            if moved is None:
                raise
            return moved
        return Outcome(op, b"", None, trashed=stamp)

    def _mkdir(self, op: Mkdir) -> Conversation[None]:
        path, attrs = self.places.full(op.path), self.places.attrs(op.entry)
        made, found = yield [wire.mkdir(path, attrs), wire.lstat(path)]
        if not is_status(made, OK) and not is_directory(found):
            if is_status(made, FAILURE):
                yield from self.sender.raise_if_stopped(0)
            expect_ok(made)  # and what stands there is not touched
        if attrs.mode is not None and not _has_mode(found, attrs.mode):
            # The server's umask has cut the mode of MKDIR, or the directory was there before.
            (reply,) = yield [wire.setstat(path, attrs)]
            expect_ok(reply)

    def _delete(self, op: Delete) -> Conversation[bytes]:
        """The stamp under which it is in the trash; b"" if it is not."""
        path, stamp = self.places.full(op.path), self.places.trash.stamp
        if not (self.places.trash.keep_deleted or op.foreign):
            (reply,) = yield [wire.remove(path)]
            _expect_gone(reply)
            return b""
        if self.places.has_trash_for(op.path, stamp):
            (reply,) = yield [wire.rename(path, self.places.trash_path(op.path, stamp))]
            if is_status(reply, OK):
                return stamp
        yield from self.places.make_trash_parents(op.path, stamp)
        reply, found = yield from self._move_to_trash(op.path, stamp)
        if is_status(reply, NO_SUCH_FILE) and isinstance(found, Attrs):
            # Somebody has removed the trash since it was made.
            yield from self.places.make_trash_parents_again(op.path, stamp)
            reply, found = yield from self._move_to_trash(op.path, stamp)
        if is_status(reply, PERMISSION_DENIED):
            expect_ok(reply)
        if not is_status(reply, OK) and isinstance(found, Attrs):
            # It is the trash that is missing, or out of reach, not the file.
            raise RequestError(
                "It cannot be moved to the trash. If another file system is mounted there, no "
                "rename leads from it to .skynet: set trash_days = 0 to delete at once.",
                "no-trash",
            )
        return stamp if is_status(reply, OK) else b""  # it was gone already

    def _move_to_trash(self, path: bytes, stamp: bytes) -> Conversation[list[Reply]]:
        """[whether it is there now, what is at the path]."""
        full = self.places.full(path)
        return (yield [wire.rename(full, self.places.trash_path(path, stamp)), wire.lstat(full)])


def _expect_gone(reply: Reply) -> None:
    if is_status(reply, NO_SUCH_FILE):
        return
    if is_status(reply, FAILURE):
        raise RequestError("It is not empty, or the server will not remove it.", "failure")
    expect_ok(reply)


def _has_mode(reply: Reply, mode: int) -> bool:
    return isinstance(reply, Attrs) and stat.S_IMODE(reply.mode or 0) == mode
