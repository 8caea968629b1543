"""Disks use inodes again: what a new file or directory must not be taken for because of that."""

from __future__ import annotations

import stat
import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.findings import Finding, undecided
from skynet.matching import known_by_identity
from skynet.moves import after_moves, differing, moved_directories
from skynet.ops import Copy, Rename, Upload
from skynet.plan import Policy
from skynet.scan import RACY, standing
from skynet.tree import DIR, FILE, SECOND, Entry, order
from tests.support.worlds import content_entry
from tests.test_moves import Life, local_of, planned

DIRECTORY = Entry(DIR, mode=0o755)
WHOLE = 1_700_000_000 * SECOND
FINE, LATER = WHOLE + 5, WHOLE + 9 * SECOND + 7


def identity(inode: int, mtime_ns: int, ctime_ns: int, size: int = 3) -> bytes:
    """As scan.identity."""
    return struct.pack("<qqqQI", mtime_ns, ctime_ns, size, inode, stat.S_IFREG | 0o644)


def gone(path: bytes, content: bytes, known: bytes, mtime_ns: int = FINE) -> Finding:
    """A file that is on the remote, and no longer here."""
    return Finding(path, content_entry(content, mtime_ns), None, known=known)


def new(path: bytes, content: bytes, here: bytes, mtime_ns: int = FINE) -> Finding:
    """A file that is here now, and was not read."""
    unread = msgspec.structs.replace(content_entry(content, mtime_ns), digest=b"")
    return Finding(path, None, unread, here=here)


def one_inode(old: bytes, path: bytes, inode: int = 1) -> list[Finding]:
    """A directory that is gone, and one that has its inode now."""
    same = standing(identity(inode, 0, 0))
    return [Finding(old, DIRECTORY, None, known=same), Finding(path, None, DIRECTORY, here=same)]


def moved(*findings: Finding) -> dict[bytes, bytes]:
    return moved_directories(findings, lambda _: False, retained=True)


# A law.


class Disk(Life):
    """A life on a disk that uses inodes again; every other content has a time of whole seconds."""

    def __init__(self, seed: int, size: int) -> None:
        self.now = 0
        self.touched: dict[int, int] = {}  # inode -> its change time
        super().__init__(seed, size)

    def create(self) -> None:
        self.now += 1
        used = {inode for _, inode in self.tree.values()}
        path = self.free_path()
        if path is not None:
            inode = min(set(range(1, len(used) + 2)) - used)
            entry = DIRECTORY if self.chance.random() < 0.3 else self.new_content()
            self.tree[path] = entry, inode
            self.touched[inode] = self.now

    def new_content(self) -> Entry:
        number = self.chance.randrange(12)
        return content_entry(b"%2d" % number, WHOLE + number * (number % 2))

    def change(self) -> None:
        self.now += 1
        files = [path for path, (entry, _) in self.tree.items() if entry.kind == FILE]
        if files:
            path = self.chance.choice(files)
            inode = self.tree[path][1]
            self.tree[path] = self.new_content(), inode
            self.touched[inode] = self.now

    def identities(self) -> dict[bytes, bytes]:
        return {
            path: standing(identity(inode, 0, 0))
            if entry.kind == DIR
            else identity(inode, entry.mtime_ns, FINE + self.touched[inode], entry.size)
            for path, (entry, inode) in self.tree.items()
        }


@given(st.integers(0, 2**32), st.integers(0, 14), st.integers(1, 12), st.booleans())
@settings(max_examples=300)
def test_no_content_is_taken_for_another_however_inodes_are_used_again(
    seed: int, size: int, steps: int, complete_sync: bool
) -> None:
    disk = Disk(seed, size)
    remote, known = local_of(disk), disk.identities()
    disk.live(steps)
    local, now = local_of(disk), disk.identities()
    findings = []
    for path in sorted(remote.keys() | local.keys(), key=order):
        entry = local.get(path)
        if entry is not None and now[path] != known.get(path):
            entry = msgspec.structs.replace(entry, digest=b"")
        here, was = now.get(path, b""), known.get(path, b"")
        findings.append(Finding(path, remote.get(path), entry, here=here, known=was))
    moves = moved_directories(findings, lambda _: False, retained=complete_sync)
    rest = known_by_identity(differing(after_moves(findings, moves, {})))
    for f in rest:
        if f.local is not None and f.local.digest:
            assert f.local == local[f.path]


# Directories.


def test_a_directory_with_the_inode_of_another_has_not_moved() -> None:
    findings = [
        *one_inode(b"monday", b"tuesday"),
        gone(b"monday/1.jpg", b"one", identity(2, FINE, FINE)),
        new(b"tuesday/1.jpg", b"two", identity(3, LATER, LATER), LATER),
    ]
    assert moved(*findings) == {}
    ops = planned(findings, Policy()).ops
    assert not [op for op in ops if isinstance(op, Rename)]
    (sent,) = [op for op in ops if isinstance(op, Upload)]
    assert (sent.path, sent.replaces) == (b"tuesday/1.jpg", None)


@pytest.mark.parametrize(
    ("known", "here", "mtime_ns", "is_proof"),
    [
        pytest.param((2, FINE, FINE), (2, FINE, FINE), FINE, True, id="untouched"),
        pytest.param((2, WHOLE, FINE), (2, WHOLE, FINE), WHOLE, True, id="from a camera"),
        pytest.param((2, FINE, FINE), (2, FINE, LATER), FINE, True, id="got another mode"),
        pytest.param((2, WHOLE, FINE), (2, WHOLE, LATER), WHOLE, False, id="unpacked again"),
        pytest.param((2, WHOLE, WHOLE), (2, WHOLE, WHOLE), WHOLE, False, id="coarse clock"),
        pytest.param((2, FINE, FINE), (3, FINE, LATER), FINE, False, id="another inode"),
        pytest.param((2, FINE, FINE), (2, FINE, FINE, 4), FINE, False, id="another size"),
    ],
)
def test_one_file_that_came_along_proves_a_move(
    known: tuple[int, ...], here: tuple[int, ...], mtime_ns: int, is_proof: bool
) -> None:
    findings = [
        *one_inode(b"monday", b"tuesday"),
        gone(b"monday/1.jpg", b"one", identity(2, FINE, FINE)),
        gone(b"monday/2.jpg", b"two", identity(*known), mtime_ns),
        new(b"tuesday/1.jpg", b"not", identity(7, LATER, LATER), LATER),
        new(b"tuesday/2.jpg", b"two", identity(*here), mtime_ns),
    ]
    assert moved(*findings) == ({b"tuesday": b"monday"} if is_proof else {})


@pytest.mark.parametrize(
    ("before", "now", "is_proof"),
    [(FINE, FINE, True), (WHOLE, WHOLE, False), (FINE, LATER, False)],
)
def test_size_and_time_prove_it_of_files_that_were_recorded_too_young(
    before: int, now: int, is_proof: bool
) -> None:
    findings = [
        *one_inode(b"monday", b"tuesday"),
        gone(b"monday/1.jpg", b"one", RACY, before),
        new(b"tuesday/1.jpg", b"one", identity(2, now, LATER), now),
    ]
    assert moved(*findings) == ({b"tuesday": b"monday"} if is_proof else {})


@pytest.mark.parametrize("is_proof", [True, False])
def test_a_directory_inside_that_is_proven_proves_the_one_above(is_proof: bool) -> None:
    findings = [
        *one_inode(b"monday", b"tuesday"),
        *one_inode(b"monday/raw", b"tuesday/raw", 2),
        gone(b"monday/raw/1", b"one", identity(3, FINE, FINE)),
        new(b"tuesday/raw/1", b"one", identity(3 if is_proof else 4, FINE, FINE)),
    ]
    proven = {b"tuesday": b"monday", b"tuesday/raw": b"monday/raw"}
    assert moved(*findings).get(b"tuesday") == (b"monday" if is_proof else None)
    assert moved(*findings).items() <= proven.items()


def test_a_file_of_the_same_name_in_a_subdirectory_proves_nothing_by_its_name() -> None:
    findings = [
        *one_inode(b"monday", b"tuesday"),
        *one_inode(b"monday/raw", b"tuesday/raw", 2),
        gone(b"monday/raw/1", b"one", identity(3, FINE, FINE)),
        new(b"tuesday/raw/2", b"one", identity(3, FINE, FINE)),
    ]
    assert moved(*findings) == {}


# Files.


@pytest.mark.parametrize("policy", [Policy(), Policy(complete_sync=True, can_copy=True)])
def test_an_empty_file_is_not_taken_for_another_that_is_gone(policy: Policy) -> None:
    """There is nothing to spare, and the other one may be wanted where it is."""
    empty = content_entry(b"", FINE)
    there = Finding(b"a.flag", empty, None, known=identity(1, FINE, FINE, 0))
    here = Finding(b"b.flag", None, content_entry(b"", LATER), here=identity(2, LATER, LATER, 0))
    ops = planned([there, here], policy).ops
    assert not [op for op in ops if isinstance(op, Rename | Copy)]
    assert Upload(b"b.flag", content_entry(b"", LATER)) in ops


def test_an_empty_file_that_has_moved_is_renamed() -> None:
    empty = content_entry(b"", FINE)
    there = Finding(b"a.flag", empty, None, known=identity(1, FINE, FINE, 0))
    here = Finding(b"b.flag", None, empty, here=identity(1, FINE, LATER, 0))
    assert planned([there, here], Policy()).ops == [Rename(b"b.flag", b"a.flag", empty)]


def known_content(*findings: Finding) -> dict[bytes, bytes]:
    """Path -> digest of the local files whose content is known unread."""
    decided = known_by_identity(findings)
    return {f.path: f.local.digest for f in decided if f.local is not None and f.local.digest}


def test_a_file_with_the_inode_of_another_is_read() -> None:
    old = gone(b"a.raw", b"one", identity(1, WHOLE, FINE), WHOLE)
    fresh = new(b"b.raw", b"two", identity(1, WHOLE, LATER), WHOLE)
    assert known_content(old, fresh) == {}
    assert [f.path for f in undecided([old, fresh])] == [b"b.raw"]


def test_a_file_whose_time_is_fine_is_known_without_being_read() -> None:
    old = gone(b"a.raw", b"one", identity(1, FINE, FINE))
    moved_there = new(b"b.raw", b"one", identity(1, FINE, LATER))
    assert known_content(old, moved_there) == {b"b.raw": content_entry(b"one").digest}


def test_frames_that_look_alike_and_have_changed_their_inodes_are_read() -> None:
    """As when they were removed and unpacked again, in another order."""
    contents = [b"one", b"two", b"six"]
    findings = []
    for number, content in enumerate(contents):
        remote = content_entry(content, FINE)
        local = msgspec.structs.replace(remote, digest=b"")
        known = identity(number, FINE, FINE)
        here = identity(2 - number, FINE, LATER)
        findings.append(Finding(b"f%d" % number, remote, local, here=here, known=known))
    assert known_content(*findings) == {}
    assert len(undecided(findings)) == 3


def test_one_that_stays_and_looks_alike_makes_it_doubtful() -> None:
    old = gone(b"a", b"one", identity(1, FINE, FINE))
    entry = content_entry(b"two", FINE)
    staying = Finding(b"b", entry, entry, known=identity(2, FINE, FINE))
    assert known_content(old, new(b"c", b"two", identity(1, FINE, LATER))).keys() == {b"c"}
    assert b"c" not in known_content(old, staying, new(b"c", b"two", identity(1, FINE, LATER)))


def test_a_link_to_a_file_that_is_still_in_its_place_is_read() -> None:
    """Both names lead to what may have been edited, with the same size and time."""
    remote = content_entry(b"one", FINE)
    local = msgspec.structs.replace(remote, digest=b"")
    now = identity(1, FINE, LATER)
    edited = Finding(b"a", remote, local, here=now, known=identity(1, FINE, FINE))
    assert known_content(edited, new(b"b", b"two", now)) == {}


def test_what_is_in_a_directory_that_moved_is_not_read() -> None:
    """However much it looks alike: nothing was done to it."""
    untouched = [identity(number, WHOLE, FINE) for number in range(3)]
    findings = [
        *one_inode(b"monday", b"tuesday", 9),
        *(gone(b"monday/%d" % n, b"%3d" % n, known, WHOLE) for n, known in enumerate(untouched)),
        *(new(b"tuesday/%d" % n, b"%3d" % n, here, WHOLE) for n, here in enumerate(untouched)),
    ]
    rest = differing(after_moves(findings, moved(*findings), {}))
    assert len(known_content(*rest)) == 3
    assert planned(findings, Policy()).ops == [Rename(b"tuesday", b"monday", DIRECTORY)]
