"""What a plan will cost and spare, told before it is carried out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from skynet.ops import Copy, Delete, Mkdir, Op, Patch, Plan, Record, Rename, Rmdir, SetMeta, Upload
from skynet.rules import PARKED
from skynet.tree import DIR, Entry, ancestors

SETUP_TRIPS = 19  # login, manifest, a short listing, lease, recording: measured with OpenSSH
TRIPS: dict[type[Op], int] = {  # round trips of an operation, one after the other
    Mkdir: 1,
    Upload: 3,
    Patch: 4,
    Copy: 4,
    Rename: 1,
    SetMeta: 1,
    Delete: 1,
    Rmdir: 1,
    Record: 0,
}
AT_ONCE = 1024  # operations that wait for the server together, as measured with small files

Children = Callable[[bytes], Iterable[tuple[bytes, Entry]]]  # path and entry of what is in it


class Weight(NamedTuple):
    """The files below a directory: how many, and their content in bytes."""

    files: int = 0
    size: int = 0


class Preview(NamedTuple):
    """Bytes of content that are sent, and that need not be, by what; and about how many trips."""

    sends: int
    by_rename: int
    by_copy: int
    by_patch: int
    trips: int


def preview(plan: Plan, moved: Mapping[bytes, Weight]) -> Preview:
    """What a plan will cost. moved: see `weigh_moved`."""
    spared = dict.fromkeys((Rename, Copy, Patch), 0)
    for op in plan.ops:
        if isinstance(op, Rename | Copy | Patch):
            spared[type(op)] += spares(op, moved)
        spared[Rename] -= _not_moved_after_all(op, moved)
    sends = plan.counts()["bytes"]
    return Preview(sends, spared[Rename], spared[Copy], spared[Patch], round_trips(plan))


def spares(op: Op, moved: Mapping[bytes, Weight]) -> int:
    """Bytes of content that the operation gets to its path without sending them."""
    match op:
        case Rename(path=path) if path.startswith(PARKED):
            return 0  # it goes on from there
        case Rename(path=path, entry=entry):
            return moved.get(path, Weight()).size if entry.kind == DIR else entry.size
        case Copy(entry=entry):
            return entry.size
        case Patch(entry=entry, sends=sends):
            return entry.size - sends
        case _:
            return 0


def _not_moved_after_all(op: Op, moved: Mapping[bytes, Weight]) -> int:
    """Bytes that came along with a directory, and are replaced, deleted or moved on from there."""
    bytes_back = 0
    old = op.entry if isinstance(op, Delete) else getattr(op, "replaces", None)
    if old is not None and _came_along(op.path, moved):
        bytes_back += old.size
    if isinstance(op, Rename) and _came_along(op.source, moved):
        bytes_back += op.entry.size
    return bytes_back


def _came_along(path: bytes, moved: Mapping[bytes, Weight]) -> bool:
    return bool(moved) and any(above in moved for above in ancestors(path))


def weigh_moved(ops: Iterable[Op], children: Children) -> dict[bytes, Weight]:
    """The new path of each renamed directory, and what it holds. children: before the plan."""
    weights: dict[bytes, Weight] = {}
    gone: set[bytes] = set()
    for op in ops:
        if not isinstance(op, Rename):
            continue
        if op.entry.kind == DIR:
            known = weights.get(op.source)
            weights[op.path] = known if known is not None else _weigh(op.source, children, gone)
        gone.add(op.source)
    return weights


def _weigh(directory: bytes, children: Children, gone: set[bytes]) -> Weight:
    files = size = 0
    waiting = [directory]
    while waiting:
        for path, entry in children(waiting.pop()):
            if path in gone:
                continue
            if entry.kind == DIR:
                waiting.append(path)
            else:
                files += 1
                size += entry.size
    return Weight(files, size)


def round_trips(plan: Plan) -> int:
    """About how often the server has to answer before the plan is done; 0 if there is nothing.

    That is the setup, the longest chain of operations that wait for each other, and for all of
    them together how often AT_ONCE of them are asked. The time that content takes is not in it.
    """
    if not plan.ops:
        return 0
    costs = [TRIPS[type(op)] for op in plan.ops]
    return SETUP_TRIPS + _longest_chain(costs, plan.needs) + sum(costs) // AT_ONCE


def _longest_chain(costs: Sequence[int], needs: Sequence[Sequence[int]]) -> int:
    ends: list[int] = []
    for cost, needed in zip(costs, needs, strict=True):
        ends.append(cost + max((ends[index] for index in needed), default=0))
    return max(ends)
