"""The way to a server: a TCP connection to the first address that answers, or a ProxyCommand.

Nothing here speaks SSH. Every error is a ConnectError that names the host and says why.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from skynet.errors import ConfigError, ConnectError
from skynet.sftp.waits import bounded

# A dead peer is noticed after this long without an answer to bytes that were sent.
DEAD_PEER_SECONDS = 60
# How much of what a ProxyCommand says on stderr is kept for the error message.
COMPLAINT_BYTES = 1024
REAP_SECONDS = 2.0

Address = tuple[Any, ...]


def one_line(text: str | bytes, limit: int = 100) -> str:
    """`text` from outside, fit for a message: one line, no control characters, at most `limit`."""
    if isinstance(text, bytes):
        text = text[: limit * 4].decode("utf-8", "replace")
    shown = "".join(char if char.isprintable() else " " for char in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def dial(
    host: str,
    port: int,
    seconds: float,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    clock: Callable[[], float] = time.monotonic,
) -> socket.socket:
    """Connect to the first address of `host` that answers, within `seconds` in all.

    Raises ConnectError with code name-not-found, refused, unreachable or timeout.
    """
    end = clock() + seconds
    addresses = _resolve(host, port, seconds, family)
    failures: list[OSError] = []
    for position, (kind, address) in enumerate(addresses):
        # An address that swallows packets must leave time for those after it.
        share = max(end - clock(), 0.05) / (len(addresses) - position)
        try:
            return _connect(kind, address, share)
        except OSError as error:
            failures.append(error)
    raise _explain(host, port, failures)


def _resolve(
    host: str, port: int, seconds: float, family: socket.AddressFamily
) -> list[tuple[socket.AddressFamily, Address]]:
    """The addresses of `host`, in the order the system prefers, each once."""
    try:
        found = bounded(lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM), seconds)
    except TimeoutError as error:
        raise ConnectError(
            f"looking up {host!r} took longer than {seconds:g} s. Check the name server.",
            "timeout",
        ) from error
    except (OSError, UnicodeError) as error:
        raise ConnectError(
            f"the host name {host!r} was not found ({_reason(error)}). Check its spelling, "
            "the network and the name server.",
            "name-not-found",
        ) from error
    return list(dict.fromkeys((info[0], tuple(info[4])) for info in found))


def _connect(family: socket.AddressFamily, address: Address, seconds: float) -> socket.socket:
    """A tuned TCP connection to one address; OSError when there is none within `seconds`."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
        _tune(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _tune(sock: socket.socket) -> None:
    """Send small packets at once, and notice a peer that is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    if user_timeout is not None:
        sock.setsockopt(socket.IPPROTO_TCP, user_timeout, DEAD_PEER_SECONDS * 1000)


def _explain(host: str, port: int, failures: list[OSError]) -> ConnectError:
    """The error for the most telling failure: a refusal tells more than silence."""
    where = f"{host} port {port}"
    if any(isinstance(error, ConnectionRefusedError) for error in failures):
        return ConnectError(
            f"{where} refused the connection. Check the port, and that an SSH server runs there.",
            "refused",
        )
    if any(isinstance(error, TimeoutError) for error in failures):
        return ConnectError(
            f"{where} did not answer in time. Check the address, the port and the firewalls "
            "between.",
            "timeout",
        )
    why = _reason(failures[-1]) if failures else "it has no address"
    return ConnectError(
        f"{where} cannot be reached ({why}). Check the network and the address.", "unreachable"
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def dial_agent(path: str, seconds: float) -> socket.socket:
    """Connect to the SSH agent at a Unix socket; OSError when none answers there."""
    if sys.platform == "win32":
        raise OSError("no agent has a socket here")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


class ProxyProcess:
    """A ProxyCommand: a program whose stdin and stdout carry the connection.

    It is run without a shell. `sock` is our end; it behaves like a TCP socket.
    """

    def __init__(self, command: str) -> None:
        if os.name != "posix":
            raise ConfigError(
                "ProxyCommand is not supported on this system. Use ProxyJump in ssh_config.",
                "ssh-config",
            )
        argv = _split(command)
        self.sock, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own ssh_config, no shell
                argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE
            )
        except OSError as error:
            self.sock.close()
            raise ConnectError(
                f"the ProxyCommand {argv[0]!r} could not be started ({_reason(error)}). "
                "Correct it in ssh_config.",
                "proxy-command",
            ) from error
        finally:
            theirs.close()
        self._complaint = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def complaint(self) -> str:
        """The end of what the program said on stderr, for a message."""
        self._listener.join(0.2)
        return one_line(self._complaint, 200)

    def terminate(self) -> None:
        """Ask the program to end, without waiting for it."""
        self.sock.close()
        self._process.terminate()

    def close(self) -> None:
        """End the program and reap it."""
        self.terminate()
        try:
            self._process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(REAP_SECONDS)
        # A grandchild may hold stderr open; the listener then ends with it.
        self._listener.join(0.2)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            # Read to the end, so that a talkative program never blocks on a full pipe.
            while chunk := os.read(stderr.fileno(), 4096):
                self._complaint = (self._complaint + chunk)[-COMPLAINT_BYTES:]


def _split(command: str) -> list[str]:
    """The words of a ProxyCommand; ConfigError when its quotes do not match."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise ConfigError(
            f"ssh_config: ProxyCommand {one_line(command)!r} cannot be read ({error}).",
            "ssh-config",
        ) from error
    # OpenSSH hands the command to a shell, where "exec" is usual; without a shell it is noise.
    argv = argv[1:] if argv[:1] == ["exec"] else argv
    if not argv:
        raise ConfigError("ssh_config: ProxyCommand is empty. Give a program.", "ssh-config")
    return argv
