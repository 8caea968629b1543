"""The rolling search: the same offsets as looking at every single one."""

from __future__ import annotations

import zlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.blocks import MAX_BLOCK, WEAK_BYTES, strong
from skynet.rolling import Finder
from tests.support.versions import noise, signed_plainly

STRETCH = Finder.stretch


def plainly(old: bytes, block: int, new: bytes, start: int, stop: int) -> list[int]:
    """The offsets by definition."""
    whole = range(0, len(old) - block + 1, block)
    length = min(block, WEAK_BYTES)
    weaks = {zlib.adler32(old[at : at + length]) for at in whole}
    return [at for at in range(start, stop) if zlib.adler32(new[at : at + length]) in weaks]


@given(st.data())
def test_offsets_are_those_of_equal_checksums(data: st.DataObject) -> None:
    block = data.draw(st.sampled_from([4, 16, 64]))
    alphabet = bytes(data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=4)))
    random = Random(data.draw(st.integers(0, 1000)))
    old = bytes(random.choices(alphabet, k=random.randrange(10 * block)))
    new = bytes(random.choices(alphabet, k=random.randrange(block, 10 * block)))
    new += old[random.randrange(len(old) + 1) :]
    start = random.randrange(len(new) - block + 1)
    stop = random.randrange(start, len(new) - block + 1) + 1
    finder = Finder(signed_plainly(old, block))
    expected = plainly(old, block, new, start, stop)
    assert finder.offsets(memoryview(new), start, stop) == expected


@pytest.mark.parametrize("filling", [b"\x00", b"\xff"])
def test_no_sum_overflows(filling: bytes) -> None:
    old = filling * MAX_BLOCK
    finder = Finder(signed_plainly(old, MAX_BLOCK))
    view = memoryview(b"\x7f" + filling * (MAX_BLOCK + STRETCH))
    assert finder.offsets(view, 0, STRETCH) == list(range(1, STRETCH))
    view = memoryview(noise(STRETCH) + old)
    assert finder.offsets(view, 1, STRETCH + 1) == [STRETCH]


def test_every_block_is_found_behind_a_full_filter() -> None:
    old = noise(1 << 22)
    finder = Finder(signed_plainly(old, 64))
    view = memoryview(b"abc" + old)
    found = finder.offsets(view, 0, STRETCH)
    assert {*range(3, STRETCH, 64)} <= {*found}
    assert len(found) < 2 * STRETCH // 64  # the others are accidents


def test_number_is_that_of_the_first_of_equal_blocks() -> None:
    old = b"".join([b"a" * 64, b"b" * 64, b"a" * 64, b"c" * 10])
    finder = Finder(signed_plainly(old, 64))
    contents = [b"a" * 64, b"b" * 64, b"c" * 64, b"c" * 10, b""]
    assert [finder.number(memoryview(c)) for c in contents] == [0, 1, None, None, None]


@pytest.mark.parametrize("old", [b"", b"short"])
def test_file_without_a_whole_block_has_nothing_to_find(old: bytes) -> None:
    finder = Finder(signed_plainly(old, 64))
    assert finder.offsets(memoryview(bytes(200)), 0, 100) == []
    assert finder.number(memoryview(old)) is None
    assert strong(old) == signed_plainly(old, 64).digest
