"""The line: a mirror's connection and the session over it, while there is one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from skynet.config import Mirror
from skynet.cycle import Surroundings
from skynet.errors import SkynetError
from skynet.memory import Memory
from skynet.remote import Intent, Remote
from skynet.scan import Root
from skynet.session import Session, opened


class Line:
    """Of one mirror. connect: to the remote. `cut` is for any thread, all else for one."""

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
        self._remote = self._connect_remote()
        return self._remote
