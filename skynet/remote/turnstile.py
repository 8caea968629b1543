"""A turnstile: so much work under way at once, the rest in a queue."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from skynet.errors import LinkLost
from skynet.sftp.conversation import Work


class Turnstile:
    """Hands work to `submit`, at most `limit` pieces that have not ended."""

    def __init__(self, limit: int, submit: Callable[[Work], None]) -> None:
        self._limit = limit
        self._submit = submit
        self._waiting: deque[Work] = deque()
        self._inside = 0
        self._lock = threading.Lock()

    def add(self, work: Work) -> None:
        """Submit it now, or when its turn comes."""
        self._waiting.append(work)
        self._let_in()

    def _let_in(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._inside >= self._limit:
                    return
                self._inside += 1
                work = self._waiting.popleft()
            self._submit(self._watched(work))

    def _watched(self, work: Work) -> Work:
        def done(result: object, error: BaseException | None) -> None:
            work.done(result, error)
            if isinstance(error, LinkLost):
                return  # whoever waits for the others has this error now, and they cannot run
            with self._lock:
                self._inside -= 1
            self._let_in()

        return Work(work.conversation, done, work.weight)
