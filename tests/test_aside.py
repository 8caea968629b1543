"""Small files and calls get past a large file, however slow the link is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from skynet.remote import SftpRemote, send
from skynet.sftp import wire
from skynet.sftp.backlog import FIRST
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation, Everywhere, Lanes
from skynet.sftp.pace import Pace
from skynet.sftp.ration import LONGEST_WRITE, Ration, shares
from skynet.sftp.replies import expect_ok
from tests.support.frames import Asked
from tests.support.pipes import FAR_AWAY, PipeConnection, open_channels, pretend
from tests.support.scripted import ScriptedConnection, greeting, obedient
from tests.support.sources import PATIENCE, Ends
from tests.support.targets import source, upload

CHANNELS = 2
LANES = 64  # of a channel; more than have their writes in flight before a channel is full
FULL = CHANNELS * -(-shares(FIRST, CHANNELS).held // LONGEST_WRITE)  # writes in flight then
LARGE, SMALL = b"large", b"small"
RATE = 1 << 20  # bytes a second


class Stalling:
    """A server that answers everything but the writes to a large file."""

    def __init__(self) -> None:
        self.writes = 0
        self._is_full = threading.Event()

    def __call__(self, request: Asked) -> Iterable[bytes]:
        if request.kind == "WRITE" and request.text == LARGE:
            self.writes += 1
            if self.writes == FULL:
                self._is_full.set()
            return []
        return obedient(request)

    def wait_until_full(self) -> None:
        assert self._is_full.wait(PATIENCE)


def written(handle: bytes) -> Conversation[None]:
    """One write, as of any file whose content is read first."""
    yield Ration()
    (reply,) = yield [wire.write(handle, 0, bytes(LONGEST_WRITE))]
    expect_ok(reply)


def large_file() -> Conversation[None]:
    def share() -> Conversation[None]:
        yield Lanes([written(LARGE) for _ in range(LANES)])

    yield Everywhere(share)


def called() -> Conversation[None]:
    yield [wire.lstat(b"lease")]


def stalled(server: Stalling, ends: Ends, *, most_streams: int = 100) -> Client:
    """A client all of whose channels wait for the answers to a large file's writes."""
    connection = ScriptedConnection(greeting(server), most_streams=most_streams)
    client = Client(connection, channels=CHANNELS, timeout=10 * PATIENCE)
    pretend(client, FAR_AWAY)
    open_channels(client)
    client.submit(large_file(), ends.of(LARGE))
    server.wait_until_full()
    return client


def test_what_is_small_gets_past_what_is_large() -> None:
    ends, server = Ends(), Stalling()
    with closing(stalled(server, ends)) as client:
        for _ in range(100):
            client.submit(written(SMALL), ends.of(SMALL))
        assert {end.key for end in ends.wait(100)} == {SMALL}
        client.call(called())
        assert server.writes == FULL
        assert client.width == CHANNELS  # one more has taken no part in the large file


def test_no_channel_is_opened_where_nothing_waits() -> None:
    ends, connection = Ends(), ScriptedConnection(greeting(obedient))
    with closing(Client(connection, channels=CHANNELS, timeout=PATIENCE)) as client:
        pretend(client, FAR_AWAY)
        client.submit(large_file(), ends.of(LARGE))
        ends.wait(1)
        client.submit(written(SMALL), ends.of(SMALL))
        ends.wait(1)
        assert len(connection.streams) == 1


def test_what_is_small_gets_past_also_after_the_server_has_closed_the_idle_channel_aside() -> None:
    ends, server = Ends(), Stalling()
    with closing(stalled(server, ends)) as client:
        for streams in (1 + CHANNELS, 2 + CHANNELS):
            client.submit(written(SMALL), ends.of(SMALL))
            assert [(end.key, end.error) for end in ends.wait(1)] == [(SMALL, None)]
            connection = client._connection
            assert isinstance(connection, ScriptedConnection)
            assert len(connection.streams) == streams
            assert client._aside is not None
            connection.streams[-1].say(b"")
            stops = time.monotonic() + PATIENCE
            while client._aside is not None:
                assert time.monotonic() < stops
                time.sleep(0.001)
        assert ends.nothing_more()  # the large file is under way as before


def test_a_server_that_grants_no_more_channels_is_asked_once() -> None:
    ends, server = Ends(), Stalling()
    with closing(stalled(server, ends, most_streams=CHANNELS)) as client:
        for _ in range(3):
            client.submit(written(SMALL), ends.of(SMALL))
        assert client.width == CHANNELS
        assert ends.nothing_more()  # they wait, and are sent when the large file is
    assert {end.key for end in ends.wait(4)} == {LARGE, SMALL}


def test_pictures_are_there_before_a_video_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "WIDE_FROM", 1 << 20)
    video, picture = bytes(12 << 20), bytes(10_000)
    names = [b"picture %d" % number for number in range(20)]
    rates: list[int | None] = [RATE]
    pace = Pace(lambda: rates[0])
    with closing(Client(PipeConnection(), channels=4, timeout=PATIENCE, pace=pace)) as client:
        pretend(client, FAR_AWAY)
        remote = SftpRemote(client, os.fsencode(tmp_path / "t"), "nonce")
        remote.prepare()
        client.widen()
        remote.submit(upload(b"video", video), source(video))
        deadline = time.monotonic() + PATIENCE
        while remote.counts["bytes"] < 1 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        for name in names:
            remote.submit(upload(name, picture), source(picture))
        order: list[bytes] = []
        while len(order) <= len(names):
            order += [outcome.op.path for outcome in remote.wait(PATIENCE)]
            if len(order) == len(names):
                rates[0] = None  # the video is many seconds from its end, which nobody waits for
    assert order[-1] == b"video"
    assert sorted(order[:-1]) == sorted(names)
