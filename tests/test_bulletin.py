"""The bulletin: it tells what matters, once, and the status is what is so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from skynet import bulletin as room
from skynet.bulletin import HELD_AGAIN_SECONDS, MAX_LINES, STATUS_SECONDS, Bulletin
from skynet.errors import AuthError, Interrupted, LinkLost
from skynet.guard import Hazard
from skynet.history import read
from skynet.lifecycle import State
from skynet.logs import Level
from skynet.monitor import BrokenOff, Connected, Event, Notice, Progress, Stage
from skynet.remote import Intent
from skynet.state import LOCK, Lock, locked
from skynet.status import MAX_PROBLEMS, STATUS_FILE, Status, read_status
from tests.support.reports import mirror, problem, report

LOST = LinkLost("The link was lost.")


class Desk:
    """A bulletin, its clocks, and what it told."""

    def __init__(self, lock: Lock) -> None:
        self.home = home = lock.directory
        self.now = 1000.0
        self.log: list[tuple[Level, str]] = []
        self.events: list[Event] = []
        self.bulletin = Bulletin(
            mirror(home),
            lock,
            lambda: self.now,
            lambda: self.now + 1_700_000_000.0,
            lambda level, message: self.log.append((level, message)),
            self.events.append,
        )

    def written(self) -> Status:
        self.bulletin.write(at_once=True)
        status = read_status(self.home)
        assert status is not None
        return status

    def levels(self) -> list[Level]:
        return [level for level, _ in self.log]

    def history(self) -> list[str]:
        return [record.outcome for record in read(self.home, 100)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with locked(tmp_path) as lock:
        yield Desk(lock)


def test_nothing_is_written_while_nothing_changes(desk: Desk) -> None:
    desk.written()
    path = desk.home / "status.json"
    path.unlink()
    desk.now += 3600.0
    desk.bulletin.write(at_once=True)
    assert not path.exists()
    desk.bulletin.enter(State.IDLE)
    assert desk.written().state == "idle"


def test_progress_alone_is_written_once_a_second(desk: Desk) -> None:
    desk.bulletin.write(at_once=True)
    for _ in range(10):
        desk.now += STATUS_SECONDS / 11
        desk.bulletin.event(Stage(f"comparing {desk.now}"))
        desk.bulletin.write()
    status = read_status(desk.home)
    assert status is not None
    assert status.doing == ""
    desk.now += STATUS_SECONDS
    desk.bulletin.write()
    assert read_status(desk.home) != status


def test_a_disk_that_refuses_is_told_once_and_tried_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path, status: Status) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_status", refuse)
        for _ in range(3):
            desk.bulletin.write(at_once=True)
    assert [message for _, message in desk.log] == [
        "the status cannot be written: No space left on device"
    ]
    assert desk.written().state == "starting"


def test_what_a_cycle_does_goes_with_its_state(desk: Desk) -> None:
    desk.bulletin.enter(State.SYNCING)
    desk.bulletin.event(Stage("transferring"))
    desk.bulletin.event(Progress(3, 10, 100, 1000))
    status = desk.written()
    assert (status.doing, status.backlog_files, status.backlog_bytes) == ("transferring", 7, 900)
    desk.now += 5.0
    desk.bulletin.enter(State.IDLE)
    status = desk.written()
    assert (status.doing, status.backlog_files, status.backlog_bytes) == ("", 0, 0)
    assert status.since == desk.now + 1_700_000_000.0
    assert len(desk.events) == 2


def test_notices_are_logged_and_the_server_is_known(desk: Desk) -> None:
    desk.bulletin.event(Notice("code", "Something."))
    desk.bulletin.event(Connected("me@host"))
    assert desk.log == [("warning", "Something.")]
    assert desk.written().server == "me@host"


def test_only_what_did_something_is_logged_and_remembered(desk: Desk) -> None:
    desk.bulletin.cycle_ended(report(), 1.0, {})
    assert desk.log == []
    assert desk.history() == []
    desk.bulletin.cycle_ended(report(uploaded=[b"a"]), 1.0, {})
    assert desk.levels() == ["info"]
    [record] = read(desk.home, 10)
    assert record.done["upload"] == 1
    assert record.ops == ["upload a"]


def test_a_long_history_line_is_cut(desk: Desk) -> None:
    desk.bulletin.cycle_ended(report(uploaded=[b"%d" % n for n in range(100)]), 1.0, {})
    [record] = read(desk.home, 10)
    assert len(record.ops) == MAX_LINES
    assert record.more == 100 - MAX_LINES


def test_problems_are_told_once_each_and_listed_while_they_are_there(desk: Desk) -> None:
    first = {b"a": problem(b"a")}
    both = first | {b"b": problem(b"b")}
    for problems in (first, first, both, {}):
        desk.bulletin.cycle_ended(report(problems=problems), 1.0, problems)
        assert desk.written().problem_count == len(problems)
    assert [message for _, message in desk.log] == [
        "a: It cannot be read.",
        "b: It cannot be read.",
    ]
    assert desk.history() == ["problems", "problems", "in-sync"]


def test_of_many_problems_the_number_is_told(desk: Desk) -> None:
    problems = {b"%d" % n: problem(b"%d" % n) for n in range(MAX_PROBLEMS + 5)}
    desk.bulletin.cycle_ended(report(problems=problems), 1.0, problems)
    status = desk.written()
    assert len(status.problems) == MAX_PROBLEMS
    assert status.problem_count == MAX_PROBLEMS + 5


def test_it_is_in_sync_only_when_nothing_is_left_wrong_or_held(desk: Desk) -> None:
    bulletin = desk.bulletin
    bulletin.enter(State.IDLE)
    bulletin.cycle_ended(report(), 1.0, {b"a": problem(b"a")})
    assert not desk.written().last_sync
    bulletin.cycle_ended(report(unsettled=[b"a"]), 1.0, {})
    assert not desk.written().last_sync
    bulletin.hold(report(deleted=[b"a"]))
    bulletin.cycle_ended(report(deleted=[b"a"]), 1.0, {})
    assert not desk.written().last_sync
    bulletin.release()
    bulletin.cycle_ended(report(), 1.0, {})
    assert desk.written().is_in_sync
    bulletin.backlog = {b"a": False}
    assert not desk.written().is_in_sync


def test_a_held_plan_is_loud_once_for_each_approval_and_every_hour(desk: Desk) -> None:
    held = report(deleted=[b"a", b"b"], uploaded=[b"new"])
    for _ in range(4):
        desk.bulletin.hold(held)
        desk.now += HELD_AGAIN_SECONDS / 3
    assert desk.levels() == ["error", "error"] * 2
    assert held.hazards[0].approve in desk.log[1][1]
    desk.bulletin.hold(report(deleted=[b"a", b"b", b"c"]))
    assert len(desk.log) == 6
    assert desk.history() == ["held", "held"]


def test_what_is_shown_as_held_is_what_waits_and_nothing_else(desk: Desk) -> None:
    held = report(deleted=[b"a"], uploaded=[b"new"])
    desk.bulletin.hold(held)
    desk.bulletin.cycle_ended(held, 1.0, {})
    shown = desk.written().held
    assert shown is not None
    assert shown.plan == ["delete a"]
    assert shown.approve == held.hazards[0].approve
    assert read(desk.home, 1)[0].ops == ["upload new"]
    desk.bulletin.release()
    assert desk.written().held is None
    assert desk.log[-1] == ("info", "nothing is held any more")
    desk.bulletin.release()
    assert desk.log[-2] != desk.log[-1]


def test_where_all_is_in_question_all_is_shown(desk: Desk) -> None:
    held = report(deleted=[b"a"], uploaded=[b"new"])
    owner = Hazard("other-mirror", "Of another.", "0" * 12)
    held.hazards[:] = [owner]
    desk.bulletin.hold(held)
    shown = desk.written().held
    assert shown is not None
    assert shown.plan == ["delete a", "upload new"]


def test_an_outage_is_told_once_and_over_when_there_is_a_server(desk: Desk) -> None:
    for _ in range(100):
        desk.bulletin.cycle_failed(LOST, 1.0)
    assert desk.log == [("warning", str(LOST))]
    assert desk.history() == ["failed"]
    assert desk.written().offline == str(LOST)
    desk.bulletin.event(Connected("me@host"))
    assert desk.written().offline == ""


def test_who_is_paused_tells_neither_of_an_outage_nor_of_a_next_try(desk: Desk) -> None:
    desk.bulletin.enter(State.OFFLINE)
    desk.bulletin.cycle_failed(LOST, 1.0)
    desk.bulletin.next_try = 5.0
    desk.bulletin.enter(State.PAUSED)
    status = desk.written()
    assert (status.offline, status.next_try) == ("", 0.0)


def test_who_is_not_kept_any_more_says_why(desk: Desk) -> None:
    desk.bulletin.enter(State.IDLE)
    desk.bulletin.event(Connected("me@host"))
    desk.bulletin.end("It failed.")
    status = read_status(desk.home)
    assert status is not None
    assert (status.state, status.offline, status.server) == ("stopping", "It failed.", "")


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed there")
def test_nothing_is_written_in_a_state_directory_that_is_not_held_any_more(desk: Desk) -> None:
    before = desk.written()
    (desk.home / LOCK).unlink()
    desk.bulletin.enter(State.OFFLINE)
    desk.bulletin.cycle_failed(LOST, 1.0)
    assert desk.written() == before
    assert desk.history() == []


def test_a_file_that_was_removed_is_written_although_nothing_has_changed(desk: Desk) -> None:
    desk.written()
    (desk.home / STATUS_FILE).unlink()
    desk.bulletin.forget_file()
    assert desk.written().state == "starting"


def test_what_a_person_must_mend_is_told_each_time(desk: Desk) -> None:
    for _ in range(3):
        desk.bulletin.cycle_failed(AuthError("The password is wrong."), 1.0)
    assert desk.levels() == ["error"] * 3
    assert desk.history() == ["failed"]


def test_transfers_have_a_rate_since_they_were_seen_first(desk: Desk) -> None:
    def intent(length: int) -> Intent:
        return Intent(b"", 1000, b"tmp/x", length, b"")

    desk.bulletin.transfers = {b"video": intent(100)}
    assert [each.rate for each in desk.written().transfers] == [0.0]
    desk.now += 2.0
    desk.bulletin.transfers = {b"video": intent(300), b"new": intent(7)}
    video, new = desk.written().transfers
    assert (video.path, video.sent, video.total, video.rate) == ("video", 300, 1000, 100.0)
    assert new.rate == 0.0
    desk.bulletin.transfers = {}
    assert desk.written().transfers == []


def test_what_a_broken_cycle_did_is_told_each_time(desk: Desk) -> None:
    for done in (Counter(upload=2, bytes=20), Counter[str](), Counter(upload=3, bytes=30)):
        desk.bulletin.event(BrokenOff(Counter(upload=9), done, Counter()))
        desk.bulletin.cycle_failed(LOST, 1.0)
    assert [message for level, message in desk.log if level == "info"] == [
        "2 uploaded (20 B) until it broke off",
        "3 uploaded (30 B) until it broke off",
    ]
    assert [record.done for record in read(desk.home, 100)] == [
        {"upload": 2, "bytes": 20},
        {"upload": 3, "bytes": 30},
    ]
    desk.bulletin.cycle_interrupted(Interrupted("Asked to end."), 1.0)
    assert len(desk.history()) == 2, "it did nothing"
