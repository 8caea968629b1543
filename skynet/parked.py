"""What a broken run left parked: whose it is, so that it goes on to its place from there.

A parked thing has a name made from where it was (shuffle.parking_place). If the run broke off
before the manifest was told, an audit finds it as something unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from skynet.audit import actual
from skynet.findings import Finding
from skynet.remote import Facts
from skynet.rules import is_parked
from skynet.shuffle import parking_place
from skynet.tree import Entry, is_below

Recorded = Callable[[bytes], tuple[bytes, Entry] | None]  # path -> stat identity and entry


def reclaimed(
    findings: Sequence[Finding], recorded: Recorded, facts: Facts
) -> tuple[list[Finding], list[bytes]]:
    """The findings, those of parked things as ours again; and the paths of these."""
    roots = [f.path for f in findings if f.foreign and is_parked(f.path)]
    if not roots:
        return list(findings), []
    origins = {parking_place(f.path): f.path for f in findings}
    result, ours = [], []
    for f in findings:
        root = next((r for r in roots if f.path == r or is_below(f.path, r)), None)
        origin = origins.get(root) if root is not None else None
        row = None
        if root is not None and origin is not None and f.foreign:
            row = recorded(origin + f.path[len(root) :])
        if row is not None and actual(row[1], f.remote, facts) is row[1]:
            result.append(Finding(f.path, row[1], f.local, known=row[0]))
            ours.append(f.path)
        else:
            result.append(f)
    return result, ours
