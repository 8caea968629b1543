"""What a broken run made or moved and did not record: whose it is, so that it goes on from there.

An audit finds it as something unknown. What was about to be made is known from the claims. Should
they be lost: a parked thing has a name made from where it was (shuffle.parking_place), a directory
that had reached its place by then is told by its identity, and on a remote that ignores case the
name tells what has got another case meanwhile, whoever did that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from skynet.audit import actual
from skynet.claims import Claimed, Recorded
from skynet.findings import Finding, holds_wanted
from skynet.remote import Facts
from skynet.rules import folded, is_parked
from skynet.shuffle import parking_place, relocated
from skynet.tree import DIR, Entry


def reclaimed(
    findings: Sequence[Finding], recorded: Recorded, facts: Facts, claimed: Claimed
) -> tuple[list[Finding], list[bytes]]:
    """The findings, those of such things as ours again; and the paths of these."""
    origins = _origins(findings, facts)
    if not (origins or claimed):
        return list(findings), []
    result, ours = [], []
    for f in findings:
        row = None
        if f.foreign and f.remote is not None:
            row = _as_it_was(f.path, f.remote, origins, recorded, facts, claimed)
        # What is right already is adopted; as ours, of unknown content, it would be sent again.
        if row is not None and (row[1].digest or not holds_wanted(f)):
            f = Finding(f.path, row[1], f.local, here=f.here, known=row[0])
            ours.append(f.path)
        result.append(f)
    return result, ours


def _as_it_was(
    path: bytes,
    seen: Entry,
    origins: dict[bytes, bytes],
    recorded: Recorded,
    facts: Facts,
    claimed: Claimed,
) -> tuple[bytes, Entry] | None:
    """The stat identity and the entry of what is at a path now, if it is as it was or should be."""
    row = recorded(origins[path]) if path in origins else None
    for known, entry in chain([row] if row else [], claimed.origins(path, recorded)):
        found = actual(entry, seen, facts)
        # A directory has another mode than in the end as long as it is being filled.
        if found is entry or (found is not None and found.kind == entry.kind == DIR):
            return known, found
    return None


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
