"""The keeper: whatever happens to the network, the machine or us, all is right soon after."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest

from skynet import keeper as room
from skynet.cycle import Report, Request
from skynet.errors import AuthError, ConnectError, LinkLost, RequestError
from skynet.marks import EVERYTHING, Mark, Sight
from skynet.reconcile import run_in
from skynet.session import Session
from skynet.watch import Watcher
from tests.support.keepers import TREE, House, Line
from tests.support.wear import Wear

DEADLINE = 60.0  # seconds of real time, for another thread


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def steps(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times)]


# Every day.


def test_it_brings_all_there_and_then_only_what_changes(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(10.0, house.check)
    house.at(11.0, house.calls.clear)
    house.at(12.0, lambda: house.put({"a": b"new"}))
    house.at(13.0, house.check)
    house.run(14.0)
    assert house.done("upload") == [b"a"]
    assert house.done("walk") == []
    assert house.connects == [1000.0]
    assert house.log[0][1] == "connected to the test"


def test_it_is_said_to_be_starting_while_it_begins_to_watch(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[str] = []
    monkeypatch.setattr(Watcher, "start", lambda _: states.append(house.status.state))
    for _ in range(2):  # the second time it is told that one has ended
        house.run(10.0)
    assert states == ["starting"] * 2


def test_at_rest_it_asks_for_a_sign_of_life_and_nothing_else(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(10.0, house.calls.clear)
    counted: list[int] = []
    house.at(3010.0, lambda: counted.append(len(house.calls)))
    house.run(3011.0)
    assert {verb for verb, _ in house.calls[: counted[0]]} == {"stamp"}
    assert counted[0] <= 3000.0 / room.KEEPALIVE_SECONDS + 1


def test_it_scans_from_time_to_time_and_audits_more_rarely(tmp_path: Path) -> None:
    house = House(tmp_path, scan_interval=100.0, audit_interval=1000.0)
    house.put(TREE, tell=False)
    house.at(150.0, lambda: house.put({"a": b"unseen"}, tell=False))
    house.at(250.0, house.check)
    house.at(300.0, lambda: house.data.pop(b"d/b") and house.tree.pop(b"d/b"))
    house.run(1150.0)
    house.check()
    assert len(house.done("walk")) == 2


def test_it_audits_as_often_where_everything_is_polled(tmp_path: Path) -> None:
    house = House(tmp_path, scan_interval=100.0, audit_interval=1000.0)
    house.put(TREE, tell=False)
    for minute in range(1, 50):
        house.at(60.0 * minute, lambda: house.tell(Sight(EVERYTHING)))
    house.at(300.0, lambda: house.data.pop(b"d/b") and house.tree.pop(b"d/b"))
    house.run(2100.0)
    house.check()
    assert len(house.done("walk")) == 3


def test_a_file_that_is_renamed_is_not_sent_again(tmp_path: Path) -> None:
    house = House(tmp_path, complete_sync=True)
    house.put(TREE, tell=False)
    house.at(10.0, house.calls.clear)
    house.at(10.0, lambda: house.move("a", "d/new"))
    house.at(20.0, house.check)
    house.run(30.0)
    assert len(house.done("rename")) == 1
    assert house.done("upload") == house.done("delete") == []


def test_many_changes_at_once_are_one_cycle(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(5.0, house.stages.clear)
    house.at(6.0, lambda: [house.put({f"new{n}": b"%d" % n}) for n in range(200)])  # type: ignore[func-returns-value]  # done for what it does
    house.run(10.0)
    house.check()
    assert house.cycles() == 1


def test_what_changes_while_it_works_is_not_left_for_long(house: House) -> None:
    house.put({f"f{n}": b"%d" % n for n in range(100)}, tell=False)
    house.at_call[60] = lambda: house.put({"late": b"late"})
    house.run(20.0)
    house.check()


# The network.


def test_it_comes_back_ever_later_and_at_once_after_it_worked(house: House) -> None:
    house.refusals.extend(ConnectError("No route.") for _ in range(12))
    house.run(1000.0)
    waits = steps(house.connects)
    assert waits[:6] == pytest.approx([1, 2, 4, 8, 16, 32], abs=room.LOOK_SECONDS + 0.1)
    assert waits[6:12] == pytest.approx([60] * 6, abs=room.LOOK_SECONDS + 0.1)
    assert [level for level, _ in house.log].count("warning") == 1
    house.connects.clear()
    house.refusals.extend(LinkLost("Lost.") for _ in range(2))
    house.put({"a": b"1"})
    house.on_call = _cut_once(house)
    house.run(100.0)
    assert steps(house.connects)[:3] == pytest.approx([1, 2, 4], abs=room.LOOK_SECONDS + 0.1)
    house.check()


def _cut_once(house: House) -> Callable[[Line], None]:
    def cut(line: Line) -> None:
        if line.calls[-1][0] == "upload":
            line.close()
            house.on_call = lambda line: None

    return cut


def test_who_is_refused_waits_long_and_says_so_loudly(house: House) -> None:
    house.refusals.extend(AuthError("The password is wrong.") for _ in range(100))
    house.run(3600.0)
    assert min(steps(house.connects)) >= room.FIRST_LONG_RETRY
    assert len(house.connects) <= 12
    assert [level for level, _ in house.log] == ["error"] * len(house.connects)


@pytest.mark.parametrize("error", [AuthError("Wrong."), ConnectError("No route.")])
def test_another_network_is_tried_at_once(house: House, error: ConnectError) -> None:
    house.refusals.extend([error] * 9)

    def change() -> None:
        house.refusals.clear()
        house.route = "elsewhere"

    house.at(115.0, change)
    house.put(TREE, tell=False)
    house.run(120.0)
    house.check()


def test_a_link_that_dies_at_rest_is_noticed(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(5.0, lambda: setattr(house, "is_up", False))
    house.at(10.0 + room.KEEPALIVE_SECONDS, lambda: states.append(house.status.state))
    states: list[str] = []
    house.run(60.0)
    assert states == ["offline"]


def test_a_sign_of_life_shows_that_it_worked(house: House) -> None:
    house.put(TREE, tell=False)

    def lose(refusals: int) -> None:
        house.is_up = False
        house.refusals.extend(ConnectError("No route.") for _ in range(refusals))
        house.at(21.0, lambda: setattr(house, "is_up", True))

    house.at(10.0, lambda: lose(8))
    house.at(400.0, lambda: lose(3))
    house.run(500.0)
    waits = steps([time for time in house.connects if time > 1400.0])
    assert waits[:2] == pytest.approx([2, 4], abs=room.LOOK_SECONDS + 0.1)


def test_an_outage_of_two_hours_is_one_cycle_and_moves_stay_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, complete_sync=True)
    cycles: list[tuple[float, Request]] = []

    def note(session: Session, request: Request) -> Report:
        cycles.append((house.now, request))
        return run_in(session, request)

    monkeypatch.setattr(room, "run_in", note)
    house.at_once = 0
    wear = Wear(house, seed=7)
    wear.build(directories=40, files=400)
    held: set[bytes] = set()

    def go_down() -> None:
        house.check()
        held.update(house.data.values())
        house.is_up = False
        house.calls.clear()

    house.at(30.0, go_down)
    for number in range(1000):
        house.at(40.0 + number * 7.0, wear.change)

    def come_up() -> None:
        assert not house.calls
        house.is_up = True
        cycles.clear()

    house.at(7240.0, come_up)
    house.run(7320.0)
    house.check()
    assert len(cycles) == 1
    assert wear.moved > 300
    assert house.done("rename")
    here = wear.contents()
    assert [path for path in house.done("upload") if here[path] in held] == []
    assert [record.outcome for record in house.history[-2:]] == ["failed", "changed"]


# The machine, the source, and our own faults.


def test_what_nobody_told_while_the_machine_slept_is_found_when_it_wakes(house: House) -> None:
    house.put(TREE, tell=False)

    def sleep() -> None:
        house.slept += 3600.0
        house.put({"a": b"unseen"}, tell=False)

    house.at(50.0, sleep)
    house.at(52.0, house.check)
    house.run(53.0)


def test_who_wakes_without_a_network_tries_at_once(house: House) -> None:
    house.refusals.extend(ConnectError("No route.") for _ in range(10))
    house.at(200.0, lambda: setattr(house, "slept", 3600.0))
    house.run(205.0)
    assert [time for time in house.connects if 1200.0 <= time <= 1202.0]


def test_a_long_time_to_connect_is_not_taken_for_sleep(house: House) -> None:
    class Slow(ConnectError):
        def __init__(self) -> None:
            super().__init__("No answer.")

    connect = house._connect

    def slowly(monitor: Any) -> Any:
        house.now += 90.0
        return connect(monitor)

    house._connect = slowly  # type: ignore[method-assign]  # the server is slow
    house.keeper = house._new()
    house.refusals.extend(Slow() for _ in range(100))
    house.run(3600.0)
    assert len(house.connects) <= 6 + 3600 / (90 + 60)


def test_a_source_that_is_gone_deletes_nothing_and_is_taken_up_again(tmp_path: Path) -> None:
    house = House(tmp_path, complete_sync=True)
    house.put(TREE, tell=False)
    away = tmp_path / "away"

    def leave() -> None:
        house.local.rename(away)
        house.tell(Sight(Mark(b"", True)))

    states: list[tuple[str, bool]] = []
    house.at(10.0, leave)
    house.at(100.0, lambda: states.append((house.status.state, "source" in house.status.offline)))
    house.at(200.0, lambda: away.rename(house.local))
    house.at(201.0, lambda: house.put({"new": b"new"}))
    house.run(400.0)
    assert states == [("offline", True)]
    assert house.done("delete") == house.done("rmdir") == []
    house.check()


def fault(*_: object) -> NoReturn:
    raise ZeroDivisionError("ours")


@pytest.mark.parametrize("place", ["run_in", "Keeper._close", "Line.leave", "Line.open"])
def test_a_fault_of_ours_is_told_and_survived(
    house: House, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    house.put(TREE, tell=False)
    monkeypatch.setattr(f"skynet.keeper.{place}", fault)
    house.at(20.0, lambda: house.put({"new": b"new"}))
    house.at(30.0, lambda: house.order("pause"))
    house.at(31.0, lambda: house.order("resume"))
    offline: list[str] = []
    house.at(300.0, lambda: offline.append(house.status.offline))
    house.at(300.0, monkeypatch.undo)
    house.run(2000.0)
    house.check()
    assert any("ZeroDivisionError: ours" in message for _, message in house.log)
    if place != "Line.leave":
        assert "ours" in offline[0]


def test_a_fault_at_every_look_neither_fills_the_log_nor_keeps_it_from_ending(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skynet.keeper.Mailbox.take", fault)
    house.run(60.0)
    assert 1 < len(house.log) <= 2 + 60.0 / room.LOOK_SECONDS


def test_it_ends_although_the_server_is_silent(house: House) -> None:
    silent, is_cut = threading.Event(), threading.Event()

    def say_nothing(line: Line) -> None:
        if line.calls[-1][0] == "upload":
            line.close = lambda: is_cut.set()  # type: ignore[method-assign]  # it is seen here
            silent.set()
            assert is_cut.wait(DEADLINE)
            raise LinkLost("Cut.")

    house.put(TREE, tell=False)
    house.on_call = say_nothing
    thread = threading.Thread(target=house.keeper.run, daemon=True)
    thread.start()
    assert silent.wait(DEADLINE)
    house.keeper.stop()
    house.keeper.abandon()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert house.status.state == "stopping"


def test_a_damaged_index_is_begun_anew(house: House) -> None:
    house.put(TREE, tell=False)
    house.run(10.0)
    index = house.state / "index.sqlite"
    data = bytearray(index.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    index.write_bytes(data)
    house.at(30.0, lambda: house.put({"a": b"new"}))
    house.run(60.0)
    house.check()


def test_a_state_directory_that_is_of_no_use_ends_it_loudly(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise LinkLost("Of no use.")

    with monkeypatch.context() as patch:
        patch.setattr("skynet.keeper.Watcher.start", fault)
        house.live()
    assert house.keeper.has_failed
    assert "ZeroDivisionError: ours" in house.log.pop()[1]
    monkeypatch.setattr(room, "remembered", refuse)
    house.keeper = house._new()
    house.live()
    assert house.keeper.has_failed
    assert house.log == [("error", "Of no use. This mirror is not kept any more.")]


# Files that cannot be sent now.


def test_a_file_that_is_being_written_waits_and_a_picture_beside_it_does_not(house: House) -> None:
    house.put(TREE, tell=False)

    def write(number: int) -> None:
        house.put({"video": b"v" * number}, tell=False)
        house.tell(Sight(Mark(b"video")))

    for number in range(100):
        house.at(10.0 + number, lambda number=number: write(number + 1))  # type: ignore[misc]  # a default binds number now
    house.at(50.0, lambda: house.put({"picture": b"p"}, tell=False))
    house.at(50.0, lambda: house.tell(Sight(Mark(b"picture"), True)))
    house.at(51.0, lambda: sent.append(house.data.get(b"picture")))
    sent: list[bytes | None] = []
    house.run(130.0)
    assert sent == [b"p"]
    assert house.done("upload").count(b"video") == 1
    house.check()


@pytest.mark.parametrize("polls", [True, False])
def test_a_file_that_is_always_written_is_sent_once_in_settle_max_without_events(
    tmp_path: Path, polls: bool
) -> None:
    house = House(tmp_path, settle=2.0, settle_max=10.0)
    house.write("log", b"")
    for second in range(200):
        house.at(second, lambda second=second: house.write("log", b"x" * second))  # type: ignore[misc]  # a default binds second now
        if polls and second % 60 == 0:
            house.at(second, lambda: house.tell(Sight(EVERYTHING)))
    house.run(220.0)
    house.check()
    assert 15 <= len(house.done("upload")) <= 20


def test_a_path_with_a_problem_is_listed_looked_at_again_and_mended(house: House) -> None:
    house.put({"bad\xff": b"1"}, tell=False)
    refuse = True

    def send(line: Line) -> None:
        if refuse and line.calls[-1][0] == "upload":
            raise RequestError("Permission denied", "permission-denied")

    house.on_call = send
    house.at(200.0, lambda: counted.append(house.status.problem_count))
    counted: list[int] = []

    def mend() -> None:
        nonlocal refuse
        refuse = False

    house.at(250.0, mend)
    house.run(600.0)
    assert counted == [1]
    assert len(house.done("upload")) == 5  # at 0, 30, 90 and 210 s in vain
    assert house.status.problem_count == 0
    house.check()
