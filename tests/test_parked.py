"""What a broken run left under another name is taken for ours again, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet.claims import NOTHING_CLAIMED
from skynet.errors import LinkLost
from skynet.findings import Finding
from skynet.parked import reclaimed
from skynet.remote import Facts
from skynet.shuffle import parking_place
from skynet.tree import DIR, Entry
from tests.support.faults import Act, no_fault, nth
from tests.support.world import World
from tests.support.worlds import content_entry, seen

X, Y = content_entry(b"x", 5), content_entry(b"y", 2_000_000_000)
FOLDER = Entry(DIR, mode=0o755)
INODE = b"i" * 36
ROWS = {b"D": (INODE, FOLDER), b"D/x": (b"", X), b"f": (b"", X)}


def found(*foreign: tuple[bytes, Entry, bytes]) -> tuple[set[bytes], set[bytes]]:
    """What is ours of what was found, on a remote that tells case apart, and on another."""
    lost = [Finding(path, None, None, stale=True, known=row[0]) for path, row in ROWS.items()]
    findings = lost + [
        Finding(path, seen(entry), None, foreign=True, here=here) for path, entry, here in foreign
    ]
    strict, folding = (
        reclaimed(findings, ROWS.get, Facts(folds_case=folds), NOTHING_CLAIMED)
        for folds in (False, True)
    )
    assert [f.path for f in strict[0]] == [f.path for f in findings]
    return set(strict[1]), set(folding[1])


def test_what_is_parked_is_ours() -> None:
    place = parking_place(b"D")
    ours = {place, place + b"/x"}
    assert found((place, FOLDER, b""), (place + b"/x", X, b"")) == (ours, ours)
    assert found((parking_place(b"other"), FOLDER, b"")) == (set(), set())


def test_a_directory_is_known_by_its_identity_with_what_is_in_it() -> None:
    ours = {b"new", b"new/x"}
    assert found((b"new", FOLDER, INODE), (b"new/x", X, b"")) == (ours, ours)
    assert found((b"new", FOLDER, INODE), (b"new/x", Y, b"")) == ({b"new"}, {b"new"})
    assert found((b"new", FOLDER, b"j" * 36), (b"new/x", X, b"")) == (set(), set())


def test_another_case_is_ours_where_case_is_ignored() -> None:
    assert found((b"F", X, b"")) == (set(), {b"F"})
    assert found((b"F", Y, b"")) == (set(), set())


@pytest.mark.parametrize("swapped", [False, True])
def test_a_directory_that_moved_before_the_manifest_was_told(tmp_path: Path, swapped: bool) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"d": {"x": b"1" * 100, "y": b"2"}, "e": {"z": b"3"}})
    world.sync()
    world.move("d", "t" if swapped else "new")
    if swapped:
        world.move("e", "d")
        world.move("t", "e")
    world.fault = nth("RENAME", 2 if swapped else 0, Act.CUT_AFTER)
    with pytest.raises(LinkLost):
        world.sync()
    world.fault = no_fault
    world.put({"e" if swapped else "new": {"y": None}})
    report = world.sync()
    assert not report.problems
    assert not report.hazards  # what is deleted is ours
    assert report.counts["bytes"] == 0
    world.check()
    world.quiet()
