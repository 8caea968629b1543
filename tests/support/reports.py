"""Reports of cycles as values, for tests of what is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from skynet.config import Mirror, Target
from skynet.cycle import Outcomes, Report
from skynet.errors import Problem
from skynet.guard import Circumstances, hazards
from skynet.ops import Delete, Op, Plan, Upload, tally
from skynet.tree import FILE, Entry

ENTRY = Entry(FILE, 10, 0, 0o644, b"0" * 16)


def mirror(state: Path, **settings: Any) -> Mirror:
    target = Target("host", b"/target")
    return Mirror(name="photos", source=b"/source", target=target, state_dir=state, **settings)


def report(
    *,
    problems: Collection[bytes] = (),
    deleted: Sequence[bytes] = (),
    uploaded: Sequence[bytes] = (),
    unsettled: Sequence[bytes] = (),
    was_whole: bool = True,
    may_delete: int = 0,
) -> Report:
    """Of a cycle whose deletes are held when they are more than `may_delete`."""
    ops: list[Op] = [Delete(path, ENTRY) for path in deleted]
    ops += [Upload(path, ENTRY, None) for path in uploaded]
    plan = Plan(ops, [()] * len(ops))
    dangers = hazards(plan, Circumstances(1000, 1, max_entries=may_delete))
    outcome: Outcomes = "changed" if ops else "in-sync"
    if dangers:
        outcome = "held"
    elif problems:
        outcome = "problems"
    return Report(
        outcome,
        plan,
        tally(op for op in ops if not dangers or isinstance(op, Upload)) if ops else Counter(),
        [problem(path) for path in problems],
        dangers,
        Counter(),
        unsettled=unsettled,
        was_whole=was_whole,
    )


def problem(path: bytes) -> Problem:
    return Problem(path, "unreadable", "It cannot be read.")
