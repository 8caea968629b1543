"""Directories that are closed to their owner, and must be opened for what is done in them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from skynet.findings import Finding
from skynet.needs import changed_directories
from skynet.ops import Op, Rmdir, SetMeta
from skynet.tree import DIR, OWNER_ACCESS, Entry, is_closed


def open_and_close(
    findings: Sequence[Finding], ops: Sequence[Op], *, complete_sync: bool
) -> tuple[list[Op], list[Op]]:
    """What opens directories before `ops`, and closes them again after them."""
    closed = [f for f in findings if is_closed(f.remote)]
    if not closed:
        return [], []
    openings: list[Op] = []
    closings: list[Op] = []
    changed = {directory for op in ops for directory in changed_directories(op)}
    ending = {op.path for op in ops if isinstance(op, Rmdir | SetMeta)}
    for finding in closed:
        remote, path = finding.remote, finding.path
        last = _last_of(finding, complete_sync=complete_sync) if path in changed else None
        if last is not None and remote is not None and remote.mode is not None:
            opened = msgspec.structs.replace(last, mode=remote.mode | OWNER_ACCESS)
            openings.append(SetMeta(path, opened, opens=True))
            if path not in ending:
                closings.append(SetMeta(path, last))
    return openings, closings


def _last_of(finding: Finding, *, complete_sync: bool) -> Entry | None:
    """What the manifest says of a remote directory in the end, None if it is not to say."""
    local, remote = finding.local, finding.remote
    assert remote is not None
    if local is not None and local.kind == DIR:
        mode = local.mode if local.mode is not None else remote.mode
        return msgspec.structs.replace(local, mode=mode)
    if finding.foreign:
        return None
    is_retained = local is None and not complete_sync
    return msgspec.structs.replace(remote, retained=is_retained or remote.retained)
