"""Cycles that break off at every request and every record, and cycles that meet each other.

After each: no path of the remote holds anything but a version its local file really had, nothing
is gone that should be there; and one clean run makes all equal and leaves no temporary file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skynet import apply
from skynet.errors import LinkLost, OwnedError, SkynetError
from skynet.index import Index
from skynet.manifest import Manifest
from skynet.monitor import Event, Notice, Progress
from tests.support.faults import POSIX_RENAME, Act, at, every, no_fault
from tests.support.frames import Asked
from tests.support.sessions import sitting
from tests.support.world import Died, World

OLD = {
    "same": b"same",
    "edited": b"old version",
    "moved": b"moved content",
    "gone": b"gone content",
    "d": {"old": b"in a directory", "stays": b"1"},
    "x": {"only": b"2"},
}
NEW: dict[str, Any] = {
    "edited": b"new version, longer",
    "large": b"0123456789" * 60_000,
    "n": {"new": b"new"},
    "gone": None,
    "x": None,
}


def before_the_cycle(base: Path) -> World:
    base.mkdir()
    world = World(base, complete_sync=True)
    world.put(OLD)
    world.sync()
    change(world)
    return world


def change(world: World) -> None:
    world.put(NEW)
    world.move("moved", "n/moved")


def first_contact(base: Path) -> World:
    base.mkdir()
    world = World(base, complete_sync=True)
    world.put({"a": b"1", "d": {"b": b"22", "c": b"3" * 300_000}})
    return world


def check_half_way(world: World, before: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """Every path holds an old or the new version, and none that is wanted has gone."""
    found = world.files()
    for path, content in found.items():
        assert content in (before.get(path), wanted.get(path)), path
    for path in before.keys() & wanted.keys():
        assert path in found, f"{path} has gone"
    contents = [*found.values(), *world.trashed().values()]
    for path, content in before.items():
        if path not in wanted:
            assert content in contents, f"{path} was destroyed"


def wanted_files(world: World) -> dict[str, bytes]:
    return {
        os.path.relpath(path, world.local): path.read_bytes()
        for path in sorted(world.local.rglob("*"))
        if path.is_file()
    }


def recover(world: World, *, audit: bool) -> None:
    world.fault = lambda number, request: None
    report = world.sync(audit=audit)
    assert report.outcome in ("changed", "in-sync"), (report.problems, report.hazards)
    world.check()
    # Where nothing is left to do nothing is written, and an abandoned lease stays.
    assert report.outcome == "in-sync" or not (world.remote / ".skynet/lease").exists()
    world.quiet()


def survive(world: World, break_off: Callable[[], None], *, audit: bool) -> None:
    before, wanted = world.files(), wanted_files(world)
    break_off()
    check_half_way(world, before, wanted)
    recover(world, audit=audit)


@pytest.mark.parametrize("make", [before_the_cycle, first_contact])
@pytest.mark.parametrize("act", [Act.CUT_BEFORE, Act.CUT_AFTER])
def test_the_link_is_cut_at_every_request(
    tmp_path: Path, make: Callable[[Path], World], act: Act
) -> None:
    whole = make(tmp_path / "whole")
    whole.sync()
    total = len(whole.asked)
    assert total > 30
    for number in range(total):
        world = make(tmp_path / str(number))
        world.fault = at(number, act)

        def cut(world: World = world) -> None:
            with pytest.raises(SkynetError):
                world.sync()

        survive(world, cut, audit=number % 2 == 0)


@pytest.mark.parametrize("status", [3, 4], ids=["permission-denied", "failure"])
def test_every_request_is_refused_once(tmp_path: Path, status: int) -> None:
    whole = before_the_cycle(tmp_path / "whole")
    whole.sync()
    for number in range(len(whole.asked)):
        world = before_the_cycle(tmp_path / str(number))
        world.fault = at(number, status)

        def refuse(world: World = world) -> None:
            try:
                world.sync()
            except SkynetError:
                return

        survive(world, refuse, audit=True)


class Breaker:
    """Makes the n-th call of a method, and all later ones if it is sticky, raise an error."""

    def __init__(self, number: int, error: BaseException, *, late: bool, sticky: bool) -> None:
        self.number, self.error, self.late, self.sticky = number, error, late, sticky
        self.calls = 0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*arguments: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            breaks = number == self.number or (self.sticky and number > self.number)
            if breaks and not self.late:
                raise self.error
            result = method(*arguments)
            if breaks:
                raise self.error
            return result

        return broken


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "method"),
    [(Index, "record"), (Index, "remember"), (Manifest, "append"), (Manifest, "create")],
)
@pytest.mark.parametrize("make", [before_the_cycle, first_contact])
def test_skynet_dies_at_every_record(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], World],
    owner: type,
    method: str,
    late: bool,
    sticky: bool,
) -> None:
    monkeypatch.setattr(apply, "COMMIT_OPS", 1)
    plain = getattr(owner, method)
    for number in range(1000):
        world = make(tmp_path / str(number))
        breaker = Breaker(number, Died("dead"), late=late, sticky=sticky)

        def die(world: World = world, breaker: Breaker = breaker) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(owner, method, breaker.around(plain))
                try:
                    world.sync()
                except Died:
                    return

        survive(world, die, audit=number % 2 == 0)
        if breaker.calls <= number:  # it has run to its end
            return
    pytest.fail("the cycle never ends")


def test_an_interrupt_in_the_middle_of_an_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    world = first_contact(tmp_path / "w")
    world.put({"large": b"x" * 3_000_000})
    world.fault = lambda number, request: (
        Act.STALL if b"posix-rename" in request.packet and b"/large" in request.packet else None
    )

    def press(event: Event) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    def interrupt() -> None:
        world.on_event = press
        with pytest.raises(KeyboardInterrupt):
            world.sync()
        world.on_event = lambda event: None

    survive(world, interrupt, audit=False)


def test_temporary_files_of_a_broken_run_are_removed(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    temps = world.remote / ".skynet/tmp"
    world.fault = every(POSIX_RENAME, Act.CUT_BEFORE)
    with pytest.raises(LinkLost):
        world.sync()
    assert list(temps.iterdir())
    recover(world, audit=False)
    assert list(temps.iterdir()) == []


@pytest.mark.parametrize("claims", [True, False], ids=["claims", "no-claims"])
def test_a_link_that_breaks_twice_leaves_no_doubt_behind(tmp_path: Path, claims: bool) -> None:
    """The second session may break off at any request, also while it takes the lease over."""
    for number in range(60):
        world = before_the_cycle(tmp_path / str(number))
        tokens: dict[str, bool] = {}
        for fault in (at(45, Act.CUT_AFTER), at(number, Act.CUT_AFTER)):
            world.fault = fault
            with pytest.raises(SkynetError), sitting(world, tokens) as session:
                session.cycle()
            if not claims:
                for file in world.state.rglob("claims"):
                    file.unlink()
        world.fault = no_fault
        with sitting(world, tokens) as session:
            session.cycle()
        world.check()
        world.quiet()


def test_a_server_that_dies_within_a_rename_leaves_both_names(tmp_path: Path) -> None:
    # OpenSSH renames a file by a second link to it, and removes the first.
    world = before_the_cycle(tmp_path / "w")

    def die_at_rename(number: int, request: Asked) -> Act | None:
        is_it = request.kind == "RENAME" and request.text.endswith(b"remote/moved")
        return Act.KILL if is_it else None

    def die() -> None:
        world.fault = die_at_rename
        with pytest.raises(LinkLost):
            world.sync()
        (world.remote / "n/moved").hardlink_to(world.remote / "moved")

    survive(world, die, audit=False)


# Two at once.


def test_a_second_cycle_on_the_same_state_is_told_who_has_it(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    other = world.twin()
    other.state = world.state
    told: list[OwnedError] = []

    def run_other() -> None:
        with pytest.raises(OwnedError) as caught:
            other.sync()
        told.append(caught.value)

    world.at_open(b"lease", run_other)
    assert world.sync().outcome == "changed"
    assert [error.code for error in told] == ["locked"]
    assert str(os.getpid()) in str(told[0])
    assert told[0].exit_code == 5
    world.check()
    assert other.asked == [], "it did not even connect"


def test_a_remote_that_moved_under_a_cycle_stops_it(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    other = world.twin()
    world.at_open(b"lease", lambda: assert_changed(other))
    with pytest.raises(OwnedError, match="Nothing was done") as caught:
        world.sync()
    assert caught.value.code == "manifest-moved"
    world.check()
    world.on_request = lambda request: None
    world.quiet()
    other.quiet()


def test_two_first_contacts_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    world = first_contact(tmp_path / "w")
    other = world.twin()
    world.at_open(b"lease", lambda: assert_changed(other))
    with pytest.raises(OwnedError) as caught:
        world.sync()
    assert caught.value.code == "manifest-moved"
    world.on_request = lambda request: None
    other.quiet(audit=False)
    world.quiet()


def assert_changed(world: World) -> None:
    assert world.sync().outcome == "changed"


def test_a_live_lease_is_respected(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    before = world.files()
    lease = world.remote / ".skynet/lease"
    lease.write_bytes(b"token elsewhere 4711 0000000001\n")
    slept: list[int] = []

    def beat() -> None:
        slept.append(1)
        if len(slept) == 5:
            lease.write_bytes(b"token elsewhere 4711 0000000002\n")

    world.on_sleep = beat
    with pytest.raises(OwnedError, match="process 4711 on elsewhere") as caught:
        world.sync()
    assert caught.value.code == "leased"
    assert len(slept) == 5
    assert world.files() == before
    assert lease.read_bytes() == b"token elsewhere 4711 0000000002\n"


def test_an_expired_lease_is_taken_over(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    (world.remote / ".skynet/lease").write_bytes(b"token elsewhere 4711 0000000001\n")
    (world.remote / ".skynet/tmp/left").write_bytes(b"by a broken run")
    started = world.monotonic
    assert world.sync().outcome == "changed"
    assert 20 <= world.monotonic - started <= 25
    notices = [event.code for event in world.events if isinstance(event, Notice)]
    assert notices == ["lease-taken"]
    world.check()


def test_a_lease_given_back_while_it_is_watched_is_taken(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    lease = world.remote / ".skynet/lease"
    lease.write_bytes(b"token elsewhere 4711 0000000001\n")
    world.on_sleep = lambda: lease.unlink(missing_ok=True)
    started = world.monotonic
    assert world.sync().outcome == "changed"
    assert world.monotonic - started < 5
    world.check()


def test_a_lease_that_is_no_lease_expires(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    (world.remote / ".skynet/lease").write_bytes(b"\xff" * 5000)
    assert world.sync().outcome == "changed"
    world.check()


def test_a_lease_is_not_looked_at_when_there_is_nothing_to_do(tmp_path: Path) -> None:
    world = first_contact(tmp_path / "w")
    world.sync()
    (world.remote / ".skynet/lease").write_bytes(b"token elsewhere 4711 0000000001\n")
    assert world.quiet().outcome == "in-sync"
    assert world.plan().outcome == "in-sync"


def test_a_lease_taken_over_in_the_middle_ends_the_cycle(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    lease = world.remote / ".skynet/lease"
    theirs = b"token elsewhere-and-longer-than-ours 4711 0000000001\n"
    records = {path.name: path.stat().st_size for path in (world.remote / ".skynet").glob("log*")}

    def take_over() -> None:
        lease.write_bytes(theirs)
        world.monotonic += 60  # we were asleep

    world.at_open(b"tmp/", take_over)
    with pytest.raises(OwnedError) as caught:
        world.sync()
    assert caught.value.code == "lease-lost"
    assert lease.read_bytes() == theirs, "it is theirs now, and stays"
    found = {path.name: path.stat().st_size for path in (world.remote / ".skynet").glob("log*")}
    assert found == records, "nothing was recorded without a lease"
    world.on_request = lambda request: None
    recover(world, audit=False)


def test_a_long_cycle_keeps_its_lease_alive(tmp_path: Path) -> None:
    world = before_the_cycle(tmp_path / "w")
    lease = world.remote / ".skynet/lease"
    seen: list[bytes] = []

    def work_slowly(request: Asked) -> None:
        world.monotonic += 1
        if lease.exists():
            seen.append(lease.read_bytes())

    world.on_request = work_slowly
    assert world.sync().outcome == "changed"
    assert len({text for text in seen if text}) > 1, "the count goes up"
    world.check()
