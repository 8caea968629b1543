"""The docket: what is open is listed, looked at again, and an approval is about what is held."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.cycle import Request
from skynet.docket import COMBINE_SECONDS, FIRST_LOOK_AGAIN, LAST_LOOK_AGAIN, Docket
from tests.support.journals import PATHS, covered
from tests.support.reports import mirror, report

SCAN, AUDIT = 3600.0, 86400.0


class NoArrivals:
    def take(self, is_busy: object) -> Mapping[bytes, bool]:
        return {}

    def put_back(self) -> None:
        raise AssertionError


class Desk:
    """A docket, and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        settings = mirror(Path("/state"), scan_interval=SCAN, audit_interval=AUDIT)
        self.docket = Docket(settings, lambda: self.now)

    def ask(self, marks: Mapping[bytes, bool] | None = None) -> Request:
        return self.docket.request(marks, lambda path, mtime_ns: False, NoArrivals())

    def cycle(self, marks: Mapping[bytes, bool] | None = None, **what: Any) -> dict[bytes, float]:
        """One that looks at the marks, and came to this."""
        request = self.ask(marks)
        came_to = report(was_whole=marks is None or marks.get(b"", False), **what)
        return self.docket.close(request, came_to, marks or {})

    @property
    def is_due(self) -> bool:
        return self.docket.scan_at <= self.now


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_it_begins_with_a_scan_that_audits_and_both_come_back(desk: Desk) -> None:
    assert desk.is_due
    assert desk.ask().audit
    audits = 0
    for _ in range(49):
        audits += desk.ask().audit
        desk.cycle()
        assert desk.docket.scan_at == desk.now + SCAN
        desk.now += SCAN
    assert audits == 3


def test_a_look_at_marks_neither_audits_nor_puts_off_the_scan(desk: Desk) -> None:
    request = desk.ask({b"a": False})
    assert not request.audit
    assert request.goes_on
    desk.cycle({b"a": False})
    assert desk.is_due


@given(st.dictionaries(st.sampled_from(PATHS), st.booleans(), max_size=4))
def test_marks_that_cover_the_root_ask_for_what_a_scan_does(some: dict[bytes, bool]) -> None:
    desk = Desk()
    desk.cycle(None, deleted=[b"a", b"b"])
    desk.docket.scan_now(approved="hash", audited=True)
    whole, scan = (desk.ask(marked) for marked in ({**some, b"": True}, None))
    for name in ("audit", "approve", "marks", "held_deletes"):
        assert getattr(whole, name) == getattr(scan, name)
    assert scan.audit


def test_where_everything_is_marked_all_the_time_audits_come_as_often_as_ever(desk: Desk) -> None:
    audits = []
    while desk.now < 1000.0 + 5 * AUDIT:  # polled every minute
        marked = None if desk.is_due else {b"": True}
        if desk.ask(marked).audit:
            audits.append(desk.now)
        desk.cycle(marked)
        desk.now += 60.0
    assert audits == [1000.0 + nth * AUDIT for nth in range(5)]


def test_a_cycle_that_failed_leaves_all_as_it_was(desk: Desk) -> None:
    desk.docket.scan_now(approved="hash")
    assert desk.ask().approve == "hash"
    assert desk.is_due
    assert desk.ask().approve == "hash"
    assert desk.ask().audit


# Problems.


def test_problems_are_looked_at_again_ever_less_often(desk: Desk) -> None:
    waits = [desk.cycle({b"a": False}, problems=[b"a"])[b"a"] - desk.now for _ in range(10)]
    assert waits[:4] == [FIRST_LOOK_AGAIN * 2**n for n in range(4)]
    assert waits[-1] == LAST_LOOK_AGAIN
    desk.cycle({b"a": False})
    assert desk.cycle({b"a": False}, problems=[b"a"])[b"a"] - desk.now == FIRST_LOOK_AGAIN


def test_a_problem_told_twice_counts_once(desk: Desk) -> None:
    desk.cycle(None, problems=[b"a", b"a"])
    assert desk.cycle(None, problems=[b"a"])[b"a"] - desk.now == 2 * FIRST_LOOK_AGAIN


problems = st.frozensets(st.sampled_from(PATHS[1:]), max_size=4)
marks = st.dictionaries(st.sampled_from(PATHS), st.booleans(), max_size=4)


@given(st.lists(st.tuples(st.none() | marks, problems), max_size=8))
def test_every_problem_is_listed_until_its_path_is_looked_at(
    cycles: list[tuple[dict[bytes, bool] | None, frozenset[bytes]]],
) -> None:
    desk = Desk()
    open_ones: set[bytes] = set()
    for looked, found in cycles:
        seen = set(PATHS) if looked is None else covered(looked)
        desk.cycle(looked, problems=found & seen)
        open_ones = (open_ones - seen) | (found & seen)
        assert desk.docket.problems.keys() == open_ones


def test_a_look_at_a_directory_itself_says_nothing_of_what_is_below(desk: Desk) -> None:
    desk.cycle(None, problems=[b"a/b"])
    desk.cycle({b"a": False})
    assert desk.docket.problems.keys() == {b"a/b"}
    desk.cycle({b"a": True})
    assert not desk.docket.problems


# Orders that come at any time.


def test_an_approval_goes_with_the_next_scan_and_with_no_other(desk: Desk) -> None:
    desk.cycle()
    desk.docket.scan_now(approved="hash")
    assert desk.is_due
    assert desk.ask({b"a": False}).approve == ""
    assert desk.ask().approve == "hash"
    desk.cycle()
    assert desk.ask().approve == ""


@pytest.mark.parametrize("marked", [None, {b"": True}])
def test_what_is_ordered_while_everything_is_looked_at_is_done_after_it(
    desk: Desk, marked: dict[bytes, bool] | None
) -> None:
    desk.cycle()
    request = desk.ask(marked)
    desk.docket.scan_now(approved="hash", audited=True)
    desk.now += 60.0
    desk.docket.close(request, report(), {})
    assert desk.is_due
    assert desk.ask().approve == "hash"
    assert desk.ask().audit


def test_a_scan_that_is_asked_for_can_audit(desk: Desk) -> None:
    desk.cycle()
    desk.docket.scan_now()
    assert not desk.ask().audit
    desk.docket.scan_now(audited=True)
    assert desk.ask().audit


# What is held.


def drop(desk: Desk, *paths: bytes, held: Collection[bytes] = ()) -> None:
    """A cycle that looks at these paths alone, and finds `held` of them to be held."""
    desk.cycle(dict.fromkeys(paths, False), deleted=list(held))


def test_what_is_held_counts_with_the_deletes_of_the_next_cycles(desk: Desk) -> None:
    desk.cycle(None, deleted=[b"a", b"b"])
    assert desk.docket.is_holding
    assert desk.ask({b"c": False}).held_deletes == 2
    assert desk.ask().held_deletes == 0  # they are in the plan itself


def test_more_that_is_held_is_scanned_for_at_once_and_then_together(desk: Desk) -> None:
    desk.cycle()
    scans = []
    for number in range(600):  # for a minute, ten a second
        path = b"%d" % number
        drop(desk, path, held=[path])
        assert desk.docket.is_holding
        if desk.is_due:
            scans.append(desk.now)
            desk.cycle(None, deleted=[b"%d" % n for n in range(number + 1)])
        desk.now += 0.1
    assert scans == [pytest.approx(1000.0), pytest.approx(1000.0 + COMBINE_SECONDS, abs=0.2)]
    drop(desk, b"last", held=[b"last"])
    assert desk.docket.scan_at <= desk.now + COMBINE_SECONDS
    assert desk.ask({b"x": False}).held_deletes > 300


def test_what_was_held_and_is_there_again_brings_a_scan_that_releases(desk: Desk) -> None:
    desk.cycle(None, deleted=[b"a", b"b"])
    drop(desk, b"c")
    assert not desk.is_due
    drop(desk, b"a", held=[b"a"])
    assert not desk.is_due
    drop(desk, b"a")
    assert desk.is_due
    desk.cycle()
    assert not desk.docket.is_holding
    assert desk.ask({b"a": False}).held_deletes == 0


def test_a_scan_that_comes_sooner_anyway_is_not_put_off(desk: Desk) -> None:
    desk.cycle()
    drop(desk, b"a", held=[b"a"])
    desk.cycle(None, deleted=[b"a"])
    desk.now += SCAN - 10.0
    desk.docket.scan_at = desk.now
    drop(desk, b"b", held=[b"b"])
    assert desk.is_due


def test_few_deletes_are_nothing_to_hold(desk: Desk) -> None:
    desk.cycle()
    desk.cycle({b"a": False}, deleted=[b"a"], may_delete=10)
    assert not desk.docket.is_holding
    assert not desk.is_due
