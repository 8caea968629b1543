"""What a daemon tells of one mirror: the status as it is now, the log, and the history.

It is told what happens, and writes when something has changed; nothing is decided here.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Mapping

from skynet import __version__
from skynet.config import Mirror
from skynet.cycle import Report
from skynet.errors import Problem, SkynetError
from skynet.guard import unquestioned
from skynet.history import Record, append
from skynet.lifecycle import State
from skynet.logs import Level
from skynet.monitor import BrokenOff, Connected, Event, Monitor, Notice, Progress, Stage
from skynet.ops import Op, Plan, kind, paths_of
from skynet.ops import Record as Noted
from skynet.outline import counts_text
from skynet.remote import Intent
from skynet.rules import shown
from skynet.state import Lock
from skynet.status import MAX_PROBLEMS, Held, Seen, Status, Transfer, read_status, write_status

STATUS_SECONDS = 1.0  # between two that tell of progress alone
HELD_AGAIN_SECONDS = 3600.0
MAX_LINES = 20
MAX_SIZED = 1000  # marked files that are looked at for their size
Log = Callable[[Level, str], None]


class Bulletin:
    """Of one mirror. clock: monotonic seconds. now: unix seconds. log: of the daemon.

    lock: of its state directory. Nothing is written there while it is not held, for then it may be
    another daemon's. monitor: who else wants to see the events of cycles. Any thread may call
    `note`, the others are for the mirror's own.
    """

    def __init__(
        self,
        mirror: Mirror,
        lock: Lock,
        clock: Callable[[], float],
        now: Callable[[], float],
        log: Log,
        monitor: Monitor,
    ) -> None:
        self._mirror = mirror
        self._lock = lock
        self._directory = lock.directory
        self._clock = clock
        self._now = now
        self._log = log
        self._monitor = monitor
        self._state = State.STARTING
        self._since = now()
        self._doing = ""
        self._held_told_at = 0.0
        self._ahead: Progress | None = None  # of the plan that is being carried out
        self._done = Counter[str]()  # by a cycle that broke off, and that is not in the history
        self._rates: dict[bytes, tuple[float, int]] = {}  # path -> when, and how far it was then
        self._written: Status | None = None  # as the file has it
        self._written_at = 0.0
        self._is_refused = False  # by the disk, and that was told
        self.server = self.offline = self.watch = ""
        self.next_try = 0.0
        before = read_status(lock.directory)
        self.last_sync = before.last_sync if before is not None else 0.0
        self.held: Held | None = None
        self.problems: dict[bytes, Problem] = {}
        self.transfers: Mapping[bytes, Intent] = {}
        self.backlog: Mapping[bytes, bool] = {}
        self.status = self._status()

    def enter(self, state: State) -> None:
        """The mirror's state is another one."""
        if state != self._state:
            self._state, self._since, self._doing = state, self._now(), ""
            self._ahead = None
            if state == State.PAUSED:  # nothing is tried, so nothing fails
                self.offline, self.next_try = "", 0.0

    def end(self, why: str) -> None:
        """The mirror is not kept any more, although the daemon goes on."""
        self.enter(State.STOPPING)
        self.offline, self.server, self.next_try = why, "", 0.0
        self.write(at_once=True)

    def event(self, event: Event) -> None:
        """Something that a cycle tells."""
        if isinstance(event, Stage):
            self._doing = event.doing
        elif isinstance(event, Connected):
            self.server, self._doing = event.server, ""
        elif isinstance(event, Progress):
            self._ahead = event
        elif isinstance(event, BrokenOff):
            self._done = event.done
            if event.done:
                self._log("info", f"{counts_text(event.done, planned=False)} until it broke off")
        elif isinstance(event, Notice):
            self._log("warning", event.message)
        self._monitor(event)

    def note(self, level: Level, message: str) -> None:
        """Say something in the log."""
        self._log(level, message)

    def cycle_ended(
        self, report: Report, seconds: float, problems: Mapping[bytes, Problem]
    ) -> None:
        """Tell of a cycle, if it did anything. problems: all that there are now."""
        for path, problem in problems.items():
            if path not in self.problems:
                self._log("warning", f"{shown(path)}: {problem.message}")
        has_news = bool(report.done) or problems.keys() != self.problems.keys()
        self.problems = dict(problems)
        is_in_sync = report.outcome in ("in-sync", "changed") and not self.problems
        if is_in_sync and not report.unsettled and self.held is None:
            self.last_sync = self._now()
        if report.done:
            self._log("info", f"{counts_text(report.done, planned=False)} in {seconds:.1f} s")
        if has_news:
            self._remember(_record(report, seconds, self._now()))

    def hold(self, report: Report) -> None:
        """A plan waits for a person: loudly, for each approval that is asked for, and hourly."""
        before, self.held = self.held, _held(report)
        now = self._clock()
        is_news = before is None or before.approve != self.held.approve
        if not is_news and now - self._held_told_at < HELD_AGAIN_SECONDS:
            return
        self._held_told_at = now
        for hazard in report.hazards:
            self._log("error", f"HELD: {hazard.message}")
        self._log("error", f"HELD: to agree: skynet approve {self.held.approve}")
        if is_news:
            why = "; ".join(f"{hazard.code}: {hazard.message}" for hazard in report.hazards)
            self._remember(Record(ended=self._now(), seconds=0.0, outcome="held", error=why))

    def release(self) -> None:
        """Nothing waits for a person any more."""
        if self.held is not None:
            self._log("info", "nothing is held any more")
            self.held = None

    def cycle_failed(self, error: SkynetError, seconds: float) -> None:
        """Tell of a cycle that could not go on: what may pass by itself, once for each reason."""
        if not error.retry:
            self._log("error", str(error))
        elif str(error) != self.offline:
            self._log("warning", str(error))
        if self._done or str(error) != self.offline:
            self._remember_failure(error, seconds)
        self.offline, self.server = str(error), ""

    def cycle_interrupted(self, error: SkynetError, seconds: float) -> None:
        """Tell of a cycle that was asked to end, if it did anything."""
        if self._done:
            self._remember_failure(error, seconds)

    def _remember_failure(self, error: SkynetError, seconds: float) -> None:
        done, self._done = dict(self._done), Counter()
        why = f"{error.code}: {error}"
        self._remember(
            Record(ended=self._now(), seconds=seconds, outcome="failed", done=done, error=why)
        )

    def write(self, *, at_once: bool = False) -> None:
        """Bring the status file up to date, if it is not; progress alone has some time."""
        now = self._clock()
        if not at_once and now - self._written_at < STATUS_SECONDS:
            return
        status = self.status = self._status()
        if self._written is None or Seen(status, None).facts != Seen(self._written, None).facts:
            self._put_out(status)
        self._written_at = now

    def forget_file(self) -> None:
        """The file was removed: it is to be written also if nothing has changed."""
        self._written = None

    def _put_out(self, status: Status) -> None:
        """Write it; where that fails, the next write tries again."""
        if not self._lock.is_held:
            return
        try:
            write_status(self._directory, status)
        except OSError as error:
            if not self._is_refused:
                self._log("warning", f"the status cannot be written: {error.strerror}")
            self._is_refused = True
        else:
            self._written, self._is_refused = status, False

    def _remember(self, record: Record) -> None:
        notice = append(self._directory, record) if self._lock.is_held else None
        if notice is not None:
            self._log("warning", notice.message)

    def _status(self) -> Status:
        problems = list(self.problems.values())[:MAX_PROBLEMS]
        files, size = self._backlog()
        return Status(
            mirror=self._mirror.name,
            source=shown(self._mirror.source),
            target=str(self._mirror.target),
            pid=os.getpid(),
            version=__version__,
            state=self._state.value,
            since=self._since,
            updated=self._now(),
            doing=self._doing,
            server=self.server,
            offline="" if self.server else self.offline,
            next_try=self.next_try,
            watch=self.watch,
            backlog_files=files,
            backlog_bytes=size,
            backlog_is_whole=b"" in self.backlog,
            transfers=self._transfers(),
            last_sync=self.last_sync,
            problems=[(shown(path), code, message) for path, code, message in problems],
            problem_count=len(self.problems),
            held=self.held,
        )

    def _backlog(self) -> tuple[int, int]:
        """Files and bytes to go: of the plan under way, else of what is marked."""
        if self._ahead is not None:
            ahead = self._ahead
            return ahead.total - ahead.done, max(0, ahead.total_bytes - ahead.sent_bytes)
        if len(self.backlog) <= MAX_SIZED:
            return len(self.backlog), sum(map(self._size_of, self.backlog))
        return len(self.backlog), 0

    def _size_of(self, path: bytes) -> int:
        """The size of a local file, 0 of what is none."""
        try:
            status = os.lstat(os.path.join(self._mirror.source, path))
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def _transfers(self) -> list[Transfer]:
        now = self._clock()
        found = []
        for path, intent in self.transfers.items():
            began, length = self._rates.setdefault(path, (now, intent.length))
            rate = (intent.length - length) / (now - began) if now > began else 0.0
            found.append(Transfer(shown(path), intent.length, intent.size, max(0.0, rate)))
        self._rates = {path: self._rates[path] for path in self.transfers}
        return found


def _record(report: Report, seconds: float, now: float) -> Record:
    plan = unquestioned(report.plan, report.hazards) if report.done else Plan([], [])
    lines = [line(op) for op in plan.ops if not isinstance(op, Noted)]
    return Record(
        ended=now,
        seconds=seconds,
        outcome=report.outcome,
        done=dict(report.done),
        problems=len(report.problems),
        ops=lines[:MAX_LINES],
        more=max(0, len(lines) - MAX_LINES),
    )


def _held(report: Report) -> Held:
    free = {id(op) for op in unquestioned(report.plan, report.hazards).ops}
    lines = [line(op) for op in report.plan.ops if id(op) not in free]
    return Held(
        approve=report.hazards[0].approve,
        hazards=[(hazard.code, hazard.message) for hazard in report.hazards],
        plan=lines[:MAX_LINES],
        more=max(0, len(lines) - MAX_LINES),
    )


def line(op: Op) -> str:
    """An operation in a few words, the paths as they are shown."""
    return " from ".join([f"{kind(op)} {shown(op.path)}", *map(shown, paths_of(op)[1:])])
