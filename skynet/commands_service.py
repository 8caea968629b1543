"""What `skynet service` does: from the configuration found now to a service that runs with it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skynet import service, units
from skynet.config import Mirror, Options, config_file, load_mirrors, state_base
from skynet.console import Face
from skynet.errors import ExitCode, SkynetError, UsageError
from skynet.service import Manager, Platform
from skynet.target import printable

__all__ = ["Face", "Wanted", "daemon_of", "install", "status", "uninstall"]

USER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. platform: None for that of this machine."""

    names: tuple[str, ...] = ()
    config: Path | None = None
    state_dir: Path | None = None
    platform: Platform | None = None
    system: bool = False
    user: str = ""


def install(wanted: Wanted, face: Face, *, show: bool) -> int:
    """Write the service and start it. show: print what would be written and run, do neither."""
    try:
        platform = _platform(wanted, show=show)
        manager = _manager(platform, wanted)
        text = _definition(platform, wanted)
        if platform == service.this_platform():
            service.is_installed(manager)  # what would be refused is not shown either
        if show:
            _write(_shown(manager, text))
            return ExitCode.IN_SYNC
        left = service.install(manager, text)
    except SkynetError as error:
        return face.fail(error)
    _write([f"{manager.file} is written."])
    if left:
        _write(["No service manager runs here. Where one does, run:", *map(shlex.join, left)])
        return ExitCode.PROBLEMS
    _write(["The service runs: skynet service status", *([manager.hint] if manager.hint else [])])
    if "SKYNET_PASSWORD" in os.environ:
        _write(["It is not told SKYNET_PASSWORD: use password_command or password_file."])
    return ExitCode.IN_SYNC


def uninstall(wanted: Wanted, face: Face) -> int:
    """End the service and remove it. What the mirrors know of their remotes stays."""
    try:
        manager = _manager(_platform(wanted, show=False), wanted)
        there = service.uninstall(manager)
    except SkynetError as error:
        return face.fail(error)
    _write([f"{manager.file} is removed." if there else "There is no service to remove."])
    return ExitCode.IN_SYNC


def status(wanted: Wanted, face: Face) -> int:
    """What the service manager says of it; exit code 0 if it runs, else 1."""
    try:
        manager = _manager(service.this_platform(), wanted)
        if not service.is_installed(manager):
            _write(["There is no service. Make one: skynet service install"])
            return ExitCode.PROBLEMS
        ran = service.status(manager)
    except SkynetError as error:
        return face.fail(error)
    _write(map(printable, ran.text.splitlines()))
    return ExitCode.PROBLEMS if ran.code else ExitCode.IN_SYNC


def _platform(wanted: Wanted, *, show: bool) -> Platform:
    """The platform that is meant; UsageError if this process cannot install there."""
    here = service.this_platform()
    platform = wanted.platform or here
    if wanted.system and platform != "linux":
        raise UsageError("--system is for systemd. On this platform a service is a user's own.")
    if not show:
        if platform != here:
            raise UsageError("--for another platform shows what is to be done there: add --print.")
        if wanted.system:
            service.expect_root()
    return platform


def _manager(platform: Platform, wanted: Wanted) -> Manager:
    if platform == "windows":
        return service.task_scheduler(_own_place())
    if platform == "macos":
        return service.launchd(Path.home(), os.getuid() if hasattr(os, "getuid") else 501)
    if wanted.system:
        return service.systemd_of_machine()
    return service.systemd_of_user(os.environ, Path.home())


def _definition(platform: Platform, wanted: Wanted) -> str:
    """The text for the service manager; ConfigError, UsageError."""
    daemon = daemon_of(platform, wanted)
    if platform == "windows":
        return units.task(daemon)
    if platform == "macos":
        return units.launch_agent(daemon)
    return units.system_unit(daemon) if wanted.system else units.user_unit(daemon)


def daemon_of(platform: Platform, wanted: Wanted) -> units.Daemon:
    """What is to be run, and who runs it; ConfigError, UsageError."""
    user = _user(platform, wanted)
    options = Options(names=wanted.names, config=wanted.config, state_dir=wanted.state_dir)
    cwd = Path.cwd()
    file = config_file(options, os.environ, cwd)
    mirrors = load_mirrors(options, os.environ, cwd)
    given = _given_state(wanted, mirrors)
    command = [_program(platform), "-P", "-m", "skynet", "daemon", "-c", str(file)]
    if given is not None:
        command += ["--state-dir", str(given)]
    log = _log_file(platform)
    if log is not None:
        command += ["--log-file", str(log)]
    states = [given] if given is not None else [mirror.state_dir for mirror in mirrors]
    if wanted.system and platform == service.this_platform():
        _expect_usable(user, [Path(os.fsdecode(each.source)) for each in mirrors], states)
    return units.Daemon(
        command=(*command, *wanted.names),
        reads=(str(file), *(os.fsdecode(mirror.source) for mirror in mirrors)),
        writes=tuple(dict.fromkeys(map(str, states))),
        user=user,
        agent=_agent(os.environ),
    )


def _program(platform: Platform) -> str:
    """The Python that runs now; on Windows the one that opens no window."""
    silent = Path(sys.executable).with_name("pythonw.exe")
    return str(silent) if platform == "windows" and silent.exists() else sys.executable


def _log_file(platform: Platform) -> Path | None:
    """Where the daemon is to log, because the manager keeps nothing of what it says."""
    if platform == "macos":
        return Path.home() / "Library" / "Logs" / "skynet.log"
    return _own_place() / "skynet.log" if platform == "windows" else None


def _own_place() -> Path:
    """Where the service's own files are on Windows, whatever --state-dir says for the mirrors.

    `uninstall` has no such option.
    """
    return state_base(Options(), os.environ, Path.cwd())


def _given_state(wanted: Wanted, mirrors: Sequence[Mirror]) -> Path | None:
    """The state directory that the daemon must be told, for it would not find it by itself.

    A shell's variables are not the service's. A service of the machine has a directory of its own,
    which systemd makes.
    """
    base = state_base(Options(state_dir=wanted.state_dir), os.environ, Path.cwd())
    if wanted.state_dir or os.environ.get("SKYNET_STATE_DIR"):
        return base
    at_default = [mirror for mirror in mirrors if mirror.state_dir == base]
    if len(at_default) < len(mirrors):
        if wanted.system and at_default:
            raise UsageError(
                f"{at_default[0].name} has no state_dir, and others have one. A service of the "
                "machine needs it for all of them or for none; or one for all: --state-dir."
            )
        return None
    if wanted.system:
        return Path(units.SYSTEM_STATE)
    return base if os.environ.get("XDG_STATE_HOME") else None


def _user(platform: Platform, wanted: Wanted) -> str:
    """Who runs it, as the manager wants to be told; "" where that is who installs it."""
    if wanted.user and not wanted.system:
        raise UsageError("--user goes with --system; without it the service is your own.")
    if platform == "windows":
        domain, name = (os.environ.get(each, "") for each in ("USERDOMAIN", "USERNAME"))
        return f"{domain}\\{name}" if domain else name
    if not wanted.system:
        return ""
    if not USER_NAME.fullmatch(wanted.user):
        raise UsageError("Say who runs a service of the machine: --user NAME. It can be root.")
    return wanted.user


def _expect_usable(user: str, sources: Sequence[Path], states: Sequence[Path]) -> None:
    """UsageError if a path is in our home and not in the user's, or a state directory is missing.

    A ~ would mean another home to the service, and what ProtectSystem= lets it write must be there.
    """
    home = Path.home()
    astray = [path for path in (*sources, *states) if path.is_relative_to(home)]
    if service.home_of(user) != home and astray:
        raise UsageError(
            f"{printable(str(astray[0]))} is in your home, and {user} has another. Write the path "
            "without ~, to what that user may read and write."
        )
    for path in states:
        if str(path) != units.SYSTEM_STATE and not path.is_dir():
            raise UsageError(
                f"There is no state directory {printable(str(path))}. Make it first: "
                f"{shlex.join(['install', '-d', '-m', '700', '-o', user, str(path)])}"
            )


def _agent(environ: Mapping[str, str]) -> str:
    """The SSH agent's socket, if it has the same place at each login; relative to that."""
    agent, runtime = environ.get("SSH_AUTH_SOCK", ""), environ.get("XDG_RUNTIME_DIR", "")
    return agent.removeprefix(f"{runtime}/") if runtime and agent.startswith(f"{runtime}/") else ""


def _shown(manager: Manager, text: str) -> list[str]:
    calls = map(shlex.join, (*manager.clear, *manager.start))
    return [f"# {manager.file}", text, "# then:", *calls]


def _write(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
