"""Trees as values: paths, order, and the law of diff and patch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skynet.tree import (
    DIR,
    FILE,
    LATEST_TIME,
    Change,
    Drop,
    Entry,
    Move,
    Put,
    Tree,
    ancestors,
    diff,
    edit,
    is_below,
    is_valid,
    join,
    name,
    order,
    parent,
    patch,
    subtree,
    wire_time,
)
from tests.support.worlds import CONTENTS, content_entry, pairs

SECOND = 1_000_000_000
DIRECTORY = Entry(DIR, mode=0o755)
ONE, TWO = content_entry(CONTENTS[1]), content_entry(CONTENTS[2])
paths = st.lists(st.sampled_from([b"a", b"b", b"-", b"\xff", b"a\n"]), min_size=1).map(b"/".join)


@given(pairs())
def test_patching_with_the_difference_makes_the_other_tree(pair: tuple[Tree, Tree]) -> None:
    old, new = pair
    changes = list(diff(old, new))
    assert patch(old, changes) == new
    assert patch(new, diff(new, old)) == old
    assert all(change.old != change.new for change in changes)


@given(pairs())
def test_equal_trees_do_not_differ(pair: tuple[Tree, Tree]) -> None:
    assert list(diff(pair[1], dict(pair[1]))) == []


@given(pairs())
def test_differences_come_in_tree_order(pair: tuple[Tree, Tree]) -> None:
    changed = [change.path for change in diff(*pair)]
    assert changed == sorted(changed, key=order)


def test_differences_are_told() -> None:
    old = {b"a": ONE, b"b": ONE, b"same": ONE}
    new = {b"b": TWO, b"c": DIRECTORY, b"same": ONE}
    assert list(diff(old, new)) == [
        Change(b"a", ONE, None),
        Change(b"b", ONE, TWO),
        Change(b"c", None, DIRECTORY),
    ]


@given(paths, paths)
def test_order_puts_a_directory_right_before_what_is_below_it(one: bytes, other: bytes) -> None:
    if is_below(other, one):
        assert order(one) < order(other)
    elif order(one) < order(other):
        # Nothing that is not below `one` comes between it and what is below it.
        assert order(join(one, b"\xff" * 9)) < order(other)


@given(paths)
def test_path_is_its_parent_and_its_name(path: bytes) -> None:
    assert join(parent(path), name(path)) == path
    assert is_below(path, parent(path))
    assert not is_below(path, path)
    assert all(is_below(path, above) for above in ancestors(path))


def test_ancestors_are_nearest_first_and_without_the_root() -> None:
    assert list(ancestors(b"a/b/c")) == [b"a/b", b"a"]
    assert list(ancestors(b"a")) == []


def test_below_is_by_name_and_not_by_prefix() -> None:
    assert is_below(b"a/b", b"a")
    assert not is_below(b"ab", b"a")
    assert is_below(b"a", b"")


@given(pairs())
def test_subtree_is_the_path_and_what_is_below(pair: tuple[Tree, Tree]) -> None:
    tree = pair[0]
    for path in [*tree, b"none"]:
        expected = {other for other in tree if other == path or is_below(other, path)}
        assert set(subtree(tree, path)) == expected


def test_edits_are_carried_out_in_order() -> None:
    tree = {b"a": DIRECTORY, b"a/x": ONE, b"b": TWO, b"ab": ONE}
    edit(tree, [Move(b"a", b"c"), Put(b"a", ONE), Drop(b"b"), Put(b"c/y", TWO), Drop(b"none")])
    assert tree == {b"c": DIRECTORY, b"c/x": ONE, b"a": ONE, b"ab": ONE, b"c/y": TWO}


def test_drop_takes_everything_below() -> None:
    tree = {b"a": DIRECTORY, b"a/x": ONE, b"a-": ONE}
    edit(tree, [Drop(b"a")])
    assert tree == {b"a-": ONE}


@pytest.mark.parametrize(
    ("tree", "valid"),
    [
        ({}, True),
        ({b"a": DIRECTORY, b"a/b": ONE}, True),
        ({b"a/b": ONE}, False),
        ({b"a": ONE, b"a/b": ONE}, False),
    ],
    ids=["empty", "nested", "orphan", "below a file"],
)
def test_tree_is_valid_if_every_parent_is_a_directory(tree: Tree, valid: bool) -> None:
    assert is_valid(tree) is valid


@given(pairs())
def test_random_trees_are_valid(pair: tuple[Tree, Tree]) -> None:
    assert is_valid(pair[0])
    assert is_valid(pair[1])


@pytest.mark.parametrize(
    ("time_ns", "seconds"),
    [
        (0, 0),
        (SECOND - 1, 0),
        (SECOND, 1),
        (-1, 0),
        (-(2**62), 0),
        (LATEST_TIME * SECOND + 5, LATEST_TIME),
        (2**62, LATEST_TIME),
    ],
)
def test_wire_time_is_clamped(time_ns: int, seconds: int) -> None:
    assert wire_time(time_ns) == seconds


def test_entries_are_compared_by_all_they_say() -> None:
    assert Entry(FILE, 1) != Entry(FILE, 1, retained=True)
    assert Entry(FILE, 1, digest=b"d" * 16) != Entry(FILE, 1)
