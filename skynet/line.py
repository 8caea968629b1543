"""The line: a mirror's connection and the session over it, while there is one.

A server that cannot be reached, or is silent, may be waited for a minute, again and again. So that
goes on aside, and whoever waits does what is due every moment, as in a cycle.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from typing import TypeVar

from skynet.config import Mirror
from skynet.cycle import Surroundings
from skynet.errors import SkynetError
from skynet.memory import Memory
from skynet.remote import Intent, Remote
from skynet.scan import Root
from skynet.session import Session, opened

LOOK_SECONDS = 0.5

T = TypeVar("T")


class Line:
    """Of one mirror. connect: to the remote. `cut` is for any thread, all else for one.

    around.check is called while the server is waited for; what it raises ends that.
    """

    def __init__(self, mirror: Mirror, connect: Callable[[], Remote], around: Surroundings) -> None:
        self._mirror = mirror
        self._connect_remote = connect
        self._around = around
        self._remote: Remote | None = None
        self._opened: AbstractContextManager[Session] | None = None
        self._tokens: dict[str, bool] = {}  # of all leases that this process has had there
        self.session: Session | None = None

    def open(self, memory: Memory) -> None:
        """Begin a session; SkynetError if that cannot be."""
        root = Root(self._mirror.source, self._around.now_ns)
        around = self._around
        opening = opened(self._mirror, root, memory, self._connect, around, self._tokens)
        self.session = opening.__enter__()
        self._opened = opening

    def keep_alive(self) -> None:
        """Session.keep_alive, if there is one; who is not to wait any longer has no link then."""
        if self.session is not None:
            _meanwhile(self.session.keep_alive, self._around.check, lambda _ended: self.cut())

    def leave(self, error: BaseException | None) -> None:
        """End the session, if there is one; in order, if no error did."""
        ending, self._opened, self.session = self._opened, None, None
        try:
            if ending is not None and error is None:
                ending.__exit__(None, None, None)
            elif ending is not None and error is not None:
                ending.__exit__(type(error), error, error.__traceback__)
        except SkynetError:  # what ended it is told already, and nothing is left to do
            return
        finally:
            self._remote = None

    def cut(self) -> None:
        """Let whoever waits for the server wait no longer."""
        remote = self._remote
        if remote is not None:
            remote.close()

    def unfinished(self) -> dict[bytes, Intent]:
        """Large uploads, and how far they are."""
        return self._remote.unfinished() if self._remote is not None else {}

    def _connect(self) -> Remote:
        self._remote = _meanwhile(self._connect_remote, self._around.check, _hang_up)
        return self._remote


def _meanwhile(
    call: Callable[[], T], check: Callable[[], None], give_up: Callable[[Future[T]], None]
) -> T:
    """What `call` gives or raises. give_up: is told of it if `check` raises before it ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="line", daemon=True).start()
    try:
        while not wait([future], LOOK_SECONDS).done:
            check()
    except BaseException:
        give_up(future)
        raise
    return future.result()


def _hang_up(connecting: Future[Remote]) -> None:
    """A connection that comes too late is closed."""

    def close(connected: Future[Remote]) -> None:
        if connected.exception() is None:
            connected.result().close()

    connecting.add_done_callback(close)
