"""First contact with a target that has files, and manifests that are not as we left them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest

from skynet.errors import LinkLost, SkynetError, VersionError
from skynet.manifest_frames import CHECKPOINT, VERSION, preamble
from skynet.monitor import Notice
from tests.support.faults import Act, at, no_fault
from tests.support.world import SECOND, Link, World, frozen

MOMENT = 1_600_000_000 * SECOND
HALF = SECOND // 2
TREE = {"a": b"alpha", "d": {"b": b"beta", "e": {"c": b"gamma"}}, "l": Link("d/b")}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, complete_sync=True)


@pytest.fixture
def synced(world: World) -> World:
    world.put(TREE)
    world.sync()
    world.put({"a": b"alpha two"})
    world.sync()
    world.check()
    return world


def own(world: World, name: str) -> Path:
    """The one file of skynet's own whose name begins so."""
    (found,) = (world.remote / ".skynet").glob(name + "*")
    return found


# Adoption.


@pytest.mark.parametrize("adopt", ["stat", "content"])
def test_what_is_there_already_is_adopted_and_not_sent(world: World, adopt: str) -> None:
    world.put(TREE, at=MOMENT + HALF)
    world.put_remote(TREE, at=MOMENT)  # a listing has whole seconds
    report = world.sync(adopt=adopt)
    assert report.counts["bytes"] == 0
    assert report.done["upload"] == 0
    world.check()
    world.quiet()
    world.quiet(audit=False)


def test_what_differs_in_size_or_time_is_sent(world: World) -> None:
    world.put({"size": b"longer", "time": b"same", "same": b"same"}, at=MOMENT)
    world.put_remote({"size": b"long", "same": b"same"}, at=MOMENT)
    world.put_remote({"time": b"SAME"}, at=MOMENT + SECOND)
    assert world.sync().done["upload"] == 2
    world.check()
    assert world.trashed() == {"size": b"long", "time": b"SAME"}
    world.quiet()


def test_adoption_by_content_does_not_trust_the_times(world: World) -> None:
    world.put({"a": b"12345", "b": b"same"}, at=MOMENT)
    world.put_remote({"a": b"54321"}, at=MOMENT)
    world.put_remote({"b": b"same"}, at=MOMENT + 7 * SECOND)
    report = world.sync(adopt="content")
    assert report.done["upload"] == 1
    assert report.done["setmeta"] == 1
    world.check()
    assert world.trashed() == {"a": b"54321"}
    world.quiet()


def test_adoption_by_content_reads_a_long_file_whole(world: World) -> None:
    content = random.Random(1).randbytes(9_000_000)  # more than one conversation reads
    world.put({"a": content, "b": content[:-1] + b"!"}, at=MOMENT)
    world.put_remote({"a": content, "b": content}, at=MOMENT)
    report = world.sync(adopt="content")
    assert report.done["upload"] == 1
    world.check()


def test_an_edit_of_an_adopted_file_is_sent(world: World) -> None:
    world.put(TREE, at=MOMENT)
    world.put_remote(TREE, at=MOMENT)
    world.sync()
    world.put({"a": b"ALPHA"})
    assert world.sync(audit=False).done["upload"] == 1
    world.check()


def test_an_adopted_file_that_is_touched_is_not_taken_for_known(world: World) -> None:
    world.put({"a": b"12345"}, at=MOMENT)
    world.put_remote({"a": b"54321"}, at=MOMENT)  # adopted by mistake: size and time agree
    assert world.sync().counts["bytes"] == 0
    world.put({"a": b"12345"}, at=MOMENT + SECOND)
    world.sync()
    world.check()


@pytest.mark.parametrize("audit", [True, False])
def test_an_adopted_file_whose_mode_has_changed_is_not_sent(world: World, audit: bool) -> None:
    world.put({"a": b"12345"}, at=MOMENT)
    world.put_remote({"a": b"12345"}, at=MOMENT)
    world.sync()
    (world.local / "a").chmod(0o640)
    assert world.sync(audit=audit).done == {"setmeta": 1}
    world.check()
    world.quiet()


def test_files_of_others_are_left_alone_without_complete_sync(world: World) -> None:
    world.put({"a": b"1"})
    world.put_remote({"theirs": b"2", "dir": {"theirs": b"3"}})
    world.sync(complete_sync=False)
    world.check({"theirs": b"2", "dir/theirs": b"3"})
    world.quiet(complete_sync=False)


def test_files_of_others_are_left_alone_if_told_to(world: World) -> None:
    world.put({"a": b"1"})
    world.put_remote({"theirs": b"2", "dir": {"theirs": b"3"}})
    world.sync(foreign="keep")
    world.check({"theirs": b"2", "dir/theirs": b"3"})
    world.quiet(foreign="keep")


def test_files_of_others_hold_the_plan_in_complete_sync(world: World) -> None:
    world.put({"a": b"1"})
    world.put_remote({"theirs": b"2", "dir": {"theirs": b"3"}})
    before = frozen(world.remote)
    held = world.sync()
    assert held.outcome == "held"
    assert [hazard.code for hazard in held.hazards] == ["foreign-files"]
    assert frozen(world.remote) == before
    assert world.sync(approve=held.hazards[0].approve).outcome == "changed"
    world.check()
    assert world.trashed() == {"theirs": b"2", "dir/theirs": b"3"}
    world.quiet()


def test_files_of_others_go_to_the_trash_if_told_to(world: World) -> None:
    world.put({"a": b"1"})
    world.put_remote({"theirs": b"2", "dir": {"theirs": b"3"}})
    world.sync(foreign="trash")
    world.check()
    assert world.trashed() == {"theirs": b"2", "dir/theirs": b"3"}


@pytest.mark.parametrize("complete_sync", [True, False])
def test_a_conflicting_file_of_others_goes_to_the_trash(world: World, complete_sync: bool) -> None:
    world.put({"a": b"ours", "d": {"b": b"ours too"}})
    world.put_remote({"a": b"theirs", "d": {"b": b"theirs too"}})
    world.sync(complete_sync=complete_sync)
    world.check()
    assert world.trashed() == {"a": b"theirs", "d/b": b"theirs too"}
    world.quiet()


def test_a_conflicting_file_is_kept_where_hard_links_are_not(world: World) -> None:
    world.without = frozenset({b"hardlink@openssh.com", b"posix-rename@openssh.com"})
    world.put({"a": b"ours"})
    world.put_remote({"a": b"theirs"})
    world.sync()
    world.check()
    assert world.trashed() == {"a": b"theirs"}


def test_a_directory_of_others_in_the_way_of_a_file_is_a_problem(world: World) -> None:
    world.put({"a": b"ours", "z": b"1"})
    world.put_remote({"a": {"theirs": b"2"}})
    report = world.sync(complete_sync=False)
    assert [(p.path, p.code) for p in report.problems] == [(b"a", "directory-in-the-way")]
    assert world.files() == {"a/theirs": b"2", "z": b"1"}


# Another mirror's target.


def test_the_target_of_another_mirror_is_held_until_approved(synced: World, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = World(tmp_path / "second", complete_sync=True)
    other.remote = synced.remote
    other.put({"mine": b"1", "a": b"mine"})
    before = frozen(synced.remote)
    for _ in range(2):
        held = other.sync()
        assert held.outcome == "held"
        assert held.hazards[0].code == "other-mirror"
        assert os.fsdecode(synced.local) in held.hazards[0].message
        assert frozen(synced.remote) == before
    assert other.sync(approve=held.hazards[0].approve).outcome == "changed"
    other.check()
    other.quiet()
    for _ in range(2):
        held = synced.sync()
        assert held.outcome == "held", "it is not the first one's any more"
        assert held.hazards[0].code == "other-mirror"


def test_a_second_machine_with_the_same_source_path_is_another_mirror(synced: World) -> None:
    synced.lose_state()
    synced.host = "there"
    synced.put({"a": b"from there"})
    held = synced.sync()
    assert held.outcome == "held"
    assert held.hazards[0].code == "other-mirror"


def test_two_targets_of_one_source_know_nothing_of_each_other(
    synced: World, tmp_path: Path
) -> None:
    first = synced.remote
    synced.remote = tmp_path / "elsewhere"
    synced.sync()
    synced.check()
    synced.remote = first
    synced.quiet()


# Damaged manifests: never a crash, never a delete, and the next cycle is right.


def recovers(world: World) -> None:
    """Run the cycle on a damaged manifest, with a delete waiting, then the one after it."""
    before = world.files()
    world.put({"d": {"b": None}, "new": b"new"})
    try:
        report = world.sync(foreign="trash")
    except VersionError as error:
        pytest.fail(f"taken for a newer version: {error}")
    assert report.outcome in ("changed", "in-sync"), (report.problems, report.hazards)
    assert world.files() == {**before, "new": b"new"}, "nothing is deleted, and new files go on"
    assert world.trashed() == {}
    after = world.sync(foreign="trash")
    assert after.outcome in ("changed", "in-sync"), (after.problems, after.hazards)
    world.check()
    world.quiet()


class Snapshot:
    """A synced world that can be brought back, since every damage needs one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._copy = world.base / "copy"
        self._copy.mkdir()
        for place in (world.local, world.remote, world.state):
            shutil.copytree(place, self._copy / place.name, symlinks=True)

    def restore(self) -> None:
        for place in (self.world.local, self.world.remote, self.world.state):
            shutil.rmtree(place)
            shutil.copytree(self._copy / place.name, place, symlinks=True)


@pytest.mark.parametrize("name", ["manifest", "log"])
def test_a_truncated_manifest(synced: World, name: str) -> None:
    snapshot = Snapshot(synced)
    whole = own(synced, name).read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 25)):
        snapshot.restore()
        own(synced, name).write_bytes(whole[:length])
        survives(synced, f"{name} cut at {length}")


@pytest.mark.parametrize("name", ["manifest", "log"])
def test_one_bit_flipped(synced: World, name: str) -> None:
    snapshot = Snapshot(synced)
    whole = own(synced, name).read_bytes()
    chosen = random.Random(name)
    for _ in range(100):
        bit = chosen.randrange(len(whole) * 8)
        snapshot.restore()
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        own(synced, name).write_bytes(flipped)
        survives(synced, f"bit {bit} of {name}")


def survives(world: World, what: str) -> None:
    """A delete waits, and the state is lost, so that the whole manifest is read."""
    world.lose_state()
    before = world.files()
    (world.local / "d/b").unlink()
    try:
        report = world.sync(foreign="trash")
    except SkynetError as error:
        assert "manifest" in str(error), what
        assert world.files() == before, what
        return
    if any(isinstance(e, Notice) and e.code == "manifest-damaged" for e in world.events):
        assert world.files() == before, what
        assert report.outcome == "changed", what
        world.sync(foreign="trash")
    world.check()


def test_an_empty_manifest(synced: World) -> None:
    own(synced, "manifest").write_bytes(b"")
    recovers(synced)


def test_a_manifest_that_is_something_else(synced: World) -> None:
    own(synced, "manifest").write_bytes(b"{}" * 5000)
    recovers(synced)


def test_a_manifest_without_its_log(synced: World) -> None:
    own(synced, "log").unlink()
    recovers(synced)


def test_a_log_without_its_manifest_is_first_contact(synced: World) -> None:
    own(synced, "manifest").unlink()
    report = synced.sync()
    assert report.counts["bytes"] == 0
    synced.check()
    synced.quiet()
    synced.quiet(audit=False)


def test_a_vanished_reserved_directory_is_first_contact(synced: World) -> None:
    shutil.rmtree(synced.remote / ".skynet")
    assert synced.sync().counts["bytes"] == 0
    synced.check()
    synced.quiet()


def test_a_vanished_target_is_filled_again(synced: World) -> None:
    shutil.rmtree(synced.remote)
    synced.sync()
    synced.check()
    synced.quiet()


def test_the_manifest_of_a_newer_skynet_is_left_alone(synced: World) -> None:
    checkpoint = own(synced, "manifest").read_bytes()[12:28]
    current = preamble(CHECKPOINT, checkpoint)
    newer = _newer(current)
    own(synced, "manifest").write_bytes(newer + b"what only the newer one understands")
    synced.put({"a": b"changed"})
    before = frozen(synced.remote)
    for dry_run in (True, False):
        with pytest.raises(VersionError, match="Update skynet"):
            synced.sync(dry_run=dry_run)
    assert frozen(synced.remote) == before


def _newer(current: bytes) -> bytes:
    """The same preamble of the next version, with its check right."""
    start = current[:8] + (VERSION + 1).to_bytes(4, "big") + current[12:28]
    return start + blake2b(start, digest_size=4).digest()


@contextmanager
def older_manifest(world: World) -> Iterator[None]:
    """In the end it is what it was in the beginning, as from a backup."""
    own_files = world.remote / ".skynet"
    old = {path.name: path.read_bytes() for path in own_files.glob("[ml]*")}
    yield
    for path in own_files.glob("[ml]*"):
        path.unlink()
    for name, content in old.items():
        (own_files / name).write_bytes(content)


@pytest.mark.parametrize("step", range(40))
def test_an_older_manifest_is_not_relied_on_before_all_was_looked_at(
    synced: World, step: int
) -> None:
    with older_manifest(synced):
        synced.move("d/b", "n/b")
        synced.put({"late": b"1"})
        synced.sync()
    before = synced.files()
    synced.put({"late": b"2", "d": None})
    synced.fault = at(step, Act.CUT_BEFORE)
    with pytest.raises(LinkLost):
        synced.sync(audit=False)
    synced.fault = no_fault
    assert not synced.sync(audit=False).problems
    assert before.items() - synced.files().items() == {("late", b"1")}
    synced.sync(audit=False)
    synced.check()
    synced.quiet()


def test_an_older_manifest_is_not_relied_on_while_a_person_is_asked(synced: World) -> None:
    with older_manifest(synced):
        synced.move("d/b", "n/b")
        synced.sync()
    synced.put({"a": b""}, at=(synced.local / "a").stat().st_mtime_ns)  # as by a power loss
    assert not synced.approve(audit=False).problems
    synced.check()
    synced.quiet()


def test_an_older_manifest_that_came_back_deletes_nothing(synced: World) -> None:
    with older_manifest(synced):
        synced.put({"late": b"1"})
        synced.sync()
    synced.put({"d": {"b": None}})
    before = synced.files()
    synced.sync(audit=False)
    assert synced.files() == before
    synced.sync(foreign="trash")
    synced.check()
    synced.quiet()


def test_a_damaged_manifest_is_told(synced: World) -> None:
    own(synced, "manifest").write_bytes(b"")
    synced.sync()
    notices = [event for event in synced.events if isinstance(event, Notice)]
    assert [notice.code for notice in notices] == ["manifest-damaged"]
    assert "nothing is deleted" in notices[0].message


def test_a_dry_run_on_a_damaged_manifest_writes_nothing(synced: World) -> None:
    own(synced, "manifest").write_bytes(b"")
    before = frozen(synced.base)
    assert synced.plan().outcome == "planned"
    assert frozen(synced.base) == before
