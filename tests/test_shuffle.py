"""The order of moves: nothing is ever put where something is, and all ends where it belongs."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from skynet.rules import PARKED
from skynet.shuffle import Shuffle, Step, natural, parking_place, relocated
from skynet.tree import ancestors, order, parent

NAMES = [b"a", b"b", b"c", b"d", b"e"]


def shuffled(tree: dict[bytes, int], moves: dict[bytes, bytes], missing: set[bytes]) -> list[Step]:
    def occupant(path: bytes) -> bytes | None:
        there = natural(moves, path)
        return there if there in tree else None

    shuffle = Shuffle(moves, missing, occupant)
    for path in sorted(moves, key=order):
        shuffle.place(path)
    return shuffle.steps


def carried_out(tree: dict[bytes, int], steps: list[Step]) -> dict[bytes, int]:
    """Directories by path, each with a number; moves take along what is below."""
    now = dict(tree)
    for step in steps:
        assert step.path not in now, "the place is taken"
        assert parent(step.path) in {b"", *now}, "there is no such directory"
        if step.source is None:
            now[step.path] = -1
            continue
        assert step.path != step.source
        assert step.source not in ancestors(step.path), "into itself"
        moving = [p for p in now if p == step.source or p.startswith(step.source + b"/")]
        assert moving
        for path in moving:
            now[step.path + path[len(step.source) :]] = now.pop(path)
    return now


def parks(steps: list[Step]) -> int:
    return sum(step.path.startswith(PARKED) for step in steps)


def flat(*names: bytes) -> dict[bytes, int]:
    return {name: number for number, name in enumerate(names)}


def test_a_chain_begins_at_its_end_and_nothing_is_parked() -> None:
    tree = flat(b"a", b"b", b"c")
    steps = shuffled(tree, {b"b": b"a", b"c": b"b", b"d": b"c"}, set())
    assert [(step.source, step.path) for step in steps] == [
        (b"c", b"d"),
        (b"b", b"c"),
        (b"a", b"b"),
    ]


def test_a_swap_parks_one() -> None:
    tree = flat(b"a", b"b")
    steps = shuffled(tree, {b"a": b"b", b"b": b"a"}, set())
    assert carried_out(tree, steps) == {b"a": 1, b"b": 0}
    assert (len(steps), parks(steps)) == (3, 1)


def test_a_cycle_of_any_length_parks_one() -> None:
    names = [b"%d" % number for number in range(80)]
    moves = dict(zip(names, [*names[1:], names[0]], strict=True))
    steps = shuffled(flat(*names), moves, set())
    assert (len(steps), parks(steps)) == (81, 1)


def test_a_very_long_chain_is_cut_by_parking() -> None:
    names = [b"%05d" % number for number in range(5001)]
    moves = dict(zip(names[1:], names[:-1], strict=True))
    tree = flat(*names[:-1])
    steps = shuffled(tree, moves, set())
    assert carried_out(tree, steps) == {name: n for n, name in enumerate(names[1:])}
    assert parks(steps) <= 5000 // 90


def test_a_directory_moves_into_a_new_one_that_takes_its_name() -> None:
    tree = flat(b"a")
    steps = shuffled(tree, {b"a/b": b"a"}, {b"a"})
    assert carried_out(tree, steps) == {b"a": -1, b"a/b": 0}


def test_what_moves_along_is_not_moved_again() -> None:
    tree = flat(b"a", b"a/x")
    assert len(shuffled(tree, {b"b": b"a", b"b/x": b"a/x"}, set())) == 1


def test_parking_places_differ_and_are_short() -> None:
    assert parking_place(b"a") != parking_place(b"b")
    assert len(parking_place(b"a" * 4000)) < 64


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[bytes, int], dict[bytes, bytes], set[bytes]]:
    """A tree of directories, and where its directories are to go, as a random life leaves them."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    tree: list[bytes] = []
    for _ in range(rng.randrange(1, 9)):
        path = rng.choice([b"", *tree])
        path = path + b"/" + rng.choice(NAMES) if path else rng.choice(NAMES)
        if path not in tree:
            tree.append(path)
    now = {path: path for path in tree}  # path by now -> first path; b"" is new
    for _ in range(rng.randrange(1, 12)):
        source = rng.choice(list(now))
        above = rng.choice([b"", *now])
        path = above + b"/" + rng.choice(NAMES) if above else rng.choice(NAMES)
        if path in now or above == source or above.startswith(source + b"/"):
            continue
        if rng.random() < 0.2:
            now[path] = b""
            continue
        for old in [p for p in now if p == source or p.startswith(source + b"/")]:
            now[path + old[len(source) :]] = now.pop(old)
    moves = {path: old for path, old in now.items() if old}
    missing = {path for path, old in now.items() if not old}
    return {path: n for n, path in enumerate(tree)}, moves, missing


@given(trees())
def test_everything_comes_to_its_place(
    case: tuple[dict[bytes, int], dict[bytes, bytes], set[bytes]],
) -> None:
    tree, moves, missing = case
    result = carried_out(tree, shuffled(tree, moves, missing))
    for path, source in moves.items():
        assert result[path] == tree[source]
    assert len(result) - len(tree) == len(missing & result.keys())


def test_relocation_takes_the_nearest_move() -> None:
    goes_to = {b"a": b"x", b"a/b": b"y"}
    assert relocated(goes_to, b"a/b/f") == b"y/f"
    assert relocated(goes_to, b"a/c/f") == b"x/c/f"
    assert relocated(goes_to, b"b") == b"b"
