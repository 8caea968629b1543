"""What a daemon is doing, as values, and the file that tells it to others.

The file is in the mirror's state directory. It says what was so when it was written: who reads it
must ask whether the daemon that wrote it still lives (`control.look`).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from skynet.statefile import cut, encode, read, replace

STATUS_FILE = "status.json"
MAX_BYTES = 1 << 20  # of the file
MAX_PROBLEMS = 100
MAX_LINES = 40  # of a held plan, of its hazards, and of transfers


class Transfer(msgspec.Struct, frozen=True):
    """A file on its way. Bytes, and bytes a second; path is shown text."""

    path: str
    sent: int
    total: int
    rate: float


class Held(msgspec.Struct, frozen=True):
    """A plan that waits for approval.

    approve: the hash. hazards: code and message of each. plan: its lines as plain text, without
    markup. more: how many lines are left out.
    """

    approve: str
    hazards: list[tuple[str, str]]
    plan: list[str]
    more: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What one mirror of a daemon is doing. Times are unix seconds, 0 for none.

    state: starting, scanning, syncing, idle, offline, held, paused or stopping. since: when that
    began. doing: a phrase such as "comparing" while a cycle runs. server: what it is connected to,
    "" when it is not. offline: why it is not. watch: how changes are noticed. backlog_is_whole:
    everything may have changed, so the files are not known yet. last_sync: the end of the last
    cycle after which all was in sync. problems: path (shown text), code and message of the first
    ones; problem_count: of all. held: may be there in any state, as uploads go on.
    """

    mirror: str
    source: str
    target: str
    pid: int
    version: str
    state: str
    since: float
    updated: float
    doing: str = ""
    server: str = ""
    offline: str = ""
    next_try: float = 0.0
    watch: str = ""
    backlog_files: int = 0
    backlog_bytes: int = 0
    backlog_is_whole: bool = False
    transfers: list[Transfer] = []
    last_sync: float = 0.0
    problems: list[tuple[str, str, str]] = []
    problem_count: int = 0
    held: Held | None = None

    @property
    def has_backlog(self) -> bool:
        """Whether something is known to be left to do."""
        return self.backlog_is_whole or bool(self.backlog_files or self.backlog_bytes)

    @property
    def is_in_sync(self) -> bool:
        """Whether all is in sync, as far as was noticed: at rest, with nothing left or wrong."""
        at_rest = self.state in ("idle", "paused") and self.last_sync > 0
        return at_rest and not (self.has_backlog or self.problem_count or self.held)


class Seen(NamedTuple):
    """A mirror's daemon as it is seen from outside.

    status: what was written last, by whomever. holder: the process that works on the mirror now, 0
    if it is not named, None if there is none.
    """

    status: Status | None
    holder: int | None

    @property
    def alive(self) -> Status | None:
        """The status, if the daemon that wrote it lives."""
        if self.status is None or self.holder is None or self.status.pid != self.holder:
            return None
        return self.status

    @property
    def facts(self) -> Seen:
        """The same without the time of writing, to tell whether anything has changed."""
        if self.status is None:
            return self
        return self._replace(status=msgspec.structs.replace(self.status, updated=0.0))


def write_status(directory: Path, status: Status) -> None:
    """Write the status for others to read, whole or not at all. OSError.

    What it was before is not told for it: on a full disk that goes, which may make room enough.
    """
    path, data = directory / STATUS_FILE, encode(_bounded(status))
    try:
        replace(path, data)
    except OSError:
        path.unlink(missing_ok=True)
        replace(path, data)


def read_status(directory: Path) -> Status | None:
    """What was written last; None if that is nothing, or damaged. UsageError."""
    data = read(directory / STATUS_FILE, MAX_BYTES)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # a hint like all local state, and rewritten soon


def _bounded(status: Status) -> Status:
    """The same, with no more than fits into the file."""
    held = status.held
    if held is not None:
        lines = [cut(line) for line in held.plan[:MAX_LINES]]
        hazards = [(code, cut(message)) for code, message in held.hazards[:MAX_LINES]]
        more = held.more + len(held.plan) - len(lines)
        held = msgspec.structs.replace(held, plan=lines, more=more, hazards=hazards)
    return msgspec.structs.replace(
        status,
        held=held,
        doing=cut(status.doing),
        server=cut(status.server),
        offline=cut(status.offline),
        watch=cut(status.watch),
        transfers=[
            msgspec.structs.replace(each, path=cut(each.path))
            for each in status.transfers[:MAX_LINES]
        ],
        problems=[
            (cut(path), code, cut(message))
            for path, code, message in status.problems[:MAX_PROBLEMS]
        ],
        problem_count=max(status.problem_count, len(status.problems)),
    )
