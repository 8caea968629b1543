"""What a service manager hears from the daemon, on a real socket."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skynet.notify import STATUS_CHARACTERS, Notifier

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such sockets")


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[bytes]:
        """All messages since the last time."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(1 << 16))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_a_life_is_told_in_the_words_of_the_protocol(manager: Manager) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": manager.address})
    assert [notifier.ready(), notifier.status("in sync"), notifier.stopping()] == [True] * 3
    assert manager.heard() == [b"READY=1", b"STATUS=in sync", b"STOPPING=1"]


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux' own")
def test_an_abstract_socket_is_found() -> None:
    manager = Manager(f"@skynet-test-{os.getpid()}")
    try:
        assert Notifier.from_environ({"NOTIFY_SOCKET": manager.address}).ready()
        assert manager.heard() == [b"READY=1"]
    finally:
        manager.close()


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}], ids=str
)
def test_without_a_socket_nothing_is_sent(environ: dict[str, str]) -> None:
    notifier = Notifier.from_environ({**environ, "WATCHDOG_USEC": "1000000"})
    said = [notifier.ready(), notifier.status("x"), notifier.alive(), notifier.stopping()]
    assert said == [False] * 4


def test_a_manager_that_is_gone_stops_nothing(manager: Manager) -> None:
    notifier = Notifier(manager.address, 1.0)
    manager.close()
    assert [notifier.ready(), notifier.alive()] == [False, False]


def test_a_status_is_one_line_of_text_whatever_a_file_is_called(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    assert notifier.status("sends a\nWATCHDOG=trigger \udcff" + "x" * 10_000)
    [message] = manager.heard()
    assert message.startswith(rb"STATUS=sends a\nWATCHDOG=trigger \udcffx")
    assert len(message) == len("STATUS=") + STATUS_CHARACTERS


def test_signs_of_life_are_sent_at_half_the_interval(manager: Manager) -> None:
    now = 1000.0
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "120000000"}
    notifier = Notifier.from_environ(environ, lambda: now)
    sent = []
    for _ in range(600):  # ten minutes, asked each second
        if notifier.alive():
            sent.append(now)
        now += 1
    assert sent == [1000.0 + 60 * number for number in range(10)]
    assert manager.heard() == [b"WATCHDOG=1"] * 10


def test_a_sign_of_life_that_was_not_taken_is_sent_again(tmp_path: Path) -> None:
    address = str(tmp_path / "late")
    notifier = Notifier(address, 120.0, lambda: 5.0)
    assert not notifier.alive()
    manager = Manager(address)
    try:
        assert notifier.alive()
        assert manager.heard() == [b"WATCHDOG=1"]
    finally:
        manager.close()


MYSELF = "myself"  # a name that is the same in each process that collects the tests


@pytest.mark.parametrize(
    ("environ", "waits"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "1000000"}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": MYSELF}, True),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({"WATCHDOG_USEC": "-5"}, False),
        ({"WATCHDOG_USEC": "²"}, False),
        ({"WATCHDOG_USEC": "9" * 5000}, False),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_watchdog_is_fed_only_if_it_waits_for_this_process(
    manager: Manager, environ: dict[str, str], waits: bool
) -> None:
    if environ.get("WATCHDOG_PID") == MYSELF:
        environ = {**environ, "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": manager.address, **environ})
    assert notifier.alive() is waits
    assert manager.heard() == [b"WATCHDOG=1"] * waits


def test_a_manager_whose_queue_is_full_is_not_waited_for(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skynet.notify.SEND_SECONDS", 0.01)
    notifier = Notifier(manager.address)
    assert notifier.ready()
    assert not all(notifier.ready() for _ in range(2000))  # more than any queue here takes
