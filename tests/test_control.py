"""Commands to a daemon: obeyed once or never, answered, and nothing is left lying about."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skynet import control
from skynet.control import COMMANDS, EXPIRY, MAX_BYTES, SETTLED, Command, Mailbox, NoDaemon, ask
from skynet.errors import SkynetError
from skynet.state import locked
from skynet.statefile import encode
from tests.support.mounts import small_disk

PAUSE = Command("pause")


class Clock:
    """Unix seconds that pass in sleep alone, while somebody else has a turn."""

    def __init__(self, now: float, turn: Callable[[], None] = lambda: None) -> None:
        self.now = now
        self.turn = turn

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.turn()


def real_now(directory: Path) -> float:
    """The time as the file system tells it."""
    (directory / "now").touch()
    return (directory / "now").stat().st_mtime


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory that is locked, as a daemon has it."""
    with locked(tmp_path):
        yield tmp_path


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(real_now(tmp_path))


@pytest.fixture
def mailbox(state: Path, clock: Clock) -> Mailbox:
    return Mailbox(state / COMMANDS, clock)


def files(state: Path) -> list[str]:
    return sorted(os.listdir(state / COMMANDS))


def leave(state: Path, name: str, data: bytes, clock: Clock) -> Path:
    """Put a file where commands lie, written at the clock's time."""
    path = state / COMMANDS / name
    path.write_bytes(data)
    os.utime(path, (clock.now, clock.now))
    return path


def asked(clock: Clock, verb: str = "pause", *, ago: float = 0.0) -> bytes:
    return encode(control._Asked(clock.now - ago, Command(verb)))  # type: ignore[arg-type]


# A command and its answer.


@pytest.mark.parametrize("obeyed", [True, False])
def test_a_command_is_taken_once_and_answered(
    state: Path, mailbox: Mailbox, clock: Clock, obeyed: bool
) -> None:
    taken: list[Command] = []

    def daemon() -> None:
        for name, command in mailbox.take():
            taken.append(command)
            mailbox.answer(name, "Said [and] done.", ok=obeyed)

    clock.turn = daemon
    command = Command("approve", "0123456789ab")
    assert ask(state, command, clock=clock, sleep=clock.sleep) == (obeyed, "Said [and] done.")
    assert taken == [command]
    assert mailbox.take() == []
    assert files(state) == []


def test_several_who_ask_at_once_get_each_its_own_answer(state: Path) -> None:
    mailbox = Mailbox(state / COMMANDS)
    answers: dict[str, tuple[bool, str]] = {}

    def one(name: str) -> None:
        command = Command("approve", name)
        answers[name] = ask(state, command, clock=time.time, sleep=time.sleep, timeout=60)

    names = [str(number) for number in range(20)]
    threads = [threading.Thread(target=one, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for id_, command in mailbox.take():
            mailbox.answer(id_, f"to {command.argument}", ok=True)
        threads[0].join(0.01)
    assert answers == {name: (True, f"to {name}") for name in names}
    assert files(state) == []


def test_commands_come_oldest_first(state: Path, mailbox: Mailbox, clock: Clock) -> None:
    for name, verb, ago in [("a", "resume", 1.0), ("b", "pause", 3.0), ("c", "sync-now", 2.0)]:
        leave(state, f"{name}.command", asked(clock, verb, ago=ago), clock)
    assert mailbox.take() == [
        *[("b", Command("pause")), ("c", Command("sync-now")), ("a", Command("resume"))]
    ]


# Nobody there.


def test_without_a_daemon_nothing_is_asked(tmp_path: Path, clock: Clock) -> None:
    Mailbox(tmp_path / COMMANDS)
    with pytest.raises(NoDaemon, match="skynet daemon") as caught:
        ask(tmp_path, PAUSE, clock=clock, sleep=clock.sleep)
    assert isinstance(caught.value, SkynetError)
    assert (caught.value.code, caught.value.exit_code) == ("no-daemon", 1)
    assert files(tmp_path) == []


def test_another_command_of_skynet_is_no_daemon(state: Path, clock: Clock) -> None:
    with pytest.raises(NoDaemon, match=f"Process {os.getpid()} works on this mirror") as caught:
        ask(state, PAUSE, clock=clock, sleep=clock.sleep)
    assert caught.value.code == "no-mailbox"
    assert not (state / COMMANDS).exists()


def test_what_is_not_answered_in_time_is_withdrawn(
    state: Path, mailbox: Mailbox, clock: Clock
) -> None:
    begun = clock.now
    with pytest.raises(NoDaemon, match="did not answer within 3 s") as caught:
        ask(state, PAUSE, clock=clock, sleep=clock.sleep, timeout=3.0)
    assert caught.value.code == "no-answer"
    assert clock.now - begun == pytest.approx(3.0)
    assert files(state) == []
    assert mailbox.take() == []


def test_an_interrupt_withdraws_the_command(state: Path, mailbox: Mailbox, clock: Clock) -> None:
    def interrupt() -> None:
        assert len(files(state)) == 1
        raise KeyboardInterrupt

    clock.turn = interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(state, PAUSE, clock=clock, sleep=clock.sleep)
    assert files(state) == []


# What lies there.


@pytest.mark.parametrize("ago", [EXPIRY + 1, 86_400 * 3, -EXPIRY - 1])
def test_what_was_said_to_a_daemon_that_died_is_not_obeyed(
    state: Path, mailbox: Mailbox, clock: Clock, ago: float
) -> None:
    leave(state, "old.command", asked(clock, ago=ago), clock)
    leave(state, "new.command", asked(clock, ago=EXPIRY - 1), clock)
    assert mailbox.take() == [("new", PAUSE)]
    assert files(state) == ["old.answer"]
    assert b'"ok":false' in (state / COMMANDS / "old.answer").read_bytes()


MALFORMED = [
    *[b"", b"{", b"\xff", b"[" * 60_000, b" " * (MAX_BYTES + 1)],
    b'{"asked": 1, "command": {"verb": "format-disk"}}',
    b'{"asked": "now", "command": {"verb": "pause"}}',
]


@pytest.mark.parametrize("data", MALFORMED)
def test_what_is_no_command_is_removed_and_answered(
    state: Path, mailbox: Mailbox, clock: Clock, data: bytes
) -> None:
    leave(state, "bad.command", data, clock)
    leave(state, "good.command", asked(clock), clock)
    assert mailbox.take() == [("good", PAUSE)]
    assert files(state) == ["bad.answer"]
    assert b"no command that this skynet knows" in (state / COMMANDS / "bad.answer").read_bytes()


def test_what_nobody_takes_is_removed(state: Path, mailbox: Mailbox, clock: Clock) -> None:
    leave(state, "a.command", asked(clock), clock)
    [(name, _)] = mailbox.take()
    mailbox.answer(name, "done", ok=True)
    leave(state, ".b.command.x1", b'{"asked', clock)  # a write that broke off
    clock.now += EXPIRY / 2
    assert mailbox.take() == []
    assert files(state) == [".b.command.x1", "a.answer"]
    clock.now += EXPIRY
    assert mailbox.take() == []
    assert files(state) == []


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
def test_what_is_no_file_is_left_alone(state: Path, mailbox: Mailbox, clock: Clock) -> None:
    os.mkfifo(state / COMMANDS / "pipe.command")
    (state / COMMANDS / "dir.command").mkdir()
    (state / COMMANDS / "link.command").symlink_to(leave(state, "a.command", asked(clock), clock))
    assert mailbox.take() == [("a", PAUSE)]
    assert files(state) == ["dir.command", "link.command", "pipe.command"]


def test_what_is_looked_at_in_one_go_is_bounded(
    state: Path, mailbox: Mailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MAX_FILES", 3)
    for number in range(7):
        leave(state, f"{number}.command", asked(clock), clock)
    assert [len(mailbox.take()) for _ in range(4)] == [3, 3, 1, 0]


def test_a_long_answer_is_cut(state: Path, mailbox: Mailbox) -> None:
    mailbox.answer("a", "\x00" * 100_000, ok=True)
    assert (state / COMMANDS / "a.answer").stat().st_size < MAX_BYTES


# The cost of looking, and the disk.


def test_nothing_new_costs_one_stat(
    state: Path, mailbox: Mailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    listing = control._files

    def counted(directory: Path) -> list[Path]:
        listed.append(directory)
        return listing(directory)

    monkeypatch.setattr(control, "_files", counted)
    for _ in range(3):
        mailbox.take()
    assert len(listed) == 3  # it was made just now: a command may come in the same tick
    clock.now += 2 * SETTLED
    for _ in range(100):
        mailbox.take()
    assert len(listed) == 4
    leave(state, "a.command", asked(clock), clock)
    assert mailbox.take() == [("a", PAUSE)]


def test_a_command_in_the_same_tick_of_the_clock_is_found(
    state: Path, mailbox: Mailbox, clock: Clock
) -> None:
    """The directory's time does not show it, as on a file system with coarse times."""
    place = state / COMMANDS
    assert mailbox.take() == []
    before = place.stat()
    leave(state, "a.command", asked(clock), clock)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert mailbox.take() == [("a", PAUSE)]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_the_directory_is_for_this_user_only(state: Path, mailbox: Mailbox) -> None:
    assert stat.S_IMODE((state / COMMANDS).stat().st_mode) == 0o700


def test_a_directory_that_was_deleted_is_made_again(
    state: Path, mailbox: Mailbox, clock: Clock
) -> None:
    (state / COMMANDS).rmdir()
    mailbox.answer("a", "done", ok=True)
    assert mailbox.take() == []
    leave(state, "a.command", asked(clock), clock)
    assert mailbox.take() == [("a", PAUSE)]


def test_a_directory_that_cannot_be_made_again_does_not_stop_the_daemon(
    tmp_path: Path, clock: Clock
) -> None:
    with small_disk(tmp_path / "small") as disk:
        mailbox = Mailbox(disk.place / COMMANDS, clock)
        (disk.place / COMMANDS).rmdir()
        disk.remount("ro")
        assert mailbox.take() == []
        disk.remount("rw")
        assert mailbox.take() == []
        leave(disk.place, "a.command", asked(clock), clock)
        assert mailbox.take() == [("a", PAUSE)]


def test_a_disk_that_fails_does_not_stop_the_daemon(
    state: Path, mailbox: Mailbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    leave(state, "a.command", asked(clock), clock)
    for name in ("read", "_files"):
        with monkeypatch.context() as broken:
            broken.setattr(control, name, fail)
            assert mailbox.take() == []
    assert mailbox.take() == [("a", PAUSE)]
    monkeypatch.setattr(control, "replace", fail)
    mailbox.answer("a", "done", ok=True)
    assert files(state) == []
