"""What the commands do that look at a daemon, and steer one that runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from skynet import history
from skynet.commands_cycle import calls_of
from skynet.config import Mirror, Options, load_mirrors
from skynet.console import Face
from skynet.control import Command, Verb, ask, look
from skynet.cycle import Request
from skynet.errors import ExitCode, SkynetError, UsageError
from skynet.memory import state_of
from skynet.render_status import Place, answer_line, log_json, log_lines, status_json, status_lines
from skynet.rules import shown
from skynet.status import Seen
from skynet.target import printable

__all__ = [
    "Face",
    "Options",
    "approve",
    "log",
    "options_of",
    "status",
    "steer",
]

LOOK_AGAIN = 0.5  # seconds between two looks of `status --watch`


def options_of(
    names: list[str] | None,
    config: Path | None,
    source: Path | None,
    target: str | None,
    state_dir: Path | None,
) -> Options:
    """The options of commands that only look at a mirror's state, or ask its daemon."""
    return Options(tuple(names or ()), config, source, target, state_dir=state_dir)


# Looking ------------------------------------------------------------------------------------


class _View(NamedTuple):
    place: Place
    seen: Seen

    def text(self) -> Iterator[str]:
        return status_lines(self.place, self.seen, time.time())


def status(options: Options, face: Face, *, watch: bool) -> int:
    """What the daemon of each mirror does; the highest of their exit codes."""
    try:
        mirrors = _mirrors(options)
        if watch:
            _watch(mirrors, options, face)
        views = [_view(mirror, options) for mirror in mirrors]
    except SkynetError as error:
        return face.fail(error)
    _show(views, face, face.say)
    return max(_exit_code(view.seen) for view in views)


def log(options: Options, count: int, face: Face) -> int:
    """The last `count` cycles of these mirrors, newest last."""
    try:
        mirrors = _mirrors(options)
        cycles = [
            (record, mirror.name)
            for mirror in mirrors
            for record in history.read(state_of(mirror), count)
        ]
    except SkynetError as error:
        return face.fail(error)
    for record, name in sorted(cycles, key=lambda cycle: cycle[0].ended)[-count:]:
        if face.as_json:
            face.print_json(log_json(name, record))
        else:
            face.say(log_lines(name if len(mirrors) > 1 else "", record, None))
    if not cycles:
        face.say(["No daemon has done anything yet."])
    return ExitCode.IN_SYNC


def _watch(mirrors: list[Mirror], options: Options, face: Face) -> None:
    """Show each change, until an interrupt; on a terminal all mirrors, and as the time goes by.

    Or until nobody reads it any more.
    """
    told: list[Seen | None] = [None] * len(mirrors)
    with face.board() as show:
        while not face.is_left:
            views = [_view(mirror, options) for mirror in mirrors]
            news = [view for view, old in zip(views, told, strict=True) if view.seen.facts != old]
            told = [view.seen.facts for view in views]
            _show(views if face.is_live else news, face, show)
            time.sleep(LOOK_AGAIN)


def _show(views: Sequence[_View], face: Face, say: Callable[[Iterable[str]], None]) -> None:
    if face.as_json:
        for view in views:
            face.print_json(status_json(view.place, view.seen))
    elif views:
        say([line for view in views for line in view.text()])


def place_of(mirror: Mirror, options: Options) -> Place:
    """A mirror as it is shown, and called again."""
    call = calls_of(mirror, options, Request(), None).plan
    return Place(mirror.name, shown(mirror.source), str(mirror.target), call)


def _view(mirror: Mirror, options: Options) -> _View:
    return _View(place_of(mirror, options), look(state_of(mirror)))


def _exit_code(seen: Seen) -> ExitCode:
    if seen.alive is None:
        return ExitCode.PROBLEMS
    if seen.alive.held is not None or seen.alive.state == "held":
        return ExitCode.HELD
    return ExitCode.IN_SYNC if seen.alive.is_in_sync else ExitCode.PROBLEMS


# Asking -------------------------------------------------------------------------------------


def steer(options: Options, verb: Verb, face: Face) -> int:
    """Give the daemon of each mirror a command; the highest of the exit codes."""
    try:
        mirrors = _mirrors(options)
    except SkynetError as error:
        return face.fail(error)
    return max(_ask(mirror, Command(verb), face) for mirror in mirrors)


def approve(options: Options, approval: str, face: Face) -> int:
    """Let the daemon that holds the plan with this hash carry it out."""
    try:
        mirror = _that_holds(approval, _mirrors(options))
    except SkynetError as error:
        return face.fail(error)
    return _ask(mirror, Command("approve", approval), face)


def _that_holds(approval: str, mirrors: Sequence[Mirror]) -> Mirror:
    """The mirror whose daemon holds the plan with this hash."""
    held = [(mirror, look(state_of(mirror)).alive) for mirror in mirrors]
    hashes = {m.name: status.held.approve for m, status in held if status and status.held}
    found = [mirror for mirror in mirrors if hashes.get(mirror.name) == approval]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(mirror.name for mirror in found)
        raise UsageError(f"More than one mirror holds a plan with this hash: name one of {names}.")
    now = ", ".join(f"{hash_} of {name}" for name, hash_ in hashes.items())
    raise SkynetError(
        f"No daemon holds a plan with the hash {printable(approval)}. "
        + (f"Held now: {printable(now)}." if now else "None is held now: skynet status."),
        "not-held",
    )


def _ask(mirror: Mirror, command: Command, face: Face) -> ExitCode:
    try:
        obeyed, words = ask(state_of(mirror), command, clock=time.time, sleep=time.sleep)
    except SkynetError as error:
        face.error(f"{mirror.name}: {error}")
        return error.exit_code
    if not obeyed:
        face.error(f"{mirror.name}: {printable(words)}")
        return ExitCode.PROBLEMS
    face.say([answer_line(mirror.name, words)])
    return ExitCode.IN_SYNC


def _mirrors(options: Options) -> list[Mirror]:
    return load_mirrors(options, os.environ, Path.cwd())
