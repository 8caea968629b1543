"""What service managers are told: every word arrives as it is, and the texts are what was agreed.

The goldens were read by systemd 252; `systemd-analyze verify` reads them again where it is there.
"""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skynet.errors import UsageError
from skynet.units import MARKER, Daemon, launch_agent, system_unit, task, user_unit

COMMAND = ("/opt/python", "-P", "-m", "skynet", "daemon", "-c", "/home/me/skynet.toml", "my docs")
PLAIN = Daemon(
    command=COMMAND, reads=("/home/me/skynet.toml", "/data"), writes=("/var/lib/skynet",), user="me"
)

# Words that a manager would take apart, or replace something in.
HARD = ["a b", '"', "'", "\\", 'end\\"', "%h", "%%", "100%", "$HOME", "${A}", "$$", ";", "#", "",
        " ", "\\x41", "<&>", "]]>", "é", "日本", "*", "@x", "-x"]  # fmt: skip
sayable = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff"))
words = st.lists(st.sampled_from(HARD) | sayable, max_size=5)


def test_the_unit_of_a_user() -> None:
    assert (
        user_unit(PLAIN)
        == f"""\
# {MARKER}; the next one replaces it.
# Keep changes of your own in a drop-in: systemctl --user edit skynet
[Unit]
Description=skynet, a one-way file mirror over SFTP

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=120
ExecStart="/opt/python" "-P" "-m" "skynet" "daemon" "-c" "/home/me/skynet.toml" "my docs"
Restart=on-failure
RestartSec=30
# 2: the configuration is wrong, and will be the next time. 130: it was asked to end.
RestartPreventExitStatus=2
SuccessExitStatus=130
KillSignal=SIGTERM
TimeoutStopSec=15
# Without an SSH agent, unless its socket is named here, in a drop-in:
# Environment=SSH_AUTH_SOCK=%t/ssh-agent.socket
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native

[Install]
WantedBy=default.target
"""
    )


def test_the_unit_of_the_machine() -> None:
    assert (
        system_unit(PLAIN)
        == f"""\
# {MARKER}; the next one replaces it.
# Keep changes of your own in a drop-in: systemctl edit skynet
[Unit]
Description=skynet, a one-way file mirror over SFTP
Wants=network-online.target
After=network-online.target remote-fs.target

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=120
ExecStart="/opt/python" "-P" "-m" "skynet" "daemon" "-c" "/home/me/skynet.toml" "my docs"
Restart=on-failure
RestartSec=30
# 2: the configuration is wrong, and will be the next time. 130: it was asked to end.
RestartPreventExitStatus=2
SuccessExitStatus=130
KillSignal=SIGTERM
TimeoutStopSec=15
User=me
StateDirectory=skynet
StateDirectoryMode=0700
PrivateTmp=yes
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
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

[Install]
WantedBy=multi-user.target
"""
    )


def setting(text: str, key: str) -> list[str]:
    """The values that a unit has for a key."""
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_a_unit_may_write_the_state_directories_and_nothing_else() -> None:
    [paths] = setting(
        system_unit(Daemon(command=COMMAND, writes=("/srv/a b", '/srv/100%"'), user="me")),
        "ReadWritePaths",
    )
    assert paths == r'"/srv/a b" "/srv/100%%\""'


@pytest.mark.parametrize("path", ["/tmp", "/tmp/x", "/var/tmp/x"])
def test_what_lies_in_the_shared_tmp_is_not_hidden_behind_a_private_one(path: str) -> None:
    read = Daemon(command=COMMAND, reads=(path,), user="me")
    written = Daemon(command=COMMAND, writes=(path,), user="me")
    for daemon in (read, written):
        assert setting(system_unit(daemon), "PrivateTmp") == []
    beside = Daemon(command=COMMAND, reads=("/tmpfiles",), user="me")
    assert setting(system_unit(beside), "PrivateTmp") == ["yes"]


def test_an_agent_is_named_below_the_directory_that_each_login_has() -> None:
    text = user_unit(Daemon(command=COMMAND, agent="key ring%/ssh"))
    assert setting(text, "Environment") == ['"SSH_AUTH_SOCK=%t/key ring%%/ssh"']


# Every word arrives


def systemd_words(line: str) -> Iterator[str]:
    """ExecStart= as systemd reads it (checked against systemd 252 with --test)."""
    literal = line.startswith(":")
    rest = line.removeprefix(":")
    while rest:
        match = re.match(r'"((?:[^"\\]|\\["\\])*)"(?: |$)', rest)
        assert match is not None, rest
        word = re.sub(r"\\(.)", r"\1", match[1])
        assert "%" not in word.replace("%%", "")
        assert literal or "$" not in word
        yield word.replace("%%", "%")
        rest = rest[match.end() :]


@given(words)
@example(HARD)
def test_systemd_runs_the_words_that_were_given(arguments: list[str]) -> None:
    command = ["/opt/py", *arguments]
    daemon = Daemon(command=tuple(command), user="me")
    for text in (user_unit(daemon), system_unit(daemon)):
        assert len(text.splitlines()) >= 20
        [line] = setting(text, "ExecStart")
        assert list(systemd_words(line)) == command


@given(words)
@example(HARD)
def test_launchd_runs_the_words_that_were_given(arguments: list[str]) -> None:
    command = ["/opt/py", *arguments]
    text = launch_agent(Daemon(command=tuple(command)))
    assert MARKER in text
    values = plistlib.loads(text.encode())
    assert values["ProgramArguments"] == command
    assert values["KeepAlive"] == {"SuccessfulExit": False}


def windows_words(line: str) -> list[str]:
    """A command line as Microsoft's C runtime takes it apart."""
    found: list[str] = []
    word, quoted, begun, at = "", False, False, 0
    while at < len(line):
        slashes = len(line) - at - len(line[at:].lstrip("\\"))
        at += slashes
        if slashes and at < len(line) and line[at] == '"':
            word += "\\" * (slashes // 2)
            if slashes % 2:
                word += '"'
                at += 1
        else:
            word += "\\" * slashes
        begun = begun or slashes > 0
        if slashes:
            continue
        if line[at] == '"':
            quoted, begun = not quoted, True
        elif line[at] == " " and not quoted:
            if begun:
                found.append(word)
            word, begun = "", False
        else:
            word, begun = word + line[at], True
        at += 1
    return [*found, word] if begun else found


def task_values(text: str) -> dict[str, str]:
    """The texts of a task by the names of their elements."""
    root = ElementTree.fromstring(text.encode("utf-16"))
    return {each.tag.rpartition("}")[2]: each.text or "" for each in root.iter()}


@given(words)
@example(HARD)
def test_windows_runs_the_words_that_were_given(arguments: list[str]) -> None:
    command = [r"C:\py thon\pythonw.exe", *(word.replace("%", "&") for word in arguments)]
    command = [word.replace("$(", "$") for word in command]
    values = task_values(task(Daemon(command=tuple(command), user=r"PC\me & co")))
    assert values["Command"] == command[0]
    assert windows_words(values["Arguments"]) == command[1:]
    assert values["UserId"] == r"PC\me & co"


def test_a_task_runs_hidden_without_a_time_limit_and_again_after_a_failure() -> None:
    values = task_values(task(Daemon(command=COMMAND, user="me")))
    assert MARKER in values["Description"]
    assert (values["Hidden"], values["ExecutionTimeLimit"]) == ("true", "PT0S")
    assert (values["Interval"], values["LogonType"]) == ("PT1M", "InteractiveToken")
    assert values["RunLevel"] == "LeastPrivilege"
    assert values["StopIfGoingOnBatteries"] == "false"


@pytest.mark.parametrize("word", ["a\nExecStartPre=/bin/x", "\0", "a\x85b", "\udcff", "\uffff"])
@pytest.mark.parametrize("say", [user_unit, system_unit, launch_agent, task])
def test_a_word_that_would_be_something_else_is_refused(say: object, word: str) -> None:
    assert callable(say)
    with pytest.raises(UsageError, match="cannot be told of") as caught:
        say(Daemon(command=(*COMMAND, word), user="me"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("character", "\"'\\")
def test_a_program_that_systemd_would_not_run_is_refused(character: str) -> None:
    with pytest.raises(UsageError, match="Install skynet in another directory"):
        user_unit(Daemon(command=(f"/opt/a{character}b/python",)))


@pytest.mark.parametrize("word", [r"C:\%TEMP%\x", "$(Arg0)"])
def test_what_the_task_scheduler_would_replace_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="task scheduler cannot be told"):
        task(Daemon(command=(*COMMAND, word), user="me"))


# The real one


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine"
)
@pytest.mark.parametrize("scope", ["--user", "--system"])
def test_systemd_finds_nothing_wrong_with_a_unit(
    tmp_path: Path, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    program = tmp_path / "py %h $HOME; y"  # it must be there, and be executable
    program.symlink_to("/bin/sh")
    daemon = Daemon(
        command=(str(program), *(word for word in HARD if word)),
        writes=("/var/lib/skynet", "/srv/a b%"),
        user="root",
        agent="a b/ssh",
    )
    unit = tmp_path / "skynet.service"
    unit.write_text(user_unit(daemon) if scope == "--user" else system_unit(daemon))
    done = subprocess.run(
        ["systemd-analyze", "verify", scope, "--man=no", "--recursive-errors=no", unit],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about_us = [line for line in done.stderr.splitlines() if "skynet" in line]
    assert (done.returncode, about_us) == (0, [])
