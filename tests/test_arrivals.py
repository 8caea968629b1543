"""What changes while a plan is carried out joins it, unless it is in the way or needs a person."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet.apply import WAIT_SECONDS
from skynet.config import MaxDelete
from skynet.cycle import Report
from skynet.index import Index
from skynet.manifest import Manifest
from skynet.tree import Entry, edit
from tests.support.hands import Hand, small_files_are_copied
from tests.support.memory_world import MemoryWorld
from tests.support.sessions import Arriving, Marks, Sitting, sitting
from tests.support.world import World

VIDEO = b"video"
ANY_DELETES = MaxDelete(1.0, 1_000_000)


class Studio:
    """A session in whose cycles a large upload runs for as long as a test wants.

    world: of its remote. arriving: what has changed meanwhile.
    """

    def __init__(self, world: MemoryWorld, session: Sitting) -> None:
        self.world = world
        self.session = session
        self.arriving = Arriving()

    def while_it_runs(self, act: Callable[[], Marks], rounds: int = 20, **wanted: Any) -> Report:
        """A cycle with the video; act() while it runs, which goes on for some rounds after it.

        wanted: more fields of its Request.
        """
        remote = self.world.remote_now
        self.world.put({"video": b"large"})
        remote.slow = VIDEO.__eq__
        waits = 0

        def meanwhile() -> None:
            nonlocal waits
            waits += 1
            if waits == 3:
                self.arriving.mark(act())
            if waits == 3 + rounds:
                remote.slow = lambda path: False

        remote.meanwhile = meanwhile
        report = self.session.cycle(marks={VIDEO: False}, arrivals=self.arriving, **wanted)
        remote.meanwhile = lambda: None
        assert waits >= 3 + rounds
        return report

    def seen_before_the_video(self, *paths: bytes) -> bool:
        """Whether the paths were done in the last cycle, and before the video was."""
        done = [path for _, path in self.world.remote_now.calls]
        last = len(done) - 1 - done[::-1].index(VIDEO)
        return all(path in done and done.index(path) < last for path in paths)

    def finish(self) -> None:
        """What had to wait is done in a cycle of its own; then all is right."""
        if self.arriving.pending:
            self.session.cycle(marks=self.arriving.take_all())
        self.session.quiet()
        self.session.quiet(audit=True)
        self.world.check_exactly()
        assert_recorded(self.world, self.session)


def assert_recorded(world: MemoryWorld, session: Sitting) -> None:
    """The index and the manifest say the same, and that of what is there."""
    index = session.session.memory.index
    known = dict(index.entries())
    loaded = Manifest(world.remote_now, lambda n: bytes(n)).load()
    assert loaded is not None
    manifest: dict[bytes, Entry] = dict(loaded.entries)
    edit(manifest, loaded.edits)
    assert known == manifest
    assert known.keys() == world.there().keys()
    assert all(entry.size == len(world.there()[path].content) for path, entry in known.items())


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    world = MemoryWorld(tmp_path, complete_sync=True, empty_dirs=True, max_delete=MaxDelete(1.0, 4))
    world.put({"a": b"1", "d": {"b": b"22"}, "video": b"old"})
    world.put({"many": {f"{number}": b"%d" % number for number in range(10)}})
    with sitting(world) as session:
        session.cycle(audit=True)
        session.quiet()
        yield Studio(world, session)


# What joins.


def test_what_changes_beside_a_large_upload_is_there_before_it_ends(studio: Studio) -> None:
    def act() -> Marks:
        studio.world.put({"new": {"f": b"f"}, "a": b"changed", "d": {"b": None}})
        studio.world.move("many/1", "moved")
        return {b"new": True, b"a": False, b"d/b": False, b"many/1": False, b"moved": False}

    report = studio.while_it_runs(act)
    assert report.outcome == "changed"
    assert report.done == {"upload": 3, "mkdir": 1, "rename": 1, "delete": 1, "bytes": 13}
    assert studio.seen_before_the_video(b"new/f", b"a", b"d/b", b"moved")
    assert not studio.arriving.pending
    studio.finish()


def test_it_is_recorded_before_the_large_upload_ends(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []

    def act() -> Marks:
        studio.world.put({"new": b"1"})
        return {b"new": False}

    index, plain = studio.session.session.memory.index, Index.record

    def record(*args: object) -> None:
        plain(*args)  # type: ignore[arg-type]  # passed on as they come
        known.append(index.entry(b"new") is not None and index.entry(VIDEO) is not None)

    monkeypatch.setattr(Index, "record", record)
    studio.while_it_runs(act, rounds=100)
    assert len(known) > 1
    studio.finish()


def test_it_joins_an_audited_cycle_of_everything_too(studio: Studio) -> None:
    remote, world = studio.world.remote_now, studio.world
    world.put({"video": b"large"})
    remote.slow = VIDEO.__eq__
    acts = [lambda: None, lambda: None, lambda: world.put({"new": b"1"})]

    def meanwhile() -> None:
        if acts:
            acts.pop(0)()
            studio.arriving.mark({b"new": False} if not acts else {})
        elif b"new" in remote.tree:
            remote.slow = lambda path: False

    remote.meanwhile = meanwhile
    report = studio.session.cycle(audit=True, arrivals=studio.arriving)
    assert report.done["upload"] == 2
    assert report.was_whole
    assert len([call for call in remote.calls if call[0] == "walk"]) == 2, "the first, and this one"
    studio.finish()


# What waits.


def test_what_is_under_way_waits(studio: Studio) -> None:
    """The file itself, the directory it is in, and everything."""
    world = studio.world

    def act() -> Marks:
        world.put({"new": b"1"})
        return {b"new": False, VIDEO: False, b"": True}

    report = studio.while_it_runs(act)
    assert report.outcome == "changed"
    assert studio.seen_before_the_video(b"new"), "and nothing else has to wait for it"
    assert studio.arriving.put_backs == 0
    assert studio.arriving.pending == {VIDEO: False, b"": True}
    studio.finish()


def test_a_move_onto_what_is_under_way_is_right_in_the_end(studio: Studio) -> None:
    def act() -> Marks:
        (studio.world.local / "a").rename(studio.world.local / "video")
        return {b"a": False, VIDEO: False}

    report = studio.while_it_runs(act)
    assert report.outcome in ("changed", "problems")
    studio.finish()


def test_what_a_person_must_agree_to_waits_and_is_put_back(studio: Studio) -> None:
    names = [str(number) for number in range(9)]

    def act() -> Marks:
        studio.world.put({"many": dict.fromkeys(names)})
        return {b"many/" + name.encode(): False for name in names}

    report = studio.while_it_runs(act)
    assert report.outcome == "changed"
    assert report.done["delete"] == 0
    assert studio.arriving.put_backs
    assert len(studio.arriving.pending) == 9
    held = studio.session.cycle(marks=studio.arriving.take_all())
    assert [hazard.code for hazard in held.hazards] == ["mass-delete"]
    studio.session.cycle(approve=held.hazards[0].approve)
    studio.finish()


def test_a_wipe_that_joins_in_drops_is_held(studio: Studio) -> None:
    remote, world, arriving = studio.world.remote_now, studio.world, studio.arriving
    names = iter(range(8))

    def meanwhile() -> None:
        number = next(names, None)
        if number is None:
            remote.slow = lambda path: False
            return
        world.monotonic += 10 * WAIT_SECONDS
        world.put({"many": {str(number): None}})
        arriving.mark({b"many/%d" % number: False})

    world.put({"video": b"large"})
    remote.slow, remote.meanwhile = VIDEO.__eq__, meanwhile
    report = studio.session.cycle(marks={VIDEO: False}, arrivals=arriving)
    assert report.done["delete"] <= 4
    assert arriving.put_backs
    assert b"many/7" in world.there()


def test_where_a_link_leads_elsewhere_by_now_it_waits_for_an_audit(studio: Studio) -> None:
    remote = studio.world.remote_now

    def act() -> Marks:
        remote.tree[b"d"] = Entry("l", link=b"/elsewhere")
        studio.world.put({"d": {"b": b"changed"}})
        studio.world.monotonic += 3600
        return {b"d/b": False}

    studio.while_it_runs(act)
    assert studio.arriving.put_backs
    assert b"d/b" in studio.arriving.pending


# What is told.


def test_problems_of_what_joins_are_told(studio: Studio) -> None:
    def act() -> Marks:
        (studio.world.local / "dark").mkdir()
        (studio.world.local / "dark").rmdir()
        (studio.world.local / "a").unlink()
        (studio.world.local / "a").symlink_to("x")
        return {b"a": False, b"dark": True}

    studio.session.session.mirror = studio.world.mirror(symlinks="skip", empty_dirs=True)
    report = studio.while_it_runs(act)
    assert [(p.path, p.code) for p in report.problems] == [(b"a", "not-mirrored")]
    assert report.outcome == "problems"


@pytest.mark.parametrize("then", [b"another", None])
def test_a_file_that_failed_and_was_looked_at_again_is_no_problem(
    studio: Studio, then: bytes | None
) -> None:
    """It changed while it was sent, or went; what it is now joins."""
    world, remote = studio.world, studio.world.remote_now
    world.put({"new": b"1"})
    remote.slow = lambda path: path in (VIDEO, b"new")
    waits = 0

    def meanwhile() -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            world.put({"new": then})
            studio.arriving.mark({b"new": False})
            remote.slow = VIDEO.__eq__
        if waits == 20:
            remote.slow = lambda path: False

    world.put({"video": b"large"})
    remote.meanwhile = meanwhile
    marks = {VIDEO: False, b"new": False}
    report = studio.session.cycle(marks=marks, arrivals=studio.arriving)
    assert studio.seen_before_the_video(b"new")
    assert report.problems == []
    assert report.outcome == "changed"
    studio.finish()


def test_files_that_are_still_written_are_told(studio: Studio) -> None:
    def grow() -> Marks:
        studio.world.put({"growing": b"1"})
        return {b"growing": False}

    report = studio.while_it_runs(grow, is_unsettled=lambda path, mtime_ns: path == b"growing")
    assert report.unsettled == [b"growing"]
    assert b"growing" not in studio.world.there()


# Interleavings.


class Bustle:
    """Changes at random moments of cycles, which take them up as they come."""

    def __init__(self, world: MemoryWorld, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.hand = Hand(world.local, self.chance)
        self.arriving = Arriving()
        self.left = self.chance.randrange(1, 12)
        self._slow: dict[bytes, bool] = {}

    def happen(self) -> None:
        """At every wait: perhaps a change, and some of what is slow goes on."""
        while self.left and self.chance.random() < 0.5:
            self.left -= 1
            self.arriving.mark(self.hand.change())
        self._slow = {path: self.chance.random() < 0.5 for path in self._slow}

    def is_slow(self, path: bytes) -> bool:
        return self._slow.setdefault(path, self.chance.random() < 0.5)


@given(st.integers(0, 2**32))
@settings(max_examples=200)
def test_whatever_comes_whenever_all_is_right_in_the_end(seed: int) -> None:
    with tempfile.TemporaryDirectory() as base, small_files_are_copied():
        world = MemoryWorld(Path(base), complete_sync=True, empty_dirs=True, max_delete=ANY_DELETES)
        bustle = Bustle(world, seed)
        world.put({"first": b"1"})
        bustle.hand.contents.add(b"1")
        bustle.hand.grow(bustle.chance.randrange(8))
        with sitting(world) as session:
            remote = world.remote_now
            remote.slow, remote.meanwhile = bustle.is_slow, bustle.happen
            session.cycle(audit=bustle.chance.random() < 0.5, arrivals=bustle.arriving)
            bustle.left += 3
            for _ in range(30):
                report = session.cycle(marks=bustle.arriving.take_all(), arrivals=bustle.arriving)
                # What failed since it changed meanwhile has a mark, or is looked at again.
                bustle.arriving.mark({problem.path: True for problem in report.problems})
                contents = {node.content for node in world.there().values()}
                assert contents <= bustle.hand.contents | {b""}
                if not bustle.arriving.pending:
                    break
            remote.meanwhile, remote.slow = lambda: None, lambda path: False
            session.cycle()  # what was parked when an exchange failed has no mark
            session.quiet()
            session.quiet(audit=True)
            world.check_exactly()
            assert_recorded(world, session)


def test_with_a_real_server_it_joins_too(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"a": b"1"})
    arriving = Arriving()

    def a_picture_comes() -> None:
        world.put({"picture": b"2", "a": None})
        arriving.mark({b"picture": False, b"a": False})

    with sitting(world) as session:
        session.cycle(audit=True)
        world.put({"video": bytes(1 << 20)})
        world.at_open(b"tmp", a_picture_comes)
        session.cycle(marks={VIDEO: False}, arrivals=arriving)
        session.cycle(marks=arriving.take_all())
        session.quiet(audit=True)
    world.check()
