"""The audit: listings in order; the cheap look never sees less than the thorough one."""

from __future__ import annotations

import os
import stat

import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from skynet.audit import NOT_LISTED, Audit, actual, listed_otherwise
from skynet.remote import Facts, Listed
from skynet.scan import identity
from skynet.tree import (
    BEGINNING_OF_FAT,
    DIR,
    FILE,
    LATEST_KEPT,
    LATEST_TIME,
    LINK,
    SECOND,
    Entry,
    wire_time,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="has no permission bits")

sizes = st.sampled_from([0, 1, 2])
modes = st.sampled_from([0o644, 0o600, 0o755, 0o4755])
NOW = 1_700_000_000
times = st.one_of(
    st.sampled_from([-1, 0, 1, SECOND - 1, SECOND, SECOND + 1]),
    st.sampled_from([NOW * SECOND, NOW * SECOND + 1, (NOW + 1) * SECOND - 1, (NOW + 1) * SECOND]),
    st.sampled_from([LATEST_TIME * SECOND, (LATEST_TIME + 2) * SECOND]),
)
facts = st.builds(Facts, st.booleans(), st.booleans())
listed = st.one_of(
    st.none(),
    st.sampled_from([Entry(DIR, mode=0o644), Entry(LINK, link=b"a")]),
    st.builds(
        lambda size, time, mode: Entry(FILE, size, max(time // SECOND, 0) * SECOND, mode),
        *(sizes, times, modes),
    ),
)


def known_as(entry: Entry) -> bytes:
    """The identity of a local file with this size, time and mode."""
    assert entry.mode is not None
    fields = [stat.S_IFREG | entry.mode, 7, 8, 1, 0, 0, entry.size, 0, 0, 0]
    times_ns = {"st_mtime_ns": entry.mtime_ns, "st_ctime_ns": 5}
    return identity(os.stat_result(fields, times_ns))


@given(st.builds(Entry, st.just(FILE), sizes, times, modes), listed, facts)
def test_the_cheap_look_is_as_sharp_as_the_thorough_one(
    synced: Entry, seen: Entry | None, facts: Facts
) -> None:
    is_same = actual(synced, seen, facts) is synced
    cheaply = not listed_otherwise({b"a": known_as(synced)}, {b"a": seen} if seen else {}, facts)
    assert is_same or not cheaply
    assume(0 <= synced.mtime_ns // SECOND <= LATEST_KEPT)
    assume(synced.mode != 0o4755)
    assert is_same == cheaply


# The seconds that file systems begin and end with: ext4, ext3 and XFS, exFAT, HFS+.
KEPT = [
    (-1 << 31, 15032385535),
    (-1 << 31, (1 << 31) - 1),
    (315532800, 4354819199),
    (0, 2212122495),
]


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from(KEPT))
@example(0, KEPT[2])
@example(2_600_000_000 * SECOND, KEPT[1])
def test_what_its_file_system_cannot_keep_is_no_change(
    mtime_ns: int, kept: tuple[int, int]
) -> None:
    synced = Entry(FILE, 1, mtime_ns, 0o644)
    seen = min(max(wire_time(mtime_ns), kept[0]), kept[1])
    assert actual(synced, Entry(FILE, 1, seen * SECOND, 0o644), Facts()) is synced


@given(st.integers(0, LATEST_KEPT), st.integers(0, LATEST_TIME))
def test_any_other_time_is_a_change(told: int, seen: int) -> None:
    assume(seen not in BEGINNING_OF_FAT)
    synced = Entry(FILE, 1, told * SECOND, 0o644)
    found = actual(synced, Entry(FILE, 1, seen * SECOND, 0o644), Facts())
    assert (found is synced) == (told == seen)


@pytest.mark.parametrize(
    ("told", "seen", "is_same"),
    [
        *((0o2755, 0o2755, True), (0o2755, 0o755, True), (0o7755, 0o1755, True)),
        *((0o755, 0o2755, False), (0o2755, 0o4755, False), (0o2755, 0o750, False)),
    ],
)
def test_special_bits_that_the_server_does_not_let_be_set_are_no_change(
    told: int, seen: int, is_same: bool
) -> None:
    for entry in (Entry(FILE, 1, mode=told), Entry(DIR, mode=told)):
        found = actual(entry, msgspec.structs.replace(entry, mode=seen), Facts())
        assert (found is entry) == is_same


def test_listings_nobody_asks_for_are_passed_over() -> None:
    listings = [Listed(path, {}, frozenset(), None) for path in (b"", b"a", b"a/b", b"a-", b"c")]
    audit = Audit(iter(listings))
    assert [audit.listing(path).directory for path in (b"", b"a", b"a-")] == [b"", b"a", b"a-"]
    assert audit.listing(b"b") is NOT_LISTED
    assert audit.listing(b"c").directory == b"c"
    assert audit.listing(b"d") is NOT_LISTED
