"""What is sent is cut into pieces that fill SSH packets, whatever it is put together from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from skynet.sftp.stream import SEND_SLICE, slices

PACKET = 32 * 1024 - 64  # bytes that paramiko puts into one, of the 32 KiB that OpenSSH takes
WRITE = 255 * 1024
HEAD = 30


def packets(length: int) -> int:
    return -(-length // PACKET)


@given(st.lists(st.integers(0, 3 * SEND_SLICE), max_size=8))
def test_all_of_it_is_sent_in_order(lengths: list[int]) -> None:
    chunks: list[bytes | memoryview] = [
        bytes([number]) * length for number, length in enumerate(lengths)
    ]
    whole = b"".join(chunks)
    found = list(slices(chunks))
    assert b"".join(found) == whole
    assert not chunks
    assert all(0 < len(piece) <= SEND_SLICE for piece in found)


def test_small_requests_go_together() -> None:
    assert len(list(slices([bytes(HEAD)] * 1000))) == 1


def test_a_write_takes_no_more_packets_than_it_fills() -> None:
    found = list(slices([bytes(HEAD), bytes(WRITE)] * 10))
    assert sum(packets(len(piece)) for piece in found) == 10 * packets(HEAD + WRITE)
