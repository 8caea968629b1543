"""The keeper when its state is lost, the machine sleeps, or the network is another one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from skynet import keeper as room
from skynet.control import COMMANDS
from skynet.errors import ConnectError, LinkLost, SkynetError
from skynet.index import Index
from skynet.keeper import LOOK_SECONDS
from skynet.lease import LEASE
from skynet.marks import Mark, Sight
from skynet.state import holder, locked, make_private
from skynet.status import STATUS_FILE
from tests.support.desk import THEIRS
from tests.support.keepers import TREE, House, Line

DEADLINE = 60.0  # seconds of real time, for another thread


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


# The state is lost while it runs.


def lose_index(house: House) -> None:
    for file in house.state.glob("index*"):
        file.unlink()


def lose_all(house: House) -> None:
    shutil.rmtree(house.state)


def lose_all_above(house: House) -> None:
    shutil.rmtree(house.state.parent)


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
@pytest.mark.parametrize("lose", [lose_index, lose_all, lose_all_above])
def test_what_is_lost_of_the_state_is_made_anew(
    tmp_path: Path, lose: Callable[[House], None]
) -> None:
    house = House(tmp_path)
    house.state = tmp_path / "above" / "state"
    make_private(house.state)
    house.keeper = house._new()
    house.put(TREE, tell=False)
    house.at(10.0, lambda: lose(house))
    house.at(20.0, lambda: house.put({"a": b"new", "d": {"more": b"5"}}))
    house.at(29.0, lambda: soon.append((house.is_even, house.status.is_in_sync)))
    house.at(200.0, lambda: house.put({"a": b"newer"}))
    soon: list[tuple[bool, bool]] = []
    house.run(300.0)
    house.check()
    assert soon == [(True, True)], "it does not wait as for a disk that a person must mend"
    assert house.status.offline == ""
    for directory in (house.state, house.state.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
def test_who_loses_the_state_directory_goes_on_as_its_owner(house: House) -> None:
    """Also while it is paused, and nothing but the loss is new."""
    house.put(TREE, tell=False)
    held: list[int | None] = []

    def look() -> None:
        held.append(holder(house.state))
        house.check()

    house.at(10.0, lambda: shutil.rmtree(house.state))
    house.at(15.0, look)
    house.at(20.0, lambda: house.order("pause"))
    house.at(30.0, lambda: shutil.rmtree(house.state))
    house.at(35.0, lambda: held.append(holder(house.state)))
    house.at(35.0, lambda: states.append(house.status.state))
    states: list[str] = []
    house.run(40.0)
    assert held == [os.getpid()] * 2
    assert states == ["paused"]
    assert sum("was removed" in message for _, message in house.log) == 2
    assert not [message for level, message in house.log if level == "error"]


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
@pytest.mark.parametrize("moment", ["at rest", "in a cycle"])
def test_who_loses_it_to_another_ends_and_leaves_it_alone(house: House, moment: str) -> None:
    theirs = b"the status of another daemon"
    other = ExitStack()

    def lose() -> None:
        shutil.rmtree(house.state)
        make_private(house.state)
        other.enter_context(locked(house.state))
        (house.state / STATUS_FILE).write_bytes(theirs)

    house.put(TREE, tell=False)
    if moment == "at rest":
        house.at(10.0, lose)
    else:
        house.call_seconds = LOOK_SECONDS
        house.at_call[10] = lose
    with other:
        house.live()
        assert (house.state / STATUS_FILE).read_bytes() == theirs
    assert house.keeper.has_failed
    assert house.keeper.status.state == "stopping"
    assert f"process {os.getpid()}" in house.keeper.status.offline
    level, message = house.log[-1]
    assert level == "error"
    assert "Another skynet" in message
    assert "Traceback" not in "".join(message for _, message in house.log)


def test_a_damaged_index_is_begun_anew_although_the_disk_is_full_at_first(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, refusals = Index.open, [SkynetError("The disk is full.", "index")] * 3

    def refuse(*arguments: Any, **options: Any) -> Index:
        if refusals:
            raise refusals.pop()
        return really(*arguments, **options)

    def damage() -> None:
        with sqlite3.connect(house.state / "index.sqlite") as db:
            db.execute("UPDATE entries SET entry = x'c1'")
        db.close()
        monkeypatch.setattr(Index, "open", refuse)
        house.put({"a": b"new"})

    house.put(TREE, tell=False)
    house.at(10.0, damage)
    house.run(2000.0)
    house.check()
    assert not refusals


# The machine was asleep, or the network is another one.


def sleep(house: House) -> None:
    house.slept += 3600.0


def move(house: House) -> None:
    house.route = "elsewhere"


@pytest.mark.parametrize("happen", [sleep, move])
@pytest.mark.parametrize("is_up", [True, False])
def test_a_link_that_may_be_dead_is_not_asked_but_made_anew(
    house: House, happen: Callable[[House], None], is_up: bool
) -> None:
    house.put(TREE, tell=False)

    def leave() -> None:
        house.is_up = is_up
        house.calls.clear()
        happen(house)

    house.at(50.0, leave)
    house.run(50.0 + 2 * room.LOOK_SECONDS)
    assert len(house.connects) == 2
    # Over the old link nothing was asked; over the new one a machine that slept looks around.
    assert bool(house.calls) == (is_up and happen is sleep)


def test_on_another_network_nothing_is_sent_again(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(50.0, house.calls.clear)
    house.at(50.0, lambda: move(house))
    house.at(55.0, lambda: house.put({"a": b"new"}))
    house.run(60.0)
    house.check()
    assert len(house.connects) == 2
    assert house.done("upload") == [b"a"]
    assert house.done("walk") == []


def test_what_is_held_is_held_on_another_network_too(tmp_path: Path) -> None:
    house = House(tmp_path, complete_sync=True)
    house.put(TREE, tell=False)
    house.at(10.0, lambda: house.put(dict.fromkeys(TREE)))
    house.at(20.0, lambda: move(house))

    def approve() -> None:
        held = house.status.held
        assert held is not None
        assert house.done("delete") == []
        house.order("approve", held.approve)

    house.at(30.0, approve)
    house.run(40.0)
    house.check()


def test_who_has_lost_the_lease_at_rest_looks_at_what_is_there_now(house: House) -> None:
    """As when another skynet has been there, or somebody has emptied the target."""
    house.put(TREE, tell=False)

    def empty() -> None:
        house.tree.clear()
        house.data.clear()

    house.at(10.0, empty)
    house.at(60.0, lambda: states.append((house.is_even, house.status.is_in_sync)))
    states: list[tuple[bool, bool]] = []
    house.run(70.0)
    assert states == [(True, True)]


# The server is silent.


class Silence:
    """A server that says nothing until what was done meanwhile has been seen to."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._is_over = False
        self.answers: list[str] = []

    def begin(self) -> None:
        """Called where the server is waited for; the first time it is silent."""
        if self._is_over:
            return
        self._is_over = True
        house = self._house
        house.tell(Sight(Mark(b"a", True)))
        self._until(lambda: not house.status.is_in_sync)
        order = house.order("pause")
        self._until((house.state / COMMANDS / f"{order}.answer").exists)
        self.answers.append(house.answer(order))
        raise LinkLost("It was cut.")

    def _until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self._house.now += 1.0
            time.sleep(0.01)


@pytest.mark.parametrize("verb", ["connect", "stamp"])
def test_orders_are_obeyed_while_the_server_is_silent(house: House, verb: str) -> None:
    """Whether it is connected to, or asked for a sign of life at rest."""
    house.put(TREE, tell=False)
    silence = Silence(house)
    if verb == "connect":
        house.on_connect = silence.begin
    else:
        house.on_call = lambda line: silence.begin() if line.calls[-1][0] == verb else None
    states: list[str] = []
    house.at(100.0, lambda: states.append(house.status.state))
    house.at(110.0, lambda: house.order("resume"))
    house.run(200.0)
    assert silence.answers == ["Paused, until skynet resume; changes are noted meanwhile."]
    assert states == ["paused"]
    house.check()


def test_orders_are_obeyed_while_another_lease_is_watched(house: House) -> None:
    house.put(TREE, tell=False)
    house.run(10.0)
    assert Line(house).create(LEASE, THEIRS)
    house.put({"new": b"1"}, tell=False)
    house.at(5.0, lambda: orders.append(house.order("pause")))
    house.at(7.0, lambda: states.append((house.answer(orders[0]), house.status.state)))
    orders: list[str] = []
    states: list[tuple[str, str]] = []
    house.at(40.0, lambda: house.order("resume"))
    house.run(100.0)
    assert states == [("Paused, until skynet resume; changes are noted meanwhile.", "paused")]
    house.check()


def test_a_connection_that_comes_too_late_is_closed(house: House) -> None:
    late, closed = threading.Event(), threading.Event()

    def be_late() -> None:
        house.keeper.stop()
        assert late.wait(DEADLINE)

    house.on_connect = be_late
    house.on_close = closed.set
    house.live()
    assert not closed.is_set()
    late.set()
    assert closed.wait(DEADLINE)


# What it says.


def test_who_is_paused_does_not_try_and_says_so(house: House) -> None:
    house.refusals.extend(ConnectError("No route.") for _ in range(100))
    house.at(50.0, lambda: house.order("pause"))
    house.at(60.0, lambda: seen.append((house.status.offline, house.status.next_try)))
    seen: list[tuple[str, float]] = []
    house.run(70.0)
    assert seen == [("", 0.0)]


def test_what_is_approved_during_a_pause_waits_and_the_answer_says_so(tmp_path: Path) -> None:
    house = House(tmp_path, complete_sync=True)
    house.put(TREE, tell=False)
    house.at(10.0, lambda: house.put(dict.fromkeys(TREE)))
    house.at(20.0, lambda: house.order("pause"))
    orders: list[str] = []

    def approve() -> None:
        held = house.status.held
        assert held is not None
        orders.append(house.order("approve", held.approve))

    house.at(30.0, approve)
    house.at(40.0, lambda: words.append(house.answer(orders[0])))
    house.at(40.0, lambda: words.append(str(house.done("delete"))))
    words: list[str] = []
    house.at(50.0, lambda: house.order("resume"))
    house.run(60.0)
    assert "skynet resume" in words[0]
    assert words[1] == "[]"
    house.check()


def test_one_that_has_failed_says_so_in_its_status(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SkynetError("Of no use.")

    monkeypatch.setattr(room, "remembered", refuse)
    house.live()
    assert house.keeper.has_failed
    assert (house.status.state, house.keeper.status.state) == ("stopping", "stopping")
    assert "Of no use." in house.status.offline
