"""Puts the daemon under a service manager: systemd, launchd, or Windows' task scheduler.

What these are told is made in `units`. Here it is written, and their programs are run: by argument
lists, without a shell, each with a deadline. A definition that skynet did not write is never
touched.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skynet.errors import SkynetError, UsageError
from skynet.target import printable
from skynet.units import LABEL, MARKER, NAME

Platform = Literal["linux", "macos", "windows"]
Call = tuple[str, ...]

CALL_SECONDS = 120  # systemd itself waits 90 for a service to be ready
OUTPUT_LIMIT = 1 << 16  # characters kept of what a program says
FILE_LIMIT = 1 << 20  # bytes of a definition; a longer file is none of ours
SYSTEMD_RUNS = Path("/run/systemd/system")  # see sd_booted(3)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended and what it said, on both of its streams."""

    code: int
    text: str


Run = Callable[[Call], Ran]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """A service manager: where it finds the definition of the daemon, and how it is talked to."""

    file: Path
    encoding: str = "utf-8"
    clear: tuple[Call, ...] = ()  # end what runs; they fail if nothing does
    start: tuple[Call, ...]  # take the file, and run what it says from now on
    stop: tuple[Call, ...] = ()  # never run it again
    forget: tuple[Call, ...] = ()  # when the file is gone
    show: Call
    defined: Call | None = None  # prints the definition, where the manager has one of its own
    runs_if: Path | None = None  # a directory that is there while the manager runs
    hint: str = ""  # a sentence for a person who has installed it


def this_platform() -> Platform:
    """The platform of this machine; whatever is neither macOS nor Windows counts as Linux."""
    if sys.platform == "win32":
        return "windows"
    return "macos" if sys.platform == "darwin" else "linux"


def systemd_of_user(environ: Mapping[str, str], home: Path) -> Manager:
    """The systemd manager of this user."""
    configuration = environ.get("XDG_CONFIG_HOME", "")
    base = Path(configuration) if os.path.isabs(configuration) else home / ".config"
    hint = "It ends when you log out for good, unless you allow it once: loginctl enable-linger"
    return _systemd(base / "systemd" / "user", ("--user",), hint)


def systemd_of_machine() -> Manager:
    """The systemd manager of the machine."""
    return _systemd(Path("/etc/systemd/system"), (), "")


def _systemd(directory: Path, scope: Call, hint: str) -> Manager:
    unit = f"{NAME}.service"
    systemctl = ("systemctl", *scope)
    reload = (*systemctl, "daemon-reload")
    return Manager(
        file=directory / unit,
        # restart, since `enable --now` leaves one that runs as it is
        start=(reload, (*systemctl, "enable", unit), (*systemctl, "restart", unit)),
        stop=((*systemctl, "disable", "--now", unit),),
        forget=(reload,),
        show=(*systemctl, "status", "--no-pager", "--lines=10", unit),
        runs_if=SYSTEMD_RUNS,
        hint=hint,
    )


def launchd(home: Path, user_id: int) -> Manager:
    """The manager that macOS runs for this user."""
    file = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    domain = f"gui/{user_id}"
    agent = f"{domain}/{LABEL}"
    return Manager(
        file=file,
        clear=(("launchctl", "bootout", agent),),
        start=(("launchctl", "enable", agent), ("launchctl", "bootstrap", domain, str(file))),
        show=("launchctl", "print", agent),
    )


def task_scheduler(state: Path) -> Manager:
    """Windows' task scheduler. state: the directory for the file that it reads once."""
    file = state / "service.xml"
    named = ("/TN", NAME)
    return Manager(
        file=file,
        encoding="utf-16",
        clear=(("schtasks", "/End", *named),),
        start=(
            ("schtasks", "/Create", *named, "/XML", str(file), "/F"),
            ("schtasks", "/Run", *named),
        ),
        stop=(("schtasks", "/Delete", *named, "/F"),),
        show=("schtasks", "/Query", *named, "/V", "/FO", "LIST"),
        defined=("schtasks", "/Query", *named, "/XML"),
    )


def run_call(call: Call) -> Ran:
    """Run a program to its end, or for CALL_SECONDS; 127 and 124 if that was not to be."""
    try:
        done = subprocess.run(  # noqa: S603 -- a list without a shell, made above
            call,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=CALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(124, f"it did not end within {CALL_SECONDS} s")
    except OSError as error:
        return Ran(127, f"it cannot be run: {error.strerror}")
    return Ran(done.returncode, done.stdout.decode("utf-8", "replace")[:OUTPUT_LIMIT])


def expect_root() -> None:
    """UsageError unless this process may define services of the machine."""
    if sys.platform == "win32" or os.geteuid() != 0:
        raise UsageError(
            "A service of the machine can be installed and removed by root only: run it with sudo, "
            "or leave out --system for a service of your own."
        )


def home_of(user: str) -> Path:
    """A user's home directory; UsageError if there is no such user."""
    if sys.platform == "win32":
        raise UsageError("--user is for systemd's services of the machine.")
    import pwd

    try:
        return Path(pwd.getpwnam(user).pw_dir)
    except KeyError:
        raise UsageError(f'--user "{printable(user)}": there is no such user.') from None


def is_installed(manager: Manager, run: Run = run_call) -> bool:
    """Whether there is a definition; UsageError if there is one that skynet did not write."""
    if manager.defined is not None:
        ran = run(manager.defined)
        text, where = (None if ran.code else ran.text), f'the task "{NAME}"'
    else:
        text, where = _read(manager), str(manager.file)
    if text is not None and MARKER not in text:
        raise UsageError(
            f"{where} is there, and skynet did not write it. Nothing was changed: remove or rename "
            "it first, if it is not needed.",
            "not-ours",
        )
    return text is not None


def install(manager: Manager, text: str, run: Run = run_call) -> tuple[Call, ...]:
    """Write the definition, and start the daemon, again if it ran.

    Gives the calls that are left to be made where the manager does not run. UsageError if there is
    a definition of somebody else's, SkynetError if the manager refuses.
    """
    is_installed(manager, run)
    _write(manager.file, text.encode(manager.encoding))
    if not _runs(manager):
        return manager.start
    for call in manager.clear:
        run(call)
    _make(manager.start, run, f"{manager.file} is written, but the service does not run.")
    return ()


def uninstall(manager: Manager, run: Run = run_call) -> bool:
    """End the daemon and remove its definition; False if there was none. Raises as `install`."""
    if not is_installed(manager, run):
        return False
    runs = _runs(manager)
    if runs:
        for call in manager.clear:
            run(call)
        _make(manager.stop, run, f"{manager.file} is still there.")
    manager.file.unlink(missing_ok=True)
    if runs:
        _make(manager.forget, run, f"{manager.file} is removed.")
    return True


def status(manager: Manager, run: Run = run_call) -> Ran:
    """What the manager says of the daemon; code 0 if it runs."""
    if not _runs(manager):
        return Ran(1, f"No service manager runs here: there is no {manager.runs_if}.\n")
    return run(manager.show)


def _runs(manager: Manager) -> bool:
    return manager.runs_if is None or manager.runs_if.is_dir()


def _make(calls: Sequence[Call], run: Run, state: str) -> None:
    """Make the calls until one fails: SkynetError says which, why, and what is left to do."""
    for number, call in enumerate(calls):
        ran = run(call)
        if ran.code:
            why = printable(" ".join(ran.text.split())).rstrip(".") or f"exit code {ran.code}"
            left = "; ".join(map(shlex.join, calls[number:]))
            raise SkynetError(
                f"{shlex.join(call)} failed: {why}. {state} When the cause is gone, run: {left}",
                "service",
            )


def _read(manager: Manager) -> str | None:
    """The definition, at most FILE_LIMIT of it; None if there is none."""
    try:
        with manager.file.open("rb") as file:
            return file.read(FILE_LIMIT).decode(manager.encoding, "replace")
    except FileNotFoundError:
        if manager.file.is_symlink():
            return ""  # leads nowhere, but somebody has put it there
        return None
    except OSError as error:
        raise UsageError(f"{manager.file} cannot be read: {error.strerror}.") from None


def _write(file: Path, data: bytes) -> None:
    """Put the definition in its place at once, for all to read."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{NAME}-", dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from None
