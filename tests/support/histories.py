"""Random trees with the edits that made them, for properties: every step is one a disk allows."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from skynet.tree import (
    DIR,
    FILE,
    LINK,
    Drop,
    Edit,
    Entry,
    Move,
    Put,
    edit,
    is_below,
    join,
    subtree,
)

# Few names, so that paths meet again; among them all that sort right around b"/".
NAMES = [b"a", b"b", b"a.b", b"a-", b"a0", b"a b", b"\xff\xfe", b"\n", b"-", b"n" * 255]

_INT64 = 2**63 - 1
files = st.builds(
    Entry,
    kind=st.just(FILE),
    size=st.integers(0, _INT64),
    mtime_ns=st.integers(-_INT64, _INT64),
    mode=st.none() | st.integers(0, 0o7777),
    digest=st.just(b"") | st.binary(min_size=16, max_size=16),
    retained=st.booleans(),
)
directories = st.builds(Entry, kind=st.just(DIR), mode=st.none() | st.integers(0, 0o7777))
links = st.builds(Entry, kind=st.just(LINK), link=st.sampled_from([b"a", b"../\xff", b"/x\n"]))
entries = files | directories | links


class Step(NamedTuple):
    """One wish: what to do, to which path or in which directory (by number), with what."""

    verb: str
    which: int
    where: int
    name: bytes
    entry: Entry


steps = st.builds(
    Step,
    verb=st.sampled_from(["put", "put", "put", "drop", "move"]),
    which=st.integers(0, 99),
    where=st.integers(0, 99),
    name=st.sampled_from(NAMES),
    entry=entries,
)


class History(NamedTuple):
    """Edits, each valid where it stands, and the tree that they make out of nothing."""

    edits: list[Edit]
    tree: dict[bytes, Entry]


def histories(max_size: int = 40) -> st.SearchStrategy[History]:
    return st.lists(steps, max_size=max_size).map(_follow)


def _follow(wishes: list[Step]) -> History:
    tree: dict[bytes, Entry] = {}
    edits: list[Edit] = []
    for wish in wishes:
        step = _edit(tree, wish)
        if step is not None:
            edits.append(step)
            edit(tree, [step])
    return History(edits, tree)


def _edit(tree: dict[bytes, Entry], wish: Step) -> Edit | None:
    """What a wish means in this tree; None when no disk would do it."""
    places = [b"", *(path for path in tree if tree[path].kind == DIR)]
    target = join(places[wish.where % len(places)], wish.name)
    is_full = len(subtree(tree, target)) > 1
    if wish.verb == "put":
        return None if is_full and wish.entry.kind != DIR else Put(target, wish.entry)
    if not tree:
        return None
    source = list(tree)[wish.which % len(tree)]
    if wish.verb == "drop":
        return Drop(source)
    impossible = is_full or is_below(target, source) or is_below(source, target)
    return None if impossible else Move(source, target)
