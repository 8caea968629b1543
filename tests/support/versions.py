"""Versions of a large file, for the rooms that find what differs between two of them."""

from __future__ import annotations

import zlib
from random import Random

import xxhash

from skynet.blocks import WEAK_BYTES, Signature, SignatureBuilder
from skynet.delta import Copy, Delta

MIB = 1 << 20


def noise(size: int, seed: int = 0) -> bytes:
    """Content in which no two blocks are equal, and none looks like one of another seed."""
    random = Random(seed)
    return b"".join(random.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))


def signed(content: bytes) -> Signature:
    """The signature of `content`, as a builder makes it."""
    builder = SignatureBuilder(len(content))
    builder.update(content)
    signature = builder.finish(xxhash.xxh3_128_digest(content))
    assert signature is not None
    return signature


def signed_plainly(content: bytes, block: int) -> Signature:
    """The signature of `content` by definition, for blocks of any size."""
    blocks = [content[at : at + block] for at in range(0, len(content), block)]
    weaks = b"".join(zlib.adler32(b[:WEAK_BYTES]).to_bytes(4, "big") for b in blocks)
    digests = b"".join(xxhash.xxh3_128_digest(b) for b in blocks)
    return Signature(len(content), block, xxhash.xxh3_128_digest(content), weaks, digests)


def assembled(delta: Delta, old: bytes, new: bytes) -> bytes:
    """What the ranges make of the two versions."""
    sources = [(old if isinstance(r, Copy) else new, r) for r in delta.ranges]
    return b"".join(content[r.offset : r.offset + r.length] for content, r in sources)
