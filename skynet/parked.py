"""What a broken run made or moved and did not record: whose it is, so that it goes on from there.

An audit finds it as something unknown, or takes it for what was there before and looks the same.
The claims say what may be where. Should they be lost, as by a power cut: a parked thing has a name
made from where it was (shuffle.parking_place), a directory that had reached its place by then is
told by its identity, and on a remote that ignores case the name tells what has got another case
meanwhile, whoever did that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from skynet.audit import actual
from skynet.claims import Claimed, Recorded
from skynet.findings import Finding, holds_wanted, is_fine
from skynet.remote import Facts
from skynet.rules import folded, is_parked
from skynet.shuffle import parking_place, relocated
from skynet.tree import DIR, FILE, Entry

Row = tuple[bytes, Entry]  # stat identity and entry, as the index has them


def reclaimed(
    findings: Sequence[Finding], recorded: Recorded, facts: Facts, claimed: Claimed
) -> tuple[list[Finding], list[bytes]]:
    """The findings, those of such things as ours again; and the paths of these."""
    origins = _origins(findings, facts)
    if not (origins or claimed):
        return list(findings), []
    result, ours = [], []
    for f in findings:
        if f.remote is not None:
            maybe = claimed.origins(f.path, recorded) if claimed.concern(f.path) else ()
            moved = recorded(origins[f.path]) if f.path in origins else None
            if not f.foreign:
                f = _told_apart(f, maybe, facts)
            elif row := _ours(f, moved, maybe, facts):
                f = Finding(f.path, row[1], f.local, here=f.here, known=row[0])
                ours.append(f.path)
        result.append(f)
    return result, ours


def _ours(finding: Finding, moved: Row | None, maybe: Iterable[Row], facts: Facts) -> Row | None:
    """What is at a path that the manifest does not know; None if that may be somebody else's.

    moved: what signs other than claims say. maybe: what may be there by the claims.
    """
    seen = finding.remote
    assert seen is not None
    if moved is not None and actual(moved[1], seen, facts) is moved[1]:
        return moved
    if seen.kind == FILE and not facts.keeps_times:
        return None  # its size alone tells too little
    if seen.kind == DIR:  # which has another mode than in the end as long as it is being filled
        return next(((known, seen) for known, entry in maybe if entry.kind == DIR), None)
    rows = _alike(maybe, seen, facts)
    if not rows:
        return None
    known, entry = rows[0]
    if len({entry.digest for _, entry in rows}) > 1:
        known, entry = b"", _unread(entry)
    # What is right already is adopted; as ours, of unknown content, it would be sent again.
    return (known, entry) if entry.digest or not _is_wanted(finding, rows) else None


def _is_wanted(finding: Finding, rows: Sequence[Row]) -> bool:
    """Whether it is what should be there.

    A listing has whole seconds; the claims tell also what was made within the second of now. A time
    of whole seconds tells nothing: files that look alike may have changed places here since then.
    """
    if not holds_wanted(finding):
        return False
    local = finding.local
    if local is None or local.kind != FILE:
        return True
    return is_fine(local.mtime_ns) and all(e.mtime_ns == local.mtime_ns for _, e in rows)


def _told_apart(finding: Finding, maybe: Iterable[Row], facts: Facts) -> Finding:
    """A file of ours where another may be by now that looks like it."""
    seen = finding.remote
    assert seen is not None
    rows = _alike(maybe, seen, facts) if seen.kind == FILE else []
    digests = {entry.digest for _, entry in rows}
    if digests == {b""} and facts.keeps_times:
        adopted = msgspec.structs.replace(finding, foreign=True, stale=False)
        return adopted if _is_wanted(adopted, rows) else finding
    if digests <= {seen.digest}:
        return finding
    known, entry = rows[0] if len(digests) == 1 else (b"", _unread(seen))
    return msgspec.structs.replace(finding, remote=entry, known=known, stale=True)


def _alike(rows: Iterable[Row], seen: Entry, facts: Facts) -> list[Row]:
    """Those that may be what is seen; not what was claimed and is recorded by now."""
    alike = [row for row in rows if actual(row[1], seen, facts) is row[1]]
    read = {_unread(e) for _, e in alike if e.digest and is_fine(e.mtime_ns)}
    return [row for row in alike if row[1] not in read]


def _unread(entry: Entry) -> Entry:
    return msgspec.structs.replace(entry, digest=b"")


def _origins(findings: Sequence[Finding], facts: Facts) -> dict[bytes, bytes]:
    """Path of what is not known to be ours -> where it was, as far as there are signs of that."""
    foreign = {f.path: f for f in findings if f.foreign}
    if not foreign:
        return {}
    lost = [f for f in findings if f.stale and f.remote is None]
    spelled = {folded(f.path): f.path for f in lost} if facts.folds_case else {}
    directories = {f.known: f.path for f in lost if f.known}
    parked = {path for path in foreign if is_parked(path)}
    places = {parking_place(f.path): f.path for f in findings} if parked else {}
    comes_from = {path: places[path] for path in parked & places.keys()}
    for path, f in foreign.items():
        if f.here in directories:  # never true of files: a rename changes their identity
            comes_from[path] = directories[f.here]
    origins = {path: relocated(comes_from, path) for path in foreign}
    origins = {
        path: spelled.get(folded(path), path) if origin == path else origin
        for path, origin in origins.items()
    }
    return {path: origin for path, origin in origins.items() if origin != path}
