"""Uploads to a real sftp-server: whole or not at all, whatever is refused on the way."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
import xxhash

from skynet.errors import RequestError, TornRead
from skynet.sftp import replies, wire
from skynet.sftp.client import Client
from skynet.sftp.conversation import Conversation
from skynet.sftp.replies import FAILURE, OK, PERMISSION_DENIED, expect_handle, expect_ok
from skynet.sftp.upload import LANES, RENAME_REFUSED, make_link
from tests.support.faults import FaultConnection, every, no_fault, nth
from tests.support.frames import Asked
from tests.support.pipes import client_over, pipe_client
from tests.support.sources import BytesSource, Ends, Sending, raised, submit_all
from tests.support.uploads import HEALED, NEW, OLD, ONE_WRITE, World, attempt

PIECE = 4096  # bytes of a write in tests that want many of them
TEN_PIECES = random.Random(1).randbytes(10 * PIECE)
TEN_WRITES = [ONE_WRITE[0], *["WRITE"] * 10, *ONE_WRITE[2:]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# When all goes well -----------------------------------------------------------------------------


def test_a_file_arrives_with_content_times_and_mode(world: World) -> None:
    with pipe_client() as client:
        uploaded = world.sending.send(client, NEW)
    assert world.path.read_bytes() == NEW
    status = world.path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o640, 1_000_000)
    assert uploaded == (len(NEW), xxhash.xxh3_128(NEW).digest(), b"identity")
    assert world.left == []


@pytest.mark.parametrize(("content", "requests"), [(NEW, ONE_WRITE), (TEN_PIECES, TEN_WRITES)])
def test_an_upload_takes_these_requests(world: World, content: bytes, requests: list[str]) -> None:
    connection = FaultConnection(max_write=PIECE)
    assert attempt(world, connection, no_fault, content) is None
    assert connection.seen == requests


def test_an_empty_file_needs_no_write(world: World) -> None:
    connection = FaultConnection()
    assert attempt(world, connection, no_fault, b"") is None
    assert connection.seen == [kind for kind in ONE_WRITE if kind != "WRITE"]
    assert world.path.read_bytes() == b""


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, PIECE * LANES, PIECE * 99 + 7])
@pytest.mark.parametrize("reorder", [False, True])
def test_every_byte_arrives_and_is_acknowledged(world: World, size: int, reorder: bool) -> None:
    content = random.Random(size).randbytes(size)
    with client_over(FaultConnection(max_write=PIECE, reorder=reorder)) as client:
        uploaded = world.sending.send(client, content)
    assert world.path.read_bytes() == content
    assert sum(world.sending.acknowledged) == size
    assert uploaded.digest == xxhash.xxh3_128(content).digest()


def test_many_large_files_share_the_lanes_of_two_channels(world: World) -> None:
    directory, ends = os.fsencode(world.path.parent), Ends()
    contents = {b"%d" % n: random.Random(n).randbytes(3_000_000 + n) for n in range(12)}
    sendings = {name: Sending(directory, name) for name in contents}
    with pipe_client(channels=2) as client:
        client.widen()
        conversations = (
            (name, sending.conversation(client, BytesSource(contents[name])))
            for name, sending in sendings.items()
        )
        submit_all(client, ends, conversations)
        assert {end.error for end in ends.wait(12)} == {None}
    for name, content in contents.items():
        assert Path(os.fsdecode(sendings[name].path)).read_bytes() == content
        assert sum(sendings[name].acknowledged) == len(content)


def test_a_server_without_limits_gets_writes_of_32_kib(world: World) -> None:
    lengths: list[int] = []

    def note(number: int, request: Asked) -> None:
        if request.kind == "WRITE":
            lengths.append(len(request.packet) - 25 - len(request.text))

    connection = FaultConnection(without=frozenset({b"limits@openssh.com"}))
    content = bytes(100_000)
    assert attempt(world, connection, note, content) is None
    assert sorted(lengths) == [100_000 - 3 * 32768, 32768, 32768, 32768]
    assert world.path.read_bytes() == content


def test_names_are_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    names = [b"\n", b"-rf", b" ", b"\xff\xfe", "e\u0301".encode(), b"x" * 240]
    with pipe_client() as client:
        for name in names:
            Sending(os.fsencode(tmp_path), name).send(client, name)
    found = {e.name for e in os.scandir(os.fsencode(tmp_path)) if e.is_file()}
    assert found == set(names)


def test_a_link_is_published_as_it_is(world: World) -> None:
    place = world.sending.placement()
    with pipe_client() as client:
        client.call(make_link(b"no where\xff", place, client.capabilities))
    assert os.readlink(place.path) == b"no where\xff"
    assert world.left == []


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [FAILURE, PERMISSION_DENIED])
@pytest.mark.parametrize("number", range(len(TEN_WRITES)))
def test_a_refusal_of_any_request_keeps_the_old_file(world: World, number: int, code: int) -> None:
    kind = TEN_WRITES[number]
    connection = FaultConnection(max_write=PIECE)
    fault = nth(kind, TEN_WRITES[:number].count(kind), code)
    error = attempt(world, connection, fault, TEN_PIECES)
    if kind in HEALED:
        assert error is None
        assert world.path.read_bytes() == TEN_PIECES
    else:
        assert isinstance(error, RequestError)
        assert world.path.read_bytes() == OLD
    assert world.left == []


@pytest.mark.parametrize("kind", ONE_WRITE)
def test_a_small_file_refused_keeps_the_old_one(world: World, kind: str) -> None:
    error = attempt(world, FaultConnection(), nth(kind, 0, PERMISSION_DENIED))
    assert (error is None) == (kind in HEALED)
    if error is not None:
        assert isinstance(error, RequestError)
        assert (error.code, str(error)) == ("permission-denied", "as the test wants")
    assert world.path.read_bytes() == (NEW if error is None else OLD)
    assert world.left == []


def test_the_third_of_ten_writes_refused_is_told_and_nothing_is_published(world: World) -> None:
    connection = FaultConnection(max_write=PIECE)
    error = attempt(world, connection, nth("WRITE", 2, FAILURE), TEN_PIECES)
    assert isinstance(error, RequestError)
    assert error.code == "failure"
    assert world.path.read_bytes() == OLD
    assert world.left == []
    assert connection.seen == [*TEN_WRITES[:11], "CLOSE", "REMOVE"]


def test_an_error_of_a_lane_stops_the_other_lanes(world: World) -> None:
    pieces = 40 * LANES
    connection = FaultConnection(max_write=PIECE)
    error = attempt(world, connection, nth("WRITE", 0, FAILURE), bytes(pieces * PIECE))
    assert isinstance(error, RequestError)
    # The refusal is the first answer of all, so no lane gets to its second piece.
    assert connection.seen.count("WRITE") == LANES
    assert world.left == []


def test_a_handle_is_closed_once_only_since_another_file_may_have_it_by_then(world: World) -> None:
    connection = FaultConnection()
    attempt(world, connection, nth("WRITE", 0, FAILURE))
    assert connection.seen == [*ONE_WRITE[:5], "REMOVE"]


def test_files_refused_among_many_do_not_harm_the_others(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    seen = 0

    def every_third_write(number: int, request: Asked) -> int | None:
        nonlocal seen
        seen += request.kind == "WRITE"
        return FAILURE if request.kind == "WRITE" and seen % 3 == 0 else None

    ends = Ends()
    sendings = {b"%d" % n: Sending(os.fsencode(tmp_path), b"%d" % n) for n in range(300)}
    with client_over(FaultConnection(every_third_write)) as client:
        conversations = (
            (name, sending.conversation(client, BytesSource(name * 50)))
            for name, sending in sendings.items()
        )
        submit_all(client, ends, conversations)
        refused = {end.key for end in ends.wait(300) if end.error is not None}
    assert len(refused) == 100
    published = {p.name.encode(): p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert published == {name: name * 50 for name in sendings if name not in refused}
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("lost", ["WRITE", "all but one WRITE"])
def test_bytes_that_did_not_arrive_are_missed(world: World, lost: str) -> None:
    fault = every("WRITE", OK) if lost == "WRITE" else nth("WRITE", 9, OK)
    connection = FaultConnection(max_write=PIECE)
    error = attempt(world, connection, fault, TEN_PIECES)
    assert isinstance(error, RequestError)
    assert error.code == "size-mismatch"
    assert f"of {len(TEN_PIECES)} bytes arrived" in str(error)
    assert world.path.read_bytes() == OLD
    assert world.left == []


def test_attributes_that_can_be_set_neither_way_are_told(world: World) -> None:
    def refuse(number: int, request: Asked) -> int | None:
        return PERMISSION_DENIED if request.kind in ("SETSTAT", "FSETSTAT") else None

    error = attempt(world, FaultConnection(), refuse)
    assert isinstance(error, RequestError)
    assert world.path.read_bytes() == OLD
    assert world.left == []


def test_a_mode_that_the_handle_refused_is_set_by_path(world: World) -> None:
    world.sending.attrs = wire.Attrs(mode=0o604)
    connection = FaultConnection()
    assert attempt(world, connection, nth("FSETSTAT", 0, FAILURE)) is None
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o604
    assert connection.seen == [*ONE_WRITE[:5], "SETSTAT", "LSTAT", ONE_WRITE[5]]


def test_a_refused_rename_is_told_apart(world: World) -> None:
    error = attempt(world, FaultConnection(), nth(ONE_WRITE[-1], 0, FAILURE))
    assert isinstance(error, RequestError)
    assert error.code == RENAME_REFUSED


def test_a_directory_in_the_way_stays(world: World) -> None:
    world.path.unlink()
    world.path.mkdir()
    (world.path / "inside").touch()
    assert isinstance(attempt(world, FaultConnection(), no_fault), RequestError)
    assert (world.path / "inside").exists()
    assert world.left == []


def test_a_temporary_name_that_is_taken_is_not_overwritten(world: World) -> None:
    taken = world.temps / "new-picture"
    taken.write_bytes(b"another upload's")
    assert isinstance(attempt(world, FaultConnection(), no_fault), RequestError)
    assert taken.read_bytes() == b"another upload's"
    assert world.path.read_bytes() == OLD


# What is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [len(NEW), 10 * PIECE])
@pytest.mark.parametrize("difference", [-3, 3, 3 * PIECE])
def test_a_torn_read_is_never_published(world: World, length: int, difference: int) -> None:
    source = BytesSource(bytes(max(length + difference, 0)), size=length)
    connection = FaultConnection(max_write=PIECE)
    with client_over(connection) as client:
        error = raised(lambda: client.call(world.sending.conversation(client, source)))
    assert isinstance(error, TornRead)
    assert world.path.read_bytes() == OLD
    assert world.left == []
    assert source.closed == 1
    assert "posix-rename@openssh.com" not in connection.seen


def test_a_file_that_grows_without_end_is_given_up(world: World) -> None:
    class Endless(BytesSource):
        def read(self, limit: int) -> bytes:
            self.offset += limit
            return bytes(limit)

    source = Endless(b"", size=10 * PIECE)
    with client_over(FaultConnection(max_write=PIECE)) as client:
        error = raised(lambda: client.call(world.sending.conversation(client, source)))
    assert isinstance(error, TornRead)
    assert source.offset == 11 * PIECE


@pytest.mark.parametrize("length", [len(NEW), 10 * PIECE])
def test_a_file_that_cannot_be_read_is_not_published(world: World, length: int) -> None:
    source = BytesSource(bytes(length), fails_at=length // 2)
    with client_over(FaultConnection(max_write=PIECE)) as client:
        error = raised(lambda: client.call(world.sending.conversation(client, source)))
    assert isinstance(error, OSError)
    assert world.path.read_bytes() == OLD
    assert world.left == []
    assert source.closed == 1


def test_progress_counts_acknowledged_bytes_only(world: World) -> None:
    connection = FaultConnection(max_write=PIECE)
    attempt(world, connection, nth("WRITE", 0, FAILURE), TEN_PIECES)
    accepted = connection.seen.count("WRITE") - 1
    # The lanes whose writes were accepted have all been answered before the error is told.
    assert world.sending.acknowledged == [PIECE] * accepted
    world.sending.acknowledged.clear()
    attempt(world, FaultConnection(), nth("WRITE", 0, FAILURE))
    assert world.sending.acknowledged == []


# Handles ----------------------------------------------------------------------------------------


def test_nothing_stays_open_after_refusals(world: World) -> None:
    """The server gives out its lowest free handle, so a leak would show as a higher one."""

    def next_handle() -> Conversation[bytes]:
        (reply,) = yield [wire.open_file(world.sending.path, wire.READ_ONLY)]
        handle = expect_handle(reply)
        (reply,) = yield [wire.close(handle)]
        expect_ok(reply)
        return handle

    def upload_and_fail(client: Client) -> None:
        connection.arm(nth("WRITE", 0, replies.FAILURE))
        assert raised(lambda: world.sending.send(client, TEN_PIECES)) is not None

    connection = FaultConnection(max_write=PIECE)
    with client_over(connection) as client:
        before = client.call(next_handle())
        for _ in range(3):
            upload_and_fail(client)
        assert client.call(next_handle()) == before
