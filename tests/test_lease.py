"""The lease: one holder at a time, expiry by observed change, and no clock but our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from skynet import lease as room
from skynet.errors import OwnedError
from skynet.lease import BEAT_SECONDS, EXPIRY_SECONDS, GRACE_SECONDS, LEASE
from skynet.monitor import Notice
from skynet.remote.verbs import OWN, TEMPS
from skynet.tree import join
from tests.support.desk import FULL_PATH, THEIRS, Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_free_lease_is_taken_and_given_back(desk: Desk) -> None:
    lease = desk.lease()
    assert not lease.acquire(), "nobody left it behind"
    expected = f"me {socket.gethostname()} {os.getpid()} {1:010d} boot/pid:[1]\n"
    assert desk.content is not None
    assert desk.content.decode().split() == expected.split()
    lease.release()
    assert desk.content is None
    assert desk.remote.calls == [("create", LEASE), ("remove", LEASE)]


def test_living_holder_keeps_the_lease(desk: Desk) -> None:
    first = desk.lease("first")
    first.acquire()
    other = desk.lease("other")
    desk.meanwhile = first.beat
    with pytest.raises(OwnedError, match=f"process {os.getpid()} on") as caught:
        other.acquire()
    assert caught.value.code == "leased"
    first.check()
    assert [type(event) for event in desk.events] == [Notice]


def test_silent_holder_loses_the_lease_after_the_expiry_and_not_before(desk: Desk) -> None:
    desk.left_behind()
    began = desk.now
    assert desk.lease().acquire()
    assert desk.now - began >= EXPIRY_SECONDS + GRACE_SECONDS
    assert desk.content is not None
    assert desk.content.startswith(b"me ")
    assert set(desk.remote.tree) == {OWN, join(OWN, TEMPS), FULL_PATH}


def test_lease_given_back_meanwhile_is_taken_at_once(desk: Desk) -> None:
    desk.left_behind()
    desk.meanwhile = lambda: desk.remote.remove(LEASE)
    began = desk.now
    desk.lease().acquire()
    assert desk.now == began + 1


def test_dead_process_of_this_pid_space_is_not_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_is_alive", lambda pid: pid != 77)
    desk.left_behind("whatever", 77, desk.pid_space)
    began = desk.now
    assert desk.lease().acquire()
    assert desk.now == began
    assert not desk.events


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("boot/pid:[1]", "boot/pid:[2]"),  # another container
        ("boot/pid:[1]", "other/pid:[1]"),  # another machine of this name, or before a reboot
        ("boot/pid:[1]", ""),
        ("", "boot/pid:[1]"),
        ("", ""),  # systems that cannot tell
    ],
)
def test_process_number_of_another_pid_space_says_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str
) -> None:
    monkeypatch.setattr(room, "_is_alive", lambda pid: False)
    desk.pid_space = ours
    desk.left_behind(socket.gethostname(), 77, theirs)
    began = desk.now
    desk.lease().acquire()
    assert desk.now - began >= EXPIRY_SECONDS


def test_lease_of_a_dead_holder_reads_as_it_was_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.lease("first").acquire()
    monkeypatch.setattr(room, "_is_alive", lambda pid: False)
    began = desk.now
    assert desk.lease("second").acquire()
    assert desk.now == began


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a name for it")
def test_pid_space_is_the_same_for_all_processes_of_a_machine() -> None:
    own = room.pid_space()
    ask = "from skynet.lease import pid_space; print(pid_space())"
    asked = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    assert own
    assert own == asked.stdout.strip()
    assert not set(own) & set(" \n")


def test_pid_space_that_cannot_be_known_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", refuse)
    assert room.pid_space() == ""


def test_control_characters_of_a_lease_reach_no_terminal(desk: Desk) -> None:
    desk.left_behind("evil\x1b[2J\u202e")
    desk.lease().acquire()
    (notice,) = desk.events
    assert isinstance(notice, Notice)
    assert notice.message.isprintable()
    assert "evil\\x1b[2J\\u202e" in notice.message


def test_of_several_that_take_over_one_gets_it(desk: Desk) -> None:
    desk.left_behind()
    quicker = desk.lease("quicker")

    def take_just_before_the_end() -> None:
        if desk.now >= 1000 + EXPIRY_SECONDS:
            desk.meanwhile = lambda: None
            desk.remote.remove(LEASE)
            quicker.acquire()

    desk.meanwhile = take_just_before_the_end
    with pytest.raises(OwnedError):
        desk.lease("slower").acquire()
    quicker.check()
    desk.now += EXPIRY_SECONDS
    quicker.check()


def test_new_lease_taken_away_by_mistake_is_put_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.left_behind()
    quicker = desk.lease("quicker")
    rename = desk.remote.rename

    def quicker_comes_first(source: bytes, name: bytes) -> bool:
        monkeypatch.setattr(desk.remote, "rename", rename)
        desk.remote.remove(LEASE)
        quicker.acquire()
        return rename(source, name)

    monkeypatch.setattr(desk.remote, "rename", quicker_comes_first)
    with pytest.raises(OwnedError, match=f"process {os.getpid()}"):
        desk.lease("slower").acquire()
    desk.now += EXPIRY_SECONDS
    quicker.check()
    assert set(desk.remote.tree) == {OWN, join(OWN, TEMPS), FULL_PATH}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff", b"a b c d", b"one two 3", b"x" * 4096),
        b"token host %d 0000000001 boot/pid:[1]\n" % 2**31,
        b"token host %d 0000000001 boot/pid:[1]\n" % 10**40,
        b"token host 0 0000000001 boot/pid:[1]\n",
        b"token host -1 0000000001 boot/pid:[1]\n",
        b"token host 77 %d boot/pid:[1]\n" % 10**10,
        b"token host 77 -1 boot/pid:[1]\n",
    ],
)
def test_lease_that_is_no_lease_is_watched_all_the_same(desk: Desk, content: bytes) -> None:
    desk.remote.create(LEASE, content)
    began = desk.now
    assert desk.lease().acquire()
    assert desk.now - began >= EXPIRY_SECONDS
    (notice,) = desk.events
    assert isinstance(notice, Notice)
    assert "another skynet" in notice.message


def test_beat_is_sent_when_it_is_time_to(desk: Desk) -> None:
    lease = desk.lease()
    lease.acquire()
    desk.remote.calls.clear()
    desk.now += BEAT_SECONDS - 1
    lease.beat()
    assert desk.remote.calls == []
    before = desk.content
    desk.now += 1
    lease.beat()
    assert desk.remote.calls == [("stamp", LEASE), ("write_at", LEASE)]
    assert desk.content is not None
    assert before is not None
    assert desk.content != before
    assert len(desk.content) == len(before)


def test_check_asks_only_when_the_last_beat_is_old(desk: Desk) -> None:
    lease = desk.lease()
    lease.acquire()
    desk.remote.calls.clear()
    desk.now += EXPIRY_SECONDS / 2
    lease.check()
    assert desk.remote.calls == []
    desk.now += 1
    lease.check()
    assert desk.remote.calls == [("stamp", LEASE)]


@pytest.mark.parametrize("verb", ["beat", "check"])
def test_lease_that_was_taken_over_ends_the_run(desk: Desk, verb: str) -> None:
    lease = desk.lease()
    lease.acquire()
    desk.steal()
    desk.now += EXPIRY_SECONDS
    with pytest.raises(OwnedError) as caught:
        getattr(lease, verb)()
    assert caught.value.code == "lease-lost"
    assert desk.content == THEIRS


def test_lease_once_lost_is_never_taken_for_fresh_again(desk: Desk) -> None:
    lease = desk.lease()
    lease.acquire()
    desk.steal()
    desk.now += BEAT_SECONDS
    for verb in (lease.beat, lease.check, lease.release):
        with pytest.raises(OwnedError):
            verb()
