"""Waits that end: a call with a deadline, and a deadline that closes what it guards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class _Call(threading.Thread, Generic[T]):
    """One call on a thread of its own; what comes after it was given up goes to `discard`."""

    def __init__(self, function: Callable[[], T], discard: Callable[[T], None]) -> None:
        super().__init__(daemon=True, name="skynet-bounded-call")
        self._function = function
        self._discard = discard
        self._lock = threading.Lock()
        self._given_up = False
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            self._error = error
            return
        with self._lock:
            if not self._given_up:
                self._result.append(result)
                return
        self._discard(result)

    def result(self, seconds: float) -> T:
        """What the call gave. TimeoutError when `seconds` pass first; raises what it raised."""
        self.join(seconds)
        if self._error is not None:
            raise self._error
        with self._lock:
            self._given_up = not self._result
        if self._given_up:
            raise TimeoutError
        return self._result[0]


def bounded(
    function: Callable[[], T], seconds: float, discard: Callable[[T], None] = lambda _: None
) -> T:
    """Call `function`, which cannot be interrupted, for at most `seconds`; else TimeoutError.

    A call that was given up goes on in a daemon thread; its late result goes to `discard`.
    """
    call = _Call(function, discard)
    call.start()
    return call.result(seconds)


class Deadline:
    """Calls `expire` from its own thread once `seconds` have passed without stop or restart."""

    def __init__(self, seconds: float, expire: Callable[[], None]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._timer: threading.Timer | None = None
        self.expired = False

    def restart(self) -> None:
        """Give the next phase the whole time again."""
        self.stop()
        self._timer = threading.Timer(self._seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Never expire, unless restarted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while a person is asked; the whole time starts afterwards."""
        self.stop()
        try:
            yield
        finally:
            self.restart()

    def _end(self) -> None:
        self.expired = True
        self._expire()
