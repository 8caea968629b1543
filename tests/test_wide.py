"""A large file over all channels: whole, told once, and in order where the server wants that."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skynet.errors import LinkLost, NotPublished, RequestError
from skynet.ops import Upload
from skynet.remote import Facts, SftpRemote, send
from skynet.remote import sftp as room
from skynet.remote.turnstile import Turnstile
from skynet.sftp.conversation import Conversation, Done, Work
from skynet.sftp.replies import FAILURE, NO_SUCH_FILE, PERMISSION_DENIED
from tests.support.command import bound_by_modes
from tests.support.faults import Act, Fault, FaultConnection, at, every, no_fault, nth
from tests.support.frames import Asked
from tests.support.pipes import client_over, open_channels, wait_until_opened
from tests.support.targets import DEADLINE, do, entry_of, source, upload

PIECE = 32 * 1024
CONTENT = random.Random(1).randbytes(60 * PIECE + 5)
CHANNELS = 4


@pytest.fixture(autouse=True)
def small_files_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "WIDE_FROM", 10 * PIECE)


@contextmanager
def remote_over(connection: FaultConnection, target: Path) -> Iterator[SftpRemote]:
    with client_over(connection, channels=CHANNELS) as client:
        remote = SftpRemote(client, os.fsencode(target), "nonce")
        remote.prepare()
        open_channels(client)
        assert client.width == CHANNELS
        connection.arm(connection.fault)
        yield remote


def test_every_channel_carries_its_share(tmp_path: Path) -> None:
    connection = FaultConnection(max_write=PIECE)
    with remote_over(connection, tmp_path / "t") as remote:
        outcome = do(remote, upload(b"video", CONTENT), CONTENT)
        assert outcome.error is None
        assert isinstance(outcome.op, Upload)
        assert outcome.op.entry.digest == entry_of(CONTENT).digest
        assert remote.counts["bytes"] == len(CONTENT)
    assert (tmp_path / "t/video").read_bytes() == CONTENT
    # One handle to make and to finish the file, and one for each channel's share.
    assert connection.seen.count("OPEN") == connection.seen.count("CLOSE") == 1 + CHANNELS
    assert connection.seen.count("WRITE") == 61


@pytest.mark.parametrize(("operations", "width"), [(1, 1), (room.MANY, CHANNELS)])
def test_channels_are_opened_before_many_operations_begin(
    tmp_path: Path, operations: int, width: int
) -> None:
    with client_over(FaultConnection(), channels=CHANNELS) as client:
        SftpRemote(client, os.fsencode(tmp_path), "nonce").expect(operations)
        wait_until_opened()
        assert client.width == width


def test_a_channel_that_opens_meanwhile_joins_in(tmp_path: Path) -> None:
    connection = FaultConnection(max_write=PIECE)
    with client_over(connection, channels=CHANNELS) as client:
        remote = SftpRemote(client, os.fsencode(tmp_path), "nonce")
        remote.prepare()

        def hold_until_all_are_open(number: int, request: Asked) -> None:
            if request.kind == "WRITE":
                wait_until_opened()

        connection.arm(hold_until_all_are_open)
        assert do(remote, upload(b"video", CONTENT), CONTENT).error is None
        assert client.width == CHANNELS
    assert (tmp_path / "video").read_bytes() == CONTENT
    assert connection.seen.count("OPEN") == 1 + CHANNELS


@pytest.mark.parametrize(
    "fault",
    [nth("OPEN", 1, 4), nth("OPEN", 3, 4), nth("WRITE", 0, 4), nth("WRITE", 30, 4)],
    ids=["second open", "fourth open", "first write", "write in the middle"],
)
def test_a_server_that_wants_one_writer_gets_the_file_in_order(
    tmp_path: Path, fault: Fault
) -> None:
    connection = FaultConnection(max_write=PIECE, without=frozenset({b"statvfs@openssh.com"}))
    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(fault)
        assert do(remote, upload(b"video", CONTENT), CONTENT).error is None
        connection.seen.clear()
        assert do(remote, upload(b"another", CONTENT), CONTENT).error is None
        assert connection.seen.count("OPEN") == 1  # it is remembered
    for name in ("video", "another"):
        assert (tmp_path / "t" / name).read_bytes() == CONTENT
    assert not list((tmp_path / "t/.skynet/tmp").iterdir())


@pytest.mark.parametrize("number", range(1, 1 + CHANNELS))
def test_a_temporary_file_that_somebody_removes_is_not_made_again_with_a_part_of_it(
    tmp_path: Path, number: int
) -> None:
    """As a skynet elsewhere does that has taken the lease from one that was asleep."""
    connection = FaultConnection(max_write=PIECE)
    temps = tmp_path / "t/.skynet/tmp"

    def removes(_: int, request: Asked) -> None:
        if request.kind == "OPEN" and connection.seen.count("OPEN") == 1 + number:
            for temp in temps.iterdir():
                temp.unlink()

    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(removes)
        do(remote, upload(b"video", CONTENT), CONTENT)
    video = tmp_path / "t/video"
    assert not video.exists() or video.read_bytes() == CONTENT
    assert not list(temps.iterdir())


def test_a_file_that_is_denied_to_several_writers_says_nothing_of_others(tmp_path: Path) -> None:
    connection = FaultConnection(max_write=PIECE)
    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(nth("OPEN", 3, PERMISSION_DENIED))
        assert do(remote, upload(b"video", CONTENT), CONTENT).error is None
        connection.seen.clear()
        assert do(remote, upload(b"another", CONTENT), CONTENT).error is None
        assert connection.seen.count("OPEN") == 1 + CHANNELS
    for name in ("video", "another"):
        assert (tmp_path / "t" / name).read_bytes() == CONTENT


@pytest.mark.parametrize("mode", [0o444, 0o640])
def test_a_file_that_nobody_may_write_is_written_by_all_channels(tmp_path: Path, mode: int) -> None:
    seen: list[int] = []
    temps = tmp_path / "t/.skynet/tmp"

    def look(_: int, request: Asked) -> None:
        seen.extend(stat.S_IMODE(temp.stat().st_mode) for temp in temps.iterdir())

    connection = FaultConnection(max_write=PIECE)
    connection.prefix = bound_by_modes()
    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(look)
        op = Upload(b"video", entry_of(CONTENT, mode))
        assert do(remote, op, CONTENT).error is None
        assert connection.seen.count("OPEN") == 1 + CHANNELS
        assert remote.counts["bytes"] == len(CONTENT)
    assert stat.S_IMODE((tmp_path / "t/video").stat().st_mode) == mode
    assert (tmp_path / "t/video").read_bytes() == CONTENT
    assert {found & 0o077 & ~mode for found in seen} == {0}  # others never may more than in the end


@pytest.mark.parametrize("keeps_modes", [True, False])
def test_a_mode_is_set_also_where_no_time_is(tmp_path: Path, keeps_modes: bool) -> None:
    connection = FaultConnection(max_write=PIECE)
    connection.prefix = bound_by_modes()
    with remote_over(connection, tmp_path / "t") as remote:
        remote.facts = Facts(keeps_times=False, keeps_modes=keeps_modes)
        for name, content in ((b"wide", CONTENT), (b"small", b"small")):
            op = Upload(name, entry_of(content, 0o404))
            assert do(remote, op, content).error is None
        assert ("FSETSTAT" in connection.seen) == keeps_modes
        assert connection.seen.count("OPEN") == 2 + CHANNELS
    modes = {stat.S_IMODE((tmp_path / "t" / n).stat().st_mode) for n in ("wide", "small")}
    assert (modes == {0o404}) == keeps_modes


@pytest.mark.parametrize("status", [FAILURE, PERMISSION_DENIED, NO_SUCH_FILE])
def test_what_may_not_get_its_name_is_not_sent_again_in_order(tmp_path: Path, status: int) -> None:
    connection = FaultConnection(max_write=PIECE)
    (tmp_path / "t").mkdir()
    (tmp_path / "t/video").write_bytes(b"old")
    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(every("posix-rename@openssh.com", status))
        outcome = do(remote, upload(b"video", CONTENT, entry_of(b"old")), CONTENT)
        assert isinstance(outcome.error, NotPublished)
        # Where no reason is told, another file system may be mounted there.
        assert remote.counts["bytes"] == len(CONTENT) * (2 if status == FAILURE else 1)
        connection.arm(no_fault)
        assert do(remote, upload(b"another", CONTENT), CONTENT).error is None
        assert connection.seen.count("OPEN") == 1 + CHANNELS
    assert (tmp_path / "t/video").read_bytes() == b"old"
    assert not list((tmp_path / "t/.skynet/tmp").iterdir())


def test_what_fails_in_order_too_is_refused(tmp_path: Path) -> None:
    connection = FaultConnection(max_write=PIECE, without=frozenset({b"statvfs@openssh.com"}))
    (tmp_path / "t").mkdir()
    (tmp_path / "t/video").write_bytes(b"old")
    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(lambda number, request: 4 if request.kind == "WRITE" else None)
        outcome = do(remote, upload(b"video", CONTENT, entry_of(b"old")), CONTENT)
        assert isinstance(outcome.error, RequestError)
        connection.arm(no_fault)
        connection.seen.clear()
        assert do(remote, upload(b"another", CONTENT), CONTENT).error is None
        assert connection.seen.count("OPEN") == 1 + CHANNELS  # order was not the reason
    assert (tmp_path / "t/video").read_bytes() == b"old"
    assert not list((tmp_path / "t/.skynet/tmp").iterdir())


@pytest.mark.parametrize("number", range(0, 80, 9))
@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER, Act.KILL])
def test_a_link_lost_anywhere_is_told_once(tmp_path: Path, number: int, act: Act) -> None:
    connection = FaultConnection(max_write=PIECE)
    with remote_over(connection, tmp_path / "t") as remote:
        connection.arm(at(number, act))
        outcome = do(remote, upload(b"video", CONTENT), CONTENT)
        if outcome.error is not None:
            assert isinstance(outcome.error, LinkLost)
        assert remote.wait(0.05) == []
    published = tmp_path / "t/video"
    assert not published.exists() or published.read_bytes() == CONTENT


def test_few_wide_files_are_under_way_at_once(tmp_path: Path) -> None:
    connection = FaultConnection(max_write=PIECE)
    names = [b"%d" % number for number in range(9)]
    with remote_over(connection, tmp_path / "t") as remote:
        for name in names:
            op = upload(name, CONTENT)
            remote.submit(op, source(CONTENT))
        ended = 0
        while ended < len(names):
            outcomes = remote.wait(DEADLINE)
            assert outcomes
            assert {outcome.error for outcome in outcomes} == {None}
            ended += len(outcomes)
    for name in names:
        assert (tmp_path / "t" / name.decode()).read_bytes() == CONTENT
    assert connection.most_open <= room.WIDE_AT_ONCE * (1 + CHANNELS)


def test_the_turnstile_lets_in_in_order_and_stops_when_the_link_is_lost() -> None:
    submitted: list[Work] = []
    told: list[int] = []
    turnstile = Turnstile(2, submitted.append)
    for number in range(5):
        turnstile.add(Work(idle(), noting(told, number)))
    assert len(submitted) == 2
    submitted[0].done("result", None)
    submitted[1].done(None, RequestError("no"))
    assert len(submitted) == 4
    submitted[2].done(None, LinkLost("gone"))
    assert len(submitted) == 4
    assert told == [0, 1, 2]


def noting(told: list[int], number: int) -> Done:
    return lambda result, error: told.append(number)


def idle() -> Conversation[None]:
    yield []


def test_many_uploads_go_into_several_temporary_directories(tmp_path: Path) -> None:
    many = 4 * room.MANY
    with remote_over(FaultConnection(), tmp_path / "t") as remote:
        for number in range(many):
            remote.submit(upload(b"%d" % number, b"x"), source(b"x"))
        ended = 0
        while ended < many:
            outcomes = remote.wait(DEADLINE)
            assert {outcome.error for outcome in outcomes} == {None}
            ended += len(outcomes)
        temps = tmp_path / "t/.skynet/tmp"
        assert {path.name for path in temps.iterdir()} == set("01234567")
        assert remote.clear_temps() == 8
        assert not list(temps.iterdir())
        # They are gone now, and the next upload makes what it needs.
        assert do(remote, upload(b"again", b"y"), b"y").error is None
