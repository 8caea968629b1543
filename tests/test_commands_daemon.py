"""`skynet status`, `approve`, `log` and their kin, with a daemon that the test plays."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skynet.control import Command
from skynet.history import Record, append
from tests.support.command import finish, running, skynet, wait_until
from tests.support.daemons import Daemon, daemon, state_of
from tests.support.statuses import HELD, NOW

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory whose skynet.toml has the mirrors `one` and `two`."""
    tables = [
        f'[mirror.{name}]\nsource = "{name}"\ntarget = "sftp://me@h/srv/{name}"\n'
        'state_dir = "state"\n'
        for name in ("one", "two")
    ]
    (tmp_path / "skynet.toml").write_text("\n".join(tables))
    return tmp_path


@pytest.fixture
def both(work: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons that are idle and in sync."""
    with daemon(state_of("one", work)) as one, daemon(state_of("two", work)) as two:
        one.tell()
        two.tell()
        yield one, two


# Status.


def test_a_mirror_without_a_daemon_says_so(work: Path) -> None:
    result = skynet("status", cwd=work)
    assert result.code == 1
    assert "one: no daemon runs\n" in result.out
    assert "two: no daemon runs\n" in result.out
    assert [each["state"] for each in skynet("status", "--json", cwd=work).objects] == (
        ["not-running"] * 2
    )


EXITS: list[tuple[dict[str, Any], dict[str, Any], int]] = [
    ({}, {}, 0),
    ({}, {"state": "paused"}, 0),
    ({}, {"state": "offline", "offline": "refused"}, 1),
    ({"problems": [("a", "b", "c")], "problem_count": 1}, {}, 1),
    ({}, {"state": "syncing", "backlog_files": 1}, 1),
    ({"state": "held", "held": HELD}, {}, 4),
    ({"state": "syncing", "held": HELD}, {"state": "offline"}, 4),
]


@pytest.mark.parametrize(("one", "two", "code"), EXITS)
def test_the_highest_exit_code_wins(
    work: Path,
    both: tuple[Daemon, Daemon],
    one: dict[str, Any],
    two: dict[str, Any],
    code: int,
) -> None:
    both[0].tell(**one)
    both[1].tell(**two)
    assert skynet("status", cwd=work).code == code
    assert skynet("status", "--json", cwd=work).code == code


def test_only_the_mirrors_named_count(work: Path, both: tuple[Daemon, Daemon]) -> None:
    both[0].tell(state="offline")
    result = skynet("status", "two", "--json", cwd=work)
    assert (result.code, result.json["mirror"], result.json["running"]) == (0, "two", True)
    assert skynet("status", "three", cwd=work).code == 2


def test_a_daemon_that_died_is_not_told_as_alive(work: Path) -> None:
    with daemon(state_of("one", work)) as one:
        # Numbers that no process can have, since its own is told.
        one.tell(held=HELD, backlog_files=7_777_777, problem_count=8_888_888)
    result = skynet("status", "one", cwd=work)
    assert result.code == 1
    assert f"one: the daemon has died (process {os.getpid()}, last heard of" in result.out
    assert not re.search("7.?777.?777|8.?888.?888|approve", result.out)
    as_json = skynet("status", "one", "--json", cwd=work).json
    assert (as_json["state"], as_json["running"], "held" in as_json) == (
        "not-running",
        False,
        False,
    )


def test_a_mirror_of_the_command_line_is_found(work: Path) -> None:
    ends = ["--source", "one", "--target", "sftp://me@h/srv/one", "--state-dir", "state"]
    with daemon(state_of("one", work)) as one:
        one.tell()
        assert skynet("status", *ends, cwd=work).code == 0


# Watching.


@contextlib.contextmanager
def watching(work: Path, *more: str) -> Iterator[Callable[[str], str]]:
    with running("status", "--watch", "-c", str(work / "skynet.toml"), *more) as process:
        stdout = process.stdout
        assert stdout is not None
        os.set_blocking(stdout.fileno(), False)
        said = bytearray()

        def has_said(text: str) -> bool:
            said.extend(stdout.read() or b"")
            return text.encode() in said

        def expect(text: str) -> str:
            wait_until(lambda: has_said(text), process)
            return said.decode()

        yield expect
        process.send_signal(signal.SIGINT)
        ended = finish(process)
        assert ended.code == 130
        assert "Traceback" not in ended.err


@posix_only
def test_each_change_is_a_block_without_a_terminal(work: Path, both: tuple[Daemon, Daemon]) -> None:
    with watching(work) as expect:
        expect("two: idle, in sync")
        both[0].tell(state="syncing", doing="comparing")
        expect("one: syncing (comparing)")
        both[1].tell(state="offline", offline="the cable is out")
        said = expect("not connected: the cable is out")
    assert len(re.findall("^one: ", said, re.M)) == 2  # no more than there was to say


@posix_only
def test_each_change_is_an_object_for_programs(work: Path, both: tuple[Daemon, Daemon]) -> None:
    with watching(work, "--json", "one") as expect:
        expect('"state": "idle"')
        both[0].tell(state="paused")
        expect('"state": "paused"')


# Commands.


@pytest.mark.parametrize("verb", ["pause", "resume", "sync-now"])
def test_each_daemon_is_asked_and_its_answer_shown(
    work: Path, both: tuple[Daemon, Daemon], verb: Any
) -> None:
    one, two = both
    with one.obeying(lambda _: (True, "as [you] wish")), two.obeying(lambda _: (True, "yes")):
        result = skynet(verb, cwd=work)
    assert (result.code, result.out) == (0, "one: as [you] wish\ntwo: yes\n")
    assert one.asked == two.asked == [Command(verb)]


def test_what_a_daemon_refuses_stops_no_other(work: Path, both: tuple[Daemon, Daemon]) -> None:
    one, two = both
    with one.obeying(lambda _: (False, "no\x1b")), two.obeying(lambda _: (True, "yes")):
        result = skynet("pause", cwd=work)
    assert (result.code, result.out, result.err) == (1, "two: yes\n", "skynet: one: no\\x1b\n")


def test_a_mirror_without_a_daemon_stops_no_other(work: Path) -> None:
    with daemon(state_of("two", work)) as two, two.obeying(lambda _: (True, "yes")):
        result = skynet("sync-now", cwd=work)
    assert (result.code, result.out) == (1, "two: yes\n")
    assert "one: No daemon runs for this mirror." in result.err


def test_the_approval_that_status_shows_finds_its_mirror(
    work: Path, both: tuple[Daemon, Daemon]
) -> None:
    one, two = both
    two.tell(state="held", held=HELD)
    shown = skynet("status", "-c", "skynet.toml", cwd=work)
    [words] = re.findall(r"If it is right, run: skynet (.*)$", shown.out, re.M)
    with two.obeying(lambda _: (True, "It is carried out.")):
        assert skynet(*shlex.split(words), cwd=work).out == "two: It is carried out.\n"
        assert skynet("approve", HELD.approve, cwd=work).code == 0
    assert two.asked == [Command("approve", HELD.approve)] * 2
    assert one.asked == []


def test_an_approval_of_nothing_that_is_held_asks_nobody(
    work: Path, both: tuple[Daemon, Daemon]
) -> None:
    one, two = both
    with one.obeying(lambda _: (True, "")), two.obeying(lambda _: (True, "")):
        nothing = skynet("approve", "beef", cwd=work)
        one.tell(held=HELD)
        other = skynet("approve", "beef", cwd=work)
        two.tell(held=HELD)
        twice = skynet("approve", HELD.approve, cwd=work)
        assert skynet("approve", HELD.approve, "two", cwd=work).code == 0
    assert (nothing.code, other.code, twice.code) == (1, 1, 2)
    assert "with the hash beef. None is held now" in nothing.err
    assert "Held now: 0123456789ab of one." in other.err
    assert "name one of one, two" in twice.err
    assert (one.asked, len(two.asked)) == ([], 1)


# The history.


def test_the_log_tells_the_newest_cycles_of_all_mirrors(work: Path) -> None:
    for number in range(6):
        record = Record(ended=NOW + number, seconds=1, outcome="changed", done={"upload": number})
        append(state_of("one" if number % 2 else "two", work), record)
    all_told = skynet("log", cwd=work)
    assert re.findall(r"  (\w+): changed: (\w+)", all_told.out)[-2:] == [("two", "4"), ("one", "5")]
    assert len(all_told.out.splitlines()) == 6
    newest = skynet("log", "-n", "3", "--json", cwd=work).objects
    assert [each["done"]["upload"] for each in newest] == [3, 4, 5]
    assert [each["mirror"] for each in newest] == ["one", "two", "one"]
    assert "two" not in skynet("log", "two", cwd=work).out


def test_a_log_of_nothing(work: Path) -> None:
    assert skynet("log", cwd=work).out == "No daemon has done anything yet.\n"
    result = skynet("log", "--json", cwd=work)
    assert (result.code, result.out) == (0, "")
    assert json.dumps(result.objects) == "[]"
