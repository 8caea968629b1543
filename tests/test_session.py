"""Sessions: many cycles over one connection, others who take over meanwhile, and interruptions."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from skynet.cycle import Surroundings
from skynet.errors import Interrupted, LinkLost, OwnedError
from skynet.lease import BEAT_SECONDS, EXPIRY_SECONDS
from skynet.session import SEEN_SECONDS
from tests.support.faults import Act, every, no_fault
from tests.support.sessions import sitting
from tests.support.world import World, tree_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "d": {"e": {"f": b"2", "g": b"3"}}, "h": {"i": b"4"}})
    made.sync()
    return made


def lease(world: World) -> Path:
    return world.remote / ".skynet/lease"


def stop_after(world: World, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cycle that looks more often whether it is to end is interrupted."""
    left = iter(range(looks))

    def check() -> None:
        if next(left, None) is None:
            raise Interrupted("as the test wants")

    plain = World.surroundings

    def surroundings(self: World) -> Surroundings:
        return replace(plain(self), check=check)

    monkeypatch.setattr(World, "surroundings", surroundings)


# One connection, many cycles.


def test_only_the_first_cycle_reads_the_manifest_and_takes_the_lease(world: World) -> None:
    with sitting(world) as session:
        for number in range(4):
            world.put({"a": b"%d again" % number})
            assert session.cycle().outcome == "changed"
            asked = world.requests()
            assert ("READ" in asked) == (number == 0)
            assert lease(world).exists()
            assert not session.session.lease.has_begun
        session.quiet()
        assert world.requests() == []
    assert not lease(world).exists()
    world.check()
    world.quiet(audit=False)


def test_a_session_that_had_nothing_to_do_takes_no_lease(world: World) -> None:
    with sitting(world) as session:
        session.quiet()
        assert not lease(world).exists()
        session.session.keep_alive()
        assert world.requests()[-1] == "LSTAT"


def test_a_session_without_a_lease_looks_whether_another_has_changed_the_remote(
    world: World,
) -> None:
    with sitting(world) as session:
        session.quiet()
        world.put({"theirs": b"1"})
        world.twin().sync()
        world.put({"ours": b"2"})
        assert session.cycle().plan.counts()["upload"] == 1
    world.check()


@pytest.mark.parametrize("gone", [".skynet", "."])
def test_a_session_without_a_lease_begins_anew_where_the_manifest_is_gone(
    world: World, gone: str
) -> None:
    with sitting(world) as session:
        session.quiet()
        shutil.rmtree(world.remote / gone)
        world.put({"a": b"changed"})
        assert session.cycle().outcome == "changed"
    world.check()
    world.quiet()


def test_an_audit_in_the_middle_of_a_session_sees_what_drifted(world: World) -> None:
    with sitting(world) as session:
        world.put({"a": b"changed"})
        session.cycle()
        world.put_remote({"d": {"e": {"f": b"not ours"}}})
        session.quiet()
        assert session.cycle(audit=True).done["upload"] == 1
        session.quiet(audit=True)
    world.check()


# Others.


def test_another_that_takes_over_while_it_rests_ends_the_session(world: World) -> None:
    twin = world.twin()
    with pytest.raises(OwnedError) as caught, sitting(world) as session:
        world.put({"a": b"ours"})
        session.cycle()
        world.put({"theirs": b"1"})
        assert twin.sync().outcome == "changed"
        before = tree_of(world.remote)
        world.put({"a": b"too late"})
        world.monotonic += 2 * EXPIRY_SECONDS  # that the other has waited for
        session.cycle(marks={b"a": False})
    assert caught.value.code == "lease-lost"
    assert tree_of(world.remote) == before, "nothing was done"
    assert not lease(world).exists(), "the other has given it back"
    world.sync()
    world.check()


def test_a_rest_is_when_it_shows_too(world: World) -> None:
    with pytest.raises(OwnedError), sitting(world) as session:
        world.put({"a": b"ours"})
        session.cycle()
        session.session.keep_alive()
        lease(world).write_bytes(b"another one altogether, and a longer one than before\n" * 3)
        session.session.keep_alive()
    assert lease(world).exists(), "it is not ours to remove"


def test_a_session_keeps_others_out_while_it_works(world: World) -> None:
    with sitting(world) as session:
        world.put({"a": b"ours"})
        session.cycle()
        twin = world.twin()

        def beat() -> None:
            world.monotonic += BEAT_SECONDS
            session.session.lease.beat()

        twin.on_sleep = beat
        world.put({"theirs": b"1"})
        with pytest.raises(OwnedError):
            twin.sync()


# How it ends.


def test_an_error_before_anything_was_begun_gives_the_lease_back(world: World) -> None:
    with pytest.raises(ZeroDivisionError), sitting(world) as session:
        world.put({"a": b"changed"})
        session.cycle()
        raise ZeroDivisionError
    assert not lease(world).exists()
    world.quiet(audit=False)


def test_an_error_in_the_middle_leaves_the_lease_for_the_next_to_see(world: World) -> None:
    with pytest.raises(ZeroDivisionError), sitting(world) as session:
        session.session.lease.ensure()
        session.session.lease.has_begun = True
        raise ZeroDivisionError
    assert lease(world).exists()


def test_an_error_is_told_even_if_the_lease_cannot_be_given_back(world: World) -> None:
    with pytest.raises(ZeroDivisionError), sitting(world) as session:
        world.put({"a": b"changed"})
        session.cycle()
        session.session.remote.close()
        raise ZeroDivisionError
    assert lease(world).exists()


def test_a_lost_link_is_told_where_all_else_went_well(world: World) -> None:
    with pytest.raises(LinkLost), sitting(world) as session:
        world.put({"a": b"changed"})
        session.cycle()
        world.fault = every("REMOVE", Act.CUT_BEFORE)


def test_the_next_session_of_a_process_does_not_wait_for_its_own_lease(world: World) -> None:
    tokens: dict[str, bool] = {}
    world.put({"a": b"changed"})
    world.fault = every("posix-rename@openssh.com", Act.CUT_BEFORE)
    with pytest.raises(LinkLost), sitting(world, tokens) as session:
        session.cycle()
    world.fault = no_fault
    assert lease(world).exists()
    began = world.monotonic
    with sitting(world, tokens) as session:
        assert session.cycle().outcome == "changed"
        assert world.monotonic - began < EXPIRY_SECONDS
        session.quiet(audit=True)
    assert len(tokens) == 2
    world.check()


# Interruptions.


def test_a_cycle_that_is_interrupted_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for looks in itertools.count():
        base = tmp_path / str(looks)
        base.mkdir()
        world = World(base, complete_sync=True)
        world.put({"a": b"1", "d": {"e": {"f": b"2", "g": b"3"}}})
        world.sync()
        world.put({"a": b"changed", "d": {"e": {"f": None}}, "n": {"new": b"4"}})
        tokens: dict[str, bool] = {}
        with monkeypatch.context() as patch:
            stop_after(world, looks, patch)
            is_over = True
            try:
                with sitting(world, tokens) as session:
                    session.cycle()
            except Interrupted:
                is_over = False
        with sitting(world, tokens) as session:
            session.cycle()
            session.quiet()
        world.check()
        world.quiet()
        if is_over:
            break
    assert looks > 4, "at each directory, and while it is carried out"


def test_an_interrupted_survey_gives_the_lease_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(world, 0, monkeypatch)
    with pytest.raises(Interrupted), sitting(world) as session:
        session.session.lease.ensure()
        session.cycle()
    assert not lease(world).exists()


# What has been seen on the way.


@pytest.fixture
def outside(world: World) -> Path:
    directory = world.base / "outside"
    (directory / "e").mkdir(parents=True)
    for name in ("e/f", "e/g", "f", "g"):
        (directory / name).write_bytes(b"not ours")
    return directory


def become_a_link(path: Path, target: Path) -> None:
    path.rename(path.parent / "was here")
    path.symlink_to(target)


@pytest.mark.parametrize("inner", ["d", "d/e"])
def test_nothing_is_done_through_a_link_in_what_has_moved(
    world: World, outside: Path, inner: str
) -> None:
    """A directory that is moved with all in it, and is a link on the remote, or has one inside."""
    become_a_link(world.remote / inner, outside if inner == "d" else outside / "e")
    world.move("d", "moved")
    world.put({"moved": {"e": {"f": b"changed"}}})
    before = tree_of(outside)
    with sitting(world, foreign="keep") as session:
        session.cycle(marks={b"d": True, b"moved": True})
        assert tree_of(outside) == before
        assert "moved/e/f" in world.files()


def test_what_was_seen_at_a_path_says_nothing_of_what_is_moved_there(
    world: World, outside: Path
) -> None:
    with sitting(world, foreign="keep") as session:
        world.put({"d": {"e": {"f": b"changed"}}})
        session.cycle(marks={b"d/e/f": False})
        become_a_link(world.remote / "h", outside)
        world.move("d", "away")
        world.move("h", "d")
        session.cycle(marks={b"d": True, b"away": True, b"h": True})
        before = tree_of(outside)
        world.put({"d": {"i": b"changed"}})
        world.monotonic += SEEN_SECONDS / 2
        session.cycle(marks={b"d/i": False})
        assert tree_of(outside) == before


def test_swapped_directories_cost_no_audit(world: World) -> None:
    world.move("d", "aside")
    world.move("h", "d")
    world.move("aside", "h")
    world.put({"h": {"e": {"f": b"changed"}}, "d": {"i": b"changed"}})
    with sitting(world) as session:
        session.cycle(marks={b"d": True, b"h": True})
        assert "OPENDIR" not in world.requests()
    world.check()
