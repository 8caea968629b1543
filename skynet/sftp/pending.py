"""What a channel has asked, and the server has not answered yet."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from skynet.sftp.conversation import Talk

# Who asked, and which of its requests it is; whether it closes a file; its bytes of content.
Asked = tuple[Talk, int, bool, int]


class Pending(dict[int, Asked]):
    """By request number, oldest first. Requests are added and taken away by several threads."""

    def __init__(self) -> None:
        super().__init__()
        self._oldest = -1
        self._answered = 0
        self._passed_over: float | None = None

    def take_all(self) -> Iterable[Talk]:
        """The conversations that wait; the reader may take some of them away yet.

        A request belongs to whoever pops it, so no conversation is both abandoned and resumed.
        """
        talks: dict[int, Talk] = {}
        while self:
            with suppress(KeyError):  # the reader popped the last one
                _, (talk, _, _, _) = self.popitem()
                talks[id(talk)] = talk
        return talks.values()

    def passed_over_for(self, now: float, asked: int) -> float:
        """Seconds that one request has waited while later ones were answered.

        To be called now and then, by one thread; what it has seen before is what it goes by. A
        server has read what was sent before a request that it has answered. asked: requests so
        far.
        """
        oldest, answered = self._first(), asked - len(self)
        if oldest != self._oldest:
            self._oldest, self._answered, self._passed_over = oldest, answered, None
        elif oldest >= 0 and self._passed_over is None and answered > self._answered:
            self._passed_over = now
        return 0.0 if self._passed_over is None else now - self._passed_over

    def _first(self) -> int:
        with suppress(RuntimeError):  # one was answered just now
            return next(iter(self), -1)
        return -1
