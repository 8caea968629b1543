"""A real OpenSSH server on loopback, with its own keys, configuration and home for tests.

`running_sshd(directory)` starts one and stops it with everything it started. Without OpenSSH on
the machine the test is skipped, unless SKYNET_REQUIRE_SERVERS=1 asks for a failure instead.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from skynet.sftp.connect import Endpoint

START_SECONDS = 30.0
SEARCH_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"]
)

CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {host_key}
AuthorizedKeysFile {authorized_keys}
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin yes
MaxStartups 100
LogLevel VERBOSE
"""


def find_program(name: str) -> str:
    """The path of a program of OpenSSH; skips the test, or fails it, when there is none."""
    found = shutil.which(name, path=SEARCH_PATH)
    if found is None:
        missing = f"{name} is not installed (Debian: apt-get install openssh-server)"
        if os.environ.get("SKYNET_REQUIRE_SERVERS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def make_key(path: Path, *options: str, passphrase: str = "") -> Path:
    """Generate a key pair with ssh-keygen; ed25519 unless the options say otherwise."""
    kind = () if "-t" in options else ("-t", "ed25519")
    keygen = find_program("ssh-keygen")
    command = [keygen, "-q", *kind, *options, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd:
    """A running sshd. Files live in `directory`; `home` is an empty place for targets."""

    def __init__(self, directory: Path, extra: Sequence[str], subsystem: str | None) -> None:
        self._program = find_program("sshd")
        self.directory = directory
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self.client_key = make_key(directory / "client_key")
        self.host_key = make_key(directory / "host_key")
        self.authorized_keys = directory / "authorized_keys"
        shutil.copyfile(f"{self.client_key}.pub", self.authorized_keys)
        self.known_hosts = directory / "known_hosts"
        self.ssh_config = directory / "ssh_config"
        self.ssh_config.write_text("")
        self._log = directory / "sshd.log"
        self._extra = list(extra) + ([f"Subsystem sftp {subsystem}"] if subsystem else [])
        self.user = getpass.getuser()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def host_public_key(self) -> str:
        """Type and base64 of the host key, as they stand in known_hosts."""
        return " ".join(Path(f"{self.host_key}.pub").read_text().split()[:2])

    @property
    def name(self) -> str:
        """The server's name in known_hosts."""
        return f"[127.0.0.1]:{self.port}"

    def endpoint(self, **over: Any) -> Endpoint:
        """An endpoint that logs in with the client key and reads nothing of the real user's."""
        settings: dict[str, Any] = {
            "host": "127.0.0.1",
            "user": self.user,
            "port": self.port,
            "identity": self.client_key,
            "known_hosts": self.known_hosts,
            "ssh_config": self.ssh_config,
        }
        return Endpoint(**(settings | over))

    def url(self, path: str | Path = "") -> str:
        """The sftp:// URL of a directory on the server; `home` when none is given."""
        return f"sftp://{self.user}@127.0.0.1:{self.port}{path or self.home}"

    def start(self) -> None:
        """Start listening; another process may take the port first, so try a few."""
        for _ in range(5):
            self.port = free_port()
            self._write_config()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [self._program, "-D", "-e", "-f", str(self.directory / "sshd_config")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            if self._answers():
                return
            self.stop()
        pytest.fail(f"sshd did not start:\n{self.log}")

    def children(self) -> list[int]:
        """Processes below the one that listens: its sessions and what they run."""
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True
        ).stdout
        pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
        found: list[int] = []
        wanted = {self.pid}
        while wanted:
            wanted = {pid for pid, parent in pairs if parent in wanted}
            found += sorted(wanted)
        return found

    def kill_sessions(self) -> None:
        """End every session at once, as a crash of the server would."""
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop listening and end every session."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self.kill_sessions()
            self._process.terminate()
        self._process.wait(START_SECONDS)
        self._process = None

    def _write_config(self) -> None:
        text = CONFIG.format(
            port=self.port, host_key=self.host_key, authorized_keys=self.authorized_keys
        )
        path = self.directory / "sshd_config"
        # The first of two settings wins, so the extra ones stand before ours.
        path.write_text("\n".join([*self._extra, text]))
        self.known_hosts.write_text(f"{self.name} {self.host_public_key}\n")

    def _answers(self) -> bool:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            # What answers before it says so may be another one, to which it has lost the port.
            if f"Server listening on 127.0.0.1 port {self.port}." in self.log:
                return True
            time.sleep(0.01)
        return False


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running_sshd(
    directory: Path, *extra: str, subsystem: str | None = "internal-sftp"
) -> Iterator[Sshd]:
    """A server for the length of a test. `extra` are lines of sshd_config, which win over ours."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # sshd started by root refuses to run without its directory of privilege separation.
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    server = Sshd(directory, extra, subsystem)
    server.start()
    try:
        yield server
    finally:
        server.stop()
