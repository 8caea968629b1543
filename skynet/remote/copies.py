"""Files that the server makes of what it has: patched, copied, moved where no rename leads.

Each is an attempt. Whatever the server refuses, or is found to be other than it was recorded, the
file is sent whole instead, and what was at the path is untouched until then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from skynet.delta import Delta
from skynet.errors import NotPublished, RequestError
from skynet.ops import Copy, Patch, Rename, Upload
from skynet.remote.places import Places
from skynet.remote.send import Opener, Sender
from skynet.remote.verbs import Outcome
from skynet.sftp import wire
from skynet.sftp.capabilities import Capabilities
from skynet.sftp.conversation import Conversation
from skynet.sftp.patch import NO_COPIES, Original, copy, patch
from skynet.sftp.replies import expect_ok
from skynet.sftp.upload import Placement, Tracks
from skynet.sftp.wire import Attrs
from skynet.tree import FILE, Entry, parent

# Begins to make a file, told whether its temporary file goes beside the path.
_Make = Callable[[bool], Conversation[Outcome]]

WIDE_FROM = 64 << 20  # bytes to be copied: a file worth all channels


@dataclass(slots=True)
class Copies:
    """Makes conversations that use `copy-data`, and let `sender` send what cannot be made so.

    reads_back: what the server has put together is read and compared before it is published.
    """

    places: Places
    sender: Sender
    capabilities: Capabilities
    acknowledged: Callable[[int], None]
    reads_back: bool = False
    _is_refused: bool = False  # although it has been announced

    @property
    def are_possible(self) -> bool:
        """Whether files can be copied on the server, as far as is known."""
        return self.capabilities.copy_data and not self._is_refused

    def is_wide(self, op: Patch | Copy) -> bool:
        """Whether an operation is worth all channels."""
        sends = op.sends if isinstance(op, Patch) else 0
        return op.entry.size >= WIDE_FROM or self.sender.is_wide(sends)

    def patch(self, op: Patch, open_source: Opener, delta: Delta | None) -> Conversation[Outcome]:
        """Send what is new of a file."""
        if delta is not None and self.are_possible:
            done = yield from self._attempt(
                lambda beside: self._patch(op, open_source, delta, beside=beside), op
            )
            if done is not None:
                return done
        whole = Upload(op.path, op.entry, op.replaces)
        return (yield from self.sender.upload(whole, open_source, None))

    def copy(self, op: Copy, open_source: Opener) -> Conversation[Outcome]:
        """Copy a file."""
        if self.are_possible and op.original.size == op.entry.size:
            done = yield from self._attempt(
                lambda beside: self._copy(op, op.original, beside=beside), op
            )
            if done is not None:
                return done
        entry = msgspec.structs.replace(op.entry, digest=b"")
        whole = Upload(op.path, entry, op.replaces)
        return (yield from self.sender.upload(whole, open_source, None))

    def move(self, op: Rename) -> Conversation[Outcome | None]:
        """Copy a file that no rename moves, as to another file system, and remove it there.

        None if that cannot be either; nothing has been done then.
        """
        if op.entry.kind != FILE or not self.are_possible:
            return None
        if op.replaces is None:
            (found,) = yield [wire.lstat(self.places.full(op.path))]
            if isinstance(found, Attrs):
                return None  # that was the reason, and it is not to be replaced
        try:
            done = yield from self._attempt(
                lambda beside: self._copy(op, op.entry, beside=beside), op, beside=True
            )
        except NotPublished:
            return None
        if done is None:
            return None
        (reply,) = yield [wire.remove(self.places.full(op.source))]
        expect_ok(reply)
        return done

    def _patch(
        self, op: Patch, open_source: Opener, delta: Delta, *, beside: bool
    ) -> Conversation[Outcome]:
        stamp = self.places.stamp_for(op.replaces)
        place = yield from self._placement(op, stamp, wide=self.is_wide(op), beside=beside)
        builder = self.sender.builder(op.entry)
        sent = yield from patch(
            open_source,
            place,
            self._original(op.path, op.replaces),
            delta,
            self.capabilities,
            Tracks(self.acknowledged, content=builder.update if builder else None),
            read_back=self.reads_back,
        )
        entry = msgspec.structs.replace(op.entry, digest=sent.digest)
        signature = builder.finish(sent.digest) if builder else None
        done = msgspec.structs.replace(op, entry=entry)
        return Outcome(done, sent.identity, None, signature, stamp)

    def _copy(self, op: Copy | Rename, recorded: Entry, *, beside: bool) -> Conversation[Outcome]:
        wide = isinstance(op, Copy) and self.is_wide(op)
        stamp = self.places.stamp_for(op.replaces)
        place = yield from self._placement(op, stamp, wide=wide, beside=beside)
        digest = op.entry.digest if self.reads_back else b""
        original = self._original(op.source, recorded)
        yield from copy(place, original, self.capabilities, digest=digest)
        return Outcome(op, b"", None, trashed=stamp)

    def _attempt(
        self, make: _Make, op: Patch | Copy | Rename, *, beside: bool = False
    ) -> Conversation[Outcome | None]:
        """What comes of it; None if the server does not let it be.

        RemoteStopped if it is full. NotPublished if what was made cannot be put in place: nor could
        what is sent.
        """
        beside = beside or parent(op.path) in self.places.mounted
        try:
            return (yield from make(beside))
        except NotPublished as error:
            if beside or not (yield from self.places.may_be_mounted(op.path, error)):
                raise
        except RequestError as error:
            if error.code == NO_COPIES:
                self._is_refused = True
            if error.code == "failure":
                yield from self.sender.raise_if_stopped(op.entry.size)
            return None
        outcome = yield from self._attempt(make, op, beside=True)
        if outcome is not None:
            self.places.mounted.add(parent(op.path))
        return outcome

    def _original(self, path: bytes, entry: Entry) -> Original:
        return Original(self.places.full(path), entry.size, self.places.mtime(entry))

    def _placement(
        self, op: Patch | Copy | Rename, stamp: bytes, *, wide: bool, beside: bool
    ) -> Conversation[Placement]:
        return self.places.placement(
            op.path,
            op.entry,
            "wide" if wide else "lanes",
            stamp=stamp,
            beside=beside,
        )
