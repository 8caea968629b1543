"""The terminal: reports on standard output, progress and errors on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from getpass import getpass
from typing import TYPE_CHECKING, Any

from skynet.errors import ExitCode, SkynetError
from skynet.markup import escape
from skynet.monitor import Connected, Event, Notice, Stage
from skynet.monitor import Progress as Moved
from skynet.outlet import is_left

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, TaskID

    from skynet.serve import Announcement

PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal


class Face:
    """What a command says. quiet: errors only. as_json: objects on standard output, no report."""

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, as_json: bool = False
    ) -> None:
        self.verbose = verbose
        self.as_json = as_json
        self._quiet = quiet or as_json
        self._drawn: Watching | Board | None = None
        self._asking = threading.Lock()  # held while a person is asked for a secret
        self._unsaid: tuple[str, ...] = ()  # a head that stands above nothing yet

    @cached_property
    def _out(self) -> Console:
        return _console(on_stderr=False)

    @cached_property
    def _err(self) -> Console:
        return _console(on_stderr=True)

    def get_ready(self) -> None:
        """Load what a report is shown with, which else is done when there is one."""
        if not self._quiet:
            _ = self._out

    def say(self, lines: Iterable[str]) -> None:
        """Lines of a report, in rich markup."""
        if not self._quiet:
            for line in lines:
                self._out.print(line)

    def head(self, line: str) -> None:
        """What stands above all that is said from now on; if quiet, when there is something."""
        self._unsaid = (line,) if self._quiet else ()
        self.say([line])

    def insist(self, lines: Iterable[str]) -> None:
        """Lines that are said even when quiet, on standard error if standard output is for JSON."""
        console = self._err if self._quiet else self._out
        for line in (*self._unsaid, *lines):
            console.print(line)
        self._unsaid = ()

    def error(self, message: str) -> None:
        """A sentence on standard error."""
        self._err.print(f"[bold red]skynet:[/] {escape(message)}")

    def fail(self, error: SkynetError) -> ExitCode:
        """Say what went wrong; the code to end with."""
        self.error(str(error))
        return error.exit_code

    def print_json(self, value: dict[str, Any]) -> None:
        """One object on one line."""
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    def announce(self, server: Announcement) -> None:
        """How to reach the server that has begun to serve."""
        if self.as_json:
            self.print_json(dataclasses.asdict(server))
            return
        self.say(
            [
                f"Serving at [bold]{escape(server.url)}[/]",
                f"Host key: {server.fingerprint}",
                f"Trust it with: skynet trust {escape(server.url)}",
            ]
        )
        if server.password is not None:
            self.say([f"Password, for this run only: {escape(server.password)}"])
        if not server.loopback_only:
            self.say(["[yellow]Other machines can reach this address.[/]"])
        self.say(["Ctrl-C ends it."])

    @contextmanager
    def watch(self, name: str) -> Iterator[Watching]:
        """A monitor that shows what happens to one mirror."""
        # Asked of the file first, since a console is slow to load and may never be needed.
        has_bar = not self._quiet and sys.stderr.isatty() and _is_live(self._err)
        with Watching(
            name, lambda: self._err, has_bar=has_bar, quiet=self._quiet, verbose=self.verbose
        ) as watching:
            self._drawn = watching
            try:
                yield watching
            finally:
                self._drawn = None

    @contextmanager
    def board(self) -> Iterator[Callable[[Iterable[str]], None]]:
        """What shows lines in rich markup in the place of those that it showed before.

        Below them where there is no terminal.
        """
        if not self.is_live:
            yield self.say
            return
        modes = _modes()
        with Board(self._out) as board:
            self._drawn = board
            try:
                yield board.show
            finally:
                self._drawn = None
                if self._asking.locked():  # on another thread, which now has no chance to do this
                    _restore(modes)

    @property
    def is_quiet(self) -> bool:
        """Whether only what is wrong is to be told."""
        return self._quiet

    @property
    def is_live(self) -> bool:
        """Whether reports go to a terminal, where what was shown can be replaced."""
        return not self._quiet and _is_live(self._out)

    @property
    def is_left(self) -> bool:
        """Whether nobody reads reports any more, who did."""
        return is_left(sys.stdout)

    def confirm(self, question: str) -> bool | None:
        """Whether a person at the terminal agrees; None when there is nobody."""
        if not _is_attended():
            return None
        try:
            answer = self._out.input(escape(f"{question} [y/N] "))
        except EOFError:  # Ctrl-D
            self.say([""])
            return False
        return answer.strip().lower() in ("y", "yes")

    def secret(self, prompt: str) -> str | None:
        """Ask a person at the terminal; None when there is nobody (see credentials.Prompter).

        None, too, of who does not want to answer and presses Ctrl-D.
        """
        if not _is_attended():
            return None
        with self._asking, self._drawn.paused() if self._drawn else nullcontext():
            with suppress(EOFError):
                return getpass(prompt)
            return None


class Watching:
    """Shows events: in a live bar, or in a line now and then. A context manager.

    console: to be asked for when there is something to show.
    """

    def __init__(
        self,
        name: str,
        console: Callable[[], Console],
        *,
        has_bar: bool,
        quiet: bool,
        verbose: bool,
    ) -> None:
        self._name = name
        self._console = console
        self._quiet = quiet
        self._verbose = verbose
        self._spoken_at = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if has_bar:
            self._bar = _make_bar(console())

    def __enter__(self) -> Watching:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def paused(self) -> AbstractContextManager[None]:
        """Take the bar away for a while."""
        return nullcontext() if self._bar is None else _stopped(self._bar)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Connected):
            event = Stage(f"connected to {event.server}")
        if isinstance(event, Notice):
            self._console().print(f"[yellow]{escape(self._name)}: {escape(event.message)}[/]")
            return
        if isinstance(event, Stage) and self._verbose and not self._quiet:
            self._console().print(f"{escape(self._name)}: {escape(event.doing)}")
        if self._bar is not None and self._task is not None:
            self._move_bar(self._bar, self._task, event)
        elif isinstance(event, Moved) and not self._quiet:
            self._speak(event)

    def _move_bar(self, bar: Progress, task: TaskID, event: Event) -> None:
        if isinstance(event, Stage):
            bar.update(task, description=f"{self._name}: {event.doing}")
        elif isinstance(event, Moved):
            bar.update(
                task,
                total=event.total_bytes or 1,
                completed=event.sent_bytes,
                description=f"{self._name}: {event.done} of {event.total}",
            )

    def _speak(self, event: Moved) -> None:
        now = time.monotonic()
        if now - self._spoken_at >= PLAIN_SECONDS:
            from skynet.outline import size  # loaded while the server is waited for

            self._spoken_at = now
            self._console().print(
                f"{escape(self._name)}: {event.done} of {event.total} operations, "
                f"{size(event.sent_bytes)} of {size(event.total_bytes)}"
            )


class Board:
    """Shows lines in rich markup in the place of those that it showed before. A context manager."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Board:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, lines: Iterable[str]) -> None:
        """Show these lines now; while a question is asked, after it."""
        from rich.text import Text

        text = Text.from_markup("\n".join(lines), emoji=False, overflow="fold")
        text.no_wrap = False  # else what is longer than a line is cut off here
        self._live.update(text, refresh=self._live.is_started)

    def paused(self) -> AbstractContextManager[None]:
        """Take the lines away for a while."""
        self._live.update("", refresh=True)
        return _stopped(self._live)


@contextmanager
def _stopped(drawn: Progress | Live) -> Iterator[None]:
    """Draw it no more for a while: it would be drawn over what else is on its line."""
    drawn.stop()
    try:
        yield
    finally:
        drawn.start()


def _modes() -> list[Any] | None:
    """How the terminal at standard input is set; None if there is none."""
    if sys.platform == "win32" or not _is_attended():
        return None
    import termios

    return termios.tcgetattr(sys.stdin)


def _restore(modes: list[Any] | None) -> None:
    """Set the terminal at standard input as it was: it may be shown again what is typed."""
    if sys.platform == "win32" or modes is None:
        return
    import termios

    termios.tcsetattr(sys.stdin, termios.TCSANOW, modes)


def _console(*, on_stderr: bool) -> Console:
    from rich.console import Console  # slow to load, and of no use to a run that answers in JSON

    return Console(stderr=on_stderr, soft_wrap=True, highlight=False, emoji=False)


def _is_attended() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


def _make_bar(console: Console) -> Progress:
    from rich import progress  # a fifth of the time to start, and no use without a terminal

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
