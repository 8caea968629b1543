"""From what a survey has found to a plan: what has moved, what must be read, what is to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from skynet.contents import Reader, decide_contents
from skynet.errors import Problem
from skynet.findings import Finding
from skynet.index import Index
from skynet.matching import Held, Holder, known_by_identity
from skynet.moves import after_moves, moved_directories
from skynet.ops import Mkdir, Op, Plan, Record
from skynet.plan import Known, Policy, make_plan
from skynet.remote import Remote
from skynet.renaming import relocations
from skynet.rules import Rules
from skynet.scan import Root
from skynet.shuffle import relocated
from skynet.signatures import Signatures
from skynet.survey import Survey
from skynet.tree import DIR, ancestors


@dataclass(frozen=True, slots=True)
class Tools:
    """What plans are made with, on this side."""

    root: Root
    index: Index
    signatures: Signatures
    rules: Rules


def plan_for(found: Survey, tools: Tools, policy: Policy, read_back: Remote | None) -> Plan:
    """The plan. `found` gets the findings as they are once the directories have moved.

    read_back: where foreign files are read to compare them, or None.
    """
    doubts = _doubts(found.problems, tools.rules)
    moves = moved_directories(found.findings, doubts, retained=policy.complete_sync)
    first = [*_told_again(found), *relocations(found.findings, moves)]
    if moves:
        made = {op.path: op.entry for op in first if isinstance(op, Mkdir)}
        found.findings = after_moves(found.findings, moves, made)
    _settle_directories(found, first)
    found.findings = list(known_by_identity(found.findings))
    reader = Reader(tools.root)
    if policy.can_copy:
        reader = Reader(tools.root, tools.signatures.get, tools.index.holds_size)
    found.findings = decide_contents(found, reader, read_back)
    sends = {path: delta.sent for path, delta in found.deltas.items()}
    holder = _holder(found.findings, moves, tools.index)
    return make_plan(found.findings, policy, Known(first, holder, sends))


def _doubts(problems: list[Problem], rules: Rules) -> Callable[[bytes], bool]:
    """Whether nothing may be concluded from a path that has no finding."""
    troubled = {problem.path for problem in problems}

    def is_doubtful(path: bytes) -> bool:
        if not troubled.isdisjoint((path, *ancestors(path))):
            return True
        return any(rules.hides(path, is_dir=is_dir) for is_dir in (False, True))

    return is_doubtful


def _holder(findings: list[Finding], moves: dict[bytes, bytes], index: Index) -> Holder:
    """Finds content at paths that have no finding, as they are after the moves."""
    goes_to = {source: path for path, source in moves.items()}
    changing = {finding.path for finding in findings}

    def holder(size: int, digest: bytes) -> Held | None:
        for path, entry in index.holders(size, digest):
            now = relocated(goes_to, path)
            if now not in changing:
                return now, entry
        return None

    return holder


def _told_again(found: Survey) -> list[Op]:
    """Tell the manifest of what a broken run had parked, before it goes on from there."""
    ours = set(found.reclaimed)
    return [Record(f.path, f.remote) for f in found.findings if f.path in ours]


def _settle_directories(found: Survey, first: list[Op]) -> None:
    """Note the identity of directories that are others than before, and were not moved to there."""
    moved = {op.path for op in first if not isinstance(op, Record)}
    for f in found.findings:
        is_other = f.local is not None and f.local.kind == DIR and f.here != f.known
        if is_other and f.remote == f.local and moved.isdisjoint((f.path, *ancestors(f.path))):
            found.settled[f.path] = f.here
