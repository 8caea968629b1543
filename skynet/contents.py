"""Reading files where only their content can tell: what the plan cannot do without, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from skynet.blocks import PATCH_FROM, Signature
from skynet.delta import Delta, compare
from skynet.errors import Problem, RequestError, TornRead
from skynet.findings import Finding, holds_ours, undecided
from skynet.ops import Patch, Plan
from skynet.remote import Remote
from skynet.scan import Root, digest_of, unreadable
from skynet.scope import Survey
from skynet.signatures import Signatures
from skynet.tree import FILE, Entry

LEAST_SAVING = 0.1  # of a file's content; below that a patch is not worth its requests


class Reader(NamedTuple):
    """Reads local files, where that may save sending them.

    signature_of(digest, size): of content that the remote has. holds_size: whether it may have
    content of a size anywhere. Both say nothing where the server cannot copy.
    """

    root: Root
    signature_of: Callable[[bytes, int], Signature | None] = lambda _digest, _size: None
    holds_size: Callable[[int], bool] = lambda _size: False
    check: Callable[[], None] = lambda: None


def decide_contents(found: Survey, reader: Reader, read_back: Remote | None) -> list[Finding]:
    """The findings with the digests that planning needs.

    Files of which the remote has an old version are compared with it: `found.deltas` gets what is
    worth a patch. A local file that cannot be read, or changes meanwhile, becomes a problem in
    `found` and is no finding any more. With `read_back`, foreign remote files of the right size are
    read too.
    """
    findings = found.findings
    if read_back is not None:
        findings = _read_back(findings, read_back, found)
    wanted = {f.path for f in undecided(findings, reader.holds_size)}
    result = []
    for finding in findings:
        signature = _old_signature(finding, reader)
        decided: Finding | None = finding
        if finding.path in wanted or signature is not None:
            decided = _read_local(finding, reader, signature, found)
        if decided is not None:
            result.append(decided)
    return result


def deltas_of(
    plan: Plan, root: Root, signatures: Signatures, known: Mapping[bytes, Delta]
) -> dict[bytes, Delta]:
    """Path -> delta of what the plan patches; made again for a plan that was saved.

    What cannot be compared has none: it is sent whole, and what is wrong with it is told then.
    """
    deltas: dict[bytes, Delta] = {}
    for op in plan.ops:
        if not isinstance(op, Patch):
            continue
        delta = known.get(op.path)
        signature = None
        if delta is None:
            signature = signatures.get(op.replaces.digest, op.replaces.size)
        if signature is not None:
            with suppress(TornRead, OSError):
                delta, _ = _compared(Reader(root), op.path, op.entry, signature)
        if delta is not None:
            deltas[op.path] = delta
    return deltas


def _old_signature(finding: Finding, reader: Reader) -> Signature | None:
    """The signature of what a local file is a new version of, if it can be patched."""
    local, remote = finding.local, finding.remote
    if local is None or remote is None or not holds_ours(finding) or finding.stale:
        return None
    if local.kind != FILE or local.digest or min(local.size, remote.size) < PATCH_FROM:
        return None
    return reader.signature_of(remote.digest, remote.size)


def _read_local(
    finding: Finding, reader: Reader, signature: Signature | None, found: Survey
) -> Finding | None:
    path, local = finding.path, finding.local
    assert local is not None
    try:
        if signature is None:
            digest, identity = reader.root.digest(path, local, reader.check)
        else:
            delta, identity = _compared(reader, path, local, signature)
            digest = delta.digest
            if delta.copied >= delta.size * LEAST_SAVING:
                found.deltas[path] = delta
    except TornRead as error:
        found.problems.append(Problem(path, error.code, str(error)))
        return None
    except OSError as error:
        found.problems.append(unreadable(path, error))
        return None
    found.identities[path] = identity
    local = msgspec.structs.replace(local, digest=digest)
    if finding.remote == local and not finding.stale:
        found.settled[path] = identity
    return msgspec.structs.replace(finding, local=local)


def _compared(
    reader: Reader, path: bytes, entry: Entry, signature: Signature
) -> tuple[Delta, bytes]:
    """A local file beside an old version; and the identity to record. TornRead, OSError."""
    file = reader.root.open(path, entry, reader.check)
    try:
        return compare(signature, file), file.verify()
    finally:
        file.close()


def _read_back(findings: list[Finding], remote: Remote, found: Survey) -> list[Finding]:
    result = []
    for finding in findings:
        if not _may_be_adopted(finding):
            result.append(finding)
            continue
        try:
            digest = digest_of(remote.content(finding.path))
        except RequestError as error:
            message = f"It could not be read back: {error}"
            found.problems.append(Problem(finding.path, error.code, message))
            continue
        assert finding.remote is not None
        known = msgspec.structs.replace(finding.remote, digest=digest)
        result.append(msgspec.structs.replace(finding, remote=known))
    return result


def _may_be_adopted(finding: Finding) -> bool:
    local, remote = finding.local, finding.remote
    if not finding.foreign or local is None or remote is None:
        return False
    return local.kind == remote.kind == FILE and local.size == remote.size
