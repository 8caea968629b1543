"""The safety guard: what in a plan could be a mistake that destroys data. Pure.

A hazard holds the whole plan until a person approves it by the plan's fingerprint. Approval is
bound to what the plan destroys, so it never covers more than was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from skynet.ops import Delete, Plan, Rmdir, Upload
from skynet.rules import shown
from skynet.tree import FILE


class Hazard(NamedTuple):
    """One reason to hold a plan. `approve` is what approves it."""

    code: str
    message: str
    approve: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the guard must know beside the plan.

    entries: how many the manifest holds. found: how many the local scan saw, directories
    included. root_changed: the source is another directory (device, inode) than last time.
    owner: whose manifest this is, if not ours. max_fraction, max_entries: more deletes are held.
    """

    entries: int
    found: int
    root_changed: bool = False
    owner: str = ""
    ask_foreign: bool = True
    max_fraction: float = 0.5
    max_entries: int = 1000


def hazards(plan: Plan, around: Circumstances) -> list[Hazard]:
    """Every reason to hold the plan, worst first."""
    reasons = [
        _other_owner(plan, around),
        _root(plan, around),
        _mass_delete(plan, around),
        _foreign(plan, around),
        _zeroed(plan),
    ]
    return [Hazard(code, message, plan.fingerprint) for code, message in filter(None, reasons)]


Reason = tuple[str, str] | None


def _deletes(plan: Plan) -> int:
    return sum(isinstance(op, Delete | Rmdir) and not op.foreign for op in plan.ops)


def _other_owner(plan: Plan, around: Circumstances) -> Reason:
    if not around.owner or not plan.ops:
        return None
    return "other-mirror", (
        f"The target is the mirror of another source, {around.owner}. "
        "Is the target right? Approve to make it the mirror of this source."
    )


def _root(plan: Plan, around: Circumstances) -> Reason:
    deletes = _deletes(plan)
    if not deletes:
        return None
    if not around.found:
        return "emptied-root", (
            f"The source is empty and {deletes} entries would be deleted on the remote. "
            "Is the disk mounted?"
        )
    if around.root_changed:
        return "swapped-root", (
            f"The source is another directory than last time and {deletes} entries would be "
            "deleted on the remote. Is the right disk mounted?"
        )
    return None


def _mass_delete(plan: Plan, around: Circumstances) -> Reason:
    deletes = _deletes(plan)
    share = deletes / around.entries if around.entries else 0.0
    if deletes > around.max_entries or share > around.max_fraction:
        return "mass-delete", (
            f"{deletes} of {around.entries} entries would be deleted on the remote; more than "
            f"{around.max_entries}, or {around.max_fraction:.0%}, are held (max_delete)."
        )
    return None


def _foreign(plan: Plan, around: Circumstances) -> Reason:
    if not around.ask_foreign:
        return None
    paths = [op.path for op in plan.ops if isinstance(op, Delete | Rmdir) and op.foreign]
    if not paths:
        return None
    return "foreign-files", (
        f"{len(paths)} entries on the remote are not skynet's ({shown(paths[0])}"
        f"{', ...' if len(paths) > 1 else ''}) and would be moved to the trash. "
        'To leave them alone for good, set foreign = "keep".'
    )


def _zeroed(plan: Plan) -> Reason:
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
    return "zeroed-files", (
        f"{len(paths)} files have become empty without a new modification time "
        f"({shown(paths[0])}), as after a power loss. Look at them before they overwrite the "
        "good versions on the remote."
    )
