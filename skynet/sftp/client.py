"""A client for one SFTP server: conversations in, results out, over the channels of a connection.

It holds one queue of conversations and several sessions, one for each channel, which take from it
what they have room for. Large files go over all channels but one, the channel aside: while they
fill the others it takes what is queued, so that small files and calls get past them.

Deadlines: a supervisor aborts the connection when a session with requests in flight has made no
progress for `timeout` seconds, or one request has had no answer for so long since a later one had;
so whoever waits for a conversation needs no deadline of its own.
A further channel that does not greet in that time is given up, and nothing else; so is one that
the server closes while nothing is under way there.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Generic, Protocol, TypeVar, cast

from skynet.errors import ConnectError, LinkLost, ProtocolError, SkynetError
from skynet.sftp import wire
from skynet.sftp.capabilities import LIMITS, Bounds, Capabilities, ask_for_bounds
from skynet.sftp.channel import Session
from skynet.sftp.conversation import Conversation, Done, Everywhere, Talk, Work
from skynet.sftp.flow import Flow
from skynet.sftp.pace import Pace
from skynet.sftp.ration import Rations
from skynet.sftp.stream import Stream

T = TypeVar("T")

UNKNOWN_ROUND_TRIP = 0.02  # seconds, until it is measured
NEAR = 0.002  # seconds of a round trip to a server on this machine, or the next
# A round trip below so many seconds makes so many channels useful, before more are tried (Gain).
USEFUL_CHANNELS = ((NEAR, 2), (0.010, 4), (float("inf"), 8))
# So many channels share the queue. Small files spread over more would share fewer packets and
# wake-ups; further channels only take their part in what runs everywhere.
SHARING_CHANNELS = 4


class Connection(Protocol):
    """What opens streams and can be cut from any thread."""

    def open_stream(self, opening: bytes) -> Stream:
        """A new channel with the SFTP subsystem, which is sent `opening`."""

    def abort(self, reason: str) -> None:
        """Cut the connection: whatever is blocked on it raises LinkLost(reason)."""

    def close(self) -> None:
        """End the connection."""


class Client:
    """Runs conversations over one connection. Sessions are opened on demand, up to `channels`.

    Beside these there is the channel aside, as soon as something is to get past a large file.

    pace: how fast all of them together may send, None for as fast as can be. With a pace, the
    channel aside is there from the beginning, and serves `call`. clock: by which the line is
    measured.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        channels: int = 4,
        timeout: float = 60.0,
        pace: Pace | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._pace = pace
        self._flow = Flow(pace, channels, clock)
        self._work: deque[Work] = deque()
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._shared: list[tuple[Everywhere, Callable[[], bool], Done]] = []
        self._wanted = channels
        self._bounds: _Answer[Bounds] = _Answer()
        self._tried = 0  # channels beyond what the round trip asks for
        self.round_trip = UNKNOWN_ROUND_TRIP
        self._opening = 0
        self._sharing: set[Session] = set()  # those beside the channel aside that take from `_work`
        self._counted: Counter[str] = Counter()  # of sessions that have ended
        self._closed = threading.Event()
        self._lost: SkynetError | None = None
        self._aside: Session | None = None
        self._may_open_aside = channels > 1
        threading.Thread(target=self._supervise, name="sftp-supervisor", daemon=True).start()
        try:
            self.capabilities = self._open_first()
            self._home = self._sessions[0]
            if pace is not None:
                # Under a limit megabytes wait on a channel; who calls, as to keep the lease, must
                # not stand behind them.
                self._may_open_aside = False
                self._home = self._try_to_open(aside=True) or self._home
        except BaseException:
            self.close()
            raise

    def submit(
        self,
        conversation: Conversation[T],
        done: Callable[[T, None], None] | Done,
        weight: int = 1,
    ) -> None:
        """Run a conversation; `done(result, error)` is called on a session's thread.

        weight: how much of a channel's window (WINDOW) it takes, by the memory it needs.
        """
        self.submit_all([Work(conversation, cast("Done", done), weight)])

    def submit_all(self, work: Iterable[Work]) -> None:
        """Run many conversations; together they cost fewer wake-ups and packets than one by one.

        They may open many files, so they begin when the server has said how many it takes.
        """
        self._bounds.wait()
        self._queue(work)

    def _queue(self, work: Iterable[Work]) -> None:
        self._work.extend(work)
        if self._lost is not None or self._closed.is_set():
            self._fail_queued()
            return
        self._make_way()
        for session in list(self._sessions):
            session.kick()

    def call(self, conversation: Conversation[T]) -> T:
        """Run a conversation of a few requests and wait for it. The supervisor bounds the wait."""
        if self._home is self._aside:
            return self.call_pinned(conversation)
        answer: _Answer[T] = _Answer()
        self._queue([Work(conversation, answer.set)])
        return answer.get()

    def call_pinned(self, conversation: Conversation[T]) -> T:
        """As `call`, always on one and the same channel, where a handle stays good."""
        return self.begin(conversation)()

    def begin(self, conversation: Conversation[T]) -> Callable[[], T]:
        """Begin what `call_pinned` waits for. What is returned waits for it, each time."""
        answer: _Answer[T] = _Answer()
        self.pin(conversation, answer.set)
        return answer.get

    def pin(
        self, conversation: Conversation[T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Begin what `call_pinned` waits for; what is pinned later is asked later."""
        self._home.pin(Work(conversation, done, 0))  # a lost session ends all of the client

    def widen(self) -> None:
        """Open the channels that this round trip asks for, together and in the background.

        Each moves at most a window (2 MiB on OpenSSH) in a round trip; where that is short, more
        channels mostly cost. Large files try more, one by one, as long as that makes them faster.
        """
        self._bounds.wait()  # with them comes the round trip
        with self._lock:
            useful = next(n for limit, n in USEFUL_CHANNELS if self.round_trip < limit)
            useful += self._tried
            missing = min(useful, self._wanted) - len(self._carrying()) - self._opening
            self._opening += max(0, missing)
        for _ in range(missing):
            threading.Thread(target=self._open_another, name="sftp-open", daemon=True).start()

    @property
    def counts(self) -> Counter[str]:
        """How many `requests` were sent, and how many `mutations` among them."""
        with self._lock:
            return sum((session.counts for session in self._sessions), self._counted)

    @property
    def width(self) -> int:
        """Channels that large files go over."""
        return len(self._carrying())

    def close(self) -> None:
        """End all sessions and the connection; what is still under way fails."""
        self._closed.set()
        # First, or on a stalled link each channel would wait a moment to say farewell.
        self._connection.abort("The connection was closed.")
        self._end_all(LinkLost("The connection was closed."))
        self._connection.close()

    def _open_first(self) -> Capabilities:
        session = self._new_session()
        extensions = frozenset(session.greet())
        # First, and nobody waits: the first calls travel behind it, and cost no more time.
        learning = self._learn_bounds(session, says_them=LIMITS in extensions)
        session.pin(Work(learning, self._note_bounds, 0))
        session.start("sftp-0")
        # A near server is measured best while nothing else runs here; a far one is not waited for.
        self._bounds.wait(NEAR)
        return Capabilities(extensions, self._bounds.get)

    def _learn_bounds(self, session: Session, *, says_them: bool) -> Conversation[Bounds]:
        asked = monotonic()
        bounds = yield from ask_for_bounds(says_them=says_them)
        self.round_trip = monotonic() - asked  # what else is under way was asked later
        session.bound_handles(bounds.handles)
        return bounds

    def _note_bounds(self, bounds: Bounds | None, error: BaseException | None) -> None:
        self._bounds.set(bounds, error)
        if isinstance(error, ProtocolError):
            self._on_lost(self._sessions[0], error)

    def _open_another(self) -> None:
        try:
            if self._try_to_open() is None:
                # The server has fewer sessions to give: what is open must do, and does.
                with self._lock:
                    self._wanted = len(self._carrying())
        finally:
            with self._lock:
                self._opening -= 1

    def _try_to_open(self, *, aside: bool = False) -> Session | None:
        """One more session at work; None if none can be had."""
        session = None
        try:
            session = self._new_session(aside=aside)
            session.greet()
            session.bound_handles(self.capabilities.max_handles)
            self._let_join(session)
        except (ConnectError, LinkLost, OSError, EOFError):
            if session is not None:
                self._drop(session)
                session.end(LinkLost("The server did not take up this channel."))
            return None
        return session

    def _carrying(self) -> list[Session]:
        """The sessions that large files go over."""
        return [session for session in self._sessions if session is not self._aside]

    def _new_session(self, *, aside: bool = False) -> Session:
        stream = self._connection.open_stream(wire.init())
        with self._lock:
            shares = aside or len(self._sharing) < SHARING_CHANNELS
            work = self._work if shares else deque[Work]()
            rations: Rations[Talk] = self._flow.rations(self._note_acknowledged, aside=aside)
            run = self._run_everywhere
            takes = self._runs_everywhere if aside else None
            session = Session(stream, work, self._on_lost, run, rations, self._pace, takes)
            self._sessions.append(session)
            if aside:
                self._aside = session
            elif shares:
                self._sharing.add(session)
        return session

    def _drop(self, session: Session) -> None:
        with self._lock:
            self._counted += session.counts
            self._sessions.remove(session)
            self._sharing.discard(session)
            self._flow.forget(session.rations)
            if session is self._aside:
                self._aside = None

    def _note_acknowledged(self, count: int) -> None:
        is_large = self._runs_everywhere()
        if self._flow.note(count, len(self._carrying()), self.round_trip, is_large=is_large):
            with self._lock:
                self._tried += 1
            self.widen()

    def _runs_everywhere(self) -> bool:
        """Whether a large file is under way."""
        return not all(step.ended for step, _, _ in self._shared)

    def _run_everywhere(self, step: Everywhere, begin: Callable[[], bool], done: Done) -> None:
        with self._lock:
            self._shared = [each for each in self._shared if not each[0].ended]
            if not self._shared:
                self._flow.begin()
            self._shared.append((step, begin, done))
            sessions = [session for session in self._carrying() if session.has_started]
        for session in sessions:
            _join(session, step, begin, done)
        self._make_way()
        if self._aside is not None:
            self._aside.kick()

    def _make_way(self) -> None:
        """Have a channel on which what is queued gets past a large file, if one is under way."""
        if not self._work or not self._runs_everywhere():
            return
        with self._lock:
            opens_aside, self._may_open_aside = self._may_open_aside, False
        if opens_aside:
            threading.Thread(
                target=self._try_to_open, kwargs={"aside": True}, name="sftp-open", daemon=True
            ).start()

    def _let_join(self, session: Session) -> None:
        """Start a session, and let it take its part in what runs everywhere."""
        with self._lock:  # so that it is either here or there that it joins
            session.start(f"sftp-{len(self._sessions)}")
            shared = [] if session is self._aside else list(self._shared)
        for step, begin, done in shared:
            _join(session, step, begin, done)
        session.kick()

    def _on_lost(self, session: Session, error: BaseException | None) -> None:
        if self._closed.is_set() or self._could_spare(session, error):
            return
        assert isinstance(error, SkynetError)
        self._lost = self._lost or error
        self._connection.abort(str(error))
        self._end_all(error if isinstance(error, LinkLost) else LinkLost(str(error), error.code))

    def _could_spare(self, session: Session, error: BaseException | None) -> bool:
        """Whether it was a further channel with nothing to do, which is opened again if need be.

        Some servers close one that is idle for long. If the whole link is lost, others tell.
        """
        if session is self._sessions[0] or session is self._home:
            return False
        if not isinstance(error, LinkLost) or not session.end_if_idle(error):
            return False
        was_aside = session is self._aside
        self._drop(session)
        self._may_open_aside |= was_aside
        self._make_way()
        return True

    def _end_all(self, error: LinkLost) -> None:
        for session in list(self._sessions):
            session.end(error)
        self._fail_queued()

    def _fail_queued(self) -> None:
        error = self._lost or LinkLost("The connection was closed.")
        while self._work:
            try:
                work = self._work.popleft()
            except IndexError:
                return
            work.conversation.close()
            work.done(None, error)

    def _supervise(self) -> None:
        pause = min(1.0, self._timeout / 4)
        while not self._closed.wait(pause) and self._lost is None:
            now = monotonic()
            for session in list(self._sessions):
                seconds = session.stalled_for(now)
                if seconds > self._timeout:
                    self._give_up(session, seconds)

    def _give_up(self, session: Session, seconds: float) -> None:
        """End the connection; but only a further channel where that has not even greeted."""
        error = LinkLost(f"The server has not answered for {round(seconds)} s.")
        if session.has_started or session is self._sessions[0]:
            self._on_lost(session, error)
        else:
            session.end(error)


def _join(session: Session, step: Everywhere, begin: Callable[[], bool], done: Done) -> None:
    if begin():
        session.pin(Work(step.make(), done, 0))


class _Answer(Generic[T]):
    """The end of one conversation, waited for by another thread."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None

    def set(self, result: T | None, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._ready.set()

    def wait(self, seconds: float | None = None) -> None:
        self._ready.wait(seconds)

    def get(self) -> T:
        self.wait()
        if self._error is not None:
            raise self._error
        return cast("T", self._result)
