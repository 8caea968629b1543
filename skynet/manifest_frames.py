"""The manifest's framing: preambles and chained, bounded records, payloads unseen. No I/O.

Two kinds of file, a checkpoint and its log, are cut the same way: a preamble, then records.

    preamble   8 magic | 4 version | 16 checkpoint id | 4 check of the 28 bytes before
    record     4 payload length | 1 tag | 4 guard of length and tag | payload | 16 chain

The chain of a record covers the chain before it, its tag and its payload, so no record can be
changed, left out, repeated or put elsewhere. The guard covers the length by itself: else a
damaged length that points past the end of a log would look like a torn tail.
Numbers are big-endian, checks are BLAKE2b of the size named; skynet/README.md has the details.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b

from skynet.errors import SkynetError, VersionError

VERSION = 1
CHECKPOINT = b"SKYNET-M"
LOG = b"SKYNET-L"
ID_SIZE = 16
CHAIN_SIZE = 16

MAX_FILE = 1 << 34  # bytes of a checkpoint or a log
MAX_RECORD = 1 << 22  # bytes of a payload

_PREAMBLE = struct.Struct(">8sI16s4s")
_FRAME = struct.Struct(">IB4s")
PREAMBLE_SIZE = _PREAMBLE.size


class ManifestDamaged(SkynetError):
    """A file of the manifest is not what some skynet wrote; `offset` is in bytes."""

    code = "manifest-damaged"

    def __init__(self, file: bytes, offset: int, reason: str) -> None:
        self.file, self.offset, self.reason = file, offset, reason
        super().__init__(
            f"The manifest on the remote is damaged: .skynet/{file.decode('ascii', 'replace')}, "
            f"byte {offset}: {reason}."
        )


def preamble(magic: bytes, checkpoint: bytes) -> bytes:
    """The first bytes of a file."""
    data = _PREAMBLE.pack(magic, VERSION, checkpoint, b"")
    return data[:-4] + _check(data[:-4])


def read_preamble(data: bytes, file: bytes, magic: bytes) -> bytes:
    """The checkpoint id in a preamble; its layout is the same in all versions."""
    if len(data) != PREAMBLE_SIZE:
        raise ManifestDamaged(file, len(data), "the file ends too early")
    found, version, checkpoint, check = _PREAMBLE.unpack(data)
    if found != magic or check != _check(data[:-4]) or version < 1:
        raise ManifestDamaged(file, 0, "this is not the beginning of such a file")
    if version > VERSION:
        raise VersionError(
            f"A newer skynet wrote .skynet/{file.decode()} on the remote (format {version}; "
            f"this one reads up to {VERSION}). Update skynet here; nothing was touched there."
        )
    assert isinstance(checkpoint, bytes)
    return checkpoint


class Framer:
    """Frames records one behind the other; `chain` and `size` stand behind the last one."""

    def __init__(self, chain: bytes, size: int) -> None:
        self.chain = chain
        self.size = size

    @classmethod
    def behind(cls, preamble: bytes) -> Framer:
        """The framer for the first record of a file."""
        return cls(_first_chain(preamble), len(preamble))

    def frame(self, tag: int, payload: bytes) -> bytes:
        """The bytes of the next record."""
        guard = _guard(self.chain, len(payload), tag)
        self.chain = _next_chain(self.chain, tag, payload)
        data = _FRAME.pack(len(payload), tag, guard) + payload + self.chain
        self.size += len(data)
        return data


class Source:
    """Exact lengths out of chunks of any length."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = bytearray()

    def take(self, length: int) -> bytes:
        """The next `length` bytes; fewer at the end only."""
        while len(self._rest) < length:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        taken = bytes(self._rest[:length])
        del self._rest[:length]
        return taken


class Records:
    """The records (tag, payload) of one file, each checked before it is handed out.

    `offset` and `chain` stand behind the last record handed out, `torn` says whether the file
    ended inside the next. `checkpoint` is the id in the preamble, b"" when that was torn.
    Raises ManifestDamaged, and VersionError for a newer format.
    """

    def __init__(self, chunks: Iterable[bytes], file: bytes, magic: bytes) -> None:
        self._file = file
        self._source = Source(chunks)
        self.offset = 0
        self.chain = self.checkpoint = b""
        preamble = self._source.take(PREAMBLE_SIZE)
        self.torn = len(preamble) < PREAMBLE_SIZE
        if not self.torn:
            self.checkpoint = read_preamble(preamble, file, magic)
            self.chain = _first_chain(preamble)
            self.offset = PREAMBLE_SIZE

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while not self.torn and (record := self._next()) is not None:
            yield record

    def damaged(self, reason: str) -> ManifestDamaged:
        """The error for what is wrong at, or right before, `offset`."""
        return ManifestDamaged(self._file, self.offset, reason)

    def _next(self) -> tuple[int, bytes] | None:
        frame = self._source.take(_FRAME.size)
        self.torn = 0 < len(frame) < _FRAME.size
        if len(frame) < _FRAME.size:
            return None
        length, tag, guard = _FRAME.unpack(frame)
        if guard != _guard(self.chain, length, tag):
            raise self.damaged("the frame of a record is wrong")
        if length > MAX_RECORD or self.offset > MAX_FILE:
            raise self.damaged("a record or the file is too large")
        return self._checked(tag, length)

    def _checked(self, tag: int, length: int) -> tuple[int, bytes] | None:
        body = self._source.take(length + CHAIN_SIZE)
        if len(body) < length + CHAIN_SIZE:
            self.torn = True
            return None
        payload = body[:length]
        chain = _next_chain(self.chain, tag, payload)
        if chain != body[length:]:
            raise self.damaged("a record is wrong or out of its place")
        self.chain = chain
        self.offset += _FRAME.size + len(body)
        return tag, payload


def _check(data: bytes) -> bytes:
    return blake2b(data, digest_size=4).digest()


def _first_chain(preamble: bytes) -> bytes:
    return blake2b(preamble, digest_size=CHAIN_SIZE).digest()


def _guard(chain: bytes, length: int, tag: int) -> bytes:
    return _check(chain + length.to_bytes(4, "big") + bytes([tag]))


def _next_chain(chain: bytes, tag: int, payload: bytes) -> bytes:
    digest = blake2b(chain + bytes([tag]), digest_size=CHAIN_SIZE)
    digest.update(payload)
    return digest.digest()
