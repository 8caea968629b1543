"""Deltas: they make the new version exactly, and what is sent is little more than what changed."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from random import Random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from skynet.blocks import MIN_BLOCK, block_size
from skynet.delta import (
    MIN_COPY,
    PROBES,
    SEARCH_BUDGET,
    Copy,
    Data,
    Delta,
    compare,
)
from skynet.rolling import Finder
from tests.support.versions import MIB, assembled, noise, signed, signed_plainly

BLOCK = MIN_BLOCK
FRESH = 1_000_000  # seeds from here on are of content that no other version has


class Pieces:
    """A source that gives what it likes: one byte at least, `limit` at most."""

    def __init__(self, content: bytes, random: Random) -> None:
        self._content = io.BytesIO(content)
        self._random = random

    def read(self, limit: int) -> bytes:
        return self._content.read(self._random.choice([1, 1000, 10 * BLOCK, limit]))


def checked(old: bytes, new: bytes, *, block: int = BLOCK, **options: int) -> Delta:
    """The delta, for which every law is asserted."""
    delta = compare(signed_plainly(old, block), io.BytesIO(new), **options)
    check(delta, old, new)
    return delta


def check(delta: Delta, old: bytes, new: bytes) -> None:
    assert assembled(delta, old, new) == new
    assert (delta.size, delta.digest) == (len(new), xxhash.xxh3_128_digest(new))
    assert delta.sent + delta.copied == len(new)
    offset = 0
    for part in delta.ranges:
        assert part.length > 0
        if isinstance(part, Copy):
            assert part.length >= MIN_COPY
            assert part.offset + part.length <= len(old)
        else:
            assert part.offset == offset
        offset += part.length
    for one, other in zip(delta.ranges, delta.ranges[1:], strict=False):
        assert type(one) is not type(other) or one.offset + one.length != other.offset


# (kind, where, length, other place): places are in 1/1000 of the file.
Edit = tuple[str, int, int, int]


def edits(*kinds: str) -> st.SearchStrategy[list[Edit]]:
    place = st.integers(0, 1000)
    length = st.one_of(st.integers(0, 100), st.integers(0, 20 * BLOCK))
    return st.lists(st.tuples(st.sampled_from(kinds), place, length, place), max_size=5)


def edited(content: bytes, script: list[Edit]) -> tuple[bytes, int, int]:
    """(new content, fresh bytes in it at most, seams at most).

    At each seam less than a block on both sides cannot be matched.
    """
    fresh = seams = 0
    for i, (kind, place, length, other) in enumerate(script):
        at = len(content) * place // 1000
        piece = content[at : at + length]
        if kind == "insert":
            content = content[:at] + noise(length, FRESH + i) + content[at:]
        elif kind == "overwrite":
            content = content[:at] + noise(len(piece), FRESH + i) + content[at + length :]
        elif kind == "remove":
            content = content[:at] + content[at + length :]
        elif kind == "truncate":
            content = content[:at]
        else:
            if kind == "move":
                content = content[:at] + content[at + length :]
            to = len(content) * other // 1000
            content = content[:to] + piece + content[to:]
        fresh += length if kind in {"insert", "overwrite"} else 0
        seams += 3 if kind == "move" else 1
    return content, fresh, seams


@given(
    st.integers(0, 100 * BLOCK),
    edits("insert", "overwrite", "remove", "truncate", "move"),
    st.integers(0, 1000),
)
def test_little_more_than_what_changed_is_sent(size: int, script: list[Edit], seed: int) -> None:
    old = noise(size)
    new, fresh, seams = edited(old, script)
    delta = compare(signed(old), Pieces(new, Random(seed)))
    check(delta, old, new)
    # The last block, if it is shorter, is found only where it is expected.
    assert delta.sent <= fresh + 2 * BLOCK * seams + BLOCK


@given(st.data())
def test_new_version_comes_out_whatever_repeats_and_however_little_is_searched(
    data: st.DataObject,
) -> None:
    seeds = st.lists(st.integers(0, 3), max_size=30)
    length = data.draw(st.sampled_from([1, 1000, BLOCK - 1, BLOCK, 3 * BLOCK + 7]))
    old = b"".join(noise(length, seed) if seed else bytes(length) for seed in data.draw(seeds))
    script = data.draw(edits("insert", "overwrite", "remove", "truncate", "move", "duplicate"))
    new, _, _ = edited(old, script)
    budget = data.draw(st.sampled_from([0, 10 * BLOCK, SEARCH_BUDGET]))
    max_ranges = data.draw(st.integers(1, 20))
    delta = compare(signed(old), io.BytesIO(new), budget=budget, max_ranges=max_ranges)
    check(delta, old, new)
    assert len(delta.ranges) <= max_ranges


SMALL = [b"", b"x", noise(BLOCK - 1), noise(BLOCK), noise(BLOCK + 1), noise(3 * BLOCK), bytes(9999)]


@pytest.mark.parametrize("old", SMALL, ids=len)
@pytest.mark.parametrize("new", SMALL, ids=len)
def test_small_files(old: bytes, new: bytes) -> None:
    delta = checked(old, new)
    if old == new and len(old) % BLOCK in {0, MIN_COPY}:
        assert delta.sent == 0


def test_unchanged_file_is_one_copy() -> None:
    old = noise(MIB + 5)
    assert checked(old, old).ranges == (Copy(0, len(old)),)


def test_last_short_block_is_found_where_it_is_expected() -> None:
    old = noise(10 * BLOCK + 5)
    assert checked(old, old + b"more").ranges == (Copy(0, len(old)), Data(len(old), 4))
    edited_before = old[: 9 * BLOCK] + bytes(BLOCK) + old[10 * BLOCK :]
    assert checked(old, edited_before).sent == BLOCK + 5  # a copy of 5 bytes is not worth it
    long_tail = noise(11 * BLOCK + 9)
    grown = signed_plainly(long_tail, 2 * BLOCK)
    delta = compare(grown, io.BytesIO(b"abc" + long_tail))
    assert delta.ranges == (Data(0, 3), Copy(0, len(long_tail)))
    edited_before = long_tail[: 9 * BLOCK] + bytes(BLOCK) + long_tail[10 * BLOCK :]
    assert compare(grown, io.BytesIO(edited_before)).sent == 2 * BLOCK


def test_last_whole_block_is_found_anywhere() -> None:
    old = noise(3 * BLOCK)
    assert checked(old, b"front" + old[2 * BLOCK :]).ranges == (Data(0, 5), Copy(2 * BLOCK, BLOCK))


def test_what_was_moved_into_a_change_in_place_is_found() -> None:
    old = noise(100 * BLOCK)
    change = noise(100, FRESH) + old[50 * BLOCK : 51 * BLOCK] + noise(BLOCK - 100, FRESH + 1)
    assert checked(old, old[: 10 * BLOCK] + change + old[12 * BLOCK :]).sent == BLOCK


GIB_BLOCK = block_size(1 << 30)


def put(content: bytes, places: list[int], piece: int, *, over: bool) -> bytes:
    """Fresh pieces written over the content, or inserted into it, at these places."""
    parts, at = [], 0
    for i, place in enumerate(sorted(places)):
        parts += [content[at:place], noise(piece, FRESH + i)]
        at = place + piece if over else place
    return b"".join([*parts, content[at:]])


def some_places(number: int, size: int) -> list[int]:
    """Places with room between them."""
    return [place * 100_000 for place in Random(1).sample(range(size // 100_000), number)]


@pytest.mark.parametrize(
    ("change", "bar"),
    [
        (lambda old: noise(MIB, FRESH) + old, 1.25),
        (lambda old: noise(MIB + 1, FRESH) + old, 1.25),
        (lambda old: put(old, some_places(100, len(old)), 4096, over=True), 8),
        (lambda old: put(old, some_places(10, len(old)), 1000, over=False), 4),
        (lambda old: old + noise(4 * MIB, FRESH), 5),
        (lambda old: old[: 30 * MIB + 77], 0.25),
        (lambda old: old[77:], 0.25),
        (lambda old: old[32 * MIB :] + old[: 32 * MIB], 0),
    ],
    ids=["front", "front, odd", "100 edits", "10 inserts", "append", "cut", "beheaded", "swap"],
)
def test_bars_of_a_file_of_1_gib_for_its_blocks(
    change: Callable[[bytes], bytes], bar: float
) -> None:
    old = noise(64 * MIB)
    delta = checked(old, change(old), block=GIB_BLOCK)
    assert delta.sent <= bar * MIB


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of offsets that were searched, call by call."""
    seen: list[int] = []
    offsets = Finder.offsets

    def counting(self: Finder, view: memoryview, start: int, stop: int) -> list[int]:
        seen.append(stop - start)
        return offsets(self, view, start, stop)

    monkeypatch.setattr(Finder, "offsets", counting)
    return seen


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the contents that were looked up among the old blocks."""
    seen: list[int] = []
    number = Finder.number

    def counting(self: Finder, content: memoryview) -> int | None:
        seen.append(len(content))
        return number(self, content)

    monkeypatch.setattr(Finder, "number", counting)
    return seen


def sparing(size: int) -> int:
    """The most offsets that are searched in a file of this size when the budget is spent."""
    return (size // (PROBES * BLOCK) + 1) * (BLOCK + 1)


def test_wholly_different_file_is_searched_for_the_budget_and_then_here_and_there(
    searched: list[int],
) -> None:
    budget = 2 * MIB
    delta = checked(noise(16 * MIB), noise(16 * MIB, FRESH), budget=budget)
    assert delta.ranges == (Data(0, 16 * MIB),)
    assert budget <= sum(searched) <= budget + MIB + sparing(16 * MIB)


def test_appended_content_is_only_probed_since_no_old_block_is_missing(
    searched: list[int],
) -> None:
    old = noise(4 * MIB)
    checked(old, old + noise(16 * MIB, FRESH))
    assert sum(searched) <= sparing(16 * MIB)


def test_edits_in_place_are_hardly_searched(searched: list[int]) -> None:
    old = noise(16 * MIB)
    checked(old, put(old, some_places(50, len(old)), BLOCK, over=True))
    assert sum(searched) <= 50 * BLOCK


@pytest.mark.parametrize("before", [1, 10 * BLOCK, 5 * MIB + 1])
def test_long_run_is_found_when_the_budget_is_spent(before: int, searched: list[int]) -> None:
    old = noise(3 * PROBES * BLOCK)
    new = noise(before, FRESH) + old
    delta = checked(old, new, budget=0)
    assert delta.sent < before + (PROBES + 1) * BLOCK
    assert sum(searched) <= sparing(len(new))


def test_run_found_by_a_probe_is_followed_back_to_its_beginning() -> None:
    old = noise(3 * PROBES * BLOCK)
    before = 20 * PROBES * BLOCK + 10 * BLOCK + 1
    assert checked(old, noise(before, FRESH) + old, budget=0).sent == before


def test_what_is_copied_pays_for_more_search() -> None:
    old = noise(16 * MIB)
    places = [(i + 1) * 300_000 for i in range(50)]
    delta = checked(old, put(old, places, 100, over=False), budget=4 * BLOCK)
    assert delta.sent < 50 * 3 * BLOCK


def test_equal_checksums_are_not_enough_and_cost_a_bounded_number_of_digests(
    hashed: list[int],
) -> None:
    # A second difference of +1 -2 +1 changes neither of the two sums.
    old = bytearray(b"d" * (256 * BLOCK))
    for at in range(0, len(old), BLOCK):
        old[at + 9 : at + 12] = b"ebe"
    new = b"d" * (8 * MIB)
    delta = checked(bytes(old), new)
    assert delta.sent == len(new)
    assert len(hashed) < len(new) // 64


def test_repetitive_content_is_found_at_once(searched: list[int]) -> None:
    old = bytes(8 * MIB)
    delta = checked(old, bytes(20 * MIB))
    assert delta.ranges == (Copy(0, 8 * MIB), Copy(0, 8 * MIB), Copy(0, 4 * MIB))
    assert searched == []


def test_of_equal_blocks_the_one_that_keeps_the_order_is_copied() -> None:
    old = noise(BLOCK, 1) + noise(2 * BLOCK, 2) + noise(BLOCK, 1) + noise(BLOCK, 3)
    new = old[: 3 * BLOCK] + b"abc" + old[3 * BLOCK :]
    assert checked(old, new).ranges == (
        Copy(0, 3 * BLOCK),
        Data(3 * BLOCK, 3),
        Copy(3 * BLOCK, 2 * BLOCK),
    )


def test_there_are_no_more_ranges_than_asked_for_and_the_longest_copies_stay() -> None:
    old = noise(100 * 20 * BLOCK)
    lengths = [1 + i % 10 for i in range(100)]
    kept = [old[i * 20 * BLOCK :][: length * BLOCK] for i, length in enumerate(lengths)]
    new = b"".join(noise(BLOCK, FRESH + i) + piece for i, piece in enumerate(kept))
    assert len(checked(old, new).ranges) == 200
    delta = checked(old, new, max_ranges=21)
    copies = [part.length for part in delta.ranges if isinstance(part, Copy)]
    assert len(delta.ranges) <= 21
    assert copies == [10 * BLOCK] * 10


def test_endless_changes_give_no_endless_ranges() -> None:
    old = noise(256)
    new = (old[:64] + old[128:192]) * 50_000
    signature = signed_plainly(old, 64)
    compare(signature, io.BytesIO(new[:1000]))  # for what is loaded only once
    tracemalloc.start()
    try:
        delta = compare(signature, io.BytesIO(new), max_ranges=16)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    check(delta, old, new)
    assert len(delta.ranges) <= 16
    assert peak < 5 * MIB


def test_memory_does_not_grow_with_the_file() -> None:
    old = noise(8 * MIB)
    new = noise(32 * MIB, FRESH) + old
    signature = signed(old)
    tracemalloc.start()
    try:
        compare(signature, io.BytesIO(new))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


def test_what_reading_raises_is_raised() -> None:
    class Broken:
        def read(self, limit: int) -> bytes:
            raise OSError("The disk is gone.")

    with pytest.raises(OSError, match="The disk is gone"):
        compare(signed(b"old"), Broken())


def test_numpy_is_not_loaded_before_there_is_a_change() -> None:
    program = (
        "import io, sys; from skynet import blocks, delta; b = blocks.SignatureBuilder(9999);"
        "b.update(bytes(9999)); delta.compare(b.finish(bytes(16)), io.BytesIO(bytes(9999)));"
        "sys.exit('numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
