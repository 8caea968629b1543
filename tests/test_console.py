"""What is said where: reports on standard output, progress and errors on standard error."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from skynet import console
from skynet.console import Face, Watching
from skynet.monitor import Notice, Progress, Stage
from skynet.serve import Announcement

Captured = pytest.CaptureFixture[str]
SERVER = Announcement("sftp://me@h:2/", "me", "SHA256:abc", "[h]:2 ssh-ed25519 AA", True, "s3cret")


def test_reports_go_to_standard_output_and_errors_to_standard_error(capsys: Captured) -> None:
    face = Face()
    face.say(["[green]fine[/]"])
    face.error("broken [/] here")
    assert capsys.readouterr() == ("fine\n", "skynet: broken [/] here\n")


def test_quiet_keeps_what_is_insisted_on(capsys: Captured) -> None:
    face = Face(quiet=True)
    face.say(["fine"])
    face.insist(["held"])
    assert capsys.readouterr() == ("", "held\n")


def test_what_is_insisted_on_has_its_head_and_nothing_else_has(capsys: Captured) -> None:
    face = Face(quiet=True)
    face.head("fine:")
    face.say(["nothing to do"])
    face.head("wrong:")
    face.insist(["held"])
    face.insist(["held again"])
    assert capsys.readouterr() == ("", "wrong:\nheld\nheld again\n")


def test_json_has_standard_output_for_itself(capsys: Captured) -> None:
    face = Face(as_json=True)
    face.say(["fine"])
    face.insist(["held"])
    face.print_json({"path": "\udcff\n"})
    assert capsys.readouterr() == ('{"path": "\\udcff\\n"}\n', "held\n")


def test_long_lines_and_codes_like_emoji_stay_as_they_are(capsys: Captured) -> None:
    line = ":warning: " + "word " * 100 + "end"
    Face().say([line])
    assert capsys.readouterr().out == line + "\n"


def test_a_server_is_announced_to_people(capsys: Captured) -> None:
    Face().announce(SERVER)
    out = capsys.readouterr().out
    for word in (SERVER.url, SERVER.fingerprint, f"skynet trust {SERVER.url}", "s3cret", "Ctrl-C"):
        assert word in out
    assert "Other machines" not in out


def test_a_server_that_others_can_reach_says_so(capsys: Captured) -> None:
    Face().announce(Announcement("sftp://me@h:2/", "me", "SHA256:abc", "", False))
    out = capsys.readouterr().out
    assert "Other machines can reach this address." in out
    assert "Password" not in out


def test_a_server_is_announced_to_programs(capsys: Captured) -> None:
    Face(as_json=True).announce(SERVER)
    told = json.loads(capsys.readouterr().out)
    assert told["password"] == "s3cret"
    assert told["loopback_only"] is True


def test_nobody_is_asked_for_a_secret_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret\n"))
    assert Face().secret("Password: ") is None


class Attended(io.StringIO):
    """A standard input with a person at it, who types this and then Ctrl-D."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "agrees"),
    [("y\n", True), (" Yes \n", True), ("\n", False), ("no\n", False), ("", False)],
)
def test_a_question_tells_how_to_answer_it(
    typed: str, agrees: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Attended(typed))
    assert Face().confirm("Is it [right]?") is agrees
    assert capsys.readouterr().out.rstrip("\n") == "Is it [right]? [y/N] "


def test_who_does_not_want_to_tell_a_secret_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_of_input(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin", Attended())
    monkeypatch.setattr("skynet.console.getpass", end_of_input)
    assert Face().secret("Password: ") is None


# Watching a cycle.


class Clock:
    """Monotonic seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("skynet.console.time.monotonic", clock)
    return clock


def test_stages_are_told_when_verbose(capsys: Captured) -> None:
    for verbose in (False, True):
        with Face(verbose=verbose).watch("photos") as watching:
            watching(Stage("connecting"))
    assert capsys.readouterr() == ("", "photos: connecting\n")


def test_notices_are_told_even_when_quiet(capsys: Captured) -> None:
    with Face(quiet=True).watch("photos") as watching:
        watching(Notice("code", "Look at [this]."))
        watching(Progress(1, 2, 3, 4))
    assert capsys.readouterr() == ("", "photos: Look at [this].\n")


def test_progress_is_a_line_now_and_then_without_a_terminal(capsys: Captured, clock: Clock) -> None:
    with Face().watch("photos") as watching:
        watching(Progress(1, 9, 1000, 5_000_000))
        clock.now += console.PLAIN_SECONDS
        watching(Progress(2, 9, 2000, 5_000_000))
        watching(Progress(3, 9, 3000, 5_000_000))
    err = capsys.readouterr().err
    assert err == "photos: 2 of 9 operations, 2.0 kB of 5.0 MB\n"


XTERM = {"TERM": "xterm"}  # whatever terminal the tests run on


def test_progress_is_a_bar_on_a_terminal() -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100, emoji=False, _environ=XTERM)
    watching = Watching(
        "[red] :warning:", lambda: terminal, has_bar=True, quiet=False, verbose=False
    )
    with watching:
        watching(Stage("connecting"))
        watching(Progress(3, 9, 3000, 5_000_000))
    assert "[red] :warning:: 3 of 9" in screen.getvalue()


@pytest.mark.parametrize("quiet", [False, True])
def test_there_is_no_bar_without_a_terminal_or_when_quiet(
    quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(screen, "isatty", lambda: quiet)
    with Face(quiet=quiet).watch("photos") as watching:
        watching(Progress(3, 9, 3000, 5_000_000))
    assert screen.getvalue() == ""


# What takes the place of what was shown before.


def test_a_board_goes_on_below_without_a_terminal(capsys: Captured) -> None:
    face = Face()
    with face.board() as show:
        show(["[green]one[/]"])
        show(["two"])
    assert not face.is_live
    assert capsys.readouterr() == ("one\ntwo\n", "")


def test_a_board_shows_the_newest_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    face = Face()
    terminal = Console(
        file=screen, force_terminal=True, width=20, height=9, soft_wrap=True, _environ=XTERM
    )
    monkeypatch.setattr(face, "_out", terminal)
    assert face.is_live
    with face.board() as show:
        show(["one :warning:", "[red]two[/]", "word " * 9 + "end"])
        before = len(screen.getvalue())
        show(["three"])
    assert "one :warning:" in screen.getvalue()[:before]
    assert "end" in screen.getvalue()[:before]
    assert "\x1b[1A" in screen.getvalue()[before:]  # the cursor goes up
    assert "three" in screen.getvalue()[before:]


def test_a_board_shows_nothing_beside_json(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    face = Face(as_json=True)
    monkeypatch.setattr(face, "_out", Console(file=screen, force_terminal=True, _environ=XTERM))
    assert not face.is_live
    with face.board() as show:
        show(["one"])
    assert screen.getvalue() == ""


def test_an_answer_in_json_loads_nothing_to_draw_with() -> None:
    program = (
        "import sys; from skynet import commands; from skynet.monitor import Stage\n"
        "face = commands.Face(as_json=True)\n"
        "with face.watch('photos') as watching: watching(Stage('comparing'))\n"
        "face.print_json({})\n"
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
