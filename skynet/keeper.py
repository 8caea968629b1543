"""The keeper: keeps one mirror in sync for as long as it is let, on a thread of its own.

    what may have changed   watcher -> agenda (and its journal)
    what is done when       lifecycle: (state, event) -> (state, command)
    the work                reconcile.run_in(session)

The watcher marks at any time. Everything else happens on the keeper's thread: a cycle calls `_look`
every moment, so commands are obeyed and the status is written while it runs.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from skynet.agenda import Agenda
from skynet.backoff import Backoff
from skynet.bulletin import Bulletin, Log
from skynet.config import Mirror
from skynet.control import COMMANDS, Mailbox
from skynet.control import Command as Order
from skynet.cycle import Report, Request, Surroundings
from skynet.docket import Docket
from skynet.errors import Interrupted, SkynetError, SourceError
from skynet.index import IndexDamaged
from skynet.journal import Journal
from skynet.lifecycle import Command, Event, State, follow
from skynet.memory import Memory, remembered
from skynet.monitor import Event as Told
from skynet.monitor import Monitor
from skynet.reconcile import run_in
from skynet.remote import Remote
from skynet.rules import Rules
from skynet.scan import Root
from skynet.session import Session, opened
from skynet.settling import Settling
from skynet.status import Status
from skynet.watch import Watcher

# All in seconds.
LOOK_SECONDS = 0.5  # between two looks at what was ordered
GATHER_SECONDS = 0.05  # what comes together is done together
FLUSH_SECONDS = 0.2
KEEPALIVE_SECONDS = 20.0
ASLEEP_SECONDS = 30.0  # who has not looked for so long was asleep
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
FIRST_LONG_RETRY, LAST_LONG_RETRY = 60.0, 600.0

JOURNAL = "journal"
CANARY = "canary"
PAUSED = "paused"  # a file that is there while the mirror is paused


@dataclass(frozen=True, slots=True)
class Means:
    """What a keeper needs of the world. around: its monitor sees what cycles tell.

    connect: tells a monitor what it connects to. random: numbers from 0 to 1. log: (level,
    message). route: something that is another when the network is.
    """

    connect: Callable[[Monitor], Remote]
    around: Surroundings
    random: Callable[[], float]
    log: Log
    route: Callable[[], object]


class Keeper:
    """Of one mirror, whose state directory is claimed. `run` it on a thread; then `stop` it."""

    def __init__(self, mirror: Mirror, directory: Path, means: Means) -> None:
        self._mirror = mirror
        self._directory = directory
        self._means = means
        self._clock = means.around.clock
        self._wake = threading.Event()
        self._has_marks = threading.Event()
        self._is_stopping = False
        self.has_failed = False
        self._remote: Remote | None = None
        self._around = replace(means.around, monitor=self._on_event, check=self._check)
        self._bulletin = Bulletin(
            mirror, directory, self._clock, self._now, means.log, means.around.monitor
        )
        self._journal = Journal(directory / JOURNAL, self._on_event)
        settling = Settling(mirror.settle, mirror.settle_max)
        self.agenda = Agenda(self._journal, settling, self._clock, self._on_mark)
        rules = Rules(mirror.ignore, "ignore")
        self._watcher = Watcher(
            mirror.source,
            mirror.watch,
            self.agenda.saw,
            hides=lambda path, is_dir: rules.hides(path, is_dir=is_dir),
            canary=directory / CANARY,
            clock=self._clock,
            monitor=self._on_event,
        )
        self._mailbox = Mailbox(directory / COMMANDS)
        self._is_paused = (directory / PAUSED).exists()
        self._state = State.STARTING
        self._opened: AbstractContextManager[Session] | None = None
        self._session: Session | None = None
        self._tokens: set[str] = set()
        self._backoff = Backoff(FIRST_RETRY, LAST_RETRY, means.random)
        self._long_backoff = Backoff(FIRST_LONG_RETRY, LAST_LONG_RETRY, means.random)
        self._retry_at = self._ping_at = math.inf
        self._looked_at = self._clock()
        self._route: object = None
        self._docket = Docket(mirror, self._clock)

    # Called by other threads.

    def stop(self) -> None:
        """Ask it to end soon."""
        self._is_stopping = True
        self._wake.set()
        self._has_marks.set()

    @property
    def status(self) -> Status:
        """What it is doing, as it was told last."""
        return self._bulletin.status

    def abandon(self) -> None:
        """Cut the connection, for a keeper that was asked to end and waits for the server."""
        remote = self._remote
        if remote is not None:
            remote.close()

    # The thread.

    def run(self) -> None:
        """Keep the mirror until `stop`. Only a state directory that is of no use ends it before."""
        try:
            self._run()
        except SkynetError as error:
            self._bulletin.note("error", f"{error} This mirror is not kept any more.")
            self.has_failed = True

    def _run(self) -> None:
        with ExitStack() as stack:
            memory = stack.enter_context(
                remembered(self._directory, self._around.monitor, read_only=False)
            )
            stack.callback(self._journal.close)
            stack.callback(self._journal.flush)
            stack.callback(self._watcher.stop)
            self._watcher.start()
            threading.Thread(target=self._flush, name="journal", daemon=True).start()
            self._live(memory)
        self._bulletin.write(at_once=True)

    def _live(self, memory: Memory) -> None:
        event = Event.PAUSE if self._is_paused else Event.BEGUN
        while True:
            self._state, command = follow(self._state, event)
            self._bulletin.enter(self._state)
            self._bulletin.write(at_once=True)
            if command in (Command.END, Command.QUIT):
                self._leave(None)
                return
            try:
                event = self._do(command, memory)
            except Exception as error:  # noqa: BLE001 - a fault of ours: told, and tried again
                self._bulletin.note("error", "".join(traceback.format_exception(error)))
                self._bulletin.offline = f"skynet failed ({error!r}); the log tells where"
                self._leave(error)
                event = Event.REFUSED

    def _do(self, command: Command | None, memory: Memory) -> Event:
        if command == Command.CONNECT:
            return self._connect(memory)
        if command in (Command.SCAN, Command.SYNC):
            return self._cycle(memory, whole=command == Command.SCAN)
        if command == Command.DISCONNECT:
            self._leave(None)
        elif command == Command.BACK_OFF:
            self._retry_in(self._backoff.next())
        elif command == Command.BACK_OFF_LONG:
            self._retry_in(self._long_backoff.next())
        return self._await_event()

    def _await_event(self) -> Event:
        while True:
            self._look()
            event = self._event()
            if event is not None:
                return event
            self._wake.wait(self._patience())
            self._wake.clear()

    def _event(self) -> Event | None:
        now = self._clock()
        if self._is_stopping:
            return Event.STOP
        if self._is_paused != (self._state == State.PAUSED):
            return Event.PAUSE if self._is_paused else Event.RESUME
        if self._state == State.OFFLINE:
            return Event.RETRY if now >= self._retry_at or self._network_changed() else None
        if self._state in (State.IDLE, State.HELD):
            if now >= self._docket.scan_at:
                return Event.SCAN_DUE
            due = self.agenda.next_due()
            if due is not None and now >= due:
                self._gather()
                return Event.DIRTY
            return self._keep_alive(now)
        return None

    def _patience(self) -> float:
        """Seconds that nothing can happen in but what wakes us."""
        due = self.agenda.next_due() if self._state in (State.IDLE, State.HELD) else None
        return LOOK_SECONDS if due is None else min(LOOK_SECONDS, max(0.0, due - self._clock()))

    def _gather(self) -> None:
        self._around.sleep(GATHER_SECONDS)

    def _look(self) -> None:
        """What is to be done every moment, in a cycle and between two."""
        now = self._clock()
        if now - self._looked_at > ASLEEP_SECONDS and self._state in (State.IDLE, State.HELD):
            self._docket.scan_now()  # the machine was asleep: what it missed nobody has told
            self._ping_at = now
        self._looked_at = now
        for order_id, order in self._mailbox.take():
            message, ok = self._obey(order)
            self._mailbox.answer(order_id, message, ok=ok)
        self._watcher.check()
        self._bulletin.watch = self._watcher.how
        self._bulletin.backlog = self.agenda.backlog()
        self._bulletin.transfers = self._remote.unfinished() if self._remote is not None else {}
        self._bulletin.write()

    def _check(self) -> None:
        """Called every moment by a cycle: raises Interrupted when it is to end."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._look()
        if self._is_stopping or self._is_paused:
            raise Interrupted("What was finished is recorded; the rest is done later.")

    # The connection.

    def _connect(self, memory: Memory) -> Event:
        self._route = self._means.route()
        self._bulletin.next_try = 0.0
        began = self._clock()
        try:
            root = Root(self._mirror.source, self._around.now_ns)
            self._opened = opened(
                self._mirror, root, memory, self._connect_remote, self._around, self._tokens
            )
            self._session = self._opened.__enter__()
        except SkynetError as error:
            self._opened = self._remote = None
            return self._setback(error, began)
        self._bulletin.note("info", f"connected to {self._bulletin.server}")
        self._bulletin.offline = ""
        self._ping_at = self._clock() + KEEPALIVE_SECONDS
        return Event.CONNECTED

    def _connect_remote(self) -> Remote:
        self._remote = self._means.connect(self._on_event)
        return self._remote

    def _leave(self, error: BaseException | None) -> None:
        """End the session, in order if no error did."""
        session, self._opened = self._opened, None
        self._session = None
        self._bulletin.server = ""
        if session is None:
            return
        with suppress(SkynetError):  # what ended it is told already, and nothing is left to do
            if error is None:
                session.__exit__(None, None, None)
            else:
                session.__exit__(type(error), error, error.__traceback__)
        self._remote = None

    def _setback(self, error: SkynetError, began: float) -> Event:
        self._bulletin.cycle_failed(error, self._clock() - began)
        self._leave(error)
        can_help = error.retry or isinstance(error, SourceError | IndexDamaged)
        return Event.LOST if can_help else Event.REFUSED

    def _retry_in(self, seconds: float) -> None:
        self._retry_at = self._clock() + seconds
        self._bulletin.next_try = self._now() + seconds

    def _network_changed(self) -> bool:
        route = self._means.route()
        changed, self._route = route != self._route, route
        return changed

    def _keep_alive(self, now: float) -> Event | None:
        if now < self._ping_at or self._session is None:
            return None
        self._ping_at = now + KEEPALIVE_SECONDS
        try:
            self._session.keep_alive()
        except SkynetError as error:
            return self._setback(error, now)
        return None

    # The work.

    def _cycle(self, memory: Memory, *, whole: bool) -> Event:
        assert self._session is not None
        began = self._clock()
        marks = self.agenda.begin()
        request = self._docket.request(None if whole else marks, self._is_unsettled, self.agenda)
        try:
            report = run_in(self._session, request)
        except Interrupted as interruption:
            self._leave(interruption)
            return Event.STOP if self._is_stopping else Event.PAUSE
        except IndexDamaged as damage:
            event = self._setback(damage, began)
            memory.begin_index_anew(self._directory, read_only=False)
            self._docket.scan_now()
            return event
        except SkynetError as error:
            return self._setback(error, began)
        self._backoff.reset()
        self._long_backoff.reset()
        self._close(report, request, began)
        return Event.QUESTION if self._docket.is_holding else Event.DONE

    def _close(self, report: Report, request: Request, began: float) -> None:
        self.agenda.settle(self._docket.close(request, report, self.agenda.taken))
        self._has_marks.set()
        now = self._clock()
        self._ping_at = now + KEEPALIVE_SECONDS
        if not self._docket.is_holding:
            self._bulletin.release()
        elif report.was_whole:
            self._bulletin.hold(report)
        self._bulletin.cycle_ended(report, now - began, self._docket.problems)

    def _is_unsettled(self, path: bytes, mtime_ns: int) -> bool:
        age = (self._around.now_ns() - mtime_ns) / 1e9
        return self.agenda.is_unsettled(path, age)

    # Small things.

    def _obey(self, order: Order) -> tuple[str, bool]:
        """Do what `skynet pause` and its like ask for; what to answer, and whether it is done."""
        if order.verb == "approve":
            held = self._bulletin.held
            if held is None:
                return "Nothing is held.", False
            if order.argument != held.approve:
                return f"What is held now has the hash {held.approve}; look at it first.", False
            self._docket.scan_now(approved=order.argument)
            return "Approved; it is carried out now.", True
        if order.verb == "sync-now":
            if self._is_paused:
                return "It is paused: skynet resume.", False
            self._docket.scan_now()
            self._retry_at = self._clock()
            return "Looking at everything now.", True
        self._is_paused = order.verb == "pause"
        marker = self._directory / PAUSED
        if self._is_paused:
            marker.touch(mode=0o600)
            return "Paused, until skynet resume; changes are noted meanwhile.", True
        marker.unlink(missing_ok=True)
        return "Going on.", True

    def _on_event(self, event: Told) -> None:
        self._bulletin.event(event)

    def _on_mark(self) -> None:
        self._wake.set()
        self._has_marks.set()

    def _flush(self) -> None:
        while not self._is_stopping:
            self._has_marks.wait()
            self._has_marks.clear()
            time.sleep(FLUSH_SECONDS)
            self._journal.flush()

    def _now(self) -> float:
        return self._means.around.now_ns() / 1e9
