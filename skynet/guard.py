"""The safety guard: what in a plan could be a mistake that destroys data. Pure.

A hazard holds the whole plan until a person approves it, or, where work must go on, the operations
that it is about and what needs them. An approval is bound to the hazards that were shown and to
the paths (or the owner) they are about: it covers no hazard that comes later, and outlives changes
that no hazard is about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from skynet.ops import REMOVALS, Delete, Op, Plan, Rename, Rmdir, SetMeta, Upload, paths_of
from skynet.rules import is_parked, shown
from skynet.tree import FILE

OTHER_MIRROR = "other-mirror"


class Hazard(NamedTuple):
    """One reason to hold a plan. `approve` (12 hex digits) approves all hazards of the plan.

    paths: of the operations it is about; empty if it is about all of them.
    """

    code: str
    message: str
    approve: str
    paths: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the guard must know beside the plan.

    entries: how many the manifest holds. found: how many the local scan saw, directories
    included. deleted_lately: how many were deleted within the last hour, beside those that were
    approved; they count with this plan's. root_changed: the source is another directory (device,
    inode) than last time. owner: whose manifest this is, if not ours. max_fraction, max_entries:
    more deletes are held.
    """

    entries: int
    found: int
    root_changed: bool = False
    owner: str = ""
    ask_foreign: bool = True
    max_fraction: float = 0.5
    max_entries: int = 1000
    deleted_lately: int = 0


class _Reason(NamedTuple):
    """A hazard before its approval is known. about: the paths, or the owner, it concerns."""

    code: str
    message: str
    about: list[bytes]


def hazards(plan: Plan, around: Circumstances) -> list[Hazard]:
    """Every reason to hold the plan, worst first."""
    possible = [
        _other_owner(plan, around),
        _root(plan, around),
        _mass_delete(plan, around),
        _foreign(plan, around),
        _zeroed(plan),
    ]
    reasons = [reason for reason in possible if reason is not None]
    approve = _approval(reasons)
    return [
        Hazard(r.code, r.message, approve, () if r.code == OTHER_MIRROR else r.about)
        for r in reasons
    ]


def unquestioned(plan: Plan, dangers: Iterable[Hazard]) -> Plan:
    """The part of a plan that no hazard is about, and that needs nothing a hazard is about.

    Nothing is left parked or opened by it.
    """
    about = {path for danger in dangers for path in danger.paths}
    if any(not danger.paths for danger in dangers):
        return Plan([], [], plan.problems)
    held = _held(plan, about)
    new_index: dict[int, int] = {}
    for index in range(len(plan.ops)):
        if index not in held:
            new_index[index] = len(new_index)
    ops = [plan.ops[index] for index in new_index]
    needs = [[new_index[before] for before in plan.needs[index]] for index in new_index]
    return Plan(ops, needs, plan.problems)


def _held(plan: Plan, about: Collection[bytes]) -> set[int]:
    """The operations in question, those that need them, and what only such would undo."""
    held = {
        index
        for index, op in enumerate(plan.ops)
        if op.path in about and isinstance(op, Delete | Rmdir | Upload)
    }
    undone_by = _undone_by(plan.ops)
    while True:
        for index, needed in enumerate(plan.needs):
            if not held.isdisjoint(needed):
                held.add(index)
        lasting = {i for i, ends in undone_by.items() if i not in held and held & ends}
        if not lasting:
            return held
        held |= lasting


def _undone_by(ops: Sequence[Op]) -> dict[int, set[int]]:
    """What parks something or opens a directory, and the later operations about that path."""
    begun: dict[bytes, int] = {}
    undone_by: dict[int, set[int]] = {}
    for index, op in enumerate(ops):
        for path in paths_of(op):
            if path in begun:
                undone_by[begun[path]].add(index)
        parks = isinstance(op, Rename) and is_parked(op.path)
        if parks or (isinstance(op, SetMeta) and op.opens):
            begun[op.path] = index
            undone_by[index] = set()
    return undone_by


def _approval(reasons: Iterable[_Reason]) -> str:
    """Names the reasons and all they are about, whatever the order of the plan."""
    digest = hashlib.blake2b(digest_size=6)
    for reason in reasons:
        digest.update(b"%b %d " % (reason.code.encode(), len(reason.about)))
        for about in sorted(reason.about):
            digest.update(b"%d:%b" % (len(about), about))
    return digest.hexdigest()


def _deleted(plan: Plan, *, foreign: bool) -> list[bytes]:
    return [op.path for op in plan.ops if isinstance(op, REMOVALS) and op.foreign == foreign]


def _other_owner(plan: Plan, around: Circumstances) -> _Reason | None:
    if not around.owner or not plan.ops:
        return None
    message = (
        f"The target is the mirror of another source, {around.owner}. "
        "Is the target right? Approve to make it the mirror of this source."
    )
    return _Reason(OTHER_MIRROR, message, [around.owner.encode("utf-8", "surrogateescape")])


def _root(plan: Plan, around: Circumstances) -> _Reason | None:
    deleted = _deleted(plan, foreign=False)
    if not deleted:
        return None
    if not around.found:
        message = (
            f"The source is empty and {len(deleted)} entries would be deleted on the remote. "
            "Is the disk mounted?"
        )
        return _Reason("emptied-root", message, deleted)
    if around.root_changed:
        message = (
            f"The source is another directory than last time and {len(deleted)} entries would be "
            "deleted on the remote. Is the right disk mounted?"
        )
        return _Reason("swapped-root", message, deleted)
    return None


def _mass_delete(plan: Plan, around: Circumstances) -> _Reason | None:
    deleted = _deleted(plan, foreign=False)
    before = around.deleted_lately
    count, entries = len(deleted) + before, around.entries + before
    share = count / entries if entries else 1.0
    if not deleted or (count <= around.max_entries and share <= around.max_fraction):
        return None
    earlier = f", after {before} within the last hour" if before else ""
    message = (
        f"{len(deleted)} of {around.entries} entries would be deleted on the remote{earlier}; more "
        f"than {around.max_entries}, or {around.max_fraction:.0%}, are held (max_delete)."
    )
    return _Reason("mass-delete", message, deleted)


def _foreign(plan: Plan, around: Circumstances) -> _Reason | None:
    if not around.ask_foreign:
        return None
    paths = _deleted(plan, foreign=True)
    if not paths:
        return None
    message = (
        f"{len(paths)} entries on the remote are not skynet's ({shown(paths[0])}"
        f"{', ...' if len(paths) > 1 else ''}) and would be moved to the trash. "
        'To leave them alone for good, set foreign = "keep".'
    )
    return _Reason("foreign-files", message, paths)


def _zeroed(plan: Plan) -> _Reason | None:
    paths = [
        op.path
        for op in plan.ops
        if isinstance(op, Upload)
        and op.replaces is not None
        and op.entry.kind == op.replaces.kind == FILE
        and op.entry.size == 0 < op.replaces.size
        and op.entry.mtime_ns == op.replaces.mtime_ns
    ]
    if not paths:
        return None
    message = (
        f"{len(paths)} files have become empty without a new modification time "
        f"({shown(paths[0])}), as after a power loss. Look at them before they overwrite the "
        "good versions on the remote."
    )
    return _Reason("zeroed-files", message, paths)
