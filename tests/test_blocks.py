"""Signatures: what the builder makes, their bytes, and what is not believed."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from skynet.blocks import (
    MAX_BLOCK,
    MAX_BLOCKS,
    MAX_ENCODED,
    MAX_SIZE,
    MIN_BLOCK,
    Signature,
    SignatureBuilder,
    block_size,
    decode,
)
from tests.support.versions import noise, signed, signed_plainly

GIB = 1 << 30
DIGEST = bytes(range(16))


@given(st.integers(0, MAX_SIZE))
def test_block_size_is_a_power_of_two_that_gives_few_blocks(size: int) -> None:
    block = block_size(size)
    assert MIN_BLOCK <= block <= MAX_BLOCK
    assert block.bit_count() == 1
    assert -(-size // block) <= MAX_BLOCKS
    assert block == MIN_BLOCK or size / (block // 2) > MAX_BLOCKS / 4  # it could not be smaller


def test_block_size_of_well_known_sizes() -> None:
    known = [block_size(size) for size in (0, 1, 256 << 20, (256 << 20) + 1, GIB, MAX_SIZE)]
    assert known == [4096, 4096, 8192, 16384, 32768, MAX_BLOCK]


@given(
    st.integers(0, 5 * MIN_BLOCK),
    st.lists(st.integers(0, 3 * MIN_BLOCK), max_size=8),
)
def test_builder_makes_the_signature_whatever_the_pieces(size: int, pieces: list[int]) -> None:
    content = noise(size)
    builder = SignatureBuilder(size)
    at = 0
    for length in [*pieces, size]:
        builder.update(content[at : at + length])
        at += length
    assert builder.finish(xxhash.xxh3_128_digest(content)) == signed_plainly(content, MIN_BLOCK)


def test_builder_takes_larger_blocks_for_larger_files() -> None:
    piece = noise(1 << 20)
    builder = SignatureBuilder(129 << 20)
    for _ in range(129):
        builder.update(piece)
    signature, one = builder.finish(DIGEST), signed_plainly(piece, 2 * MIN_BLOCK)
    assert signature is not None
    assert signature.block == 2 * MIN_BLOCK
    assert signature.digest == DIGEST
    assert (signature.weaks, signature.digests) == (129 * one.weaks, 129 * one.digests)


@pytest.mark.parametrize("difference", [-1, 1, 10_000])
def test_file_of_another_size_than_told_has_no_signature(difference: int) -> None:
    builder = SignatureBuilder(20_000)
    builder.update(bytes(15_000))
    builder.update(bytes(5_000 + difference))
    assert builder.finish(DIGEST) is None


def test_builder_does_no_work_for_what_is_beyond_the_size() -> None:
    builder, piece = SignatureBuilder(5), bytes(1 << 20)
    tracemalloc.start()
    try:
        for _ in range(100):
            builder.update(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert builder.finish(DIGEST) is None
    assert peak < 10_000


@pytest.mark.parametrize("size", [-1, MAX_SIZE + 1])
def test_there_are_sizes_without_signatures(size: int) -> None:
    with pytest.raises(ValueError, match="no signature"):
        SignatureBuilder(size)
    SignatureBuilder(MAX_SIZE)


def test_blocks_of_a_signature() -> None:
    content = noise(2 * MIN_BLOCK + 5)
    signature = signed(content)
    assert signature.count == 3
    assert [signature.length(number) for number in range(5)] == [MIN_BLOCK, MIN_BLOCK, 5, 0, 0]
    assert signature.block_digest(2) == xxhash.xxh3_128_digest(content[-5:])
    assert signed(b"").count == 0


@given(st.integers(0, 3 * MIN_BLOCK))
def test_bytes_of_a_signature_give_it_back(size: int) -> None:
    signature = signed(noise(size))
    assert decode(signature.encode()) == signature


def test_bytes_of_a_signature_are_as_described() -> None:
    content = bytes(MIN_BLOCK) + b"x"
    blocks = [content[:MIN_BLOCK], b"x"]
    # Adler-32 of the first 256 bytes: of n zero bytes it is n << 16 | 1, that of b"x" is 0x790079.
    body = (
        b"SKYNET-B" + bytes.fromhex("00000001 00001000 0000000000001001")
        + xxhash.xxh3_128_digest(content)
        + bytes.fromhex("01000001 00790079")
        + b"".join(xxhash.xxh3_128_digest(block) for block in blocks)
    )  # fmt: skip
    assert signed(content).encode() == body + xxhash.xxh3_128_digest(body)


def test_largest_signature_has_the_largest_number_of_bytes() -> None:
    largest = Signature(MAX_SIZE, MAX_BLOCK, bytes(16), bytes(4 * MAX_BLOCKS), bytes(1 << 21))
    encoded = largest.encode()
    assert len(encoded) == MAX_ENCODED
    assert decode(encoded) == largest


ENCODED = signed(noise(MIN_BLOCK + 1)).encode()


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
def test_changed_byte_is_noticed(at: int, change: int) -> None:
    changed = bytearray(ENCODED)
    changed[at] ^= change
    assert decode(bytes(changed)) is None


def test_signature_of_any_other_length_is_damaged() -> None:
    assert all(decode(ENCODED[:length]) is None for length in range(len(ENCODED)))
    assert decode(ENCODED + b"\0") is None
    assert decode(bytes(MAX_ENCODED + 1)) is None


@given(st.binary(max_size=200))
def test_anything_else_is_no_signature(data: bytes) -> None:
    assert decode(data) is None


HEADER = struct.Struct(">8sIIQ16s")


@pytest.mark.parametrize(
    ("magic", "version", "block", "size", "blocks"),
    [
        (b"SKYNET-L", 1, 4096, 1, 1),
        (b"SKYNET-B", 0, 4096, 1, 1),
        (b"SKYNET-B", 2, 4096, 1, 1),
        (b"SKYNET-B", 1, 0, 1, 1),
        (b"SKYNET-B", 1, 1, 1, 1),
        (b"SKYNET-B", 1, 4097, 1, 1),
        (b"SKYNET-B", 1, 2 * MAX_BLOCK, 1, 1),
        (b"SKYNET-B", 1, 4096, 4097, 1),
        (b"SKYNET-B", 1, 4096, 1, 2),
        (b"SKYNET-B", 1, 4096, 0, 1),
        (b"SKYNET-B", 1, 4096, 2**64 - 1, 1),
        (b"SKYNET-B", 1, MAX_BLOCK, MAX_SIZE + 1, 1),
    ],
)
def test_hostile_signature_with_a_right_check_is_refused(
    magic: bytes, version: int, block: int, size: int, blocks: int
) -> None:
    body = HEADER.pack(magic, version, block, size, bytes(16)) + bytes(20 * blocks)
    assert decode(body + xxhash.xxh3_128_digest(body)) is None


def test_header_of_the_hostile_ones_is_right_but_for_what_is_wrong() -> None:
    body = HEADER.pack(b"SKYNET-B", 1, 4096, 1, bytes(16)) + bytes(20)
    assert decode(body + xxhash.xxh3_128_digest(body)) is not None
