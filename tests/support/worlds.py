"""Random trees and perturbed copies of them, for properties: never two independent trees.

A tree grows, and is perturbed, by a *program*: bytes, STEP of them a step, each a wish that is
passed over where no disk would allow it. Drawing bytes is what keeps an example cheap enough for
many thousands of them, and hypothesis shrinks them well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import msgspec
from hypothesis import strategies as st

from skynet.findings import Finding, undecided
from skynet.scan import digest_of
from skynet.tree import (
    DIR,
    FILE,
    LINK,
    Entry,
    Tree,
    diff,
    is_below,
    is_closed,
    join,
    order,
    subtree,
    wire_time,
)

Growing = dict[bytes, Entry]

STEP = 5  # bytes of a program for one step: verb, which, where, name, value
SECOND = 1_000_000_000

# Few names, so that paths meet again; among them those that sort right around b"/".
NAMES = [b"a", b"b", b"c", b"a.b", b"a-", b"\xff", b"\n"]
# Some of equal size, so that only a digest tells them apart.
CONTENTS = [b"", b"x", b"y", b"xx", b"yy", b"z" * 70]
TIMES = [0, 1_000 * SECOND + 5, 1_000 * SECOND + 7, 2_000 * SECOND]
FILE_MODES = [0o644, 0o600]
DIR_MODES = [0o755, 0o500, 0o700]
LINKS = [b"a", b"../b"]


@cache
def content_entry(content: bytes, mtime_ns: int = 0, mode: int = 0o644) -> Entry:
    """The entry of a file with this content."""
    return Entry(FILE, len(content), mtime_ns, mode, digest_of([content]))


CONTENT_OF = {content_entry(content).digest: content for content in CONTENTS}


class _Step(NamedTuple):
    verb: int
    which: int
    where: int
    name: int
    value: int


def _file(value: int) -> Entry:
    value, content = divmod(value, len(CONTENTS))
    value, time = divmod(value, len(TIMES))
    return content_entry(CONTENTS[content], TIMES[time], FILE_MODES[value % len(FILE_MODES)])


def _any_entry(value: int) -> Entry:
    value, kind = divmod(value, 5)
    if kind == 3:
        return Entry(DIR, mode=DIR_MODES[value % len(DIR_MODES)])
    if kind == 4:
        return Entry(LINK, link=LINKS[value % len(LINKS)])
    return _file(value)


def _target(tree: Growing, step: _Step) -> bytes:
    places = [b"", *(path for path in tree if tree[path].kind == DIR)]
    return join(places[step.where % len(places)], NAMES[step.name % len(NAMES)])


def _chosen(tree: Growing, number: int) -> bytes:
    return list(tree)[number % len(tree)]


def _add(tree: Growing, step: _Step) -> None:
    tree.setdefault(_target(tree, step), _any_entry(step.value))


def _remove(tree: Growing, step: _Step) -> None:
    for path in subtree(tree, _chosen(tree, step.which)):
        del tree[path]


def _edit(tree: Growing, step: _Step) -> None:
    path = _chosen(tree, step.which)
    if tree[path].kind == FILE:
        tree[path] = _file(step.value)


def _touch(tree: Growing, step: _Step) -> None:
    path = _chosen(tree, step.which)
    old, new = tree[path], _file(step.value)
    if old.kind == FILE:
        tree[path] = msgspec.structs.replace(old, mtime_ns=new.mtime_ns, mode=new.mode)
    elif old.kind == DIR:
        tree[path] = Entry(DIR, mode=DIR_MODES[step.value % len(DIR_MODES)])


def _move(tree: Growing, step: _Step) -> None:
    source, target = _chosen(tree, step.which), _target(tree, step)
    if target not in tree and target != source and not is_below(target, source):
        _put_subtree(tree, target, source, _take_subtree(tree, source))


def _swap(tree: Growing, step: _Step) -> None:
    one, other = _chosen(tree, step.which), _chosen(tree, step.where)
    if one == other or is_below(one, other) or is_below(other, one):
        return
    first, second = _take_subtree(tree, one), _take_subtree(tree, other)
    _put_subtree(tree, other, one, first)
    _put_subtree(tree, one, other, second)


def _change_kind(tree: Growing, step: _Step) -> None:
    path = _chosen(tree, step.which)
    was_dir = tree[path].kind == DIR
    _remove(tree, step)
    if was_dir:
        tree[path] = _file(step.value)
    else:
        tree[path] = Entry(DIR, mode=0o755)
        if step.name % 2:
            tree[join(path, NAMES[0])] = _file(step.value)


def _take_subtree(tree: Growing, path: bytes) -> Growing:
    return {below: tree.pop(below) for below in subtree(tree, path)}


def _put_subtree(tree: Growing, target: bytes, source: bytes, taken: Growing) -> None:
    for path, entry in taken.items():
        tree[target + path[len(source) :]] = entry


_VERBS: list[Callable[[Growing, _Step], None]] = [
    *(_add, _remove, _edit, _touch, _move, _move, _swap, _change_kind)
]


def _steps(program: bytes) -> Iterator[_Step]:
    for at in range(0, len(program) - STEP + 1, STEP):
        yield _Step(*program[at : at + STEP])


def grown(program: bytes) -> Growing:
    """A tree out of nothing."""
    tree: Growing = {}
    for step in _steps(program):
        _add(tree, step)
    return tree


def perturbed(tree: Tree, program: bytes) -> Growing:
    """A copy that was edited, added to, removed from, moved about, swapped and touched."""
    copy = dict(tree)
    for step in _steps(program):
        verb = _VERBS[step.verb % len(_VERBS)] if copy else _add
        verb(copy, step)
    return copy


class World(NamedTuple):
    """The three trees of a mirror. remote: as an audit of what drifted from `synced` sees it."""

    local: Growing
    synced: Growing
    remote: Growing


_trunks = st.binary(min_size=4 * STEP, max_size=16 * STEP)
_edits = st.binary(max_size=8 * STEP)
_drifts = st.binary(max_size=4 * STEP)


def _pair(trunk: bytes, edits: bytes) -> tuple[Growing, Growing]:
    tree = grown(trunk)
    return tree, perturbed(tree, edits)


def pairs() -> st.SearchStrategy[tuple[Growing, Growing]]:
    """A tree and a perturbed copy of it."""
    return st.builds(_pair, _trunks, _edits)


def _drifted(trunk: bytes, edits: bytes, drift: bytes, retained: int) -> World:
    synced, local = _pair(trunk, edits)
    for number, path in enumerate(synced.keys() - local.keys()):
        if retained >> number % 16 & 1:
            synced[path] = msgspec.structs.replace(synced[path], retained=True)
    there = perturbed(synced, drift)
    return World(local, synced, {p: _observed(synced.get(p), e) for p, e in there.items()})


def worlds() -> st.SearchStrategy[World]:
    """Local edits since the last sync, drift on the remote, and entries that are retained."""
    return st.builds(_drifted, _trunks, _edits, _drifts, st.integers(0, 0xFFFF))


def seen(entry: Entry) -> Entry:
    """What a listing of the remote says of an entry: whole seconds, no digest."""
    time = wire_time(entry.mtime_ns) * SECOND if entry.kind == FILE else 0
    return msgspec.structs.replace(entry, mtime_ns=time, digest=b"", retained=False)


def _observed(synced: Entry | None, there: Entry) -> Entry:
    """The synced entry, with the mode that is there, if nothing else speaks against it."""
    if synced is None:
        return seen(there)
    same_mode = msgspec.structs.replace(synced, mode=there.mode)
    return same_mode if seen(same_mode) == seen(there) else seen(there)


def findings(world: World) -> list[Finding]:
    """Where the trees differ, as the survey tells it; digests only where planning needs them."""
    found = []
    for path in sorted(world.local.keys() | world.synced.keys() | world.remote.keys(), key=order):
        synced, remote = world.synced.get(path), world.remote.get(path)
        local = _known(world.local.get(path), synced)
        if local == synced == remote and not is_closed(local):
            continue
        foreign = remote is not None and synced is None
        stale = remote != synced and not foreign
        found.append(Finding(path, remote, local, foreign, stale))
    unread = {finding.path for finding in undecided(found)}
    return [_read(f, world.local) if f.path in unread else f for f in found]


def _known(local: Entry | None, synced: Entry | None) -> Entry | None:
    """The local entry with the digest that is known without reading the file."""
    if local is None or synced is None:
        return _undigested(local)
    if local == msgspec.structs.replace(synced, retained=False):
        return local
    return _undigested(local)


def _read(finding: Finding, local: Tree) -> Finding:
    return msgspec.structs.replace(finding, local=local[finding.path])


def agree(one: Entry | None, other: Entry | None) -> bool:
    """Whether two entries are the same as far as is known: a digest may be unknown."""
    if one is None or other is None or not (one.digest and other.digest):
        one, other = _undigested(one), _undigested(other)
    return one == other


def _undigested(entry: Entry | None) -> Entry | None:
    return msgspec.structs.replace(entry, digest=b"") if entry is not None else None


def differences(one: Tree, other: Tree) -> list[bytes]:
    """The paths at which two trees do not agree."""
    return [c.path for c in diff(one, other) if not agree(c.old, c.new)]
