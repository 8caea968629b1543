"""Findings: the paths where trees differ, and what must be read before acting on them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from skynet.errors import Problem
from skynet.tree import DIR, FILE, SECOND, Entry, Kind, same_time

IDENTITY_SIZE = 36  # scan.identity: mtime, ctime, size and inode, 8 bytes each, and st_mode


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One path where there may be something to do.

    remote: what the remote holds, as far as is known. local: what it should hold; a file's digest
    is b"" while unknown. None is nothing. foreign: `remote` is not skynet's work. stale: the
    manifest says something else than `remote`. A directory that is closed to its owner needs a
    finding even if it is in sync: it must be opened for what is done in it.

    here: the stat identity of the local file or directory (scan.identity, scan.standing); known:
    the same of the one that `remote` was made from. b"" where that is not known. A directory that
    is not the one it was needs findings for all that is below it, in sync or not.
    """

    path: bytes
    remote: Entry | None
    local: Entry | None
    foreign: bool = False
    stale: bool = False
    here: bytes = b""
    known: bytes = b""

    def with_digest(self, original: Entry) -> Finding:
        """The same, its local file known to have the content of `original`, if it is as large."""
        local = self.local
        if local is None or local.kind != FILE or local.digest or local.size != original.size:
            return self
        mode = local.mode if local.mode is not None else original.mode
        local = msgspec.structs.replace(local, digest=original.digest, mode=mode)
        return msgspec.structs.replace(self, local=local)


def moved_key(identity: bytes) -> bytes:
    """What stays of a file's identity when it is renamed: all but the change time; b"" of none."""
    return identity[:8] + identity[16:32] if len(identity) == IDENTITY_SIZE else b""


def is_same_file(here: bytes, known: bytes) -> bool:
    """Whether the file that is `here` is the one that was `known`, whatever its path is now.

    Disks use inodes again, and archives and cameras give many files one time of whole seconds. So
    one of the times must be finer: that of modification, or that of change if a rename has kept it.
    """
    if not moved_key(here) or moved_key(here) != moved_key(known):
        return False
    modified, changed = (int.from_bytes(known[at : at + 8], "little", signed=True) for at in (0, 8))
    return is_fine(modified) or (here[8:16] == known[8:16] and is_fine(changed))


def is_fine(time_ns: int) -> bool:
    """Whether a time has a part below the second."""
    return time_ns % SECOND != 0


def content_of(entry: Entry) -> tuple[int, bytes]:
    """What a file's content is known by: size and xxh3-128."""
    return entry.size, entry.digest


def holds_wanted(finding: Finding) -> bool:
    """Whether the remote has at the path what should be there, mode and times apart."""
    local, remote = finding.local, finding.remote
    if local is None or remote is None or local.kind != remote.kind:
        return False
    if local.kind != FILE:
        return local.link == remote.link
    if local.size != remote.size:
        return False
    if local.digest and remote.digest:
        return local.digest == remote.digest
    if finding.foreign:
        # Adoption: nothing is known of the remote content but what its listing says.
        return same_time(local.mtime_ns, remote.mtime_ns)
    # It was adopted so; only modes have changed since then, there or here.
    is_same = bool(moved_key(finding.here)) and moved_key(finding.here) == moved_key(finding.known)
    return is_same and local.mtime_ns == remote.mtime_ns


def directory_in_the_way(finding: Finding) -> bool:
    """Whether the remote has a directory where a file or link should be."""
    local, remote = finding.local, finding.remote
    if local is None or remote is None:
        return False
    return local.kind != DIR and remote.kind == DIR


def in_the_way(path: bytes, why: str, remedy: str = "Move one of them away.") -> Problem:
    """Of a file or link that should be where the remote has a directory that must stay."""
    message = f"On the remote it is a directory {why} {remedy}"
    return Problem(path, "directory-in-the-way", message)


def is_lost(finding: Finding) -> bool:
    """Whether the manifest has something at the path, and nothing is there."""
    return finding.stale and finding.remote is None


def is_unread(entry: Entry | None) -> bool:
    """Whether it is a file of which nobody knows the content."""
    return entry is not None and entry.kind == FILE and not entry.digest


def is_retained(finding: Finding) -> bool:
    """Whether the remote only keeps it since complete-sync is off."""
    return finding.remote is not None and finding.remote.retained


def kind_at(found: Mapping[bytes, Finding], path: bytes) -> Kind | None:
    """What the remote holds there, None for nothing, and for what has no finding."""
    finding = found.get(path)
    return finding.remote.kind if finding is not None and finding.remote is not None else None


def holds_ours(finding: Finding) -> bool:
    """Whether the remote holds a file of ours, of known content."""
    remote = finding.remote
    return (
        remote is not None and remote.kind == FILE and bool(remote.digest) and not finding.foreign
    )


def has_other_content(finding: Finding) -> bool:
    """Whether the remote holds a file of ours whose content is not to stay there."""
    local = finding.local
    return _may_have_other_content(finding) and (
        local is None or local.kind != FILE or bool(local.digest) or _sizes_differ(finding)
    )


def _may_have_other_content(finding: Finding) -> bool:
    local, remote = finding.local, finding.remote
    if remote is None or not holds_ours(finding):
        return False
    return local is None or local.kind != FILE or content_of(local) != content_of(remote)


def _sizes_differ(finding: Finding) -> bool:
    local, remote = finding.local, finding.remote
    return local is None or remote is None or local.size != remote.size


def undecided(
    findings: Iterable[Finding], holds_size: Callable[[int], bool] = lambda _: False
) -> list[Finding]:
    """The findings whose local file must be hashed before anything can be planned.

    Either the remote holds a file of the same size there; or one of that size may lose its place,
    or is anywhere else on the remote where `holds_size` asks for it, so that this may be it.
    """
    findings = list(findings)
    free = {f.remote.size for f in findings if f.remote is not None and _may_have_other_content(f)}
    return [f for f in findings if _wants_digest(f, free, holds_size)]


def _wants_digest(finding: Finding, free: set[int], holds_size: Callable[[int], bool]) -> bool:
    local, remote = finding.local, finding.remote
    if local is None or local.kind != FILE or local.digest:
        return False
    if remote is not None and remote.kind == FILE and remote.size == local.size:
        return bool(remote.digest)
    return local.size in free or holds_size(local.size)
