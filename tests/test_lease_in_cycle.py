"""The lease in a cycle: it is kept alive in every phase, and who lost it writes no manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from skynet import ledger
from skynet.errors import OwnedError
from skynet.index import Index
from skynet.lease import BEAT_SECONDS, EXPIRY_SECONDS
from skynet.remote import SftpRemote
from skynet.tree import Entry
from tests.support.world import World

THEIRS = b"token elsewhere 4711 0000000001\n"
Entries = Callable[[Index], Iterator[tuple[bytes, Entry]]]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path, complete_sync=True)
    made.put({"a": b"1", "d": {"b": b"22", "c": b"333"}})
    made.sync()
    made.put({"new": b"new"})
    return made


@pytest.fixture
def compacting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cycle that does something compacts the manifest."""
    monkeypatch.setattr(ledger, "wants_compaction", lambda head: True)


def taken_over(world: World) -> None:
    """Another has the lease, and for so long that its file shows a later time."""
    lease = world.remote / ".skynet/lease"
    lease.write_bytes(THEIRS)
    later = lease.stat().st_mtime + EXPIRY_SECONDS
    os.utime(lease, (later, later))


def manifest_of(world: World) -> dict[str, bytes]:
    own = world.remote / ".skynet"
    return {path.name: path.read_bytes() for path in [own / "manifest", *own.glob("log-*")]}


@pytest.mark.usefixtures("compacting")
def test_a_run_that_fell_silent_while_it_compacted_leaves_the_manifest_of_its_successor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Entries = Index.entries
    theirs: dict[str, bytes] = {}

    def twin_takes_over() -> None:
        world.put({"newer": b"newer"})
        assert world.twin().sync().outcome == "changed"
        theirs.update(manifest_of(world))

    def silent(index: Index) -> Iterator[tuple[bytes, Entry]]:
        monkeypatch.setattr(Index, "entries", plain)
        entries = plain(index)
        yield next(entries)
        twin_takes_over()
        world.monotonic += EXPIRY_SECONDS + 1
        yield from entries

    monkeypatch.setattr(Index, "entries", silent)
    with pytest.raises(OwnedError) as caught:
        world.sync()
    assert caught.value.code == "lease-lost"
    found = manifest_of(world)
    assert found["manifest"] == theirs["manifest"]
    assert found.items() >= theirs.items()
    world.quiet(audit=False)
    world.check()


@pytest.mark.usefixtures("compacting")
def test_a_run_that_compacts_for_long_keeps_its_lease_alive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Entries = Index.entries
    seen: set[bytes] = set()

    def slow(index: Index) -> Iterator[tuple[bytes, Entry]]:
        for item in plain(index):
            world.monotonic += BEAT_SECONDS
            seen.add((world.remote / ".skynet/lease").read_bytes())
            yield item

    monkeypatch.setattr(Index, "entries", slow)
    monkeypatch.setattr(ledger, "BEAT_ENTRIES", 1)
    assert world.sync().outcome == "changed"
    assert len(seen) == 5, "one beat for each entry"
    world.quiet(audit=False)


def test_a_lease_lost_while_temporary_files_were_cleared_ends_the_cycle(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = world.remote / ".skynet/lease"
    lease.write_bytes(b"token gone 4711 0000000001\n")
    before, plain = manifest_of(world), SftpRemote.clear_temps

    def slow(remote: SftpRemote, strays: Sequence[bytes], keep: Sequence[bytes]) -> int:
        taken_over(world)
        world.monotonic += EXPIRY_SECONDS + 1
        return plain(remote, strays, keep)

    monkeypatch.setattr(SftpRemote, "clear_temps", slow)
    with pytest.raises(OwnedError) as caught:
        world.sync()
    assert caught.value.code == "lease-lost"
    assert lease.read_bytes() == THEIRS
    assert manifest_of(world) == before
    assert "new" not in world.files(), "nothing was done"


def test_a_lease_lost_in_the_end_lets_no_trash_be_emptied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired: list[bytes] = []
    plain = ledger.Ledger.compact

    def slow(book: ledger.Ledger, beat: Callable[[], None]) -> None:
        plain(book, beat)
        taken_over(world)
        world.monotonic += EXPIRY_SECONDS + 1

    monkeypatch.setattr(ledger.Ledger, "compact", slow)
    monkeypatch.setattr(SftpRemote, "expire_trash", lambda *_: lambda _: expired.append(b"old"))
    with pytest.raises(OwnedError):
        world.sync()
    assert not expired
