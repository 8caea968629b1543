"""From what a survey has found to a plan: what has moved, what must be read, what is to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce

from skynet.contents import Reader, decide_contents
from skynet.errors import Problem
from skynet.findings import Finding, directory_in_the_way, in_the_way
from skynet.index import Index
from skynet.matching import Held, Holder, known_by_identity
from skynet.moves import after_moves, differing, moved_directories, stale_inside
from skynet.ops import Mkdir, Op, Plan, Record
from skynet.plan import Known, Policy, make_plan, told_first
from skynet.remote import Remote
from skynet.renaming import relocations
from skynet.rules import Rules
from skynet.scan import Root, settled
from skynet.scope import Survey
from skynet.shuffle import relocated
from skynet.signatures import Signatures
from skynet.spelling import respelled, respellings
from skynet.trashed import Trashed
from skynet.tree import DIR, FILE, ancestors


@dataclass(frozen=True, slots=True)
class Tools:
    """What plans are made with, on this side.

    is_unsettled: whether a file (path, modification time in ns) is still being written. check: as
    of Reader.
    """

    root: Root
    index: Index
    signatures: Signatures
    trashed: Trashed
    rules: Rules
    is_unsettled: Callable[[bytes, int], bool] = lambda _path, _mtime_ns: False
    check: Callable[[], None] = lambda: None


def plan_for(found: Survey, tools: Tools, policy: Policy, read_back: Remote | None) -> Plan:
    """The plan. `found` gets the findings as they are once the directories have moved.

    read_back: where foreign files are read to compare them, or None.
    """
    told = _told_again(found)
    first: list[Op] = []
    moved = []
    if policy.folds_case:
        moved.append(_respell(found, first))
    if policy.moves_directories:
        moved.append(_move_directories(found, first, tools.rules, policy))
    if policy.folds_case:
        moved.append(_respell(found, first))  # in what has moved
    _settle_directories(found, first)
    if any(moved):
        found.findings = differing(found.findings)
    if found.kept:
        _leave_kept(found, moved)
    _know_by_identity(found)
    _leave_unsettled(found, tools.is_unsettled)
    reader = Reader(tools.root, check=tools.check)
    if policy.can_copy:
        holds_size = partial(_holds_size, tools)
        reader = Reader(tools.root, tools.signatures.get, holds_size, tools.check)
    found.findings = decide_contents(found, reader, read_back)
    found.settled = {_before(moved, path): here for path, here in found.settled.items()}
    sends = {path: delta.sent for path, delta in found.deltas.items()}
    holder = _holder(found.findings, moved, tools)
    return make_plan(found.findings, policy, Known(told, first, holder, sends))


def _move_directories(
    found: Survey, first: list[Op], rules: Rules, policy: Policy
) -> dict[bytes, bytes]:
    """Let directories be where they have moved: new path -> old path, the operations to `first`."""
    doubts = _doubts(found.problems, rules)
    moves = moved_directories(
        found.findings, doubts, retained=policy.complete_sync, folds_case=policy.folds_case
    )
    ops = relocations(found.findings, moves)
    if moves:
        made = {op.path: op.entry for op in ops if isinstance(op, Mkdir)}
        first += told_first(stale_inside(found.findings, moves))
        found.findings = after_moves(found.findings, moves, made)
    first += ops
    return moves


def _respell(found: Survey, first: list[Op]) -> dict[bytes, bytes]:
    """Let names have the case that they have here: as `_move_directories`."""
    moves, found.findings, problems = respelled(found.findings)
    found.problems += problems
    for f in found.findings if moves else ():
        if f.path in moves and f.local is not None and f.local.digest:
            _note_identity(found, f)
    ops = respellings(moves, found.findings)
    if moves:
        first += told_first(stale_inside(found.findings, moves))
        found.findings = after_moves(found.findings, moves, {})
    first += ops
    return moves


def _leave_kept(found: Survey, moved: list[dict[bytes, bytes]]) -> None:
    """Leave directories where they are that must stay, and have not moved from a file's place."""
    kept = {
        f.path
        for f in found.findings
        if directory_in_the_way(f) and _before(moved, f.path) in found.kept
    }
    why = "that holds what is ignored, or cannot be looked at."
    found.problems += [in_the_way(path, why) for path in sorted(kept)]
    found.findings = [f for f in found.findings if f.path not in kept]


def _know_by_identity(found: Survey) -> None:
    """Let files have the digest that their identity tells."""
    known = list(known_by_identity(found.findings))
    for before, f in zip(found.findings, known, strict=True):
        if f is not before and (f.stale or f.local != f.remote):
            _note_identity(found, f)
    found.findings = known


def _note_identity(found: Survey, finding: Finding) -> None:
    """Let it be recorded with what is done at the path: unknown, it would let an edit go unseen."""
    found.identities[finding.path] = settled(finding.here, found.looked_ns)


def _leave_unsettled(found: Survey, is_unsettled: Callable[[bytes, int], bool]) -> None:
    """Leave files for later that are still being written, but not those that have only moved."""
    kept = []
    for finding in found.findings:
        local = finding.local
        if local is None or local.kind != FILE or local.digest:
            kept.append(finding)
        elif is_unsettled(finding.path, local.mtime_ns):
            found.unsettled.append(finding.path)
        else:
            kept.append(finding)
    found.findings = kept


def _doubts(problems: list[Problem], rules: Rules) -> Callable[[bytes], bool]:
    """Whether nothing may be concluded from a path that has no finding."""
    troubled = {problem.path for problem in problems}

    def is_doubtful(path: bytes) -> bool:
        if not troubled.isdisjoint((path, *ancestors(path))):
            return True
        return any(rules.hides(path, is_dir=is_dir) for is_dir in (False, True))

    return is_doubtful


def _holds_size(tools: Tools, size: int) -> bool:
    """Whether the remote may hold a file of this size that stays where it is."""
    return tools.index.holds_size(size) or tools.trashed.holds_size(size)


def _holder(findings: list[Finding], moved: list[dict[bytes, bytes]], tools: Tools) -> Holder:
    """Finds content at paths that do not change, as they are after all moves; or in the trash."""
    trails = [{source: path for path, source in moves.items()} for moves in moved if moves]
    changing = {f.path for f in findings if f.local != f.remote or f.stale}

    def holder(size: int, digest: bytes) -> Held | None:
        for path, entry in tools.index.holders(size, digest):
            now = reduce(lambda at, goes_to: relocated(goes_to, at), trails, path)
            if now not in changing:
                return now, entry
        return tools.trashed.holder(size, digest)

    return holder


def _told_again(found: Survey) -> list[Op]:
    """Tell the manifest of what a broken run had made or parked, before it goes on from there."""
    ours = set(found.reclaimed)
    return told_first(f for f in found.findings if f.path in ours)


def _settle_directories(found: Survey, first: list[Op]) -> None:
    """Note the identity of directories that are others than before, but for those made or moved."""
    told = {op.path for op in first if not isinstance(op, Record)}
    for f in found.findings:
        is_other = f.local is not None and f.local.kind == DIR and f.here != f.known
        if is_other and f.remote == f.local and f.path not in told:
            found.settled[f.path] = f.here


def _before(moved: list[dict[bytes, bytes]], path: bytes) -> bytes:
    """Where the index has what is at `path` after all moves: it is told of identities before them.

    There they move along with what they are the identities of.
    """
    return reduce(lambda at, moves: relocated(moves, at), reversed(moved), path)
