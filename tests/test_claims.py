"""Claims: what a broken cycle made is known as ours, and no damage to the file does harm."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import claims as claims_module
from skynet.claims import Claimed, Claims
from skynet.config import MaxDelete
from skynet.errors import SkynetError
from skynet.monitor import Event
from skynet.ops import Copy, Delete, Mkdir, Op, Record, Rename, SetMeta, Upload
from skynet.tree import DIR, Entry, Move, Put
from tests.support.faults import Act, at, no_fault, nth
from tests.support.world import World
from tests.support.worlds import content_entry
from tests.test_crashes import before_the_cycle, check_half_way, wanted_files

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


def paths(claimed: Claimed) -> set[bytes]:
    return {*claimed.made, *claimed.moved}


def none_recorded(_path: bytes) -> None:
    """As in an index that is empty."""


# What is kept.


def test_what_is_claimed_outlives_the_process(kept: Kept) -> None:
    assert not kept.again()
    kept.claims.add(MAKING)
    kept.claims.add([Upload(b"later", Y)])
    left = kept.again()
    assert paths(left) == {b"d", b"d/x", b"y", b"n", b"later"}
    assert left.made[b"d/x"] == [X]
    assert left.moved[b"n"] == [b"o"]
    if os.name == "posix":
        assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "op", [Upload(b"a", X, Y), Copy(b"a", b"b", X, X, Y), Delete(b"a", X), SetMeta(b"a", X)]
)
def test_what_is_recorded_already_needs_no_claim(kept: Kept, op: Op) -> None:
    kept.claims.add([op, Record(b"a", X)])
    assert not kept.path.exists()


def test_what_takes_the_place_of_something_foreign_is_claimed(kept: Kept) -> None:
    kept.claims.add([Upload(b"a", X, Y, foreign=True)])
    assert paths(kept.again()) == {b"a"}


def test_a_cycle_that_ends_leaves_nothing(kept: Kept) -> None:
    kept.claims.add(MAKING)
    kept.claims.end(audited=False)
    assert not kept.path.exists()
    kept.claims.add(MAKING)
    assert paths(kept.again()) == {b"d", b"d/x", b"y", b"n"}


def test_only_an_audit_ends_the_claims_of_earlier_cycles(kept: Kept) -> None:
    kept.claims.add([Upload(b"earlier", X)])
    kept.again()
    kept.claims.add([Upload(b"now", X)])
    kept.claims.end(audited=False)
    assert paths(kept.again()) == {b"earlier"}
    kept.claims.add([Upload(b"now", X)])
    kept.claims.end(audited=True)
    assert not kept.path.exists()


def test_what_is_recorded_by_now_leaves_a_large_file(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.claims.add([Upload(b"earlier", X)])
    kept.again()
    kept.claims.add([Upload(b"recorded", X)])
    kept.claims.renew(list)
    assert paths(kept.claims.left()) == {b"earlier", b"recorded"}
    monkeypatch.setattr(claims_module, "MAX_OUTDATED", 10)
    kept.again()
    kept.claims.add([Upload(b"under way", X)])
    kept.claims.renew(lambda: [Upload(b"under way", X)])
    kept.claims.add([Upload(b"later", X)])
    assert paths(kept.again()) == {b"earlier", b"recorded", b"under way", b"later"}


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


def test_a_disk_that_takes_nothing_is_told_once_and_stops_nothing(kept: Kept) -> None:
    kept.path.mkdir()
    for _ in range(2):
        kept.claims.add(MAKING)
        kept.claims.renew(lambda: MAKING)
        kept.claims.end(audited=True)
    assert [getattr(event, "code", "") for event in kept.events] == ["claims-unwritable"]


def test_what_moved_on_is_followed_to_where_it_is_recorded() -> None:
    rows = {b"a": (b"i", FOLDER), b"a/x": (b"j", X)}
    claimed = Claimed([Move(b"a", b"b"), Move(b"b", b"c"), Move(b"c", b"a"), Put(b"b/y", Y)])
    assert list(claimed.origins(b"c", rows.get)) == [(b"i", FOLDER)]
    assert list(claimed.origins(b"c/x", rows.get)) == [(b"j", X)]
    assert list(claimed.origins(b"c/y", rows.get)) == [(b"", Y)]
    assert not list(claimed.origins(b"elsewhere", none_recorded))


# In cycles.

ANY_NUMBER = MaxDelete(fraction=1.0, entries=1000)


def moved_directories(base: Path) -> World:
    base.mkdir()
    world = World(base, complete_sync=True, empty_dirs=True)
    world.put({"a": {"x": b"1", "b": {"y": b"2"}}, "e": {"z": b"3"}, "kept": b"4"})
    world.sync()
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


def test_what_was_made_before_a_cut_and_is_still_here_is_not_sent_again(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"kept": b"1", "moved": b"2"})
    world.sync()
    world.move("moved", "new/place")
    world.put({"new": {"file": b"3" * 100}})
    world.fault = nth("WRITE", 2, Act.CUT_BEFORE)  # after the lease and the file, the record
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    assert world.files() == {"kept": b"1", "new/place": b"2", "new/file": b"3" * 100}
    assert world.sync().counts["bytes"] == 0
    world.check()
    world.quiet()


def test_what_somebody_else_puts_there_is_not_taken_for_ours(tmp_path: Path) -> None:
    world = World(tmp_path, complete_sync=True)
    world.put({"kept": b"1"})
    world.sync()
    world.put({"new": b"2"})
    world.fault = lambda number, request: (
        Act.CUT_AFTER if request.kind.startswith("posix-rename") else None
    )
    with pytest.raises(SkynetError):
        world.sync()
    world.fault = no_fault
    world.put({"new": None})
    world.put_remote({"new": b"somebody else's"})
    report = world.sync()
    assert report.outcome == "held"
    assert report.hazards[0].paths == [b"new"]
