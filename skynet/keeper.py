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
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from skynet.agenda import Agenda
from skynet.backoff import Backoff
from skynet.bulletin import Bulletin, Log
from skynet.config import Mirror
from skynet.control import COMMANDS, PAUSED, Mailbox, note_pause
from skynet.control import Command as Order
from skynet.cycle import Report, Request, Surroundings
from skynet.docket import Docket
from skynet.errors import Interrupted, LinkLost, OwnedError, SkynetError, SourceError
from skynet.flusher import Flusher
from skynet.index_file import IndexDamaged
from skynet.journal import Journal
from skynet.lifecycle import Command, Event, State, follow
from skynet.line import Line
from skynet.memory import Memory, remembered
from skynet.monitor import Monitor
from skynet.reconcile import run_in
from skynet.remote import Remote
from skynet.rules import Rules
from skynet.settling import Settling
from skynet.state import Lock
from skynet.status import Status
from skynet.watch import Watcher

# All in seconds.
LOOK_SECONDS = 0.5  # between two looks at what was ordered
GATHER_SECONDS = 0.05  # what comes together is done together
KEEPALIVE_SECONDS = 20.0
ASLEEP_SECONDS = 30.0  # who has rested for so long was asleep
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
FIRST_LONG_RETRY, LAST_LONG_RETRY = 60.0, 600.0

JOURNAL = "journal"
CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Means:
    """What a keeper needs of the world. around: its monitor sees what cycles tell.

    connect: tells a monitor what it connects to. random: numbers from 0 to 1. log: (level,
    message). route: something that is another when the network is. wait: until the event is set,
    or so many seconds have passed.
    """

    connect: Callable[[Monitor], Remote]
    around: Surroundings
    random: Callable[[], float]
    log: Log
    route: Callable[[], object]
    wait: Callable[[threading.Event, float], object] = threading.Event.wait


class Keeper:
    """Of one mirror. lock: of its state directory. `run` it on a thread; then `stop` it."""

    def __init__(self, mirror: Mirror, lock: Lock, means: Means) -> None:
        self._mirror = mirror
        self._lock = lock
        self._directory = directory = lock.directory
        self._means = means
        self._clock = means.around.clock
        self._wake = threading.Event()
        self._is_stopping = False
        self.has_failed = False
        self._bulletin = Bulletin(
            mirror, lock, self._clock, self._now, means.log, means.around.monitor
        )
        tell = self._bulletin.event
        self._around = replace(means.around, monitor=tell, check=self._check)
        self._journal = Journal(directory / JOURNAL, tell)
        self._flusher = Flusher(self._journal)
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
            monitor=tell,
        )
        self._mailbox = Mailbox(directory / COMMANDS)
        self._is_paused = (directory / PAUSED).exists()
        self._state = State.STARTING
        self._line = Line(mirror, lambda: means.connect(tell), self._around)
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

    @property
    def status(self) -> Status:
        """What it is doing, as it was told last."""
        return self._bulletin.status

    def abandon(self) -> None:
        """Cut the connection, for a keeper that was asked to end and waits for the server."""
        self._line.cut()

    # The thread.

    def run(self) -> None:
        """Keep the mirror until `stop`. Only a state directory that is of no use ends it before."""
        try:
            self._run()
        except SkynetError as error:
            self._bulletin.note("error", f"{error} This mirror is not kept any more.")
            self._fail(str(error))
        except Exception as fault:  # noqa: BLE001 - a fault of ours, where nothing can be tried again
            self._fail(self._tell_fault(fault))

    def _fail(self, why: str) -> None:
        self.has_failed = True
        self._bulletin.end(f"{why} This mirror is not kept any more.")

    def _run(self) -> None:
        with ExitStack() as stack:
            memory = stack.enter_context(
                remembered(self._directory, self._around.monitor, read_only=False)
            )
            stack.callback(self._journal.close)
            self._flusher.start()
            stack.callback(self._flusher.stop)
            stack.callback(self._watcher.stop)
            self._bulletin.write(at_once=True)  # to watch a large source takes its time
            self._watcher.start()
            self.agenda.look_everywhere()  # since the last run nobody has watched
            self._bulletin.backlog = self.agenda.backlog()
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
            except OwnedError:
                raise  # of the state directory: that of a remote is a setback
            except Exception as error:  # noqa: BLE001 - a fault of ours: told, and tried again
                event = self._survive(error)

    def _survive(self, fault: Exception) -> Event:
        self._bulletin.offline = self._tell_fault(fault)
        self._leave(fault)
        self._docket.scan_now()  # what it was about to do may be forgotten in parts
        self._wake.clear()
        self._means.wait(self._wake, LOOK_SECONDS)  # or what fails at every look would fill the log
        return Event.STOP if self._is_stopping else Event.REFUSED

    def _do(self, command: Command | None, memory: Memory) -> Event:
        if command == Command.CONNECT:
            return self._connect(memory)
        if command in (Command.SCAN, Command.SYNC):
            return self._cycle(whole=command == Command.SCAN)
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
            before = self._now()
            self._means.wait(self._wake, self._patience())
            if self._now() - before > ASLEEP_SECONDS:
                self._begin_anew()  # what it missed nobody has told, and the link may be dead
            if self._wake.is_set():
                self._around.sleep(GATHER_SECONDS)
                self._wake.clear()

    def _begin_anew(self) -> None:
        """Look at everything, over a new connection."""
        self._docket.scan_now()
        self._route = None  # and so the network is another one

    def _event(self) -> Event | None:
        now = self._clock()
        if self._is_stopping:
            return Event.STOP
        if self._is_paused != (self._state == State.PAUSED):
            return Event.PAUSE if self._is_paused else Event.RESUME
        if self._state == State.OFFLINE:
            return Event.RETRY if now >= self._retry_at or self._network_changed() else None
        if self._state in (State.IDLE, State.HELD):
            if self._network_changed():
                return Event.RETRY  # a dead link does not say so for long
            if now >= self._docket.scan_at:
                return Event.SCAN_DUE
            due = self.agenda.next_due()
            if due is not None and now >= due:
                return Event.DIRTY
            return self._keep_alive(now)
        return None

    def _patience(self) -> float:
        """Seconds that nothing can happen in but what wakes us."""
        due = self.agenda.next_due() if self._state in (State.IDLE, State.HELD) else None
        return LOOK_SECONDS if due is None else min(LOOK_SECONDS, max(0.0, due - self._clock()))

    def _look(self) -> None:
        """What is to be done every moment, in a cycle and between two."""
        self._looked_at = self._clock()
        if self._lock.renew():  # local state may be deleted at any time
            lost = f"The state directory {self._directory} was removed, and is begun anew."
            self._bulletin.note("warning", lost)
            self._bulletin.forget_file()
            self._begin_anew()
        for order_id, order in self._mailbox.take():
            message, ok = self._obey(order)
            self._mailbox.answer(order_id, message, ok=ok)
        self._watcher.check()
        self._bulletin.watch = self._watcher.how
        self._bulletin.backlog = self.agenda.backlog()
        self._bulletin.transfers = self._line.unfinished()
        self._bulletin.write()

    def _check(self) -> None:
        """Called every moment by who works or waits: raises Interrupted when that is to end."""
        if self._clock() - self._looked_at >= LOOK_SECONDS:
            self._look()
        if self._is_stopping or self._is_paused:
            raise Interrupted("What was finished is recorded; the rest is done later.")

    # The connection.

    def _connect(self, memory: Memory) -> Event:
        self._line.cut()  # a link that may be dead is not waited for
        self._leave(LinkLost("The connection is made anew."))
        self._route = self._means.route()
        self._bulletin.next_try = 0.0
        began = self._clock()
        try:
            memory.reopen_index(self._directory)
            self._line.open(memory)
        except SkynetError as error:
            return self._setback(error, began)
        self._bulletin.note("info", f"connected to {self._bulletin.server}")
        self._bulletin.offline = ""
        self._ping_at = self._clock() + KEEPALIVE_SECONDS
        return Event.CONNECTED

    def _leave(self, error: BaseException | None) -> None:
        self._bulletin.server = ""
        try:
            self._line.leave(error)
        except Exception as fault:  # noqa: BLE001 - a fault of ours, and it is ended nevertheless
            self._tell_fault(fault)

    def _tell_fault(self, fault: Exception) -> str:
        """Have the log tell of it; what the status is to say."""
        self._bulletin.note("error", "".join(traceback.format_exception(fault)))
        return f"skynet failed ({fault!r}); the log tells where."

    def _setback(self, error: SkynetError, began: float) -> Event:
        if isinstance(error, Interrupted):
            self._bulletin.cycle_interrupted(error, self._clock() - began)
            self._leave(error)
            return Event.STOP if self._is_stopping else Event.PAUSE
        self._bulletin.cycle_failed(error, self._clock() - began)
        self._leave(error)
        if isinstance(error, IndexDamaged | OwnedError):
            self._docket.scan_now()  # what the remote holds may be something else by now
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
        if now < self._ping_at:
            return None
        self._ping_at = now + KEEPALIVE_SECONDS
        try:
            self._line.keep_alive()
        except SkynetError as error:
            return self._setback(error, now)
        self._backoff.reset()
        self._long_backoff.reset()
        return None

    # The work.

    def _cycle(self, *, whole: bool) -> Event:
        session = self._line.session
        assert session is not None
        began = self._clock()
        marks = self.agenda.begin()
        request = self._docket.request(None if whole else marks, self._is_unsettled, self.agenda)
        try:
            session.root.verify()  # a source that is gone is no matter of its files
            report = run_in(session, request)
        except SkynetError as error:
            return self._setback(error, began)
        self._backoff.reset()
        self._long_backoff.reset()
        self._close(report, request, began)
        return Event.QUESTION if self._docket.is_holding else Event.DONE

    def _close(self, report: Report, request: Request, began: float) -> None:
        later = self._docket.close(request, report, self.agenda.taken)
        self.agenda.settle(later, report.unsettled, was_whole=report.was_whole)
        self._flusher.wake()
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
            when = "when there is a connection" if self._state == State.OFFLINE else "now"
            when = "after skynet resume" if self._is_paused else when
            return f"Approved; carried out {when}, if all that was shown is still so.", True
        if order.verb == "sync-now":
            if self._is_paused:
                return "It is paused: skynet resume.", False
            self._docket.scan_now(audited=True)
            self._retry_at = self._clock()
            return "Looking at everything now.", True
        self._is_paused = order.verb == "pause"
        try:
            note_pause(self._directory, is_paused=self._is_paused)
        except OSError as error:
            return f"Done, but a restart will not know of it: {error.strerror}.", False
        if self._is_paused:
            return "Paused, until skynet resume; changes are noted meanwhile.", True
        return "Going on.", True

    def _on_mark(self) -> None:
        self._wake.set()
        self._flusher.wake()

    def _now(self) -> float:
        return self._means.around.now_ns() / 1e9
