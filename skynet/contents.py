"""Reading files where only their content can tell: what the plan cannot do without, and no more."""

from __future__ import annotations

import msgspec

from skynet.errors import Problem, RequestError, TornRead
from skynet.plan import Finding, undecided
from skynet.remote import Remote
from skynet.scan import Root, digest_of, unreadable
from skynet.survey import Survey
from skynet.tree import FILE


def decide_contents(found: Survey, root: Root, read_back: Remote | None) -> list[Finding]:
    """The findings with the digests that planning needs.

    A local file that cannot be read, or changes meanwhile, becomes a problem in `found` and is
    no finding any more. With `read_back`, foreign remote files of the right size are read too.
    """
    findings = found.findings
    if read_back is not None:
        findings = _read_back(findings, read_back, found)
    wanted = {f.path for f in undecided(findings)}
    decided = (_digest_local(f, root, found) if f.path in wanted else f for f in findings)
    return [finding for finding in decided if finding is not None]


def _digest_local(finding: Finding, root: Root, found: Survey) -> Finding | None:
    assert finding.local is not None
    try:
        digest, identity = root.digest(finding.path, finding.local)
    except TornRead as error:
        found.problems.append(Problem(finding.path, error.code, str(error)))
        return None
    except OSError as error:
        found.problems.append(unreadable(finding.path, error))
        return None
    found.identities[finding.path] = identity
    local = msgspec.structs.replace(finding.local, digest=digest)
    if finding.remote == local and not finding.stale:
        found.settled.add(finding.path)
    return msgspec.structs.replace(finding, local=local)


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
