"""The daemon: a keeper for each mirror, and the signals that end them.

Mirrors know nothing of each other: each has a thread, a connection and a state directory of its
own. All state directories are claimed before the first keeper starts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NamedTuple

from skynet.config import Mirror
from skynet.errors import ExitCode, SkynetError
from skynet.keeper import Keeper, Means
from skynet.memory import claimed
from skynet.state import Lock
from skynet.status import Status

# All in seconds.
ABANDON_SECONDS = 3.0  # after being asked to end, connections are cut
END_SECONDS = 5.0  # and so much later than that request nothing is waited for
LOOK_SECONDS = 0.5


class Kept(NamedTuple):
    """A mirror and what its keeper needs."""

    mirror: Mirror
    means: Means


class Pulse(NamedTuple):
    """Who wants to know that all keepers run, what they do as the daemon lives, and why it ends."""

    ready: Callable[[], object] = lambda: None
    alive: Callable[[Sequence[Status]], object] = lambda _statuses: None
    stopping: Callable[[str], object] = lambda _why: None


def run(mirrors: Sequence[Kept], clock: Callable[[], float], pulse: Pulse) -> ExitCode:
    """Keep the mirrors until a signal comes: SIGTERM, or Ctrl-C. A second one exits at once.

    OwnedError names one of them, and the process that works on it already. Returns INTERRUPTED
    after Ctrl-C.
    """
    with ExitStack() as stack:
        keepers = [
            Keeper(mirror, stack.enter_context(_claimed(mirror)), means)
            for mirror, means in mirrors
        ]
        stop = stack.enter_context(_signals())
        threads = [
            threading.Thread(target=keeper.run, name=f"keeper-{number}", daemon=True)
            for number, keeper in enumerate(keepers)
        ]
        for thread in threads:
            thread.start()
        pulse.ready()
        while not stop.wait(LOOK_SECONDS) and any(thread.is_alive() for thread in threads):
            # One that has ended is told of elsewhere: the others are not to be killed for it.
            pulse.alive([keeper.status for keeper in keepers])
        pulse.stopping(_why(stop.number))
        code = _end(keepers, threads, clock)
        return ExitCode.INTERRUPTED if stop.number == signal.SIGINT else code


@contextmanager
def _claimed(mirror: Mirror) -> Iterator[Lock]:
    """As `claimed`, and an error names the mirror."""
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(claimed(mirror))
        except SkynetError as error:
            raise type(error)(f"{mirror.name}: {error}", error.code) from error
        yield lock


def _end(
    keepers: Sequence[Keeper], threads: Sequence[threading.Thread], clock: Callable[[], float]
) -> ExitCode:
    began = clock()
    for keeper in keepers:
        keeper.stop()
    _join(threads, began + ABANDON_SECONDS, clock)
    for keeper, thread in zip(keepers, threads, strict=True):
        if thread.is_alive():  # each on a thread of its own: on a stalled link even this may wait
            threading.Thread(target=keeper.abandon, name="abandon", daemon=True).start()
    _join(threads, began + END_SECONDS, clock)
    if any(keeper.has_failed for keeper in keepers):
        return ExitCode.PROBLEMS
    return ExitCode.IN_SYNC


def _why(number: int) -> str:
    return signal.Signals(number).name if number else "no mirror is kept any more"


def _join(threads: Sequence[threading.Thread], until: float, clock: Callable[[], float]) -> None:
    for thread in threads:
        thread.join(max(0.0, until - clock()))


class _Stop:
    """Whether the process is asked to end. number: of the signal that did, 0 before.

    A signal may come while `wait` holds any lock, so `ask` takes none: an Event would.
    """

    def __init__(self) -> None:
        self.number = 0
        self._bell: SimpleQueue[None] = SimpleQueue()  # its `put` is made for signal handlers

    def ask(self, number: int) -> None:
        """Ask it to end."""
        self.number = number
        self._bell.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait until the process is asked to end, or for so long; whether it is."""
        if not self.number:
            with suppress(Empty):
                self._bell.get(timeout=seconds)
        return self.number != 0


@contextmanager
def _signals() -> Iterator[_Stop]:
    """Where the signals arrive that ask the process to end; at a second one it is gone.

    One that is ignored already stays so: nohup and its like mean it.
    """
    stop = _Stop()

    def end(number: int, _frame: FrameType | None) -> None:
        if stop.number:
            os._exit(128 + number)
        stop.ask(number)

    names = ("SIGTERM", "SIGINT", "SIGBREAK", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
