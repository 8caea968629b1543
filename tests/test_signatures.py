"""Signatures are found again by content, bounded, and never in the way when they are damaged."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skynet import hints, signatures
from skynet.blocks import MAX_BLOCKS, MIN_BLOCK, PATCH_FROM, Signature, strong
from skynet.monitor import Event, Notice
from skynet.remote import Intent, Outcome
from skynet.sftp.pieces import Mark
from skynet.signatures import Signatures
from tests.support.databases import execute
from tests.support.faults import FaultConnection
from tests.support.patching import target
from tests.support.targets import DEADLINE, source, succeed, upload
from tests.support.versions import MIB, noise, signed
from tests.support.world import frozen

CONTENT = noise(50_000)
SIGNATURE = signed(CONTENT)
OTHER = signed(noise(40_000, 2))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "signatures"


class Kept:
    """Signatures in one directory, opened again and again, and what they had to tell."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []

    def get(self, wanted: Signature) -> Signature | None:
        with Signatures.open(self.directory, self.events.append) as kept:
            return kept.get(wanted.digest, wanted.size)

    def put(self, *kept_ones: Signature) -> None:
        with Signatures.open(self.directory, self.events.append) as kept:
            for each in kept_ones:
                kept.put(each.digest, each)

    @property
    def notices(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def kept(directory: Path) -> Kept:
    return Kept(directory)


def leave(kept: Kept) -> None:
    """Nothing happens to them."""


def let_in(kept: Kept) -> None:
    """As they are for another user, and after a careless copy."""
    kept.directory.chmod(0o755)


def spoil(kept: Kept) -> None:
    kept.directory.joinpath("cache.db").write_bytes(b"no database")


@pytest.mark.parametrize("happens", [leave, let_in, spoil])
def test_what_is_only_read_stays_as_it_is(kept: Kept, happens: Callable[[Kept], None]) -> None:
    kept.put(SIGNATURE)
    happens(kept)
    before = frozen(kept.directory.parent)
    with Signatures.open(kept.directory, kept.events.append, read_only=True) as opened:
        found = opened.get(SIGNATURE.digest, SIGNATURE.size)
        assert found == (None if happens is spoil else SIGNATURE)
        assert opened.get(OTHER.digest, OTHER.size) is None
    assert frozen(kept.directory.parent) == before
    assert not kept.events


def test_what_is_being_written_may_be_read_meanwhile(kept: Kept) -> None:
    with Signatures.open(kept.directory, kept.events.append) as writing:
        for each in (SIGNATURE, OTHER):
            writing.put(each.digest, each)
            with Signatures.open(kept.directory, kept.events.append, read_only=True) as opened:
                assert opened.get(each.digest, each.size) == each
    assert not kept.events


def test_a_signature_is_found_by_its_content(kept: Kept) -> None:
    kept.put(SIGNATURE, OTHER)
    kept.put(SIGNATURE)
    assert kept.get(SIGNATURE) == SIGNATURE
    assert kept.get(OTHER) == OTHER
    with Signatures.open(kept.directory) as opened:
        assert opened.get(SIGNATURE.digest, SIGNATURE.size + 1) is None
        assert opened.get(b"x" * 16, SIGNATURE.size) is None
    assert kept.notices == []


def test_without_a_directory_none_are_kept() -> None:
    with Signatures.open(None) as opened:
        opened.put(SIGNATURE.digest, SIGNATURE)
        assert opened.get(SIGNATURE.digest, SIGNATURE.size) is None


def test_looking_makes_nothing(kept: Kept) -> None:
    assert kept.get(SIGNATURE) is None
    assert not kept.directory.exists()


def test_it_is_nobody_elses(kept: Kept) -> None:
    kept.put(SIGNATURE)
    if os.name == "posix":
        assert kept.directory.stat().st_mode & 0o777 == 0o700
    assert all(path.name.startswith("cache.db") for path in kept.directory.iterdir())


def big(number: int) -> Signature:
    """As long as a signature may be."""
    digest = number.to_bytes(16, "big")
    return Signature(
        MAX_BLOCKS * MIN_BLOCK, MIN_BLOCK, digest, bytes(4 * MAX_BLOCKS), bytes(16 * MAX_BLOCKS)
    )


def test_the_least_recently_used_go(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 40 << 20
    monkeypatch.setattr(signatures, "_BOUNDS", signatures._BOUNDS._replace(keep=limit))
    kept.put(SIGNATURE, *(signed(noise(5000, seed)) for seed in range(200)))
    for number in range(30):
        kept.put(big(number))
        assert kept.get(SIGNATURE) == SIGNATURE  # used, so it stays
        assert sum(path.stat().st_size for path in kept.directory.iterdir()) <= limit + (8 << 20)
    assert kept.get(big(0)) is None
    assert kept.get(big(29)) == big(29)
    assert kept.notices == []


def rubbish(kept: Kept) -> None:
    (kept.directory / "cache.db").write_bytes(b"rubbish" * 1000)


def huge(kept: Kept) -> None:
    os.truncate(kept.directory / "cache.db", signatures.MAX_KEPT * 2)


def open_to_all(kept: Kept) -> None:
    kept.directory.chmod(0o755)


DAMAGES: dict[str, Callable[[Kept], None]] = {
    "rubbish": rubbish,
    "huge": huge,
    "open to all": open_to_all,
    "cut": lambda kept: execute(kept.directory, "UPDATE Cache SET value = substr(value, 1, 99)"),
    "of other content": lambda kept: execute(
        kept.directory,
        "UPDATE Cache SET value = (SELECT value FROM Cache ORDER BY rowid DESC LIMIT 1)",
    ),
    "text": lambda kept: execute(kept.directory, "UPDATE Cache SET value = 'signature'"),
    "long": lambda kept: execute(kept.directory, "UPDATE Cache SET value = zeroblob(3000000)"),
    "pickled": lambda kept: execute(kept.directory, "UPDATE Cache SET mode = 4"),
    "in a file": lambda kept: execute(
        kept.directory, "UPDATE Cache SET mode = 2, filename = '../treasure'"
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot be removed while it is open")
@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_wrong_they_are_begun_anew(kept: Kept, damage: str) -> None:
    treasure = kept.directory.parent / "treasure"
    treasure.write_bytes(b"gold")
    kept.put(SIGNATURE, OTHER)
    DAMAGES[damage](kept)
    assert kept.get(SIGNATURE) is None
    assert kept.notices == ["signatures-damaged"]
    kept.put(SIGNATURE)
    assert kept.get(SIGNATURE) == SIGNATURE
    assert kept.notices == ["signatures-damaged"]
    assert treasure.read_bytes() == b"gold"


def test_what_cannot_be_kept_is_told_and_not_tried_for_ever(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(hints, "Cache", full)
    kept.put(*[SIGNATURE] * 10)
    assert kept.notices == ["signatures-damaged"] * hints.MAX_FAILURES


def test_a_disk_that_has_room_again_is_used_again_after_a_while(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    now = 1000.0
    used: list[float] = []
    errors: list[Exception] = []
    found = hints.Hints(kept.directory, hints.Bounds(100, MIB), errors.append, clock=lambda: now)

    def use(_: object) -> None:
        used.append(now)

    with monkeypatch.context() as patch:
        patch.setattr(hints, "Cache", full)
        for _ in range(10):
            found.use(use)
            now += 1.0
    for _ in range(10):
        found.use(use)
        now += hints.FORGIVE_SECONDS / 5
    found.close()
    assert used == [now - hints.FORGIVE_SECONDS / 5 * left for left in range(5, 0, -1)]
    assert len(errors) == hints.MAX_FAILURES


# Made while sending.


def sent(directory: Path, content: bytes, connection: FaultConnection) -> Outcome:
    """Upload over several channels."""
    with target(directory, connection, channels=3) as there:
        outcome = succeed(there.remote, upload(b"video", content), content)
        assert there.content() == content
        return outcome


@pytest.mark.parametrize("size", [PATCH_FROM - 1, PATCH_FROM, 9 * MIB + 5])
def test_an_upload_makes_the_signature_of_a_file_that_may_be_patched(
    tmp_path: Path, size: int
) -> None:
    content = noise(size)
    expected = signed(content) if size >= PATCH_FROM else None
    assert sent(tmp_path / "t", content, FaultConnection()).signature == expected


def test_no_signature_is_made_for_a_server_that_cannot_copy(tmp_path: Path) -> None:
    connection = FaultConnection(without=frozenset({b"copy-data"}))
    assert sent(tmp_path / "t", noise(2 * MIB), connection).signature is None


def test_an_upload_that_is_gone_on_with_makes_the_signature_of_the_whole(tmp_path: Path) -> None:
    content = noise(3 * MIB)
    half = Mark(MIB, strong(content[:MIB]))
    with target(tmp_path / "t", FaultConnection()) as there:
        temp = there.directory / ".skynet/tmp/n-1"
        temp.write_bytes(content[:MIB])
        intent = Intent(b"identity", len(content), b"tmp/n-1", half.length, half.digest)
        there.remote.submit(upload(b"video", content), source(content), intent)
        (outcome,) = there.remote.wait(DEADLINE)
        assert there.remote.counts["bytes"] == 2 * MIB
        assert outcome.signature == signed(content)
