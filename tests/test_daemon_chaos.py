"""The daemon when everything breaks: links, servers and itself. A real sshd, real kills.

SKYNET_KILLS: how many in a random history (10; `nox -s chaos`: 200).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.keeping import Household, Kept, household
from tests.support.living import Living

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server"),
    pytest.mark.e2e_long,
]

MIB = 1 << 20
KILLS = int(os.environ.get("SKYNET_KILLS", "10"))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Household]:
    """A daemon that keeps a mirror, which is in sync; a silent server is noticed soon."""
    with household(tmp_path, timeout="2", connect_timeout="2") as house:
        house.only.put({"one.txt": b"one", "sub/two.txt": b"two two"})
        house.begin()
        house.synced()
        yield house


def is_offline(kept: Kept) -> Callable[[], bool]:
    return lambda: kept.is_state("offline")


# Links and servers.


def test_a_large_upload_goes_on_after_a_cut(house: Household) -> None:
    kept = house.only
    size = 96 * MIB
    house.link.rate = 32 * MIB
    sent = house.link.up
    house.link.cut_after(64 * MIB)
    kept.put({"large": os.urandom(size)})
    house.until(is_offline(kept))
    assert not (kept.target / "large").exists()
    house.synced()
    assert house.link.up - sent < 1.25 * size
    house.finish()


def test_a_server_that_is_killed_and_comes_back(house: Household) -> None:
    kept = house.only
    house.server.kill_sessions()
    kept.put({"new": b"between two sessions"})
    house.synced()
    house.server.stop()
    kept.put({"newer": b"while the server is down"})
    (kept.source / "sub").rename(kept.source / "moved")
    house.until(is_offline(kept))
    before = len(kept.records())
    house.server.start()
    house.synced()
    assert kept.done(before) == {"upload": 1, "rename": 1, "bytes": 24}
    house.finish()


def test_a_server_that_falls_silent_is_given_up_and_tried_again(house: Household) -> None:
    kept = house.only
    house.link.stall()
    kept.put({"new": b"new"})
    house.until(is_offline(kept))
    assert not (kept.target / "new").exists()
    status = kept.status
    assert status is not None
    assert "answer" in status.offline
    house.link.cut()
    house.link.flow()
    house.synced()
    house.finish()


# The daemon itself.


def test_what_happened_before_a_kill_while_offline_is_not_forgotten(house: Household) -> None:
    kept = house.only
    kept.put({f"{number % 50}/{number}": b"%d" % number for number in range(5000)})
    house.synced()
    before = len(kept.records())
    house.link.refuses = True
    house.link.cut()
    for number in range(5000):
        path = kept.source / f"{number % 50}" / f"{number}"
        if number % 100:
            path.write_bytes(b"%d again" % number)
        else:
            path.unlink()
    (kept.source / "49").rename(kept.source / "forty-nine")
    house.until(lambda: kept.is_state("offline") and seen_backlog(kept))
    house.kill()
    (kept.source / "one.txt").write_bytes(b"changed while nobody watched")
    house.link.flow()
    house.begin()
    house.until((kept.target / "forty-nine").exists)
    house.until(lambda: kept.done(before).get("upload", 0) == 4951)
    assert kept.done(before)["rename"] == 1
    assert len(list(kept.target.rglob("*00"))) > 0  # deletes are not mirrored here
    assert house.end() == 0


def seen_backlog(kept: Kept) -> bool:
    status = kept.status
    return status is not None and (status.backlog_files > 40 or status.backlog_is_whole)


def stop_server(house: Household) -> None:
    house.server.stop()
    house.server.start()


def kill_daemon(house: Household) -> None:
    house.kill()
    house.begin()


def cut_upload(house: Household) -> None:
    house.link.cut_after(random.Random(house.link.up).randint(1, 40_000))


MISFORTUNES: list[Callable[[Household], None]] = [
    *(kill_daemon, kill_daemon),
    *(stop_server, lambda house: house.server.kill_sessions(), cut_upload),
]


@pytest.mark.timeout(60 + 15 * KILLS)
@pytest.mark.parametrize("seed", [random.randrange(10**6)])
def test_random_kills_in_a_random_history(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with household(tmp_path, complete_sync="true", max_delete='["100%", 1000000]') as house:
        kept = house.only
        kept.put({f"still/{number}": b"%d" % number for number in range(20)})
        living = Living(kept.source, rng)
        house.begin()
        house.synced()
        first = inodes(kept)
        for _ in range(KILLS):
            for _ in range(rng.randint(0, 60)):
                living.step()
                time.sleep(rng.choice([0, 0, 0.001, 0.02]))
            time.sleep(rng.random())
            rng.choice(MISFORTUNES)(house)
        kept.put({"last": b"for which it needs the lease"})
        house.synced()
        assert inodes(kept) == first
        assert living.never_touched().isdisjoint(kept.trashed().values())
        house.finish()


def inodes(kept: Kept) -> dict[str, int]:
    """What nobody touches here is neither sent again nor removed there."""
    return {path.name: path.stat().st_ino for path in (kept.target / "still").iterdir()}
