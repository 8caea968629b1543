"""Moves as operations: renames, and the directories that they need. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from skynet.findings import Finding, kind_at
from skynet.ops import Mkdir, Op, Rename
from skynet.shuffle import Shuffle, Step, natural, relocated
from skynet.tree import DIR, FILE, LINK, OWNER_ACCESS, Entry, ancestors, is_closed, order


def relocations(findings: Sequence[Finding], moves: Mapping[bytes, bytes]) -> list[Op]:
    """What moves directories: new path -> old path, as they are before all moves."""
    if not moves:
        return []
    found = {f.path: f for f in findings}
    goes_to = {source: path for path, source in moves.items()}

    def comes_along(path: bytes) -> bool:
        there = natural(moves, path)
        return kind_at(found, there) == DIR and relocated(goes_to, there) == path

    missing = {
        f.path: opened(f.local)
        for f in findings
        if f.local is not None and f.local.kind == DIR
        if f.path not in moves and not comes_along(f.path)
    }

    def occupant(path: bytes) -> bytes | None:
        there = natural(moves, path)
        return there if kind_at(found, there) == DIR else None

    shuffle = Shuffle(moves, missing, occupant)
    for path in sorted(moves, key=order):
        shuffle.place(path)
    return [
        Mkdir(step.path, missing[step.path])
        if step.source is None
        else Rename(step.path, step.source, _entry(found, step.origin))
        for step in shuffle.steps
    ]


def renames(
    findings: Sequence[Finding],
    moves: Mapping[bytes, bytes],
    mkdirs: Sequence[Op],
    cleared: Collection[bytes],
) -> tuple[list[Op], list[Op]]:
    """What moves files: before the directories in `cleared` are removed, and after that.

    moves: new path -> old path. mkdirs: the directories that are to be made; those of them that
    the moves need are among the result.
    """
    if not moves:
        return [], []
    found = {f.path: f for f in findings}
    missing = {op.path: op for op in mkdirs}

    def occupant(path: bytes) -> bytes | None:
        return path if kind_at(found, path) == FILE else None

    shuffle = Shuffle(moves, missing, occupant, closed=cleared)
    targets = sorted(moves, key=order)
    for path in targets:
        if path not in cleared:
            shuffle.place(path)
        elif any(directory in cleared for directory in ancestors(moves[path])):
            shuffle.park(moves[path])
    early = len(shuffle.steps)
    shuffle.closed = set()
    for path in targets:
        shuffle.place(path)
    leaving = set(moves.values())
    ops = [
        missing[step.path] if step.source is None else _rename(step, found, leaving)
        for step in shuffle.steps
    ]
    return ops[:early], ops[early:]


def _rename(step: Step, found: Mapping[bytes, Finding], leaving: set[bytes]) -> Rename:
    assert step.source is not None
    there = found.get(step.path)
    replaces = None
    if there is not None and not there.foreign and there.path not in leaving:
        replaces = there.remote if kind_at(found, step.path) in (FILE, LINK) else None
    return Rename(step.path, step.source, _entry(found, step.origin), replaces)


def _entry(found: Mapping[bytes, Finding], path: bytes) -> Entry:
    entry = found[path].remote
    assert entry is not None
    return entry


def opened(entry: Entry) -> Entry:
    """The directory as it is made: its owner must be able to fill it."""
    if entry.mode is None or not is_closed(entry):
        return entry
    return msgspec.structs.replace(entry, mode=entry.mode | OWNER_ACCESS)
