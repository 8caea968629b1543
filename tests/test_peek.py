"""Several pieces of skynet's own files in two round trips: what is asked, refused and closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from skynet.errors import TargetError
from skynet.remote.own import OwnFiles
from skynet.sftp import replies
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from tests.support.faults import FaultConnection, nth
from tests.support.pipes import client_over
from tests.support.sources import raised


@pytest.fixture
def target(tmp_path: Path) -> bytes:
    return bytes(tmp_path)


def own_files(client: Client, directory: bytes) -> OwnFiles:
    def has_room(size: int) -> Conversation[None]:
        yield []

    return OwnFiles(client, directory, lambda: directory + b"/temp", has_room)


def test_a_peek_is_two_round_trips_and_three_requests_a_file(target: bytes) -> None:
    Path(target.decode(), "manifest").write_bytes(b"0123456789")
    connection = FaultConnection()
    with client_over(connection) as client:
        own = own_files(client, target)
        connection.arm(connection.fault)
        wanted = [(b"manifest", 2, 3), (b"missing", 0, 9), (b"manifest", 8, 9)]
        assert own.peek(wanted) == [b"234", None, b"89"]
    assert connection.seen == ["OPEN"] * 3 + ["READ", "CLOSE"] * 2


def test_a_peek_that_is_refused_leaves_nothing_open(target: bytes) -> None:
    Path(target.decode(), "manifest").write_bytes(b"0123456789")
    connection = FaultConnection()
    with client_over(connection) as client:
        own = own_files(client, target)
        connection.arm(nth("OPEN", 1, replies.PERMISSION_DENIED))
        error = raised(lambda: own.peek([(b"manifest", 0, 1), (b"manifest", 1, 1)]))
    assert isinstance(error, TargetError)
    assert "manifest" in str(error)
    assert "as the test wants" in str(error)
    assert connection.seen == ["OPEN", "OPEN", "READ", "CLOSE"]


def test_a_peek_whose_close_fails_is_told(target: bytes) -> None:
    Path(target.decode(), "manifest").write_bytes(b"0123456789")
    with client_over(FaultConnection(nth("CLOSE", 0, replies.FAILURE))) as client:
        own = own_files(client, target)
        error = raised(lambda: own.peek([(b"manifest", 0, 1)]))
    assert isinstance(error, TargetError)
