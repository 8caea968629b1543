"""What a plan goes through, by its path before the plan: right, and soon however much moves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType

from hypothesis import given
from hypothesis import strategies as st

from skynet.execute import _Before, _gone_through
from skynet.ops import Op, Rename
from skynet.tree import DIR, Entry, is_below, parent

FOLDER = Entry(DIR, mode=0o755)
NAMES = [b"a", b"b", b"c"]
EVERY = [*NAMES, *(b"/".join([x, y]) for x in NAMES for y in NAMES)]
paths = st.sampled_from([*EVERY, b"a/b/c", b"n", b"n/m"])


@given(st.lists(st.tuples(st.none() | paths, paths), max_size=10))
def test_where_things_were(steps: list[tuple[bytes | None, bytes]]) -> None:
    before = _Before()
    former: dict[bytes, list[bytes]] = {path: [path] for path in EVERY}
    for source, path in steps:
        if path in former or (parent(path) and parent(path) not in former):
            continue
        if source is None:
            before.make(path)
            former[path] = []
        elif source in former and not is_below(path, source):
            before.move(source, path)
            moved = [old for old in former if old == source or is_below(old, source)]
            former |= {path + old[len(source) :]: former.pop(old) for old in moved}
    assert {path: before.at(path) for path in former} == former


def calls(ops: Sequence[Op]) -> int:
    """How many calls it takes to tell what these go through."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        _gone_through(ops)
    finally:
        sys.setprofile(None)
    return count


def test_twice_as_many_moves_take_twice_as_long() -> None:
    ops = [Rename(b"e%d" % number, b"d%d" % number, FOLDER) for number in range(400)]
    assert calls(ops) < 2.5 * calls(ops[:200])
