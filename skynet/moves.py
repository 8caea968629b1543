"""Directories that have moved: which they are, and what differs once they are there. Pure.

A directory is known by its inode and by one file that came along, so that it is found to have moved
also when much in it has changed. It is moved as a whole; what differs inside is then found as
everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skynet.findings import (
    Finding,
    is_fine,
    is_lost,
    is_retained,
    is_same_file,
    kind_at,
    moved_key,
)
from skynet.rules import folded
from skynet.shuffle import natural, relocated
from skynet.tree import DIR, Entry, ancestors, is_closed, join, name, order, parent

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
    not_ours = {above for f in findings if f.foreign for above in (f.path, *ancestors(f.path))}
    moves: dict[bytes, bytes] = {}
    for path, source in _proven(findings, found, _with_inodes_of(findings, sources)).items():
        is_at_closed = any(is_closed(found[p].remote) for p in _touched(source, path) if p in found)
        if source not in not_ours and not is_at_closed:
            moves[path] = source
    return moves


def _with_inodes_of(
    findings: Sequence[Finding], sources: dict[bytes, Finding]
) -> dict[bytes, bytes]:
    """Directory that is here now -> the one that had its inode."""
    pairs: dict[bytes, bytes] = {}
    for f in findings:
        source = sources.get(f.here) if f.local is not None and f.local.kind == DIR else None
        if source is not None and source.path != f.path:
            pairs[f.path] = source.path
    return pairs


def _proven(
    findings: Sequence[Finding], found: dict[bytes, Finding], pairs: dict[bytes, bytes]
) -> dict[bytes, bytes]:
    """Those of the pairs that are the same directory: something of what was in it came along.

    An inode alone says nothing, since disks use it again, often for the next directory; nor do
    names, since there is an IMG_0001 in each.
    """
    inside: dict[bytes, list[Finding]] = {source: [] for source in pairs.values()}
    for f in findings:
        if f.remote is not None and parent(f.path) in inside:
            inside[parent(f.path)].append(f)
    proven: dict[bytes, bytes] = {}

    def came_along(old: Finding, path: bytes) -> bool:
        new = found.get(join(path, name(old.path)))
        return new is not None and (proven.get(new.path) == old.path or _is_same(new, old))

    for path in sorted(pairs, key=order, reverse=True):  # what is inside before what it is in
        if any(came_along(old, path) for old in inside[pairs[path]]):
            proven[path] = pairs[path]
    return proven


def _is_same(new: Finding, old: Finding) -> bool:
    """Whether a file or link is the one that was elsewhere."""
    local, remote = new.local, old.remote
    if local is None or remote is None or local.kind != remote.kind or local.kind == DIR:
        return False
    if moved_key(old.known):
        return is_same_file(new.here, old.known)
    # It was recorded too young to have an identity.
    is_alike = (local.size, local.mtime_ns) == (remote.size, remote.mtime_ns)
    return is_alike and is_fine(local.mtime_ns)


def _has_left(finding: Finding) -> bool:
    """Whether a directory of ours is no longer at its path."""
    remote, local = finding.remote, finding.local
    if remote is None or remote.kind != DIR or finding.foreign or not finding.known:
        return False
    return local is None or local.kind != DIR or finding.here != finding.known


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

    What is in sync then is told too: more may be to move, and its identity may be another. The
    manifest must be told before of what is stale in them (`stale_inside`); so it has lost there
    nothing that is told afterwards.
    """
    goes_to = {source: path for path, source in moves.items()}
    told = {f.path for f in stale_inside(findings, moves)}
    lost = {f.path for f in findings if is_lost(f)} - told
    local = {f.path: f for f in findings}
    remote = {relocated(goes_to, f.path): f for f in findings if f.remote is not None}
    result = []
    for path in sorted(local.keys() | remote.keys(), key=order):
        there = remote.get(path)
        stale = there.stale if there is not None else path in lost
        finding = _joined(path, local.get(path), there, made.get(path), stale)
        if _matters(finding) or finding.local is not None:
            result.append(finding)
    return result


def stale_inside(findings: Sequence[Finding], moves: dict[bytes, bytes]) -> list[Finding]:
    """What is stale of the directories that move, and of what is in them; what is lost first."""
    goes_to = {source: path for path, source in moves.items()}
    stale = [f for f in findings if f.stale and relocated(goes_to, f.path) != f.path]
    return sorted(stale, key=lambda f: not is_lost(f))


def differing(findings: Sequence[Finding]) -> list[Finding]:
    """The findings but those of what is in sync."""
    return [finding for finding in findings if _matters(finding)]


def _matters(finding: Finding) -> bool:
    is_told = not finding.stale and not finding.foreign  # else the manifest must learn of it
    return finding.local != finding.remote or not is_told or is_closed(finding.local)


def _joined(
    path: bytes, here: Finding | None, there: Finding | None, made: Entry | None, stale: bool
) -> Finding:
    local = here.local if here is not None else None
    remote = there.remote if there is not None else made
    known = there.known if there is not None else b""
    key = here.here if here is not None else b""
    foreign = there is not None and there.foreign
    return Finding(path, remote, local, foreign, stale, key, known)
