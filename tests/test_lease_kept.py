"""A lease kept from one cycle to the next, taken over while its holder rests, and unlocked."""

from __future__ import annotations

import os
import socket

import pytest

from skynet import lease as room
from skynet.errors import LinkLost, OwnedError
from skynet.lease import (
    BEAT_SECONDS,
    EXPIRY_SECONDS,
    FRESH_SECONDS,
    GRACE_SECONDS,
    LEASE,
    UNLOCKED,
)
from skynet.monitor import Notice
from tests.support.desk import FULL_PATH, THEIRS, Desk

LOOK = [("stamp", LEASE)]
LOOK_INTO_IT = [("stamp", LEASE), ("peek", LEASE)]
LONG = 3600.0


@pytest.fixture
def desk() -> Desk:
    return Desk()


def code_of(caught: pytest.ExceptionInfo[OwnedError]) -> str:
    return caught.value.code


# Resting, and going on.


def test_lease_is_taken_once_and_then_only_looked_at(desk: Desk) -> None:
    lease = desk.lease()
    assert not lease.is_held
    assert not lease.ensure()
    assert lease.is_held
    assert desk.remote.calls == [("create", LEASE)]
    for rest, looks in ((0.0, []), (BEAT_SECONDS, []), (0.1, LOOK), (LONG, LOOK)):
        desk.remote.calls.clear()
        desk.now += rest
        assert not lease.ensure()
        assert desk.remote.calls == looks
    lease.release()
    assert not lease.is_held


def test_ping_looks_whenever_it_is_asked_to(desk: Desk) -> None:
    lease = desk.lease()
    lease.ensure()
    desk.remote.calls.clear()
    lease.ping()
    lease.ping()
    assert desk.remote.calls == LOOK * 2
    desk.remote.cut_at = 0
    with pytest.raises(LinkLost):
        lease.ping()
    assert lease.is_held, "a lost link says nothing of the lease"


def test_beat_is_known_by_its_stamp_again(desk: Desk) -> None:
    lease = desk.lease()
    lease.ensure()
    desk.now += BEAT_SECONDS
    lease.beat()
    desk.remote.calls.clear()
    lease.ping()
    assert desk.remote.calls == LOOK


@pytest.mark.parametrize("rest", [0.0, FRESH_SECONDS, LONG])
def test_lease_that_another_took_in_the_same_second_is_not_taken_for_our_own(
    desk: Desk, rest: float
) -> None:
    """Its time is that of ours then: `unlock`, or a third that was quicker."""
    lease, other = desk.lease("me"), desk.lease("us")
    lease.ensure()
    desk.remote.remove(LEASE)
    other.ensure()
    desk.now += rest
    with pytest.raises(OwnedError):
        lease.ping()
    other.ping()


@pytest.mark.parametrize("verb", ["ensure", "ping", "beat", "check", "release"])
def test_holder_that_rested_notices_that_its_lease_was_taken_over(desk: Desk, verb: str) -> None:
    lease = desk.lease()
    lease.ensure()
    desk.now += LONG
    assert desk.lease("other").ensure(), "it cannot know how the holder's run ended"
    with pytest.raises(OwnedError) as caught:
        getattr(lease, verb)()
    assert code_of(caught) == "lease-lost"
    assert not lease.is_held
    assert desk.content is not None
    assert desk.content.startswith(b"other ")


def test_lease_that_was_lost_is_taken_anew(desk: Desk) -> None:
    lease, other = desk.lease(), desk.lease("other")
    lease.ensure()
    desk.now += LONG
    other.ensure()
    with pytest.raises(OwnedError):
        lease.ensure()
    other.release()
    assert not lease.ensure()
    lease.check()


def test_time_that_only_seems_to_be_another_costs_a_look_into_the_file(desk: Desk) -> None:
    """As on a server whose disk is a network's, which tells the time of a file twice."""
    lease = desk.lease()
    lease.ensure()
    assert desk.content is not None
    desk.now += LONG
    desk.remote.write_at(LEASE, 0, desk.content)
    for calls in (LOOK_INTO_IT, LOOK):
        desk.remote.calls.clear()
        lease.ping()
        assert desk.remote.calls == calls


def test_server_that_does_not_tell_times_is_asked_for_the_content_each_time(desk: Desk) -> None:
    desk.remote.clock = lambda: 0
    lease = desk.lease()
    lease.ensure()
    for _ in range(2):
        desk.remote.calls.clear()
        lease.ping()
        assert desk.remote.calls == LOOK_INTO_IT


def test_cycle_after_a_rest_beats_once_its_first_look_is_old(desk: Desk) -> None:
    lease = desk.lease()
    lease.ensure()
    desk.now += LONG
    lease.ensure()
    desk.remote.calls.clear()
    desk.now += FRESH_SECONDS / 2
    lease.beat()
    lease.check()
    assert desk.remote.calls == []
    desk.now += FRESH_SECONDS / 2
    lease.beat()
    assert desk.remote.calls == [*LOOK, ("write_at", LEASE)]
    desk.now += BEAT_SECONDS - 1
    lease.beat()
    lease.check()
    assert len(desk.remote.calls) == 2, "from now on it beats as ever"


def test_nothing_is_recorded_long_after_the_only_look(desk: Desk) -> None:
    lease = desk.lease()
    lease.ensure()
    desk.now += LONG
    lease.ensure()
    desk.steal()
    desk.now += FRESH_SECONDS + 0.1
    assert FRESH_SECONDS < GRACE_SECONDS
    with pytest.raises(OwnedError):
        lease.check()


# Our own lease of a session that has ended.


def test_own_lease_of_a_lost_link_is_not_waited_for(desk: Desk) -> None:
    desk.lease("first").ensure()
    began = desk.now
    assert desk.lease("second", mine={"first": True}).ensure()
    assert desk.now == began
    assert not desk.events


def test_own_lease_tells_whether_its_run_left_something_half_done(desk: Desk) -> None:
    desk.lease("first").ensure()
    assert not desk.lease("second", mine={"first": False}).ensure()
    third = desk.lease("third", mine={"second": True})
    assert third.ensure()
    assert third.has_begun  # until it has looked, the next one must look as well


def test_lease_of_another_mirror_in_the_same_process_is_watched(desk: Desk) -> None:
    first = desk.lease("first")
    first.ensure()
    desk.meanwhile = first.beat
    with pytest.raises(OwnedError):
        desk.lease("second", mine={"another": True}).ensure()
    first.check()


# What the others are told, and unlock.


def test_refusal_says_what_to_do_about_a_lease_that_stays(desk: Desk) -> None:
    first = desk.lease("first")
    first.ensure()
    desk.meanwhile = first.beat
    with pytest.raises(OwnedError, match=r"If it is gone: skynet unlock\.") as caught:
        desk.lease().ensure()
    assert code_of(caught) == "leased"


def test_silent_lease_is_unlocked_after_it_was_watched(desk: Desk) -> None:
    desk.left_behind("studio", 4711)
    began = desk.now
    assert desk.unlock() == "process 4711 on studio"
    assert desk.now - began == EXPIRY_SECONDS
    assert [type(event) for event in desk.events] == [Notice]
    assert desk.content == UNLOCKED


def test_what_unlock_leaves_is_free_and_asks_for_a_look_at_the_remote(desk: Desk) -> None:
    desk.left_behind()
    desk.unlock()
    assert desk.unlock() == ""
    desk.events.clear()
    began = desk.now
    assert desk.lease().ensure(), "whoever had it may have broken off in the middle of something"
    assert desk.now - began == GRACE_SECONDS
    assert not desk.events


def test_no_lease_cannot_be_unlocked(desk: Desk) -> None:
    assert desk.unlock() == ""
    assert desk.unlock(force=True) == ""
    assert desk.content is None


@pytest.mark.parametrize("force", [False, True])
def test_lease_that_beats_is_unlocked_only_by_force(desk: Desk, force: bool) -> None:
    lease = desk.lease("alive")
    lease.ensure()
    desk.meanwhile = lease.beat
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    if force:
        assert desk.unlock(force=True) == holder
        desk.now += BEAT_SECONDS
        with pytest.raises(OwnedError):
            lease.beat()
        assert desk.content == UNLOCKED
    else:
        with pytest.raises(OwnedError, match=holder):
            desk.unlock()
        lease.ping()


def test_lease_of_a_dead_process_here_is_unlocked_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_is_alive", lambda pid: False)
    desk.left_behind("here", 77, desk.pid_space)
    began = desk.now
    assert desk.unlock() == "process 77 on here"
    assert desk.now == began


def test_lease_that_is_no_lease_is_unlocked_too(desk: Desk) -> None:
    desk.remote.create(LEASE, b"\xff")
    assert desk.unlock() == "another skynet"
    assert desk.content == UNLOCKED


def test_new_holders_lease_is_not_unlocked_in_place_of_the_old_one(desk: Desk) -> None:
    desk.left_behind()
    began = desk.now

    def another_takes_it_over() -> None:
        if desk.now >= began + EXPIRY_SECONDS / 2:
            desk.meanwhile = lambda: None
            desk.steal()

    desk.meanwhile = another_takes_it_over
    with pytest.raises(OwnedError, match="process 5 on elsewhere"):
        desk.unlock()
    assert desk.remote.data[FULL_PATH] == THEIRS


def test_beat_that_was_under_way_wins_over_the_taker(desk: Desk) -> None:
    desk.left_behind()

    def beat_late() -> None:
        if desk.content is not None and desk.content.startswith(b"me "):
            desk.remote.write_at(LEASE, 0, THEIRS)

    desk.meanwhile = beat_late
    lease = desk.lease()
    with pytest.raises(OwnedError) as caught:
        lease.ensure()
    assert code_of(caught) == "lease-lost"
    assert not lease.is_held


def test_lease_taken_anew_never_reads_as_it_did_before(desk: Desk) -> None:
    lease, seen = desk.lease(), set()
    for _ in range(3):
        lease.ensure()
        seen.add(desk.content)
        lease.release()
    assert len(seen) == 3
