"""The local tree: listing, stat identities, the racy-clean rule, and reads that were torn."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet import scan
from skynet.errors import SourceError, TornRead
from skynet.manifest_codec import entry_fault
from skynet.scan import MAX_IGNORE_FILE, RACY, RACY_NS, Root, digest_of, identity, settled
from skynet.tree import DIR, FILE, LINK, SECOND, Entry, wire_time

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")
LATER = RACY_NS + 1


class Clock:
    """A wall clock that stands `ahead` nanoseconds after the change of the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ahead = LATER

    def __call__(self) -> int:
        status = self.path.stat()
        touched = status.st_ctime_ns if os.name == "posix" else status.st_mtime_ns
        return touched + self.ahead


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "file"
    path.parent.mkdir()
    path.write_bytes(b"content")
    return path


@pytest.fixture
def clock(file: Path) -> Clock:
    return Clock(file)


@pytest.fixture
def root(file: Path, clock: Clock) -> Root:
    return Root(os.fsencode(file.parent), clock)


def entry(root: Root, path: bytes) -> Entry:
    return root.entry(path, identity(os.lstat(os.path.join(root.path, path))))


# The root.


def test_source_must_be_a_directory_that_is_there(file: Path) -> None:
    with pytest.raises(SourceError, match="not a directory"):
        Root(os.fsencode(file), lambda: 0)
    with pytest.raises(SourceError, match="cannot be read"):
        Root(os.fsencode(file.parent / "none"), lambda: 0)


def test_root_that_is_replaced_is_noticed(root: Root, file: Path) -> None:
    root.verify()
    file.parent.rename(file.parent.with_name("old"))
    with pytest.raises(SourceError, match="cannot be read"):
        root.verify()
    file.parent.mkdir()
    with pytest.raises(SourceError, match="replaced by another directory"):
        root.verify()


def test_ignore_file_is_read_if_it_is_there(root: Root, file: Path) -> None:
    assert root.patterns() == []
    file.with_name(".skynetignore").write_bytes(b"*.tmp\n!keep\n")
    assert root.patterns() == ["*.tmp", "!keep"]


def test_ignore_file_that_cannot_be_read_stops_everything(root: Root, file: Path) -> None:
    ignore = file.with_name(".skynetignore")
    ignore.write_bytes(b"a" * (MAX_IGNORE_FILE + 1))
    with pytest.raises(SourceError, match="larger than 1 MiB"):
        root.patterns()
    ignore.unlink()
    ignore.mkdir()
    with pytest.raises(SourceError, match=r"\.skynetignore cannot be read"):
        root.patterns()


@posix_only
def test_ignore_file_may_be_a_link_but_not_one_that_leads_nowhere(root: Root, file: Path) -> None:
    ignore = file.with_name(".skynetignore")
    ignore.symlink_to("rules")
    with pytest.raises(SourceError, match=r"\.skynetignore cannot be read \(No such file"):
        root.patterns()
    file.with_name("rules").write_bytes(b"*.tmp\n")
    assert root.patterns() == ["*.tmp"]


@posix_only
def test_ignore_file_that_is_a_pipe_is_not_waited_for(root: Root, file: Path) -> None:
    os.mkfifo(file.with_name(".skynetignore"))
    with pytest.raises(SourceError, match=r"\.skynetignore cannot be read \(it is no file\)"):
        root.patterns()


# Listings and entries.


@posix_only
def test_directory_is_listed_without_following_or_opening_anything(root: Root, file: Path) -> None:
    file.with_name("d").mkdir(mode=0o750)
    file.with_name("link").symlink_to("d")
    file.with_name("loop").symlink_to("loop")
    os.mkfifo(file.with_name("fifo"))
    with socket.socket(socket.AF_UNIX) as listener:
        os_path = os.path.relpath(file.with_name("socket"))
        listener.bind(os_path)
        listing = root.list(b"")
    assert listing.children.keys() == {b"file", b"d", b"link", b"loop"}
    assert listing.unknown == {b"fifo", b"socket"}
    assert listing.special == {b"fifo", b"socket"}
    assert not listing.problems
    assert not listing.failed
    assert entry(root, b"d") == Entry(DIR, mode=0o750)
    assert entry(root, b"link") == Entry(LINK, link=b"d")


def test_entry_of_a_file_says_what_its_stat_says(root: Root, file: Path) -> None:
    os.utime(file, ns=(5, 1_234_567_890_123_456_700))
    found = entry(root, b"file")
    assert (found.kind, found.size, found.mtime_ns) == (
        FILE,
        7,
        1_234_567_890_123_456_700,
    )
    assert found.digest == b""
    assert (found.mode is None) == (os.name != "posix")


@posix_only
@pytest.mark.parametrize("name", [b"a\nb", b"-rf", b"n" * 255, b" ", b"\\"])
def test_names_are_listed_as_they_are(root: Root, file: Path, name: bytes) -> None:
    directory = os.path.join(root.path, name)
    os.mkdir(directory)
    with open(os.path.join(directory, name), "wb"):
        pass
    assert root.list(b"").children.keys() == {b"file", name}
    assert root.list(name).children.keys() == {name}


def test_directory_that_cannot_be_listed_is_a_problem_and_not_empty(root: Root) -> None:
    listing = root.list(b"none")
    assert listing.failed
    assert [(problem.path, problem.code) for problem in listing.problems] == [
        (b"none", "unreadable")
    ]


@pytest.fixture(params=[True, False], ids=["by handle", "by name"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing as this platform does it, and as one does that cannot scan a handle."""
    if not request.param:
        monkeypatch.setattr(scan, "_SCANS_HANDLES", False)


@posix_only
@pytest.mark.usefixtures("either_way")
def test_directory_that_was_swapped_for_a_link_is_not_listed(root: Root, file: Path) -> None:
    outside = file.parent.with_name("outside")
    outside.mkdir()
    (outside / "secret").write_bytes(b"1")
    file.with_name("d").symlink_to(outside)
    listing = root.list(b"d")
    assert listing.failed
    assert not listing.children
    assert [(problem.path, problem.code) for problem in listing.problems] == [(b"d", "unreadable")]


@posix_only
@pytest.mark.usefixtures("either_way")
def test_root_may_be_reached_through_a_link(file: Path, clock: Clock) -> None:
    link = file.parent.with_name("link")
    link.symlink_to(file.parent)
    (file.parent / "d").mkdir()
    (file.parent / "d" / "x").write_bytes(b"1")
    root = Root(os.fsencode(link), clock)
    assert root.list(b"").children.keys() == {b"file", b"d"}
    assert root.list(b"d").children.keys() == {b"x"}


@posix_only
def test_directory_that_is_swapped_while_it_is_listed_is_unknown(
    root: Root, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_SCANS_HANDLES", False)
    directory = file.with_name("d")
    directory.mkdir()
    scandir = os.scandir

    def swapping(path: bytes) -> object:
        directory.rename(file.with_name("aside"))
        directory.mkdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", swapping)
    listing = root.list(b"d")
    assert listing.failed
    assert "replaced while it was listed" in listing.problems[0].message


def opened_from_now_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whatever is opened is added to it."""
    opened: list[int] = []
    open_file = os.open

    def noting(path: bytes, flags: int) -> int:
        opened.append(open_file(path, flags))
        return opened[-1]

    monkeypatch.setattr(os, "open", noting)
    return opened


@posix_only
def test_no_handle_stays_open_after_listing(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opened_from_now_on(monkeypatch)
    root.list(b"")
    (handle,) = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


# The second look, before something is deleted.


@posix_only
@posix_only
@pytest.mark.parametrize("target", ["loop", "x" * 300, "elsewhere/deep"])
def test_what_a_link_leads_to_is_not_looked_at(
    root: Root, file: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lead in a circle, or to a server that is gone and never answers."""
    looked: list[bytes] = []
    plain = os.lstat

    def lstat(path: bytes) -> os.stat_result:
        looked.append(os.path.basename(path))
        return plain(path)

    (file.parent / "loop").symlink_to(target)
    monkeypatch.setattr(os, "lstat", lstat)
    assert not root.exists(b"loop/deep/file", directory=False)
    assert not root.exists(b"loop/deep", directory=True)
    assert set(looked) == {b"loop"}


def test_what_exists_is_told_by_kind_and_never_through_a_link(root: Root, file: Path) -> None:
    file.with_name("d").mkdir()
    (file.parent / "d" / "x").write_bytes(b"1")
    file.with_name("dangling").symlink_to("nowhere")
    file.with_name("to d").symlink_to("d")
    os.mkfifo(file.with_name("pipe"))
    paths = [b"file", b"d", b"d/x", b"dangling", b"to d", b"pipe", b"none", b"file/x", b"to d/x"]
    directories = [path for path in paths if root.exists(path, directory=True)]
    others = [path for path in paths if root.exists(path, directory=False)]
    assert directories == [b"d"]
    assert others == [b"file", b"d/x", b"dangling", b"to d", b"pipe"]


def test_name_that_is_only_found_by_ignoring_case_does_not_exist(
    root: Root, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: lstat(path.lower()))
    status = root.exists(b"file", directory=False), root.exists(b"FILE", directory=False)
    assert status == (True, False)


def test_what_cannot_be_looked_at_is_not_said_to_be_gone(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "lstat", refuse)
    with pytest.raises(PermissionError):
        root.exists(b"file", directory=False)


class _Unreadable:
    name = b"bad"

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise PermissionError(13, "Permission denied")


class _Children(list[object]):
    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def test_child_that_cannot_be_looked_at_is_unknown(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda path: _Children([_Unreadable()]))
    listing = root.list(b"")
    assert listing.unknown == {b"bad"}
    assert [(problem.path, problem.code) for problem in listing.problems] == [
        (b"bad", "unreadable")
    ]
    assert not listing.children
    assert not listing.failed


# Identity and the racy-clean rule.


def _touch(file: Path) -> None:
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000))


def _grow(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"more content")
    os.utime(file, ns=(0, before.st_mtime_ns))


def _replace(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(0, before.st_mtime_ns))
    os.replace(other, file)


@pytest.mark.parametrize("change", [_touch, _grow, _replace])
def test_identity_changes_with_the_file(file: Path, change: Callable[[Path], None]) -> None:
    before = identity(file.stat())
    assert identity(file.stat()) == before
    change(file)
    assert identity(file.stat()) != before


@pytest.mark.parametrize(
    ("ahead", "is_racy"), [(0, True), (RACY_NS, True), (LATER, False), (-LATER, True)]
)
def test_identity_is_recorded_only_when_the_file_was_still(
    file: Path, clock: Clock, ahead: int, is_racy: bool
) -> None:
    clock.ahead = ahead
    known = identity(file.stat())
    assert settled(known, clock()) == (RACY if is_racy else known)


@posix_only
@pytest.mark.parametrize("year", [-8000, 1600, 2300, 2400])  # ns since 1970 in 63 bits end in 2262
def test_file_of_a_far_time_is_a_file_as_any_other(
    root: Root, file: Path, clock: Clock, year: int
) -> None:
    far = (year - 1970) * 365 * 86400 * SECOND
    os.utime(file, ns=(0, far))
    known = root.list(b"").children[b"file"]
    found = root.entry(b"file", known)
    assert not entry_fault(found)
    assert wire_time(found.mtime_ns) == wire_time(file.stat().st_mtime_ns)
    assert root.digest(b"file", found) == (digest_of([b"content"]), known)


@posix_only
def test_file_dated_into_the_future_is_judged_by_its_change_time(file: Path, clock: Clock) -> None:
    os.utime(file, ns=(0, 2**62))
    known = identity(file.stat())
    assert settled(known, clock()) == known


# Reading.


def test_digest_is_of_the_content_with_the_identity_to_record(root: Root, file: Path) -> None:
    assert root.digest(b"file", entry(root, b"file")) == (
        digest_of([b"con", b"", b"tent"]),
        identity(file.stat()),
    )


def test_file_just_written_is_hashed_and_not_trusted_later(root: Root, clock: Clock) -> None:
    clock.ahead = 0
    assert root.digest(b"file", entry(root, b"file")) == (digest_of([b"content"]), RACY)


@pytest.mark.parametrize("change", [_touch, _grow])
def test_file_that_is_not_what_the_survey_saw_is_not_read(
    root: Root, file: Path, change: Callable[[Path], None]
) -> None:
    before = entry(root, b"file")
    change(file)
    with pytest.raises(TornRead):
        root.open(b"file", before)


@pytest.mark.parametrize("change", [_touch, _grow])
def test_file_that_changes_while_it_is_read_is_torn(
    root: Root, file: Path, change: Callable[[Path], None]
) -> None:
    source = root.open(b"file", entry(root, b"file"))
    try:
        source.read(3)
        change(file)
        while source.read(100):
            pass
        with pytest.raises(TornRead):
            source.verify()
    finally:
        source.close()


def test_file_not_read_to_its_end_is_torn(root: Root) -> None:
    source = root.open(b"file", entry(root, b"file"))
    try:
        assert source.read(6) == b"conten"
        with pytest.raises(TornRead):
            source.verify()
        assert source.read(6) == b"t"
        assert source.read(6) == b""
        assert source.verify() != RACY
    finally:
        source.close()


def test_short_reads_are_filled_up(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.read
    monkeypatch.setattr(os, "read", lambda handle, limit: read(handle, min(limit, 2)))
    source = root.open(b"file", entry(root, b"file"))
    try:
        assert source.read(5) == b"conte"
        assert source.read(5) == b"nt"
    finally:
        source.close()


@posix_only
def test_link_or_pipe_put_in_place_of_a_file_is_never_read(root: Root, file: Path) -> None:
    before = entry(root, b"file")
    outside = file.parent.with_name("secret")
    outside.write_bytes(b"content")
    file.unlink()
    file.symlink_to(outside)
    with pytest.raises(OSError, match="symbolic link"):
        root.open(b"file", before)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(TornRead):
        root.open(b"file", before)


def test_no_handle_stays_open_when_opening_is_refused(
    root: Root, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = entry(root, b"file")
    _grow(file)
    opened = opened_from_now_on(monkeypatch)
    with pytest.raises(TornRead):
        root.open(b"file", before)
    (handle,) = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
