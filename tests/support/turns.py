"""A server far away: what goes to it in one turn is answered when all of that turn has come.

A turn is what a client sends before it must hear something: a round trip. The server is told what
each turn holds, and keeps back its replies until it has all of it. A client that needs more turns
waits for an answer that does not come; no clock has a say in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from skynet.sftp.stream import Stream
from tests.support import frames
from tests.support.faults import Fault, FaultConnection, FaultStream, no_fault
from tests.support.frames import Asked
from tests.support.pipes import PipeStream

EXEMPT = ("INIT", "limits@openssh.com")  # the greeting, whenever it goes

Turn = Sequence[str]  # requests in any order: "OPEN", "posix-rename", ...


class Turns:
    """Holds replies back until the requests of their turn are there; at first, none."""

    def __init__(self, *turns: Turn) -> None:
        self._lock = threading.Lock()
        self.expect(*turns)

    def expect(self, *turns: Turn) -> None:
        """From here on these are the turns; what comes after them is answered at once."""
        with self._lock:
            self._turns = turns
            self._ends = list(accumulate(map(len, turns)))
            self._asked: list[str] = []
            self._numbers: dict[tuple[int, int], int] = {}  # (stream, request) -> which one it was
            self._held: list[tuple[int, Callable[[], None]]] = []

    def note(self, stream: int, request: Asked) -> None:
        """A request has come. What waited for it is answered."""
        with self._lock:
            self._numbers[stream, request.request_id] = len(self._asked)
            self._asked.append(request.kind.partition("@")[0])
            due = [answer for number, answer in self._held if self._is_due(number)]
            self._held = [held for held in self._held if not self._is_due(held[0])]
        for answer in due:
            answer()

    def answer(self, stream: int, request_id: int, answer: Callable[[], None]) -> None:
        """Answer a request, now or when its turn is complete."""
        with self._lock:
            number = self._numbers.get((stream, request_id))
            if number is not None and not self._is_due(number):
                self._held.append((number, answer))
                return
        answer()

    def _is_due(self, number: int) -> bool:
        end = next((end for end in self._ends if end > number), 0)
        return len(self._asked) >= end

    def check(self, besides: Sequence[Turn] = ()) -> None:
        """Assert that what came is what was said, and no more; besides: what may have come."""
        starts = [0, *self._ends]
        found = [self._asked[start:end] for start, end in pairwise(starts)]
        found.append(self._asked[starts[-1] :])
        wanted = [*map(sorted, self._turns), []]
        if found[-1] in besides:
            found[-1] = []
        assert list(map(sorted, found)) == wanted, f"{found} instead of {[*self._turns, []]}"


class TurnConnection(FaultConnection):
    """A FaultConnection that is so far away. `turns`: see the module's text."""

    def __init__(self, turns: Turns, fault: Fault = no_fault) -> None:
        super().__init__(fault)
        self.turns = turns

    def open_stream(self, opening: bytes) -> Stream:
        stream = _TurnStream(self._open_pipe(), self, self.turns)
        stream.send(opening)
        return stream


class _TurnStream(FaultStream):
    def __init__(self, pipe: PipeStream, connection: TurnConnection, turns: Turns) -> None:
        self._turns = turns
        super().__init__(pipe, connection)

    def _goes_through(self, request: Asked) -> bool:
        goes = super()._goes_through(request)
        if request.kind not in EXEMPT:
            self._turns.note(id(self), request)
        return goes

    def _deliver(self, packet: bytes, owed: int) -> None:
        self._turns.answer(id(self), frames.reply_id(packet), lambda: self._arrived.put(packet))
