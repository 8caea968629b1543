"""The command `skynet` as a subprocess, as a person or a script runs it.

The home directory and everything else of the environment is the test's (see conftest.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.sshd import Sshd

REPOSITORY = Path(__file__).parents[2]
DEADLINE = 60.0  # seconds; far more than any of these runs needs


@dataclass(frozen=True)
class Result:
    """How a run ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as JSON, one object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the only JSON object."""
        (only,) = self.objects
        return only

    @property
    def text(self) -> str:
        """All that was said, to standard output and to standard error."""
        return self.out + self.err


def command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "skynet", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, from which the command can be run anywhere."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", **more}


def skynet(
    *arguments: str | Path,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    before: Sequence[str] = (),
) -> Result:
    """Run the command to its end. before: a program with its options that runs it for us."""
    done = subprocess.run(
        [*before, *command_line(*arguments)],
        env=environment(**(environ or {})),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in result.text, result.text
    return result


@contextlib.contextmanager
def running(*arguments: str | Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command while it runs; it is killed at the end of the block."""
    process = subprocess.Popen(
        command_line(*arguments),
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[bytes]) -> Result:
    """Wait until a run ends by itself."""
    out, err = process.communicate(timeout=DEADLINE)
    return Result(process.returncode, out.decode(), err.decode())


@contextlib.contextmanager
def serving(directory: Path, *arguments: str | Path, **environ: str) -> Iterator[dict[str, Any]]:
    """A `skynet serve`; yields what it announces. Its own interrupt ends it, with exit code 130."""
    process = subprocess.Popen(
        command_line("serve", directory, "--json", *arguments),
        env=environment(**environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, finish(process).err
            yield json.loads(line)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until the condition holds; fails if the process ends first, or after DEADLINE."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def bound_by_modes() -> list[str]:
    """What to put before a command so that permissions hold for it, as they do not for root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root may read everything: run this test as another user, or install setpriv")
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search"]


# What a run is about, and what it left on the disk.


@dataclass(frozen=True)
class Site:
    """A source and a target on a running sshd, with the options that lead from one to the other."""

    server: Sshd
    source: Path
    target: Path

    def options(self) -> list[str | Path]:
        return [
            *("--source", self.source, "--target", self.server.url(self.target)),
            *("--identity", self.server.client_key, "--known-hosts", self.server.known_hosts),
        ]

    def sync(self, *more: str | Path, **environ: str) -> Result:
        return skynet("sync", "--once", *self.options(), *more, environ=environ)

    def plan(self, *more: str | Path, **environ: str) -> Result:
        return skynet("plan", "--dry-run", *self.options(), *more, environ=environ)


def make_site(server: Sshd, directory: Path) -> Site:
    """A source with a few files in it; the target is not there yet."""
    source = directory / "source"
    (source / "sub").mkdir(parents=True)
    (source / "one.txt").write_bytes(b"one")
    (source / "sub" / "two.txt").write_bytes(b"two two")
    return Site(server, source, directory / "target")


Snapshot = dict[bytes, tuple[int, int | None, bytes]]


def snapshot(directory: Path) -> Snapshot:
    """Everything below a directory but skynet's own: mode, mtime in seconds, and content.

    Links have their target as content; times are those of files only, as the mirror keeps them.
    """
    found: Snapshot = {}
    root = os.fsencode(directory)
    for place, directories, files in os.walk(root):
        if place == root and b".skynet" in directories:
            directories.remove(b".skynet")
        for name in [*directories, *files]:
            path = os.path.join(place, name)
            found[os.path.relpath(path, root)] = _state(path)
    return found


def _state(path: bytes) -> tuple[int, int | None, bytes]:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return stat.S_IFLNK, None, os.readlink(path)
    if not stat.S_ISREG(status.st_mode):
        return status.st_mode, None, b""
    with open(path, "rb") as file:
        return status.st_mode, int(status.st_mtime), file.read()
