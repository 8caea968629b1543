"""Sending files: whole, or the rest of one that broke off; and links."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from skynet.blocks import MAX_SIZE, PATCH_FROM, Signature, SignatureBuilder
from skynet.errors import LinkLost, NotPublished, RemoteStopped, RequestError
from skynet.ops import Upload
from skynet.remote.places import Places
from skynet.remote.verbs import OWN, TEMPS, Intent, Outcome, is_temp
from skynet.sftp import wire
from skynet.sftp.capabilities import Capabilities
from skynet.sftp.conversation import Conversation
from skynet.sftp.pieces import Mark, Source, Trail
from skynet.sftp.replies import PERMISSION_DENIED, STATUS_CODES, Extended, Space, parse_space
from skynet.sftp.resume import START_OVER, Begun
from skynet.sftp.upload import (
    NO_TEMPS,
    Breadth,
    Placement,
    Tracks,
    Uploaded,
    make_link,
    upload,
)
from skynet.sftp.wire import Attrs
from skynet.tree import LINK, Entry, join, parent

SPARE_BYTES = 1 << 20  # less free space than an upload and this is a full disk
WIDE_FROM = 8 << 20  # bytes to be sent: a file worth all channels
RESUME_FROM = 32 << 20  # bytes: a file that is worth going on with after a break

Opener = Callable[[], Source]
Sent = tuple[Uploaded, Signature | None]


class _Tracked(NamedTuple):
    """A large upload that has begun, into the temporary file of this own name."""

    temp: bytes
    size: int
    trail: Trail


@dataclass(slots=True)
class Sender:
    """Makes conversations that send files.

    acknowledged: told content bytes; resumed: told those that an earlier run had sent.
    makes_signatures: whether what is sent may be patched some day.
    """

    places: Places
    capabilities: Capabilities
    acknowledged: Callable[[int], None]
    resumed: Callable[[int], None]
    makes_signatures: bool = False
    _in_order: bool = False  # the server takes a file only from one writer, front to back
    _trails: dict[bytes, _Tracked] = field(default_factory=dict)  # of uploads not ended, by path

    def is_wide(self, size: int) -> bool:
        """Whether so many bytes are worth all channels."""
        return size >= WIDE_FROM and not self._in_order

    def unfinished(self) -> dict[bytes, Intent]:
        """How far large uploads have got that are under way, or were cut with the link."""
        found: dict[bytes, Intent] = {}
        for path, (temp, size, trail) in self._trails.copy().items():
            identity, mark = trail.reached()
            if mark.length:
                found[path] = Intent(identity, size, temp, mark.length, mark.digest)
        return found

    def raise_if_stopped(self, size: int) -> Conversation[None]:
        """RemoteStopped if the disk takes no file of `size`: a generic FAILURE often means that."""
        if not self.capabilities.statvfs:
            return
        (reply,) = yield [wire.statvfs(self.places.root)]
        if isinstance(reply, Extended):
            _expect_room(parse_space(reply.body), size)

    def upload(
        self, op: Upload, open_source: Opener | None, intent: Intent | None
    ) -> Conversation[Outcome]:
        """Send a file, or the rest of one; or make a link."""
        beside = intent is None and parent(op.path) in self.places.mounted
        breadth = self._breadth(op.entry.size)
        try:
            return (yield from self._upload_once(op, open_source, intent, breadth, beside=beside))
        except NotPublished as error:
            if beside or not (yield from self.places.may_be_mounted(op.path, error)):
                raise
        except RequestError as error:
            if error.code == "failure":
                yield from self.raise_if_stopped(op.entry.size)
            if not self.is_wide(op.entry.size):
                raise
            return (yield from self._upload_in_order(op, open_source, error))
        outcome = yield from self._upload_once(op, open_source, None, breadth, beside=True)
        self.places.mounted.add(parent(op.path))
        return outcome

    def _upload_in_order(
        self, op: Upload, open_source: Opener | None, refusal: RequestError
    ) -> Conversation[Outcome]:
        """Try again as an object store needs it: one writer, from front to back."""
        outcome = yield from self._upload_once(op, open_source, None, "in order", beside=False)
        # Where it was denied, that may be for this file only.
        self._in_order |= refusal.code != STATUS_CODES[PERMISSION_DENIED]
        return outcome

    def _upload_once(
        self,
        op: Upload,
        open_source: Opener | None,
        intent: Intent | None,
        breadth: Breadth,
        *,
        beside: bool,
    ) -> Conversation[Outcome]:
        stamp = self.places.stamp_for(op.replaces, foreign=op.foreign)
        place = yield from self.places.placement(
            op.path, op.entry, breadth, stamp=stamp, beside=beside
        )
        if op.entry.kind == LINK:
            yield from make_link(op.entry.link, place, self.capabilities)
            return Outcome(op, b"", None, trashed=stamp)
        assert open_source is not None
        sent = None
        if intent is not None:
            sent = yield from self._go_on(op, open_source, place, intent)
        if sent is None:
            sent = yield from self._send(op, open_source, place)
        uploaded, signature = sent
        entry = msgspec.structs.replace(op.entry, digest=uploaded.digest)
        done = msgspec.structs.replace(op, entry=entry)
        return Outcome(done, uploaded.identity, None, signature, stamp)

    def _send(self, op: Upload, open_source: Opener, place: Placement) -> Conversation[Sent]:
        """Send a whole file."""
        try:
            return (yield from self._upload_to(op, open_source, place))
        except RequestError as error:
            if error.code != NO_TEMPS:
                raise
            # Somebody has removed it since the manifest was written.
            missing = self.places.full(join(OWN, TEMPS)), place.temp.rpartition(b"/")[0]
            yield [wire.mkdir(directory, Attrs(mode=0o700)) for directory in missing]
            return (yield from self._upload_to(op, open_source, place))

    def _go_on(
        self, op: Upload, open_source: Opener, place: Placement, intent: Intent
    ) -> Conversation[Sent | None]:
        """Send the rest of a file; None, and its temporary file is gone, if that cannot be."""
        begun = Begun(intent.identity, Mark(intent.length, intent.digest))
        place = place._replace(temp=self.places.full(join(OWN, intent.temp)))
        try:
            return (yield from self._upload_to(op, open_source, place, begun))
        except RequestError as error:
            if error.code != START_OVER:
                raise
            return None

    def _upload_to(
        self,
        op: Upload,
        open_source: Opener,
        place: Placement,
        begun: Begun | None = None,
    ) -> Conversation[Sent]:
        """Upload, and let `unfinished` tell how far it is if that is worth it.

        What needs its file in order from one writer keeps nothing of one that broke off.
        """
        builder = self.builder(op.entry)
        tracks = Tracks(self.acknowledged, content=builder.update if builder else None)
        temp = self._temp_to_go_on_with(op.entry.size, place)
        if not temp:
            sent = yield from upload(open_source, place, self.capabilities, tracks, begun)
        else:
            tracked = _Tracked(temp, op.entry.size, Trail(self.resumed))
            self._trails[op.path] = tracked
            tracks = tracks._replace(trail=tracked.trail)
            sending = upload(open_source, place, self.capabilities, tracks, begun)
            sent = yield from self._until_ended(op.path, sending)
        return sent, builder.finish(sent.digest) if builder else None

    def _temp_to_go_on_with(self, size: int, place: Placement) -> bytes:
        """The own name of a temporary file that is worth going on with; b"" if it is not."""
        if size < RESUME_FROM or place.breadth != "wide":
            return b""
        temp = place.temp.removeprefix(self.places.full(OWN) + b"/")
        return temp if is_temp(temp) else b""

    def _until_ended(self, path: bytes, sending: Conversation[Uploaded]) -> Conversation[Uploaded]:
        """Let go of an upload's trail when it has ended, but not when it was cut."""
        try:
            sent = yield from sending
        except LinkLost:
            raise
        except Exception:
            del self._trails[path]
            raise
        del self._trails[path]
        return sent

    def builder(self, entry: Entry) -> SignatureBuilder | None:
        """What makes the signature of a file, fed with its content; None if none is needed."""
        if not (self.makes_signatures and PATCH_FROM <= entry.size <= MAX_SIZE):
            return None
        return SignatureBuilder(entry.size)

    def _breadth(self, size: int) -> Breadth:
        if self._in_order:
            return "in order"
        return "wide" if self.is_wide(size) else "lanes"


def _expect_room(space: Space, size: int) -> None:
    if space.is_read_only:
        raise RemoteStopped(
            "The remote disk is read-only now. What was there is untouched. Have it made writable "
            "(after a fault of the disk it has to be checked), then run skynet again.",
            "read-only",
        )
    if space.has_files and space.free >= size + SPARE_BYTES:
        return
    left = f"{space.free // 1024} KiB are free at the target"
    if not space.has_files:
        left = "its file system has as many files as it can hold (no inodes are free)"
    raise RemoteStopped(
        f"The remote disk is full: {left}. What was there is untouched. Make room, then run skynet "
        "again.",
        "disk-full",
    )
