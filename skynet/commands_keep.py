"""What the commands do that keep mirrors in sync, until they are told to end; and `unlock`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from skynet import __version__, lease
from skynet.commands_daemon import place_of
from skynet.config import Mirror, Options, check, load_mirrors
from skynet.console import Face
from skynet.daemon import Pulse, run
from skynet.errors import ExitCode, SkynetError, SourceError
from skynet.keeping import keeping
from skynet.logs import Level, Logs, leads_to_journal
from skynet.memory import claimed
from skynet.monitor import Event, Monitor, Stage
from skynet.notify import Notifier
from skynet.render_status import Place, answer_line, status_lines
from skynet.sftp.credentials import NOBODY
from skynet.status import Seen, Status
from skynet.wiring import connector, surroundings

__all__ = ["Face", "Options", "daemon", "keep", "unlock"]


def daemon(options: Options, log_file: Path | None, face: Face) -> int:
    """Keep the mirrors in sync until a signal ends it."""
    is_journal = leads_to_journal(sys.stderr, os.environ)
    try:
        logs = Logs(None if face.is_quiet else sys.stderr, log_file, journal=is_journal)
    except SkynetError as error:
        return face.fail(error)
    notifier = Notifier.from_environ(os.environ)

    def stopping(why: str) -> None:
        notifier.stopping()
        logs.log("info", "", f"skynet ends: {why}")

    try:
        pulse = Pulse(notifier.ready, lambda _statuses: notifier.alive(), stopping)
        mirrors = _fit_mirrors(options)
        kept = [keeping(each, NOBODY, logs.log, _stages(each, logs.log, face)) for each in mirrors]
        names = ", ".join(mirror.name for mirror in mirrors)
        logs.log("info", "", f"skynet {__version__} keeps {names}")
        return run(kept, time.monotonic, pulse)
    except SkynetError as error:
        logs.log("error", "", str(error))
        return error.exit_code
    finally:
        logs.close()


def keep(options: Options, face: Face) -> int:
    """Keep the mirrors in sync in the foreground, with a live display, until Ctrl-C."""

    def log(level: Level, name: str, message: str) -> None:
        if level == "error":
            face.error(f"{name}: {message}")
        else:
            face.say([answer_line(name, message)])

    try:
        mirrors = _fit_mirrors(options)
        with face.board() as show:
            kept = [keeping(each, face, log, _stages(each, log, face)) for each in mirrors]
            places = [place_of(mirror, options) for mirror in mirrors]
            alive = _shown_on(show, places) if face.is_live else _unseen
            return run(kept, time.monotonic, Pulse(alive=alive))
    except SkynetError as error:
        return face.fail(error)


def _shown_on(
    show: Callable[[Iterable[str]], None], places: Sequence[Place]
) -> Callable[[Sequence[Status]], None]:
    def alive(statuses: Sequence[Status]) -> None:
        now = time.time()
        pairs = zip(places, statuses, strict=True)
        show(line for p, s in pairs for line in status_lines(p, Seen(s, s.pid), now))

    return alive


def _unseen(_statuses: Sequence[Status]) -> None:
    """Where nothing can be shown in place, the log tells what matters."""


def _stages(mirror: Mirror, log: Callable[[Level, str, str], None], face: Face) -> Monitor:
    """Has the log tell what is being done, if it is to be verbose: the status does so anyway."""

    def watching(event: Event) -> None:
        if face.verbose and isinstance(event, Stage):
            log("debug", mirror.name, event.doing)

    return watching


def _fit_mirrors(options: Options) -> list[Mirror]:
    """The mirrors, whose settings fit; a source that is missing now may come back."""
    mirrors = load_mirrors(options, os.environ, Path.cwd())
    for mirror in mirrors:
        with suppress(SourceError):
            check(mirror)
    return mirrors


def unlock(options: Options, face: Face, *, yes: bool) -> int:
    """Remove the lease on each mirror's remote; its holder is watched, unless a person is sure."""
    code = ExitCode.IN_SYNC
    try:
        for mirror in load_mirrors(options, os.environ, Path.cwd()):
            code = max(code, _unlock(mirror, face, force=yes))
    except SkynetError as error:
        return face.fail(error)
    return code


def _unlock(mirror: Mirror, face: Face, *, force: bool) -> ExitCode:
    try:
        with claimed(mirror), face.watch(mirror.name) as watching:
            around = surroundings(watching)
            remote = connector(mirror, face, os.environ, watching)()
            try:
                holder = lease.unlock(
                    remote,
                    around.token(6).hex(),
                    force=force,
                    pid_space=around.pid_space,
                    clock=around.clock,
                    sleep=around.sleep,
                    monitor=watching,
                )
            finally:
                remote.close()
    except SkynetError as error:
        face.error(f"{mirror.name}: {error}")
        return error.exit_code
    words = f"The lease of {holder} was taken away." if holder else "Nobody holds the lease."
    face.say([answer_line(mirror.name, words)])
    return ExitCode.IN_SYNC
