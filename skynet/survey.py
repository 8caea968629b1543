"""The survey: where the local tree, the synced tree and the remote tree differ.

The three are walked in lock step, one directory at a time, in tree order: what is held in memory
is one directory and the differences, however large the tree is.

Unknown is not absent: what could not be looked at, on either side, is a problem, and nothing is
found at or below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from skynet.audit import NOT_LISTED, Audit, actual, listed_otherwise
from skynet.claims import NOTHING_CLAIMED, Claimed
from skynet.errors import Problem
from skynet.findings import IDENTITY_SIZE, Finding, in_the_way
from skynet.index import STAT_UNKNOWN, Index
from skynet.parked import reclaimed
from skynet.remote import Listed
from skynet.rules import colliding, is_parked, is_stray
from skynet.scan import UNREAD, Listing, Root, kind_in, settled, standing, unreadable
from skynet.scope import EVERYTHING, Branch, Scope, Survey
from skynet.spelling import NOT_CONFUSED, Confused, confusion
from skynet.tree import (
    DIR,
    FILE,
    LINK,
    Entry,
    ancestors,
    is_closed,
    join,
    order,
)

SETTLED_HELD = 8192  # identities in memory; what is more is noted in the index
Row = tuple[bytes, bytes]  # stat identity, packed entry, as the index has them


def survey(
    root: Root,
    index: Index,
    listings: Iterator[Listed] | None,
    scope: Scope,
    now_ns: int,
    claimed: Claimed = NOTHING_CLAIMED,
) -> Survey:
    """Walk the trees.

    listings: an audit of the remote (verbs.Remote.walk), None to trust the index; an audit is of
    everything. now_ns: the wall clock, nanoseconds since 1970. claimed: by cycles that broke off.
    """
    assert listings is None or scope.branch.deep
    walk = _Walk(root, index, Audit(listings) if listings is not None else None, scope, now_ns)
    waiting = [
        _Place(b"", local=True, synced=True, remote=True, blocked=False, branch=scope.branch)
    ]
    while waiting:
        scope.check()
        below = walk.visit(waiting.pop())
        waiting += sorted(below, key=lambda place: order(place.path), reverse=True)
    return walk.finish(claimed)


class _Place(NamedTuple):
    """A directory to visit, and in which trees it is one.

    blocked: locally it is no directory, or another one, so what is retained there is told as well.
    whole: it is not the directory that it was, so all that is in it is told, in sync or not.
    branch: what of it is to be looked at.
    """

    path: bytes
    local: bool
    synced: bool
    remote: bool
    blocked: bool
    whole: bool = False
    branch: Branch = EVERYTHING

    def narrowed(self, branch: Branch | None) -> _Place:
        """The same, looked at as far as that is wanted, if it is the directory that it was."""
        is_known = self.local and self.synced and not self.whole
        return self._replace(branch=branch or _NOTHING) if is_known else self


_NOTHING = Branch()


_EMPTY_LISTING = Listing({}, [], set(), set(), failed=False)


def _is_another(here: bytes, known: bytes) -> bool:
    """Whether a directory is known not to be the one that was recorded at its path."""
    return IDENTITY_SIZE == len(here) == len(known) and here != known


class _Walk:
    def __init__(
        self, root: Root, index: Index, audit: Audit | None, scope: Scope, now_ns: int
    ) -> None:
        self._root = root
        self._index = index
        self._audit = audit
        self._scope = scope
        self._now_ns = now_ns
        self._kept: set[bytes] = set()
        self._leaves = {FILE, LINK} if scope.symlinks == "keep" else {FILE}
        self._is_first = index.head is None  # then nothing can have moved
        self.found = Survey(looked_ns=now_ns)

    def visit(self, place: _Place) -> list[_Place]:
        """Compare one directory; the directories to visit below it."""
        local = self._list(place) if place.local else _EMPTY_LISTING
        self.found.problems += local.problems
        self.found.skipped["special"] += len(local.special)
        remote = NOT_LISTED
        if self._audit is not None and place.remote:
            remote = self._audit.listing(place.path)
            if remote.error is not None:
                self._problem(place.path, "unlistable", f"The server refuses: {remote.error}")
                self._keep(place)
        if local.failed or remote.error is not None:
            return []
        return self._compare(place, local, remote)

    def _list(self, place: _Place) -> Listing:
        """The local children, all of them where only that tells names apart."""
        if place.branch.deep or self._scope.facts.folds_case:
            return self._root.list(place.path)
        return self._root.glance(place.path, place.branch.below)

    def _keep(self, place: _Place) -> None:
        """Let a directory stay that is gone locally, since it holds what is not ours to judge."""
        if not place.local:
            self._kept.add(place.path)
            self._kept.update(ancestors(place.path))

    def finish(self, claimed: Claimed) -> Survey:
        """All that was found, but for the removal of directories that must stay."""
        if self._kept:
            self.found.kept = self._kept
            self.found.findings = [
                f for f in self.found.findings if f.local is not None or f.path not in self._kept
            ]
        self.found.findings, self.found.reclaimed = reclaimed(
            self.found.findings, self._index.row, self._scope.facts, claimed
        )
        return self.found

    def _compare(self, place: _Place, local: Listing, remote: Listed) -> list[_Place]:
        if remote.unknown:
            self._keep(place)
        self.found.entries += len(local.children)
        names = self._differing(place, local, remote)
        if not names and not self._scope.facts.folds_case:
            return []
        rows = self._rows(place, names)
        confused = self._folding(place.path, local, rows, remote)
        unknown = local.unknown | confused.left_alone
        below: list[_Place] = []
        for name in sorted(confused.respelled.union(names)):
            known, row, seen = local.children.get(name), rows.get(name), remote.children.get(name)
            path = join(place.path, name)
            if name in local.special and row is not None:
                self._left_out(path, self._index.unpack(row[1]), "a device, pipe or socket")
            if name in unknown or (name in remote.unknown and self._is_blocked(path, known)):
                continue
            above = place._replace(blocked=True) if name in confused.respelled else place
            child = self._look(path, known, row, seen, above)
            if child is None:
                continue
            if not place.branch.deep:
                child = child.narrowed(place.branch.below.get(name))
            if child.branch.deep or child.branch.below:
                below.append(child)
        return below

    def _rows(self, place: _Place, names: list[bytes]) -> Mapping[bytes, Row]:
        """What the index has of a directory: of a few names that are looked at, only those."""
        if not place.synced:
            return {}
        if place.branch.deep or self._scope.facts.folds_case:
            return self._index.children(place.path)
        return self._index.rows(place.path, names)

    def _differing(self, place: _Place, local: Listing, remote: Listed) -> list[bytes]:
        """The names to look at: all but files that have changed on neither side.

        Those are nearly all names of most trees, so nothing is made for them. What has changed on
        both sides may be named twice.
        """
        if not place.branch.deep:
            return list(place.branch.below)
        here, seen, facts = local.children, remote.children, self._scope.facts
        stats = self._index.stats(place.path) if place.synced else {}
        if place.whole:
            names = list(here)
        else:
            is_same = here == stats  # mostly, and soon known
            names = [] if is_same else [n for n, known in here.items() if stats.get(n) != known]
            if self._audit is not None:
                names += listed_otherwise(here, seen, facts)
        names += (stats.keys() | seen.keys()) - here.keys()
        return names

    def _look(
        self,
        path: bytes,
        known: bytes | None,
        row: Row | None,
        seen: Entry | None,
        place: _Place,
    ) -> _Place | None:
        """Compare one path; if it is a directory in any tree, the place to visit."""
        synced = self._index.unpack(row[1]) if row is not None else None
        is_same = row is not None and row[0] == known and not place.whole
        if is_same and self._is_as_recorded(synced, seen):
            return None
        kinds = [entry.kind for entry in (synced, seen) if entry is not None]
        local_kind = kind_in(known) if known is not None else None
        is_dir = DIR in (local_kind, *kinds)
        if self._scope.rules.hides(path, is_dir=is_dir) and not (known is None and is_parked(path)):
            if seen is not None and is_stray(path):
                self.found.strays.append(path)
            elif synced is not None or seen is not None:
                self._keep(place)
                if local_kind in self._leaves and not self._scope.rules.hides(path, is_dir=False):
                    self.found.problems.append(in_the_way(path, "that is ignored."))
            return None
        if local_kind == LINK and self._scope.symlinks == "skip":
            self.found.skipped["links"] += 1
            if synced is not None:
                self._left_out(path, synced, "a link, and links are skipped")
            return None
        local: Entry | None = None
        if known is not None:
            try:
                local = self._local_entry(path, known, row, synced, seen)
            except OSError as error:
                self.found.problems.append(unreadable(path, error))
                return None
        blocked = place.blocked or (local_kind is not None and local_kind != DIR)
        here = b""
        if known is not None and not self._is_first:
            here = standing(known) if local_kind == DIR else known
        identities = here, row[0] if row is not None else STAT_UNKNOWN
        whole = place.whole or (is_dir and _is_another(*identities))
        is_newly_gone = synced is not None and known is None and not synced.retained
        # It may have moved just now, and taken along what is retained in it.
        blocked |= whole or is_newly_gone
        self._find(path, (local, synced, seen), identities, blocked=blocked, whole=whole)
        if not is_dir:
            return None
        return _Place(
            path,
            local_kind == DIR,
            synced is not None and synced.kind == DIR,
            seen is not None and seen.kind == DIR,
            blocked,
            whole,
        )

    def _is_as_recorded(self, synced: Entry | None, seen: Entry | None) -> bool:
        """Whether nothing speaks against the remote being what the manifest says."""
        if self._audit is None:
            return True
        is_retained = synced is not None and synced.retained
        return actual(synced, seen, self._scope.facts) is synced and not is_retained

    def _local_entry(
        self,
        path: bytes,
        known: bytes,
        row: Row | None,
        synced: Entry | None,
        seen: Entry | None,
    ) -> Entry:
        """The local entry, with its digest where that is known without reading."""
        if synced is not None and row is not None and row[0] == known:
            return msgspec.structs.replace(synced, retained=False) if synced.retained else synced
        local = self._root.entry(path, known)
        is_new_file = local.kind == FILE and synced is None and seen is None
        if local.kind == DIR:
            if row is None or row[0] != standing(known):
                self.found.identities[path] = standing(known)
        elif not is_new_file:
            self.found.identities[path] = settled(known, self._now_ns)
        if synced is None or synced.kind != local.kind:
            return local
        if local.mode is None:
            local = msgspec.structs.replace(local, mode=synced.mode)
        same_stat = local.size == synced.size and local.mtime_ns == synced.mtime_ns
        is_unread = row is not None and row[0] == STAT_UNKNOWN
        if local.kind == FILE and same_stat and (is_unread or not synced.digest):
            # The state was lost, or the file was adopted unread: the times must do.
            return msgspec.structs.replace(local, digest=synced.digest)
        return local

    def _find(
        self,
        path: bytes,
        entries: tuple[Entry | None, Entry | None, Entry | None],
        identities: tuple[bytes, bytes],
        *,
        blocked: bool,
        whole: bool,
    ) -> None:
        """Note how the trees differ at a path: local, synced and seen entry."""
        local, synced, seen = entries
        remote = synced if self._audit is None else actual(synced, seen, self._scope.facts)
        if local == remote == synced and identities[1] != UNREAD:
            if not whole:  # else it may be about to move, and another one to come here
                self._settle(path)
            if is_closed(local) or whole:
                finding = Finding(path, remote, local, here=identities[0], known=identities[1])
                self.found.findings.append(finding)
            return
        if local is None and not self._concerns(remote, synced, blocked=blocked):
            return
        foreign = remote is not None and synced is None
        stale = remote != synced and not foreign
        self.found.findings.append(Finding(path, remote, local, foreign, stale, *identities))
        here, known = identities
        if here == known and here and kind_in(here) != DIR:
            self.found.identities[path] = here  # of what is only to be repaired there

    def _settle(self, path: bytes) -> None:
        settled = self.found.settled
        if path in self.found.identities:
            settled[path] = self.found.identities.pop(path)
        if len(settled) >= SETTLED_HELD:
            self._index.note(settled)
            settled.clear()

    def _concerns(self, remote: Entry | None, synced: Entry | None, *, blocked: bool) -> bool:
        """Whether what is gone locally is worth a finding: not if it is retained and stays so."""
        if blocked or remote != synced or remote is None:
            return True
        return self._scope.complete_sync or not remote.retained

    def _folding(
        self, directory: bytes, local: Listing, rows: Mapping[bytes, Row], remote: Listed
    ) -> Confused:
        """Names that the remote cannot tell from a local one."""
        if not self._scope.facts.folds_case:
            return NOT_CONFUSED
        here, seen = local.children.keys(), remote.children.keys() | remote.unknown
        invisible = set()
        for name in colliding(here | rows.keys() | seen):
            entries = local.children.get(name), rows.get(name), remote.children.get(name)
            if self._scope.rules.hides(join(directory, name), is_dir=self._is_directory(*entries)):
                invisible.add(name)
        confused = confusion(here - invisible, rows.keys(), seen, invisible | remote.unknown)
        for name, code, message in confused.problems:
            self._problem(join(directory, name), code, message)
        return confused

    def _is_directory(self, known: bytes | None, row: Row | None, seen: Entry | None) -> bool:
        """Whether it is a directory in any of the trees."""
        synced = self._index.unpack(row[1]) if row is not None else None
        kinds = {entry.kind for entry in (synced, seen) if entry is not None}
        return DIR in kinds or (known is not None and kind_in(known) == DIR)

    def _left_out(self, path: bytes, synced: Entry, what: str) -> None:
        """Tell that the remote still holds what has become something that is not mirrored."""
        if not self._scope.rules.hides(path, is_dir=synced.kind == DIR):
            self._problem(
                path,
                "not-mirrored",
                f"It is now {what}; the remote keeps what it was before. Move one of them away.",
            )

    def _is_blocked(self, path: bytes, known: bytes | None) -> bool:
        if known is not None:
            self._problem(
                path, "special-on-remote", "On the remote a special file is in its place."
            )
        return True

    def _problem(self, path: bytes, code: str, message: str) -> None:
        self.found.problems.append(Problem(path, code, message))
