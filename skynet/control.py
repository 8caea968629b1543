"""Commands to a running daemon, and its answers: files in the state directory, and no open port.

    ID.command   made whole by who asks, taken away by the daemon before it obeys
    ID.answer    made whole by the daemon, taken away by who asked

A command is obeyed once or never. It tells when it was given: one that a daemon finds EXPIRY
seconds later is refused, so nothing that was said to a daemon that died happens days after.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from skynet.errors import SkynetError, UsageError
from skynet.state import holder, is_locked, make_private
from skynet.statefile import cut, encode, read, replace
from skynet.status import Seen, read_status

COMMANDS = "commands"  # the directory
PAUSED = "paused"  # a file beside it that is there while the mirror is paused
EXPIRY = 60.0  # seconds
MAX_BYTES = 64 * 1024  # of a command or an answer
MAX_FILES = 1000  # of the directory, looked at in one go
MAX_MESSAGE = 4000  # characters of an answer
SETTLED = 2.0  # seconds; a file system may tell the times of two changes so far apart as one
LOOK_AGAIN = 0.05  # seconds

_COMMAND = ".command"
_ANSWER = ".answer"

Verb = Literal["pause", "resume", "sync-now", "approve"]


class NoDaemon(SkynetError):
    """No daemon runs for the mirror, or it does not answer."""

    code = "no-daemon"


class Command(msgspec.Struct, frozen=True):
    """What is asked of a daemon. argument: of `approve`, the hash."""

    verb: Verb
    argument: str = ""


class _Asked(msgspec.Struct, frozen=True):
    """What a command's file holds. asked: unix seconds."""

    asked: float
    command: Command


class _Answer(msgspec.Struct, frozen=True):
    ok: bool
    message: str


def look(directory: Path) -> Seen:
    """What is known of the daemon of a mirror. UsageError if its state cannot be read."""
    working = holder(directory)
    return Seen(read_status(directory), working)


def note_pause(directory: Path, *, is_paused: bool) -> None:
    """Let a restart know whether the mirror with this state directory is paused. OSError."""
    marker = directory / PAUSED
    if is_paused:
        marker.touch(mode=0o600)
    else:
        marker.unlink(missing_ok=True)


class Mailbox:
    """The daemon's side. directory: COMMANDS in the mirror's state directory. clock: unix seconds.

    A disk that fails here stops nothing. Who asks is told that no answer comes.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock
        self._empty_at: int | None = None  # the directory's time when it was last found empty
        make_private(self._directory)

    def take(self) -> list[tuple[str, Command]]:
        """Ids and commands that came, oldest first; each is given once.

        One stat while nothing comes. What cannot be obeyed is answered here.
        """
        try:
            changed = os.stat(self._directory).st_mtime_ns
            if changed == self._empty_at:
                return []
            files = _files(self._directory)
            at_rest = self._clock() - changed / 1e9 > SETTLED
            self._empty_at = changed if at_rest and not files else None
        except FileNotFoundError:
            with suppress(SkynetError):  # as the class says
                make_private(self._directory)  # local state may be deleted at any time
            return []
        except OSError:
            return []  # as the class says
        found = [each for path in files if (each := self._took(path)) is not None]
        found.sort(key=lambda each: (each[1].asked, each[0]))
        return [(name, asked.command) for name, asked in found]

    def answer(self, id: str, message: str, *, ok: bool) -> None:  # noqa: A002  # the contract
        """Tell who gave the command with this id what came of it."""
        with suppress(OSError):  # as the class says
            replace(
                self._directory / (id + _ANSWER), encode(_Answer(ok, cut(message, MAX_MESSAGE)))
            )

    def _took(self, path: Path) -> tuple[str, _Asked] | None:
        """The command of this file, which is removed; None if it holds none to be obeyed."""
        try:
            if path.suffix != _COMMAND:
                self._sweep(path)
                return None
            data = read(path, MAX_BYTES)
            path.unlink()
        except (OSError, UsageError):
            return None  # who asked has given up, or is told that no answer comes
        asked = _decoded(data)
        if asked is None:
            self.answer(path.stem, "This is no command that this skynet knows.", ok=False)
        elif abs(self._clock() - asked.asked) > EXPIRY:
            self.answer(path.stem, "The command came too late, so it was not obeyed.", ok=False)
        else:
            return path.stem, asked
        return None

    def _sweep(self, path: Path) -> None:
        """Remove an answer that nobody took, or what a write that broke off left."""
        if abs(self._clock() - path.stat().st_mtime) > EXPIRY:
            path.unlink()


def _decoded(data: bytes | None) -> _Asked | None:
    try:
        return msgspec.json.decode(data or b"", type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _files(directory: Path) -> list[Path]:
    with os.scandir(directory) as entries:
        some = islice(entries, MAX_FILES)
        return [Path(each.path) for each in some if each.is_file(follow_symlinks=False)]


def ask(
    directory: Path,
    command: Command,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    timeout: float = 10.0,
) -> tuple[bool, str]:
    """Give the daemon of a mirror a command: whether it obeyed, and what it says.

    clock: unix seconds. timeout: seconds. NoDaemon if there is none, or it does not answer; the
    command is withdrawn then.
    """
    if not is_locked(directory):
        raise NoDaemon("No daemon runs for this mirror. Start one: skynet daemon")
    place = directory / COMMANDS / os.urandom(8).hex()
    given, answered = place.with_suffix(_COMMAND), place.with_suffix(_ANSWER)
    try:
        replace(given, encode(_Asked(clock(), command)))
        for _ in range(max(1, round(timeout / LOOK_AGAIN))):
            sleep(LOOK_AGAIN)
            data = read(answered, MAX_BYTES)
            if data is not None:
                answer = msgspec.json.decode(data, type=_Answer)
                return answer.ok, answer.message
    except FileNotFoundError:
        words = "works on this mirror and takes no commands: it is no daemon, or begins just now."
        raise NoDaemon(f"Process {holder(directory)} {words}", "no-mailbox") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NoDaemon(f"The daemon cannot be asked: {error}.", "not-asked") from None
    finally:
        for path in (given, answered):
            with suppress(OSError):  # the daemon removes what it finds too old
                path.unlink()
    raise NoDaemon(
        f"The daemon (process {holder(directory)}) did not answer within {timeout:.0f} s, and the "
        "command is withdrawn.",
        "no-answer",
    )
