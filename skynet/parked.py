"""What a broken run left under another name: whose it is, so that it goes on from there.

A parked thing has a name made from where it was (shuffle.parking_place). If the run broke off
before the manifest was told, an audit finds it as something unknown. So it finds a directory that
had reached its place by then, which its identity tells, and on a remote that ignores case what has
got another case meanwhile, whoever did that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skynet.audit import actual
from skynet.findings import Finding
from skynet.remote import Facts
from skynet.rules import folded, is_parked
from skynet.shuffle import parking_place, relocated
from skynet.tree import Entry

Recorded = Callable[[bytes], tuple[bytes, Entry] | None]  # path -> stat identity and entry


def reclaimed(
    findings: Sequence[Finding], recorded: Recorded, facts: Facts
) -> tuple[list[Finding], list[bytes]]:
    """The findings, those of such things as ours again; and the paths of these."""
    origins = _origins(findings, facts)
    if not origins:
        return list(findings), []
    result, ours = [], []
    for f in findings:
        row = recorded(origins[f.path]) if f.path in origins else None
        if row is not None and actual(row[1], f.remote, facts) is row[1]:
            result.append(Finding(f.path, row[1], f.local, known=row[0]))
            ours.append(f.path)
        else:
            result.append(f)
    return result, ours


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
