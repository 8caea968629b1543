"""Real daemons that keep real directories on a real server, over a link that the test can break.

A Household is a skynet.toml with its mirrors and the process that keeps them. All waiting is
looking again and again, for DEADLINE seconds at most.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from skynet import config, history
from skynet.control import Command, Verb, ask, look
from skynet.history import Record
from skynet.memory import state_of
from skynet.status import Status
from tests.support.command import Result, command_line, environment, skynet, snapshot
from tests.support.link import Link, linked
from tests.support.sshd import Sshd, running_sshd

DEADLINE = 60.0  # seconds; far more than anything here needs
END_SECONDS = 30.0  # the daemon allows itself a sixth of that to end
LOOK_AGAIN = 0.02  # seconds

Outline = dict[bytes, tuple[int, int]]  # path -> size and whole seconds of the last change


def outline(directory: Path) -> Outline:
    """Size and time of all files below a directory but skynet's own, for looks that cost little."""
    found: Outline = {}
    root = os.fsencode(directory)
    for place, directories, files in os.walk(root):
        if place == root and b".skynet" in directories:
            directories.remove(b".skynet")
        for name in files:
            path = os.path.join(place, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            found[os.path.relpath(path, root)] = status.st_size, int(status.st_mtime)
    return found


@dataclass(frozen=True)
class Kept:
    """A mirror. state: its own directory below the state directory."""

    name: str
    source: Path
    target: Path
    state: Path

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write files, by path below the source."""
        for path, content in files.items():
            place = self.source / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    @property
    def status(self) -> Status | None:
        """What its daemon tells, if one lives."""
        return look(self.state).alive

    def is_in_sync(self) -> bool:
        """Whether the trees are the same, and the daemon knows it."""
        status = self.status
        return status is not None and status.is_in_sync and self.is_same()

    def is_settled(self) -> bool:
        """The same, to the byte and with all modes."""
        return self.is_in_sync() and snapshot(self.target) == snapshot(self.source)

    def is_same(self) -> bool:
        return outline(self.source) == outline(self.target)

    def is_state(self, state: str) -> bool:
        status = self.status
        return status is not None and status.state == state

    def is_held(self) -> bool:
        status = self.status
        return status is not None and status.held is not None

    def records(self) -> list[Record]:
        """Its history."""
        return history.read(self.state, 1000)

    def done(self, since: int = 0) -> dict[str, int]:
        """Operations that the history counts, from the record of that number on."""
        total: dict[str, int] = {}
        for record in self.records()[since:]:
            for kind, count in record.done.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def temps(self) -> list[Path]:
        """Files that an upload left behind on the remote."""
        return [path for path in (self.target / ".skynet" / "tmp").rglob("*") if path.is_file()]

    def trashed(self) -> dict[str, bytes]:
        """All files that were deleted on the remote, for they went to the trash."""
        trash = self.target / ".skynet" / "trash"
        files = [path for path in trash.rglob("*") if path.is_file()]
        return {str(Path(*file.relative_to(trash).parts[1:])): file.read_bytes() for file in files}

    def ask(self, verb: Verb, argument: str = "") -> None:
        """Give its daemon a command, which it obeys."""
        order = Command(verb, argument)
        ok, words = ask(self.state, order, clock=time.time, sleep=time.sleep, timeout=DEADLINE)
        assert ok, words


@dataclass
class Household:
    """A skynet.toml, its mirrors, and their daemon."""

    directory: Path
    server: Sshd
    link: Link
    mirrors: dict[str, Kept] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.directory / "skynet.toml"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def only(self) -> Kept:
        """The mirror, where there is one."""
        (kept,) = self.mirrors.values()
        return kept

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def log(self) -> str:
        """What all daemons have said so far."""
        path = self.directory / "daemon.log"
        return path.read_text() if path.exists() else ""

    def trust(self, key: str) -> None:
        """This is the key of the server behind the link: type and base64."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.link.port} {key}\n")

    def begin(self, *command: str) -> None:
        """Start the daemon, or another command that goes on."""
        words = command_line(*(command or ("daemon",)), "--config", self.config)
        with (self.directory / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                words, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End the daemon as a power cut would."""
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the daemon to end, which it does in time; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)

    def stop(self) -> None:
        """Whatever there is of a daemon ends."""
        if self._process is not None:
            self.kill()

    def run(self, *arguments: str | Path) -> Result:
        """Run a command about these mirrors to its end."""
        return skynet(*arguments, "--config", self.config)

    def until(self, condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
        """Wait until this is so. Fails when the daemon ends before, and after the deadline."""
        end = time.monotonic() + seconds
        while not condition():
            told = [(kept.status, kept.records()[-3:]) for kept in self.mirrors.values()]
            assert self.process.poll() is None, (self.process.returncode, self.log)
            assert time.monotonic() < end, ("waited in vain", told, self.log)
            time.sleep(LOOK_AGAIN)

    def synced(self) -> None:
        """Wait until all mirrors are in sync, and see that they are."""
        for kept in self.mirrors.values():
            self.until(kept.is_settled)
            assert kept.temps() == []

    def finish(self) -> None:
        """All mirrors are in sync, the daemon ends in order, and the next run finds no work."""
        self.synced()
        assert self.end() == 0, self.log
        assert "Traceback" not in self.log
        for kept in self.mirrors.values():
            assert not (kept.target / ".skynet" / "lease").exists()
        planned = self.run("plan", "--dry-run", "--json")
        result = self.run("sync", "--once", "--json")
        assert [(each["outcome"], each["mutations"]) for each in result.objects] == [
            ("in-sync", 0) for _ in self.mirrors
        ], (planned.out, result.out, self.log)


@contextmanager
def household(base: Path, *names: str, **settings: str) -> Iterator[Household]:
    """Mirrors on a server of their own, by way of a link. No daemon runs yet.

    settings: of all mirrors, as the configuration file has them.
    """
    with running_sshd(base / "sshd") as server, linked(lambda: server.port) as link:
        home = Household(base, server, link)
        home.trust(server.host_public_key)
        defaults = {
            "identity": f'"{server.client_key}"',
            "known_hosts": f'"{home.known_hosts}"',
            "state_dir": f'"{base / "state"}"',
            "empty_dirs": "true",
            "settle": "0.3",
        }
        lines = [f"{key} = {value}" for key, value in (defaults | settings).items()]
        for name in names or ("source",):
            url = f"sftp://{server.user}@127.0.0.1:{link.port}{base / name}-target"
            lines += [f"[mirror.{name}]", f'source = "{base / name}"', f'target = "{url}"']
            (base / name).mkdir()
        home.config.write_text("\n".join(["[defaults]", *lines, ""]))
        for mirror in config.load_mirrors(config.Options(config=home.config), {}, base):
            source, target = base / mirror.name, base / f"{mirror.name}-target"
            home.mirrors[mirror.name] = Kept(mirror.name, source, target, state_of(mirror))
        try:
            yield home
        finally:
            home.stop()
