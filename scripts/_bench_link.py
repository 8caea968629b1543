"""A private sshd on loopback for scripts/bench, and links of chosen delay that lead to it.

Linux only: the delay proxy and the look at the server's processes are.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from _bench_work import BenchError

START_SECONDS = 10.0
STOP_SECONDS = 10.0
COMPILE_SECONDS = 120.0
START_ATTEMPTS = 5
POLL_SECONDS = 0.01
SYSTEM_PROGRAMS = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # often not in the PATH of a user
PROXY_SOURCE = Path(__file__).with_name("latency_proxy.c")

# Sessions per connection and everything else that bears on speed stay at OpenSSH's defaults.
SSHD_CONFIG = """\
ListenAddress 127.0.0.1:{port}
ListenAddress 127.0.0.1:{counted}
HostKey "{directory}/host_key"
AuthorizedKeysFile "{directory}/client_key.pub"
Subsystem sftp internal-sftp
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
PrintLastLog no
MaxStartups 1000
LogLevel ERROR
Match LocalPort {counted}
    ForceCommand "{directory}/counted"
"""
# An sftp-server at a port of its own that notes what it is asked, a little slower for it.
COUNTED = """\
#!/bin/sh
exec "{program}" -e -l DEBUG3 2>> "{log}"
"""
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
)
REQUEST = re.compile(rb"request \d+: (?!sent )")


class Link(NamedTuple):
    """A way to the server: a port on loopback, and the bytes that have gone both ways so far.

    moved returns None where they cannot be counted.
    """

    port: int
    moved: Callable[[], int | None]


def find_program(name: str, package: str) -> str:
    """Where the program is; BenchError naming the package that has it when it is nowhere."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SYSTEM_PROGRAMS])
    found = shutil.which(name, path=path)
    if found is None:
        raise BenchError(
            f"{name} is not installed. On Debian: sudo apt-get install {package}; "
            "other systems have it under a similar name."
        )
    return found


class Network:
    """The server and its links. Everything it starts ends with the `with` block."""

    def __init__(self, directory: Path) -> None:
        """Files go into `directory`, which must be empty."""
        self.user = getpass.getuser()
        self.client_key = directory / "client_key"
        self.known_hosts = directory / "known_hosts"
        self._directory = directory
        self._cleanup = contextlib.ExitStack()
        self._links: dict[tuple[int, bool], Link] = {}
        self._requests = directory / "requests.log"
        self._read = self._counted_requests = 0
        self._proxy_program: Path | None = None
        self._sshd: subprocess.Popen[bytes]
        self._port = self._counted_port = 0

    def __enter__(self) -> Network:
        with contextlib.ExitStack() as cleanup:
            self._make_keys()
            self._start(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def link(self, rtt_ms: int, is_counted: bool = False) -> Link:
        """The link with this round trip; 0 goes straight to the server. Raises BenchError.

        is_counted: for SFTP alone, where `requests` counts.
        """
        if (rtt_ms, is_counted) not in self._links:
            port = self._counted_port if is_counted else self._port
            link = self._delayed(port, rtt_ms) if rtt_ms else Link(port, _loopback_bytes)
            self._links[rtt_ms, is_counted] = link
            key = " ".join((self._directory / "host_key.pub").read_text().split()[:2])
            with self.known_hosts.open("a") as file:
                file.write(f"[127.0.0.1]:{link.port} {key}\n")
        return self._links[rtt_ms, is_counted]

    def requests(self) -> int:
        """How many SFTP requests have come by counted links so far."""
        if self._requests.exists():
            with self._requests.open("rb") as log:
                log.seek(self._read)
                for line in log:
                    self._counted_requests += REQUEST.search(line) is not None
                self._read = log.tell()
        return self._counted_requests

    def settle(self) -> None:
        """Wait until the server has no session left; one that will not end is killed.

        So no session of one run writes into the next. Raises BenchError when even that fails.
        """
        if self._has_sessions(STOP_SECONDS):
            _kill(descendants(self._sshd.pid))
            if self._has_sessions(STOP_SECONDS):
                raise BenchError("A session of sshd cannot be ended. Is the disk stuck?")

    def _has_sessions(self, seconds: float) -> bool:
        """Whether there are sessions still when so much time has passed."""
        end = time.monotonic() + seconds
        while descendants(self._sshd.pid):
            if time.monotonic() > end:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _make_keys(self) -> None:
        keygen = find_program("ssh-keygen", "openssh-client")
        for name in ("host_key", "client_key"):
            options = ["-q", "-t", "ed25519", "-N", "", "-C", "bench"]
            command = [keygen, *options, "-f", str(self._directory / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=START_SECONDS)

    def _start(self, cleanup: contextlib.ExitStack) -> None:
        """Start sshd; another process may take its port first, so it gets a few attempts."""
        program = find_program("sshd", "openssh-server")
        if os.geteuid() == 0:
            # sshd started by root refuses to run without its directory of privilege separation.
            Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        log = self._directory / "sshd.log"
        for _ in range(START_ATTEMPTS):
            self._port, self._counted_port = free_port(), free_port()
            self._sshd = cleanup.enter_context(self._running_sshd(program, log))
            if _greets(self._sshd, self._port):
                return
        raise BenchError(f"sshd did not start: {log.read_text(errors='replace').strip()}")

    @contextlib.contextmanager
    def _running_sshd(self, program: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        config = self._directory / "sshd_config"
        ports = {"port": self._port, "counted": self._counted_port}
        config.write_text(SSHD_CONFIG.format(**ports, directory=self._directory))
        server = next(filter(os.path.exists, SFTP_SERVERS), SFTP_SERVERS[0])
        counted = self._directory / "counted"
        counted.write_text(COUNTED.format(program=server, log=self._requests))
        counted.chmod(0o755)
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the bench, which then stops it in order
            )
        try:
            yield process
        finally:
            _kill(descendants(process.pid))
            _stop(process)

    def _delayed(self, server_port: int, rtt_ms: int) -> Link:
        self._proxy_program = self._proxy_program or _compile_proxy(self._directory)
        command = [str(self._proxy_program), "0", str(server_port), str(rtt_ms)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._cleanup.callback(_stop, process)
        (port,) = _numbers(process, 1)

        def moved() -> int:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            return sum(_numbers(process, 2))

        return Link(port, moved)


def free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """The running processes below `pid`, children first."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            # A process may end while it is looked at; it is then of no interest.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found: list[int] = []
    wanted = {pid}
    while wanted:
        wanted = {child for child, parent in parents.items() if parent in wanted}
        found += sorted(wanted)
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_SECONDS)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _greets(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the process answers at the port as an SSH server, in time."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1) as sock,
        ):
            return sock.recv(4) == b"SSH-"
        time.sleep(POLL_SECONDS)
    return False


def _compile_proxy(directory: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError(
            "This item needs a slow link, whose proxy has to be compiled, and there is no C "
            "compiler (cc). Install one (Debian: sudo apt-get install gcc libc6-dev), or name only "
            "items without a delay: see --help."
        )
    program = directory / "latency_proxy"
    command = [compiler, "-O2", "-o", str(program), str(PROXY_SOURCE)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
    )
    if done.returncode:
        raise BenchError(f"{PROXY_SOURCE.name} does not compile:\n{done.stderr.strip()}")
    return program


def _numbers(process: subprocess.Popen[bytes], count: int) -> list[int]:
    """The next line of the proxy, which holds so many numbers. Raises BenchError."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    words = process.stdout.readline().split() if ready else []
    if len(words) != count:
        raise BenchError("The delay proxy gave no answer; it must have failed. See above.")
    return [int(word) for word in words]


def _loopback_bytes() -> int | None:
    """All bytes that the loopback interface has carried, packet headers included."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return int(fields.split()[0])
    return None
