"""What the daemon tells the service manager that started it: systemd's notification protocol.

Datagrams to the socket that $NOTIFY_SOCKET names. Where there is none, nothing is sent. See
sd_notify(3); nothing but the standard library is needed for it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping

from skynet.target import printable

SEND_SECONDS = 1.0  # a manager whose queue is full for longer has its own trouble
STATUS_CHARACTERS = 500


class Notifier:
    """Says how the daemon is doing. Every method returns whether a manager has taken it.

    A manager that cannot be reached, or is restarted itself, is no reason to stop a mirror.
    """

    def __init__(
        self,
        address: str | None,
        watchdog: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """address: a path, or @ and an abstract name. watchdog: seconds, after which it kills."""
        self._address = address
        self._watchdog = watchdog
        self._clock = clock
        self._alive_at: float | None = None

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> Notifier:
        """The manager that the environment names, if it means this process."""
        return cls(_address(environ), _watchdog(environ), clock)

    def ready(self) -> bool:
        """The daemon has begun its work; until then a manager counts it as starting."""
        return self._send("READY=1")

    def status(self, text: str) -> bool:
        """What it is doing, in a few words, for a person who asks the manager."""
        return self._send(f"STATUS={printable(text)[:STATUS_CHARACTERS]}")

    def alive(self) -> bool:
        """Call it as often as you like; it sends at half the watchdog's time, if there is one."""
        if self._watchdog is None:
            return False
        now = self._clock()
        if self._alive_at is not None and now - self._alive_at < self._watchdog / 2:
            return False
        sent = self._send("WATCHDOG=1")
        if sent:
            self._alive_at = now
        return sent

    def stopping(self) -> bool:
        """The daemon has begun to end."""
        return self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        if self._address is None or sys.platform == "win32":
            return False
        # For each message a socket of its own: they are few, and there is nothing to close.
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto(message.encode(), _as_bytes(self._address))
        except OSError:
            return False
        return True


def _as_bytes(address: str) -> bytes:
    """The socket's address; an abstract one begins with a zero byte instead of @."""
    name = os.fsencode(address)
    return b"\0" + name[1:] if name.startswith(b"@") else name


def _address(environ: Mapping[str, str]) -> str | None:
    """The socket; None for the kinds that only virtual machines have."""
    address = environ.get("NOTIFY_SOCKET", "")
    return address if address.startswith(("/", "@")) else None


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """The seconds within which a sign of life is due; None if the manager waits for none of us."""
    meant = environ.get("WATCHDOG_PID", "")
    if meant and meant != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isascii() or not microseconds.isdecimal() or len(microseconds) > 18:
        return None
    return int(microseconds) / 1e6 or None
