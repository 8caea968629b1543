"""What service managers are told of the daemon: systemd's unit, launchd's plist, Windows' task.

Values to text; `service` finds the values and writes the text. Pure. None of it holds a secret:
the files can be read by all users of the machine.
"""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from skynet.errors import UsageError
from skynet.target import printable

NAME = "skynet"  # of the unit and the task
LABEL = "local.skynet"  # of launchd's agent
MARKER = "Written by skynet service install"  # a file without it is somebody else's
STOP_SECONDS = 15
SYSTEM_STATE = "/var/lib/skynet"  # what StateDirectory=skynet makes
SHARED_TMP = ("/tmp", "/var/tmp")  # noqa: S108 -- the directories themselves are meant
# Control characters, bytes that are no UTF-8, and what XML does not allow.
UNSAYABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

HEAD = f"""\
# {MARKER}; the next one replaces it.
# Keep changes of your own in a drop-in: systemctl {{scope}}edit skynet
[Unit]
Description=skynet, a one-way file mirror over SFTP
"""
SERVICE = f"""\

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=120
ExecStart={{command}}
Restart=on-failure
RestartSec=30
# 2: the configuration is wrong, and will be the next time. 130: it was asked to end.
RestartPreventExitStatus=2
SuccessExitStatus=130
KillSignal=SIGTERM
TimeoutStopSec={STOP_SECONDS}
"""
AGENT = """\
# Without an SSH agent, unless its socket is named here, in a drop-in:
# Environment=SSH_AUTH_SOCK=%t/ssh-agent.socket
"""
# What needs no privilege, so that the manager of a user can do it too.
HARDENING = """\
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
"""
# All of the file system can be read, since anything may be mirrored, and only the state written.
# root may read files of others; another user has no capability at all.
SYSTEM_HARDENING = """\
SystemCallFilter=@system-service
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateDevices=yes
RestrictNamespaces=yes
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What is to be run. command: an absolute program and its arguments; all paths absolute."""

    command: tuple[str, ...]
    reads: tuple[str, ...] = ()  # the configuration and the sources
    writes: tuple[str, ...] = ()  # the state directories
    user: str = ""  # who runs it, where that is not who installs it
    agent: str = ""  # the socket of an SSH agent, below the user's runtime directory


def user_unit(daemon: Daemon) -> str:
    """The unit for systemd's manager of one user; UsageError for what a unit cannot say."""
    agent = AGENT
    if daemon.agent:
        agent = f'Environment="SSH_AUTH_SOCK=%t/{_quotable(daemon.agent)}"\n'
    return (
        HEAD.format(scope="--user ")
        + SERVICE.format(command=_exec_line(daemon.command))
        + agent
        + HARDENING
        + "\n[Install]\nWantedBy=default.target\n"
    )


def system_unit(daemon: Daemon) -> str:
    """The unit for systemd's manager of the machine; UsageError for what a unit cannot say."""
    own = [f"User={daemon.user}\n"]
    if SYSTEM_STATE in daemon.writes:
        own.append(f"StateDirectory={NAME}\nStateDirectoryMode=0700\n")
    others = [path for path in daemon.writes if path != SYSTEM_STATE]
    if others:
        own.append(f"ReadWritePaths={_words(others)}\n")
    # A /tmp of its own would hide what is to be read there.
    if not any(_is_within(path, SHARED_TMP) for path in (*daemon.reads, *daemon.writes)):
        own.append("PrivateTmp=yes\n")
    return (
        HEAD.format(scope="")
        + "Wants=network-online.target\nAfter=network-online.target remote-fs.target\n"
        + SERVICE.format(command=_exec_line(daemon.command))
        + "".join(own)
        + HARDENING
        + SYSTEM_HARDENING
        + "\n[Install]\nWantedBy=multi-user.target\n"
    )


def launch_agent(daemon: Daemon) -> str:
    """The property list for launchd; UsageError for what it cannot say."""
    values = {
        "Label": LABEL,
        "ProgramArguments": [_sayable(word) for word in daemon.command],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 60,
        "ExitTimeOut": STOP_SECONDS,
        "Umask": 0o077,
    }
    text = plistlib.dumps(values, sort_keys=False).decode()
    opening = "<plist version"
    return text.replace(opening, f"<!-- {MARKER}; the next one replaces it. -->\n{opening}", 1)


def task(daemon: Daemon) -> str:
    """The task for Windows' scheduler, in XML; UsageError for what it cannot say."""
    program, *arguments = map(_sayable, daemon.command)
    for word in daemon.command:
        if "%" in word or "$(" in word:
            raise UsageError(
                f'The task scheduler cannot be told of "{printable(word)}": it would replace what '
                "stands behind the % or $. Choose another name."
            )
    return TASK.format(
        marker=MARKER,
        user=escape(_sayable(daemon.user)),
        program=escape(program),
        arguments=escape(" ".join(map(_windows_word, arguments))),
    )


TASK = """\
<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>{marker}; the next one replaces it.</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
      <UserId>{user}</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{user}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <AllowHardTerminate>true</AllowHardTerminate>
    <StartWhenAvailable>true</StartWhenAvailable>
    <RunOnlyIfNetworkAvailable>false</RunOnlyIfNetworkAvailable>
    <IdleSettings>
      <StopOnIdleEnd>false</StopOnIdleEnd>
      <RestartOnIdle>false</RestartOnIdle>
    </IdleSettings>
    <AllowStartOnDemand>true</AllowStartOnDemand>
    <Enabled>true</Enabled>
    <Hidden>true</Hidden>
    <RunOnlyIfIdle>false</RunOnlyIfIdle>
    <WakeToRun>false</WakeToRun>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>7</Priority>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>999</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{program}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"""


def _exec_line(command: Sequence[str]) -> str:
    """The command for ExecStart=.

    A $ would be the name of a variable, also in the program's own path, where doubling it does not
    help; the colon says that there are none. systemd takes no program with a quote in its path.
    """
    if any(character in command[0] for character in "\"'\\"):
        raise UsageError(
            f"systemd runs no program with a quote or backslash in its path: {command[0]}. Install "
            "skynet in another directory."
        )
    return (":" if any("$" in word for word in command) else "") + _words(command)


def _words(words: Iterable[str]) -> str:
    return " ".join(f'"{_quotable(word)}"' for word in words)


def _quotable(word: str) -> str:
    """The word as it stands between systemd's double quotes."""
    word = _sayable(word).replace("%", "%%")
    return word.replace("\\", "\\\\").replace('"', '\\"')


def _windows_word(word: str) -> str:
    """A word of a command line as Windows programs take it apart.

    Backslashes are doubled where a quote follows, be it one of the word or the closing one.
    """
    quoted = '"'
    slashes = 0
    for character in word:
        if character == '"':
            quoted += "\\" * (slashes + 1)
        slashes = slashes + 1 if character == "\\" else 0
        quoted += character
    return quoted + "\\" * slashes + '"'


def _sayable(word: str) -> str:
    """The word; UsageError if it has control characters, or bytes that are no text."""
    if UNSAYABLE.search(word):
        raise UsageError(
            f'A service cannot be told of "{printable(word)}": it has control characters, or bytes '
            "that are no text. Choose another name."
        )
    return word


def _is_within(path: str, directories: Iterable[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in directories)
