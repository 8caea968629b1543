"""The side of a daemon that others see, played by the test itself: lock, status and mailbox."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from skynet import config
from skynet.control import COMMANDS, Command, Mailbox
from skynet.state import directory_for, locked, make_private
from skynet.status import write_status
from tests.support.statuses import status

Obey = Callable[[Command], tuple[bool, str]]


def state_of(name: str, work: Path) -> Path:
    """The state directory of a mirror of the skynet.toml in `work`; it is made."""
    [mirror] = config.load_mirrors(config.Options((name,)), {}, work)
    state = directory_for(mirror.state_dir, mirror.source, str(mirror.target))
    make_private(state)
    return state


class Daemon:
    """A daemon of one mirror, in this process. asked: the commands that it took."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.asked: list[Command] = []

    def tell(self, **changes: Any) -> None:
        """Write a status that differs so from one of a daemon at rest; its times are now."""
        now = time.time()
        times = {"since": now, "updated": now, "last_sync": now}
        write_status(self._state, status(pid=os.getpid(), **(times | changes)))

    @contextlib.contextmanager
    def obeying(self, obey: Obey) -> Iterator[None]:
        """Take commands and answer them, in a thread."""
        mailbox = Mailbox(self._state / COMMANDS)
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(0.01):
                for name, command in mailbox.take():
                    self.asked.append(command)
                    ok, words = obey(command)
                    mailbox.answer(name, words, ok=ok)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextlib.contextmanager
def daemon(state: Path) -> Iterator[Daemon]:
    """A daemon that lives as long as the block. Its last status stays, as when it is killed."""
    with locked(state):
        yield Daemon(state)
