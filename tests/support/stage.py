"""Several who act at the same time, one step at a time, in an order that a test chooses.

Each runs on a thread of its own, and only one of them at once: it goes on until it calls `pause`
or `sleep`. Time passes only when all are asleep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

DEADLINE = 60.0  # seconds for one step


class _Actor:
    def __init__(self, act: Callable[[], None]) -> None:
        self.turn = threading.Semaphore(0)
        self.wakes_at = 0.0
        self.has_ended = False
        self.error: BaseException | None = None
        self.act = act


class _Over(BaseException):
    """Ends a thread whose play was broken off."""


class Stage:
    """choose(n): which of n that are ready does the next step. now: seconds."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.now = 0.0
        self._choose = choose
        self._actors: list[_Actor] = []
        self._present: _Actor | None = None
        self._stepped = threading.Semaphore(0)
        self._is_over = False

    def add(self, act: Callable[[], None]) -> None:
        self._actors.append(_Actor(act))

    def pause(self) -> None:
        """Let others do something first."""
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        actor = self._present
        if actor is None:
            return  # before the play
        actor.wakes_at = self.now + seconds
        self._stepped.release()
        self._await_turn(actor)

    def run(self) -> None:
        """Let all act to their end; the first error of one is raised."""
        for actor in self._actors:
            threading.Thread(target=self._play, args=(actor,), daemon=True).start()
        try:
            self._direct()
        finally:
            self._is_over = True
            for actor in self._actors:
                actor.turn.release()

    def _direct(self) -> None:
        while waiting := [actor for actor in self._actors if not actor.has_ended]:
            self.now = max(self.now, min(actor.wakes_at for actor in waiting))
            ready = [actor for actor in waiting if actor.wakes_at <= self.now]
            self._present = ready[self._choose(len(ready))]
            self._present.turn.release()
            assert self._stepped.acquire(timeout=DEADLINE)
            if self._present.error is not None:
                raise self._present.error

    def _play(self, actor: _Actor) -> None:
        try:
            self._await_turn(actor)
            actor.act()
        except _Over:
            return
        except Exception as error:  # noqa: BLE001  raised by run
            actor.error = error
        actor.has_ended = True
        self._stepped.release()

    def _await_turn(self, actor: _Actor) -> None:
        assert actor.turn.acquire(timeout=DEADLINE)
        if self._is_over:
            raise _Over
