"""The agenda: no mark is lost, none is looked at too early, and what waits delays nothing else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skynet import agenda as room
from skynet.agenda import Agenda
from skynet.journal import Journal
from skynet.marks import EVERYTHING, Mark, Sight
from skynet.settling import Settling
from skynet.tree import join
from tests.support.journals import PATHS, covered

SETTLE, SETTLE_MAX = 2.0, 20.0
NOWHERE = Path("/nowhere")  # nothing is flushed


def idle(_path: bytes) -> bool:
    return False


class Desk:
    """An agenda, its clock, and what must not be forgotten.

    dirty: path -> number of the change that nobody has dealt with. looked: path -> number of the
    last change when this cycle looked at it.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.woken = 0
        journal = Journal(NOWHERE, lambda event: None)
        self.agenda = Agenda(journal, Settling(SETTLE, SETTLE_MAX), lambda: self.now, self._wake)
        self.number = 0
        self.dirty: dict[bytes, int] = {}
        self.looked: dict[bytes, int] = {}
        self.before: dict[bytes, int] = {}
        self.is_in_cycle = False

    def _wake(self) -> None:
        self.woken += 1

    def see(self, path: bytes, *, deep: bool = False, done: bool = False) -> None:
        self.number += 1
        self.agenda.saw([Sight(Mark(path, deep), done)])
        self.dirty |= dict.fromkeys(covered({path: deep}), self.number)

    def begin(self) -> dict[bytes, bool]:
        self.is_in_cycle = True
        self.looked = {}
        return self._took(dict(self.agenda.begin()))

    def take(self, busy: frozenset[bytes] = frozenset()) -> dict[bytes, bool]:
        taken = dict(self.agenda.take(lambda path: path in busy))
        assert busy.isdisjoint(taken)
        return self._took(taken)

    def _took(self, taken: dict[bytes, bool]) -> dict[bytes, bool]:
        self.before = dict(self.looked)
        self.looked |= dict.fromkeys(covered(taken), self.number)
        return taken

    def put_back(self) -> None:
        self.agenda.put_back()
        self.looked = self.before

    def settle(self, later: frozenset[bytes] = frozenset(), *unsettled: bytes) -> None:
        """End a cycle that could do nothing about `later`, and left `unsettled` alone."""
        seen = self.looked.keys()
        problems = dict.fromkeys(later & seen, self.now + 30.0)
        left = [path for path in unsettled if path in seen]
        self.agenda.settle(problems, left, was_whole=False)
        for path, number in self.looked.items():
            if path in problems or path in left:
                self.dirty.setdefault(path, self.number)
            elif self.dirty.get(path, number + 1) <= number:
                del self.dirty[path]
        self.is_in_cycle = False

    def cycle(self) -> dict[bytes, bool]:
        """One that deals with all it finds."""
        found = self.begin()
        self.settle()
        return found

    def drain(self) -> None:
        """Nothing happens any more, and all is dealt with when it is due."""
        for _ in range(100):
            due = self.agenda.next_due()
            if due is None:
                return
            self.now = max(self.now, due)
            assert self.cycle(), "what is due must be there"
        raise AssertionError("there is no end of it")


@pytest.fixture
def desk() -> Desk:
    return Desk()


some = st.frozensets(st.sampled_from(PATHS), max_size=3)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.sampled_from(PATHS), st.booleans(), st.booleans()),
        st.tuples(st.just("pass"), st.sampled_from([0.1, 1.0, 2.5, 31.0])),
        st.tuples(st.just("begin")),
        st.tuples(st.just("take"), some, st.booleans()),
        st.tuples(st.just("settle"), some, some),
        st.tuples(st.just("fail")),
    ),
    min_size=15,  # short histories are dull
    max_size=40,
)


def play(desk: Desk, step: tuple[object, ...]) -> None:
    match step:
        case ("see", bytes(path), bool(deep), bool(done)):
            desk.see(path, deep=deep, done=done and not deep)
        case ("pass", float(seconds)):
            desk.now += seconds
        case ("begin",) if not desk.is_in_cycle:
            desk.begin()
        case ("take", frozenset() as busy, bool(is_put_back)) if desk.is_in_cycle:
            desk.take(busy)
            if is_put_back:
                desk.put_back()
        case ("settle", frozenset() as later, frozenset() as unsettled) if desk.is_in_cycle:
            desk.settle(later - unsettled, *unsettled)
        case ("fail",):
            desk.is_in_cycle = False


@settings(max_examples=400)
@given(steps, st.sampled_from([(500, 10_000), (1, 10_000), (1, 2)]))
def test_no_mark_is_lost(history: list[tuple[object, ...]], bounds: tuple[int, int]) -> None:
    desk = Desk()
    crowded, most = bounds
    with mock.patch.object(room, "CROWDED", crowded), mock.patch.object(room, "MAX_WAITING", most):
        for step in history:
            play(desk, step)
            assert desk.dirty.keys() <= covered(dict(desk.agenda.backlog()))
        desk.is_in_cycle = False
        desk.drain()
    assert not desk.dirty
    assert not desk.agenda.backlog()


@given(steps)
def test_nothing_that_was_not_seen_is_looked_at(history: list[tuple[object, ...]]) -> None:
    desk = Desk()
    seen: set[bytes] = set()
    for step in history:
        play(desk, step)
        if step[0] == "see":
            seen |= covered({step[1]: bool(step[2])})  # type: ignore[dict-item]  # bytes
        if step[0] == "settle":  # what was in the way is looked at with all below it
            seen |= covered(dict.fromkeys([*step[1], *step[2]], True))  # type: ignore[misc]  # sets
        assert covered(desk.agenda.taken) <= seen


def test_a_file_waits_until_it_is_quiet_and_others_do_not_wait_for_it(desk: Desk) -> None:
    desk.see(b"video")
    desk.see(b"picture", done=True)
    assert desk.agenda.next_due() == desk.now
    assert desk.cycle() == {b"picture": False}
    assert desk.agenda.next_due() == desk.now + SETTLE
    desk.now += SETTLE
    assert desk.cycle() == {b"video": False}


def test_what_was_left_unsettled_is_looked_at_when_it_is_settled(desk: Desk) -> None:
    desk.see(b"", deep=True)
    desk.now += 1.0
    desk.begin()
    desk.see(b"a")
    assert desk.agenda.is_unsettled(b"a", 0.0)
    desk.settle(frozenset(), b"a")
    assert desk.agenda.next_due() == desk.now + SETTLE
    desk.now += SETTLE
    assert not desk.agenda.is_unsettled(b"a", 0.0)
    assert desk.cycle().keys() == {b"a"}
    assert desk.agenda.next_due() is None


def test_a_file_that_never_rests_is_taken_once_in_settle_max(desk: Desk) -> None:
    taken = []
    for _ in range(600):  # a minute
        desk.see(b"log")
        desk.now += 0.1
        due = desk.agenda.next_due()
        if due is not None and due <= desk.now:
            taken.append(desk.cycle())
    assert len(taken) == 2


def test_a_file_that_never_rests_and_is_not_told_of_is_taken_once_in_settle_max(
    desk: Desk,
) -> None:
    """As with polling: everything is marked now and then, and only its age tells of the file."""
    sent = []
    for tenth in range(1200):  # two minutes
        if tenth % 300 == 0:
            desk.see(b"", deep=True)
        due = desk.agenda.next_due()
        if due is not None and due <= desk.now:
            desk.begin()
            if desk.agenda.is_unsettled(b"a", 0.1):
                desk.settle(frozenset(), b"a")
            else:
                sent.append(desk.now)
                desk.settle()
        desk.now += 0.1
    waits = [later - sooner for sooner, later in pairwise([1000.0, *sent])]
    assert waits == pytest.approx([SETTLE_MAX] * 5, abs=0.2)
    desk.drain()
    assert not desk.agenda.is_unsettled(b"a", SETTLE)


def test_a_problem_waits_and_a_change_of_it_does_not(desk: Desk) -> None:
    desk.see(b"a", done=True)
    desk.begin()
    desk.settle(frozenset([b"a"]))
    assert desk.agenda.next_due() == desk.now + 30.0
    desk.now += 10.0
    assert desk.cycle() == {}
    desk.see(b"a", done=True)
    assert desk.cycle() == {b"a": True}
    assert desk.agenda.next_due() is None


def test_a_change_while_its_cycle_runs_does_not_wait_with_the_problem(desk: Desk) -> None:
    desk.see(b"a", done=True)
    desk.begin()
    desk.see(b"a", done=True)
    desk.settle(frozenset([b"a"]))
    assert desk.agenda.next_due() == desk.now
    assert desk.cycle() == {b"a": True}


def test_who_is_told_of_a_directory_with_problems_looks_at_all_below_what_changed(
    desk: Desk,
) -> None:
    """Its mode has changed, so that what is in it may be read now."""
    desk.see(b"a", deep=True)
    desk.begin()
    desk.settle(frozenset([b"a"]))
    desk.see(b"a", done=True)
    assert desk.cycle() == {b"a": True}


def crowd(desk: Desk, directory: bytes, count: int) -> dict[bytes, float]:
    desk.see(directory, deep=True)
    desk.begin()
    later = {join(directory, b"%d" % n): desk.now + 3600.0 for n in range(count)}
    desk.agenda.settle(later, [], was_whole=False)
    desk.is_in_cycle = False
    return later


def test_a_crowd_waits_as_one_and_delays_nothing_in_its_directory(desk: Desk) -> None:
    crowd(desk, b"d", room.CROWDED + 1)
    assert desk.agenda.backlog() == {b"d": True}
    desk.see(b"d/new", done=True)
    assert desk.cycle() == {b"d/new": True}
    desk.now += 3600.0
    assert desk.cycle() == {b"d": True}
    assert desk.agenda.next_due() is None


def test_too_much_that_waits_is_everything_and_delays_nothing(desk: Desk) -> None:
    desk.see(b"", deep=True)
    desk.begin()
    paths = [b"%d/%d" % (n // 100, n) for n in range(room.MAX_WAITING + 1)]
    desk.agenda.settle(dict.fromkeys(paths, desk.now + 3600.0), [], was_whole=True)
    assert desk.agenda.backlog() == {b"": True}
    desk.see(b"new", done=True)
    assert desk.cycle() == {b"new": True}
    desk.now += 3600.0
    assert desk.cycle() == {b"": True}
    assert desk.agenda.next_due() is None


def test_a_whole_cycle_ends_all_that_waited(desk: Desk) -> None:
    crowd(desk, b"d", 3)
    desk.begin()
    desk.agenda.settle({}, [], was_whole=True)
    assert desk.agenda.next_due() is None


def test_arrivals_are_given_once_and_not_while_they_are_worked_on(desk: Desk) -> None:
    desk.begin()
    desk.see(b"a", done=True)
    desk.see(b"b", done=True)
    assert desk.take(frozenset([b"a"])) == {b"b": False}
    assert desk.take(frozenset([b"a"])) == {}
    assert desk.take() == {b"a": False}
    desk.settle()
    assert desk.agenda.next_due() is None


def test_what_was_put_back_is_due_and_was_not_looked_at(desk: Desk) -> None:
    desk.see(b"a", done=True)
    desk.begin()
    desk.see(b"b", done=True)
    desk.take()
    desk.put_back()
    assert desk.agenda.taken == {b"a": False}
    desk.settle()
    assert desk.cycle() == {b"b": False}


def test_everything_is_due_at_once_also_while_files_are_written(desk: Desk) -> None:
    desk.see(b"a")
    desk.agenda.saw([Sight(EVERYTHING)])
    assert desk.woken == 2
    assert desk.cycle()[b""]


def test_a_burst_is_bounded(desk: Desk) -> None:
    desk.agenda.saw(Sight(Mark(b"%d/%d" % (n % 1000, n))) for n in range(100_000))
    desk.agenda.saw(Sight(Mark(b"one/%d" % n)) for n in range(100_000))
    backlog = desk.agenda.backlog()
    assert len(backlog) <= 100_000
    assert all(room.is_covered(b"%d/%d" % (n % 1000, n), backlog) for n in range(100_000))
    assert all(room.is_covered(b"one/%d" % n, backlog) for n in range(100_000))
    desk.now += SETTLE
    desk.begin()
    desk.settle()
    assert desk.agenda.next_due() is None
