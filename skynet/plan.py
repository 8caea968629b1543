"""The plan: which operations turn the remote tree into the local one, moving the fewest bytes.

Pure: findings and policy in, a Plan out, the same for the same input. `Plan.needs` says which
operations must be done before which; the order of `Plan.ops` obeys it, and every prefix of that
order leaves a valid tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from skynet.closed import open_and_close
from skynet.errors import Problem
from skynet.findings import Finding, directory_in_the_way, holds_wanted, in_the_way, is_retained
from skynet.matching import Holder, match
from skynet.needs import needs_of
from skynet.ops import (
    Copy,
    Delete,
    Mkdir,
    Op,
    Patch,
    Plan,
    Record,
    Rmdir,
    SetMeta,
    Upload,
)
from skynet.renaming import opened, renames
from skynet.tree import (
    DIR,
    FILE,
    Entry,
    ancestors,
    is_closed,
    order,
    parent,
    same_time,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the planner may do. keeps_*: what the remote file system was found to keep.

    can_copy: whether the server copies files. folds_case: whether the remote ignores case.
    moves_directories: whether the server renames them; their files move one by one otherwise.
    """

    complete_sync: bool = False
    can_copy: bool = False
    empty_dirs: bool = False
    remove_foreign: bool = True
    may_delete: bool = True
    keeps_times: bool = True
    keeps_modes: bool = True
    folds_case: bool = False
    moves_directories: bool = True


def same_meta(local: Entry, remote: Entry, policy: Policy) -> bool:
    """Whether mode and times agree, as far as the remote keeps them."""
    if policy.keeps_modes and None not in (local.mode, remote.mode) and local.mode != remote.mode:
        return False
    return not (policy.keeps_times and local.kind == FILE and local.mtime_ns != remote.mtime_ns)


@dataclass(frozen=True, slots=True)
class Known:
    """What else the planner is told.

    told: what the manifest must be told of before anything else. relocations: what moves
    directories, to be done first; the findings are as they are after that.
    holder(size, digest): where the remote holds that content, at a path that has no finding.
    sends: path -> bytes of content to send where a file can be patched.
    """

    told: Sequence[Op] = ()
    relocations: Sequence[Op] = ()
    holder: Holder = lambda _size, _digest: None
    sends: Mapping[bytes, int] = field(default_factory=dict)


def told_first(findings: Iterable[Finding]) -> list[Op]:
    """Tell the manifest what the remote holds, before something is done with it."""
    return [Record(f.path, f.remote, first=True, known=f.known) for f in findings]


def make_plan(findings: Iterable[Finding], policy: Policy, known: Known | None = None) -> Plan:
    """The operations that make the remote what `local` says, wherever `policy` allows.

    A finding must come after those of the directories above it.
    """
    draft = _Draft(list(findings), policy, known or Known())
    draft.decide()
    return draft.finish()


class _Draft:
    """A plan being made: operations by stage, each stage in tree order.

    The stages: forget what is gone, tell what a broken run has made, move directories, record
    directories, tell what is there that is to be renamed, open directories that are closed to their
    owner, clear what stands where a directory or file must go, rename, make directories, copy,
    send, record, delete, remove directories, set attributes, forget what is no longer ours. So the
    manifest, which is told of each as it ends, is a valid tree all the time as well.
    """

    def __init__(self, findings: list[Finding], policy: Policy, known: Known) -> None:
        self.policy = policy
        self.known = known
        self.problems: list[Problem] = []
        self.wanted_dirs = _wanted_directories(findings, policy)
        self.findings = findings = self._leave_foreign_in_the_way(findings)
        self.cleared = {f.path for f in findings if directory_in_the_way(f)}
        self.moves = match(
            findings,
            staying=self._retained(findings),
            can_copy=policy.can_copy,
            holder=known.holder,
        )
        self.keeping, self.stuck = self._what_stays()
        self.moved_away = {old.path for old in self.moves.renames.values()}
        self.forgotten: list[Op] = []
        self.openings: list[Op] = []
        self.clear: list[Op] = []
        self.clear_dirs: list[Op] = []
        self.found_dirs: list[Op] = []
        self.mkdirs: list[Op] = []
        self.copies: list[Op] = []
        self.twins: list[Op] = []
        self.uploads: list[Op] = []
        self.metas: list[Op] = []
        self.records: list[Op] = []
        self.deletes: list[Op] = []
        self.rmdirs: list[Op] = []
        self.given_up: list[Op] = []

    def decide(self) -> None:
        for finding in self.findings:
            if finding.local is None:
                if finding.path not in self.moved_away:
                    self._decide_gone(finding)
            elif finding.local.kind == DIR:
                self._decide_directory(finding, finding.local)
            else:
                self._decide_file(finding, finding.local)

    def finish(self) -> Plan:
        if self.policy.keeps_modes and any(is_closed(f.remote) for f in self.findings):
            self.openings, closings = open_and_close(
                self.findings, self._ordered(), complete_sync=self.policy.complete_sync
            )
            self.metas += closings
        ops = self._ordered()
        return Plan(ops, needs_of(ops), self.problems)

    def _ordered(self) -> list[Op]:
        cleared = {op.path for op in self.clear_dirs}
        moves = {path: source.path for path, source in self.moves.renames.items()}
        early, late = renames(self.findings, moves, self.mkdirs, cleared)
        made = {op.path for op in [*early, *late] if isinstance(op, Mkdir)}
        found, found_inside = self._found_directories()
        rank = {path: number for number, path in enumerate(self.moves.copies)}
        return [
            *self.forgotten,
            *self.known.told,
            *found,
            *self.known.relocations,
            *found_inside,
            *self._stale_sources(),
            *self.openings,
            *self.clear,
            *early,
            *_deepest_first(self.clear_dirs),
            *late,
            *(op for op in self.mkdirs if op.path not in made),
            *sorted(self.copies, key=lambda op: rank[op.path]),
            *self.uploads,
            *self.twins,
            *self.records,
            *self.deletes,
            *_deepest_first(self.rmdirs),
            *_deepest_first(self.metas),  # in what closes to its owner nothing can be set any more
            *_deepest_first(self.given_up),
        ]

    def _found_directories(self) -> tuple[list[Op], list[Op]]:
        """The directories that are only recorded: those that are there now, those in moved ones."""
        moved = {op.path for op in self.known.relocations if not isinstance(op, Record)}
        if not moved:
            return self.found_dirs, []
        is_inside = [not moved.isdisjoint([op.path, *ancestors(op.path)]) for op in self.found_dirs]
        pairs = list(zip(self.found_dirs, is_inside, strict=True))
        return [op for op, inside in pairs if not inside], [op for op, inside in pairs if inside]

    def _stale_sources(self) -> list[Op]:
        """What is to be renamed as it is now: the manifest moves what it knows to be there."""
        return told_first(f for f in self.moves.renames.values() if f.stale)

    def _leave_foreign_in_the_way(self, findings: list[Finding]) -> list[Finding]:
        """The findings but those that need the place of a foreign file that must stay."""
        if self.policy.remove_foreign:
            return findings
        blocked = {
            f.path
            for f in findings
            if f.foreign and f.remote is not None and f.remote.kind != DIR
            if f.local is not None and f.local.kind == DIR and f.path in self.wanted_dirs
        }
        left = []
        for finding in findings:
            if blocked.isdisjoint([finding.path, *ancestors(finding.path)]):
                left.append(finding)
            elif finding.local is not None:
                self.problems.append(
                    Problem(
                        finding.path,
                        "foreign-in-the-way",
                        "On the remote, where its directory must be, is a file that is not "
                        'skynet\'s and that foreign = "keep" leaves alone. Move one of them away.',
                    )
                )
        return left

    def _decide_gone(self, finding: Finding) -> None:
        remote, path = finding.remote, finding.path
        if remote is None:
            self.forgotten.append(Record(path, None))
        elif self._is_in_the_way(path):
            self._remove(finding, remote, self.clear, self.clear_dirs)
        elif self._may_remove(finding) and path not in self.keeping:
            self._remove(finding, remote, self.deletes, self.rmdirs)
        elif self._may_remove(finding) and not finding.foreign:
            self.given_up.append(Record(path, None))  # what is left in it is somebody else's
        elif not finding.foreign and not self.policy.complete_sync:
            kept = msgspec.structs.replace(remote, retained=True)
            if finding.stale or kept != remote:
                self._record(path, kept)
        elif finding.stale and not finding.foreign:
            self._record(path, remote)

    def _record(self, path: bytes, entry: Entry) -> None:
        (self.found_dirs if entry.kind == DIR else self.records).append(Record(path, entry))

    def _retained(self, findings: list[Finding]) -> set[bytes]:
        """What is only retained and goes on to be: nothing takes its place."""
        if self.policy.complete_sync:
            return set()
        return {
            f.path
            for f in findings
            if is_retained(f)
            and (f.local is None or (f.local.kind == DIR and f.path not in self.wanted_dirs))
        }

    def _may_remove(self, finding: Finding) -> bool:
        if not (self.policy.complete_sync and self.policy.may_delete):
            return False
        return self.policy.remove_foreign or not finding.foreign

    def _what_stays(self) -> tuple[set[bytes], set[bytes]]:
        """Directories that have something below them which must stay on the remote.

        And those of them where a file should be: it cannot, so nothing is renamed to there.
        """
        while True:
            leaving = {old.path for old in self.moves.renames.values()}
            keeping: set[bytes] = set()
            for finding in self.findings:
                if finding.remote is None or finding.path in leaving:
                    continue
                if not self._may_remove(finding):
                    keeping.update(ancestors(finding.path))
            stuck = keeping.intersection(self.cleared)
            settled = stuck.isdisjoint(self.moves.renames)
            self.moves = self.moves.without(stuck)
            if settled:
                return keeping, stuck

    def _is_in_the_way(self, path: bytes) -> bool:
        return any(d in self.cleared and d not in self.stuck for d in ancestors(path))

    @staticmethod
    def _remove(finding: Finding, remote: Entry, files: list[Op], directories: list[Op]) -> None:
        if remote.kind == DIR:
            directories.append(Rmdir(finding.path, finding.foreign))
        else:
            files.append(Delete(finding.path, remote, finding.foreign))

    def _decide_directory(self, finding: Finding, local: Entry) -> None:
        path, remote = finding.path, finding.remote
        if remote is None or remote.kind != DIR:
            if path not in self.wanted_dirs:
                if path not in self.moved_away and (remote is not None or finding.stale):
                    self._decide_gone(finding)  # an empty directory counts as nothing
                return
            if remote is not None and path not in self.moved_away:
                self.clear.append(Delete(path, remote, finding.foreign))
            self._make_directory(path, local)
        elif not same_meta(local, remote, self.policy):
            if finding.foreign or finding.stale:
                self._record(path, remote)  # before what is put into it
            self.metas.append(SetMeta(path, local))
        elif finding.foreign or finding.stale or remote != local:
            self._record(path, local)

    def _make_directory(self, path: bytes, local: Entry) -> None:
        # Its owner must be able to fill it; a stricter mode is set when that is done.
        self.mkdirs.append(Mkdir(path, opened(local)))
        if is_closed(local):
            self.metas.append(SetMeta(path, local))

    def _decide_file(self, finding: Finding, local: Entry) -> None:
        path, remote = finding.path, finding.remote
        if remote is None or path in self.moved_away:
            self._put(finding, local, None)
        elif path in self.stuck:
            if finding.stale:
                self._record(path, remote)
            remedy = "move them away, or let complete-sync remove them."
            self.problems.append(in_the_way(path, "with files that are kept there;", remedy))
        elif remote.kind == DIR:
            self.clear_dirs.append(Rmdir(path, finding.foreign))
            self._put(finding, local, None)
        elif not holds_wanted(finding):
            self._put(finding, local, remote)
        else:
            self._decide_meta(finding, local, remote)

    def _put(self, finding: Finding, local: Entry, replaces: Entry | None) -> None:
        """Let a file be where nothing is, or `replaces`: moving the fewest bytes."""
        path, sends = finding.path, self.known.sends.get(finding.path)
        source = self.moves.renames.get(path)
        copied = self.moves.copies.get(path) or self.moves.twins.get(path)
        if finding.foreign and replaces is not None and (source is not None or copied is not None):
            self.clear.append(Delete(path, replaces, foreign=True))
            replaces = None
        if source is not None:
            self._move(path, local, source)
        elif copied is not None:
            held_at, original = copied
            copy = Copy(path, held_at, local, original, replaces)
            (self.twins if path in self.moves.twins else self.copies).append(copy)
        elif sends is not None and replaces is not None and not finding.foreign:
            self.uploads.append(Patch(path, local, replaces, sends))
        else:
            self.uploads.append(Upload(path, local, replaces, finding.foreign))

    def _decide_meta(self, finding: Finding, local: Entry, remote: Entry) -> None:
        known = local if local.digest else msgspec.structs.replace(local, digest=remote.digest)
        # A listing has whole seconds only: what agrees within the second is right.
        seen = remote
        if finding.foreign and same_time(local.mtime_ns, remote.mtime_ns):
            seen = msgspec.structs.replace(remote, mtime_ns=local.mtime_ns)
        if not same_meta(known, seen, self.policy):
            self.metas.append(SetMeta(finding.path, known))
        elif finding.foreign or finding.stale or known != remote:
            self._record(finding.path, known)

    def _move(self, path: bytes, local: Entry, source: Finding) -> None:
        assert source.remote is not None
        if not same_meta(local, source.remote, self.policy):
            self.metas.append(SetMeta(path, local))
        elif local != source.remote:
            self._record(path, local)


def _wanted_directories(findings: Iterable[Finding], policy: Policy) -> set[bytes]:
    """New directories that hold something to mirror; all of them with empty_dirs."""
    if policy.empty_dirs:
        return {f.path for f in findings}
    wanted: set[bytes] = set()
    for finding in findings:
        if finding.local is not None and finding.local.kind != DIR:
            above = parent(finding.path)
            while above and above not in wanted:
                wanted.add(above)
                above = parent(above)
    return wanted


def _deepest_first(ops: list[Op]) -> list[Op]:
    return sorted(ops, key=lambda op: order(op.path), reverse=True)
