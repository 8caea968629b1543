"""What the remote is known to hold: the manifest there, and the index here that caches it.

Nothing is written until `begin`, with the lease held; then `record` says what was acknowledged,
on the remote first, so the manifest never claims more than the remote holds.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from skynet.errors import OwnedError
from skynet.index import Index
from skynet.manifest import MAX_ORIGIN, Head, Header, Manifest, ManifestDamaged, wants_compaction
from skynet.monitor import Monitor, Notice
from skynet.remote import Remote
from skynet.target import printable
from skynet.tree import Edit, Entry

BEAT_ENTRIES = 1024  # of a checkpoint being written: some 50 KiB


class Ledger:
    """The synced tree of one mirror. origin: who mirrors what, for people. token(n): random bytes.

    owner: the origin of another mirror whose manifest this is, made printable; "" if it is ours.
    may_delete: no doubt about the manifest forbids it. wants_audit: it cannot be relied on without
    one. A `beat` shows that we are alive and raises OwnedError if the lease was lost.
    """

    def __init__(
        self,
        remote: Remote,
        index: Index,
        origin: str,
        token: Callable[[int], bytes],
        monitor: Monitor,
    ) -> None:
        self.index = index
        self.owner = ""
        self.may_delete = True
        self.wants_audit = False
        self._remote = remote
        self._origin = origin
        self._token = token
        self._monitor = monitor
        self._manifest = Manifest(remote, token)
        self._head: Head | None = None
        self._is_damaged = False

    def is_current(self) -> bool:
        """Whether the index still says what the manifest does: two round trips."""
        cached = self.index.head
        if cached is None or not self._manifest.is_current(cached):
            return False
        self._check_age(cached, self.index.reached)
        self._adopt(cached)
        return True

    def load(self, *, target_exists: bool, in_memory: bool) -> None:
        """Read the manifest into the index; `in_memory` leaves the one on disk as it is."""
        before = self.index.reached or self.index.head
        self._head = None
        if in_memory:
            self.index = Index.open(None)
        # On the disk, so that a run which breaks off leaves the next one what to compare with.
        self.index.reached = before
        try:
            loaded = self._manifest.load() if target_exists else None
            if loaded is None:
                self.index.rebuild((), ())
                self.wants_audit = target_exists  # first contact
                return
            self.index.rebuild(loaded.entries, loaded.edits)
        except ManifestDamaged as error:
            self._distrust(error)
            return
        self._check_owner(loaded.head, before)
        self._check_age(loaded.head, before)
        if not self.owner:  # else a held plan would make the next run take the mirror for ours
            self.index.record((), loaded.head, {})
        self._adopt(loaded.head)

    def expect_unmoved(self) -> None:
        """With the lease held: OwnedError unless the manifest is still the one that was read."""
        if not self._is_unmoved():
            raise OwnedError(
                "Another skynet has changed the remote since this run looked at it. "
                "Nothing was done; run skynet again.",
                "manifest-moved",
            )

    @property
    def head(self) -> Head | None:
        """Where the manifest stands, ours or another's; None if there is none to use."""
        return self._head

    @property
    def is_new(self) -> bool:
        """Whether there is no manifest yet, or another mirror's: `begin` writes ours."""
        return self._head is None or bool(self.owner)

    def expect_record(self) -> None:
        """With the lease held: something will soon be recorded. Nothing is waited for."""
        if self._head is not None and not self.owner:
            self._manifest.expect_append(self._head)

    def begin(self, beat: Callable[[], None]) -> None:
        """Make the manifest ours, with the remote's facts, if there is none or it is another's."""
        if self.is_new:
            facts = self._remote.facts
            generation = self._head.generation if self._head is not None else 0
            self._write(Header(self._token(16), generation, self._origin, facts), beat)
            self.owner, self._is_damaged = "", False
            self.expect_record()

    def record(self, edits: Sequence[Edit], identities: Mapping[bytes, bytes]) -> None:
        """Note what the remote has acknowledged, and the identities of the files it came from."""
        assert self._head is not None
        self._head = self._manifest.append(self._head, edits)
        self.index.record(edits, self._head, identities)

    def end_doubts(self) -> None:
        """A cycle has ended well: what it doubted does not concern the next one."""
        self.may_delete, self.wants_audit = True, False
        if self.index.reached is not None:
            self.index.reached = None

    def compact(self, beat: Callable[[], None]) -> None:
        """Write a new checkpoint, if the log has outgrown the present one."""
        if self._head is not None and wants_compaction(self._head):
            generation = self._head.generation
            self._write(msgspec.structs.replace(self._head.header, generation=generation), beat)

    def _write(self, header: Header, beat: Callable[[], None]) -> None:
        self._head = self._manifest.create(header, _beating(self.index.entries(), beat))
        self.index.record((), self._head, {})

    def _adopt(self, head: Head) -> None:
        self._head = head
        self._remote.facts = head.header.facts

    def _distrust(self, error: ManifestDamaged) -> None:
        self.index.rebuild((), ())
        self._is_damaged = self.wants_audit = True
        self.may_delete = False
        self._monitor(
            Notice(
                "manifest-damaged",
                f"{error} It is made anew from what is on the remote; "
                "nothing is deleted in this run.",
            )
        )

    def _check_owner(self, head: Head, before: Head | None) -> None:
        ours = before.header.mirror_id if before is not None else None
        if head.header.mirror_id != ours and head.header.origin != self._origin:
            self.owner = printable(head.header.origin)

    def _check_age(self, head: Head, before: Head | None) -> None:
        """Doubt an older manifest of ours that came back, from a backup perhaps."""
        if not self.owner and before is not None and head.generation < before.generation:
            self.wants_audit, self.may_delete = True, False

    def _is_unmoved(self) -> bool:
        if self._head is not None and not self._head.torn:
            return self._manifest.is_current(self._head)
        try:  # it was no whole one: only reading it tells
            return self._read_head() == self._head
        except ManifestDamaged:
            return self._is_damaged

    def _read_head(self) -> Head | None:
        loaded = self._manifest.load()
        if loaded is None:
            return None
        for part in (loaded.entries, loaded.edits):
            deque(part, maxlen=0)
        return loaded.head


def origin_of(host: str, source: bytes) -> str:
    """Who mirrors what, for people; cut to what a manifest holds, and still one's own."""
    text = f"{host}:{source.decode('utf-8', 'backslashreplace')}"
    if len(text) <= MAX_ORIGIN:
        return text
    mark = hashlib.blake2b(source, digest_size=10).hexdigest()
    return f"{text[: MAX_ORIGIN - len(mark) - 3]}...{mark}"


def _beating(
    entries: Iterable[tuple[bytes, Entry]], beat: Callable[[], None]
) -> Iterator[tuple[bytes, Entry]]:
    """The same entries. The last beat comes before the manifest that they make is in force."""
    for number, item in enumerate(entries, 1):
        yield item
        if number % BEAT_ENTRIES == 0:
            beat()
    beat()
