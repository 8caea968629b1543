"""Directories that have moved: which they are, and what differs once they are there. Pure.

A directory is known by its identity, not by its content, so that it is found to have moved also
when much in it has changed. It is moved as a whole; what differs inside is then found as
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skynet.findings import Finding, is_retained, kind_at
from skynet.rules import folded
from skynet.shuffle import natural, relocated
from skynet.tree import DIR, Entry, ancestors, is_closed, name, order, parent

IsDoubtful = Callable[[bytes], bool]


def moved_directories(
    findings: Sequence[Finding],
    is_doubtful: IsDoubtful,
    *,
    retained: bool,
    folds_case: bool = False,
) -> dict[bytes, bytes]:
    """New path -> old path of each directory to be moved, by paths as they are before all moves.

    is_doubtful(path): whether it is not known that nothing is at a local path that has no finding.
    retained: whether what is only retained on the remote may be moved. folds_case: whether the
    remote ignores case; then nothing moves to where it has another spelling.
    """
    sources = {f.known: f for f in findings if _has_left(f) and (retained or not is_retained(f))}
    if not sources:
        return {}  # as in a first plan, however large
    found = {f.path: f for f in findings}
    moves = _proposed(findings, found, sources)
    spelled = {folded(f.path): f.path for f in findings if f.remote} if folds_case else {}
    while True:
        wrong = {
            path
            for path, source in moves.items()
            if not _is_possible(path, source, moves, found)
            or any(
                _is_spelled_otherwise(natural(moves, place), spelled)
                for place in (path, *ancestors(path))
            )
        }
        wrong |= _with_doubts(findings, found, moves, is_doubtful) if not wrong else set()
        if not wrong:
            break
        moves = {path: source for path, source in moves.items() if path not in wrong}
    return {path: source for path, source in moves.items() if natural(moves, path) != source}


def _proposed(
    findings: Sequence[Finding], found: dict[bytes, Finding], sources: dict[bytes, Finding]
) -> dict[bytes, bytes]:
    """What identities say, but for directories that hold what is not skynet's to move."""
    paths = {f.path for f in sources.values()}
    not_ours = {above for f in findings if f.foreign for above in (f.path, *ancestors(f.path))}
    inside = _names_inside(findings, paths)
    moves: dict[bytes, bytes] = {}
    for f in sorted(findings, key=lambda f: order(f.path)):
        source = sources.get(f.here) if f.local is not None and f.local.kind == DIR else None
        if source is None or source.path == f.path or source.path in not_ours:
            continue
        if any(is_closed(found[p].remote) for p in _touched(source.path, f.path) if p in found):
            continue
        # Inodes are used again, so a directory must also resemble the one that it is taken for.
        if any(_has_kind(found.get(f.path + b"/" + n), k) for n, k in inside[source.path]):
            moves[f.path] = source.path
    return moves


def _has_left(finding: Finding) -> bool:
    """Whether a directory of ours is no longer at its path."""
    remote, local = finding.remote, finding.local
    if remote is None or remote.kind != DIR or finding.foreign or not finding.known:
        return False
    return local is None or local.kind != DIR or finding.here != finding.known


def _names_inside(
    findings: Sequence[Finding], directories: set[bytes]
) -> dict[bytes, list[tuple[bytes, str]]]:
    """Name and kind of what the remote holds right inside these directories."""
    inside: dict[bytes, list[tuple[bytes, str]]] = {path: [] for path in directories}
    for f in findings:
        if f.remote is not None and parent(f.path) in inside:
            inside[parent(f.path)].append((name(f.path), f.remote.kind))
    return inside


def _has_kind(finding: Finding | None, kind: str) -> bool:
    return finding is not None and finding.local is not None and finding.local.kind == kind


def _touched(source: bytes, path: bytes) -> tuple[bytes, ...]:
    """Directories that their owner must be able to change when `source` is moved to `path`."""
    return source, parent(source), parent(path)


def _is_possible(
    path: bytes, source: bytes, moves: dict[bytes, bytes], found: dict[bytes, Finding]
) -> bool:
    """Whether nothing that stays is in the way: the place is free, or its directory moves too."""
    there = natural(moves, path)
    if there == source:
        return True
    kind = kind_at(found, there)
    if kind is not None and (kind != DIR or there not in moves.values()):
        return False
    above = [directory for directory in ancestors(path) if directory not in moves]
    return all(kind_at(found, natural(moves, directory)) in (None, DIR) for directory in above)


def _is_spelled_otherwise(path: bytes, spelled: dict[str, bytes]) -> bool:
    return bool(spelled) and spelled.get(folded(path), path) != path


def _with_doubts(
    findings: Sequence[Finding],
    found: dict[bytes, Finding],
    moves: dict[bytes, bytes],
    is_doubtful: IsDoubtful,
) -> set[bytes]:
    """The moves that would take something to where it is not known what should be."""
    goes_to = {source: path for path, source in moves.items()}
    doubtful: set[bytes] = set()
    for f in findings if moves else ():
        path = relocated(goes_to, f.path) if f.remote is not None else f.path
        if path != f.path and path not in found and is_doubtful(path):
            doubtful |= {above for above in (path, *ancestors(path)) if above in moves}
    return doubtful


def after_moves(
    findings: Sequence[Finding],
    moves: dict[bytes, bytes],
    made: dict[bytes, Entry],
) -> list[Finding]:
    """What is to be done where, when the directories have moved and those in `made` were made.

    What is in sync then is told too: more may be to move, and its identity may be another.
    """
    goes_to = {source: path for path, source in moves.items()}
    local = {f.path: f for f in findings}
    remote = {relocated(goes_to, f.path): f for f in findings if f.remote is not None}
    result = []
    for path in sorted(local.keys() | remote.keys(), key=order):
        finding = _joined(path, local.get(path), remote.get(path), made.get(path))
        if _matters(finding) or finding.local is not None:
            result.append(finding)
    return result


def differing(findings: Sequence[Finding]) -> list[Finding]:
    """The findings but those of what is in sync."""
    return [finding for finding in findings if _matters(finding)]


def _matters(finding: Finding) -> bool:
    is_told = not finding.stale and not finding.foreign  # else the manifest must learn of it
    return finding.local != finding.remote or not is_told or is_closed(finding.local)


def _joined(
    path: bytes, here: Finding | None, there: Finding | None, made: Entry | None
) -> Finding:
    local = here.local if here is not None else None
    remote = there.remote if there is not None else made
    known = there.known if there is not None else b""
    key = here.here if here is not None else b""
    foreign = there is not None and there.foreign
    stale = there.stale if there is not None else here is not None and here.stale
    return Finding(path, remote, local, foreign, stale, key, known)
