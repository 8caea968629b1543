"""The remote manifest: what skynet knows the remote to hold, kept on the remote itself.

Two files under TARGET/.skynet: `manifest`, a checkpoint of the whole synced tree, and the log
that belongs to it, to which every acknowledged batch of edits is appended. Compaction writes a
new checkpoint and a new, empty log. At every moment `manifest` is a whole checkpoint and its log
is there, whatever breaks where; but a server that cannot replace a file in one step has none for a
moment, and to break off in it makes the next run a first contact. What breaks off while a
checkpoint is written may leave a log of none, which nobody reads.

Sizes are in bytes. The formats are in `manifest_codec` and `manifest_frames`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from skynet import manifest_codec as codec
from skynet.manifest_codec import MAX_ORIGIN, Head, Header
from skynet.manifest_frames import (
    CHAIN_SIZE,
    CHECKPOINT,
    ID_SIZE,
    LOG,
    PREAMBLE_SIZE,
    Framer,
    ManifestDamaged,
    Records,
    Source,
    read_preamble,
)
from skynet.remote.verbs import Facts
from skynet.tree import Edit, Entry

__all__ = [
    "MAX_ORIGIN",
    "Facts",
    "Files",
    "Head",
    "Header",
    "Loaded",
    "Manifest",
    "ManifestDamaged",
    "wants_compaction",
]

MANIFEST = b"manifest"
MIN_COMPACTION = 1 << 20
_PIECE = 1 << 18


class Files(Protocol):
    """The few verbs a manifest needs of a remote. Names are relative to TARGET/.skynet.

    All raise SkynetError kin when the remote fails. `read` and `replace` may be under way at
    the same time, since what is written can come from what is read.
    """

    def peek(self, wanted: Sequence[tuple[bytes, int, int]]) -> list[bytes | None]:
        """The bytes at each (name, offset, length): fewer at a file's end, None without a file.

        Two round trips, however many are wanted.
        """
        ...

    def read(self, name: bytes) -> Iterator[bytes] | None:
        """A whole file in chunks; None when there is no such file."""
        ...

    def replace(self, name: bytes, chunks: Iterable[bytes]) -> None:
        """Write a file beside `name`, and rename it to that when it is whole."""
        ...

    def expect_append(self, name: bytes) -> None:
        """An append is to come; the file may be opened meanwhile."""
        ...

    def append(self, name: bytes, offset: int, data: bytes) -> None:
        """Write at a file's end, which is at `offset`. It may stay open for the next append."""
        ...

    def remove(self, name: bytes) -> None:
        """Remove a file; it may be absent."""
        ...


class Loaded:
    """A manifest being read, in one pass and with bounded memory.

    Read `entries` (path, Entry), the checkpoint's tree in its order, to the end; then `edits`,
    which lead from it to the present tree; then `head` is there. Out of this order each raises
    RuntimeError. Both raise ManifestDamaged midway, so keep nothing of them before the end.
    """

    def __init__(self, files: Files, chunks: Iterable[bytes]) -> None:
        self._files = files
        self._records = Records(chunks, MANIFEST, CHECKPOINT)
        self._entries_done = False
        self._head: Head | None = None
        self.header = codec.read_header(self._records)
        self.entries: Iterator[tuple[bytes, Entry]] = self._read_entries()
        self.edits: Iterator[Edit] = self._read_edits()

    @property
    def head(self) -> Head:
        """Where the manifest stands."""
        if self._head is None:
            raise RuntimeError("read the entries, then the edits, to the end first")
        return self._head

    @property
    def torn(self) -> bool:
        """Whether an incomplete record was cut off the log: an append that broke off."""
        return self.head.torn

    def _read_entries(self) -> Iterator[tuple[bytes, Entry]]:
        yield from codec.read_entries(self._records)
        self._entries_done = True

    def _read_edits(self) -> Iterator[Edit]:
        if not self._entries_done:
            raise RuntimeError("read the entries to the end first")
        checkpoint, header = self._records.checkpoint, self.header
        log = _log_name(checkpoint)
        chunks = self._files.read(log)
        if chunks is None:
            raise ManifestDamaged(log, 0, "the file is missing")
        records = Records(chunks, log, LOG)
        if not codec.read_log_header(records, checkpoint, header.mirror_id):
            self._head = msgspec.structs.replace(self._fresh_head(), torn=True)
            return
        generation = header.generation
        for reached, edits in codec.read_deltas(records, generation):
            yield from edits
            generation = reached
        self._head = msgspec.structs.replace(
            self._fresh_head(),
            generation=generation,
            chain=records.chain,
            log_size=records.offset,
            torn=records.torn,
        )

    def _fresh_head(self) -> Head:
        read = self._records
        return _fresh_head(self.header, read.checkpoint, read.chain, read.offset)


class Manifest:
    """The manifest of one target. `token(n)` makes n random bytes."""

    def __init__(self, files: Files, token: Callable[[int], bytes] = os.urandom) -> None:
        self._files = files
        self._token = token

    def is_current(self, head: Head) -> bool:
        """Whether the remote's manifest still stands at `head`; one peek.

        Compares the last 16 bytes of both files, their chains, which stand for all before them,
        and asks for one byte more to see that nothing follows.
        """
        if head.torn:
            return False
        return self._files.peek(
            [
                (MANIFEST, head.checkpoint_size - CHAIN_SIZE, CHAIN_SIZE + 1),
                (_log_name(head.checkpoint), head.log_size - CHAIN_SIZE, CHAIN_SIZE + 1),
            ]
        ) == [head.seal, head.chain]

    def load(self) -> Loaded | None:
        """The manifest, to be read from there; None when there is none.

        Raises ManifestDamaged, and VersionError for the manifest of a newer skynet.
        """
        chunks = self._files.read(MANIFEST)
        return None if chunks is None else Loaded(self._files, chunks)

    def create(self, header: Header, entries: Iterable[tuple[bytes, Entry]]) -> Head:
        """Write a checkpoint of `entries` in place of whatever manifest is there, if any.

        `entries` are (path, Entry), those of a directory together. They may come from a Loaded.
        The present manifest stays whole and in force until the new one is.
        Raises VersionError when a newer skynet wrote the present one.
        """
        stale = self._present_log()
        checkpoint = self._token(ID_SIZE)
        writer = codec.CheckpointWriter(checkpoint, header)
        start, _ = codec.log_start(checkpoint, header.mirror_id)
        self._files.replace(_log_name(checkpoint), [start])
        self._files.replace(MANIFEST, writer.chunks(entries))
        if stale is not None:
            self._files.remove(stale)
        return _fresh_head(header, checkpoint, writer.seal, writer.size)

    def expect_append(self, head: Head) -> None:
        """An append to this log is to come: so much of it is done meanwhile as changes nothing."""
        if not head.torn:
            self._files.expect_append(_log_name(head.checkpoint))

    def append(self, head: Head, edits: Sequence[Edit]) -> Head:
        """Add one generation to the log, in one write; after an error, load again.

        Edits that a manifest cannot hold raise SkynetError, and nothing is written.
        """
        framer = Framer(head.chain, head.log_size)
        generation = head.generation + 1
        data = b"".join(framer.frame(*item) for item in codec.encode_deltas(generation, edits))
        log = _log_name(head.checkpoint)
        if head.torn:
            self._files.replace(log, self._mended(head, data))
        else:
            self._files.append(log, head.log_size, data)
        return msgspec.structs.replace(
            head, generation=generation, chain=framer.chain, log_size=framer.size, torn=False
        )

    def _mended(self, head: Head, data: bytes) -> Iterator[bytes]:
        """The log without its torn tail, of which `data` in place might leave a rest."""
        start, _ = codec.log_start(head.checkpoint, head.header.mirror_id)
        source = Source(self._files.read(_log_name(head.checkpoint)) or ())
        source.take(len(start))  # fewer when the tear is in here
        yield start
        missing = head.log_size - len(start)
        while missing:
            piece = source.take(min(missing, _PIECE))
            if not piece:
                log = _log_name(head.checkpoint)
                raise ManifestDamaged(log, head.log_size - missing, "the file has shrunk")
            missing -= len(piece)
            yield piece
        yield data

    def _present_log(self) -> bytes | None:
        """The name of the log that the present `manifest`, damaged or not, claims as its own."""
        found = self._files.peek([(MANIFEST, 0, PREAMBLE_SIZE)])[0]
        if found is None:
            return None
        try:
            return _log_name(read_preamble(found, MANIFEST, CHECKPOINT))
        except ManifestDamaged:
            return None  # to be replaced for that very reason; its log cannot be known


def wants_compaction(head: Head) -> bool:
    """Whether the log has outgrown the checkpoint, and 1 MiB."""
    return head.log_size > max(head.checkpoint_size, MIN_COMPACTION)


def _log_name(checkpoint: bytes) -> bytes:
    return b"log-" + checkpoint[:8].hex().encode()


def _fresh_head(header: Header, checkpoint: bytes, seal: bytes, size: int) -> Head:
    """The head right behind a checkpoint: its log holds no delta yet."""
    _, framer = codec.log_start(checkpoint, header.mirror_id)
    return Head(
        header=header,
        checkpoint=checkpoint,
        seal=seal,
        checkpoint_size=size,
        generation=header.generation,
        chain=framer.chain,
        log_size=framer.size,
    )
