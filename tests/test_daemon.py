"""The daemon's own part: signals, signs of life, and ending many keepers at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any

import pytest

from skynet import daemon as room
from skynet.daemon import Pulse, run
from skynet.errors import ExitCode

DEADLINE = 60.0  # seconds, after which a test fails that would else never end
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals between processes")

# A signal at every line that waiting runs through; the last one was never reached.
AT_EVERY_LINE = """
import signal, sys
from skynet.daemon import _signals

moment = 0
while True:
    moment += 1
    left = [moment]

    def trace(frame, what, argument):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGTERM)
        return trace

    with _signals() as stop:
        sys.settrace(trace)
        stop.wait(0.001)
        sys.settrace(None)
        if left[0] > 0:
            break
        assert stop.wait(0.001)
        assert stop.number == signal.SIGTERM
print(moment)
"""
IGNORED = """
import os, signal, sys
from skynet.daemon import _signals

with _signals() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(30)
assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
"""


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, check=False, **options
    )


def test_a_signal_may_come_at_any_moment_of_waiting() -> None:
    done = python(AT_EVERY_LINE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


@posix_only
def test_a_second_signal_ends_it_at_once() -> None:
    twice = "signal.raise_signal(signal.SIGTERM); " * 2
    done = python(f"import signal; from skynet.daemon import _signals\nwith _signals(): {twice}")
    assert done.returncode == 128 + signal.SIGTERM


@posix_only
def test_a_signal_that_is_ignored_for_us_stays_so() -> None:
    done = python(IGNORED, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert done.returncode == 0, done.stderr


class Crowd:
    """Keepers that do what `lives` say, each with itself as argument."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *lives: Callable[[FakeKeeper], None]
    ) -> None:
        waiting = list(lives)
        self.keepers: list[FakeKeeper] = []

        def keeper(*_: object) -> FakeKeeper:
            self.keepers.append(FakeKeeper(waiting.pop(0)))
            return self.keepers[-1]

        monkeypatch.setattr(room, "Keeper", keeper)
        monkeypatch.setattr(room, "claimed", nullcontext)
        monkeypatch.setattr(room, "LOOK_SECONDS", 0.001)
        self._count = len(lives)

    def run(self, clock: Callable[[], float] = time.monotonic, pulse: Pulse | None = None) -> int:
        kept: Any = [(None, None)] * self._count
        return run(kept, clock, pulse or Pulse())


class FakeKeeper:
    """As a Keeper, for the daemon."""

    def __init__(self, live: Callable[[FakeKeeper], None]) -> None:
        self._live = live
        self.asked = threading.Event()
        self.has_failed = False
        self.status = "a status"
        self.abandon: Callable[[], object] = lambda: None

    def run(self) -> None:
        self._live(self)

    def stop(self) -> None:
        self.asked.set()


def fail(keeper: FakeKeeper) -> None:
    keeper.has_failed = True


def live(keeper: FakeKeeper) -> None:
    keeper.asked.wait(DEADLINE)


def test_one_that_has_ended_does_not_keep_the_daemon_from_its_signs_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crowd = Crowd(monkeypatch, fail, live, live)
    seen: list[int] = []

    def alive(statuses: Sequence[object]) -> None:
        if crowd.keepers[0].has_failed:
            seen.append(len(statuses))
            if len(seen) == 5:
                for keeper in crowd.keepers:
                    keeper.stop()

    assert crowd.run(pulse=Pulse(alive=alive)) == ExitCode.PROBLEMS
    assert seen[:5] == [3] * 5


def test_when_all_have_ended_the_daemon_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    assert Crowd(monkeypatch, fail, fail).run(pulse=Pulse(stopping=told.append)) == 1
    assert told == ["no mirror is kept any more"]


def test_a_daemon_that_is_asked_to_end_says_by_what(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    pulse = Pulse(alive=lambda _: signal.raise_signal(signal.SIGTERM), stopping=told.append)
    assert Crowd(monkeypatch, live).run(pulse=pulse) == ExitCode.IN_SYNC
    assert told == ["SIGTERM"]


def test_all_are_abandoned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4)
    hurry = count(0.0, 100.0)  # each look at this clock shows that it is too late

    def hang(keeper: FakeKeeper) -> None:
        keeper.abandon = lambda: together.wait(DEADLINE / 2)
        keeper.asked.wait(DEADLINE)
        ended.wait(DEADLINE)

    ended = threading.Event()
    crowd = Crowd(monkeypatch, hang, hang, hang)
    pulse = Pulse(alive=lambda _: signal.raise_signal(signal.SIGTERM))
    try:
        assert crowd.run(lambda: next(hurry), pulse) == ExitCode.IN_SYNC
        together.wait(DEADLINE / 2)  # raises if they did not come together
    finally:
        ended.set()
