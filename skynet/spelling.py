"""Names that a remote which ignores case cannot tell apart: what only got another case. Pure.

There `photo` is where `Photo` is, so whatever has that place here now takes it over: it is renamed
before all else, and what differs is found afterwards, as at a path that never changed. Each goes by
way of a name of our own, since a server may remove a file that is renamed to what it takes for its
own name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from skynet.errors import Problem
from skynet.findings import Finding, holds_ours, is_same_file
from skynet.ops import Op, Rename
from skynet.rules import colliding, folded, shown
from skynet.shuffle import natural, parking_place
from skynet.tree import ancestors, is_closed, join, name, parent


class Confused(NamedTuple):
    """Names of one directory that cannot be told from one that is here.

    left_alone: those of which nothing can be done, which problems (of names) tell. respelled: what
    is here and what is there, of one thing or of two that follow each other.
    """

    left_alone: frozenset[bytes]
    respelled: frozenset[bytes]
    problems: Sequence[Problem]


NOT_CONFUSED = Confused(frozenset(), frozenset(), ())


def confusion(
    here: Collection[bytes],
    recorded: Collection[bytes],
    seen: Collection[bytes],
    untouchable: Collection[bytes],
) -> Confused:
    """Which names of one directory are confused.

    here: the local names that are mirrored. recorded, seen: what the remote holds, as the manifest
    and as its listing says. untouchable: those of them that must stay as they are.
    """
    there = {*recorded, *seen}
    pairs = colliding({*here, *there})
    if not pairs:
        return NOT_CONFUSED
    both_here = colliding(pairs.keys() & here)
    # No remote that ignores case has two of them either, so it is not known what it would do.
    doubtful = [*both_here, *colliding(pairs.keys() & recorded), *colliding(pairs.keys() & seen)]
    doubtful += pairs.keys() & there & {*untouchable}
    bad = {folded(name) for name in doubtful}
    concerned = {folded(name) for name in pairs.keys() & here}
    names = frozenset(name for name in pairs if folded(name) in concerned)
    left_alone = frozenset(name for name in names if folded(name) in bad)
    problems = [
        _collision(name, both_here[name]) if name in both_here else case_change(name, pairs[name])
        for name in sorted(left_alone & {*here})
    ]
    return Confused(left_alone, names - left_alone, problems)


def _collision(name: bytes, other: bytes) -> Problem:
    return Problem(
        name,
        "case-collision",
        f"The remote ignores case, so it cannot be told from {shown(other)}. Rename one.",
    )


class Respelled(NamedTuple):
    """What gets another spelling: new path -> old path, by paths as they are before all moves.

    findings: those that went in, but for what is left alone, which problems tell of.
    """

    moves: dict[bytes, bytes]
    findings: list[Finding]
    problems: list[Problem]


def respelled(findings: Sequence[Finding]) -> Respelled:
    """Find what is spelled in another way on the remote.

    A finding must come after those of the directories above it.
    """
    found = {f.path: f for f in findings}
    there = {folded(f.path): f for f in findings if f.remote is not None and f.local is None}
    moves: dict[bytes, bytes] = {}
    problems: list[Problem] = []
    left_alone: set[bytes] = set()
    for f in findings if there else ():
        old = there.get(folded(f.path)) if f.local is not None and f.remote is None else None
        if old is None or natural(moves, f.path) == old.path:
            continue
        if not left_alone.isdisjoint(ancestors(f.path)):
            continue
        if old.foreign or any(is_closed(at.remote) for at in _touched(old, found)):
            left_alone |= {f.path, old.path}
            problems.append(case_change(f.path, name(old.path)))
        else:
            moves[f.path] = old.path
    known = [_known(f, found.get(moves.get(f.path, b""))) for f in findings]
    if left_alone:
        known = [f for f in known if left_alone.isdisjoint((f.path, *ancestors(f.path)))]
    return Respelled(moves, known, problems)


def case_change(path: bytes, other: bytes) -> Problem:
    """A path that cannot be mirrored, since the remote has something under the name `other`."""
    return Problem(
        path,
        "case-change",
        f"The remote ignores case and holds {shown(other)} there, which is to be left alone. "
        "Give one of them another name.",
    )


def respellings(moves: dict[bytes, bytes], findings: Sequence[Finding]) -> list[Op]:
    """The renames: a directory before what is in it, each by way of a parking place."""
    found = {f.path: f for f in findings}
    ops: list[Op] = []
    for path, origin in moves.items():
        entry = found[origin].remote
        assert entry is not None
        now = join(parent(path), name(origin))
        parked = parking_place(now)  # which the manifest knows by then
        ops += [Rename(parked, now, entry), Rename(path, parked, entry)]
    return ops


def _touched(old: Finding, found: dict[bytes, Finding]) -> list[Finding]:
    """What its owner must be able to change when this moves."""
    above = found.get(parent(old.path))
    return [old] if above is None else [old, above]


def _known(finding: Finding, old: Finding | None) -> Finding:
    """The finding, with the digest of the same file under its old name."""
    if old is None or old.remote is None or not holds_ours(old):
        return finding
    is_same = is_same_file(finding.here, old.known)
    return finding.with_digest(old.remote) if is_same else finding
