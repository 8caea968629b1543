"""`skynet daemon` as a person meets it: a real process, a real sshd, real directories."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.keeping import DEADLINE, Household, Kept, household

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs an OpenSSH server")

MIB = 1 << 20


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Household]:
    """A daemon that keeps a mirror of two files, which is in sync."""
    with household(tmp_path) as house:
        house.only.put({"one.txt": b"one", "sub/two.txt": b"two two"})
        house.begin()
        house.synced()
        yield house


# What changes here changes there.


def test_what_is_new_edited_and_deleted(house: Household) -> None:
    kept = house.only
    kept.put({"new.txt": b"new", "one.txt": b"another one", "deep/er/file": b""})
    house.synced()
    (kept.source / "new.txt").unlink()
    kept.put({"last": b"so the daemon looked after the delete"})
    house.until((kept.target / "last").exists)
    assert (kept.target / "new.txt").read_bytes() == b"new"
    kept.put({"new.txt": b"back"})
    house.finish()
    assert kept.trashed() == {}


def test_a_burst_of_files_is_sent_once(house: Household) -> None:
    kept = house.only
    before = len(kept.records())
    kept.put({f"{number % 20}/{number}": b"%d" % number for number in range(2000)})
    house.synced()
    assert kept.done(before)["upload"] == 2000
    house.finish()


def test_a_renamed_directory_is_one_rename(house: Household) -> None:
    kept = house.only
    kept.put({f"pictures/{number}": os.urandom(1000) for number in range(100)})
    house.synced()
    before, sent = len(kept.records()), house.link.up
    (kept.source / "pictures").rename(kept.source / "sub" / "photos")
    house.synced()
    assert kept.done(before) == {"rename": 1}
    assert kept.records()[-1].ops == ["rename sub/photos from pictures"]
    assert house.link.up - sent < 20_000
    house.finish()


@pytest.mark.e2e_long
@pytest.mark.timeout(180)
def test_more_than_the_kernel_tells_of_is_mirrored_all_the_same(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        kept = house.only
        places = [kept.source / f"{number:02d}" for number in range(30)]
        for place in places:
            place.mkdir()
        house.begin()
        house.synced()
        # It reads nothing meanwhile, so the kernel's queue overflows on any machine.
        house.process.send_signal(signal.SIGSTOP)
        for number in range(30_000):
            (places[number % 30] / f"{number}").touch()
        house.process.send_signal(signal.SIGCONT)
        house.until(kept.is_in_sync, 2 * DEADLINE)
        assert "More changed at once" in house.log
        house.finish()


@pytest.mark.e2e_long
def test_a_video_that_grows_slowly_keeps_no_picture_waiting(house: Household) -> None:
    kept = house.only
    size, steps = 64 * MIB, 40
    shown = kept.target / "video"
    partial: list[int] = []
    pictures_before_video = 0
    block = os.urandom(size // steps)
    sent = house.link.up
    with (kept.source / "video").open("wb") as video:
        for step in range(steps):
            video.write(block)
            video.flush()
            kept.put({f"picture{n}": os.urandom(3000) for n in range(step * 100 // steps, 100)})
            if shown.exists():
                partial.append(shown.stat().st_size)
            time.sleep(0.1)
        house.until(lambda: len(list(kept.target.glob("picture*"))) == 100)
        pictures_before_video = not shown.exists()
    house.until(shown.exists)
    assert shown.stat().st_size == video_size(kept)
    assert (partial, pictures_before_video) == ([], True)
    house.synced()
    assert house.link.up - sent < 1.1 * video_size(kept) + 4 * MIB
    house.finish()


def video_size(kept: Kept) -> int:
    return (kept.source / "video").stat().st_size


# Held plans, and a root that is not what it was.


@pytest.fixture
def complete(tmp_path: Path) -> Iterator[Household]:
    """A complete mirror of ten files in a directory, which is in sync."""
    with household(tmp_path, complete_sync="true") as house:
        house.only.put({f"dir/{number}": b"%d" % number for number in range(10)})
        house.begin()
        house.synced()
        yield house


def test_an_emptied_source_is_held_until_it_is_full_again(complete: Household) -> None:
    kept = complete.only
    (kept.source / "dir").rename(complete.directory / "elsewhere")
    complete.until(kept.is_held)
    assert complete.run("status").code == 4
    assert "ERROR source: HELD: The source is empty" in complete.log
    kept.put({"new": b"uploads go on"})
    complete.until((kept.target / "new").exists)
    complete.kill()
    complete.begin()
    complete.until(kept.is_held)
    assert len(list((kept.target / "dir").iterdir())) == 10
    (complete.directory / "elsewhere").rename(kept.source / "dir")
    kept.ask("sync-now")
    kept.put({"last": b"for which it needs the lease"})
    complete.synced()
    assert complete.run("status").code == 0
    assert kept.trashed() == {}
    complete.finish()
    # The ten of the beginning and two more. What was there and not recorded when it was killed, and
    # is too young to be known by its times, may be sent again; never the ten.
    assert kept.done()["upload"] <= 15


def test_what_is_held_is_done_when_it_is_approved(complete: Household) -> None:
    kept = complete.only
    kept.put({"stays": b"so the source is not empty"})
    complete.synced()
    shutil.rmtree(kept.source / "dir")
    complete.until(kept.is_held)
    kept.put({"new": b"uploads go on"})
    complete.until((kept.target / "new").exists)
    assert kept.trashed() == {}
    held = complete.run("status", "--json")
    assert held.code == 4
    approved = complete.run("approve", held.json["held"]["approve"])
    assert approved.code == 0, approved
    complete.synced()
    assert complete.run("status").code == 0
    assert kept.trashed().keys() == {f"dir/{number}" for number in range(10)}
    complete.finish()


def test_a_source_that_is_moved_away_is_waited_for(complete: Household) -> None:
    kept = complete.only
    kept.source.rename(complete.directory / "unplugged")
    complete.until(lambda: is_told_to_be_away(kept))
    assert complete.run("status").code == 1
    (complete.directory / "unplugged").rename(kept.source)
    kept.put({"new": b"since it is back"})
    kept.ask("sync-now")
    complete.synced()
    assert kept.trashed() == {}
    complete.finish()
    assert kept.done()["upload"] == 11


def test_another_directory_in_the_place_of_the_source_deletes_nothing(complete: Household) -> None:
    kept = complete.only
    kept.source.rename(complete.directory / "unplugged")
    kept.put({"other": b"another disk"})
    complete.until(kept.is_held)
    complete.until((kept.target / "other").exists)
    assert kept.trashed() == {}
    assert complete.run("status").code == 4
    shutil.rmtree(kept.source)
    (complete.directory / "unplugged").rename(kept.source)
    kept.put({"other": b"another disk"})
    complete.synced()
    assert kept.trashed() == {}
    complete.finish()


def is_told_to_be_away(kept: Kept) -> bool:
    status = kept.status
    return status is not None and bool(status.problem_count or status.offline)


# Steering.


def test_a_pause_outlives_the_daemon(house: Household) -> None:
    kept = house.only
    assert house.run("pause").code == 0
    house.until(lambda: kept.is_state("paused"))
    kept.put({"new": b"new"})
    assert house.run("sync-now").code == 1
    assert house.end() == 0
    house.begin()
    house.until(lambda: kept.is_state("paused"))
    kept.put({"newer": b"newer"})
    connections = house.link.connections
    assert house.run("status").code == 1
    assert not (kept.target / "new").exists()
    assert house.link.connections == connections
    assert house.run("resume").code == 0
    house.synced()
    assert house.run("sync-now").code == 0
    house.finish()


def only_one_is_left(kept: Kept) -> bool:
    """Whether all is acknowledged but the file that is being sent."""
    status = kept.status
    return status is not None and status.backlog_files == 1 and bool(status.transfers)


def test_what_was_done_before_a_pause_is_in_the_log(tmp_path: Path) -> None:
    with household(tmp_path, bwlimit='"4M"') as house:
        kept = house.only
        kept.put({f"{number}": b"small" for number in range(20)} | {"large": os.urandom(64 * MIB)})
        house.begin()
        house.until(lambda: only_one_is_left(kept))
        assert kept.records() == []
        kept.ask("pause")
        house.until(lambda: kept.is_state("paused"))
        (record,) = kept.records()
        assert (record.outcome, record.done) == ("failed", {"upload": 20, "bytes": 100})
        assert record.error.startswith("interrupted: ")
        assert "20 uploaded (100 B) until it broke off" in house.log
        assert house.end() == 0


def test_it_can_be_paused_while_it_connects_to_a_silent_server(tmp_path: Path) -> None:
    with household(tmp_path, connect_timeout="600") as house:  # so it gives up in no test's time
        house.begin()
        house.synced()
        kept, before = house.only, house.link.connections
        house.link.stall()
        house.link.cut()
        kept.put({"new": b"so that it notices"})
        house.until(lambda: house.link.connections > before)
        assert house.run("pause").code == 0
        house.until(lambda: kept.is_state("paused"))
        house.link.flow()
        assert house.run("resume").code == 0
        house.finish()


def test_a_second_daemon_is_refused_and_told_whose_mirror_it_is(house: Household) -> None:
    second = house.run("daemon")
    assert second.code == 5
    assert f"{house.only.name}: Another skynet (process {house.process.pid}) works" in second.text
    assert house.run("sync", "--once").code == 5
    house.only.put({"new": b"the first goes on"})
    house.finish()


def test_a_state_directory_that_is_deleted_costs_no_more_than_a_look(house: Household) -> None:
    kept = house.only
    shutil.rmtree(kept.state.parent)
    house.until(lambda: kept.is_state("idle"))
    assert house.run("daemon").code == 5
    assert house.run("sync-now").code == 0
    kept.put({"new": b"the first goes on"})
    house.synced()
    assert kept.done() == {"upload": 1, "bytes": 17}
    house.finish()


def test_mirrors_do_not_touch_each_other(tmp_path: Path) -> None:
    with household(tmp_path, "well", "held", "broken", complete_sync="true") as house:
        well, held, broken = house.mirrors.values()
        for kept in house.mirrors.values():
            kept.put({f"{number}": b"x" for number in range(5)})
        broken.target.write_bytes(b"no directory")
        house.begin()
        house.until(held.is_in_sync)
        shutil.rmtree(held.source)
        held.source.mkdir()
        house.until(held.is_held)
        house.until(lambda: broken.is_state("offline"))
        well.put({"new": b"new"})
        house.until(well.is_in_sync)
        codes = [house.run("status", name).code for name in house.mirrors]
        assert codes == [0, 4, 1]
        assert len(held.trashed()) == 0
        broken.target.unlink()
        house.run("sync-now", "broken")
        house.until(broken.is_in_sync)
        assert house.end() == 0


def test_the_foreground_does_the_same_until_ctrl_c(tmp_path: Path) -> None:
    with household(tmp_path) as house:
        house.only.put({"one": b"1"})
        house.begin("sync")
        house.synced()
        house.only.put({"two": b"2"})
        house.synced()
        assert house.end(signal.SIGINT) == 130
        assert "1 uploaded" in house.log
        assert "Traceback" not in house.log
        assert not (house.only.target / ".skynet" / "lease").exists()


def test_unlock_takes_the_lease_of_who_is_gone(house: Household) -> None:
    kept = house.only
    lease = kept.target / ".skynet" / "lease"
    assert house.run("unlock").code == 5  # the daemon lives
    house.kill()
    theirs = b"token elsewhere 5 0000000007 \n"
    for content in (lease.read_bytes(), theirs):
        lease.write_bytes(content)
        unlocked = house.run("unlock", *(["--yes"] if content == theirs else []))
        assert unlocked.code == 0, unlocked
        assert "was taken away" in unlocked.out
    house.begin()
    kept.put({"new": b"new"})
    house.finish()


# The end.


def grow(house: Household) -> None:
    """A large upload is under way, over a slow link."""
    house.link.rate = 4 * MIB
    with (house.only.source / "large").open("wb") as file:
        file.truncate(256 * MIB)
    house.until(lambda: any(temp.stat().st_size for temp in house.only.temps()))


def disconnect(house: Household) -> None:
    house.link.refuses = True
    house.link.cut()
    house.only.put({"new": b"so that it notices"})
    house.until(lambda: house.only.is_state("offline"))


def stall(house: Household) -> None:
    house.link.stall()
    house.only.put({"new": b"new"})
    house.until(lambda: house.only.is_state("syncing"))


def do_nothing(house: Household) -> None:
    """It is idle."""


@pytest.mark.e2e_long
@pytest.mark.parametrize(
    ("busy", "number"),
    [(busy, signal.SIGTERM) for busy in (do_nothing, grow, disconnect, stall)]
    + [(do_nothing, signal.SIGINT)],
)
def test_it_ends_in_time_whatever_it_does(
    house: Household, busy: Callable[[Household], None], number: signal.Signals
) -> None:
    busy(house)
    assert house.end(number) == (130 if number == signal.SIGINT else 0)
    assert house.log.endswith(f"INFO skynet ends: {number.name}\n")
    assert "Traceback" not in house.log
    house.link.flow()
    house.link.rate = float("inf")
    house.begin()
    house.only.put({"last": b"for which it needs the lease"})
    house.finish()


def test_a_second_signal_ends_it_at_once(house: Household) -> None:
    stall(house)
    house.process.send_signal(signal.SIGINT)  # another, since two of a kind may count as one
    assert house.end(signal.SIGTERM) in {128 + signal.SIGINT, 128 + signal.SIGTERM}
