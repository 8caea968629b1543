"""Dirty paths: nothing that was marked is forgotten, nothing else is looked at, all is bounded."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet import dirty as room
from skynet.dirty import CROWDED, MAX_PATH, MIN_MARKS, Dirty, is_spot
from skynet.marks import EVERYTHING, Mark
from skynet.tree import is_below
from tests.support.journals import PATHS, Model, covered

MANY = 10**6

marks = st.lists(st.builds(Mark, st.sampled_from(PATHS), st.booleans()), max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), marks),
        st.tuples(st.just("pending"), st.none()),
        st.tuples(st.just("settle"), st.integers(0, 3)),
    ),
    max_size=30,
)


def play(dirty: Dirty, history: list[tuple[str, object]]) -> Model:
    """Do the same to both; each settling is for one of the last things handed out."""
    model = Model()
    handed_out = [(0, 0)]
    for what, value in history:
        if isinstance(value, list):
            dirty.mark(value)
            model.mark(value)
        elif isinstance(value, int):
            upto, when = handed_out[-1 - value % len(handed_out)]
            dirty.settle(upto)
            model.settle(when)
        else:
            assert what == "pending"
            handed_out.append((dirty.hand_out(), model.now))
    return model


def spots(dirty: Dirty) -> list[bytes]:
    """All that it holds."""
    dirty.nothing_is_saved()
    return dirty.take_unsaved().news


def without_slack(found: dict[bytes, bool]) -> bool:
    deep = {path for path, deep in found.items() if deep}
    return not any(path != above and is_below(path, above) for above in deep for path in found)


@given(steps)
def test_what_is_dirty_is_what_was_marked_and_not_settled(
    history: list[tuple[str, object]],
) -> None:
    dirty = Dirty(MANY)
    model = play(dirty, history)
    assert covered(dirty.collapsed()) == model.dirty.keys()
    assert without_slack(dirty.collapsed())


@given(steps, st.integers(MIN_MARKS, 8), st.integers(1, 4))
def test_nothing_is_lost_by_collapsing(
    history: list[tuple[str, object]], max_marks: int, crowded: int
) -> None:
    dirty = Dirty(max_marks)
    with mock.patch.object(room, "CROWDED", crowded):
        model = play(dirty, history)
    assert model.dirty.keys() <= covered(dirty.collapsed())
    assert len(spots(dirty)) <= max_marks
    dirty.settle(dirty.hand_out())
    assert dirty.collapsed() == {}
    assert spots(dirty) == []


@given(steps, steps, st.integers(1, 4))
def test_what_is_unsaved_is_the_difference_to_the_disk(
    history: list[tuple[str, object]], more: list[tuple[str, object]], crowded: int
) -> None:
    dirty = Dirty(6)
    with mock.patch.object(room, "CROWDED", crowded):
        play(dirty, history)
        disk = set(dirty.take_unsaved().news)
        play(dirty, more)
        news, gone = dirty.take_unsaved()
        assert disk.isdisjoint(news)
        assert disk.issuperset(gone)
        disk = disk.difference(gone).union(news)
        again = Dirty(6)
        again.restore(disk)
    assert covered(again.collapsed()) >= covered(dirty.collapsed())
    assert disk == set(spots(dirty))


def test_a_file_marked_again_and_again_is_one_mark() -> None:
    dirty = Dirty(MANY)
    for _ in range(100):
        dirty.mark([Mark(b"d/file")])
    assert spots(dirty) == [b"d/file"]


def test_a_change_during_a_scan_of_everything_does_not_ask_for_another() -> None:
    dirty = Dirty(MANY)
    dirty.mark([EVERYTHING])
    scan = dirty.hand_out()
    dirty.mark([Mark(b"d/file"), Mark(b"")])
    assert dirty.collapsed() == {b"": True}
    dirty.settle(scan)
    assert dirty.collapsed() == {b"d/file": False, b"": False}


def test_a_deep_mark_that_nobody_knows_of_swallows_what_comes() -> None:
    dirty = Dirty(MANY)
    dirty.mark([Mark(b"d", deep=True)])
    dirty.mark(Mark(b"d/%d/%d" % (number, number), deep=True) for number in range(100))
    assert spots(dirty) == [b"d/"]


def test_a_crowded_directory_is_marked_as_a_whole() -> None:
    dirty = Dirty(MANY)
    dirty.mark(Mark(b"d/%d" % number) for number in range(CROWDED))
    dirty.mark([Mark(b"e/file"), Mark(b"d")])
    assert len(dirty.collapsed()) == CROWDED + 2
    dirty.mark([Mark(b"d/one more")])
    assert dirty.collapsed() == {b"d": True, b"e/file": False}


def test_many_crowded_directories_are_marked_as_one() -> None:
    dirty = Dirty(MANY)
    with mock.patch.object(room, "CROWDED", 10):
        for number in range(11 * 11 * 11):
            dirty.mark([Mark(b"top/%d/%d/%d" % (number // 121, number // 11 % 11, number % 11))])
    assert dirty.collapsed() == {b"top": True}


def test_what_is_deepest_is_cut_first() -> None:
    dirty = Dirty(100)
    dirty.mark([Mark(b"shallow"), Mark(b"d/file")])
    dirty.mark(Mark(b"a/%d/%d/%d" % (n % 10, n, n)) for n in range(100))
    found = dirty.collapsed()
    assert not found[b"shallow"]
    assert not found[b"d/file"]
    assert {path for path, deep in found.items() if deep} == {b"a/%d" % n for n in range(10)}


def test_what_a_deep_mark_covers_goes_first() -> None:
    dirty = Dirty(100)
    dirty.mark(Mark(b"d/%d/file" % number) for number in range(90))
    dirty.mark([Mark(b"d", deep=True)])
    others = {b"e/%d/file" % number: False for number in range(10)}
    dirty.mark(map(Mark, others))
    assert dirty.collapsed() == others | {b"d": True}
    assert len(spots(dirty)) == 11


@pytest.mark.parametrize("max_marks", [MIN_MARKS, 100])
def test_a_million_marks_take_no_more_than_is_allowed(max_marks: int) -> None:
    dirty = Dirty(max_marks)
    for number in range(0, 1_000_000, 37):
        dirty.mark([Mark(b"%d/%d/f%d" % (number % 7, number % 1009, number))])
        if number % 1369 == 0:
            dirty.hand_out()
    assert len(spots(dirty)) <= max_marks


def test_long_paths_count_as_several_marks() -> None:
    dirty = Dirty(1000)
    dirty.mark(Mark(b"%d/" % (number % 10) + b"x" * 2550 + b"%d" % number) for number in range(200))
    assert sum(map(len, spots(dirty))) <= 1000 * 256
    assert dirty.collapsed().keys() == {b"%d" % number for number in range(10)}


def test_a_path_too_long_is_marked_by_a_directory_above() -> None:
    dirty = Dirty(MANY)
    dirty.mark([Mark(b"d/" + b"x" * MAX_PATH), Mark(b"y" * MAX_PATH)])
    assert dirty.collapsed() == {b"d": True, b"y" * MAX_PATH: False}
    assert all(map(is_spot, spots(dirty)))


STRANGE = [b"/", b"/etc", b"a/", b"a//b", b"..", b"a/../../b", b"./a", b"a\0b", b"//"]


@pytest.mark.parametrize("path", STRANGE)
def test_what_is_no_path_marks_everything(path: bytes) -> None:
    dirty = Dirty(MANY)
    dirty.mark([Mark(path)])
    assert dirty.collapsed() == {b"": True}


@given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b"\0", b"\xff\n", b"..."]), max_size=4))
def test_a_spot_leads_nowhere_else(names: list[bytes]) -> None:
    spot = b"/".join(names)
    if is_spot(spot):
        assert not {b".", b"..", b"\0"} & set(names)
        assert b"//" not in spot
        assert spot == b"/" or not spot.startswith(b"/")
