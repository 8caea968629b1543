"""The keeper's orders: pause, resume, stop and approve are obeyed at every moment, and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet import keeper as room
from tests.support.keepers import TREE, House, Line


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


CALLS = 60  # more than the first cycle of this tree takes


def test_the_number_of_moments_is_right(house: House) -> None:
    house.put(TREE, tell=False)
    house.run(20.0)
    house.check()
    assert 10 < len(house.calls) < CALLS


@pytest.mark.parametrize("moment", range(1, CALLS, 2))
def test_it_can_be_paused_at_every_moment(house: House, moment: int) -> None:
    house.call_seconds = room.LOOK_SECONDS
    house.put(TREE, tell=False)
    house.at_call[moment] = lambda: house.order("pause")
    before: list[int] = []
    states: list[str] = []
    house.at(100.0, lambda: before.append(len(house.calls)))
    house.at(100.0, lambda: states.append(house.status.state))
    house.at(150.0, lambda: house.put({"d": {"new": b"5"}}))
    house.at(200.0, lambda: before.append(len(house.calls)))
    house.at(200.0, lambda: house.order("resume"))
    house.run(300.0)
    house.check()
    if states == ["paused"]:
        assert before[0] == before[1]
    else:
        assert moment > 20  # when all had been done


@pytest.mark.parametrize("moment", range(1, CALLS, 2))
def test_it_can_be_stopped_at_every_moment_and_begun_again(house: House, moment: int) -> None:
    house.call_seconds = room.LOOK_SECONDS
    house.put(TREE, tell=False)
    house.at_call[moment] = lambda: house.keeper.stop()
    house.run(100.0)
    house.put({"a": b"meanwhile"}, tell=False)
    house.at_call.clear()
    house.run(100.0)
    house.check()


@pytest.mark.parametrize("moment", range(1, CALLS, 2))
def test_the_link_can_be_lost_at_every_moment(house: House, moment: int) -> None:
    house.put(TREE, tell=False)

    def cut(line: Line) -> None:
        if len(house.calls) == moment:
            line.close()

    house.on_call = cut
    house.at(60.0, lambda: house.put({"d": {"b": b"newer"}}))
    house.run(120.0)
    house.check()
    assert house.status.offline == ""


@pytest.mark.parametrize("verb", ["pause", "stop"])
def test_a_cycle_ends_where_it_is(house: House, verb: str) -> None:
    house.call_seconds = room.LOOK_SECONDS
    house.put({f"f{n}": b"%d" % n for n in range(100)}, tell=False)

    def act() -> None:
        if verb == "stop":
            house.keeper.stop()
        else:
            house.order(verb)

    house.at_call[40] = act
    house.run(300.0)
    assert 0 < len(house.done("upload")) < 50
    assert len(house.calls) < 60


def test_a_pause_outlives_a_restart_and_marks_outlive_the_pause(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(10.0, lambda: house.order("pause"))
    house.at(20.0, lambda: house.put({"a": b"new"}))
    house.run(30.0)
    house.calls.clear()
    house.at(30.0, lambda: house.put({"b": b"new"}))
    house.run(60.0)
    assert not house.calls
    house.at(5.0, lambda: house.order("resume"))
    house.run(60.0)
    house.check()


def test_a_change_of_mind_within_a_moment_changes_nothing(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(10.0, lambda: (house.order("pause"), house.order("resume")))
    house.run(20.0)
    assert len(house.connects) == 1


def test_sync_now_looks_at_everything_on_both_sides(house: House) -> None:
    house.put(TREE, tell=False)
    house.at(10.0, lambda: house.put({"a": b"unseen"}, tell=False))
    house.at(20.0, lambda: house.order("sync-now"))
    house.at(25.0, house.check)
    house.at(25.0, lambda: house.data.pop(b"d/b") and house.tree.pop(b"d/b"))
    house.at(30.0, lambda: house.order("sync-now"))
    house.run(35.0)
    house.check()


# What is held.


def emptied(tmp_path: Path) -> House:
    """One whose source is emptied at 10 s."""
    house = House(tmp_path, complete_sync=True)
    house.put(TREE, tell=False)
    house.at(10.0, lambda: house.put(dict.fromkeys(TREE)))
    return house


def test_an_emptied_source_deletes_nothing_and_uploads_go_on(tmp_path: Path) -> None:
    house = emptied(tmp_path)
    house.at(20.0, lambda: house.put({"new": b"new"}))
    house.run(8000.0)
    assert house.done("delete") == house.done("rmdir") == []
    assert house.data[b"new"] == b"new"
    assert house.data[b"a"] == b"1"
    assert house.status.held is not None
    assert ("error", f"HELD: to agree: skynet approve {house.status.held.approve}") in house.log


def test_an_approval_carries_it_out_whenever_it_comes(tmp_path: Path) -> None:
    house = emptied(tmp_path)

    def approve() -> None:
        held = house.status.held
        assert held is not None
        house.order("approve", held.approve)

    house.at(30.0, approve)
    house.run(40.0)
    house.check()
    assert house.status.held is None


def test_an_approval_that_comes_during_a_scan_is_not_forgotten(tmp_path: Path) -> None:
    house = emptied(tmp_path)
    house.call_seconds = room.LOOK_SECONDS

    def approve_in_a_scan() -> None:
        house.order("sync-now")
        house.on_call = approve

    def approve(line: Line) -> None:
        if line.calls[-1][0] == "walk":
            held = house.status.held
            assert held is not None
            house.order("approve", held.approve)
            house.on_call = lambda line: None

    house.at(60.0, approve_in_a_scan)
    house.run(120.0)
    house.check()


def test_what_comes_back_is_not_held_any_more(tmp_path: Path) -> None:
    house = emptied(tmp_path)
    held: list[bool] = []
    house.at(20.0, lambda: held.append(house.status.held is not None))
    house.at(60.0, lambda: house.put(TREE))
    house.run(200.0)
    assert held == [True]
    assert house.status.held is None
    assert house.done("delete") == []
    house.check()


def test_another_approval_is_refused(tmp_path: Path) -> None:
    house = emptied(tmp_path)
    orders: list[str] = []
    house.at(30.0, lambda: orders.append(house.order("approve", "0" * 12)))
    house.run(40.0)
    assert "look at it first" in house.answer(orders[0])
    assert house.done("delete") == []
