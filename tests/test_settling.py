"""Settling: nothing is sent while it is written, and nothing waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import settling as room
from skynet.settling import Settling

SETTLE, SETTLE_MAX = 2.0, 20.0
PATH = b"video"

gaps = st.lists(st.floats(0, 1.9), max_size=60)  # seconds between changes that belong together
anything = st.lists(st.tuples(st.floats(0, 60), st.booleans()), min_size=1, max_size=30)


def new() -> Settling:
    return Settling(SETTLE, SETTLE_MAX)


@given(gaps)
def test_a_file_that_goes_on_changing_is_due_when_it_is_quiet_or_after_settle_max(
    pauses: list[float],
) -> None:
    settling, now = new(), 100.0
    settling.saw(PATH, now, done=False)
    for pause in pauses:
        now += pause
        settling.saw(PATH, now, done=False)
    assert settling.due(PATH) == pytest.approx(min(now + SETTLE, 100.0 + SETTLE_MAX))


@given(anything)
def test_it_is_never_due_before_its_last_change_is_quiet_nor_much_later(
    changes: list[tuple[float, bool]],
) -> None:
    settling, now = new(), 100.0
    for pause, done in changes:
        now += pause
        settling.saw(PATH, now, done=done)
        due = settling.due(PATH)
        assert due is not None
        assert due <= now + SETTLE
        assert due <= now if done else due > now or now >= 100.0 + SETTLE_MAX


def test_after_a_rest_the_wait_is_a_new_one() -> None:
    settling = new()
    for second in range(100, 400, 5):
        settling.saw(PATH, float(second), done=False)
        assert settling.due(PATH) == second + SETTLE


def test_closing_ends_the_wait_and_the_next_change_begins_one() -> None:
    settling = new()
    settling.saw(PATH, 100.0, done=False)
    settling.saw(PATH, 119.0, done=True)
    assert settling.due(PATH) == 119.0
    settling.saw(PATH, 119.5, done=False)
    assert settling.due(PATH) == 121.5


def test_who_has_waited_long_enough_and_goes_on_changing_waits_as_long_again() -> None:
    settling = new()
    for second in range(100, 122):
        settling.saw(PATH, float(second), done=False)
    assert settling.due(PATH) == 120.0
    settling.tried(PATH, 121.0)
    for second in range(122, 150):
        settling.saw(PATH, float(second), done=False)
    assert settling.due(PATH) == 141.0


def test_a_look_that_came_too_early_does_not_begin_the_wait_anew() -> None:
    settling = new()
    for second in range(100, 112):
        settling.saw(PATH, float(second), done=False)
        settling.tried(PATH, float(second))
    for second in range(112, 130):
        settling.saw(PATH, float(second), done=False)
    assert settling.due(PATH) == 120.0


@pytest.mark.parametrize(
    ("age", "wait"), [(0.0, 2.0), (0.5, 1.5), (2.0, 0.0), (9.0, 0.0), (-5.0, 0.0)]
)
def test_of_an_unseen_file_its_age_tells(age: float, wait: float) -> None:
    assert new().due_by_age(PATH, 100.0, age) == 100.0 + wait


@given(st.lists(st.floats(0.1, 1.9), min_size=1, max_size=60), st.floats(0.0, 1.9))
def test_an_unseen_file_that_is_young_at_every_look_waits_no_longer_than_settle_max(
    pauses: list[float], age: float
) -> None:
    settling, now = new(), 100.0
    for pause in pauses:
        due = settling.due_by_age(PATH, now, age)
        assert due == pytest.approx(min(now + SETTLE - age, 100.0 + SETTLE_MAX))
        now += pause


def test_an_unseen_file_that_was_sent_young_is_looked_at_again_and_waits_again() -> None:
    settling = new()
    settling.due_by_age(PATH, 100.0, 0.5)
    assert settling.end_waits(101.0, lambda path: path != PATH) == {}
    assert settling.due_by_age(PATH, 125.0, 0.5) <= 125.0
    assert settling.end_waits(130.0, lambda path: path == PATH) == {PATH: 130.0 + SETTLE}
    assert settling.due_by_age(PATH, 149.0, 0.5) == 150.0


@pytest.mark.parametrize("is_there", [True, False])
def test_an_unseen_file_that_came_to_rest_or_is_gone_begins_another_wait(is_there: bool) -> None:
    settling = new()
    settling.due_by_age(PATH, 100.0, 0.5)
    if is_there:
        assert settling.due_by_age(PATH, 104.0, 3.0) == 104.0
    assert settling.end_waits(125.0, lambda _: True) == {}
    assert settling.due_by_age(PATH, 130.0, 0.0) == 132.0


def test_what_was_seen_says_more_than_the_age() -> None:
    settling = new()
    settling.saw(PATH, 100.0, done=True)
    assert settling.due_by_age(PATH, 100.1, 0.1) == 100.0


def test_those_that_changed_longest_ago_are_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "MAX_FILES", 3)
    settling = new()
    for number, path in enumerate([b"a", b"b", b"c", b"a", b"d"]):
        settling.saw(path, 100.0 + number, done=False)
    assert [path for path in (b"a", b"b", b"c", b"d") if settling.due(path) is None] == [b"b"]
    settling = new()
    for path in (b"a", b"b", b"c", b"d"):
        settling.due_by_age(path, 100.0, 0.0)
    dues = [settling.due_by_age(path, 119.0, 0.0) for path in (b"d", b"b", b"a")]
    assert dues == [120.0, 120.0, 121.0]
