"""Copies on the server, and renames: over another file, and where no rename leads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import unpack_from

import msgspec
import pytest

from skynet.errors import LinkLost, RequestError, TornRead
from skynet.ops import Copy, Op, Patch, Rename, Upload, effect, replay
from skynet.remote import Outcome, SftpRemote, Trash, copies
from skynet.remote.verbs import OWN
from skynet.serve import ServeOptions
from skynet.sftp import patch
from skynet.sftp.connect import Endpoint, connect
from skynet.sftp.replies import FAILURE, PERMISSION_DENIED, STATUS_CODES, UNSUPPORTED, Data
from skynet.tree import DIR, Entry, Put, join
from tests.support.embedded import port_of, posix_only, serving
from tests.support.faults import POSIX_RENAME, Act, FaultConnection, at, every, nth
from tests.support.logins import PASSWORD
from tests.support.patching import COPY, NEW, OLD, PATH, PIECE, Target, patch_of, target
from tests.support.persons import Person
from tests.support.pipes import client_over
from tests.support.sshd import running_sshd
from tests.support.targets import (
    DEADLINE,
    KINDS,
    TIME,
    Held,
    Place,
    do,
    entry_of,
    prepared,
    refused,
    source,
    succeed,
    temps,
    visible,
)
from tests.support.versions import MIB, noise, signed

CHANNELS = 3
PLAIN = frozenset({b"posix-rename@openssh.com", b"hardlink@openssh.com"})
HELD = Held("f", OLD, 0o640, TIME)
THERE = entry_of(OLD, 0o640)
COPIED = Copy(b"copy", PATH, entry_of(OLD, mtime=TIME + 60), THERE)
MADE = Held("f", OLD, 0o644, TIME + 60)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "COPY_PIECE", 5 * PIECE)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty target that has been prepared, in memory and on disk."""
    with prepared(request.param, tmp_path) as prepared_place:
        yield prepared_place


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Target]:
    """A target with one file."""
    with target(tmp_path / "t", FaultConnection(max_write=PIECE)) as made:
        made.put(PATH, OLD)
        yield made


# What every remote does.


def test_a_copy_has_the_content_there_and_the_times_from_here(place: Place) -> None:
    place.put(PATH, OLD)
    outcome = succeed(place.remote, COPIED, OLD)
    assert outcome == Outcome(COPIED, b"", None)
    assert place.holds(b"copy") == MADE
    assert place.holds(PATH) == HELD
    assert place.remote.counts["bytes"] == 0
    assert not temps(place)


def test_a_copy_replaces(place: Place) -> None:
    for path, content in ((PATH, OLD), (b"copy", b"old")):
        place.put(path, content)
    place.remote.trash = Trash(b"stamp", keep_replaced=True)
    succeed(place.remote, msgspec.structs.replace(COPIED, replaces=entry_of(b"old", 0o640)), OLD)
    assert place.holds(b"copy") == MADE
    assert place.holds(join(OWN, b"trash/stamp/copy")) == Held("f", b"old", 0o640, TIME)


@pytest.mark.parametrize("content", [None, OLD + b"x"], ids=["gone", "changed"])
def test_a_copy_of_something_else_is_an_upload(place: Place, content: bytes | None) -> None:
    if content is not None:
        place.put(PATH, content)
    outcome = succeed(place.remote, COPIED, OLD)
    assert outcome.op == Upload(b"copy", COPIED.entry)
    assert effect(outcome.op) == effect(COPIED) == Put(b"copy", COPIED.entry)
    assert outcome.identity == b"identity"
    assert place.holds(b"copy") == MADE
    assert place.remote.counts["bytes"] == len(OLD)


def test_a_patch_replaces_and_sends_what_is_new(place: Place) -> None:
    place.put(PATH, OLD)
    op, delta = patch_of(OLD, NEW)
    place.remote.submit(op, source(NEW), None, delta)
    (outcome,) = place.remote.wait(DEADLINE)
    assert isinstance(outcome.op, Patch)
    assert outcome.op.entry == entry_of(NEW, mtime=TIME + 60)
    assert place.holds(PATH) == Held("f", NEW, 0o644, TIME + 60)
    assert place.remote.counts["bytes"] == delta.sent


def test_a_patch_of_something_else_is_an_upload(place: Place) -> None:
    place.put(PATH, OLD + b"x")
    op, delta = patch_of(OLD, NEW)
    place.remote.submit(op, source(NEW), None, delta)
    (outcome,) = place.remote.wait(DEADLINE)
    assert outcome.op == Upload(PATH, entry_of(NEW, mtime=TIME + 60), op.replaces)
    assert place.holds(PATH) == Held("f", NEW, 0o644, TIME + 60)
    assert place.remote.counts["bytes"] == len(NEW)


def test_a_patch_of_a_file_that_changed_meanwhile_is_torn(place: Place) -> None:
    place.put(PATH, OLD)
    op, delta = patch_of(OLD, NEW)
    place.remote.submit(op, source(NEW[:-1] + b"x"), None, delta)
    (outcome,) = place.remote.wait(DEADLINE)
    assert isinstance(outcome.error, TornRead)
    assert place.holds(PATH) == HELD


def test_a_rename_replaces_what_it_names(place: Place) -> None:
    for path, content in ((b"a", b"1"), (b"b", b"2")):
        place.put(path, content)
    op = Rename(b"b", b"a", entry_of(b"1"), entry_of(b"2"))
    succeed(place.remote, op)
    assert visible(place) == {b"b"}
    assert place.holds(b"b") == Held("f", b"1", 0o640, TIME)
    assert replay({b"a": op.entry, b"b": entry_of(b"2")}, [op]) == {b"b": op.entry}
    assert not temps(place)


def test_a_rename_keeps_what_it_replaces_on_request(place: Place) -> None:
    for path, content in ((b"a", b"1"), (b"b", b"2")):
        place.put(path, content)
    place.remote.trash = Trash(b"stamp", keep_replaced=True)
    succeed(place.remote, Rename(b"b", b"a", entry_of(b"1"), entry_of(b"2")))
    assert visible(place) == {b"b"}
    assert place.holds(join(OWN, b"trash/stamp/b")) == Held("f", b"2", 0o640, TIME)


def test_a_refused_rename_keeps_both(place: Place) -> None:
    place.put(b"a", b"1")
    place.mkdir(b"d")
    for op in (Rename(b"d", b"a", entry_of(b"1"), entry_of(b"2")),):
        refused(place.remote, op)
    assert refused(place.remote, Rename(b"d", b"none", entry_of(b"1"), entry_of(b"2")))
    assert visible(place) == {b"a", b"d"}
    assert place.holds(b"a") == Held("f", b"1", 0o640, TIME)
    assert place.holds(b"d") == Held(DIR, mode=0o755)
    assert not temps(place)


# Copies on a server.


@pytest.mark.parametrize("size", [0, 1, 5 * PIECE, 5 * PIECE + 1, len(OLD)])
@pytest.mark.parametrize("wide", [False, True])
def test_a_copy_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, wide: bool
) -> None:
    monkeypatch.setattr(copies, "WIDE_FROM", 0 if wide else 1 << 40)
    content = OLD[:size]
    with target(tmp_path / "t", FaultConnection(), channels=CHANNELS) as there:
        there.put(PATH, content)
        op = Copy(b"copy", PATH, entry_of(content), entry_of(content, 0o640))
        assert succeed(there.remote, op, content).op == op
        assert there.content(b"copy") == content
        asked = there.connection.seen
        assert asked.count(COPY) == -(-size // (5 * PIECE))
        assert asked.count("OPEN") == asked.count("CLOSE") == (1 + 2 * CHANNELS if wide else 2)
        assert asked.count("WRITE") == 0


@pytest.mark.parametrize("status", [FAILURE, UNSUPPORTED, PERMISSION_DENIED])
def test_a_copy_that_is_refused_anywhere_is_sent(tmp_path: Path, status: int) -> None:
    with target(tmp_path / "plain", FaultConnection(max_write=PIECE)) as plain:
        plain.put(PATH, OLD)
        assert succeed(plain.remote, COPIED, OLD).op == COPIED
        total = len(plain.connection.seen)
    for number in range(total):
        with target(tmp_path / f"{number}", FaultConnection(max_write=PIECE)) as there:
            there.put(PATH, OLD)
            there.connection.arm(at(number, status))
            if number == total - 1 and status != FAILURE:  # what is sent would not get there either
                assert refused(there.remote, COPIED, OLD) == STATUS_CODES[status]
                assert there.holds(b"copy") is None
                assert there.remote.counts["bytes"] == 0
                continue
            succeed(there.remote, COPIED, OLD)
            assert there.holds(b"copy") == MADE
            assert there.holds(PATH) == HELD
            assert there.left == []
            assert there.connection._open == 0


def test_a_copy_is_read_back_on_request(tmp_path: Path) -> None:
    connection = FaultConnection(max_write=PIECE)
    with target(tmp_path / "t", connection, reads_back=True) as there:
        there.put(PATH, OLD[:-1] + b"?")
        assert isinstance(succeed(there.remote, COPIED, OLD).op, Upload)
        assert there.holds(b"copy") == MADE


@posix_only
def test_a_link_that_looks_like_the_source_is_not_followed(there: Target) -> None:
    content = b"elsewhere"
    (there.directory / "elsewhere").write_bytes(b"secrets!!")
    (there.directory / "short").symlink_to("elsewhere")
    os.utime(there.directory / "short", (TIME, TIME), follow_symlinks=False)
    op = Copy(b"copy", b"short", entry_of(content), entry_of(content))
    assert isinstance(succeed(there.remote, op, content).op, Upload)
    assert there.content(b"copy") == content


def test_what_is_read_back_in_short_pieces_counts_once() -> None:
    reading = patch._digest(b"h", len(OLD), 1000)
    requests = next(reading)
    with pytest.raises(StopIteration) as stop:
        while True:
            assert isinstance(requests, list)
            asked = [unpack_from(">QI", request.body, 5) for request in requests]
            requests = reading.send([Data(OLD[at : at + min(n, 700)]) for at, n in asked])
    assert stop.value.value == entry_of(OLD).digest


# Renames on a server.

RENAMED = Rename(b"b", PATH, THERE, entry_of(b"2"))


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN], ids=["atomic", "in steps"])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_rename_that_is_cut_anywhere_loses_no_version(
    tmp_path: Path, without: frozenset[bytes], keeps: bool
) -> None:
    number, total = 0, 1
    while number < total:
        connection = FaultConnection(without=without)
        with target(tmp_path / f"{number}", connection) as there:
            there.remote.trash = Trash(b"stamp", keep_replaced=keeps)
            there.put(PATH, OLD)
            there.put(b"b", b"2")
            connection.arm(at(number - 1, Act.CUT_BEFORE))
            outcome = do(there.remote, RENAMED, b"")
            if not number:  # which was not cut
                total = 1 + len(connection.seen)
            else:
                assert isinstance(outcome.error, LinkLost)
        contents = [p.read_bytes() for p in there.directory.rglob("*") if p.is_file()]
        assert OLD in contents
        assert b"2" in contents or (not keeps and there.content(b"b") == OLD)
        number += 1


@pytest.mark.parametrize("without", [frozenset[bytes](), PLAIN], ids=["atomic", "in steps"])
@pytest.mark.parametrize("status", [FAILURE, PERMISSION_DENIED])
def test_a_rename_that_is_refused_always_keeps_the_source(
    tmp_path: Path, without: frozenset[bytes], status: int
) -> None:
    connection = FaultConnection(without=without)
    with target(tmp_path / "t", connection) as there:
        there.put(PATH, OLD)
        there.put(b"b", b"2")
        connection.arm(lambda _, request: status if "name" in request.kind.lower() else None)
        refused(there.remote, RENAMED)
        assert there.holds(PATH) == HELD
        assert there.content(b"b") == b"2"
        assert there.left == []


@pytest.mark.parametrize("replaces", [None, entry_of(b"2")])
def test_a_file_that_no_rename_moves_is_copied_and_removed(
    there: Target, replaces: Entry | None
) -> None:
    if replaces:
        there.put(b"b", b"2")
    kind = POSIX_RENAME if replaces else "RENAME"
    there.connection.arm(nth(kind, 0, FAILURE))  # as between two file systems
    succeed(there.remote, msgspec.structs.replace(RENAMED, replaces=replaces))
    assert visible(there) == {b"b"}
    assert there.holds(b"b") == HELD
    assert there.remote.counts["bytes"] == 0
    assert there.left == []


def test_a_source_that_cannot_be_removed_is_told(there: Target) -> None:
    there.connection.arm(
        lambda _, request: FAILURE if request.kind in ("RENAME", "REMOVE") else None
    )
    assert refused(there.remote, msgspec.structs.replace(RENAMED, replaces=None)) == "failure"
    assert there.holds(PATH) == there.holds(b"b") == HELD


def changed(there: Target) -> None:
    os.utime(there.directory / "video", (TIME, TIME + 1))


def taken(there: Target) -> None:
    there.put(b"b", b"2")


def without_copies(there: Target) -> None:
    there.connection.arm(lambda _, request: {"RENAME": FAILURE, COPY: FAILURE}.get(request.kind))


@pytest.mark.parametrize("reason", [changed, taken, without_copies])
def test_a_file_that_can_be_neither_renamed_nor_copied_stays(
    there: Target, reason: Callable[[Target], None]
) -> None:
    there.connection.arm(every("RENAME", FAILURE))
    reason(there)
    op: Op = msgspec.structs.replace(RENAMED, replaces=None)
    outcome = do(there.remote, op)
    assert isinstance(outcome.error, RequestError)
    assert (outcome.error.code, outcome.op) == ("failure", op)
    assert there.content() == OLD
    assert visible(there) == ({PATH, b"b"} if reason is taken else {PATH})
    assert there.left == []


def test_a_directory_that_no_rename_moves_stays(there: Target) -> None:
    there.mkdir(b"d")
    there.connection.arm(every("RENAME", FAILURE))
    assert refused(there.remote, Rename(b"e", b"d", Entry(DIR, mode=0o755))) == "failure"
    assert there.connection.seen == ["RENAME"]


# Over SSH.


def patched_over(
    endpoint: Endpoint, directory: Path, path: bytes, old: bytes, new: bytes
) -> Outcome:
    """Patch a file there over SSH, with several channels; what came of it."""
    (directory / "video").write_bytes(old)
    os.utime(directory / "video", (TIME, TIME))
    connection = connect(endpoint, prompter=Person(PASSWORD), environ={})
    with client_over(connection, channels=CHANNELS) as client:
        remote = SftpRemote(client, path, "nonce")
        remote.prepare()
        op, delta = patch_of(old, new)
        remote.submit(op, source(new), None, delta)
        (outcome,) = remote.wait(DEADLINE)
        expected = delta.sent if isinstance(outcome.op, Patch) else len(new)
        assert remote.counts["bytes"] == expected
    assert outcome.error is None
    assert (directory / "video").read_bytes() == new
    return outcome


@posix_only
def test_a_large_patch_through_a_real_sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch, "COPY_PIECE", MIB)
    old = noise(64 * MIB)
    with running_sshd(tmp_path / "sshd") as sshd:
        new = noise(MIB, 1) + old
        outcome = patched_over(sshd.endpoint(), sshd.home, os.fsencode(sshd.home), old, new)
        assert isinstance(outcome.op, Patch)
        assert outcome.op.sends == MIB
        assert outcome.signature == signed(new)


@posix_only
def test_what_skynet_serves_is_patched_too(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    options = ServeOptions(served, tmp_path / "state", password=PASSWORD)
    with serving(options) as announced:
        known_hosts, config = tmp_path / "known_hosts", tmp_path / "ssh_config"
        known_hosts.write_text(announced.known_hosts)
        config.write_text("")
        endpoint = Endpoint(
            *("127.0.0.1", announced.user, port_of(announced)),
            known_hosts=known_hosts,
            ssh_config=config,
        )
        assert isinstance(patched_over(endpoint, served, b"/", OLD, NEW).op, Patch)
