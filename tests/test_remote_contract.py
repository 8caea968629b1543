"""What sync relies on in a remote: one suite for the one in memory and for a real sftp-server."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skynet.errors import RequestError, TargetError, TornRead
from skynet.ops import Delete, Mkdir, Record, Rename, Rmdir, SetMeta, Upload
from skynet.remote import Facts, Outcome, Site, Trash
from skynet.remote.verbs import OWN
from skynet.rules import Rules
from skynet.sftp.pieces import Source
from skynet.tree import DIR, FILE, LINK, Entry, join
from tests.support.memory import MemoryRemote, MemorySource
from tests.support.targets import (
    DEADLINE,
    KINDS,
    SECOND,
    TEMPS,
    TIME,
    Held,
    Place,
    entry_of,
    on_disk,
    prepared,
    refused,
    source,
    succeed,
    temps,
    upload,
    visible,
)

NAMES = {
    "newline": b"a\nb",
    "leading dash": b"-rf",
    "not UTF-8": b"\xff\xfe",
    "255 bytes": b"n" * 255,
    "trailing space": b"a ",
    "wildcards": b"*?[a]",
}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty target that has been prepared."""
    with prepared(request.param, tmp_path) as target:
        yield target


# The target.


def test_prepared_target_is_examined_so(place: Place) -> None:
    assert place.remote.examine() == Site(exists=True, is_prepared=True)
    assert place.everything() == {OWN, TEMPS}


def test_preparing_again_changes_nothing(place: Place) -> None:
    place.put(b"file", b"theirs")
    before = place.everything()
    place.remote.prepare()
    assert place.everything() == before
    held = place.holds(OWN)
    assert held is not None
    assert held.mode == 0o700


def test_preparing_tells_the_facts_and_leaves_nothing(place: Place) -> None:
    facts = place.remote.prepare()
    assert facts == Facts(folds_case=facts.folds_case)
    assert place.everything() == {OWN, TEMPS}


def test_reserved_name_taken_by_a_file_is_refused(tmp_path: Path) -> None:
    with on_disk(tmp_path) as place:
        place.put(OWN, b"")
        with pytest.raises(TargetError, match="Move it away"):
            place.remote.examine()


def test_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with on_disk(tmp_path / "file") as place:
        with pytest.raises(TargetError, match="is a file"):
            place.remote.examine()
        with pytest.raises(TargetError, match="cannot be made"):
            place.remote.prepare()


def test_target_that_does_not_exist_is_made_with_those_above_it(tmp_path: Path) -> None:
    with on_disk(tmp_path / "a" / "b") as place:
        assert place.remote.examine() == Site(exists=False, is_prepared=False)
        place.remote.prepare()
        assert place.remote.examine() == Site(exists=True, is_prepared=True)
        shutil.rmtree(tmp_path / "a" / "b" / ".skynet")
        assert place.remote.examine() == Site(exists=True, is_prepared=False)


def test_target_in_memory_that_does_not_exist_is_made() -> None:
    remote = MemoryRemote()
    assert remote.examine() == Site(exists=False, is_prepared=False)
    remote.prepare()
    assert remote.examine() == Site(exists=True, is_prepared=True)


# Listings.


def test_walk_lists_parents_first_in_tree_order(place: Place) -> None:
    for directory in (b"a", b"a/b", b"a-", b"b", b"a/b/c", b"z"):
        place.mkdir(directory)
    place.put(b"a/file", b"12345")
    listed = list(place.remote.walk(lambda path: Rules().hides(path, is_dir=True)))
    assert [each.directory for each in listed] == [b"", b"a", b"a/b", b"a/b/c", b"a-", b"b", b"z"]
    assert listed[0].children.keys() == {OWN, b"a", b"a-", b"b", b"z"}
    assert listed[1].children.keys() == {b"b", b"file"}
    assert listed[1].children[b"file"] == Entry(FILE, 5, TIME * SECOND, 0o640)
    assert all(each.error is None and not each.unknown for each in listed)


def test_walk_enters_nothing_that_is_hidden(place: Place) -> None:
    for directory in (b"hidden", b"hidden/below", b"seen"):
        place.mkdir(directory)
    listed = list(place.remote.walk(lambda path: path in (b"hidden", OWN)))
    assert [each.directory for each in listed] == [b"", b"seen"]
    assert b"hidden" in listed[0].children


def test_walk_tells_where_links_lead(place: Place) -> None:
    succeed(place.remote, Upload(b"link", Entry(LINK, link=b"no/such\xff")))
    (root, *_) = place.remote.walk(lambda path: True)
    assert root.children[b"link"] == Entry(LINK, link=b"no/such\xff")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_names_are_bytes(place: Place, name: bytes) -> None:
    if sys.platform == "darwin" and name == NAMES["not UTF-8"]:
        pytest.skip("this file system has only names that are UTF-8")
    inside, moved = join(name, name), join(name, name[::-1][:100] + b"2")
    succeed(place.remote, Mkdir(name, Entry(DIR, mode=0o755)))
    succeed(place.remote, upload(inside, b"content"), b"content")
    assert b"".join(place.remote.content(inside)) == b"content"
    listed = {each.directory: each for each in place.remote.walk(lambda path: path == OWN)}
    assert listed[name].children.keys() == {name}
    succeed(place.remote, Rename(moved, inside, entry_of(b"content")))
    assert visible(place) == {name, moved}
    place.remote.trash = Trash(b"stamp")
    succeed(place.remote, Delete(moved, entry_of(b"content")))
    succeed(place.remote, Rmdir(name))
    assert not visible(place)
    assert place.holds(join(OWN, b"trash/stamp/" + moved)) is not None


# Operations.


def test_upload_publishes_content_mode_and_time(place: Place) -> None:
    outcome = succeed(place.remote, upload(b"file", b"content"), b"content")
    assert place.holds(b"file") == Held(FILE, b"content", 0o644, TIME)
    assert isinstance(outcome.op, Upload)
    assert outcome.op.entry == entry_of(b"content")
    assert outcome.identity == b"identity"
    assert not temps(place)


def test_upload_of_an_empty_and_of_a_large_file(place: Place) -> None:
    large = bytes(range(256)) * 9000
    for path, content in ((b"empty", b""), (b"large", large)):
        succeed(place.remote, upload(path, content), content)
        assert b"".join(place.remote.content(path)) == content
    assert place.remote.counts["bytes"] == len(large)


def test_upload_replaces_and_does_it_again(place: Place) -> None:
    place.put(b"file", b"old")
    for _ in range(2):
        succeed(place.remote, upload(b"file", b"new", entry_of(b"old")), b"new")
        assert place.holds(b"file") == Held(FILE, b"new", 0o644, TIME)
    assert place.everything() == {OWN, TEMPS, b"file"}


@pytest.mark.parametrize("keep_replaced", [True, False])
def test_replaced_versions_are_kept_on_request(place: Place, keep_replaced: bool) -> None:
    place.put(b"file", b"old")
    place.remote.trash = Trash(b"stamp", keep_replaced=keep_replaced)
    succeed(place.remote, upload(b"file", b"new", entry_of(b"old")), b"new")
    kept = place.holds(join(OWN, b"trash/stamp/file"))
    assert kept == (Held(FILE, b"old", 0o640, TIME) if keep_replaced else None)


def test_replaced_foreign_versions_are_always_kept(place: Place) -> None:
    place.mkdir(b"d")
    place.put(b"d/file", b"theirs")
    place.remote.trash = Trash(b"stamp")
    succeed(place.remote, upload(b"d/file", b"ours", entry_of(b"theirs"), foreign=True), b"ours")
    kept = place.holds(join(OWN, b"trash/stamp/d/file"))
    assert kept is not None
    assert kept.content == b"theirs"
    assert place.holds(b"d/file") == Held(FILE, b"ours", 0o644, TIME)


def test_file_and_link_replace_each_other(place: Place) -> None:
    link = Entry(LINK, link=b"nowhere")
    succeed(place.remote, upload(b"name", b"content"), b"content")
    succeed(place.remote, Upload(b"name", link, entry_of(b"content")))
    assert place.holds(b"name") == Held(LINK, b"nowhere")
    succeed(place.remote, upload(b"name", b"again", link), b"again")
    assert place.holds(b"name") == Held(FILE, b"again", 0o644, TIME)
    assert not temps(place)


class _TornSource(MemorySource):
    def verify(self) -> bytes:
        raise TornRead("The test changed it.")


def _missing() -> Source:
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("open_source", "expected"),
    [(lambda: _TornSource(b"torn", b""), TornRead), (_missing, FileNotFoundError)],
    ids=["torn", "vanished"],
)
def test_what_cannot_be_read_whole_is_not_published(
    place: Place, open_source: Callable[[], Source], expected: type[Exception]
) -> None:
    place.put(b"file", b"old")
    place.remote.submit(upload(b"file", b"torn", entry_of(b"old")), open_source)
    (outcome,) = place.remote.wait(DEADLINE)
    assert isinstance(outcome.error, expected)
    assert place.holds(b"file") == Held(FILE, b"old", 0o640, TIME)
    assert not temps(place)


def test_upload_that_cannot_be_placed_leaves_nothing(place: Place) -> None:
    place.mkdir(b"directory")
    assert refused(place.remote, upload(b"directory", b"1"), b"1") == "rename-refused"
    assert refused(place.remote, upload(b"missing/file", b"1"), b"1") == "no-such-file"
    assert place.everything() == {OWN, TEMPS, b"directory"}


def test_mkdir_is_idempotent_and_sets_the_whole_mode(place: Place) -> None:
    for mode in (0o777, 0o777, 0o1770):
        succeed(place.remote, Mkdir(b"d", Entry(DIR, mode=mode)))
        assert place.holds(b"d") == Held(DIR, mode=mode)


def test_mkdir_over_a_file_or_without_parent_is_refused(place: Place) -> None:
    place.put(b"file", b"theirs")
    assert refused(place.remote, Mkdir(b"file", Entry(DIR, mode=0o755))) == "failure"
    assert refused(place.remote, Mkdir(b"no/d", Entry(DIR, mode=0o755))) == "no-such-file"
    assert place.holds(b"file") == Held(FILE, b"theirs", 0o640, TIME)


def test_rename_moves_files_and_whole_directories(place: Place) -> None:
    place.mkdir(b"d")
    place.put(b"d/file", b"1")
    succeed(place.remote, Rename(b"e", b"d", Entry(DIR)))
    succeed(place.remote, Rename(b"file", b"e/file", entry_of(b"1")))
    assert visible(place) == {b"e", b"file"}
    assert place.holds(b"file") == Held(FILE, b"1", 0o640, TIME)


def test_rename_never_replaces(place: Place) -> None:
    place.put(b"a", b"1")
    place.put(b"b", b"2")
    assert refused(place.remote, Rename(b"b", b"a", entry_of(b"1"))) == "failure"
    assert refused(place.remote, Rename(b"c", b"none", entry_of(b"1"))) == "no-such-file"
    assert (place.holds(b"a"), place.holds(b"b")) == (
        Held(FILE, b"1", 0o640, TIME),
        Held(FILE, b"2", 0o640, TIME),
    )


def test_setmeta_sets_what_the_file_system_keeps(place: Place) -> None:
    place.put(b"file", b"1")
    place.mkdir(b"d")
    for _ in range(2):
        succeed(place.remote, SetMeta(b"file", entry_of(b"1", 0o600, TIME + 9)))
        succeed(place.remote, SetMeta(b"d", Entry(DIR, mode=0o711)))
    assert place.holds(b"file") == Held(FILE, b"1", 0o600, TIME + 9)
    assert place.holds(b"d") == Held(DIR, mode=0o711)
    assert refused(place.remote, SetMeta(b"none", entry_of(b"1"))) == "no-such-file"


@pytest.mark.parametrize(
    ("mtime", "expected"), [(-5, 0), (2**32 + 5, 2**32 - 1)], ids=["before 1970", "after 2106"]
)
def test_times_that_do_not_fit_are_clamped(place: Place, mtime: int, expected: int) -> None:
    succeed(place.remote, Upload(b"file", entry_of(b"1", mtime=mtime)), b"1")
    assert place.holds(b"file") == Held(FILE, b"1", 0o644, expected)
    (root, *_) = place.remote.walk(lambda path: True)
    assert root.children[b"file"].mtime_ns == expected * SECOND


def test_delete_keeps_the_version_in_the_trash(place: Place) -> None:
    place.mkdir(b"d")
    for name in (b"d/one", b"d/two"):
        place.put(name, name)
    place.remote.trash = Trash(b"stamp")
    for name in (b"d/one", b"d/two", b"d/one", b"never"):
        succeed(place.remote, Delete(name, entry_of(name)))
    assert visible(place) == {b"d"}
    for name in (b"d/one", b"d/two"):
        kept = Held(FILE, name, 0o640, TIME)
        assert place.holds(join(OWN, b"trash/stamp/" + name)) == kept


def test_delete_without_trash_removes(place: Place) -> None:
    place.put(b"file", b"1")
    place.remote.trash = Trash(b"stamp", keep_deleted=False)
    for _ in range(2):
        succeed(place.remote, Delete(b"file", entry_of(b"1")))
    assert place.everything() == {OWN, TEMPS}


def test_delete_without_trash_still_keeps_what_is_foreign(place: Place) -> None:
    place.put(b"file", b"theirs")
    place.remote.trash = Trash(b"stamp", keep_deleted=False)
    succeed(place.remote, Delete(b"file", entry_of(b"theirs"), foreign=True))
    kept = place.holds(join(OWN, b"trash/stamp/file"))
    assert kept is not None
    assert kept.content == b"theirs"


def test_rmdir_removes_only_what_is_empty(place: Place) -> None:
    place.mkdir(b"d")
    place.put(b"d/file", b"theirs")
    assert refused(place.remote, Rmdir(b"d")) == "failure"
    succeed(place.remote, Delete(b"d/file", entry_of(b"theirs")))
    for _ in range(2):
        succeed(place.remote, Rmdir(b"d"))
    assert not visible(place)


def test_record_sends_nothing(place: Place) -> None:
    before = place.remote.counts
    op = Record(b"file", entry_of(b"1"))
    place.remote.submit(op)
    assert place.remote.wait(DEADLINE) == [Outcome(op, b"", None)]
    assert place.remote.counts == before
    assert place.everything() == {OWN, TEMPS}


def test_many_operations_are_under_way_together(place: Place) -> None:
    paths = {b"%d" % number for number in range(200)}
    for path in paths:
        place.remote.submit(upload(path, path), source(path))
    ended: list[Outcome] = []
    while len(ended) < len(paths):
        outcomes = place.remote.wait(DEADLINE)
        assert outcomes
        ended += outcomes
    assert {outcome.op.path for outcome in ended if outcome.error is None} == paths
    assert visible(place) == paths
    assert place.remote.wait(0) == []


def test_looking_is_no_mutation(place: Place) -> None:
    place.put(b"file", b"1")
    before = place.remote.counts
    place.remote.examine()
    assert list(place.remote.walk(lambda path: False))
    assert place.remote.peek([(b"none", 0, 1)]) == [None]
    assert b"".join(place.remote.content(b"file")) == b"1"
    after = place.remote.counts
    assert after["mutations"] == before["mutations"]
    assert after["requests"] > before["requests"]


def test_content_of_a_missing_file_is_refused_at_once(place: Place) -> None:
    with pytest.raises(RequestError) as caught:
        place.remote.content(b"none")
    assert caught.value.code == "no-such-file"
