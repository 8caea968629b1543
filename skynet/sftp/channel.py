"""One SFTP channel, and many conversations at once over it.

A session has two threads. The reader parses replies in bulk, resumes conversations, starts new ones
and sends what they ask, as long as the server takes it without waiting. Else the sender does that:
so hundreds of files are under way, waking few threads, and a server that is slow to read never
keeps its answers from being read. A conversation runs on one thread at a time. A broken session
never goes on, since half a packet may be lost.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import monotonic

from skynet.errors import LinkLost, ProtocolError, SkynetError
from skynet.sftp import refusals, replies, wire
from skynet.sftp.conversation import Crowded, Done, Everywhere, Lanes, Talk, Work
from skynet.sftp.dial import one_line
from skynet.sftp.pace import Pace
from skynet.sftp.pending import Pending
from skynet.sftp.ration import Ration, Rations
from skynet.sftp.replies import Handle
from skynet.sftp.stream import PacedStream, Stream, slices
from skynet.sftp.window import Window
from skynet.sftp.wire import Request

WINDOW = 512  # conversations under way on a channel
START_AT_ONCE = 16  # conversations a sender starts before it sends, so that others get theirs
SPARE_HANDLES = 4  # left beside the files that are transferred
OUTGOING_LIMIT = 4 << 20  # bytes waiting to be sent beyond which no conversation is started
RECEIVE = 256 * 1024
QUOTED = 400  # bytes of what comes instead of a greeting
LAST_REQUEST_ID = 0xFFFF_0000  # ids are 32 bits wide; a channel this old is given up


class Session:
    """One channel. `work` is shared by all sessions of a client; see the module's text.

    everywhere(step, begin, done): pin step.make() to every session for which begin() is true.
    rations: of this session alone. takes: whether it takes from `work` now; None for always.
    """

    def __init__(
        self,
        stream: Stream,
        work: deque[Work],
        on_lost: Done,
        everywhere: Callable[[Everywhere, Callable[[], bool], Done], None],
        rations: Rations[Talk],
        pace: Pace | None = None,
        takes: Callable[[], bool] | None = None,
    ) -> None:
        self._takes = takes
        self._stream = stream if pace is None else PacedStream(stream, pace, self._note_progress)
        self._is_paced = pace is not None
        self.rations = rations
        self._work = work
        self._pinned: deque[Work] = deque()
        self._on_lost = on_lost
        self._everywhere = everywhere
        self._packets = replies.Packets()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._sending = threading.Lock()  # held while packets are handed to the stream
        self._outgoing: list[bytes | memoryview] = []
        self._outgoing_bytes = 0
        self._pending = Pending()
        self._next_id = 0
        self._open_files = 0  # counted by the reader
        self._requests = 0
        self._mutations = 0
        self._window: Window[Talk] = Window(WINDOW)
        self._ended: LinkLost | None = None
        self._progress = monotonic()
        self._owed = True  # the server owes the greeting
        self.has_started = False

    @property
    def counts(self) -> Counter[str]:
        """How many `requests` were sent, and how many `mutations` among them."""
        return Counter(requests=self._requests, mutations=self._mutations)

    def greet(self) -> dict[bytes, bytes]:
        """Wait for VERSION, the answer to the INIT that opened the stream; the extensions."""
        heard = b""
        while True:
            data = self._receive()
            heard = (heard + data)[:QUOTED]
            try:
                packets = list(self._packets.feed(data))
            except ProtocolError as error:
                raise ProtocolError(f"{error} It begins: {one_line(heard)!r}.") from None
            if len(packets) > 1:
                raise ProtocolError("The server sent more than its SFTP greeting, unasked.")
            if packets:
                self._owed = False
                return replies.parse_version(packets[0])

    def bound_handles(self, max_handles: int) -> None:
        """Keep the files open at once below `max_handles` (0: not known)."""
        if max_handles:
            self._window.narrow(max_handles - SPARE_HANDLES)

    def start(self, name: str) -> None:
        """Begin to take work."""
        self.has_started = True
        for role in (self._send_loop, self._receive_loop):
            threading.Thread(target=role, name=f"{name}-{role.__name__}", daemon=True).start()

    def kick(self) -> None:
        """Tell the sender that there may be work."""
        with self._wake:
            self._wake.notify()

    def pin(self, work: Work) -> None:
        """Run a conversation on this channel and no other, whatever its window holds."""
        with self._wake:
            ended = self._ended
            if ended is None:
                self._pinned.append(work)
                self._wake.notify()
        if ended is not None:
            work.conversation.close()
            work.done(None, ended)

    def stalled_for(self, now: float) -> float:
        """Seconds that the server has owed an answer without any progress; 0 if it owes none.

        Or that it has left out one request: others that go on may hide that for ever.
        """
        if not (self._owed or self._pending or self._outgoing):
            return 0.0
        with self._lock:  # so that what is counted as asked is also there
            left_out = self._pending.passed_over_for(now, self._next_id)
        return max(now - self._progress, left_out)

    def end_if_idle(self, error: LinkLost) -> bool:
        """End it unless something is under way here; whether it has ended."""
        with self._wake:
            if self._pending or self._pinned or self._window.is_taken or self._ended is not None:
                return False
            self._ended = error
            self._wake.notify_all()
        self._stream.close()
        return True

    def end(self, error: LinkLost) -> None:
        """Fail every conversation under way and stop both threads. The first call counts."""
        with self._wake:
            if self._ended is not None:
                return
            self._ended = error
            self._outgoing.clear()
            pinned = list(self._pinned)
            self._pinned.clear()
            self._wake.notify_all()
        self._stream.close()
        self._abandon_waiting(error)
        for talk in self._pending.take_all():
            self._abandon(talk, error)
        for work in pinned:
            work.conversation.close()
            work.done(None, error)

    # The sender's thread.

    def _send_loop(self) -> None:
        try:
            while self._wait_for_something_to_send():
                with self._sending:
                    self._start_conversations()
                    self._flush()
        except (LinkLost, OSError, EOFError) as error:
            self._lose(error)

    def _wait_for_something_to_send(self) -> bool:
        with self._wake:
            while self._ended is None and not self._outgoing and not self._may_start():
                self._wake.wait()  # for work, not for the server: that is the supervisor's
            return self._ended is None

    def _may_start(self) -> bool:
        if self._pinned:
            return True
        if not self._work or self.rations.are_short:
            return False
        if self._takes is not None and not self._takes():
            return False
        return self._window.has_room and self._outgoing_bytes < OUTGOING_LIMIT

    def _start_conversations(self) -> None:
        for _ in range(START_AT_ONCE):
            if not self._may_start():
                return
            try:
                work = self._pinned.popleft() if self._pinned else self._work.popleft()
            except IndexError:  # another session was quicker
                return
            self._window.enter(work.weight)
            self._advance(Talk(work.conversation, work.done, None, work.weight))

    def _flush(self) -> None:
        """Hand what is to be sent to the stream; only who holds `_sending` may."""
        with self._lock:
            chunks, self._outgoing = self._outgoing, []
            self._outgoing_bytes = 0
        for piece in slices(chunks):
            self._stream.send(piece)
            if not self._is_paced:  # else the stream does it, unless the server owes answers
                self._note_progress()

    def _note_progress(self) -> None:
        self._progress = monotonic()

    # The reader's thread.

    def _receive_loop(self) -> None:
        try:
            while self._ended is None:
                for packet in self._packets.feed(self._receive()):
                    self._deliver(packet)
                if not self._send_at_once():
                    self.kick()
        except (LinkLost, ProtocolError, OSError, EOFError) as error:
            self._lose(error)

    def _send_at_once(self) -> bool:
        """Start and send what can be; False if something is left for the sender."""
        if not self._sending.acquire(blocking=False):
            return False
        try:
            while True:
                self._start_conversations()
                if not self._outgoing:
                    return not self._may_start()
                if self._outgoing_bytes > self._stream.room:
                    return False
                self._flush()
        finally:
            self._sending.release()

    def _receive(self) -> bytes:
        data = self._stream.recv(RECEIVE)
        if not data and self._owed and self._ended is None:
            raise refusals.no_greeting()
        if not data:
            raise LinkLost("The server closed the SFTP channel.")
        self._progress = monotonic()
        return data

    def _deliver(self, packet: bytes) -> None:
        request_id, reply = replies.parse_reply(packet)
        asked = self._pending.pop(request_id, None)
        if asked is None:
            if self._ended is not None:
                return
            raise ProtocolError(f"The server answered request {request_id}, never sent.")
        talk, slot, closes, content = asked
        self._open_files += isinstance(reply, Handle) - closes
        talk.replies[slot] = reply
        talk.missing -= 1
        if content:
            self.rations.release(content)
        if not talk.missing:
            self._advance(talk)
        if content:
            while (waiting := self.rations.next()) is not None:
                waiting.replies = []
                self._advance(waiting)

    # Either thread.

    def _advance(self, talk: Talk) -> None:
        """Let a conversation go on with what it waited for, up to its next wait or its end."""
        try:
            if talk.error is not None:
                error, talk.error = talk.error, None
                step = talk.generator.throw(error)
            else:
                step = talk.generator.send(talk.replies)
            while not step or (isinstance(step, Ration) and self.rations.give(talk, step)):
                step = talk.generator.send([])
        except StopIteration as stop:
            self._finish(talk, stop.value, None)
        except Exception as error:  # noqa: BLE001  told to whoever asked for the conversation
            self._finish(talk, None, error)
        else:
            if isinstance(step, Lanes):
                self._run_lanes(talk, step)
            elif isinstance(step, Everywhere):
                self._run_everywhere(talk, step)
            elif isinstance(step, Crowded):
                self._hold_back(talk)
            elif isinstance(step, Ration):
                if self._ended is not None:
                    self._abandon_waiting(self._ended)
            else:
                self._post(talk, step)

    def _run_lanes(self, talk: Talk, lanes: Lanes) -> None:
        talk.replies = []
        talk.lanes = len(lanes.conversations)
        for conversation in lanes.conversations:
            self._advance(Talk(conversation, None, talk))

    def _hold_back(self, talk: Talk) -> None:
        if not (self._open_files > 0 and self._window.refuse(talk, talk.weight)):
            talk.replies = [replies.UNANSWERED]
            self._advance(talk)
        elif self._ended is not None:
            self._abandon_waiting(self._ended)

    def _run_everywhere(self, talk: Talk, step: Everywhere) -> None:
        talk.replies = []
        talk.lanes = 1  # so that none is the last before all are pinned

        def begin() -> bool:
            with self._lock:
                talk.lanes += not step.ended
            return not step.ended

        def done(_: object, error: BaseException | None) -> None:
            self._finish_lane(talk, error, step)
            self.kick()  # on another channel's thread, which flushes only its own

        self._everywhere(step, begin, done)
        self._finish_lane(talk, None, step)

    def _post(self, talk: Talk, requests: Sequence[Request]) -> None:
        talk.replies = [replies.UNANSWERED] * len(requests)
        talk.missing = len(requests)
        with self._lock:
            ended = self._ended
            used_up = self._next_id + len(requests) > LAST_REQUEST_ID
            if ended is None and not used_up:
                if not self._pending:
                    self._progress = monotonic()
                self._enqueue(talk, requests)
        if ended is not None:
            self._abandon(talk, ended)
        elif used_up:
            error = LinkLost("This channel has used up its request numbers; a new one is needed.")
            self._abandon(talk, error)
            self._lose(error)

    def _enqueue(self, talk: Talk, requests: Sequence[Request]) -> None:
        first = self._next_id
        self._next_id += len(requests)
        self._requests += len(requests)
        for slot, request in enumerate(requests):
            kind, _, data, mutates = request
            content = len(data)
            self._pending[first + slot] = (talk, slot, kind == wire.CLOSE, content)
            head = wire.frame(request, first + slot)
            self._outgoing.append(head)
            self._outgoing_bytes += len(head) + content
            self._mutations += mutates
            if content:
                self._outgoing.append(data)
                self.rations.hold(content)

    def _finish(self, talk: Talk, result: object, error: BaseException | None) -> None:
        if talk.parent is not None:
            self._finish_lane(talk.parent, error)
            return
        refused = self._window.leave(talk.weight)
        if talk.done is not None:
            talk.done(result, error)
        if refused is not None:
            refused.replies = []
            self._advance(refused)

    def _finish_lane(
        self, parent: Talk, error: BaseException | None, step: Everywhere | None = None
    ) -> None:
        with self._lock:  # lanes begin on one thread and may end on another
            parent.lanes -= 1
            parent.error = parent.error or error
            last = parent.lanes == 0
            if last and step is not None:
                step.ended = True
        if last:
            self._advance(parent)

    def _abandon(self, talk: Talk, error: LinkLost) -> None:
        """End a conversation without a chance to send more."""
        talk.generator.close()
        self._finish(talk, None, error)

    def _abandon_waiting(self, error: LinkLost) -> None:
        for talk in [*self._window.clear(), *self.rations.clear()]:
            self._abandon(talk, error)

    def _lose(self, error: BaseException) -> None:
        if not isinstance(error, SkynetError):
            error = LinkLost(f"The connection broke: {error or type(error).__name__}.")
        self._on_lost(self, error)
