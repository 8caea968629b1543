"""Claims: what a broken cycle made is known as ours, and no damage to the file does harm."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import claims as claims_module
from skynet.claims import Claimed, Claims
from skynet.config import MaxDelete
from skynet.errors import SkynetError
from skynet.manifest import Manifest
from skynet.monitor import Event
from skynet.ops import Copy, Delete, Mkdir, Op, Record, Rename, Rmdir, Upload
from skynet.scan import digest_of
from skynet.tree import DIR, Entry, Move, Put
from tests.support.faults import POSIX_RENAME, Act, at, every, no_fault, nth
from tests.support.world import Died, World
from tests.support.worlds import content_entry
from tests.test_crashes import Breaker, before_the_cycle, check_half_way, wanted_files

X, Y = content_entry(b"x", 5), content_entry(b"y", 2_000_000_000)
FOLDER = Entry(DIR, mode=0o755)
MAKING: list[Op] = [
    Mkdir(b"d", FOLDER),
    Upload(b"d/x", X),
    Copy(b"y", b"z", Y, Y),
    Rename(b"n", b"o", X),
]


class Kept:
    """Claims in one file, one process after another, and what they had to tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.claims = Claims(path, self.events.append)

    def again(self) -> Claimed:
        self.claims.close()
        self.claims = Claims(self.path, self.events.append)
        return self.claims.left()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "claims")


MADE = {b"d", b"d/x", b"y", b"n"}


def paths(claimed: Claimed) -> set[bytes]:
    """Of those that are used here, the claimed ones."""
    used = {*MADE, b"later", b"earlier", b"now", b"recorded", b"under way", b"fine"}
    return {path for path in used if claimed.concern(path)}


def unread(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, digest=b"")


def none_recorded(_path: bytes) -> None:
    """As in an index that is empty."""


# What is kept.


def test_what_is_claimed_outlives_the_process(kept: Kept) -> None:
    assert not kept.again()
    kept.claims.add(MAKING)
    kept.claims.add([Upload(b"later", Y)])
    left = kept.again()
    assert paths(left) == MADE | {b"later"}
    if os.name == "posix":
        assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "op",
    [Delete(b"a", X), Rmdir(b"a"), Record(b"a", X), Upload(b"a", X, Y, True)],
)
def test_what_makes_nothing_or_replaces_something_foreign_is_not_claimed(
    kept: Kept, op: Op
) -> None:
    kept.claims.add([op])
    assert not kept.path.exists()


def test_what_content_it_will_be_is_not_claimed(kept: Kept) -> None:
    kept.claims.add([Upload(b"a", X)])
    assert [entry for _, entry in kept.again().origins(b"a", none_recorded)] == [unread(X)]


def test_a_cycle_that_ends_leaves_nothing(kept: Kept) -> None:
    kept.claims.add(MAKING)
    kept.claims.end(left_too=False)
    assert not kept.path.exists()
    kept.claims.add(MAKING)
    assert paths(kept.again()) == MADE


def test_what_earlier_cycles_left_stays_until_it_was_seen(kept: Kept) -> None:
    kept.claims.add([Upload(b"earlier", X)])
    kept.again()
    kept.claims.add([Upload(b"now", X)])
    kept.claims.end(left_too=False)
    assert paths(kept.again()) == {b"earlier"}
    kept.claims.add([Upload(b"now", X)])
    kept.claims.end(left_too=True)
    assert not kept.path.exists()


def test_a_cycle_that_looks_at_no_claims_drops_none(kept: Kept) -> None:
    kept.claims.add([Upload(b"earlier", X)])
    kept.claims.break_off()
    kept.claims.end(left_too=False)
    assert paths(kept.again()) == {b"earlier"}
    Claims(kept.path, kept.events.append).end(left_too=False)
    assert paths(kept.again()) == {b"earlier"}


def test_what_is_recorded_by_now_leaves_a_large_file(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.claims.add([Upload(b"earlier", X)])
    kept.claims.break_off()
    kept.claims.add([Upload(b"recorded", X)])
    kept.claims.renew(list)
    assert kept.path.read_bytes().count(b"recorded") == 1
    monkeypatch.setattr(claims_module, "MAX_OUTDATED", 10)
    kept.claims.add([Upload(b"under way", X)])
    kept.claims.renew(lambda: [Upload(b"under way", X)])
    kept.claims.add([Upload(b"later", X)])
    assert paths(kept.again()) == {b"earlier", b"under way", b"later"}


def test_nothing_is_written_behind_a_group_that_is_torn(kept: Kept) -> None:
    kept.claims.add([Upload(b"earlier", X)])
    with kept.path.open("ab") as file:
        file.write(b"\0\0")
    kept.again()
    kept.claims.add([Upload(b"now", X)])
    assert paths(kept.again()) == {b"earlier", b"now"}


@given(st.data())
def test_damage_costs_claims_and_makes_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kept = Kept(tmp_path_factory.mktemp("claims") / "claims")
    for op in MAKING:
        kept.claims.add([op])
    written = kept.path.read_bytes()
    begin = data.draw(st.integers(0, len(written)))
    end = data.draw(st.integers(begin, len(written)))
    kept.path.write_bytes(written[:begin] + data.draw(st.binary(max_size=20)) + written[end:])
    assert paths(kept.again()) <= {op.path for op in MAKING}


@pytest.mark.parametrize("edit", [Put(b"../a", X), Put(b"a\0", X), Move(b"", b"a")])
def test_what_cannot_be_is_passed_over(kept: Kept, edit: Put | Move) -> None:
    kept.path.write_bytes(claims_module._group([edit, Put(b"fine", X)]))
    assert paths(kept.again()) == {b"fine"}


def test_a_file_that_is_too_large_is_not_read(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.claims.add(MAKING)
    monkeypatch.setattr(claims_module, "MAX_FILE", 10)
    assert not kept.again()


def test_a_disk_that_takes_nothing_is_told_once_and_tried_again(kept: Kept) -> None:
    kept.path.mkdir()
    for _ in range(2):
        kept.claims.add(MAKING)
        kept.claims.end(left_too=True)
    assert [getattr(event, "code", "") for event in kept.events] == ["claims-unwritable"]
    kept.path.rmdir()
    kept.claims.add(MAKING)
    assert paths(kept.again()) == MADE


def test_what_moved_on_is_followed_back_to_where_it_is_recorded() -> None:
    rows = {b"a": (b"i", FOLDER), b"a/x": (b"j", X)}
    claimed = Claimed([Put(b"b/y", Y), Move(b"a", b"b"), Move(b"b", b"c"), Move(b"c", b"a")])
    assert list(claimed.origins(b"c", rows.get)) == [(b"i", FOLDER)]
    assert list(claimed.origins(b"c/x", rows.get)) == [(b"j", X)]
    assert list(claimed.origins(b"c/y", rows.get)) == [(b"", Y)]
    assert not list(claimed.origins(b"elsewhere", none_recorded))
    assert [claimed.concern(path) for path in (b"c/x", b"b", b"elsewhere")] == [True, True, False]


def test_a_way_back_ends_also_where_it_leads_in_itself() -> None:
    claimed = Claimed([Move(b"a", b"z"), Move(b"z/b", b"a")] * 50)
    assert not list(claimed.origins(b"a/theirs", none_recorded))


# In cycles.

ANY_NUMBER = MaxDelete(fraction=1.0, entries=1000)


def moved_directories(base: Path) -> World:
    base.mkdir()
    world = World(base, complete_sync=True, empty_dirs=True)
    world.put({"a": {"x": b"1", "b": {"y": b"2"}}, "e": {"z": b"3"}, "kept": b"4"})
    world.put({"closed": b"5", "touched": b"6"})
    world.sync()
    world.move("closed", "n/closed")
    world.move("touched", "n/touched")
    (world.local / "n/closed").chmod(0o600)
    os.utime(world.local / "n/touched", (5, 5))
    world.move("a", "n/a")
    world.move("n/a/b", "e/b")
    world.put({"n": {"a": {"new": b"5"}, "empty": {}}, "e": {"b": {"link": b"6"}}})
    return world


def is_new(world: World, path: Path) -> bool:
    return not (world.remote / path.relative_to(world.local)).exists()


@pytest.mark.parametrize("make", [before_the_cycle, moved_directories])
def test_what_was_made_before_a_cut_and_is_gone_here_is_known_as_ours(
    tmp_path: Path, make: Callable[[Path], World]
) -> None:
    whole = make(tmp_path / "whole")
    whole.sync()
    held: list[Any] = []
    for number in range(len(whole.asked)):
        world = make(tmp_path / str(number))
        new = [path for path in world.local.iterdir() if is_new(world, path)]
        before, wanted = world.files(), wanted_files(world)
        world.fault = at(number, Act.CUT_AFTER)
        with pytest.raises(SkynetError):
            world.sync()
        world.fault = no_fault
        check_half_way(world, before, wanted)
        for path in new:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        report = world.sync(max_delete=ANY_NUMBER)
        if report.outcome not in ("changed", "in-sync"):
            held.append((number, report.hazards, report.problems))
        else:
            world.check()
            world.quiet()
            assert not list(world.state.rglob("claims"))
    assert held == []


def test_what_moved_before_a_cut_is_told_before_it_is_forgotten_where_it_was(
    tmp_path: Path,
) -> None:
    """Else nothing tells whose it is, if that is cut as well when half of it is recorded."""
    world = World(tmp_path, complete_sync=True)
    world.put({"a": {"b": {"x": b"1"}}, "c": {"y": b"2"}})
    world.sync()
    world.move("a", "moved")
    world.fault = nth("RENAME", 0, Act.CUT_AFTER)
    with pytest.raises(SkynetError):
        world.sync()
    assert (world.remote / "moved/b/x").exists()
    world.move("c", "d")
    world.fault = lambda _, request: (
        Act.CUT_BEFORE if request.kind == "RENAME" and request.text.endswith(b"/c") else None
    )
    with pytest.raises(SkynetError):
        world.sync()
    (path,) = world.state.rglob("claims")
    left = Claims(path, lambda _: None).left()
    (origin,) = left.origins(b"moved/b/x", none_recorded)
    assert origin[1].digest == digest_of([b"1"])
    world.fault = no_fault
    shutil.rmtree(world.local / "moved/b")
    assert world.sync(max_delete=ANY_NUMBER).outcome == "changed"
    world.check()
    world.quiet()
    assert not list(world.state.rglob("claims"))


def test_what_is_told_stays_claimed_until_the_cycle_ends(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "MAX_OUTDATED", 1)
    kept.claims.tell([Record(b"x", X, first=True), Record(b"gone", None, first=True), *MAKING])
    kept.claims.add(MAKING)
    kept.claims.renew(list)
    assert list(kept.claims.left().origins(b"x", none_recorded)) == [(b"", X)]
    assert not kept.claims.left().concern(b"gone")
    kept.claims.end(left_too=True)
    assert not kept.again()


def test_what_was_made_before_a_cut_and_is_still_here_is_not_sent_again(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"kept": b"1", "moved": b"2"})
    world.sync()
    world.move("moved", "new/place")
    world.put({"new": {"file": b"3" * 100}})
    world.fault = nth("WRITE", RECORD, Act.CUT_BEFORE)
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    assert world.files() == {"kept": b"1", "new/place": b"2", "new/file": b"3" * 100}
    assert world.sync().counts["bytes"] == 0
    world.check()
    world.quiet()


def test_files_that_look_alike_are_told_apart_after_a_cut(tmp_path: Path) -> None:
    whole = shifted_frames(tmp_path / "whole")
    whole.sync(max_delete=ANY_NUMBER)
    for number in range(len(whole.asked)):
        world = shifted_frames(tmp_path / str(number))
        world.fault = at(number, Act.CUT_AFTER)
        with pytest.raises(SkynetError):
            world.sync()
        world.fault = no_fault
        world.sync()
        world.check()
        world.quiet()


def shifted_frames(base: Path) -> World:
    """Equally large files of one moment, of which each gets the name of the next, and a swap."""
    base.mkdir()
    world = World(base, complete_sync=True)
    world.put({f"frame{n}": b"%d" % n for n in range(6)} | {"a": b"x", "b": b"y"})
    world.sync()
    for n in reversed(range(6)):
        world.move(f"frame{n}", f"frame{n + 1}")
    world.move("a", "t")
    world.move("b", "a")
    world.move("t", "b")
    return world


def test_a_file_that_was_renamed_onto_another_is_not_sent_again(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"a": b"1" * 100})
    world.put({"b": b"2" * 200})
    world.sync()
    world.move("a", "b")
    world.fault = nth("WRITE", 1, Act.CUT_BEFORE)
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    assert world.files() == {"b": b"1" * 100}
    assert world.sync().counts["bytes"] == 0
    world.check()
    world.quiet()


RECORD = 2  # of the WRITEs of a cycle that sends one small file: after the lease and the file


def broken_before_it_is_recorded(world: World, name: str, **options: Any) -> None:
    """A new file reaches the remote, the manifest does not learn of it, and here it goes again."""
    world.put({name: b"new"})
    world.fault = nth("WRITE", RECORD, Act.CUT_BEFORE)
    with pytest.raises(SkynetError):
        world.sync(**options)
    world.fault = no_fault
    assert world.files()[name] == b"new"
    world.put({name: None})


def synced(base: Path) -> World:
    world = World(base, complete_sync=True)
    world.put({"kept": b"1", "d": {"kept": b"2"}})
    world.sync()
    return world


def test_a_saved_plan_that_knows_nothing_of_them_leaves_the_claims(tmp_path: Path) -> None:
    world = synced(tmp_path)
    world.put({"d": {"kept": None}})
    saved = world.plan(bind=True).saved
    broken_before_it_is_recorded(world, "later", complete_sync=False)
    assert world.sync(saved=saved).outcome == "changed"
    assert world.sync().outcome == "changed"
    world.check()


def test_an_audit_that_could_not_look_everywhere_leaves_the_claims(tmp_path: Path) -> None:
    world = synced(tmp_path)
    broken_before_it_is_recorded(world, "d/later")
    world.put({"new": b"4"})
    world.fault = lambda number, request: (
        3 if request.kind == "OPENDIR" and request.text.endswith(b"/d") else None
    )
    assert world.sync().outcome == "problems"
    world.fault = no_fault
    assert world.sync().outcome == "changed"
    world.check()


def test_what_a_broken_first_run_made_is_not_deleted_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, complete_sync=True)
    files = {f"{n}": b"%d" % n for n in range(20)}
    world.put(files)
    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(
            Manifest,
            "append",
            Breaker(0, Died("dead"), late=False, sticky=True).around(Manifest.append),
        )
        world.sync()
    assert world.files() == files
    world.put(dict.fromkeys(files) | {"other": b"1"})
    report = world.sync()
    assert [hazard.code for hazard in report.hazards] == ["mass-delete"]
    assert world.files() == files


def test_what_somebody_else_puts_there_is_not_taken_for_ours(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"new": b"2"})
    world.fault = every(POSIX_RENAME, Act.CUT_AFTER)
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    world.put({"new": None})
    world.put_remote({"new": b"somebody else's"})
    report = world.sync()
    assert report.outcome == "held"
    assert report.hazards[0].paths == [b"new"]
