"""Ctrl-C in the midst of an import waits until that is done, and is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skynet import interrupts
from tests.support.command import DEADLINE, command_line, environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

# It is interrupted while it is loaded, and takes long enough for the signal to have arrived.
INTERRUPTED = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.05)
print("loaded", flush=True)
"""
IMPORTS = """
import time
from skynet.interrupts import put_off
put_off()
try:
    import interrupted
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""
# An interrupt at every call that connecting early makes; the last one was never reached.
AT_EVERY_CALL = """
import signal, sys, threading, time
from types import SimpleNamespace
from skynet import commands, interrupts
from skynet.console import Face

interrupts.put_off()
commands._load = lambda face: time.sleep(0.01)
moment = 0
while True:
    moment += 1
    left = [moment]

    def trace(frame, what, argument):
        left[0] -= what in ("call", "return")  # when Python itself looks for signals
        if left[0] == 0:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)
        return trace

    try:
        sys.settrace(trace)
        with commands.early(lambda: SimpleNamespace(close=bool), Face(quiet=True)):
            sys.settrace(None)
        if left[0] > 0:
            break
        time.sleep(60)
    except KeyboardInterrupt:
        sys.settrace(None)
    assert "load" not in [thread.name for thread in threading.enumerate()], moment
print(moment)
"""
# Python runs this before all else; the hook is asked for each module that is looked for.
AS_THE_COMMAND_LOADS = """
import os, signal, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "skynet.outlet":  # among the last that are needed
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hook())
"""


@pytest.fixture
def usual() -> Iterator[None]:
    """SIGINT as Python has it at its start, whoever has changed it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(command: list[str], modules: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(modules), environment()["PYTHONPATH"]])
    return subprocess.run(
        command,
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_an_import_is_done_before_an_interrupt_counts(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    ended = run([sys.executable, "-c", IMPORTS], tmp_path)
    assert (ended.stdout, ended.stderr) == ("loaded\ninterrupted\n", "")


def test_who_loads_is_waited_for_wherever_an_interrupt_comes(tmp_path: Path) -> None:
    """Python crashes if a thread imports while it ends."""
    ended = run([sys.executable, "-c", AT_EVERY_CALL], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 10


def test_an_interrupt_while_the_command_is_loaded_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AS_THE_COMMAND_LOADS)
    ended = run(command_line("serve", tmp_path), tmp_path)  # which would go on for ever
    # Python kills itself if it was evaluating text, as an annotation; to a shell both are 130.
    assert ended.returncode in (130, -signal.SIGINT)
    assert ended.stderr == ""


def test_asyncio_finds_the_signal_as_it_wants_it(usual: None) -> None:
    interrupts.put_off()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    interrupts.as_usual()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_the_signal_goes_on_doing_so(tmp_path: Path) -> None:
    code = "import signal; from skynet.interrupts import put_off; put_off(); "
    shown = "print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a child inherits
    try:
        ended = run([sys.executable, "-c", code + shown], tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.stdout == "True\n"


def test_what_is_to_be_whole_is_done_before_an_interrupt_counts(usual: None) -> None:
    done = []

    @interrupts.whole
    def whole() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2 * interrupts.AGAIN)  # and the next one
        done.append(True)

    interrupts.put_off()
    with pytest.raises(KeyboardInterrupt):
        whole()
        time.sleep(DEADLINE)
    assert done
