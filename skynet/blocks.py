"""Signatures: what is kept here of a version of a file that the remote holds, block by block.

With it a later version can be compared with bytes that are not here any more (see delta.py). A
signature is a hint: one that is lost or damaged costs a whole upload, nothing else.

    header     8 magic | 4 version | 4 block size | 8 file size | 16 xxh3-128 of the file
    blocks     4 Adler-32 of the first 256 bytes of each | 16 xxh3-128 of each
    check      16 xxh3-128 of all before

Numbers are big-endian. The last block of a file may be shorter, and counts like the others.

Nothing compares the bytes behind two equal digests, so a false match would publish a wrong file.
With 128 bits even a version of which all of 131,072 blocks are new, each compared with all the
old ones, meets one by accident with a probability of 2**-94. It is a match made on purpose that
xxh3 does not keep out, here as little as in the digests of whole files.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import xxhash

PATCH_FROM = 1 << 20  # bytes: of a smaller file no signature is kept, it is always sent whole
MIN_BLOCK = 1 << 12
MAX_BLOCK = 1 << 22
MAX_BLOCKS = 1 << 17
MAX_SIZE = MAX_BLOCK * MAX_BLOCKS  # bytes of a file: 512 GiB

# So much of a block is enough to find it; the checksum of all of it would cost an upload more than
# everything else that is done with its content.
WEAK_BYTES = 256
WEAK = 4  # bytes of an Adler-32
STRONG = 16  # bytes of an xxh3-128

_MAGIC = b"SKYNET-B"
_VERSION = 1
_HEADER = struct.Struct(f">8sIIQ{STRONG}s")
MAX_ENCODED = _HEADER.size + MAX_BLOCKS * (WEAK + STRONG) + STRONG  # bytes

_USUAL_BLOCKS = 1 << 15  # blocks are as small as gives no more of them, 32 KiB for 1 GiB
_NO_WEAK = zlib.adler32(b"")


@dataclass(frozen=True, slots=True)
class Signature:
    """One version of a file: `size` in bytes, xxh3-128 `digest`; `block` is bytes per block.

    weaks and digests hold WEAK and STRONG bytes for each block, one block behind the other.
    """

    size: int
    block: int
    digest: bytes
    weaks: bytes
    digests: bytes

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len(self.digests) // STRONG

    def length(self, number: int) -> int:
        """Bytes of block `number`, counted from 0; none behind the last one."""
        return max(min(self.block, self.size - number * self.block), 0)

    def block_digest(self, number: int) -> bytes:
        """xxh3-128 of block `number`."""
        return self.digests[number * STRONG : (number + 1) * STRONG]

    def encode(self) -> bytes:
        """The signature as bytes, at most MAX_ENCODED; see the module's text."""
        header = _HEADER.pack(_MAGIC, _VERSION, self.block, self.size, self.digest)
        body = header + self.weaks + self.digests
        return body + strong(body)


def decode(data: bytes) -> Signature | None:
    """The signature that `encode` made these bytes of; None if it did not, or a newer skynet did.

    Whoever reads `data` from outside reads no more than MAX_ENCODED bytes.
    """
    if not _HEADER.size + STRONG <= len(data) <= MAX_ENCODED:
        return None
    magic, version, block, size, digest = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION or not _is_block_size(block):
        return None
    count = _blocks(size, block)
    if len(data) != _HEADER.size + count * (WEAK + STRONG) + STRONG:
        return None
    if strong(data[:-STRONG]) != data[-STRONG:]:
        return None
    middle = _HEADER.size + count * WEAK
    return Signature(size, block, digest, data[_HEADER.size : middle], data[middle:-STRONG])


def block_size(size: int) -> int:
    """Bytes per block for a file of `size` bytes: a power of two."""
    block = MIN_BLOCK
    while block < MAX_BLOCK and _blocks(size, block) > _USUAL_BLOCKS:
        block *= 2
    return block


def strong(data: bytes | memoryview) -> bytes:
    """xxh3-128, by which blocks are told apart."""
    return xxhash.xxh3_128_digest(data)


class SignatureBuilder:
    """Makes the signature of a file of `size` bytes out of its content, fed front to back.

    ValueError if `size` is more than MAX_SIZE. Memory is bounded by `size`, whatever is fed.
    """

    def __init__(self, size: int) -> None:
        if not 0 <= size <= MAX_SIZE:
            raise ValueError(f"A file of {size} bytes has no signature.")
        self._size = size
        self._block = block_size(size)
        self._fed = 0
        self._weak = _NO_WEAK
        self._strong = xxhash.xxh3_128()
        self._room = self._block  # bytes until the block at work is full
        self._weaks = bytearray()
        self._digests = bytearray()

    def update(self, data: bytes) -> None:
        """Take the next bytes, any number of them."""
        self._fed += len(data)
        if self._fed > self._size:
            return  # the file has grown: there will be no signature
        rest = memoryview(data)
        while rest:
            part, rest = rest[: self._room], rest[self._room :]
            missing = WEAK_BYTES - self._block + self._room
            if missing > 0:
                self._weak = zlib.adler32(part[:missing], self._weak)
            self._strong.update(part)
            self._room -= len(part)
            if not self._room:
                self._end_block()

    def finish(self, digest: bytes) -> Signature | None:
        """The signature; None if what was fed is not `size` bytes long. To be called once.

        digest: xxh3-128 of all that was fed, which whoever feeds it has anyway.
        """
        if self._fed != self._size:
            return None
        if self._room < self._block:
            self._end_block()
        return Signature(self._size, self._block, digest, bytes(self._weaks), bytes(self._digests))

    def _end_block(self) -> None:
        self._weaks += self._weak.to_bytes(WEAK, "big")
        self._digests += self._strong.digest()
        self._weak = _NO_WEAK
        self._strong.reset()
        self._room = self._block


def _is_block_size(block: int) -> bool:
    return MIN_BLOCK <= block <= MAX_BLOCK and block & (block - 1) == 0


def _blocks(size: int, block: int) -> int:
    return -(-size // block)
