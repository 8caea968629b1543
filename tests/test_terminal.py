"""The command at a terminal, and with output that cannot show every name."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from skynet.cli import app
from tests.support.command import DEADLINE, command_line, environment, serving, skynet

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
PASSWORD = "open-sesame"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group


def squeezed(text: str) -> str:
    """The text without what wrapping adds."""
    return "".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_whole(name: str) -> None:
    result = skynet(name, "--help")
    assert result.code == 0
    for text in [COMMANDS[name].help, *(each.help for each in COMMANDS[name].params if each.help)]:
        assert squeezed(text) in squeezed(result.out)


def paths_of(command: Any) -> list[str]:
    """What a command is given that is a path: its options, and "" for an argument."""
    taken = [each for each in command.params if each.type.name in ("path", "given_path")]
    return [each.opts[0] if each.param_type_name == "option" else "" for each in taken]


@pytest.mark.parametrize("name", [*COMMANDS, "service install"])
def test_an_empty_path_is_refused_and_not_where_we_are(name: str, tmp_path: Path) -> None:
    """As `--state-dir "$STATE"` is, if that variable is not set."""
    first, *more = name.split()
    command = COMMANDS[first].commands[more[0]] if more else COMMANDS[first]
    for option in paths_of(command):
        given = [option, ""] if option else [""]
        result = CliRunner().invoke(app, [first, *more, *given])
        assert (result.exit_code, "it is empty" in result.output) == (2, True), (name, option)


def test_the_paths_of_commands_are_found() -> None:
    assert paths_of(COMMANDS["serve"])[0] == ""
    assert {"--plan", "-c", "--state-dir"} <= {*paths_of(COMMANDS["sync"])}


@posix_only
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_name_that_the_output_cannot_show_is_escaped(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "日本.png").write_bytes(b"picture")
    (tmp_path / "target").mkdir()
    with serving(tmp_path / "target") as server:
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        result = skynet(
            *("plan", "--dry-run", "--source", tmp_path / "source", "--target", server["url"]),
            environ={"PYTHONIOENCODING": encoding, "SKYNET_PASSWORD": server["password"]},
        )
    assert result.code == 0
    assert r"+ \u65e5\u672c.png  7 B" in result.out


class Screen:
    """Our end of a pseudo-terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.seen = b""

    def read(self, seconds: float) -> bytes:
        """What the other end writes next, b"" if it writes nothing for so long or is closed."""
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        try:
            data = os.read(self._terminal, 1 << 16) if ready else b""
        except OSError:  # Linux reports the other end's close like this
            data = b""
        self.seen += data
        return data

    def read_until(self, is_enough: Callable[[], bool]) -> None:
        """Read until `is_enough`; fails after DEADLINE."""
        end = time.monotonic() + DEADLINE
        while not is_enough():
            assert time.monotonic() < end, self.seen
            self.read(0.1)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())


@posix_only
def test_the_bar_leaves_the_question_for_a_password_alone(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "source" / "one.txt").write_bytes(b"one")
    ours, theirs = os.openpty()
    with serving(tmp_path / "target") as server:
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        process = subprocess.Popen(
            command_line(
                *("sync", "--once", "--source", tmp_path / "source", "--target", server["url"])
            ),
            env=environment(TERM="xterm"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,  # else the question would go to the terminal of the tests
        )
        os.close(theirs)
        screen = Screen(ours)
        with process:
            try:
                screen.read_until(lambda: screen.seen.endswith(b": "))
                # A bar would be drawn several times in this while.
                drawn_meanwhile = screen.read(1.0)
                screen.type(server["password"] + "\n")
                screen.read_until(lambda: process.poll() is not None)
                while screen.read(0.0):
                    pass
            finally:
                process.kill()
                os.close(ours)
    assert drawn_meanwhile == b""
    assert b"assword" in screen.seen
    assert process.returncode == 0
    assert b"source: connecting" in screen.seen
    assert b"In sync" in screen.seen
    assert (tmp_path / "target" / "one.txt").read_bytes() == b"one"


@contextmanager
def asked_for_a_password(work: Path) -> Iterator[tuple[subprocess.Popen[bytes], Screen, int]]:
    """A foreground `skynet sync` that asks for a password; it, its screen, and the terminal.

    What is typed is to be the password of the server, or Ctrl-C.
    """
    (work / "source").mkdir()
    (work / "target").mkdir()
    (work / "password").write_text(PASSWORD + "\n")
    (work / "password").chmod(0o600)
    ours, theirs = os.openpty()
    with serving(work / "target", "--password-file", work / "password") as server:
        skynet("trust", server["url"], "--fingerprint", server["fingerprint"])
        process = subprocess.Popen(
            command_line("sync", "--source", work / "source", "--target", server["url"]),
            env=environment(TERM="xterm"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        screen = Screen(ours)
        with process:
            try:
                screen.read_until(lambda: re.search(b"assword for .*: $", screen.seen) is not None)
                yield process, screen, theirs
            finally:
                process.kill()
                os.close(ours)
                os.close(theirs)


@posix_only
def test_the_live_display_leaves_the_question_for_a_password_alone(tmp_path: Path) -> None:
    with asked_for_a_password(tmp_path) as (process, screen, _):
        drawn_meanwhile = screen.read(1.0)  # it would be drawn twice in this while
        screen.type(PASSWORD + "\n")
        screen.read_until(lambda: b"idle, in sync" in screen.seen)
        process.send_signal(signal.SIGINT)
        screen.read_until(lambda: process.poll() is not None)
    assert drawn_meanwhile == b""
    assert process.returncode == 130


@posix_only
def test_the_terminal_shows_what_is_typed_after_a_question_was_left(tmp_path: Path) -> None:
    with asked_for_a_password(tmp_path) as (process, screen, terminal):
        screen.read_until(lambda: not shows_what_is_typed(terminal))
        process.send_signal(signal.SIGINT)
        screen.read_until(lambda: process.poll() is not None)
        assert shows_what_is_typed(terminal)


def shows_what_is_typed(terminal: int) -> bool:
    import termios  # of POSIX alone

    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
