"""An own file that stays open between appends, and stamps: what is asked, and what is held then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from skynet.errors import LinkLost, SkynetError, TargetError
from skynet.lease import Lease
from skynet.manifest import Header, Manifest
from skynet.ops import effect
from skynet.remote import Facts, SftpRemote, Stamp
from skynet.remote.verbs import OWN
from skynet.sftp.client import Client
from skynet.sftp.pace import Pace
from skynet.sftp.replies import FAILURE, NO_SUCH_FILE, PERMISSION_DENIED
from skynet.tree import join
from tests.support.faults import Act, Fault, FaultConnection, every, no_fault, nth
from tests.support.pipes import FAR_AWAY, pretend
from tests.support.targets import DEADLINE, KINDS, Place, prepared, source, succeed, upload

FRESH = ["OPEN", "WRITE"]
AGAIN = ["WRITE"]


class There(NamedTuple):
    """A prepared target, and what is asked of its server from then on."""

    remote: SftpRemote
    connection: FaultConnection
    directory: Path

    def asked(self, act: Callable[[], object], fault: Fault = no_fault) -> list[str]:
        """The requests that something costs."""
        self.connection.arm(fault)
        act()
        return list(self.connection.seen)

    def append(self, data: bytes, name: bytes = b"log") -> None:
        path = self.directory / ".skynet" / os.fsdecode(name)
        self.remote.append(name, path.stat().st_size if path.exists() else 0, data)

    def upload(self, count: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        for number in range(count):
            self.remote.submit(upload(b"f%d" % number, b"x"), source(b"x"))
        outcomes = self.remote.wait(0)
        meanwhile()
        while len(outcomes) < count:
            more = self.remote.wait(DEADLINE)
            assert more
            outcomes += more
        assert [outcome.error for outcome in outcomes if outcome.error] == []

    def content(self, name: str = "log") -> bytes:
        return (self.directory / ".skynet" / name).read_bytes()


@contextlib.contextmanager
def served(
    tmp_path: Path,
    *,
    channels: int = 1,
    open_files: int = 0,
    pace: Pace | None = None,
    without: frozenset[bytes] = frozenset(),
) -> Iterator[There]:
    connection = FaultConnection(open_files=open_files, without=without)
    client = Client(connection, channels=channels, timeout=DEADLINE, pace=pace)
    pretend(client, FAR_AWAY)
    directory = tmp_path / "target"
    try:
        remote = SftpRemote(client, os.fsencode(directory), "nonce")
        remote.prepare()
        yield There(remote, connection, directory)
    finally:
        client.close()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[There]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with prepared(request.param, tmp_path) as target:
        yield target


# What every remote does.


def test_appends_follow_one_another_whatever_comes_between(place: Place) -> None:
    remote = place.remote
    between: list[Callable[[], object]] = [
        lambda: remote.peek([(b"log", 0, 9)]),
        lambda: remote.create(b"lease", b"x"),
        lambda: remote.append(b"other", 0, b"x"),
        lambda: remote.write_at(b"lease", 0, b"y"),
        lambda: remote.replace(b"log", [b"new"]),
        lambda: remote.rename(b"log", b"old"),
        lambda: remote.rename(b"old", b"log"),
        lambda: remote.remove(b"log"),
    ]
    held = b""
    for number, act in enumerate(between):
        data = b"%d" % number
        remote.append(b"log", len(held), data)
        held += data
        act()
        if number == 4:
            held = b"new"
        if number == 5:
            assert remote.peek([(b"log", 0, 9)]) == [None]
            assert remote.rename(b"old", b"log")
        if number == 6:
            assert remote.peek([(b"log", 0, 9)]) == [held]
    remote.append(b"log", 0, b"anew")
    assert remote.peek([(b"log", 0, 9), (b"other", 0, 9)]) == [b"anew", b"x"]


def test_stamp_is_what_creation_and_writing_told(place: Place) -> None:
    remote = place.remote
    assert remote.stamp(b"lease") is None
    made = remote.create(b"lease", b"12345")
    assert made is not None
    assert made == remote.stamp(b"lease")
    assert made.size == 5
    assert made.mtime > 0
    assert remote.create(b"lease", b"") is None
    written = remote.write_at(b"lease", 5, b"6")
    assert written == remote.stamp(b"lease")
    assert written.size == 6


def test_stamp_of_another_file_under_the_same_name_differs(place: Place) -> None:
    before = place.remote.create(b"lease", b"123")
    place.put(join(OWN, b"lease"), b"456")
    assert place.remote.stamp(b"lease") != before


# What it costs, with a real server.


def test_second_append_is_one_request(there: There) -> None:
    assert there.asked(lambda: there.append(b"one")) == FRESH
    for _ in range(3):
        assert there.asked(lambda: there.append(b"more")) == AGAIN
    assert there.content() == b"one" + b"more" * 3


def test_long_append_is_one_round_trip_of_several_writes(there: There) -> None:
    there.append(b"")
    long = bytes(600 << 10)
    assert there.asked(lambda: there.append(long)) == ["WRITE"] * 3
    assert there.content() == long


@pytest.mark.parametrize("verb", ["peek", "read", "stamp", "write_at"])
def test_what_leaves_names_alone_leaves_the_file_open(there: There, verb: str) -> None:
    remote = there.remote
    remote.create(b"lease", b"1")
    there.append(b"one")
    acts: dict[str, Callable[[], object]] = {
        "peek": lambda: remote.peek([(b"log", 0, 9)]),
        "read": lambda: b"".join(remote.read(b"log") or ()),
        "stamp": lambda: remote.stamp(b"lease"),
        "write_at": lambda: remote.write_at(b"lease", 0, b"2"),
    }
    acts[verb]()
    assert there.asked(lambda: there.append(b"two")) == AGAIN
    assert there.content() == b"onetwo"


def change_of_names(there: There, verb: str) -> Callable[[], object]:
    """What changes names of own files in this way, with what it needs."""
    remote = there.remote
    (there.directory / ".skynet/old").write_bytes(b"old")
    acts: dict[str, Callable[[], object]] = {
        "create": lambda: remote.create(b"lease", b"1"),
        "replace": lambda: remote.replace(b"log", [b"new"]),
        "rename": lambda: remote.rename(b"old", b"older"),
        "remove": lambda: remote.remove(b"old"),
        "append": lambda: there.append(b"1", b"another"),
    }
    return acts[verb]


@pytest.mark.parametrize("verb", ["create", "replace", "rename", "remove", "append"])
def test_what_changes_names_closes_it_first(there: There, verb: str) -> None:
    act = change_of_names(there, verb)
    there.append(b"one")
    asked = there.asked(act)
    assert asked[0] == "CLOSE"
    before = there.content()
    again = FRESH if verb != "append" else ["CLOSE", *FRESH]
    assert there.asked(lambda: there.append(b"two")) == again
    assert there.content() == before + b"two"


def test_append_that_was_expected_finds_its_file_open(there: There) -> None:
    there.append(b"one", b"other")

    def expect() -> None:
        there.remote.expect_append(b"log")
        there.remote.expect_append(b"log")
        there.remote.stamp(b"log")  # which is asked, and answered, later

    assert there.asked(expect) == ["CLOSE", "OPEN", "LSTAT"]
    assert there.asked(lambda: there.append(b"one")) == AGAIN
    there.remote.expect_append(b"log")
    assert there.asked(lambda: there.append(b"two")) == AGAIN
    assert there.content() == b"onetwo"


@pytest.mark.parametrize("verb", ["create", "replace", "rename", "remove", "append"])
def test_file_that_is_being_opened_is_closed_before_names_change(there: There, verb: str) -> None:
    act = change_of_names(there, verb)

    def expect_and_act() -> None:
        there.remote.expect_append(b"log")
        act()

    assert there.asked(expect_and_act)[:2] == ["OPEN", "CLOSE"]
    before = there.content()
    there.append(b"two")
    assert there.content() == before + b"two"


@pytest.mark.parametrize("code", [FAILURE, NO_SUCH_FILE, PERMISSION_DENIED])
def test_append_whose_file_could_not_be_opened_beforehand_opens_it(there: There, code: int) -> None:
    def expect_and_append() -> None:
        there.remote.expect_append(b"log")
        there.append(b"one")

    asked = there.asked(expect_and_append, nth("OPEN", 0, code))
    assert [kind for kind in asked if kind != "MKDIR"] == ["OPEN", *FRESH]
    there.connection.arm(every("OPEN", PERMISSION_DENIED))
    there.remote.expect_append(b"another")
    with pytest.raises(TargetError, match="refuses to write"):
        there.append(b"one", b"another")


def test_link_lost_while_a_file_is_opened_beforehand_is_told_by_the_append(there: There) -> None:
    there.connection.arm(nth("OPEN", 0, Act.CUT_BEFORE))
    there.remote.expect_append(b"log")
    with pytest.raises(LinkLost):
        there.append(b"one")


@pytest.mark.parametrize("files", [*range(5, 10), 0])
def test_nothing_is_opened_beforehand_on_a_server_that_may_have_few_handles(
    tmp_path: Path, files: int
) -> None:
    unlimited = frozenset([b"limits@openssh.com"]) if not files else frozenset[bytes]()
    with served(tmp_path, open_files=files, without=unlimited) as there:
        there.remote.expect_append(b"log")
        there.upload(16)
        assert there.asked(lambda: there.append(b"one")) == FRESH


@pytest.mark.parametrize("code", [FAILURE, NO_SUCH_FILE, PERMISSION_DENIED])
def test_handle_that_the_server_dropped_is_replaced_once(there: There, code: int) -> None:
    there.append(b"one")
    asked = there.asked(lambda: there.append(b"two"), nth("WRITE", 0, code))
    assert asked == ["WRITE", "CLOSE", "OPEN", "WRITE"]
    assert there.asked(lambda: there.append(b"three")) == AGAIN
    assert there.content() == b"onetwothree"


def test_append_that_is_refused_for_good_leaves_nothing_open(there: There) -> None:
    there.append(b"one")

    def refused() -> None:
        with pytest.raises(SkynetError):
            there.append(b"two")

    assert there.asked(refused, every("WRITE", PERMISSION_DENIED)) == [
        *("WRITE", "CLOSE"),
        *("OPEN", "WRITE", "CLOSE"),
    ]
    assert there.asked(lambda: there.append(b"three")) == FRESH
    assert there.content() == b"onethree"


def test_refused_append_is_told_as_what_it_means(there: There) -> None:
    there.connection.arm(every("OPEN", PERMISSION_DENIED))
    with pytest.raises(TargetError, match="refuses to write"):
        there.append(b"one")


@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER])
def test_link_lost_in_an_append_is_told_as_that(there: There, act: Act) -> None:
    there.append(b"one")
    there.connection.arm(nth("WRITE", 0, act))
    with pytest.raises(LinkLost):
        there.append(b"two")


def test_many_files_appended_to_in_turn_are_never_open_together(there: There) -> None:
    for number in range(20):
        there.append(b"x", b"log%d" % (number % 3))
    assert there.connection.most_open == 1


def test_appends_stay_on_one_channel_of_several_at_work(tmp_path: Path) -> None:
    with served(tmp_path, channels=4) as there:
        there.append(b"0")
        there.upload(200, lambda: [there.append(b"%d" % number) for number in range(50)])
        asked = there.asked(lambda: there.append(b"end"))
        assert len(there.connection.streams) > 1
        assert asked == AGAIN
        assert there.content() == b"0" + b"".join(b"%d" % n for n in range(50)) + b"end"


def test_appends_work_on_the_channel_that_a_limit_sets_aside(tmp_path: Path) -> None:
    with served(tmp_path, pace=Pace(lambda: 1 << 20)) as there:
        there.append(b"one")
        assert there.asked(lambda: there.append(b"two")) == AGAIN
        assert there.content() == b"onetwo"


def test_open_log_leaves_room_for_uploads_on_a_server_of_few_files(tmp_path: Path) -> None:
    with served(tmp_path, open_files=12) as there:
        there.remote.expect_append(b"log")
        there.upload(64)
        there.append(b"one")
        there.upload(64)
        assert there.asked(lambda: there.append(b"two")) == AGAIN


def test_server_that_cannot_tell_a_file_by_its_handle_gives_no_stamp(there: There) -> None:
    there.connection.arm(every("FSTAT", FAILURE))
    assert there.remote.create(b"lease", b"1") == Stamp(0, 0)


# What an idle daemon pays for one file.


def test_one_file_after_a_rest_is_eight_requests(there: There) -> None:
    now = 1000.0
    lease = Lease(
        there.remote,
        "me",
        pid_space="",
        clock=lambda: now,
        sleep=lambda seconds: None,
        monitor=lambda event: None,
    )
    manifest = Manifest(there.remote)
    lease.ensure()
    head = manifest.create(Header(b"m" * 16, 0, "here:/photos", Facts()), [])

    def cycle(name: bytes) -> None:
        nonlocal head
        lease.ensure()
        outcome = succeed(there.remote, upload(name, b"content"), b"content")
        lease.beat()
        lease.check()
        head = manifest.append(head, [effect(outcome.op)])

    cycle(b"first")
    now += 3600
    assert there.asked(lambda: cycle(b"second")) == [
        "LSTAT",  # is the lease still ours?
        *["OPEN", "WRITE", "FSETSTAT", "FSTAT", "CLOSE", "posix-rename@openssh.com"],
        "WRITE",  # at the end of the log
    ]
    assert manifest.is_current(head)
    loaded = Manifest(there.remote).load()
    assert loaded is not None
    assert not list(loaded.entries)
    assert len(list(loaded.edits)) == 2
    assert not loaded.torn
