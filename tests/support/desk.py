"""What leases are tried at: a remote in memory, and a clock that only sleep moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skynet.lease import LEASE, Lease, unlock
from skynet.monitor import Event
from skynet.remote.verbs import OWN
from skynet.tree import join
from tests.support.memory import MemoryRemote

FULL_PATH = join(OWN, LEASE)
THEIRS = b"theirs elsewhere 5 0000000000\n"


class Desk:
    """A remote, a clock that only `sleep` moves, and what was told.

    meanwhile: what somebody else does during each second of sleep.
    """

    def __init__(self) -> None:
        self.remote = MemoryRemote({})
        self.remote.clock = lambda: self.now
        self.remote.prepare()
        self.remote.calls.clear()
        self.now = 1000.0
        self.events: list[Event] = []
        self.pid_space = "boot/pid:[1]"
        self.meanwhile: Callable[[], None] = lambda: None

    def lease(self, token: str = "me", mine: Mapping[str, bool] | None = None) -> Lease:
        return Lease(
            self.remote,
            token,
            pid_space=self.pid_space,
            clock=lambda: self.now,
            sleep=self.sleep,
            monitor=self.events.append,
            mine=mine,
        )

    def unlock(self, *, force: bool = False) -> str:
        return unlock(
            self.remote,
            "unlocker",
            force=force,
            pid_space=self.pid_space,
            clock=lambda: self.now,
            sleep=self.sleep,
            monitor=self.events.append,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()

    def left_behind(self, host: str = "elsewhere", pid: int = 1, pid_space: str = "") -> bytes:
        """A lease of a holder that is somewhere else; what the file says."""
        content = f"token {host} {pid} {7:010d} {pid_space}\n".encode()
        assert self.remote.create(LEASE, content)
        return content

    def steal(self) -> None:
        """Somebody else takes the lease over."""
        self.remote.remove(LEASE)
        self.remote.create(LEASE, THEIRS)

    @property
    def content(self) -> bytes | None:
        return self.remote.data.get(FULL_PATH)
