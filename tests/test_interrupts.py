"""Ctrl-C in the midst of an import waits until that is done, and is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
# Python runs this before all else; the hook is asked for each module that is looked for.
AS_THE_COMMAND_LOADS = """
import os, signal, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == "skynet.outlet":  # among the last that are needed
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hook())
"""


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


def test_an_interrupt_while_the_command_is_loaded_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(AS_THE_COMMAND_LOADS)
    ended = run(command_line("serve", tmp_path), tmp_path)  # which would go on for ever
    assert (ended.returncode, ended.stderr) == (130, "")


def test_who_ignores_the_signal_goes_on_doing_so(tmp_path: Path) -> None:
    code = "import signal; from skynet.interrupts import put_off; put_off(); "
    shown = "print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a child inherits
    try:
        ended = run([sys.executable, "-c", code + shown], tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.stdout == "True\n"


def test_what_is_to_be_whole_is_done_before_an_interrupt_counts() -> None:
    done = []

    @interrupts.whole
    def whole() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2 * interrupts.AGAIN)  # and the next one
        done.append(True)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.put_off()
        with pytest.raises(KeyboardInterrupt):
            whole()
            time.sleep(DEADLINE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done
