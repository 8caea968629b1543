"""The plan: which operations turn the remote tree into the local one, moving the fewest bytes.

Pure: findings and policy in, a Plan out, the same for the same input. `Plan.needs` says which
operations must be done before which; the order of `Plan.ops` obeys it, and every prefix of that
order leaves a valid tree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from skynet.errors import Problem
from skynet.needs import changed_directories, needs_of
from skynet.ops import Delete, Mkdir, Op, Plan, Record, Rename, Rmdir, SetMeta, Upload
from skynet.tree import (
    DIR,
    FILE,
    OWNER_ACCESS,
    Entry,
    ancestors,
    is_below,
    is_closed,
    name,
    order,
    parent,
    wire_time,
)


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One path where there may be something to do.

    remote: what the remote holds, as far as is known. local: what it should hold; a file's digest
    is b"" while unknown. None is nothing. foreign: `remote` is not skynet's work. stale: the
    manifest says something else than `remote`. A directory that is closed to its owner needs a
    finding even if it is in sync: it must be opened for what is done in it.
    """

    path: bytes
    remote: Entry | None
    local: Entry | None
    foreign: bool = False
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """What the planner may do. keeps_*: what the remote file system was found to keep."""

    complete_sync: bool = False
    empty_dirs: bool = False
    remove_foreign: bool = True
    may_delete: bool = True
    keeps_times: bool = True
    keeps_modes: bool = True


def same_meta(local: Entry, remote: Entry, policy: Policy) -> bool:
    """Whether mode and times agree, as far as the remote keeps them."""
    if policy.keeps_modes and None not in (local.mode, remote.mode) and local.mode != remote.mode:
        return False
    return not (policy.keeps_times and local.kind == FILE and local.mtime_ns != remote.mtime_ns)


def undecided(findings: Iterable[Finding]) -> list[Finding]:
    """The findings whose local file must be hashed before anything can be planned.

    Either the remote holds a file of the same size there, or a file of that size has vanished
    somewhere else, so that this one may be it.
    """
    findings = list(findings)
    vanished = {f.remote.size for f in findings if f.remote is not None and _is_vanished(f)}
    return [f for f in findings if _wants_digest(f, vanished)]


def _wants_digest(finding: Finding, vanished_sizes: set[int]) -> bool:
    local, remote = finding.local, finding.remote
    if local is None or local.kind != FILE or local.digest:
        return False
    if remote is None:
        return local.size in vanished_sizes
    return remote.kind == FILE and remote.size == local.size and bool(remote.digest)


def _is_vanished(finding: Finding) -> bool:
    """Whether a file of ours is gone locally, and its content might be found elsewhere."""
    remote = finding.remote
    return (
        finding.local is None
        and remote is not None
        and remote.kind == FILE
        and bool(remote.digest)
        and not finding.foreign
    )


def make_plan(findings: Iterable[Finding], policy: Policy) -> Plan:
    """The operations that make the remote what `local` says, wherever `policy` allows.

    A finding must come after those of the directories above it.
    """
    draft = _Draft(list(findings), policy)
    draft.decide()
    return draft.finish()


class _Draft:
    """A plan being made: operations by stage, each stage in tree order.

    The stages: forget what is gone, record directories, open those that are closed to their
    owner, clear what stands where a directory or file must go, make directories, rename, send,
    record, delete, remove directories, set attributes. So the manifest, which is told of each as
    it ends, is a valid tree all the time as well.
    """

    def __init__(self, findings: list[Finding], policy: Policy) -> None:
        self.policy = policy
        self.problems: list[Problem] = []
        self.wanted_dirs = _wanted_directories(findings, policy)
        self.findings = findings = self._leave_foreign_in_the_way(findings)
        self.cleared = [f.path for f in findings if _directory_in_the_way(f)]
        self.keeping = self._keeping_directories()
        self.stuck = self.keeping.intersection(self.cleared)
        self.moves = _find_moves(findings, policy, self.cleared)
        self.forgotten: list[Op] = []
        self.openings: list[Op] = []
        self.clear: list[Op] = []
        self.clear_dirs: list[Op] = []
        self.found_dirs: list[Op] = []
        self.mkdirs: list[Op] = []
        self.renames: list[Op] = []
        self.uploads: list[Op] = []
        self.metas: list[Op] = []
        self.records: list[Op] = []
        self.deletes: list[Op] = []
        self.rmdirs: list[Op] = []

    def decide(self) -> None:
        moved_away = {old.path for old in self.moves.values()}
        for finding in self.findings:
            if finding.local is None:
                if finding.path not in moved_away:
                    self._decide_gone(finding)
            elif finding.local.kind == DIR:
                self._decide_directory(finding, finding.local)
            else:
                self._decide_file(finding, finding.local)

    def finish(self) -> Plan:
        if self.policy.keeps_modes:
            self._open_directories()
        ops = self._ordered()
        return Plan(ops, needs_of(ops), self.problems)

    def _ordered(self) -> list[Op]:
        return [
            *self.forgotten,
            *self.found_dirs,
            *self.openings,
            *self.clear,
            *_deepest_first(self.clear_dirs),
            *self.mkdirs,
            *self.renames,
            *self.uploads,
            *self.records,
            *self.deletes,
            *_deepest_first(self.rmdirs),
            *self.metas,
        ]

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

    def _open_directories(self) -> None:
        """Open the directories that are closed to their owner for what is done in them."""
        ops = self._ordered()
        changed = {directory for op in ops for directory in changed_directories(op)}
        ending = {op.path for op in ops if isinstance(op, Rmdir | SetMeta)}
        for finding in self.findings:
            remote, path = finding.remote, finding.path
            if path not in changed or remote is None or not is_closed(remote):
                continue
            last = self._last_of(finding, remote)
            if last is not None:
                assert remote.mode is not None
                opened = msgspec.structs.replace(last, mode=remote.mode | OWNER_ACCESS)
                self.openings.append(SetMeta(path, opened, opens=True))
                if path not in ending:
                    self.metas.append(SetMeta(path, last))

    def _last_of(self, finding: Finding, remote: Entry) -> Entry | None:
        """What the manifest says of a remote directory in the end, None if it is not to say."""
        local = finding.local
        if local is not None and local.kind == DIR:
            mode = local.mode if local.mode is not None else remote.mode
            return msgspec.structs.replace(local, mode=mode)
        if finding.foreign:
            return None
        is_retained = local is None and not self.policy.complete_sync
        return msgspec.structs.replace(remote, retained=is_retained or remote.retained)

    def _decide_gone(self, finding: Finding) -> None:
        remote, path = finding.remote, finding.path
        if remote is None:
            self.forgotten.append(Record(path, None))
        elif self._is_in_the_way(path):
            self._remove(finding, remote, self.clear, self.clear_dirs)
        elif self._may_remove(finding) and path not in self.keeping:
            self._remove(finding, remote, self.deletes, self.rmdirs)
        elif not finding.foreign and not self.policy.complete_sync:
            kept = msgspec.structs.replace(remote, retained=True)
            if finding.stale or kept != remote:
                self._record(path, kept)
        elif finding.stale and not finding.foreign:
            self._record(path, remote)

    def _record(self, path: bytes, entry: Entry) -> None:
        (self.found_dirs if entry.kind == DIR else self.records).append(Record(path, entry))

    def _may_remove(self, finding: Finding) -> bool:
        if not (self.policy.complete_sync and self.policy.may_delete):
            return False
        return self.policy.remove_foreign or not finding.foreign

    def _keeping_directories(self) -> set[bytes]:
        """Directories that have something below them which must stay on the remote."""
        keeping: set[bytes] = set()
        for finding in self.findings:
            if finding.remote is not None and not self._may_remove(finding):
                keeping.update(ancestors(finding.path))
        return keeping

    def _is_in_the_way(self, path: bytes) -> bool:
        return any(is_below(path, d) and d not in self.stuck for d in self.cleared)

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
                if remote is not None or finding.stale:
                    self._decide_gone(finding)  # an empty directory counts as nothing
                return
            if remote is not None:
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
        if local.mode is None or not is_closed(local):
            self.mkdirs.append(Mkdir(path, local))
            return
        open_mode = msgspec.structs.replace(local, mode=local.mode | OWNER_ACCESS)
        self.mkdirs.append(Mkdir(path, open_mode))
        self.metas.append(SetMeta(path, local))

    def _decide_file(self, finding: Finding, local: Entry) -> None:
        path, remote = finding.path, finding.remote
        if path in self.moves:
            self._move(path, local)
        elif remote is None:
            self.uploads.append(Upload(path, local))
        elif path in self.stuck:
            if finding.stale:
                self._record(path, remote)
            self.problems.append(
                Problem(
                    path,
                    "directory-in-the-way",
                    "On the remote it is a directory with files that are kept there; "
                    "move them away, or let complete-sync remove them.",
                )
            )
        elif remote.kind == DIR:
            self.clear_dirs.append(Rmdir(path, finding.foreign))
            self.uploads.append(Upload(path, local))
        elif not _same_content(finding, local, remote):
            self.uploads.append(Upload(path, local, remote, finding.foreign))
        else:
            self._decide_meta(finding, local, remote)

    def _decide_meta(self, finding: Finding, local: Entry, remote: Entry) -> None:
        known = local if local.digest else msgspec.structs.replace(local, digest=remote.digest)
        # A listing has whole seconds only: what agrees within the second is right.
        seen = remote
        if finding.foreign and wire_time(local.mtime_ns) == wire_time(remote.mtime_ns):
            seen = msgspec.structs.replace(remote, mtime_ns=local.mtime_ns)
        if not same_meta(known, seen, self.policy):
            self.metas.append(SetMeta(finding.path, known))
        elif finding.foreign or finding.stale or known != remote:
            self._record(finding.path, known)

    def _move(self, path: bytes, local: Entry) -> None:
        source = self.moves[path]
        assert source.remote is not None
        self.renames.append(Rename(path, source.path, source.remote))
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


def _directory_in_the_way(finding: Finding) -> bool:
    return (
        finding.remote is not None
        and finding.remote.kind == DIR
        and finding.local is not None
        and finding.local.kind != DIR
    )


def _same_content(finding: Finding, local: Entry, remote: Entry) -> bool:
    if local.kind != remote.kind:
        return False
    if local.kind != FILE:
        return local.link == remote.link
    if local.size != remote.size:
        return False
    if local.digest and remote.digest:
        return local.digest == remote.digest
    # Adoption: nothing is known of the remote content but what its listing says.
    return finding.foreign and wire_time(local.mtime_ns) == wire_time(remote.mtime_ns)


def _find_moves(
    findings: Sequence[Finding], policy: Policy, cleared: Sequence[bytes]
) -> dict[bytes, Finding]:
    """New path -> finding of the old one, for files whose content turned up where nothing was."""
    vanished: dict[tuple[int, bytes], list[Finding]] = defaultdict(list)
    for f in findings:
        if _is_vanished(f) and not any(is_below(f.path, d) for d in cleared):
            assert f.remote is not None
            if policy.complete_sync or not f.remote.retained:
                vanished[f.remote.size, f.remote.digest].append(f)
    moves: dict[bytes, Finding] = {}
    for f in findings:
        if f.remote is None and f.local is not None and f.local.digest:
            sources = vanished.get((f.local.size, f.local.digest))
            if sources:
                best = next((s for s in sources if name(s.path) == name(f.path)), sources[0])
                sources.remove(best)
                moves[f.path] = best
    return moves
