"""What a survey looks at, and what it has found, as values. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from skynet.delta import Delta
from skynet.errors import Problem
from skynet.findings import Finding
from skynet.remote.verbs import Facts
from skynet.rules import Rules


@dataclass(slots=True)
class Survey:
    """What was found.

    identities: of local files and links with a finding, to be recorded when their path is; but
    for new files, whose upload tells it. settled: the identities of files whose content is known
    to be the synced one already; of many, most are in `Index.note`. entries: local files, links
    and directories seen. skipped: how many local special files (`special`) and links (`links`)
    were left out. strays: temporary files of ours that an audit met beside their targets.
    reclaimed: paths of what a broken run had parked, of which the manifest does not know. deltas:
    of files that have been compared with their old version, and are worth a patch. unsettled:
    files that are still being written, and are left for later. kept: directories of the remote that
    hold what is not ours to judge, and must stay. looked_ns: when it began, in nanoseconds since
    1970.
    """

    findings: list[Finding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    identities: dict[bytes, bytes] = field(default_factory=dict)
    settled: dict[bytes, bytes] = field(default_factory=dict)
    entries: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    strays: list[bytes] = field(default_factory=list)
    reclaimed: list[bytes] = field(default_factory=list)
    deltas: dict[bytes, Delta] = field(default_factory=dict)
    unsettled: list[bytes] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)
    looked_ns: int = field(default=0, compare=False)


@dataclass(slots=True)
class Branch:
    """A directory or file to look at. deep: with all that is below it; else with `below` alone."""

    deep: bool = False
    below: dict[bytes, Branch] = field(default_factory=dict)


EVERYTHING = Branch(deep=True)


def branch_of(marks: Mapping[bytes, bool]) -> Branch:
    """The root with what is marked below it: path -> whether all below that is marked as well."""
    root = Branch()
    for path, deep in marks.items():
        branch = root
        for name in path.split(b"/") if path else ():
            branch = branch.below.setdefault(name, Branch())
        branch.deep |= deep
    return root


@dataclass(frozen=True, slots=True)
class Scope:
    """What to look at. retained entries are findings only where complete_sync removes them.

    check: called for every directory; it raises Interrupted when the work is to end.
    """

    rules: Rules
    facts: Facts
    symlinks: Literal["keep", "skip"] = "keep"
    complete_sync: bool = False
    branch: Branch = field(default_factory=lambda: EVERYTHING)
    check: Callable[[], None] = lambda: None
